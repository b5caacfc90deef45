//! What a thread and a process know of their signals.
//!
//! The *signal lock* is [`ProcessSignals::group`], one per process: whoever adds or takes pending signals, or
//! changes the state of a stop, holds it. Masks and flags are atomics, so that the questions asked all the
//! time (`is_pending`, the mask) cost one load. A change of a mask and a new signal cannot miss each other:
//! each writes its own word first and then reads the other's.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use crate::sync::{SpinLock, WaitQueue};
use crate::{Errno, Process, Result, Thread};

use super::altstack::AltStack;
use super::queue::Pending;
use super::restart::RestartBlock;
use super::set::{SigSet, is_valid};
use super::stop::Stop;

/// A signal waits that is not blocked. Stale at worst: delivery looks again.
pub(super) const PENDING: u32 = 1;
/// The thread is to die.
pub(super) const KILLED: u32 = 2;
/// The thread is to stop, or stands still, until this goes down.
pub(super) const STOP: u32 = 4;
/// The end of a stop is to be reported to the parent.
pub(super) const REPORT: u32 = 8;
/// The saved mask is to come back on the way out.
pub(super) const RESTORE_MASK: u32 = 16;
/// The thread is on its way out of the process: it takes no signals.
pub(super) const EXITING: u32 = 32;
/// The thread stands still.
pub(super) const STOPPED: u32 = 64;

/// The tracer wants a stop.
pub(super) const TRAP_STOP: u32 = 128;
/// The process's stop has begun or ended, which a tracer that came by `PTRACE_SEIZE` is to be shown.
pub(super) const TRAP_NOTIFY: u32 = 256;
/// The thread stands in a ptrace-stop.
pub(super) const TRACE_STOPPED: u32 = 512;
/// The thread has stood for its tracer as its part in the process's stop, which goes on.
pub(super) const TOOK_PART: u32 = 1024;

/// What ends a wait that signals may end.
const INTERRUPTING: u32 = PENDING | KILLED | STOP | REPORT | TRAP_STOP | TRAP_NOTIFY;
/// What the way back to user code has to look at.
const WORK: u32 = INTERRUPTING | RESTORE_MASK;

/// The last exception a thread caused; signal frames show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastFault {
    /// Its vector.
    pub vector: u64,
    /// The CPU's error code.
    pub error: u64,
    /// CR2 of the last page fault.
    pub address: u64,
}

/// A thread's signals.
#[derive(Debug)]
pub struct ThreadSignals {
    mask: AtomicU64,
    /// The mask to come back after delivery, if [`RESTORE_MASK`] is up.
    saved_mask: AtomicU64,
    /// What is unblocked only because `sigtimedwait` waits for it.
    awaited: AtomicU64,
    flags: AtomicU32,
    pub(super) pending: Pending,
    altstack: SpinLock<AltStack>,
    pub(super) last_fault: SpinLock<LastFault>,
    /// How `restart_syscall(2)` goes on; set by the handler that returns `ERESTART_RESTARTBLOCK`.
    pub restart_block: SpinLock<Option<RestartBlock>>,
}

impl Default for ThreadSignals {
    fn default() -> Self {
        Self::new(0)
    }
}

impl ThreadSignals {
    /// Nothing pending, `mask` blocked.
    #[must_use]
    pub fn new(mask: u64) -> Self {
        Self {
            mask: AtomicU64::new(mask),
            saved_mask: AtomicU64::new(0),
            awaited: AtomicU64::new(0),
            flags: AtomicU32::new(0),
            pending: Pending::default(),
            altstack: SpinLock::new(AltStack::DISABLED),
            last_fault: SpinLock::default(),
            restart_block: SpinLock::new(None),
        }
    }

    /// A child's signals as `clone(2)` makes them: the parent's mask and alternate stack, nothing pending. A
    /// child that `runs_beside` its parent in the same memory starts without alternate stack.
    #[must_use]
    pub fn for_child(parent: &Self, runs_beside: bool) -> Self {
        let child = Self::new(parent.mask().0);
        if !runs_beside {
            child.set_altstack(parent.altstack());
        }
        child
    }

    /// What `execve(2)` resets: the alternate stack and what concerned the old program's frames.
    fn reset_for_exec(&self) {
        self.forget_altstack();
        *self.last_fault.lock() = LastFault::default();
        drop(self.restart_block.lock().take());
    }

    /// Whether a mask was set for the time of the call ([`set_temporary_mask`](super::set_temporary_mask)).
    #[must_use]
    pub fn has_temporary_mask(&self) -> bool {
        self.flags() & RESTORE_MASK != 0
    }

