//! Futexes whose owner the kernel knows: `FUTEX_LOCK_PI` and its kin.
//!
//! The word holds the owner's thread id, and `FUTEX_WAITERS` sends its unlock here, where the lock goes to the
//! thread that has waited longest. There is nothing to inherit: all threads run with one priority.

use alloc::collections::BTreeMap;

use husk_abi::linux::general::{
    FUTEX_BITSET_MATCH_ANY, FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS,
};

use super::key::Scope;
use super::queue::Node;
use super::{Futexes, Key, Sleeper, ops};
use crate::sync::{Interruptible, WaitError};
use crate::time::{Deadline, wait_deadline};
use crate::user::UserAddr;
use crate::{Errno, SysResult, Thread};

/// Locks somebody waits for, by owner; true once the owner has ended without unlocking.
pub(super) type Contended = BTreeMap<(u32, Key), bool>;

/// What the word allows a thread that wants the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The lock is free if the word can be replaced by this.
    Take(u32),
    /// It belongs to this thread.
    Owned(u32),
}

/// Judges `word` for thread `tid`. `owner_died` says whether a thread id is known to have left the lock behind.
pub(super) fn attempt(
    word: u32,
    tid: u32,
    has_waiters: bool,
    owner_died: impl FnOnce(u32) -> bool,
) -> Attempt {
    let owner = word & FUTEX_TID_MASK;
    let waiters = if has_waiters { FUTEX_WAITERS } else { 0 };
    if owner == 0 {
        Attempt::Take(tid | word & FUTEX_OWNER_DIED | waiters)
    } else if owner_died(owner) {
        Attempt::Take(tid | FUTEX_OWNER_DIED | waiters)
    } else {
        Attempt::Owned(owner)
    }
}

/// `FUTEX_LOCK_PI`, `FUTEX_LOCK_PI2`.
pub(super) fn lock(
    t: &Thread,
    address: UserAddr,
    scope: Scope,
    deadline: Option<Deadline>,
) -> SysResult {
    acquire(t, address, scope, Some(deadline))
}

/// `FUTEX_TRYLOCK_PI`: user space saw an owner; the kernel may know that it is dead.
pub(super) fn try_lock(t: &Thread, address: UserAddr, scope: Scope) -> SysResult {
    acquire(t, address, scope, None)
}

/// `wait` is `None` not to wait at all, else the deadline.
fn acquire(
    t: &Thread,
    address: UserAddr,
    scope: Scope,
    wait: Option<Option<Deadline>>,
) -> SysResult {
    let key = Key::of(t, address, scope)?;
    let futexes = &t.kernel.futexes;
    let tid = t.tid();
    loop {
        let mut bucket = futexes.bucket(key);
        let word = address.load_u32()?;
        let died = |owner| futexes.contended.lock().get(&(owner, key)) == Some(&true);
        let has_waiters = bucket.first(key).is_some();
        let owner = match attempt(word, tid, has_waiters, died) {
            Attempt::Take(new) => {
                if address.compare_exchange_u32(word, new)? != word {
                    continue;
                }
                let mut contended = futexes.contended.lock();
                contended.remove(&(word & FUTEX_TID_MASK, key));
                if has_waiters {
                    contended.insert((tid, key), false);
                }
                return Ok(0);
            }
            Attempt::Owned(owner) if owner == tid => return Err(Errno::EDEADLK),
            Attempt::Owned(owner) => owner,
        };
        if t.kernel.tasks.thread(owner).is_none() {
            return Err(Errno::ESRCH);
        }
        let Some(deadline) = wait else {
            return Err(Errno::EAGAIN);
        };
        if address.compare_exchange_u32(word, word | FUTEX_WAITERS)? != word {
            continue;
        }
        let place = futexes.next_place(key);
        let entry = Node::new(Sleeper::new(t), FUTEX_BITSET_MATCH_ANY, place);
        bucket.insert(entry.clone());
        futexes.contended.lock().insert((owner, key), false);
        drop(bucket);

        let result = wait_deadline(t, &entry.who.waiter, Interruptible::Yes, deadline, || {
            entry.is_woken().then_some(())
        });
        if let Err(error) = result
            && futexes.leave(&entry)
        {
            left(futexes, key);
            return Err(match error {
                WaitError::TimedOut => Errno::ETIMEDOUT,
                WaitError::Interrupted => Errno::ERESTARTNOINTR,
            });
        }
        // Woken: either the unlocker has written this thread's id, or the owner died and the lock is to be
        // taken from it.
        if address.load_u32()? & FUTEX_TID_MASK == tid {
            return Ok(0);
        }
    }
}

