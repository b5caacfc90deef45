//! `FUTEX_WAIT_REQUEUE_PI` and `FUTEX_CMP_REQUEUE_PI`: condition variables over locks whose owner the kernel knows.
//!
//! Waiters of the condition say at once which lock they will want. Who signals the condition gives the lock to the
//! first of them, if it is free, and puts the others in the lock's queue.

use husk_abi::linux::general::{FUTEX_BITSET_MATCH_ANY, FUTEX_TID_MASK, FUTEX_WAITERS};

use super::key::{Key, Scope};
use super::pi::{self, Attempt};
use super::queue::Node;
use super::{Entry, Sleeper, ops};
use crate::sync::{Interruptible, WaitError};
use crate::time::{Deadline, wait_deadline};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

/// The keys of a condition and its lock, which must be two.
fn keys(t: &Thread, condition: UserAddr, lock: UserAddr, scope: Scope) -> Result<(Key, Key)> {
    let keys = (Key::of(t, condition, scope)?, Key::of(t, lock, scope)?);
    if keys.0 == keys.1 {
        return Err(Errno::EINVAL);
    }
    Ok(keys)
}

/// `FUTEX_WAIT_REQUEUE_PI`: sleeps if the condition's word is `value`, and has the lock when it returns 0.
pub(super) fn wait(
    t: &Thread,
    condition: UserAddr,
    lock: UserAddr,
    scope: Scope,
    value: u32,
    deadline: Option<Deadline>,
) -> SysResult {
    let (key, lock_key) = keys(t, condition, lock, scope)?;
    let futexes = &t.kernel.futexes;
    let entry = {
        let mut bucket = futexes.bucket(key);
        if condition.load_u32()? != value {
            return Err(Errno::EAGAIN);
        }
        let sleeper = Sleeper {
            requeue_to: Some(lock_key),
            ..Sleeper::new(t)
        };
        let node = Node::new(sleeper, FUTEX_BITSET_MATCH_ANY, futexes.next_place(key));
        bucket.insert(node.clone());
        node
    };
    let result = wait_deadline(t, &entry.who.waiter, Interruptible::Yes, deadline, || {
        entry.is_woken().then_some(())
    });
    if let Err(error) = result
        && futexes.leave(&entry)
    {
        let was_requeued = entry.place().key == lock_key;
        if was_requeued {
            pi::left(futexes, lock_key);
        }
        return Err(match error {
            WaitError::TimedOut => Errno::ETIMEDOUT,
            WaitError::Interrupted if was_requeued => Errno::EAGAIN,
            WaitError::Interrupted => Errno::ERESTARTNOINTR,
        });
    }
    if lock.load_u32()? & FUTEX_TID_MASK == t.tid() {
        return Ok(0);
    }
    // The lock's owner has died.
    pi::lock(t, lock, scope, deadline)
}

/// `FUTEX_CMP_REQUEUE_PI`; returns how many got the lock or wait for it now.
pub(super) fn requeue(
    t: &Thread,
    condition: UserAddr,
    lock: UserAddr,
    scope: Scope,
    (wake, requeue): (i32, i32),
    expected: u32,
) -> SysResult {
    if wake != 1 {
        return Err(Errno::EINVAL);
    }
    let mut limit = usize::try_from(requeue).map_err(|_| Errno::EINVAL)? + 1;
    let (key, lock_key) = keys(t, condition, lock, scope)?;
    let futexes = &t.kernel.futexes;
    loop {
        let mut pair = futexes.pair(key, lock_key);
        if condition.load_u32()? != expected {
            return Err(Errno::EAGAIN);
        }
        let waits_for_it = |entry: &Entry| entry.who.requeue_to == Some(lock_key);
        let Some(first) = pair.first().first(key).cloned() else {
            return Ok(0);
        };
        if !waits_for_it(&first) {
            return Err(Errno::EINVAL);
        }
        let tid = first.who.tid;
        let word = lock.load_u32()?;
        let has_waiters = pair.second().first(lock_key).is_some();
        let died = |owner| futexes.contended.lock().get(&(owner, lock_key)) == Some(&true);
        let mut count = 0;
        let owner = match pi::attempt(word, tid, has_waiters, died) {
            Attempt::Take(new) => {
                if lock.compare_exchange_u32(word, new)? != word {
                    continue;
                }
                let mut contended = futexes.contended.lock();
                contended.remove(&(word & FUTEX_TID_MASK, lock_key));
                if has_waiters {
                    contended.insert((tid, lock_key), false);
                }
                drop(contended);
                for entry in pair.first().take_many(key, 1) {
                    ops::release(&entry);
                }
                count = 1;
                limit -= 1;
                tid
            }
            Attempt::Owned(owner) if owner == tid => return Err(Errno::EDEADLK),
            Attempt::Owned(owner) => {
                if t.kernel.tasks.thread(owner).is_none() {
                    return Err(Errno::ESRCH);
                }
                owner
            }
        };
        let mut moved = false;
        for _ in 0..limit {
            let Some(next) = pair.first().first(key).cloned() else {
                break;
            };
            if !waits_for_it(&next) {
                return Err(Errno::EINVAL);
            }
            if !moved {
                // From now on the owner's unlock comes to the kernel.
                lock.fetch_update_u32(|word| Some(word | FUTEX_WAITERS))?;
                futexes.contended.lock().insert((owner, lock_key), false);
                moved = true;
            }
            for entry in pair.first().take_many(key, 1) {
                let place = futexes.next_place(lock_key);
                pair.second().insert_at(entry, place);
                count += 1;
            }
        }
        return Ok(count);
    }
}
