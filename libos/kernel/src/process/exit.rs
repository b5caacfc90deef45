//! Ending threads and processes: `exit(2)`, `exit_group(2)`, death by signal.
//!
//! A thread ends itself: others are only asked to (`signal::kill_thread`) and end on their way back to user
//! code. The last thread of a process makes it a zombie, hands its children on and tells the parent.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::Ordering;

use husk_abi::boundary::control::Report;
use husk_abi::boundary::doorbell;
use husk_abi::linux::general::SIGCHLD;
use husk_abi::linux::ptrace::PTRACE_EVENT_EXIT;

use super::clone::finish_vfork;
use super::thread::Life;
use super::{Process, Thread, ptrace};
use crate::signal::{self, ChildPolicy, Info};
use crate::{SysResult, futex, sched, tty};

/// `exit(2)`: ends the calling thread.
///
/// # Errors
/// Never returns.
pub fn exit(t: &Thread, status: i32) -> SysResult {
    exit_thread(t, (status & 0xff) << 8)
}

/// `exit_group(2)`: ends the whole process.
///
/// # Errors
/// Never returns.
pub fn exit_group(t: &Thread, status: i32) -> SysResult {
    exit_process(t, (status & 0xff) << 8)
}

/// Ends the process by signal `signo`.
pub fn exit_group_signal(t: &Thread, signo: i32, core_dumped: bool) -> ! {
    exit_process(t, signo | if core_dumped { 0x80 } else { 0 })
}

fn exit_process(t: &Thread, wait_status: i32) -> ! {
    let status = begin_group_exit(&t.process, wait_status);
    exit_thread(t, status)
}

/// Asks all threads of `process` to end; the first caller's status counts. Returns that.
pub fn begin_group_exit(process: &Process, wait_status: i32) -> i32 {
    let status = *process.exiting.lock().get_or_insert(wait_status);
    for thread in process.threads() {
        signal::kill_thread(&thread);
    }
    status
}

/// Ends the calling thread, which was asked to: its process is ending.
pub fn exit_killed(t: &Thread) -> ! {
    let status = t.process.exiting.lock().unwrap_or(0);
    exit_thread(t, status)
}

/// Ends the calling thread; `wait_status` is the process's if this is its last and nothing else was said.
pub fn exit_thread(t: &Thread, wait_status: i32) -> ! {
    if t.trace.is_traced() {
        signal::tracing::ends(t);
        ptrace::event(t, PTRACE_EVENT_EXIT, u64::from(wait_status.cast_unsigned()));
    }
    if t.mm_opt().is_some() {
        futex::exit_robust_list(t);
        futex::clear_child_tid(t);
    }
    release_mm(t);
    // Closing may run file code: outside any lock.
    let files = t.files.lock().take();
    drop(files);
    let fs = t.fs.lock().take();
    drop(fs);
    let undo = t.undo.lock().take();
    drop(undo);

    let process = &t.process;
    {
        let mut dead = process.dead_times.lock();
        *dead = *dead + t.sched.times();
    }
    signal::thread_exits(t);
    let last = {
        let mut threads = process.threads.lock();
        threads.remove(&t.tid());
        threads.is_empty()
    };
    t.kernel.tasks.remove_thread(t.tid());
    process.thread_exits.wake_all();
    let status = process.exiting.lock().unwrap_or(wait_status);
    ptrace::thread_ended(t, status);
    if last {
        exit_last(process, status);
    }
    sched::exit_current(t)
}

/// Gives up the thread's memory; a vfork parent may go on. The vCPU keeps the address space active, and
/// alive, until it switches to another.
pub(super) fn release_mm(t: &Thread) {
    let mm = t.mm.lock().take();
    finish_vfork(t);
    drop(mm);
}

fn exit_last(process: &Arc<Process>, status: i32) {
    let kernel = process.kernel;
    process.timers.on_exit(kernel);
    if process.pid == 1 {
        // The container ends with its init, whoever is left (pid_namespaces(7)).
        #[expect(clippy::cast_sign_loss, reason = "wait statuses are bit patterns")]
        kernel.host.shutdown(status as u32);
        unreachable!(
            "the VMM resumed a guest that shut down, doorbell {}",
            doorbell::SHUTDOWN
        );
    }
    let program = process.program.lock().take();
    drop(program);
    tty::job::process_ends(process);
    signal::leave_orphans(process, process.parent().as_ref(), true);
    hand_on_children(process);
    if let Some(outside) = &process.outside {
        // Its parent is outside, and waits there.
        process.family.lock().life = Life::Reaped;
        kernel.tasks.remove_process(process.pid);
        process.ended.wake_all();
        let report = Report::Ended(outside.session, status);
        kernel.host.control.report(&report);
        return;
    }
    process.family.lock().life = Life::Zombie(status);
    process.ended.wake_all();
    announce_end(process);
}

