//! How a tracee stops: it shows its registers, tells its tracer, and stands until that lets it go on.

use husk_abi::linux::general::{CLD_STOPPED, CLD_TRAPPED, SIGCHLD, TRAP_BRKPT};
use husk_abi::linux::ptrace::{
    PTRACE_EVENT_EXEC, PTRACE_EVENT_STOP, PTRACE_EVENTMSG_SYSCALL_ENTRY,
    PTRACE_EVENTMSG_SYSCALL_EXIT, PTRACE_O_TRACESYSGOOD,
};

use super::registers::Registers;
use super::state::{
    CALLS, EMULATE, FORCED_TF, LISTENING, STANDING, STEP, Stopped, TRACED, event_code,
};
use super::watch;
use crate::signal::fault::TRAP_FLAG;
use crate::signal::set::{SIGKILL, SIGTRAP};
use crate::signal::{self, Info, tracing};
use crate::{Errno, Thread, sched};

/// A stop.
struct Stop {
    code: i32,
    /// `CLD_TRAPPED` or `CLD_STOPPED`.
    why: u32,
    info: Option<Info>,
    message: u64,
    /// The call whose end it is part of, where the registers are a new program's or a new thread's.
    call: Option<u64>,
    /// It is the thread's part in its process's stop.
    joins_group_stop: bool,
}

impl Stop {
    /// An event's stop or a system call's, which make a `siginfo_t` of their own.
    fn notice(t: &Thread, code: i32) -> Self {
        let uid = t.credentials().uid;
        Self {
            code,
            why: CLD_TRAPPED,
            info: Some(Info::notice(code & 0x7f, code, t.tid(), uid)),
            message: 0,
            call: None,
            joins_group_stop: false,
        }
    }
}

/// With what a tracee goes on.
struct Resumed {
    /// A signal to be delivered; 0 for none.
    signo: i32,
    /// What the stop's `siginfo_t` is by now.
    info: Option<Info>,
}

/// Stops the running thread until its tracer lets it go on, or it is killed; `None` if it did not stop.
fn halt(t: &Thread, stop: Stop) -> Option<Resumed> {
    let trace = &t.trace;
    if t.signals.is_killed() {
        return None;
    }
    let born_in = trace.state.lock().born_in.take();
    let stopped = Stopped {
        code: stop.code,
        info: stop.info,
        registers: Registers::of_running(t, stop.call.or(born_in)),
    };
    // Raised first: from the moment it shows something its tracer may let it go on.
    trace.raise(STANDING);
    if !trace.state.lock().stop(stopped, stop.message) {
        trace.lower(STANDING);
        return None;
    }
    let is_event_stop = stop.code >> 8 == PTRACE_EVENT_STOP as i32;
    tracing::stands(t, is_event_stop);
    if stop.joins_group_stop {
        tracing::take_part(t);
    }
    tell_tracer(t, stop.why, stop.code);
    let released = || {
        trace.flags() & STANDING == 0
            || t.signals.is_killed()
            || trace.is_listening() && tracing::is_to_trap(t)
    };
    while !released() {
        sched::park(t, None, released);
    }
    trace.lower(STANDING | LISTENING);
    let (stopped, signo) = {
        let mut state = trace.state.lock();
        let signo = core::mem::take(&mut state.resume_signal);
        (state.go_on(), signo)
    };
    let info = stopped.and_then(|stopped| {
        stopped.registers.apply(t);
        stopped.info
    });
    tracing::goes_on(t);
    Some(Resumed { signo, info })
}

/// `SIGCHLD` for the tracer, if it wants that, and a wake-up of its `wait(2)`.
fn tell_tracer(t: &Thread, why: u32, code: i32) {
    let Some(tracer) = t.trace.tracer() else {
        return;
    };
    if tracer.process.handlers().wants_child_stops() {
        let signo = SIGCHLD.cast_signed();
        let status = if why == CLD_STOPPED {
            tracing::stop_signal(&t.process).unwrap_or(code & 0x7f)
        } else {
            code & 0x7f
        };
        let info = Info::tracee(signo, why, t, status);
        // A standard signal is always accepted.
        let _ = signal::send_process(&tracer.process, &info);
    }
    tracer.process.child_events.wake_all();
}

/// Stops with a notice; a signal the tracer wants delivered is sent.
fn notice(t: &Thread, stop: Stop) {
    let signo = halt(t, stop).map_or(0, |resumed| resumed.signo);
    if signo != 0 {
        // A standard signal is always accepted, and nobody waits for the answer otherwise.
        let _ = signal::send_thread(&t.arc(), &Info::kernel(signo));
    }
}

/// Reports `PTRACE_EVENT_` `event` with `message`, if the tracer wants it.
pub fn event(t: &Thread, event: u32, message: u64) {
    event_in(t, event, message, None);
}

fn event_in(t: &Thread, event: u32, message: u64, call: Option<u64>) {
    if t.trace.wants(event) {
        notice(
            t,
            Stop {
                message,
                call,
                ..Stop::notice(t, event_code(event, SIGTRAP))
            },
        );
    }
}

