//! Sending: who gets a signal, and how it comes to know.
//!
//! Sending marks and wakes; all else happens in the receiver, in [`deliver`](super::deliver). The exceptions are
//! those that must not wait for it: a signal that ends the process marks all threads at once, `SIGCONT`
//! ends a stop, and what is ignored never gets anywhere.

use alloc::sync::Arc;

use husk_abi::linux::general::RLIMIT_SIGPENDING;
use husk_abi::linux::general::rlimit64;
use husk_hal::cpu;

use crate::{Errno, Kernel, Process, Result, Thread};

use super::action::{Handlers, SIG_DFL, SIG_IGN};
use super::info::{Info, Origin};
use super::queue::Account;
use super::set::{SIGCONT, SIGKILL, SIGPIPE, SIGRTMIN, SIGSEGV, SIGXFSZ, SigSet};
use super::state::{EXITING, KILLED, PENDING, STOP, STOPPED, TRACE_STOPPED, offer, recalculate};
use super::stop;

/// Makes `thread` look at its flags: the running thread on its way out, a sleeping one now.
///
/// A thread that runs on another vCPU sees the flag when it next enters the libOS; the kick belongs here.
pub(super) fn notify(thread: &Arc<Thread>) {
    let current = cpu::with_current(|running: &Thread| core::ptr::eq(running, &raw const **thread));
    if current == Some(true) {
        cpu::raise(cpu::WORK_THREAD);
    }
    // Even then: on an idle vCPU "current" is the thread that ran last, and sleeps.
    crate::sched::unpark(thread);
}

/// Sends a signal to a process: one of its threads that does not block it takes it.
///
/// # Errors
/// `EAGAIN` if a real-time signal that a program queued finds the queue full.
pub fn send_process(process: &Arc<Process>, info: &Info) -> Result<()> {
    let leader = process.kernel.tasks.thread(process.pid);
    let leader = leader.filter(|thread| Arc::ptr_eq(&thread.process, process));
    match leader.or_else(|| process.threads().into_iter().next()) {
        Some(thread) => post(&thread, true, info),
        // A zombie.
        None => Ok(()),
    }
}

/// Sends a signal to one thread.
///
/// # Errors
/// As [`send_process`].
pub fn send_thread(thread: &Arc<Thread>, info: &Info) -> Result<()> {
    post(thread, false, info)
}

/// Sends a signal to all processes of a group, without asking for permission (terminals).
///
/// # Errors
/// `ESRCH` if the group is empty.
pub fn send_group(kernel: &Kernel, pgid: u32, info: &Info) -> Result<()> {
    let mut result = Err(Errno::ESRCH);
    for process in kernel.tasks.processes() {
        if process.pgid() == pgid {
            let sent = send_process(&process, info);
            result = if result.is_ok() { result } else { sent };
        }
    }
    result
}

/// `SIGPIPE` for a thread that wrote where nobody reads.
pub fn raise_sigpipe(t: &Thread) {
    let info = Info::kill(SIGPIPE, t.process.pid, t.credentials().uid);
    // A standard signal is always accepted.
    let _ = send_thread(&t.arc(), &info);
}

/// `SIGXFSZ` for a thread that wrote beyond `RLIMIT_FSIZE`.
pub fn raise_sigxfsz(t: &Thread) {
    let info = Info::kill(SIGXFSZ, t.process.pid, t.credentials().uid);
    // A standard signal is always accepted.
    let _ = send_thread(&t.arc(), &info);
}

/// A fault of the running thread: the signal comes at once. If it is blocked or ignored, the process dies of it.
pub fn force(t: &Thread, info: &Info) {
    force_with(t, info, false);
}

/// No frame could be written for `signo`: `SIGSEGV`, of which the process dies if that was the signal.
pub(super) fn force_sigsegv(t: &Thread, signo: i32) {
    force_with(t, &Info::kernel(SIGSEGV), signo == SIGSEGV);
}

fn force_with(t: &Thread, info: &Info, fatal: bool) {
    let signo = info.signo;
    let handlers = t.process.handlers();
    let blocked = t.signals.mask().contains(signo);
    if fatal || blocked || handlers.get(signo).handler == SIG_IGN {
        handlers.set_default(signo);
        if blocked {
            let group = t.process.signals.group.lock();
            t.signals
                .store_mask(t.signals.mask().without(SigSet::of(signo)));
            drop(group);
        }
    }
    // Being debugged is no reason to lose it.
    if handlers.get(signo).handler == SIG_DFL && !t.trace.is_traced() {
        t.process.signals.lose_protection();
    }
    // A standard signal is always accepted.
    let _ = send_thread(&t.arc(), info);
    // It may have been pending and blocked before, and then `post` has woken nobody.
    let group = t.process.signals.group.lock();
    recalculate(t);
    cpu::raise(cpu::WORK_THREAD);
    drop(group);
}

/// Tells `thread` to die: `exit_group(2)`, `execve(2)` and fatal signals do so to all (other) threads.
pub fn kill_thread(thread: &Arc<Thread>) {
    thread.signals.raise(KILLED);
    thread.signals.lower(STOP);
    notify(thread);
}

/// Looks at the process's signals on behalf of a thread that just joined it: to be called by `clone(2)` after
/// the thread was entered into the process and before it runs.
pub fn thread_joined(thread: &Arc<Thread>) {
    let process = &thread.process.signals;
    let group = process.group.lock();
    if process.fatal_signal().is_some() {
        thread.signals.raise(KILLED);
    } else if group.is_stopping() {
        thread.signals.raise(STOP);
    }
    offer(thread);
}

