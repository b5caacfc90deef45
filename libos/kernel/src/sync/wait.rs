//! Wait queues: how a thread sleeps until something holds.
//!
//! The pattern is always the same and loses no wake-up: register, test, sleep if the test failed. A wake
//! sets the waiter's flag and unparks its thread; parking returns at once if the flag was set meanwhile.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use husk_abi::linux::Errno;

use husk_hal::lock::full_barrier;

use super::SpinLock;
use crate::Thread;

/// Whether a signal ends a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruptible {
    /// A pending, unblocked signal ends it.
    Yes,
    /// Only a fatal signal ends it.
    Killable,
}

/// Why a wait ended without its condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// A signal is pending.
    Interrupted,
    /// The deadline passed.
    TimedOut,
}

impl WaitError {
    /// `interrupted` for a signal, `ETIMEDOUT` for the deadline.
    #[must_use]
    pub fn errno(self, interrupted: Errno) -> Errno {
        match self {
            WaitError::Interrupted => interrupted,
            WaitError::TimedOut => Errno::ETIMEDOUT,
        }
    }
}

/// Something other than a sleeping thread that wants to know of wake-ups (an epoll entry).
pub trait Listener: Send + Sync + core::fmt::Debug {
    /// The queue was woken. Called with no lock of the queue held; must not sleep.
    fn woken(&self);
}

/// Whom a wake-up concerns.
#[derive(Debug)]
enum Target {
    Thread(Weak<Thread>),
    Listener(Weak<dyn Listener>),
}

/// One thread's (or [`Listener`]'s) presence on any number of wait queues.
#[derive(Debug)]
pub struct Waiter {
    target: Target,
    woken: AtomicBool,
}

impl Waiter {
    /// A waiter for `thread`.
    #[must_use]
    pub fn new(thread: &Thread) -> Arc<Self> {
        Arc::new(Self {
            target: Target::Thread(thread.weak()),
            woken: AtomicBool::new(false),
        })
    }

    /// A waiter that calls `listener` at every wake-up. It never counts as woken, so it belongs only on queues
    /// whose waiters are all woken together ([`WaitQueue::wake_all`]).
    #[must_use]
    pub fn for_listener(listener: Weak<dyn Listener>) -> Arc<Self> {
        Arc::new(Self {
            target: Target::Listener(listener),
            woken: AtomicBool::new(false),
        })
    }

    /// Wakes the waiter's thread, or tells its listener.
    pub fn wake(&self) {
        match &self.target {
            Target::Thread(thread) => {
                self.woken.store(true, Ordering::Release);
                if let Some(thread) = thread.upgrade() {
                    crate::sched::unpark(&thread);
                }
            }
            Target::Listener(listener) => {
                if let Some(listener) = listener.upgrade() {
                    listener.woken();
                }
            }
        }
    }

    /// Forgets earlier wake-ups; to be called before the condition is tested.
    pub fn reset(&self) {
        self.woken.store(false, Ordering::Release);
    }

    /// Whether it was woken since [`Waiter::reset`].
    #[must_use]
    pub fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }
}

/// Threads waiting for something.
#[derive(Debug, Default)]
pub struct WaitQueue {
    waiters: SpinLock<Vec<Arc<Waiter>>>,
    /// Number of waiters, so that waking nobody costs one load.
    count: AtomicUsize,
}

impl WaitQueue {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            waiters: SpinLock::new(Vec::new()),
            count: AtomicUsize::new(0),
        }
    }

    /// Adds `waiter`; it stays until [`WaitQueue::unregister`].
    pub fn register(&self, waiter: &Arc<Waiter>) {
        let mut waiters = self.waiters.lock();
        waiters.push(waiter.clone());
        self.count.store(waiters.len(), Ordering::SeqCst);
    }

    /// Removes `waiter`.
    pub fn unregister(&self, waiter: &Arc<Waiter>) {
        let mut waiters = self.waiters.lock();
        waiters.retain(|other| !Arc::ptr_eq(other, waiter));
        self.count.store(waiters.len(), Ordering::SeqCst);
    }

    /// Whether there is nobody to wake. What the caller changed before is visible to whoever registers after.
    fn nobody_waits(&self) -> bool {
        // Without the barrier the load may come before the caller's stores; a waiter that registers between would
        // see the old state and sleep for ever.
        full_barrier();
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Wakes the waiter that has waited longest and is not woken yet.
    pub fn wake_one(&self) {
        if self.nobody_waits() {
            return;
        }
        let waiter = self
            .waiters
            .lock()
            .iter()
            .find(|waiter| !waiter.is_woken())
            .cloned();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// Wakes all waiters.
    pub fn wake_all(&self) {
        if self.nobody_waits() {
            return;
        }
        let waiters = self.waiters.lock().clone();
        for waiter in waiters {
            waiter.wake();
        }
    }

    /// Sleeps until `condition` gives a value. `deadline` is in nanoseconds of `CLOCK_MONOTONIC`.
    ///
    /// # Errors
    /// [`WaitError`] if a signal or the deadline came first.
    pub fn wait<T>(
        &self,
        thread: &Thread,
        interruptible: Interruptible,
        deadline: Option<u64>,
        mut condition: impl FnMut() -> Option<T>,
    ) -> Result<T, WaitError> {
        if let Some(value) = condition() {
            return Ok(value);
        }
        let waiter = Waiter::new(thread);
        self.register(&waiter);
        let result = park_until(thread, &waiter, interruptible, deadline, condition);
        self.unregister(&waiter);
        result
    }

    /// Sleeps until `condition` gives a value, whatever signals come. For mutexes: the wait is short.
    pub fn wait_uninterruptible<T>(&self, mut condition: impl FnMut() -> Option<T>) -> T {
        husk_hal::cpu::with_current(|thread: &Thread| {
            let waiter = Waiter::new(thread);
            self.register(&waiter);
            let value = loop {
                waiter.reset();
                if let Some(value) = condition() {
                    break value;
                }
                crate::sched::park(thread, None, || waiter.is_woken());
            };
            self.unregister(&waiter);
            value
        })
        .expect("only threads wait")
    }
}

/// Sleeps until `condition` gives a value; `waiter` must be registered wherever a change of the condition is
/// announced. `deadline` is in nanoseconds of `CLOCK_MONOTONIC`.
///
/// # Errors
/// [`WaitError`] if a signal or the deadline came first.
pub fn park_until<T>(
    thread: &Thread,
    waiter: &Arc<Waiter>,
    interruptible: Interruptible,
    deadline: Option<u64>,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T, WaitError> {
    loop {
        waiter.reset();
        if let Some(value) = condition() {
            return Ok(value);
        }
        let interrupted = match interruptible {
            Interruptible::Yes => thread.signals.is_pending(),
            Interruptible::Killable => thread.signals.is_killed(),
        };
        if interrupted {
            return Err(WaitError::Interrupted);
        }
        if deadline.is_some_and(|deadline| husk_hal::clock::now_ns() >= deadline) {
            return Err(WaitError::TimedOut);
        }
        crate::sched::park(thread, deadline, || {
            waiter.is_woken()
                || match interruptible {
                    Interruptible::Yes => thread.signals.is_pending(),
                    Interruptible::Killable => thread.signals.is_killed(),
                }
        });
    }
}
