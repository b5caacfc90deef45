//! A spin lock: short sections that never sleep and never touch user memory.

pub use spin::mutex::SpinMutex as SpinLock;
pub use spin::mutex::SpinMutexGuard as SpinLockGuard;