/// Takes a thread that is about to end out of the process's signalling: nobody sends to it any more, what it was
/// to take for the process goes to others. To be called once, before it leaves the process.
pub fn thread_exits(t: &Thread) {
    let process = &t.process.signals;
    process.set_uid(t.credentials().uid);
    {
        let _group = process.group.lock();
        t.signals.raise(EXITING);
        t.signals.pending.discard(!SigSet::EMPTY);
    }
    let unblocked = process.pending().without(t.signals.mask());
    if !unblocked.is_empty() {
        retarget(t, unblocked);
    }
    stop::complete(t);
}

/// Finds other threads for `signals` that are pending for the process and that `from` does not take (any more).
pub(super) fn retarget(from: &Thread, signals: SigSet) {
    if from.process.thread_count() < 2 {
        return;
    }
    let mut left = signals;
    for thread in from.process.threads() {
        if core::ptr::eq(&raw const *thread, from) || thread.signals.flags() & EXITING != 0 {
            continue;
        }
        let mask = thread.signals.mask();
        if !left.without(mask).is_empty() {
            left = left & mask;
            wake(&thread);
        }
        if left.is_empty() {
            break;
        }
    }
}

/// Has `thread` look for signals, if there are any for it.
fn wake(thread: &Arc<Thread>) {
    let deliverable = {
        let _group = thread.process.signals.group.lock();
        offer(thread)
    };
    if deliverable {
        notify(thread);
    }
}

/// Whether a signal that comes now does nothing (Linux's `sig_ignored`).
fn is_ignored(target: &Thread, handlers: &Handlers, info: &Info) -> bool {
    // A tracer is told even then.
    if target.trace.is_traced() && info.signo != SIGKILL {
        return false;
    }
    // What is blocked may get a handler before it is unblocked.
    !target.signals.real_mask().contains(info.signo)
        && (is_barred(&target.process, handlers, info) || handlers.ignored().contains(info.signo))
}

/// Whether init is protected from a signal: it gets what it has a handler for, and from outside the container
/// also `SIGKILL` and `SIGSTOP`.
fn is_barred(process: &Process, handlers: &Handlers, info: &Info) -> bool {
    process.signals.is_protected(process.pid)
        && handlers.default_set().contains(info.signo)
        && !(info.origin != Origin::Program && SigSet::UNBLOCKABLE.contains(info.signo))
}

/// Whether the signal ends the process, whichever thread takes it. Signals that dump core are left to the
/// thread that takes them.
fn is_fatal(taker: &Thread, handlers: &Handlers, info: &Info) -> bool {
    // A tracer may have other plans.
    if taker.trace.is_traced() && info.signo != SIGKILL {
        return false;
    }
    let harmless = SigSet::IGNORED_BY_DEFAULT | SigSet::STOP | SigSet::CORE_DUMP;
    handlers
        .default_set()
        .without(harmless)
        .contains(info.signo)
        && !taker.signals.awaited().contains(info.signo)
        && !is_barred(&taker.process, handlers, info)
}

/// Whether `thread` would take `signo` soon (Linux's `wants_signal`).
fn wants(thread: &Thread, signo: i32) -> bool {
    let flags = thread.signals.flags();
    if thread.signals.mask().contains(signo) || flags & EXITING != 0 {
        return false;
    }
    signo == SIGKILL || flags & (STOPPED | TRACE_STOPPED | PENDING) == 0
}

fn post(target: &Arc<Thread>, whole_process: bool, info: &Info) -> Result<()> {
    queue(target, whole_process, info)?;
    // For who reads it from a descriptor although it is blocked.
    target.process.signals.arrivals.wake_all();
    Ok(())
}

fn queue(target: &Arc<Thread>, whole_process: bool, info: &Info) -> Result<()> {
    let process = &target.process;
    let signals = &process.signals;
    let signo = info.signo;
    if signals.fatal_signal().is_some() {
        return Ok(());
    }
    if SigSet::STOP.with(SIGCONT).contains(signo) {
        stop::prepare(process, signo);
    }
    let handlers = process.handlers();
    let account = Account {
        counts: &process.kernel.queued_signals,
        uid: target.credentials().uid,
        limit: process.limit(RLIMIT_SIGPENDING).unwrap_or(rlimit64 {
            rlim_cur: 0,
            rlim_max: 0,
        }),
    };
    let pending = if whole_process {
        &signals.pending
    } else {
        &target.signals.pending
    };

    let group = signals.group.lock();
    let pointless = is_ignored(target, &handlers, info)
        || !whole_process && target.signals.flags() & EXITING != 0
        || signo < SIGRTMIN && pending.set().contains(signo);
    if pointless {
        return Ok(());
    }
    pending.push(info, &account)?;
    if wants(target, signo) {
        let fatal = take_aim(target, &handlers, info);
        drop(group);
        return finish(target, fatal);
    }
    drop(group);

    if whole_process && process.thread_count() > 1 {
        let taker = process
            .threads()
            .into_iter()
            .find(|thread| wants(thread, signo));
        if let Some(taker) = taker {
            let group = signals.group.lock();
            let fatal = take_aim(&taker, &handlers, info);
            drop(group);
            return finish(&taker, fatal);
        }
    }
    Ok(())
}

/// `taker` is to take the signal; under the signal lock. Whether the process is to die of it at once.
fn take_aim(taker: &Arc<Thread>, handlers: &Handlers, info: &Info) -> bool {
    if is_fatal(taker, handlers, info) {
        taker.process.signals.set_fatal(info.signo);
        return true;
    }
    offer(taker);
    false
}

fn finish(taker: &Arc<Thread>, fatal: bool) -> Result<()> {
    if fatal {
        for thread in taker.process.threads() {
            kill_thread(&thread);
        }
    } else {
        notify(taker);
    }
    Ok(())
}
