//! Who traces whom: attaching, detaching, and what becomes of tracing at clone, exec and exit.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use husk_abi::linux::general::{self, SIGCHLD};
use husk_abi::linux::ptrace::{
    PTRACE_EVENT_CLONE, PTRACE_EVENT_FORK, PTRACE_EVENT_VFORK, PTRACE_O_EXITKILL, PTRACE_O_MASK,
    PTRACE_O_SUSPEND_SECCOMP,
};

use super::super::exit;
use super::super::thread::Life;
use super::state::{CALLS, EMULATE, LISTENING, Link, STANDING, STEP, TRACED};
use super::watch;
use crate::signal::set::{SIGKILL, SIGSTOP};
use crate::signal::{self, Info, tracing};
use crate::sync::Interruptible;
use crate::{Errno, Process, Result, SysResult, Thread, process};

/// Makes `tracer` the tracer of `tracee`, which has none.
fn link(tracer: &Thread, tracee: &Arc<Thread>, seized: bool, options: u32) {
    tracee.trace.state.lock().link = Some(Link {
        tracer: tracer.weak(),
        seized,
        options,
    });
    tracee.trace.raise(TRACED);
    if tracee.tid() == tracee.process.pid {
        *tracee.process.leader_tracer.lock() = tracer.weak();
    }
    tracer.trace.tracees.lock().push(tracee.clone());
}

/// Ends the tracing of `tracee`, which goes on with `signo` if that is given, or else as if its tracer had vanished. Its
/// tracer's list is the caller's business.
fn unlink(tracee: &Arc<Thread>, signo: Option<i32>) {
    let trace = &tracee.trace;
    {
        let mut state = trace.state.lock();
        state.abandon();
        if let Some(signo) = signo {
            state.resume_signal = signo;
        }
    }
    watch::clear(tracee);
    trace.lower(TRACED | CALLS | EMULATE | STEP | LISTENING);
    if tracee.tid() == tracee.process.pid {
        *tracee.process.leader_tracer.lock() = Weak::new();
    }
    tracing::released(tracee);
    trace.lower(STANDING);
    crate::sched::unpark(tracee);
}

/// Takes `tracee` out of the list of `tracer`.
fn forget(tracer: &Thread, tracee: &Arc<Thread>) {
    tracer
        .trace
        .tracees
        .lock()
        .retain(|other| !Arc::ptr_eq(other, tracee));
}

/// Checks `PTRACE_O_*` bits.
///
/// # Errors
/// `EINVAL` for unknown ones, `EPERM` for `PTRACE_O_SUSPEND_SECCOMP`, which is for who is under no profile itself.
pub(super) fn checked_options(t: &Thread, options: u64) -> Result<u32> {
    let options = u32::try_from(options).map_err(|_| Errno::EINVAL)?;
    if options & !PTRACE_O_MASK != 0 {
        return Err(Errno::EINVAL);
    }
    if options & PTRACE_O_SUSPEND_SECCOMP != 0
        && (!t.credentials().has(general::CAP_SYS_ADMIN) || t.kernel.seccomp.is_some())
    {
        return Err(Errno::EPERM);
    }
    Ok(options)
}

/// `PTRACE_TRACEME`.
///
/// # Errors
/// `EPERM` if the caller is traced, or its parent must not trace it.
pub(super) fn trace_me(t: &Thread) -> SysResult {
    let parent = t.process.parent_thread().ok_or(Errno::EPERM)?;
    if t.trace.is_traced() {
        return Err(Errno::EPERM);
    }
    let (own, theirs) = (t.credentials(), parent.credentials());
    let gains = own.cap_permitted & !theirs.cap_permitted != 0;
    if gains && !theirs.has(general::CAP_SYS_PTRACE) {
        return Err(Errno::EPERM);
    }
    t.mm().untranslate()?;
    link(&parent, &t.arc(), false, 0);
    Ok(0)
}

/// `PTRACE_ATTACH`, or `PTRACE_SEIZE` if `seize` has its address and data.
///
/// # Errors
/// `EIO` for bad options, `EPERM`.
pub(super) fn attach(t: &Thread, tracee: &Arc<Thread>, seize: Option<[u64; 2]>) -> SysResult {
    let options = match seize {
        Some([0, options]) => match checked_options(t, options) {
            Ok(options) => options,
            Err(Errno::EINVAL) => return Err(Errno::EIO),
            Err(errno) => return Err(errno),
        },
        Some(_) => return Err(Errno::EIO),
        None => 0,
    };
    if Arc::ptr_eq(&t.process, &tracee.process) {
        return Err(Errno::EPERM);
    }
    process::may_trace(t, tracee)?;
    if tracing::is_exiting(tracee) || tracee.trace.is_traced() {
        return Err(Errno::EPERM);
    }
    tracee.mm_opt().ok_or(Errno::EPERM)?.untranslate()?;
    link(t, tracee, seize.is_some(), options);
    if seize.is_none() {
        // A standard signal is always accepted.
        let _ = signal::send_thread(tracee, &Info::kernel(SIGSTOP));
    }
    if tracee.signals.is_stopped() {
        // It stands already: from here on it stands for its tracer, and nobody sees the change.
        tracing::ask_to_trap(tracee);
        let _ = t
            .process
            .child_events
            .wait(t, Interruptible::Killable, None, || {
                let is_over = !tracee.signals.is_stopped() || tracing::is_exiting(tracee);
                (is_over || tracee.trace.flags() & STANDING != 0).then_some(())
            });
    }
    Ok(0)
}

/// `PTRACE_DETACH`: `tracee` goes on with `signo`, 0 for none.
pub(super) fn detach(t: &Thread, tracee: &Arc<Thread>, signo: i32) {
    forget(t, tracee);
    unlink(tracee, Some(signo));
}