    /// Whether a signal that is not blocked waits to be delivered, or the thread is to stop or die.
    #[inline]
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.flags() & INTERRUPTING != 0
    }

    /// Whether the thread is to die.
    #[inline]
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.flags() & KILLED != 0
    }

    /// Whether the thread stands still (state `T` of `/proc/*/stat`).
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.flags() & STOPPED != 0
    }

    /// Whether the thread stands in a ptrace-stop (state `t` of `/proc/*/stat`).
    #[must_use]
    pub fn is_trace_stopped(&self) -> bool {
        self.flags() & TRACE_STOPPED != 0
    }

    #[inline]
    pub(super) fn has_work(&self) -> bool {
        self.flags() & WORK != 0
    }

    #[inline]
    pub(super) fn flags(&self) -> u32 {
        self.flags.load(Ordering::SeqCst)
    }

    pub(super) fn raise(&self, flags: u32) {
        self.flags.fetch_or(flags, Ordering::SeqCst);
    }

    pub(super) fn lower(&self, flags: u32) {
        self.flags.fetch_and(!flags, Ordering::SeqCst);
    }

    /// Takes `flag` down; whether it was up.
    pub(super) fn take(&self, flag: u32) -> bool {
        self.flags() & flag != 0 && self.flags.fetch_and(!flag, Ordering::SeqCst) & flag != 0
    }

    /// Blocked signals.
    #[inline]
    #[must_use]
    pub fn mask(&self) -> SigSet {
        SigSet(self.mask.load(Ordering::SeqCst))
    }

    pub(super) fn store_mask(&self, mask: SigSet) {
        self.mask.store(mask.0, Ordering::SeqCst);
    }

    pub(super) fn saved_mask(&self) -> SigSet {
        SigSet(self.saved_mask.load(Ordering::Relaxed))
    }

    pub(super) fn save_mask(&self, mask: SigSet) {
        self.saved_mask.store(mask.0, Ordering::Relaxed);
    }

    /// What `sigtimedwait` of this thread waits for although it is blocked.
    pub(super) fn awaited(&self) -> SigSet {
        SigSet(self.awaited.load(Ordering::SeqCst))
    }

    pub(super) fn set_awaited(&self, awaited: SigSet) {
        self.awaited.store(awaited.0, Ordering::SeqCst);
    }

    /// The mask the program knows of: signals `sigtimedwait` waits for count as blocked.
    pub(super) fn real_mask(&self) -> SigSet {
        self.mask() | self.awaited()
    }

    /// Signals pending for this thread alone.
    #[must_use]
    pub fn pending(&self) -> SigSet {
        self.pending.set()
    }

    /// The alternate stack.
    #[must_use]
    pub fn altstack(&self) -> AltStack {
        *self.altstack.lock()
    }

    pub(super) fn set_altstack(&self, altstack: AltStack) {
        *self.altstack.lock() = altstack;
    }

    /// Takes the alternate stack away.
    pub fn forget_altstack(&self) {
        self.set_altstack(AltStack::DISABLED);
    }
}

/// Signals of a process as a whole.
#[derive(Debug, Default)]
pub struct ProcessSignals {
    /// The signal lock, and the state of a stop.
    pub(super) group: SpinLock<Stop>,
    pub(super) pending: Pending,
    /// Woken when a signal comes for the process or one of its threads (`signalfd(2)`).
    pub arrivals: Arc<WaitQueue>,
    /// The signal that ends the process, from the moment it is sent.
    fatal: AtomicI32,
    /// Init after a fault of its own: it has lost its protection.
    killable: AtomicBool,
    /// Sent when the parent ends; 0 for none.
    parent_death: AtomicI32,
    /// Real user id, for who asks when no thread is left.
    uid: AtomicU32,
}

impl ProcessSignals {
    /// Nothing pending.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Signals pending for the process as a whole.
    #[must_use]
    pub fn pending(&self) -> SigSet {
        self.pending.set()
    }

    /// The signal that is ending the process: exit with it, whatever status a thread asks for.
    #[must_use]
    pub fn fatal_signal(&self) -> Option<i32> {
        match self.fatal.load(Ordering::SeqCst) {
            0 => None,
            signo => Some(signo),
        }
    }

    pub(super) fn set_fatal(&self, signo: i32) {
        self.fatal.store(signo, Ordering::SeqCst);
    }

    /// Whether all threads of the process stand still because of a signal.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.group.lock().is_complete()
    }

    pub(super) fn set_uid(&self, uid: u32) {
        self.uid.store(uid, Ordering::Relaxed);
    }

    /// The real user id a thread of the process had last, once one has ended or the process was stopped.
    pub(super) fn uid(&self) -> u32 {
        self.uid.load(Ordering::Relaxed)
    }

    pub(super) fn lose_protection(&self) {
        self.killable.store(true, Ordering::SeqCst);
    }

    /// Whether this is init, which gets only the signals it has handlers for (`pid_namespaces(7)`).
    pub(super) fn is_protected(&self, pid: u32) -> bool {
        pid == 1 && !self.killable.load(Ordering::SeqCst)
    }
}

