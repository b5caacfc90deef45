//! What the system is and how it is called.

use alloc::vec::Vec;

use husk_abi::linux::{general, system};
use husk_hal::clock;

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
    let names = t.namespaces().uts.clone();
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
    set_name(t, &t.namespaces().uts.hostname, name, len)
}

/// `setdomainname(2)`.
///
/// # Errors
/// As [`sethostname`].
pub fn setdomainname(t: &Thread, name: BufIn, len: Len) -> SysResult {
    set_name(t, &t.namespaces().uts.domainname, name, len)
}

/// `sysinfo(2)`. Load averages are not kept.
///
/// # Errors
/// `EFAULT`.
pub fn sysinfo(t: &Thread, info: Ptr) -> SysResult {
    let usage = t.kernel.frames.usage();
    let threads = t.kernel.tasks.thread_count();
    const _: () = assert!(size_of::<system::sysinfo>() == size_of::<[u64; 14]>());
    info.write(&[
        clock::now_ns() / 1_000_000_000,
        0,
        0,
        0,
        usage.limit_bytes,
        usage.free_bytes(),
        // Shared and buffer memory, swap and free swap.
        0,
        0,
        0,
        0,
        threads.min(usize::from(u16::MAX)) as u64,
        // High memory and free high memory.
        0,
        0,
        // Bytes of a memory unit.
        1u64,
    ])?;
    Ok(0)
}
