//! Locks and waiting. See the crate's documentation for the lock order.

mod mutex;
mod spin;
mod wait;

pub use mutex::{Mutex, MutexGuard};
pub use spin::{SpinLock, SpinLockGuard};
pub use wait::{Interruptible, Listener, WaitError, WaitQueue, Waiter, park_until};
