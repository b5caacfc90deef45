//! Timers: what is to happen at a time of `CLOCK_MONOTONIC`.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Weak;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use husk_abi::boundary::vcpu::NO_DEADLINE;
use husk_hal::cpu;

use crate::Thread;
use crate::sync::SpinLock;

/// A timer that was set: when, and which of those due then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId(u64, u64);

enum Action {
    Wake(Weak<Thread>),
    Call(Box<dyn FnOnce() + Send>),
}

/// All timers of the guest.
#[derive(Default)]
pub struct Timers {
    pending: SpinLock<BTreeMap<TimerId, Action>>,
    sequence: AtomicU64,
    /// The earliest deadline, so that the way back to user code costs one load.
    earliest: AtomicU64,
}

impl core::fmt::Debug for Timers {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Timers")
            .field("pending", &self.pending.lock().len())
            .finish_non_exhaustive()
    }
}

impl Timers {
    /// No timers.
    #[must_use]
    pub fn new() -> Self {
        Self {
            earliest: AtomicU64::new(NO_DEADLINE),
            ..Self::default()
        }
    }

    /// Unparks `thread` at `deadline`.
    pub fn wake_at(&self, deadline: u64, thread: Weak<Thread>) -> TimerId {
        self.add(deadline, Action::Wake(thread))
    }

    /// Calls `action` once at `deadline` (or soon after), on any vCPU, with no lock held.
    pub fn call_at(&self, deadline: u64, action: impl FnOnce() + Send + 'static) -> TimerId {
        self.add(deadline, Action::Call(Box::new(action)))
    }

    fn add(&self, deadline: u64, action: Action) -> TimerId {
        let id = TimerId(deadline, self.sequence.fetch_add(1, Ordering::Relaxed));
        let mut pending = self.pending.lock();
        pending.insert(id, action);
        self.update_earliest(&pending);
        // The way back to user code arms the vCPU's timer.
        cpu::raise(cpu::WORK_RESCHEDULE);
        id
    }

    /// Forgets a timer; no harm if it has run.
    pub fn cancel(&self, id: TimerId) {
        let mut pending = self.pending.lock();
        let action = pending.remove(&id);
        self.update_earliest(&pending);
        drop(pending);
        drop(action);
    }

    fn update_earliest(&self, pending: &BTreeMap<TimerId, Action>) {
        let earliest = pending.keys().next().map_or(NO_DEADLINE, |id| id.0);
        self.earliest.store(earliest, Ordering::Release);
    }

    /// The earliest deadline, or `NO_DEADLINE`.
    #[must_use]
    pub fn next_deadline(&self) -> u64 {
        self.earliest.load(Ordering::Acquire)
    }

    /// Runs what is due at `now`.
    pub fn run_due(&self, now: u64) {
        if self.next_deadline() > now {
            return;
        }
        let due: Vec<Action> = {
            let mut pending = self.pending.lock();
            let later = pending.split_off(&TimerId(now + 1, 0));
            let due = core::mem::replace(&mut *pending, later);
            self.update_earliest(&pending);
            due.into_values().collect()
        };
        for action in due {
            match action {
                Action::Wake(thread) => {
                    if let Some(thread) = thread.upgrade() {
                        super::unpark(&thread);
                    }
                }
                Action::Call(call) => call(),
            }
        }
    }
}
