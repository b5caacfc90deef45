use alloc::sync::Arc;

use husk_abi::linux::general::{CAP_SYS_PTRACE, SIGCHLD, SIGKILL};
use husk_abi::linux::ptrace::*;

use super::super::testing::{adopt, new_process, new_thread, test_thread, user_credentials};
use super::super::thread::Life;
use super::registers::Registers;
use super::state::{STANDING, Stopped};
use super::*;
use crate::signal::set::{SIGCONT, SIGSTOP, SIGUSR1};

fn child_of(t: &Thread) -> Arc<Thread> {
    let child = new_process(t.kernel, user_credentials(0, u64::MAX)).unwrap();
    adopt(&t.process, &child.process);
    child
}

fn request(t: &Thread, request: u32, tracee: &Thread, data: u64) -> SysResult {
    ptrace(t, u64::from(request), tracee.tid().cast_signed(), 0, data)
}

/// Makes `tracee` stand as if it had stopped with `code`.
fn stand(tracee: &Thread, code: i32) {
    let stopped = Stopped {
        code,
        info: Some(Info::notice(code & 0x7f, code, tracee.tid(), 0)),
        registers: Registers::for_tests(),
    };
    assert!(tracee.trace.state.lock().stop(stopped, 0));
    tracee.trace.raise(STANDING);
}

#[test]
fn who_may_be_traced() {
    let t = test_thread();
    let child = child_of(&t);
    let sibling = new_thread(&t);
    assert_eq!(request(&t, PTRACE_ATTACH, &t, 0), Err(Errno::EPERM));
    assert_eq!(request(&t, PTRACE_ATTACH, &sibling, 0), Err(Errno::EPERM));
    assert_eq!(ptrace(&t, 16, 4711, 0, 0), Err(Errno::ESRCH));
    assert_eq!(ptrace(&t, 16, -1, 0, 0), Err(Errno::ESRCH));
    let seize = |addr, options| {
        let pid = child.tid().cast_signed();
        ptrace(&t, u64::from(PTRACE_SEIZE), pid, addr, options)
    };
    assert_eq!(seize(8, 0), Err(Errno::EIO));
    assert_eq!(seize(0, 1 << 30), Err(Errno::EIO));
    assert_eq!(
        request(&t, PTRACE_CONT, &child, 0),
        Err(Errno::ESRCH),
        "not traced"
    );
    assert_eq!(seize(0, u64::from(PTRACE_O_TRACEFORK)), Ok(0));
    assert_eq!(seize(0, 0), Err(Errno::EPERM), "traced already");
    assert_eq!(child.trace.tracer().unwrap().tid(), t.tid());
    assert_eq!(
        request(&t, PTRACE_CONT, &child, 0),
        Err(Errno::ESRCH),
        "it runs"
    );
    assert_eq!(
        request(&sibling, PTRACE_INTERRUPT, &child, 0),
        Err(Errno::ESRCH)
    );
    assert_eq!(request(&t, PTRACE_INTERRUPT, &child, 0), Ok(0));
    assert!(tracing::is_to_trap(&child));
}

#[test]
fn users_trace_their_own() {
    let t = test_thread();
    let other = child_of(&t);
    let user = new_process(t.kernel, user_credentials(1000, 0)).unwrap();
    let own = new_process(t.kernel, user_credentials(1000, 0)).unwrap();
    let gains = new_process(t.kernel, user_credentials(1000, 1 << CAP_SYS_PTRACE)).unwrap();
    assert_eq!(request(&user, PTRACE_ATTACH, &other, 0), Err(Errno::EPERM));
    assert_eq!(request(&user, PTRACE_ATTACH, &gains, 0), Err(Errno::EPERM));
    assert_eq!(request(&user, PTRACE_ATTACH, &own, 0), Ok(0));
    assert_eq!(request(&gains, PTRACE_ATTACH, &other, 0), Ok(0));
    // Attaching sends what the tracee stops with.
    assert!(own.signals.pending().contains(SIGSTOP));
}

#[test]
fn a_tracer_waits_for_stops() {
    let t = test_thread();
    let child = child_of(&t);
    let seen = |consume| look(&t, |_| true, true, consume).map(|event| event.map(|e| e.status));
    assert_eq!(seen(true), None, "no tracees");
    assert_eq!(request(&t, PTRACE_SEIZE, &child, 0), Ok(0));
    assert_eq!(seen(true), Some(None));
    stand(&child, SIGUSR1);
    assert_eq!(seen(false), Some(Some(SIGUSR1 << 8 | 0x7f)));
    assert_eq!(seen(true), Some(Some(SIGUSR1 << 8 | 0x7f)));
    assert_eq!(seen(true), Some(None), "told once");
    assert_eq!(request(&t, PTRACE_LISTEN, &child, 0), Err(Errno::EIO));
    assert_eq!(request(&t, PTRACE_CONT, &child, 65), Err(Errno::EIO));
    assert_eq!(request(&t, PTRACE_SYSCALL, &child, SIGCONT as u64), Ok(0));
    assert!(child.trace.watches_calls());
    assert_eq!(child.trace.state.lock().resume_signal, SIGCONT);
    assert_eq!(
        request(&t, PTRACE_CONT, &child, 0),
        Err(Errno::ESRCH),
        "it runs"
    );
    stand(&child, state::event_code(PTRACE_EVENT_STOP, SIGSTOP));
    assert_eq!(request(&t, PTRACE_LISTEN, &child, 0), Ok(0));
    assert_eq!(
        request(&t, PTRACE_CONT, &child, 0),
        Err(Errno::ESRCH),
        "it listens"
    );
    assert_eq!(seen(true), Some(None));
}

