//! The calls that take one futex operation each, with sizes and scopes in flags: `futex_waitv(2)`, `futex_wait(2)`,
//! `futex_wake(2)`, `futex_requeue(2)`.

use alloc::vec::Vec;

use husk_abi::linux::general::{
    __kernel_timespec, CLOCK_MONOTONIC, CLOCK_REALTIME, FUTEX_BITSET_MATCH_ANY, FUTEX_PRIVATE_FLAG,
};

use super::key::{Key, Scope};
use super::queue::Node;
use super::{Entry, Futexes, Sleeper, ops};
use crate::sync::{Interruptible, WaitError, Waiter};
use crate::syscall::{Addr, Clock, Hex, Int, Ptr, Uint};
use crate::time::{Deadline, timespec_ns, wait_deadline};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

/// `FUTEX2_SIZE_U32`, the only size there is.
const SIZE_U32: u32 = 2;
/// The most futexes of one call (`FUTEX_WAITV_MAX`).
const WAITV_MAX: u32 = 128;

fn scope(flags: u32) -> Result<Scope> {
    match flags & !FUTEX_PRIVATE_FLAG {
        SIZE_U32 if flags & FUTEX_PRIVATE_FLAG != 0 => Ok(Scope::Private),
        SIZE_U32 => Ok(Scope::Shared),
        _ => Err(Errno::EINVAL),
    }
}

/// A value or mask of a 32-bit futex.
fn word(value: u64) -> Result<u32> {
    u32::try_from(value).map_err(|_| Errno::EINVAL)
}

/// All timeouts are absolute.
fn deadline(timeout: UserAddr, clock: i32) -> Result<Option<Deadline>> {
    if timeout.is_null() {
        return Ok(None);
    }
    let make = match clock.cast_unsigned() {
        CLOCK_REALTIME => Deadline::Realtime,
        CLOCK_MONOTONIC => Deadline::Monotonic,
        _ => return Err(Errno::EINVAL),
    };
    let timeout: __kernel_timespec = timeout.read()?;
    Ok(Some(make(timespec_ns(&timeout)?)))
}

/// `struct futex_waitv`.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    address: UserAddr,
    value: u32,
    scope: Scope,
}

impl Wanted {
    fn read(at: UserAddr) -> Result<Self> {
        let [value, address, flags] = at.read::<[u64; 3]>()?;
        // The upper half is reserved.
        let scope = scope(word(flags)?)?;
        Ok(Self {
            address: UserAddr(address),
            value: word(value)?,
            scope,
        })
    }

    fn read_all(at: UserAddr, count: u32) -> Result<Vec<Self>> {
        (0..u64::from(count))
            .map(|index| Self::read(at.add(index * 24)))
            .collect()
    }
}

/// Leaves all queues; the last of the futexes that were woken.
fn leave_all(futexes: &Futexes, entries: &[Entry]) -> Option<usize> {
    let mut woken = None;
    for (index, entry) in entries.iter().enumerate() {
        if !futexes.leave(entry) {
            woken = Some(index);
        }
    }
    woken
}

/// `futex_waitv(2)`: sleeps until one of several futexes is woken, whose index it returns.
///
/// # Errors
/// `EINVAL`, `EFAULT`; `EAGAIN` if a word has another value; `ETIMEDOUT`, `EINTR`.
pub fn futex_waitv(
    t: &Thread,
    waiters: Ptr,
    count: Uint,
    flags: Uint,
    timeout: Ptr,
    clock: Clock,
) -> SysResult {
    if flags != 0 || count == 0 || count > WAITV_MAX || waiters.is_null() {
        return Err(Errno::EINVAL);
    }
    let deadline = deadline(timeout, clock)?;
    let wanted = Wanted::read_all(waiters, count)?;
    let keys = wanted
        .iter()
        .map(|wanted| Key::of(t, wanted.address, wanted.scope))
        .collect::<Result<Vec<_>>>()?;
    let futexes = &t.kernel.futexes;
    let waiter = Waiter::new(t);
    let mut entries: Vec<Entry> = Vec::with_capacity(keys.len());
    for (wanted, key) in wanted.iter().zip(keys) {
        let mut bucket = futexes.bucket(key);
        let is_as_wanted = wanted.address.load_u32().map(|word| word == wanted.value);
        if is_as_wanted != Ok(true) {
            drop(bucket);
            return match (leave_all(futexes, &entries), is_as_wanted) {
                (Some(woken), _) => Ok(woken),
                (None, Err(errno)) => Err(errno),
                (None, Ok(_)) => Err(Errno::EAGAIN),
            };
        }
        let sleeper = Sleeper {
            waiter: waiter.clone(),
            tid: t.tid(),
            requeue_to: None,
        };
        let node = Node::new(sleeper, FUTEX_BITSET_MATCH_ANY, futexes.next_place(key));
        bucket.insert(node.clone());
        entries.push(node);
    }
    let result = wait_deadline(t, &waiter, Interruptible::Yes, deadline, || {
        entries.iter().any(|entry| entry.is_woken()).then_some(())
    });
    match (leave_all(futexes, &entries), result) {
        (Some(woken), _) => Ok(woken),
        (None, Err(WaitError::TimedOut)) => Err(Errno::ETIMEDOUT),
        (None, _) => Err(Errno::ERESTARTSYS),
    }
}

/// `futex_wait(2)`.
///
/// # Errors
/// As [`futex_waitv`].
pub fn futex_wait(
    t: &Thread,
    address: Addr,
    value: Hex,
    mask: Hex,
    flags: Uint,
    timeout: Ptr,
    clock: Clock,
) -> SysResult {
    let scope = scope(flags)?;
    let (value, mask) = (word(value)?, word(mask)?);
    let deadline = deadline(timeout, clock)?;
    ops::wait(t, UserAddr(address), scope, value, deadline, mask)
}

/// `futex_wake(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub fn futex_wake(t: &Thread, address: Addr, mask: Hex, count: Int, flags: Uint) -> SysResult {
    let scope = scope(flags)?;
    let mask = word(mask)?;
    if count == 0 && mask != 0 {
        // Unlike the old call.
        Key::of(t, UserAddr(address), scope)?;
        return Ok(0);
    }
    ops::wake(t, UserAddr(address), scope, count, mask)
}

/// `futex_requeue(2)`: as `FUTEX_CMP_REQUEUE`, with the two futexes in an array.
///
/// # Errors
/// `EINVAL`, `EFAULT`, `EAGAIN`.
pub fn futex_requeue(t: &Thread, waiters: Ptr, flags: Uint, wake: Int, requeue: Int) -> SysResult {
    if flags != 0 || waiters.is_null() {
        return Err(Errno::EINVAL);
    }
    let wanted = Wanted::read_all(waiters, 2)?;
    let [from, to] = [wanted[0], wanted[1]];
    if from.scope != to.scope {
        return Err(Errno::EINVAL);
    }
    let expected = Some(from.value);
    ops::requeue(
        t,
        from.address,
        to.address,
        from.scope,
        (wake, requeue),
        expected,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_values() {
        assert_eq!(scope(2), Ok(Scope::Shared));
        assert_eq!(scope(2 | 128), Ok(Scope::Private));
        for bad in [0, 1, 3, 2 | 4, 2 | 256] {
            assert_eq!(scope(bad), Err(Errno::EINVAL), "{bad}");
        }
        assert_eq!(word(1 << 32), Err(Errno::EINVAL));
    }
}
