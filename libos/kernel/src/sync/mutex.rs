//! A sleeping mutex: may be held over user copies and waits.

use core::ops::{Deref, DerefMut};

use super::{SpinLock, SpinLockGuard, WaitQueue};

/// Mutual exclusion whose waiters sleep.
#[derive(Debug, Default)]
pub struct Mutex<T> {
    value: SpinLock<T>,
    queue: WaitQueue,
}

/// Access to a locked [`Mutex`]'s value.
#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    guard: Option<SpinLockGuard<'a, T>>,
    queue: &'a WaitQueue,
}

impl<T> Mutex<T> {
    /// A mutex that holds `value`.
    pub const fn new(value: T) -> Self {
        Self {
            value: SpinLock::new(value),
            queue: WaitQueue::new(),
        }
    }

    /// Locks, sleeping while another thread has it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let guard = match self.value.try_lock() {
            Some(guard) => guard,
            None => self.queue.wait_uninterruptible(|| self.value.try_lock()),
        };
        MutexGuard {
            guard: Some(guard),
            queue: &self.queue,
        }
    }

    /// Locks unless somebody has it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        Some(MutexGuard {
            guard: Some(self.value.try_lock()?),
            queue: &self.queue,
        })
    }

    /// Exclusive access without locking.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_deref().expect("held until drop")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_deref_mut().expect("held until drop")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.guard = None;
        self.queue.wake_one();
    }
}
