//! What `ptrace(2)` needs of signals: traps a tracer asks for, the part a tracee takes in its process's stop, and a look at
//! what is pending.

use alloc::sync::Arc;

use husk_hal::cpu;

use crate::{Process, Thread};

use super::info::Info;
use super::send::notify;
use super::set::{SIGSTOP, SigSet};
use super::state::{
    EXITING, KILLED, RESTORE_MASK, STOP, TOOK_PART, TRACE_STOPPED, TRAP_NOTIFY, TRAP_STOP, offer,
    recalculate,
};
use super::stop;

/// Asks a tracee for a stop of the tracer's (`JOBCTL_TRAP_STOP` on Linux).
pub fn ask_to_trap(tracee: &Arc<Thread>) {
    tracee.signals.raise(TRAP_STOP);
    notify(tracee);
}

/// Whether `t` is to stop for its tracer or with its process.
#[must_use]
pub fn is_to_trap(t: &Thread) -> bool {
    t.signals.flags() & (TRAP_STOP | TRAP_NOTIFY | STOP) != 0
}

/// Whether a change of the process's stop waits to be shown to the tracer of `t`.
#[must_use]
pub fn has_notice(t: &Thread) -> bool {
    t.signals.flags() & TRAP_NOTIFY != 0
}

/// The running thread stands in a ptrace-stop, which is what its tracer asked for; one with `PTRACE_EVENT_STOP` also
/// shows what has changed.
pub fn stands(t: &Thread, is_event_stop: bool) {
    let answered = if is_event_stop {
        TRAP_STOP | TRAP_NOTIFY
    } else {
        TRAP_STOP
    };
    t.signals.lower(answered);
    t.signals.raise(TRACE_STOPPED);
}

/// The running thread is a standing tracee, and that is its part in its process's stop. If it is the last, the real parent
/// hears of the stop.
pub fn take_part(t: &Thread) {
    t.signals.raise(TOOK_PART);
    stop::complete(t);
}

/// The running thread goes on after a ptrace-stop.
pub fn goes_on(t: &Thread) {
    t.signals.lower(TRACE_STOPPED);
    let group = t.process.signals.group.lock();
    // What came meanwhile was queued only.
    recalculate(t);
    drop(group);
    if t.signals.has_work() {
        cpu::raise(cpu::WORK_THREAD);
    }
}

/// Takes every wish of its tracer back; a tracee whose process is stopped stands still like any other thread again.
pub fn released(tracee: &Arc<Thread>) {
    tracee.signals.lower(TRAP_STOP | TRAP_NOTIFY);
    let group = tracee.process.signals.group.lock();
    if group.is_stopping() && tracee.signals.flags() & EXITING == 0 {
        tracee.signals.raise(STOP);
    }
    drop(group);
    notify(tracee);
}

/// The signal that stops `process`, if it is stopping or stopped.
#[must_use]
pub fn stop_signal(process: &Process) -> Option<i32> {
    process.signals.group.lock().signal()
}

/// A stop signal may be about to be taken whose effect a `SIGCONT` from now on prevents.
pub fn arm_stop(t: &Thread) {
    t.process.signals.group.lock().arm();
}

/// Gives `child`, which has not run yet, the `SIGSTOP` with which an automatically attached tracee starts.
pub fn queue_stop(child: &Arc<Thread>) {
    // A standard signal is always accepted.
    let _ = super::send::send_thread(child, &Info::lost(SIGSTOP));
}

/// Whether `t` is on its way out of its process.
#[must_use]
pub fn is_exiting(t: &Thread) -> bool {
    t.signals.flags() & EXITING != 0
}

/// The running thread ends: that it was told to no longer keeps it from stopping for its tracer.
pub fn ends(t: &Thread) {
    t.signals.lower(KILLED);
}

/// The signals standing tracee `t` blocks, as `PTRACE_GETSIGMASK` shows them.
#[must_use]
pub fn blocked(t: &Thread) -> SigSet {
    if t.signals.flags() & RESTORE_MASK != 0 {
        t.signals.saved_mask()
    } else {
        t.signals.real_mask()
    }
}

/// Sets what standing tracee `t` blocks.
pub fn set_blocked(t: &Thread, mask: SigSet) {
    let mask = mask.without(SigSet::UNBLOCKABLE);
    t.signals.lower(RESTORE_MASK);
    let group = t.process.signals.group.lock();
    t.signals.store_mask(mask);
    offer(t);
    drop(group);
}

/// Pending signal number `index` of `t` alone, or of its process.
#[must_use]
pub fn pending(t: &Thread, of_process: bool, index: usize) -> Option<Info> {
    let _group = t.process.signals.group.lock();
    let queue = if of_process {
        &t.process.signals.pending
    } else {
        &t.signals.pending
    };
    queue.nth(index)
}
