//! Waiting, waking and requeueing (`futex(2)`).

use core::sync::atomic::Ordering;

use husk_abi::linux::general::{
    FUTEX_OP_ADD, FUTEX_OP_ANDN, FUTEX_OP_CMP_EQ, FUTEX_OP_CMP_GE, FUTEX_OP_CMP_GT,
    FUTEX_OP_CMP_LE, FUTEX_OP_CMP_LT, FUTEX_OP_CMP_NE, FUTEX_OP_OPARG_SHIFT, FUTEX_OP_OR,
    FUTEX_OP_SET, FUTEX_OP_XOR,
};

use super::key::Scope;
use super::queue::{Node, Place};
use super::{Entry, Futexes, Key, Queue, Sleeper};
use crate::signal::restart_with;
use crate::sync::{Interruptible, WaitError};
use crate::time::{Deadline, wait_deadline};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

impl Futexes {
    /// A place at the end of `key`'s queue.
    pub(super) fn next_place(&self, key: Key) -> Place {
        Place {
            key,
            turn: self.turns.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Takes a waiter that gives up out of its queue; false if it was woken before.
    pub(super) fn leave(&self, entry: &Entry) -> bool {
        loop {
            let place = entry.place();
            let mut bucket = self.bucket(place.key);
            if entry.is_woken() {
                return false;
            }
            // It may have been requeued between reading its place and locking that place's bucket.
            if entry.place() == place {
                return bucket.remove(place);
            }
        }
    }

    /// Wakes up to `limit` waiters of `key` whose bitset meets `bitset`; returns how many.
    ///
    /// As on Linux a limit of 0 (or less) counts as 1.
    pub(super) fn wake(&self, key: Key, limit: i32, bitset: u32) -> usize {
        wake_in(&mut self.bucket(key), key, limit, bitset)
    }
}

fn wake_in(queue: &mut Queue, key: Key, limit: i32, bitset: u32) -> usize {
    let limit = usize::try_from(limit).unwrap_or(0).max(1);
    let (mut woken, mut from) = (0, 0);
    while woken < limit
        && let Some(node) = queue.take(key, bitset, &mut from)
    {
        release(&node);
        woken += 1;
    }
    woken
}

/// Wakes the thread of a waiter that was taken out of its queue.
pub(super) fn release(entry: &Entry) {
    entry.mark_woken();
    entry.who.waiter.wake();
}

/// `FUTEX_WAIT`, `FUTEX_WAIT_BITSET`: sleeps if the word is `value`.
pub(super) fn wait(
    t: &Thread,
    address: UserAddr,
    scope: Scope,
    value: u32,
    deadline: Option<Deadline>,
    bitset: u32,
) -> SysResult {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    let key = Key::of(t, address, scope)?;
    let futexes = &t.kernel.futexes;
    let entry = {
        let mut bucket = futexes.bucket(key);
        // With the bucket locked no wake can come between this test and the sleep.
        if address.load_u32()? != value {
            return Err(Errno::EAGAIN);
        }
        let node = Node::new(Sleeper::new(t), bitset, futexes.next_place(key));
        bucket.insert(node.clone());
        node
    };
    let result = wait_deadline(t, &entry.who.waiter, Interruptible::Yes, deadline, || {
        entry.is_woken().then_some(())
    });
    match result {
        Ok(()) => Ok(0),
        // Woken at the last moment: the waker has counted this thread, so it must count.
        Err(_) if !futexes.leave(&entry) => Ok(0),
        Err(WaitError::TimedOut) => Err(Errno::ETIMEDOUT),
        Err(WaitError::Interrupted) if deadline.is_none() => Err(Errno::ERESTARTSYS),
        Err(WaitError::Interrupted) => Err(restart_with(t, move |t| {
            wait(t, address, scope, value, deadline, bitset)
        })),
    }
}

/// `FUTEX_WAKE`, `FUTEX_WAKE_BITSET`.
pub(super) fn wake(
    t: &Thread,
    address: UserAddr,
    scope: Scope,
    limit: i32,
    bitset: u32,
) -> SysResult {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    let key = Key::of(t, address, scope)?;
    Ok(t.kernel.futexes.wake(key, limit, bitset))
}

/// `FUTEX_REQUEUE`, `FUTEX_CMP_REQUEUE`: wakes some waiters of one futex and moves others to a second.
pub(super) fn requeue(
    t: &Thread,
    from: UserAddr,
    to: UserAddr,
    scope: Scope,
    (wake, requeue): (i32, i32),
    expected: Option<u32>,
) -> SysResult {
    let limit = |count: i32| usize::try_from(count).map_err(|_| Errno::EINVAL);
    let (wake, requeue) = (limit(wake)?, limit(requeue)?);
    let (from_key, to_key) = (Key::of(t, from, scope)?, Key::of(t, to, scope)?);
    let futexes = &t.kernel.futexes;
    let mut pair = futexes.pair(from_key, to_key);
    if let Some(expected) = expected
        && from.load_u32()? != expected
    {
        return Err(Errno::EAGAIN);
    }
    let mut count = 0;
    for node in pair.first().take_many(from_key, wake) {
        release(&node);
        count += 1;
    }
    for node in pair.first().take_many(from_key, requeue) {
        let place = futexes.next_place(to_key);
        pair.second().insert_at(node, place);
        count += 1;
    }
    Ok(count)
}

/// `FUTEX_WAKE_OP`: changes the second word, wakes waiters of the first, and of the second if its old value
/// compares as asked.
pub(super) fn wake_op(
    t: &Thread,
    first: UserAddr,
    second: UserAddr,
    scope: Scope,
    (wake_first, wake_second): (i32, i32),
    encoded: u32,
) -> SysResult {
    let (first_key, second_key) = (Key::of(t, first, scope)?, Key::of(t, second, scope)?);
    let op = WordOp::decode(encoded)?;
    let mut pair = t.kernel.futexes.pair(first_key, second_key);
    let old = second.fetch_update_u32(|old| Some(op.apply(old)))?;
    let also_second = op.compare(old)?;
    let mut woken = wake_in(pair.first(), first_key, wake_first, u32::MAX);
    if also_second {
        woken += wake_in(pair.second(), second_key, wake_second, u32::MAX);
    }
    Ok(woken)
}

/// The operation and comparison that `FUTEX_WAKE_OP` packs into `val3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WordOp {
    op: u32,
    operand: u32,
    comparison: u32,
    against: i32,
}

impl WordOp {
    fn decode(encoded: u32) -> Result<Self> {
        let signed_12_bits = |value: u32| ((value << 20) as i32) >> 20;
        let op = encoded >> 28 & 7;
        let mut operand = signed_12_bits(encoded >> 12) as u32;
        if encoded >> 28 & FUTEX_OP_OPARG_SHIFT != 0 {
            // Linux masks shift counts out of range.
            operand = 1 << (operand & 31);
        }
        if op > FUTEX_OP_XOR {
            return Err(Errno::ENOSYS);
        }
        Ok(Self {
            op,
            operand,
            comparison: encoded >> 24 & 15,
            against: signed_12_bits(encoded),
        })
    }

