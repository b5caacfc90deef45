//! Who waits for which futex: the data structure alone, without blocking.
//!
//! A bucket holds its waiters ordered by (futex, arrival), so that waking the oldest waiter of one futex, leaving
//! before one's turn and moving to another futex each cost a logarithm, however many threads wait.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use super::Key;
use crate::sync::SpinLock;

/// Where a waiter stands: its futex, and its turn there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub key: Key,
    pub turn: u64,
}

/// One waiting thread; `W` says who.
#[derive(Debug)]
pub(super) struct Node<W> {
    pub who: W,
    bitset: u32,
    /// Set when it leaves its queue by being woken; never cleared.
    woken: AtomicBool,
    /// Changed only with the buckets of the old and the new place locked.
    place: SpinLock<Place>,
}

impl<W> Node<W> {
    pub fn new(who: W, bitset: u32, place: Place) -> Arc<Self> {
        Arc::new(Self {
            who,
            bitset,
            woken: AtomicBool::new(false),
            place: SpinLock::new(place),
        })
    }

    pub fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    /// To be called by who took it out of its queue, before the thread is woken.
    pub fn mark_woken(&self) {
        self.woken.store(true, Ordering::Release);
    }

    pub fn place(&self) -> Place {
        *self.place.lock()
    }
}

/// The waiters of all futexes of one bucket.
#[derive(Debug)]
pub(super) struct Queue<W> {
    waiters: BTreeMap<Place, Arc<Node<W>>>,
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self {
            waiters: BTreeMap::new(),
        }
    }
}

impl<W> Queue<W> {
    /// Adds a waiter at its place.
    pub fn insert(&mut self, node: Arc<Node<W>>) {
        self.waiters.insert(node.place(), node);
    }

    /// Takes `node` out if it stands at `place`; false if it does not (any more).
    pub fn remove(&mut self, place: Place) -> bool {
        self.waiters.remove(&place).is_some()
    }

    /// Takes the oldest waiter of `key` with turn at least `*from` whose bitset meets `bitset`, and moves `*from`
    /// behind it, so that a series of calls passes each waiter once.
    pub fn take(&mut self, key: Key, bitset: u32, from: &mut u64) -> Option<Arc<Node<W>>> {
        let start = Place { key, turn: *from };
        let end = Place {
            key,
            turn: u64::MAX,
        };
        let place = self
            .waiters
            .range(start..end)
            .find(|(_, node)| node.bitset & bitset != 0)
            .map(|(place, _)| *place)?;
        *from = place.turn + 1;
        self.waiters.remove(&place)
    }

    /// Takes up to `limit` of the oldest waiters of `key`.
    pub fn take_many(&mut self, key: Key, limit: usize) -> Vec<Arc<Node<W>>> {
        let mut from = 0;
        core::iter::from_fn(|| self.take(key, u32::MAX, &mut from))
            .take(limit)
            .collect()
    }

    /// Adds a waiter taken from another futex at a new place.
    pub fn insert_at(&mut self, node: Arc<Node<W>>, place: Place) {
        *node.place.lock() = place;
        self.waiters.insert(place, node);
    }

    /// The oldest waiter of `key`, left in the queue.
    pub fn first(&self, key: Key) -> Option<&Arc<Node<W>>> {
        let start = Place { key, turn: 0 };
        let end = Place {
            key,
            turn: u64::MAX,
        };
        self.waiters.range(start..end).next().map(|(_, node)| node)
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, Node, Place, Queue};

    const A: Key = Key::private(1, 0x1000);
    const B: Key = Key::private(1, 0x1004);

    fn queue(waiters: &[(u32, Key, u32)]) -> Queue<u32> {
        let mut queue = Queue::default();
        for (turn, (name, key, bitset)) in waiters.iter().enumerate() {
            let place = Place {
                key: *key,
                turn: turn as u64,
            };
            queue.insert(Node::new(*name, *bitset, place));
        }
        queue
    }

    fn wake(queue: &mut Queue<u32>, key: Key, bitset: u32, count: usize) -> Vec<u32> {
        let mut from = 0;
        std::iter::from_fn(|| queue.take(key, bitset, &mut from))
            .take(count)
            .map(|node| node.who)
            .collect()
    }

    #[test]
    fn wakes_in_order_of_arrival_and_only_its_futex() {
        let mut queue = queue(&[(1, A, !0), (2, B, !0), (3, A, !0), (4, A, !0)]);
        assert_eq!(wake(&mut queue, A, !0, 2), [1, 3]);
        assert_eq!(wake(&mut queue, A, !0, 9), [4]);
        assert_eq!(wake(&mut queue, A, !0, 9), []);
        assert_eq!(wake(&mut queue, B, !0, 9), [2]);
    }

    #[test]
    fn bitsets_select() {
        let mut queue = queue(&[(1, A, 1), (2, A, 2), (3, A, 3), (4, A, 4)]);
        assert_eq!(wake(&mut queue, A, 2, 9), [2, 3]);
        assert_eq!(wake(&mut queue, A, !0, 9), [1, 4]);
    }

    #[test]
    fn requeue_keeps_order_behind_those_already_there() {
        let mut queue = queue(&[(1, A, !0), (2, A, !0), (3, B, !0), (4, A, !0)]);
        for (index, node) in queue.take_many(A, 2).into_iter().enumerate() {
            let place = Place {
                key: B,
                turn: 10 + index as u64,
            };
            queue.insert_at(node, place);
        }
        assert_eq!(wake(&mut queue, A, !0, 9), [4]);
        assert_eq!(queue.first(B).map(|node| node.who), Some(3));
        assert_eq!(wake(&mut queue, B, !0, 9), [3, 1, 2]);
    }

    #[test]
    fn a_waiter_leaves_once() {
        let mut queue = queue(&[(1, A, !0), (2, A, !0)]);
        let place = Place { key: A, turn: 0 };
        assert!(queue.remove(place));
        assert!(!queue.remove(place));
        assert_eq!(wake(&mut queue, A, !0, 9), [2]);
    }

    #[test]
    fn buckets_spread_neighbouring_words() {
        let mut used = std::collections::BTreeSet::new();
        for word in 0..256u64 {
            let key = Key::private(0xffff_8080_0123_4000, 0x7f00_0000_0000 + word * 4);
            used.insert(key.bucket(256));
        }
        assert!(used.len() > 100, "{} of 256 buckets", used.len());
    }
}