/// The running thread, which was `old_tid`, has a new program by call `nr`.
pub fn executed(t: &Thread, old_tid: u32, nr: u64) {
    if !t.trace.is_traced() {
        return;
    }
    watch::clear(t);
    if t.trace.wants(PTRACE_EVENT_EXEC) {
        event_in(t, PTRACE_EVENT_EXEC, u64::from(old_tid), Some(nr));
    } else if !t.trace.is_seized() {
        let info = Info::kill(SIGTRAP, t.process.pid, t.credentials().uid);
        // A standard signal is always accepted.
        let _ = signal::send_thread(&t.arc(), &info);
    }
}

/// A call's stop: at its start or end, as `message` says.
fn report_call(t: &Thread, message: u32, call: Option<u64>) {
    let is_good = {
        let state = t.trace.state.lock();
        let link = state.link.as_ref();
        link.is_some_and(|link| link.options & PTRACE_O_TRACESYSGOOD != 0)
    };
    let code = SIGTRAP | if is_good { 0x80 } else { 0 };
    notice(
        t,
        Stop {
            message: u64::from(message),
            call,
            ..Stop::notice(t, code)
        },
    );
}

/// A system call of a thread that [watches](super::Tracing::watches_calls) begins; whether it is to be made. The frame
/// may have become another call's.
pub fn call_begins(t: &Thread) -> bool {
    let flags = t.trace.flags();
    let frame = t.frame();
    frame.set_rax(i64::from(-Errno::ENOSYS.code()).cast_unsigned());
    if flags & (CALLS | EMULATE) == 0 {
        return true;
    }
    report_call(t, PTRACE_EVENTMSG_SYSCALL_ENTRY, None);
    flags & EMULATE == 0 && !t.signals.is_killed() && frame.nr() != u64::MAX
}

/// The call `nr` is over, its result in the frame; `replaced` if the frame is a new program's.
pub fn call_ends(t: &Thread, nr: u64, replaced: bool) {
    let flags = t.trace.flags();
    if flags & TRACED == 0 || t.signals.is_killed() {
        return;
    }
    watch::arm(t);
    if flags & STEP != 0 {
        if flags & EMULATE == 0 {
            let code = TRAP_BRKPT.cast_signed();
            signal::force(t, &Info::fault(SIGTRAP, code, t.frame().rip()));
        }
    } else if flags & CALLS != 0 {
        report_call(t, PTRACE_EVENTMSG_SYSCALL_EXIT, replaced.then_some(nr));
    }
}

/// The tracer decides on a signal that is about to be delivered: what is delivered instead, if anything.
pub fn deliver(t: &Thread, info: Info) -> Option<Info> {
    if info.signo == SIGKILL || !t.trace.is_traced() {
        return Some(info);
    }
    // Whatever the tracer makes of it: if it is to stop the process, that holds unless `SIGCONT` comes meanwhile.
    tracing::arm_stop(t);
    let tracer = t.trace.tracer();
    let Some(resumed) = halt(
        t,
        Stop {
            code: info.signo,
            why: CLD_TRAPPED,
            info: Some(info),
            message: 0,
            call: None,
            joins_group_stop: false,
        },
    ) else {
        return Some(info);
    };
    let signo = resumed.signo;
    if signo == 0 {
        return None;
    }
    let info = match resumed.info {
        Some(info) if info.signo == signo => info,
        _ => {
            let (pid, uid) = tracer.map_or((0, 0), |tracer| {
                (tracer.process.pid, tracer.credentials().uid)
            });
            Info::kill(signo, pid, uid)
        }
    };
    if t.signals.mask().contains(signo) || t.signals.is_killed() {
        // A real-time signal may find its queue full; it is lost then, as on Linux.
        let _ = signal::send_thread(&t.arc(), &info);
        return None;
    }
    Some(info)
}

/// The process is to stop, or the tracer has asked for a stop.
pub fn group_stop(t: &Thread) {
    let stop_signal = tracing::stop_signal(&t.process);
    let stop = if t.trace.is_seized() {
        let signo = stop_signal.unwrap_or(SIGTRAP);
        Stop::notice(t, event_code(PTRACE_EVENT_STOP, signo))
    } else {
        let Some(signo) = stop_signal else {
            return;
        };
        Stop {
            info: None,
            ..Stop::notice(t, signo)
        }
    };
    halt(
        t,
        Stop {
            why: CLD_STOPPED,
            joins_group_stop: stop_signal.is_some(),
            ..stop
        },
    );
}

/// A handler is about to be entered: whether the thread single-steps. The step ends at the handler's first
/// instruction, see [`entered_handler`].
pub fn ends_step(t: &Thread) -> bool {
    t.trace.flags() & STEP != 0
}

/// The flags the program itself has, without a single-step's.
pub fn own_flags(t: &Thread, rflags: u64) -> u64 {
    if t.trace.is_traced() && t.trace.take(FORCED_TF) {
        rflags & !TRAP_FLAG
    } else {
        rflags
    }
}

/// The flags a child of the running thread starts with.
pub fn childs_flags(t: &Thread, rflags: u64) -> u64 {
    if t.trace.flags() & FORCED_TF != 0 {
        rflags & !TRAP_FLAG
    } else {
        rflags
    }
}

/// A thread that single-steps stands at the first instruction of a handler.
pub fn entered_handler(t: &Thread) {
    notice(t, Stop::notice(t, SIGTRAP));
}
