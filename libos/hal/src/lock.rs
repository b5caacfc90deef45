//! Mutual exclusion between vCPUs.
//!
//! The libOS is never preempted: a thread leaves the CPU only where it asks for it, and an interrupt that finds the
//! libOS running raises a flag and returns. So with one vCPU a lock that is free needs no locked instruction, which
//! costs more than all the rest of a short system call's work together. Linux does the same by patching `lock`
//! prefixes out.

use core::hint;
use core::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};

/// Whether more than one vCPU runs (on the host: more than one test).
static SEVERAL: AtomicBool = AtomicBool::new(cfg!(not(target_os = "none")));

/// More than one vCPU will run: to be called before the second starts.
pub fn expect_several_cpus() {
    SEVERAL.store(true, Ordering::SeqCst);
}

/// Whether more than one vCPU may run.
#[must_use]
#[inline]
pub fn several_cpus() -> bool {
    SEVERAL.load(Ordering::Relaxed)
}

/// What was stored before is seen by the other vCPUs before what is loaded after is read.
#[inline]
pub fn full_barrier() {
    if several_cpus() {
        fence(Ordering::SeqCst);
    } else {
        compiler_fence(Ordering::SeqCst);
    }
}

/// A spin lock without its value; see [`SpinLock`].
#[derive(Debug)]
pub struct RawSpinLock(AtomicBool);

// SAFETY: with several vCPUs a compare-exchange admits one holder. With one, nothing runs between the load and the
// store: the libOS gives the vCPU away only by calling the switch.
unsafe impl lock_api::RawMutex for RawSpinLock {
    #[allow(
        clippy::declare_interior_mutable_const,
        reason = "the initial value of every lock, as the trait asks for it"
    )]
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = lock_api::GuardSend;

    #[inline]
    fn lock(&self) {
        while !self.try_lock() {
            while self.is_locked() {
                hint::spin_loop();
            }
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        if several_cpus() {
            return self
                .0
                .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        }
        let free = !self.0.load(Ordering::Acquire);
        if free {
            self.0.store(true, Ordering::Relaxed);
            compiler_fence(Ordering::Acquire);
        }
        free
    }

    #[inline]
    // SAFETY: the trait's contract: only the holder calls this, so nobody else is let in early.
    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A spin lock: for short sections that never sleep and never touch user memory.
pub type SpinLock<T> = lock_api::Mutex<RawSpinLock, T>;
/// Access to a locked [`SpinLock`]'s value.
pub type SpinLockGuard<'a, T> = lock_api::MutexGuard<'a, RawSpinLock, T>;

#[cfg(test)]
mod tests {
    use super::SpinLock;

    #[test]
    fn one_holder_at_a_time() {
        static COUNT: SpinLock<u64> = SpinLock::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        *COUNT.lock() += 1;
                    }
                });
            }
        });
        assert_eq!(*COUNT.lock(), 40_000);
        let held = COUNT.lock();
        assert!(COUNT.try_lock().is_none());
        drop(held);
        assert!(COUNT.try_lock().is_some());
    }
}