/// Tells whoever waits for `process` that it is a zombie: its tracer before its parent, and nobody while a tracer has not
/// waited for one of its other threads.
pub(super) fn announce_end(process: &Arc<Process>) {
    let Some(status) = process.end_to_tell() else {
        return;
    };
    if let Some(tracer) = process.foreign_tracer() {
        let info = Info::child_exit(SIGCHLD.cast_signed(), process, status);
        // A standard signal is always accepted.
        let _ = signal::send_process(&tracer, &info);
        tracer.child_events.wake_all();
    } else if let Some(parent) = process.parent() {
        announce(process, &parent, status);
    }
}

/// Tells the parent that `process` is a zombie; reaps it at once if the parent does not care.
pub(super) fn announce(process: &Arc<Process>, parent: &Arc<Process>, status: i32) {
    let signo = process.exit_signal.load(Ordering::Relaxed);
    // A tracer always waits.
    let is_plain = signo == SIGCHLD && !process.is_traced_by_parent();
    let ChildPolicy { auto_reap, notify } = if is_plain {
        parent.handlers().child_policy()
    } else {
        ChildPolicy {
            auto_reap: false,
            notify: signo != 0,
        }
    };
    if notify {
        let info = Info::child_exit(signo.cast_signed(), process, status);
        let _ = signal::send_process(parent, &info);
    }
    if auto_reap {
        reap(process, parent);
    }
    parent.child_events.wake_all();
}

/// Removes a zombie: its status has been taken, or nobody wants it.
pub(super) fn reap(process: &Arc<Process>, parent: &Arc<Process>) {
    ptrace::forget_leader(process);
    process.family.lock().life = Life::Reaped;
    parent
        .family
        .lock()
        .children
        .retain(|child| !Arc::ptr_eq(child, process));
    let used = process.times() + process.children_times();
    {
        let mut children = parent.children_times.lock();
        *children = *children + used;
    }
    process.kernel.tasks.remove_process(process.pid);
    process.ended.wake_all();
}

/// Children go to the nearest living subreaper among the ancestors, or to init (`prctl(2)`).
fn hand_on_children(process: &Arc<Process>) {
    let children = core::mem::take(&mut process.family.lock().children);
    if children.is_empty() {
        return;
    }
    let mut heir = process.parent();
    while let Some(candidate) = &heir {
        let fit = candidate.pid == 1 || candidate.child_subreaper.load(Ordering::Relaxed);
        if fit && candidate.life() == Life::Alive {
            break;
        }
        heir = candidate.parent();
    }
    let Some(heir) = heir.or_else(|| process.kernel.tasks.process(1)) else {
        return;
    };
    for child in children {
        {
            let mut family = child.family.lock();
            family.parent = Arc::downgrade(&heir);
            family.parent_thread = Weak::new();
        }
        child.ppid.store(heir.pid, Ordering::Relaxed);
        heir.family.lock().children.push(child.clone());
        signal::leave_orphans(&child, Some(process), false);
        if let Some(signo) = signal::parent_death_signal(&child) {
            let _ = signal::send_process(&child, &Info::kernel(signo));
        }
        // An orphan's end is always announced with SIGCHLD.
        child.exit_signal.store(SIGCHLD, Ordering::Relaxed);
        if let Some(status) = child.end_to_tell()
            && child.foreign_tracer().is_none()
        {
            announce(&child, &heir, status);
        }
    }
}

/// A child of `process`'s parent stopped or continued: `wait(2)` can report it.
pub fn job_event(process: &Process, wait_status: i32) {
    let parent: Weak<Process> = {
        let mut family = process.family.lock();
        family.job_event = Some(wait_status);
        family.parent.clone()
    };
    if let Some(parent) = parent.upgrade() {
        parent.child_events.wake_all();
    }
}
