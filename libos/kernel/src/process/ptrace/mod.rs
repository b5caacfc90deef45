//! `ptrace(2)`: one thread watches and steers another.
//!
//! | module | what |
//! | --- | --- |
//! | `state` | what is known of a tracee and of a tracer |
//! | `link` | attaching, detaching, tracing across clone, exec and exit |
//! | `stop` | ptrace-stops: events, system calls, signals, the process's stops |
//! | `registers` | what of a standing tracee's registers is shown and changed |
//! | `requests` | what a tracer asks of a standing tracee |
//! | `syscall_info` | `PTRACE_GET_SYSCALL_INFO` |
//! | `watch` | debug registers |
//! | `waiting` | what `wait(2)` shows a tracer |
//!
//! A tracee stops on its own: on its way back to user code, or at certain points of a system call. It copies its registers
//! to where the tracer finds them, and takes them back when it goes on. Its memory is untranslated
//! ([`AddressSpace::untranslate`](crate::mm::AddressSpace::untranslate)), so that breakpoints, single steps and
//! disassembly meet the program's own instructions.
//!
//! # Locks
//! A tracer's list, then a tracee's state, then nothing: both are held for a few instructions only.

mod link;
mod registers;
mod requests;
mod state;
mod stop;
mod syscall_info;
#[cfg(test)]
mod tests;
mod waiting;
mod watch;

use alloc::sync::Arc;

use husk_abi::linux::ptrace::{
    PTRACE_ATTACH, PTRACE_INTERRUPT, PTRACE_KILL, PTRACE_SEIZE, PTRACE_TRACEME,
};

pub(super) use link::forget_leader;
pub use link::{clone_event, inherit, replaced_leader, thread_ended};
pub use state::Tracing;
pub use stop::{
    call_begins, call_ends, childs_flags, deliver, ends_step, entered_handler, event, executed,
    group_stop, own_flags,
};
pub(super) use waiting::{TraceeEvent, look};
pub use watch::{arm, stepped};

use super::Thread;
use super::thread::Life;
use crate::signal::set::SIGKILL;
use crate::signal::{self, Info, tracing};
use crate::{Errno, Result, SysResult};
use state::{LISTENING, STANDING};

/// `ptrace(2)`.
///
/// # Errors
/// `ESRCH`, `EPERM`, `EIO`, `EINVAL`, `EFAULT`, as the man page lists them.
pub fn ptrace(t: &Thread, request: u64, pid: i32, addr: u64, data: u64) -> SysResult {
    let request = u32::try_from(request).unwrap_or(u32::MAX);
    if request == PTRACE_TRACEME {
        return link::trace_me(t);
    }
    let id = u32::try_from(pid).map_err(|_| Errno::ESRCH)?;
    let Some(tracee) = t.kernel.tasks.thread(id) else {
        let is_zombie = t
            .kernel
            .tasks
            .process(id)
            .is_some_and(|process| matches!(process.life(), Life::Zombie(_)));
        let attaches = request == PTRACE_ATTACH || request == PTRACE_SEIZE;
        return Err(if is_zombie && attaches {
            Errno::EPERM
        } else {
            Errno::ESRCH
        });
    };
    match request {
        PTRACE_ATTACH => link::attach(t, &tracee, None),
        PTRACE_SEIZE => link::attach(t, &tracee, Some([addr, data])),
        PTRACE_KILL | PTRACE_INTERRUPT => {
            check_tracer(t, &tracee)?;
            steer(request, &tracee)
        }
        _ => {
            check_tracer(t, &tracee)?;
            if tracee.trace.flags() & (STANDING | LISTENING) != STANDING
                || tracee.signals.is_killed()
            {
                return Err(Errno::ESRCH);
            }
            requests::serve(t, &tracee, request, addr, data)
        }
    }
}

/// Whether `t` is the tracer of `tracee`.
fn check_tracer(t: &Thread, tracee: &Thread) -> Result<()> {
    let tracer = tracee.trace.tracer().ok_or(Errno::ESRCH)?;
    if core::ptr::eq(Arc::as_ptr(&tracer), t) {
        Ok(())
    } else {
        Err(Errno::ESRCH)
    }
}

/// What a tracer may ask of a tracee that runs.
fn steer(request: u32, tracee: &Arc<Thread>) -> SysResult {
    if request == PTRACE_KILL {
        // A standard signal is always accepted.
        let info = Info::lost(SIGKILL);
        let _ = signal::send_thread(tracee, &info);
    } else if tracee.trace.is_seized() {
        tracing::ask_to_trap(tracee);
    } else {
        return Err(Errno::EIO);
    }
    Ok(0)
}