    fn apply(self, old: u32) -> u32 {
        match self.op {
            FUTEX_OP_SET => self.operand,
            FUTEX_OP_ADD => old.wrapping_add(self.operand),
            FUTEX_OP_OR => old | self.operand,
            FUTEX_OP_ANDN => old & !self.operand,
            _ => old ^ self.operand,
        }
    }

    /// `ENOSYS` for an unknown comparison comes after the change of the word, as on Linux.
    fn compare(self, old: u32) -> Result<bool> {
        let old = old as i32;
        match self.comparison {
            FUTEX_OP_CMP_EQ => Ok(old == self.against),
            FUTEX_OP_CMP_NE => Ok(old != self.against),
            FUTEX_OP_CMP_LT => Ok(old < self.against),
            FUTEX_OP_CMP_LE => Ok(old <= self.against),
            FUTEX_OP_CMP_GT => Ok(old > self.against),
            FUTEX_OP_CMP_GE => Ok(old >= self.against),
            _ => Err(Errno::ENOSYS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::WordOp;
    use crate::Errno;

    fn encode(op: u32, comparison: u32, operand: u32, against: u32) -> u32 {
        op << 28 | comparison << 24 | (operand & 0xfff) << 12 | against & 0xfff
    }

    #[test]
    fn word_ops() {
        let apply =
            |op, operand, old| WordOp::decode(encode(op, 0, operand, 0)).map(|op| op.apply(old));
        assert_eq!(apply(0, 7, 1), Ok(7));
        assert_eq!(apply(1, !0, 5), Ok(4)); // adds -1
        assert_eq!(apply(2, 6, 1), Ok(7));
        assert_eq!(apply(3, 6, 7), Ok(1));
        assert_eq!(apply(4, 5, 7), Ok(2));
        assert_eq!(apply(5, 0, 0), Err(Errno::ENOSYS));
        assert_eq!(apply(8 | 2, 4, 1), Ok(17)); // FUTEX_OP_OPARG_SHIFT
    }

    #[test]
    fn comparisons_are_signed() {
        let compare = |cmp, against, old| {
            WordOp::decode(encode(0, cmp, 0, against)).and_then(|op| op.compare(old))
        };
        assert_eq!(compare(0, 3, 3), Ok(true));
        assert_eq!(compare(1, 3, 3), Ok(false));
        assert_eq!(compare(2, 0, u32::MAX), Ok(true)); // -1 < 0
        assert_eq!(compare(4, !0, 0), Ok(true)); // 0 > -1
        assert_eq!(compare(3, 3, 3), Ok(true));
        assert_eq!(compare(5, 4, 3), Ok(false));
        assert_eq!(compare(6, 0, 0), Err(Errno::ENOSYS));
    }
}