#[test]
fn detached_tracees_go_on() {
    let t = test_thread();
    let child = child_of(&t);
    assert_eq!(request(&t, PTRACE_SEIZE, &child, 0), Ok(0));
    stand(&child, SIGUSR1);
    assert_eq!(request(&t, PTRACE_DETACH, &child, SIGUSR1 as u64), Ok(0));
    assert!(!child.trace.is_traced() && child.trace.flags() & STANDING == 0);
    assert_eq!(child.trace.state.lock().resume_signal, SIGUSR1);
    assert!(look(&t, |_| true, true, true).is_none());
    assert_eq!(
        request(&t, PTRACE_SEIZE, &child, 0),
        Ok(0),
        "and can be traced again"
    );
}

#[test]
fn the_end_of_a_tracer() {
    let t = test_thread();
    let tracer = new_process(t.kernel, user_credentials(0, u64::MAX)).unwrap();
    let [freed, killed] = [child_of(&t), child_of(&t)];
    assert_eq!(request(&tracer, PTRACE_SEIZE, &freed, 0), Ok(0));
    let options = u64::from(PTRACE_O_EXITKILL);
    assert_eq!(request(&tracer, PTRACE_SEIZE, &killed, options), Ok(0));
    stand(&freed, SIGUSR1);
    thread_ended(&tracer, 0);
    assert!(!freed.trace.is_traced() && !killed.trace.is_traced());
    assert!(!freed.signals.is_killed() && killed.signals.is_killed());
    assert_eq!(killed.process.signals.fatal_signal(), Some(SIGKILL as i32));
    // Nobody had been told of it.
    assert_eq!(freed.trace.state.lock().resume_signal, SIGUSR1);
}

#[test]
fn ends_are_told_to_the_tracer_first() {
    let t = test_thread();
    let child = child_of(&t);
    let thread = new_thread(&child);
    let tracer = new_process(t.kernel, user_credentials(0, u64::MAX)).unwrap();
    assert_eq!(request(&tracer, PTRACE_SEIZE, &child, 0), Ok(0));
    assert_eq!(request(&tracer, PTRACE_SEIZE, &thread, 0), Ok(0));
    assert!(child.process.foreign_tracer().is_some() && !child.process.is_traced_by_parent());
    thread_ended(&thread, 7 << 8);
    child.process.family.lock().life = Life::Zombie(0x300);
    assert_eq!(
        child.process.end_to_tell(),
        None,
        "one of its threads has not been waited for"
    );
    let next = || look(&tracer, |_| true, true, true).flatten();
    let event = next().unwrap();
    assert_eq!((event.tracee.tid(), event.status), (thread.tid(), 7 << 8));
    assert_eq!(child.process.end_to_tell(), Some(0x300));
    assert!(!t.process.signals.pending().contains(SIGCHLD as i32));
    let event = next().unwrap();
    assert_eq!((event.tracee.tid(), event.status), (child.tid(), 0x300));
    assert!(child.process.foreign_tracer().is_none() && next().is_none());
}

#[test]
fn children_of_tracees() {
    let t = test_thread();
    let child = child_of(&t);
    let options = u64::from(PTRACE_O_TRACEFORK | PTRACE_O_TRACECLONE);
    assert_eq!(request(&t, PTRACE_SEIZE, &child, options), Ok(0));
    let untraced = u64::from(husk_abi::linux::general::CLONE_UNTRACED);
    let vfork = u64::from(husk_abi::linux::general::CLONE_VFORK);
    assert_eq!(clone_event(&child, 0, SIGCHLD), Some(PTRACE_EVENT_FORK));
    assert_eq!(clone_event(&child, 0, 0), Some(PTRACE_EVENT_CLONE));
    assert_eq!(clone_event(&child, vfork, SIGCHLD), None, "not asked for");
    assert_eq!(clone_event(&child, untraced, SIGCHLD), None);
    assert_eq!(clone_event(&t, 0, SIGCHLD), None);
    let grandchild = child_of(&child);
    inherit(&child, &grandchild, 57);
    assert!(grandchild.trace.is_seized() && tracing::is_to_trap(&grandchild));
    assert_eq!(grandchild.trace.tracer().unwrap().tid(), t.tid());
    assert!(grandchild.trace.wants(PTRACE_EVENT_FORK));
}
