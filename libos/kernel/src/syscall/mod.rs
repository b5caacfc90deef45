//! System calls: from a number and six registers to a handler's typed arguments.

mod args;

use husk_hal::cpu;
use husk_hal::trap::{ENTRY_TRAPPED, EXIT_FULL, LiveFrame};

pub use args::*;

use crate::{Errno, SysResult, Thread};

/// Serves the system call in `frame`, which lies at the top of the thread's stack.
///
/// A handler that replaces the whole frame (exec, sigreturn) makes it no system call's; then `rax` is its own.
pub fn dispatch(thread: &Thread, frame: &LiveFrame) {
    let nr = frame.nr();
    if nr == u64::MAX {
        // A program's own -1, which is also how a frame says that it is no call's.
        frame.set_rax(i64::from(-Errno::ENOSYS.code()) as u64);
        return;
    }
    let trapped = frame.code() & !EXIT_FULL == ENTRY_TRAPPED;
    let site = frame.rip();
    let result = if thread.kernel.trace.wants(nr) {
        crate::trace::recorded(thread, nr, frame.args(), call)
    } else {
        call(thread, nr, frame.args())
    };
    if frame.nr() == u64::MAX {
        return;
    }
    frame.set_rax(match result {
        Ok(value) => value as u64,
        Err(errno) => {
            if errno.code() >= Errno::ERESTARTSYS.code() {
                // Only signal delivery turns a restart code into what a program may see.
                cpu::raise(cpu::WORK_THREAD);
            }
            i64::from(-errno.code()) as u64
        }
    });
    if trapped {
        crate::translate::consider(thread, site, nr);
    }
}

macro_rules! dispatcher {
    ($($nr:literal $name:ident($($arg:ident: $kind:ident),*) => [$($handler:path)?];)*) => {
        fn call(thread: &Thread, nr: u64, registers: [u64; 6]) -> SysResult {
            match nr {
                $($nr => dispatcher!(@call thread, registers, $nr, [$($kind)*] $($handler)?),)*
                nr => unknown(thread, nr),
            }
        }
    };
    (@call $thread:ident, $registers:ident, $nr:literal, [$($kind:ident)*]) => {
        unknown($thread, $nr)
    };
    (@call $thread:ident, $registers:ident, $nr:literal, [$($kind:ident)*] $handler:path) => {{
        let mut _registers = $registers.into_iter();
        $handler($thread $(, <$kind as FromRegister>::from_register(_registers.next().unwrap_or(0)))*)
    }};
}

use crate::{fs, futex, mm, process, sched, signal, time};
husk_abi::syscall_table!(dispatcher);

/// A call the libOS does not have: counted and logged once per number, then `ENOSYS`.
#[cold]
fn unknown(thread: &Thread, nr: u64) -> SysResult {
    let name = husk_abi::linux::syscalls::lookup(nr).map_or("unknown", |row| row.name);
    if thread.kernel.trace.count_missing(nr) {
        crate::log!(Warn, "syscall", "{name} ({nr}) is not implemented: ENOSYS");
    }
    Err(Errno::ENOSYS)
}
