//! What the system is and how it is called.

use alloc::vec::Vec;

use husk_abi::linux::{general, system};
use husk_hal::{clock, cpu};

use super::uts::{self, NAME_MAX};
use crate::sync::SpinLock;
use crate::syscall::{BufIn, Len, Ptr};
use crate::{Errno, SysResult, Thread};

/// A field of `struct new_utsname`.
type Field = [u8; NAME_MAX + 1];

fn field(text: &[u8]) -> Field {
    let mut field = [0; NAME_MAX + 1];
    let len = text.len().min(NAME_MAX);
    field[..len].copy_from_slice(&text[..len]);
    field
}

/// `uname(2)`.
///
/// # Errors
/// `EFAULT`.
pub fn uname(t: &Thread, buf: Ptr) -> SysResult {
    const _: () = assert!(size_of::<system::new_utsname>() == size_of::<[Field; 6]>());
    let names = &t.kernel.uts;
    let hostname = field(&names.hostname.lock());
    let domainname = field(&names.domainname.lock());
    buf.write(&[
        field(uts::SYSNAME.as_bytes()),
        hostname,
        field(uts::RELEASE.as_bytes()),
        field(uts::VERSION.as_bytes()),
        field(uts::MACHINE.as_bytes()),
        domainname,
    ])?;
    Ok(0)
}

fn set_name(t: &Thread, to: &SpinLock<Vec<u8>>, name: BufIn, len: Len) -> SysResult {
    if !t.credentials().has(general::CAP_SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    // The argument is an int: what is negative there is too long here.
    if len > NAME_MAX {
        return Err(Errno::EINVAL);
    }
    let mut bytes = [0; NAME_MAX];
    name.read_bytes(&mut bytes[..len])?;
    let end = bytes[..len].iter().position(|byte| *byte == 0);
    let old = core::mem::replace(&mut *to.lock(), bytes[..end.unwrap_or(len)].to_vec());
    drop(old);
    Ok(0)
}

/// `sethostname(2)`.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` if too long, `EFAULT`.
pub fn sethostname(t: &Thread, name: BufIn, len: Len) -> SysResult {
    set_name(t, &t.kernel.uts.hostname, name, len)
}

/// `setdomainname(2)`.
///
/// # Errors
/// As [`sethostname`].
pub fn setdomainname(t: &Thread, name: BufIn, len: Len) -> SysResult {
    set_name(t, &t.kernel.uts.domainname, name, len)
}

/// `sysinfo(2)`. Load averages are not kept.
///
/// # Errors
/// `EFAULT`.
pub fn sysinfo(t: &Thread, info: Ptr) -> SysResult {
    let usage = t.kernel.frames.usage();
    let threads = t.kernel.tasks.thread_count();
    info.write(&system::sysinfo {
        uptime: (clock::now_ns() / 1_000_000_000) as i64,
        loads: [0; 3],
        totalram: usage.limit_bytes,
        freeram: usage.free_bytes(),
        sharedram: 0,
        bufferram: 0,
        totalswap: 0,
        freeswap: 0,
        procs: u16::try_from(threads).unwrap_or(u16::MAX),
        pad: 0,
        totalhigh: 0,
        freehigh: 0,
        mem_unit: 1,
        _f: system::__IncompleteArrayField::new(),
    })?;
    Ok(0)
}

/// `getcpu(2)`; the third argument has had no use since Linux 2.6.24.
///
/// # Errors
/// `EFAULT`.
pub fn getcpu(_t: &Thread, cpu: Ptr, node: Ptr, _cache: Ptr) -> SysResult {
    cpu.write_opt(&(cpu::index() as u32))?;
    node.write_opt(&0u32)?;
    Ok(0)
}