/// Which event, if any, the tracer of `t` gets for a clone with `flags` and `exit_signal`.
pub fn clone_event(t: &Thread, flags: u64, exit_signal: u32) -> Option<u32> {
    if !t.trace.is_traced() || flags & u64::from(general::CLONE_UNTRACED) != 0 {
        return None;
    }
    let event = if flags & u64::from(general::CLONE_VFORK) != 0 {
        PTRACE_EVENT_VFORK
    } else if exit_signal == SIGCHLD {
        PTRACE_EVENT_FORK
    } else {
        PTRACE_EVENT_CLONE
    };
    t.trace.wants(event).then_some(event)
}

/// The tracer of `t` traces `child`, which `t` has made by call `nr` and which has not run yet, too.
pub fn inherit(t: &Thread, child: &Arc<Thread>, nr: u64) {
    let Some(own) = t.trace.state.lock().link.clone() else {
        return;
    };
    let Some(tracer) = own.tracer.upgrade() else {
        return;
    };
    link(&tracer, child, own.seized, own.options);
    child.trace.state.lock().born_in = Some(nr);
    if own.seized {
        tracing::ask_to_trap(child);
    } else {
        tracing::queue_stop(child);
    }
}

/// The first thread of a multithreaded process has ended and the running thread, by exec, takes its place and id.
pub fn replaced_leader(t: &Thread) {
    let old = core::mem::take(&mut *t.process.leader_tracer.lock()).upgrade();
    if let Some(tracer) = old {
        // Its end is not reported.
        tracer.trace.tracees.lock().retain(|other| {
            !(Arc::ptr_eq(&other.process, &t.process)
                && other.tid() == t.process.pid
                && !core::ptr::eq(Arc::as_ptr(other), t))
        });
        tracer.process.child_events.wake_all();
    }
    if let Some(tracer) = t.trace.tracer() {
        *t.process.leader_tracer.lock() = tracer.weak();
    }
}

/// The running thread is about to end, with `wait_status`, and has left its process: its tracer can wait for it, unless it
/// is its process's first.
pub fn thread_ended(t: &Thread, wait_status: i32) {
    if t.trace.is_traced() && t.tid() != t.process.pid {
        t.process.ended_tracees.fetch_add(1, Ordering::AcqRel);
        t.trace.state.lock().ended = Some(wait_status);
        if let Some(tracer) = t.trace.tracer() {
            let signo = SIGCHLD.cast_signed();
            let info = Info::thread_end(signo, t, wait_status);
            // A standard signal is always accepted.
            let _ = signal::send_process(&tracer.process, &info);
            tracer.process.child_events.wake_all();
        }
    }
    let tracees: Vec<_> = core::mem::take(&mut *t.trace.tracees.lock());
    for tracee in tracees {
        let kills = tracee
            .trace
            .state
            .lock()
            .link
            .as_ref()
            .is_some_and(|link| link.options & PTRACE_O_EXITKILL != 0);
        if kills {
            // A standard signal is always accepted.
            let _ = signal::send_process(&tracee.process, &Info::kernel(SIGKILL));
        }
        unlink(&tracee, None);
        is_gone(&tracee);
    }
}

/// Nobody waits for `process` any more: its tracer, who is its parent, forgets it.
pub fn forget_leader(process: &Arc<Process>) {
    let tracer = core::mem::take(&mut *process.leader_tracer.lock()).upgrade();
    if let Some(tracer) = tracer {
        let is_leader = |tracee: &Arc<Thread>| {
            Arc::ptr_eq(&tracee.process, process) && tracee.tid() == process.pid
        };
        tracer
            .trace
            .tracees
            .lock()
            .retain(|tracee| !is_leader(tracee));
    }
}

/// The tracer of `tracee`, which has ended, has waited for it.
pub(super) fn reaped(tracer: &Thread, tracee: &Arc<Thread>) {
    forget(tracer, tracee);
    unlink(tracee, None);
    is_gone(tracee);
}

/// `tracee` is not traced any more. If it has ended, others may learn now that its process has.
fn is_gone(tracee: &Arc<Thread>) {
    let process = &tracee.process;
    let has_ended = tracee.trace.state.lock().ended.take().is_some();
    if has_ended {
        process.ended_tracees.fetch_sub(1, Ordering::AcqRel);
    }
    if has_ended || tracee.tid() == process.pid {
        exit::announce_end(process);
    }
}

impl Process {
    /// The wait status of a zombie whose end may be told.
    pub(in crate::process) fn end_to_tell(&self) -> Option<i32> {
        match self.life() {
            Life::Zombie(status) if self.ended_tracees.load(Ordering::Acquire) == 0 => Some(status),
            _ => None,
        }
    }

    /// The process of whoever traces its first thread, if that is another than its parent: the parent learns of its end
    /// when the tracer is done with it.
    pub(in crate::process) fn foreign_tracer(&self) -> Option<Arc<Process>> {
        let tracer = self.leader_tracer.lock().upgrade()?;
        let parent = self.parent();
        let is_parent = parent.is_some_and(|parent| Arc::ptr_eq(&parent, &tracer.process));
        (!is_parent).then(|| tracer.process.clone())
    }

    /// Whether its parent traces its first thread, and so sees its stops as a tracer.
    pub(crate) fn is_traced_by_parent(&self) -> bool {
        let tracer = self.leader_tracer.lock().upgrade();
        tracer.is_some_and(|tracer| {
            self.parent()
                .is_some_and(|parent| Arc::ptr_eq(&parent, &tracer.process))
        })
    }
}