/// A waiter of `key` gave up: without waiters its owner is nobody's business.
pub(super) fn left(futexes: &Futexes, key: Key) {
    let bucket = futexes.bucket(key);
    if bucket.first(key).is_none() {
        futexes
            .contended
            .lock()
            .retain(|(_, other), _| *other != key);
    }
}

/// `FUTEX_UNLOCK_PI`: hands the lock to the longest waiter, or frees it.
pub(super) fn unlock(t: &Thread, address: UserAddr, scope: Scope) -> SysResult {
    let key = Key::of(t, address, scope)?;
    let futexes = &t.kernel.futexes;
    let tid = t.tid();
    let mut bucket = futexes.bucket(key);
    loop {
        let word = address.load_u32()?;
        if word & FUTEX_TID_MASK != tid {
            return Err(Errno::EPERM);
        }
        let next = bucket.first(key).map_or(0, |node| node.who.tid);
        let new = if next == 0 { 0 } else { next | FUTEX_WAITERS };
        if address.compare_exchange_u32(word, new)? != word {
            continue;
        }
        let woken = bucket.take(key, FUTEX_BITSET_MATCH_ANY, &mut 0);
        let mut contended = futexes.contended.lock();
        contended.remove(&(tid, key));
        if bucket.first(key).is_some() {
            contended.insert((next, key), false);
        }
        drop(contended);
        if let Some(node) = woken {
            ops::release(&node);
        }
        return Ok(0);
    }
}

/// The locks the ending thread still owns go to their longest waiters, marked `FUTEX_OWNER_DIED`.
pub(super) fn exit(t: &Thread) {
    let futexes = &t.kernel.futexes;
    let tid = t.tid();
    let next = || {
        let contended = futexes.contended.lock();
        contended
            .range((tid, Key::MIN)..=(tid, Key::MAX))
            .find(|(_, died)| !**died)
            .map(|((_, key), _)| *key)
    };
    while let Some(key) = next() {
        let mut bucket = futexes.bucket(key);
        let heir = bucket.take(key, FUTEX_BITSET_MATCH_ANY, &mut 0);
        let mut contended = futexes.contended.lock();
        match heir {
            Some(heir) => {
                contended.insert((tid, key), true);
                drop(contended);
                ops::release(&heir);
            }
            None => {
                contended.remove(&(tid, key));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Attempt, attempt};
    use husk_abi::linux::general::{FUTEX_OWNER_DIED, FUTEX_WAITERS};

    #[test]
    fn free_words_can_be_taken() {
        let judge = |word, waiters| attempt(word, 7, waiters, |_| false);
        assert_eq!(judge(0, false), Attempt::Take(7));
        assert_eq!(judge(0, true), Attempt::Take(7 | FUTEX_WAITERS));
        assert_eq!(
            judge(FUTEX_OWNER_DIED | FUTEX_WAITERS, false),
            Attempt::Take(7 | FUTEX_OWNER_DIED)
        );
        assert_eq!(judge(9 | FUTEX_WAITERS, true), Attempt::Owned(9));
    }

    #[test]
    fn a_dead_owner_leaves_its_mark() {
        assert_eq!(
            attempt(9 | FUTEX_WAITERS, 7, true, |owner| owner == 9),
            Attempt::Take(7 | FUTEX_OWNER_DIED | FUTEX_WAITERS)
        );
    }
}
