//! Futexes (`futex(2)`), and what a thread's exit does to them.
//!
//! | module | what |
//! | --- | --- |
//! | `key` | which words are the same futex |
//! | `queue` | who waits: the data structure |
//! | `ops` | wait, wake, requeue, wake-op |
//! | `pi`, `requeue_pi` | locks whose owner the kernel knows, and conditions over them |
//! | `futex2` | the calls for one operation each, `futex_waitv` |
//! | `robust` | robust lists, `set_tid_address(2)` |
//!
//! # Locks
//! A bucket is a [`sync::Mutex`](crate::sync::Mutex), because the word is read with it held and that may fault: it
//! comes before the address space's lock. Two buckets are locked in index order. Timer callbacks and
//! interrupts never take one.

pub mod futex2;
mod key;
mod ops;
mod pi;
mod queue;
mod requeue_pi;
mod robust;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;

use husk_abi::linux::general::{
    __kernel_timespec, FUTEX_BITSET_MATCH_ANY, FUTEX_CLOCK_REALTIME, FUTEX_CMP_REQUEUE,
    FUTEX_CMP_REQUEUE_PI, FUTEX_LOCK_PI, FUTEX_LOCK_PI2, FUTEX_PRIVATE_FLAG, FUTEX_REQUEUE,
    FUTEX_TRYLOCK_PI, FUTEX_UNLOCK_PI, FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAIT_REQUEUE_PI,
    FUTEX_WAKE, FUTEX_WAKE_BITSET, FUTEX_WAKE_OP,
};

use crate::sync::{Mutex, MutexGuard, SpinLock, Waiter};
use crate::time::{Deadline, timespec_ns};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

use key::{Key, Scope};
pub use robust::{
    clear_child_tid, exit_robust_list, get_robust_list, set_robust_list, set_tid_address,
};

/// Number of buckets, a power of two.
const BUCKETS: usize = 256;

/// A thread that waits for a futex.
#[derive(Debug)]
struct Sleeper {
    waiter: Arc<Waiter>,
    tid: u32,
    /// The lock it wants after the condition it waits for (`FUTEX_WAIT_REQUEUE_PI`).
    requeue_to: Option<Key>,
}

impl Sleeper {
    fn new(t: &Thread) -> Self {
        Self {
            waiter: Waiter::new(t),
            tid: t.tid(),
            requeue_to: None,
        }
    }
}

type Entry = Arc<queue::Node<Sleeper>>;
type Queue = queue::Queue<Sleeper>;

/// Wait queues by futex.
#[derive(Debug)]
pub struct Futexes {
    buckets: Vec<Mutex<Queue>>,
    /// Orders waiters by arrival.
    turns: AtomicU64,
    /// PI locks with waiters; locked after the bucket.
    contended: SpinLock<pi::Contended>,
}

/// The buckets of two futexes, which may be one.
struct Pair<'a> {
    guards: [Option<MutexGuard<'a, Queue>>; 2],
    first: usize,
    second: usize,
}

impl Pair<'_> {
    fn queue(&mut self, which: usize) -> &mut Queue {
        self.guards[which].as_deref_mut().expect("locked by pair()")
    }

    fn first(&mut self) -> &mut Queue {
        self.queue(self.first)
    }

    fn second(&mut self) -> &mut Queue {
        self.queue(self.second)
    }
}

impl Futexes {
    /// No waiters.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Mutex::default()).collect(),
            turns: AtomicU64::new(1),
            contended: SpinLock::default(),
        }
    }

    fn bucket(&self, key: Key) -> MutexGuard<'_, Queue> {
        self.buckets[key.bucket(BUCKETS)].lock()
    }

    fn pair(&self, first: Key, second: Key) -> Pair<'_> {
        let (first, second) = (first.bucket(BUCKETS), second.bucket(BUCKETS));
        let low = self.buckets[first.min(second)].lock();
        let high = (first != second).then(|| self.buckets[first.max(second)].lock());
        Pair {
            guards: [Some(low), high],
            first: usize::from(first > second),
            second: usize::from(second > first),
        }
    }
}

impl Default for Futexes {
    fn default() -> Self {
        Self::new()
    }
}

/// The timeout argument of the operations that wait.
fn deadline(command: u32, realtime: bool, timeout: UserAddr) -> Result<Option<Deadline>> {
    let Some(timeout) = timeout.read_opt::<__kernel_timespec>()? else {
        return Ok(None);
    };
    let ns = timespec_ns(&timeout)?;
    Ok(Some(match command {
        FUTEX_WAIT => Deadline::after(ns),
        FUTEX_LOCK_PI => Deadline::Realtime(ns),
        _ if realtime => Deadline::Realtime(ns),
        _ => Deadline::Monotonic(ns),
    }))
}

/// `futex(2)`.
///
/// # Errors
/// As the man page; `ENOSYS` for `FUTEX_FD`.
pub fn futex(
    t: &Thread,
    uaddr: u64,
    op: i32,
    val: u32,
    timeout: u64,
    uaddr2: u64,
    val3: u32,
) -> SysResult {
    let op = op.cast_unsigned();
    let command = op & !(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME);
    let realtime = op & FUTEX_CLOCK_REALTIME != 0;
    let scope = if op & FUTEX_PRIVATE_FLAG != 0 {
        Scope::Private
    } else {
        Scope::Shared
    };
    let address = UserAddr(uaddr);
    let second = UserAddr(uaddr2);
    let timeout_address = UserAddr(timeout);
    // Operations on two futexes pass a second count where the others have the timeout.
    let counts = (val.cast_signed(), (timeout as u32).cast_signed());

    let timed = matches!(
        command,
        FUTEX_WAIT | FUTEX_WAIT_BITSET | FUTEX_LOCK_PI | FUTEX_LOCK_PI2 | FUTEX_WAIT_REQUEUE_PI
    );
    let deadline = if timed {
        deadline(command, realtime, timeout_address)?
    } else {
        None
    };
    if realtime
        && !matches!(
            command,
            FUTEX_WAIT_BITSET | FUTEX_WAIT_REQUEUE_PI | FUTEX_LOCK_PI2
        )
    {
        return Err(Errno::ENOSYS);
    }
    match command {
        FUTEX_WAIT => ops::wait(t, address, scope, val, deadline, FUTEX_BITSET_MATCH_ANY),
        FUTEX_WAIT_BITSET => ops::wait(t, address, scope, val, deadline, val3),
        FUTEX_WAKE => ops::wake(t, address, scope, counts.0, FUTEX_BITSET_MATCH_ANY),
        FUTEX_WAKE_BITSET => ops::wake(t, address, scope, counts.0, val3),
        FUTEX_REQUEUE => ops::requeue(t, address, second, scope, counts, None),
        FUTEX_CMP_REQUEUE => ops::requeue(t, address, second, scope, counts, Some(val3)),
        FUTEX_WAKE_OP => ops::wake_op(t, address, second, scope, counts, val3),
        FUTEX_LOCK_PI | FUTEX_LOCK_PI2 => pi::lock(t, address, scope, deadline),
        FUTEX_TRYLOCK_PI => pi::try_lock(t, address, scope),
        FUTEX_UNLOCK_PI => pi::unlock(t, address, scope),
        FUTEX_WAIT_REQUEUE_PI => requeue_pi::wait(t, address, second, scope, val, deadline),
        FUTEX_CMP_REQUEUE_PI => requeue_pi::requeue(t, address, second, scope, counts, val3),
        _ => Err(Errno::ENOSYS),
    }
}

#[cfg(test)]
mod tests;
