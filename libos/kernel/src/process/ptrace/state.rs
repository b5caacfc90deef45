//! What is known of a traced thread, and of the threads a thread traces.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use husk_abi::linux::ptrace::{
    PTRACE_EVENT_EXEC, PTRACE_EVENT_EXIT, PTRACE_EVENT_STOP, PTRACE_O_MASK,
};

use super::registers::Registers;
use super::watch::DebugRegisters;
use crate::Thread;
use crate::signal::Info;
use crate::sync::SpinLock;

/// The thread has a tracer.
pub(super) const TRACED: u32 = 1;
/// It is to stop at the start and the end of system calls (`PTRACE_SYSCALL`).
pub(super) const CALLS: u32 = 1 << 1;
/// It is to stop at system calls, which are not made (`PTRACE_SYSEMU`).
pub(super) const EMULATE: u32 = 1 << 2;
/// It is to stop after an instruction (`PTRACE_SINGLESTEP`).
pub(super) const STEP: u32 = 1 << 3;
/// TF is set in its registers because of [`STEP`], not because the program wants it.
pub(super) const FORCED_TF: u32 = 1 << 4;
/// It stands in a ptrace-stop; its tracer takes this down.
pub(super) const STANDING: u32 = 1 << 5;
/// It goes on standing, but does not count as stopped (`PTRACE_LISTEN`).
pub(super) const LISTENING: u32 = 1 << 6;

/// It has debug registers enabled, so that it steps.
pub(super) const DEBUG: u32 = 1 << 7;

/// How a thread is told to go on.
pub(super) const HOW: u32 = CALLS | EMULATE | STEP;

/// A thread's part in tracing, as tracee and as tracer.
#[derive(Debug, Default)]
pub struct Tracing {
    flags: AtomicU32,
    pub(super) state: SpinLock<State>,
    pub(super) debug: SpinLock<DebugRegisters>,
    /// Whom it traces, ended threads that it has not waited for included.
    pub(super) tracees: SpinLock<Vec<Arc<Thread>>>,
}

/// What a tracee's tracer set up.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub tracer: Weak<Thread>,
    /// By `PTRACE_SEIZE`, or as the child of one that was.
    pub seized: bool,
    /// `PTRACE_O_*`.
    pub options: u32,
}

impl Link {
    /// Whether `PTRACE_EVENT_` `event` is wanted.
    pub fn wants(&self, event: u32) -> bool {
        event == PTRACE_EVENT_STOP || self.options & (1 << event) != 0
    }
}

/// A tracee as its tracer sees it.
#[derive(Debug, Default)]
pub(super) struct State {
    /// `None` if it is not traced.
    pub link: Option<Link>,
    /// While it stands: what it shows.
    pub stopped: Option<Box<Stopped>>,
    /// The stop `wait(2)` has not reported yet (`exit_code` on Linux).
    pub unreported: Option<i32>,
    /// The signal it is to go on with; 0 for none.
    pub resume_signal: i32,
    /// `PTRACE_GETEVENTMSG`.
    pub message: u64,
    /// It has ended with this wait status; only a thread that is not its process's first.
    pub ended: Option<i32>,
    /// It has not returned from the call that made it yet: that call's number.
    pub born_in: Option<u64>,
}

/// What a standing tracee shows.
#[derive(Debug)]
pub(super) struct Stopped {
    /// What `wait(2)` shows above the low byte: the signal, and more above it.
    pub code: i32,
    /// `PTRACE_GETSIGINFO`; `None` in a group-stop.
    pub info: Option<Info>,
    pub registers: Registers,
}

impl Tracing {
    /// Whether the thread has a tracer.
    #[inline]
    #[must_use]
    pub fn is_traced(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & TRACED != 0
    }

