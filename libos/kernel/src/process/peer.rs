//! What one process may see and do of another: `process_vm_readv(2)`, `process_vm_writev(2)`, `kcmp(2)`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::linux::general;

use super::{Credentials, Thread};
use crate::mm::AddressSpace;
use crate::syscall::{Hex, Int, Iov, Len, Pid};
use crate::user::{IoBuf, UserAddr};
use crate::{Errno, Result, SysResult};

/// The most pieces of an `iovec` array.
const IOV_MAX: usize = general::UIO_MAXIOV as usize;
/// Bytes copied at once.
const CHUNK: usize = 16 << 10;

/// Whether `t` may trace `target` (`PTRACE_MODE_ATTACH_REALCREDS` of `ptrace(2)`).
///
/// # Errors
/// `EPERM`.
pub fn may_trace(t: &Thread, target: &Thread) -> Result<()> {
    if Arc::ptr_eq(&t.process, &target.process) {
        return Ok(());
    }
    let (own, other) = (t.credentials(), target.credentials());
    let is_capable = own.has(general::CAP_SYS_PTRACE);
    let is_same = |own: &Credentials, other: &Credentials| {
        [other.uid, other.euid, other.suid]
            .iter()
            .all(|uid| *uid == own.uid)
            && [other.gid, other.egid, other.sgid]
                .iter()
                .all(|gid| *gid == own.gid)
    };
    // Who traces gets the other's capabilities: he must have them.
    let gains = other.cap_permitted & !own.cap_permitted != 0;
    let is_dumpable = target.process.is_dumpable();
    if is_capable || is_same(&own, &other) && is_dumpable && !gains {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// A thread by id.
fn thread(t: &Thread, pid: i32) -> Result<Arc<Thread>> {
    let id = u32::try_from(pid).map_err(|_| Errno::ESRCH)?;
    t.kernel.tasks.thread(id).ok_or(Errno::ESRCH)
}

/// A remote `iovec` array: pairs of address and length.
fn remote_pieces(iov: UserAddr, count: usize) -> Result<Vec<[u64; 2]>> {
    if count > IOV_MAX {
        return Err(Errno::EINVAL);
    }
    let pieces: Vec<[u64; 2]> = iov.read_array(count)?;
    if pieces.iter().any(|[_, len]| i64::try_from(*len).is_err()) {
        return Err(Errno::EINVAL);
    }
    Ok(pieces)
}

/// Who copies, and where to.
struct Transfer {
    mm: Arc<AddressSpace>,
    pieces: Vec<[u64; 2]>,
}

fn begin(
    t: &Thread,
    pid: i32,
    local: &IoBuf<'_>,
    remote: UserAddr,
    count: usize,
) -> Result<Option<Transfer>> {
    if local.remaining() == 0 {
        return Ok(None);
    }
    let pieces = remote_pieces(remote, count)?;
    if pieces.iter().all(|[_, len]| *len == 0) {
        return Ok(None);
    }
    let target = thread(t, pid)?;
    may_trace(t, &target)?;
    let mm = target.mm_opt().ok_or(Errno::ESRCH)?;
    Ok(Some(Transfer { mm, pieces }))
}

/// Copies chunk by chunk until one side has no more or cannot be accessed: `copy(address, bytes)` does a chunk.
fn transfer(
    local: &mut IoBuf<'_>,
    pieces: &[[u64; 2]],
    mut copy: impl FnMut(&mut IoBuf<'_>, u64, &mut [u8]) -> Result<usize>,
) -> SysResult {
    let mut buffer = alloc::vec![0; CHUNK];
    let mut done = 0;
    for [address, len] in pieces {
        let mut at = 0;
        while at < *len && local.remaining() > 0 {
            let left = usize::try_from(*len - at).unwrap_or(usize::MAX);
            let step = left.min(local.remaining()).min(CHUNK);
            match copy(local, address.wrapping_add(at), &mut buffer[..step]) {
                Ok(copied) => {
                    done += copied;
                    at += copied as u64;
                    if copied < step {
                        return Ok(done);
                    }
                }
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => return Ok(done),
            }
        }
    }
    Ok(done)
}

/// `process_vm_readv(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`, `ESRCH`, `EPERM`.
pub fn process_vm_readv(
    t: &Thread,
    pid: Pid,
    local: Iov,
    local_count: Len,
    remote: Iov,
    remote_count: Len,
    flags: Hex,
) -> SysResult {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let mut local = IoBuf::iovec(local, local_count)?;
    let Some(Transfer { mm, pieces }) = begin(t, pid, &local, remote, remote_count)? else {
        return Ok(0);
    };
    transfer(&mut local, &pieces, |local, address, bytes| {
        let read = mm.read_bytes(address, bytes)?;
        match local.put(&bytes[..read])? {
            0 => Err(Errno::EFAULT),
            put => Ok(put),
        }
    })
}

/// `process_vm_writev(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`, `ESRCH`, `EPERM`.
pub fn process_vm_writev(
    t: &Thread,
    pid: Pid,
    local: Iov,
    local_count: Len,
    remote: Iov,
    remote_count: Len,
    flags: Hex,
) -> SysResult {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let mut local = IoBuf::iovec(local, local_count)?;
    let Some(Transfer { mm, pieces }) = begin(t, pid, &local, remote, remote_count)? else {
        return Ok(0);
    };
    transfer(&mut local, &pieces, |local, address, bytes| {
        match local.take(bytes)? {
            0 => Err(Errno::EFAULT),
            taken => mm.write_bytes(address, &bytes[..taken]),
        }
    })
}

/// How `kcmp(2)` tells the order of two things by their addresses: equal, less, greater.
fn order(one: usize, other: usize) -> usize {
    match one.cmp(&other) {
        core::cmp::Ordering::Equal => 0,
        core::cmp::Ordering::Less => 1,
        core::cmp::Ordering::Greater => 2,
    }
}

/// `kcmp(2)`: whether two processes share something.
///
/// # Errors
/// `ESRCH`, `EPERM`, `EBADF`, `EINVAL`; `EOPNOTSUPP` for epoll targets.
pub fn kcmp(t: &Thread, pid1: Pid, pid2: Pid, kind: Int, idx1: Hex, idx2: Hex) -> SysResult {
    /// `enum kcmp_type`.
    const FILE: i32 = 0;
    const VM: i32 = 1;
    const FILES: i32 = 2;
    const FS: i32 = 3;
    const SIGHAND: i32 = 4;
    const IO: i32 = 5;
    const SYSVSEM: i32 = 6;
    const EPOLL_TFD: i32 = 7;

    let (one, other) = (thread(t, pid1)?, thread(t, pid2)?);
    may_trace(t, &one)?;
    may_trace(t, &other)?;
    let address = |thread: &Thread, index: u64| -> Result<usize> {
        Ok(match kind {
            FILE => {
                let fd = i32::try_from(index).map_err(|_| Errno::EBADF)?;
                let files = thread.files_opt().ok_or(Errno::EBADF)?;
                crate::fs::FileRef::as_ptr(&files.get_any(fd)?).addr()
            }
            VM => thread.mm_opt().map_or(0, |mm| Arc::as_ptr(&mm).addr()),
            FILES => thread
                .files_opt()
                .map_or(0, |files| Arc::as_ptr(&files).addr()),
            FS => thread.fs_opt().map_or(0, |fs| Arc::as_ptr(&fs).addr()),
            SIGHAND => Arc::as_ptr(&thread.process.handlers()).addr(),
            // Nobody has an I/O context or semaphores to undo.
            IO | SYSVSEM => 0,
            EPOLL_TFD => return Err(Errno::EOPNOTSUPP),
            _ => return Err(Errno::EINVAL),
        })
    };
    Ok(order(address(&one, idx1)?, address(&other, idx2)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_one() {
        assert_eq!([order(5, 5), order(4, 5), order(5, 4)], [0, 1, 2]);
    }

    #[test]
    fn transfers_end_at_the_first_failure() {
        let mut bytes = vec![0; 40 << 10];
        let mut local = IoBuf::kernel(&mut bytes);
        let pieces = [[0x1000, 20 << 10], [0x9000, 0], [0x2_0000, 4]];
        let mut calls = Vec::new();
        let done = transfer(&mut local, &pieces, |local, address, part| {
            calls.push((address, part.len()));
            if address == 0x2_0000 {
                return Err(Errno::EFAULT);
            }
            local.put(part)
        });
        assert_eq!(done, Ok(20 << 10));
        assert_eq!(
            calls,
            [
                (0x1000, CHUNK),
                (0x1000 + CHUNK as u64, 4 << 10),
                (0x2_0000, 4)
            ]
        );
        let mut local = IoBuf::kernel(&mut bytes);
        let first = transfer(&mut local, &[[0, 1]], |_, _, _| Err(Errno::EFAULT));
        assert_eq!(first, Err(Errno::EFAULT));
    }
}
