//! Job control: stopping and continuing whole processes.
//!
//! A stop signal is taken by one thread, which asks all threads to stand still; each does so in its own way
//! out to user code. The last one reports to the parent. `SIGCONT` ends the stop when it is sent, blocked or
//! not, and `wait(2)` knows at once; the first thread to wake sends `SIGCHLD`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::{Process, Thread};

use super::info::{Info, STATUS_CONTINUED};
use super::set::{SIGCHLD, SIGCONT, SIGHUP, SIGSTOP, SigSet};
use super::state::{
    EXITING, REPORT, STOP, STOPPED, TOOK_PART, TRACE_STOPPED, TRAP_NOTIFY, TRAP_STOP,
};

/// The wait status of a process that `signo` stopped.
const fn stopped_by(signo: i32) -> i32 {
    signo << 8 | 0x7f
}

/// The state of a process's stop; its lock is the process's signal lock.
#[derive(Debug, Default)]
pub(super) struct Stop {
    /// The signal that stops or stopped the process.
    signo: Option<i32>,
    /// All threads stand still and the parent knows.
    complete: bool,
    /// A stop signal was taken off the queue, and no `SIGCONT` has come since.
    armed: bool,
    /// The wait status to tell the parent of when the first thread wakes from a stop.
    report: Option<i32>,
}

impl Stop {
    /// Whether threads stand still or are to.
    pub(super) fn is_stopping(&self) -> bool {
        self.signo.is_some()
    }

    /// The signal that stops or stopped the process.
    pub(super) fn signal(&self) -> Option<i32> {
        self.signo
    }

    /// Whether all threads stand still.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// A stop signal was taken off the queue.
    pub(super) fn arm(&mut self) {
        self.armed = true;
    }

    /// Starts the stop the taken signal asks for, unless `SIGCONT` came first.
    fn begin(&mut self, signo: i32) -> bool {
        if !self.armed {
            return false;
        }
        if self.signo.is_none() {
            self.signo = Some(signo);
        }
        true
    }

    /// All threads stand still: the wait status to report, the first time.
    fn finish(&mut self) -> Option<i32> {
        if self.complete {
            return None;
        }
        let signo = self.signo?;
        self.complete = true;
        Some(stopped_by(signo))
    }

    /// `SIGCONT` came: whether there was a stop to end.
    fn resume(&mut self) -> bool {
        self.armed = false;
        let Some(signo) = self.signo.take() else {
            return false;
        };
        self.report = Some(if self.complete {
            STATUS_CONTINUED
        } else {
            stopped_by(signo)
        });
        self.complete = false;
        true
    }
}

/// A stop signal or `SIGCONT` is being sent: each discards the other where it is pending, and `SIGCONT` ends a
/// stop.
pub(super) fn prepare(process: &Arc<Process>, signo: i32) {
    let opposite = if signo == SIGCONT {
        SigSet::STOP
    } else {
        SigSet::of(SIGCONT)
    };
    let threads = process.threads();
    let mut group = process.signals.group.lock();
    process.signals.pending.discard(opposite);
    for thread in &threads {
        thread.signals.pending.discard(opposite);
    }
    if signo != SIGCONT || !group.resume() {
        return;
    }
    // Threads that stand for a tracer go on standing.
    let standing: Vec<&Arc<Thread>> = threads
        .iter()
        .filter(|thread| {
            let took_part = thread.signals.take(TOOK_PART);
            let stands = thread.signals.flags() & TRACE_STOPPED != 0;
            thread.signals.take(STOP) || took_part && stands
        })
        .collect();
    for thread in &standing {
        thread.signals.raise(REPORT);
    }
    drop(group);
    // As on Linux the parent can wait for it from now on; SIGCHLD comes when a thread has woken.
    crate::process::job_event(process, STATUS_CONTINUED);
    for thread in standing {
        super::send::notify(thread);
    }
    for thread in threads.iter().filter(|thread| thread.trace.is_traced()) {
        notify_tracee(thread);
    }
}

/// The running thread took stop signal `signo` and has no handler for it.
pub(super) fn begin(t: &Thread, signo: i32) {
    // Terminal stops do nothing where nobody could continue the process.
    if signo != SIGSTOP && is_orphaned(&t.process) {
        return;
    }
    let is_new = {
        let mut group = t.process.signals.group.lock();
        let is_new = !group.is_stopping();
        if !group.begin(signo) {
            return;
        }
        is_new
    };
    // Threads that join from here on see the state themselves.
    for thread in t.process.threads() {
        let group = t.process.signals.group.lock();
        if group.is_stopping() && thread.signals.flags() & EXITING == 0 {
            thread.signals.raise(STOP);
            if is_new {
                thread.signals.lower(TOOK_PART);
            }
        }
        drop(group);
        super::send::notify(&thread);
        if thread.trace.is_traced() && !core::ptr::eq(Arc::as_ptr(&thread), t) {
            notify_tracee(&thread);
        }
    }
}

/// The stop of a tracee's process has begun or ended: who seized it is shown that.
fn notify_tracee(tracee: &Arc<Thread>) {
    if tracee.trace.is_seized() {
        tracee.signals.raise(TRAP_NOTIFY);
        super::send::notify(tracee);
    }
}