/// Whether a signal waits that `t` does not block; under the signal lock.
fn is_deliverable(t: &Thread) -> bool {
    let pending = t.signals.pending() | t.process.signals.pending();
    !pending.without(t.signals.mask()).is_empty()
}

/// Brings [`PENDING`] of the running thread up to date; under the signal lock. Whether it is up.
pub(super) fn recalculate(t: &Thread) -> bool {
    let deliverable = is_deliverable(t);
    if deliverable {
        t.signals.raise(PENDING);
    } else {
        t.signals.take(PENDING);
    }
    deliverable
}

/// Raises [`PENDING`] of any thread if there is a reason; under the signal lock. Only a thread itself takes it
/// down: it may have given up a system call because of it. Whether there is a reason.
pub(super) fn offer(t: &Thread) -> bool {
    let deliverable = is_deliverable(t);
    if deliverable {
        t.signals.raise(PENDING);
    }
    deliverable
}

/// `execve(2)` of the running thread.
pub fn exec(t: &Thread) {
    t.signals.reset_for_exec();
    if t.credentials().euid != t.credentials().uid {
        t.process.signals.parent_death.store(0, Ordering::Relaxed);
    }
}

/// The signal `process` gets when its parent ends (`PR_SET_PDEATHSIG`).
#[must_use]
pub fn parent_death_signal(process: &Process) -> Option<i32> {
    match process.signals.parent_death.load(Ordering::Relaxed) {
        0 => None,
        signo => Some(signo),
    }
}

/// `PR_SET_PDEATHSIG`: 0 for none.
///
/// # Errors
/// `EINVAL` for a bad signal.
pub fn set_parent_death_signal(t: &Thread, signo: u64) -> Result<()> {
    let signo = i32::try_from(signo).map_err(|_| Errno::EINVAL)?;
    if signo != 0 && !is_valid(signo) {
        return Err(Errno::EINVAL);
    }
    let death = &t.process.signals.parent_death;
    death.store(signo, Ordering::Relaxed);
    Ok(())
}

/// Forgets pending `signals` of a process and all its threads.
pub(super) fn discard(process: &Process, signals: SigSet) {
    let threads = process.threads();
    let group = process.signals.group.lock();
    process.signals.pending.discard(signals);
    for thread in &threads {
        thread.signals.pending.discard(signals);
    }
    drop(group);
    crate::time::signals_discarded(process);
}

/// Whether the signal of `process`'s POSIX timer `timer` waits to be taken.
#[must_use]
pub fn is_timer_queued(process: &Process, timer: i32) -> bool {
    let threads = process.threads();
    let _group = process.signals.group.lock();
    process.signals.pending.has_timer(timer)
        || threads
            .iter()
            .any(|thread| thread.signals.pending.has_timer(timer))
}

#[cfg(test)]
mod tests {
    use super::super::set::*;
    use super::*;

    #[test]
    fn flags_answer_the_questions() {
        let signals = ThreadSignals::new(SigSet::of(SIGUSR1).0);
        assert!(!signals.is_pending() && !signals.is_killed() && !signals.has_work());
        signals.raise(RESTORE_MASK);
        assert!(!signals.is_pending() && signals.has_work());
        signals.raise(STOP);
        assert!(signals.is_pending() && !signals.is_killed());
        signals.raise(KILLED);
        assert!(signals.is_killed());
        assert!(signals.take(STOP) && !signals.take(STOP));
    }

    #[test]
    fn children_inherit_mask_and_altstack() {
        let parent = ThreadSignals::new(SigSet::of(SIGUSR1).0);
        let stack = AltStack {
            base: 0x1000,
            size: 0x4000,
            flags: 0,
        };
        parent.set_altstack(stack);
        parent.raise(PENDING | STOP);
        assert_eq!(
            ThreadSignals::for_child(&parent, true).altstack(),
            AltStack::DISABLED
        );
        let child = ThreadSignals::for_child(&parent, false);
        assert_eq!(child.mask(), SigSet::of(SIGUSR1));
        assert_eq!(child.altstack(), stack);
        assert!(!child.has_work());
        child.reset_for_exec();
        assert_eq!(child.altstack(), AltStack::DISABLED);
        assert_eq!(child.mask(), SigSet::of(SIGUSR1));
    }

    #[test]
    fn init_is_protected_until_it_faults() {
        let signals = ProcessSignals::new();
        assert!(signals.is_protected(1) && !signals.is_protected(2));
        signals.lose_protection();
        assert!(!signals.is_protected(1));
        assert_eq!(signals.fatal_signal(), None);
        signals.set_fatal(SIGTERM);
        assert_eq!(signals.fatal_signal(), Some(SIGTERM));
    }
}
