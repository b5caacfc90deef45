//! System calls: from a number and six registers to a handler's typed arguments.

mod absent;
mod args;
mod bpf;
pub mod filters;
pub mod seccomp;

use husk_hal::cpu;
use husk_hal::trap::{ENTRY_TRANSLATED, ENTRY_TRAPPED, EXIT_FULL, LiveFrame};

pub use args::*;
use seccomp::Verdict;

use crate::process::ptrace;
use crate::{Errno, SysResult, Thread, translate};

/// Serves the system call in `frame`, which lies at the top of the thread's stack.
///
/// A handler that replaces the whole frame (exec, sigreturn) makes it no system call's; then `rax` is its own.
pub fn dispatch(thread: &Thread, frame: &LiveFrame) {
    if thread.trace.watches_calls() {
        watched(thread, frame);
    } else {
        serve(thread, frame);
    }
}

/// A call of a thread whose tracer is told of calls, or steps over them.
#[cold]
fn watched(thread: &Thread, frame: &LiveFrame) {
    let is_made = ptrace::call_begins(thread);
    let nr = frame.nr();
    if is_made {
        serve(thread, frame);
    }
    let is_replaced = is_made && nr != u64::MAX && frame.nr() == u64::MAX && !is_sigreturn(nr);
    ptrace::call_ends(thread, nr, is_replaced);
}

/// Whether call `nr` leaves a frame that is no call's on Linux, too.
fn is_sigreturn(nr: u64) -> bool {
    nr == u64::from(husk_abi::linux::general::__NR_rt_sigreturn)
}

/// Serves the call in `frame`.
#[inline]
fn serve(thread: &Thread, frame: &LiveFrame) {
    let nr = frame.nr();
    let kernel = &thread.kernel;
    let plain = frame.code() == ENTRY_TRANSLATED
        && nr != u64::MAX
        && kernel.seccomp.is_none()
        && !thread.filters.is_active();
    if plain && !kernel.trace.wants(nr) {
        answer(frame, call(thread, nr, frame));
    } else {
        dispatch_observed(thread, nr, frame);
    }
}

/// [`dispatch`] for calls that trapped, and those that a filter or the recording looks at.
#[inline(never)]
fn dispatch_observed(thread: &Thread, nr: u64, frame: &LiveFrame) {
    if nr == u64::MAX {
        // A program's own -1, which is also how a frame says that it is no call's.
        frame.set_rax(i64::from(-Errno::ENOSYS.code()) as u64);
        return;
    }
    let profile = thread.kernel.seccomp.as_ref();
    let is_asked = profile.is_some_and(|profile| !profile.allows(nr));
    let mut nr = nr;
    if is_asked || thread.filters.is_active() {
        match seccomp::judge(thread, nr, frame) {
            Verdict::Serve => {}
            Verdict::Succeed => {
                if thread.kernel.trace.records(nr) {
                    let _ = crate::trace::recorded(thread, nr, &frame.args(), || Ok(0));
                }
                frame.set_rax(0);
                return;
            }
            Verdict::Fail(errno) => {
                if thread.kernel.trace.records(nr) {
                    let _ = crate::trace::recorded(thread, nr, &frame.args(), || Err(errno));
                }
                frame.set_rax(i64::from(-errno.code()) as u64);
                return;
            }
            Verdict::Undone => return,
        }
        // A tracer may have changed it.
        nr = frame.nr();
    }
    let trapped = frame.code() & !EXIT_FULL == ENTRY_TRAPPED;
    let site = frame.rip();
    // Their sites would never be considered if it were done afterwards.
    let departs = trapped && translate::departs(nr);
    if departs {
        translate::consider(thread, site, nr);
    }
    let result = if thread.kernel.trace.wants(nr) {
        observed(thread, nr, frame, trapped)
    } else {
        call(thread, nr, frame)
    };
    let served = answer(frame, result);
    if served && trapped && !departs {
        translate::consider(thread, site, nr);
    }
}

/// Gives the program its result. False if the handler replaced the frame, which then has one of its own.
#[inline]
fn answer(frame: &LiveFrame, result: isize) -> bool {
    if frame.nr() == u64::MAX {
        return false;
    }
    frame.set_rax(result as u64);
    if (-FIRST_RESTART - 7..=-FIRST_RESTART).contains(&result) {
        // Only signal delivery turns a restart code into what a program may see.
        cpu::raise(cpu::WORK_THREAD);
    }
    true
}

/// A call that is counted or recorded.
#[cold]
fn observed(thread: &Thread, nr: u64, frame: &LiveFrame, trapped: bool) -> isize {
    let trace = &thread.kernel.trace;
    trace.count(trapped);
    if trace.records(nr) {
        pack(crate::trace::recorded(thread, nr, &frame.args(), || {
            unpack(call(thread, nr, frame))
        }))
    } else {
        call(thread, nr, frame)
    }
}

/// The lowest restart code; they lie within 8 (`Errno::ERESTARTSYS` and its like).
const FIRST_RESTART: isize = Errno::ERESTARTSYS.code() as isize;

/// A result as `rax` has it: one register instead of a value in memory.
#[inline]
fn pack(result: SysResult) -> isize {
    match result {
        Ok(value) => value.cast_signed(),
        Err(errno) => -(errno.code() as isize),
    }
}

/// What [`pack`] made, taken apart again.
fn unpack(rax: isize) -> SysResult {
    match i32::try_from(-rax) {
        Ok(code @ 1..4096) => Err(Errno::from_code(code)),
        _ => Ok(rax.cast_unsigned()),
    }
}

macro_rules! dispatcher {
    ($($nr:literal $name:ident($($arg:ident: $kind:ident),*) => [$($handler:path)?];)*) => {
        fn call(thread: &Thread, nr: u64, frame: &LiveFrame) -> isize {
            match nr {
                $($nr => pack(dispatcher!(@call thread, frame, $nr, [$($kind)*] $($handler)?)),)*
                nr => pack(absent::refuse(thread, nr)),
            }
        }
    };
    (@call $thread:ident, $frame:ident, $nr:literal, [$($kind:ident)*]) => {
        absent::refuse($thread, $nr)
    };
    (@call $thread:ident, $frame:ident, $nr:literal, [] $handler:path) => {
        $handler($thread)
    };
    (@call $thread:ident, $frame:ident, $nr:literal, [$($kind:ident)*] $handler:path) => {{
        let mut _registers = $frame.args().into_iter();
        $handler($thread $(, <$kind as FromRegister>::from_register(_registers.next().unwrap_or(0)))*)
    }};
}

use crate::{fs, futex, ipc, mm, net, process, sched, signal, syscall, time, tty};
husk_abi::syscall_table!(dispatcher);
