//! Calls the libOS does not have.

use husk_abi::linux::general::{CAP_SYS_ADMIN, CAP_SYS_PACCT, CAP_SYS_RAWIO, CAP_SYSLOG};

use crate::{Errno, SysResult, Thread};

/// What a caller needs for calls about the whole machine, before Linux looks at anything else.
fn needed(name: &str) -> Option<u32> {
    Some(match name {
        "swapon" | "swapoff" | "pivot_root" | "lookup_dcookie" => CAP_SYS_ADMIN,
        "fsopen" | "fsmount" | "fspick" | "move_mount" => CAP_SYS_ADMIN,
        "acct" => CAP_SYS_PACCT,
        "iopl" | "ioperm" => CAP_SYS_RAWIO,
        "syslog" => CAP_SYSLOG,
        _ => return None,
    })
}

/// `EPERM` for who may not make call `nr` anyway, else `ENOSYS`, counted, and logged once per number.
#[cold]
pub fn refuse(thread: &Thread, nr: u64) -> SysResult {
    let name = husk_abi::linux::syscalls::lookup(nr).map_or("unknown", |row| row.name);
    if let Some(capability) = needed(name)
        && !thread.is_capable(capability)
    {
        return Err(Errno::EPERM);
    }
    if thread.kernel.trace.count_missing(nr) {
        crate::log!(Warn, "syscall", "{name} ({nr}) is not implemented: ENOSYS");
    }
    Err(Errno::ENOSYS)
}
