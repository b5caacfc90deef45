//! Locks and waiting. See the crate's documentation for the lock order.

mod mutex;
mod wait;

pub use husk_hal::lock::{SpinLock, SpinLockGuard};
pub use mutex::{Mutex, MutexGuard};
pub use wait::{Interruptible, Listener, WaitError, WaitQueue, Waiter, park_until};