    /// Whether something is to be done at its system calls.
    #[inline]
    #[must_use]
    pub fn watches_calls(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & (HOW | DEBUG) != 0
    }

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
        self.flags.fetch_and(!flag, Ordering::SeqCst) & flag != 0
    }

    /// Its tracer, if that lives.
    #[must_use]
    pub fn tracer(&self) -> Option<Arc<Thread>> {
        if !self.is_traced() {
            return None;
        }
        self.state.lock().link.as_ref()?.tracer.upgrade()
    }

    /// Whether its tracer came by `PTRACE_SEIZE`.
    #[must_use]
    pub fn is_seized(&self) -> bool {
        self.state.lock().link.as_ref().is_some_and(|l| l.seized)
    }

    /// Whether `PTRACE_EVENT_` `event` is to be reported.
    pub fn wants(&self, event: u32) -> bool {
        self.is_traced()
            && self
                .state
                .lock()
                .link
                .as_ref()
                .is_some_and(|l| l.wants(event))
    }

    /// Whether the thread stands in a stop that `PTRACE_LISTEN` made no obstacle for new ones.
    pub(super) fn is_listening(&self) -> bool {
        self.flags() & (STANDING | LISTENING) == STANDING | LISTENING
    }
}

impl State {
    /// Shows a stop; false if the thread is not traced (any more).
    pub fn stop(&mut self, stopped: Stopped, message: u64) -> bool {
        if self.link.is_none() {
            return false;
        }
        self.unreported = Some(stopped.code);
        self.resume_signal = 0;
        self.message = message;
        self.stopped = Some(Box::new(stopped));
        true
    }

    /// The thread goes on: what it showed, maybe changed by the tracer.
    pub fn go_on(&mut self) -> Option<Box<Stopped>> {
        self.unreported = None;
        self.message = 0;
        self.stopped.take()
    }

    /// The tracer is gone and has said nothing: a signal it has not even been told of is delivered.
    pub fn abandon(&mut self) {
        self.link = None;
        let signo = self.unreported.take().unwrap_or(0);
        // Events and system calls are no signals.
        self.resume_signal = if signo < 0x80 { signo } else { 0 };
    }
}

/// The wait status of a tracee that stopped with `code`.
pub(super) const fn wait_status(code: i32) -> i32 {
    code << 8 | 0x7f
}

/// The code of `PTRACE_EVENT_` `event` with `signo`.
pub(super) const fn event_code(event: u32, signo: i32) -> i32 {
    (event as i32) << 8 | signo
}

const _: () = assert!(PTRACE_O_MASK & (1 << PTRACE_EVENT_EXEC | 1 << PTRACE_EVENT_EXIT) != 0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::set::{SIGTRAP, SIGUSR1};
    use husk_abi::linux::ptrace::{PTRACE_EVENT_FORK, PTRACE_O_TRACEFORK};

    fn traced(options: u32) -> State {
        State {
            link: Some(Link {
                tracer: Weak::new(),
                seized: false,
                options,
            }),
            ..State::default()
        }
    }

    fn shown(code: i32) -> Stopped {
        Stopped {
            code,
            info: None,
            registers: Registers::for_tests(),
        }
    }

    #[test]
    fn events_and_their_options() {
        let link = traced(PTRACE_O_TRACEFORK).link.unwrap();
        assert!(link.wants(PTRACE_EVENT_FORK) && link.wants(PTRACE_EVENT_STOP));
        assert!(!link.wants(PTRACE_EVENT_EXEC) && !link.wants(PTRACE_EVENT_EXIT));
        assert_eq!(event_code(PTRACE_EVENT_FORK, SIGTRAP), 0x105);
        assert_eq!(wait_status(0x105), 0x1057f);
    }

    #[test]
    fn a_stop_is_shown_until_the_thread_goes_on() {
        let mut state = traced(0);
        assert!(state.stop(shown(SIGUSR1), 7));
        assert_eq!((state.unreported, state.message), (Some(SIGUSR1), 7));
        assert_eq!(state.go_on().unwrap().code, SIGUSR1);
        assert_eq!((state.unreported, state.message), (None, 0));
        assert!(state.go_on().is_none());
        assert!(!State::default().stop(shown(SIGUSR1), 0), "nobody traces");
    }

    #[test]
    fn a_signal_nobody_was_told_of_outlives_the_tracer() {
        let mut state = traced(0);
        state.stop(shown(SIGUSR1), 0);
        state.abandon();
        assert!(state.link.is_none());
        assert_eq!(state.resume_signal, SIGUSR1);
        for (code, reported) in [(SIGUSR1, true), (SIGTRAP | 0x80, false), (0x105, false)] {
            let mut state = traced(0);
            state.stop(shown(code), 0);
            if reported {
                state.unreported = None;
            }
            state.abandon();
            assert_eq!(state.resume_signal, 0, "{code:#x}");
        }
    }
}