/// The running thread stands still until `SIGCONT`, or until it is to die.
pub(super) fn stand_still(t: &Thread) {
    t.signals.raise(STOPPED);
    complete(t);
    // A tracer that attaches wants the thread to stand for it.
    let released = || {
        let flags = t.signals.flags();
        flags & STOP == 0 || flags & (TRAP_STOP | TRAP_NOTIFY) != 0 || t.signals.is_killed()
    };
    while !released() {
        crate::sched::park(t, None, released);
    }
    t.signals.lower(STOPPED);
}

/// Reports the stop if `t` was the last thread it waited for.
pub(super) fn complete(t: &Thread) {
    let still =
        |thread: &Arc<Thread>| thread.signals.flags() & (STOPPED | EXITING | TOOK_PART) != 0;
    if !t.process.signals.group.lock().is_stopping() {
        return;
    }
    let threads = t.process.threads();
    let some_stopped = threads
        .iter()
        .any(|thread| thread.signals.flags() & (STOPPED | TOOK_PART) != 0);
    if !some_stopped || !threads.iter().all(still) {
        return;
    }
    drop(threads);
    let report = t.process.signals.group.lock().finish();
    if let Some(wait_status) = report {
        crate::process::job_event(&t.process, wait_status);
        send_sigchld(t, wait_status);
    }
}

/// Reports the end of a stop, if no other thread has.
pub(super) fn report_end(t: &Thread) {
    let report = t.process.signals.group.lock().report.take();
    if let Some(wait_status) = report {
        send_sigchld(t, wait_status);
    }
}

/// `SIGCHLD` about a stop or its end, if the parent wants that.
fn send_sigchld(t: &Thread, wait_status: i32) {
    let process = &t.process;
    let Some(parent) = process.parent() else {
        return;
    };
    // Who is its tracer has been told as that.
    if parent.handlers().wants_child_stops() && !process.is_traced_by_parent() {
        process.signals.set_uid(t.credentials().uid);
        let info = Info::child_exit(SIGCHLD, process, wait_status);
        // A standard signal is always accepted.
        let _ = super::send::send_process(&parent, &info);
    }
}

/// Whether no process of `process`'s group has a parent in the same session but another group: a shell that
/// could continue it (`setpgid(2)`).
pub fn is_orphaned(process: &Process) -> bool {
    is_orphaned_without(process, None)
}

/// The same, not counting what `ending` does for it.
fn is_orphaned_without(process: &Process, ending: Option<&Process>) -> bool {
    let (pgid, sid) = (process.pgid(), process.sid());
    !process.kernel.tasks.processes().iter().any(|member| {
        member.pgid() == pgid
            && member.thread_count() > 0
            && !ending.is_some_and(|ending| core::ptr::eq(ending, &raw const **member))
            && member
                .parent()
                .is_some_and(|parent| parent.pgid() != pgid && parent.sid() == sid)
    })
}

/// `parent` is not the parent of `process` any more, which is ending itself if it `ends`. If that leaves its group without
/// anybody who could continue it, and some of it stands still, that is told so and goes on (`_exit(2)`).
pub fn leave_orphans(process: &Arc<Process>, parent: Option<&Arc<Process>>, ends: bool) {
    let (pgid, sid) = (process.pgid(), process.sid());
    if !parent.is_some_and(|parent| parent.pgid() != pgid && parent.sid() == sid)
        || !is_orphaned_without(process, ends.then_some(&**process))
    {
        return;
    }
    let kernel = process.kernel;
    let stands = |member: &Arc<Process>| member.pgid() == pgid && member.signals.is_stopped();
    if kernel.tasks.processes().iter().any(stands) {
        for signo in [SIGHUP, SIGCONT] {
            // A standard signal is always accepted.
            let _ = super::send::send_group(kernel, pgid, &Info::kernel(signo));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::set::*;
    use super::*;

    #[test]
    fn stop_and_continue() {
        let mut stop = Stop::default();
        assert!(!stop.begin(SIGTSTP), "no signal was taken");
        stop.arm();
        assert!(stop.begin(SIGTSTP) && stop.is_stopping() && !stop.is_complete());
        assert!(stop.begin(SIGTTIN), "a second one joins the first");
        assert_eq!(stop.finish(), Some(stopped_by(SIGTSTP)));
        assert_eq!(stop.finish(), None);
        assert!(stop.is_complete() && stop.resume());
        assert_eq!(stop.report.take(), Some(STATUS_CONTINUED));
        assert!(!stop.is_stopping() && !stop.is_complete() && !stop.resume());
    }

    #[test]
    fn continue_wins_over_a_stop_on_its_way() {
        let mut stop = Stop::default();
        stop.arm();
        assert!(!stop.resume(), "nothing had stopped");
        assert!(!stop.begin(SIGSTOP));
        stop.arm();
        assert!(stop.begin(SIGSTOP));
        // Continued before all threads stood still: the parent hears of the stop.
        assert!(stop.resume());
        assert_eq!(stop.report, Some(stopped_by(SIGSTOP)));
        assert_eq!(stop.finish(), None);
    }
}
