//! Namespaces (`namespaces(7)`): those that make sense inside one container, and `unshare(2)` and `setns(2)`.
//!
//! There are namespaces of names (`CLONE_NEWUTS`) and of IPC objects (`CLONE_NEWIPC`). The others are as on a Linux compiled without
//! them: `EINVAL`.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use husk_abi::linux::general;

use super::Uts;
use crate::fs::procfs;
use crate::ipc;
use crate::syscall::{Fd, Hex};
use crate::{Errno, Result, SysResult, Thread};

const NEWUTS: u64 = general::CLONE_NEWUTS as u64;
const NEWIPC: u64 = general::CLONE_NEWIPC as u64;
/// Namespaces that can be made.
pub(super) const SUPPORTED: u64 = NEWUTS | NEWIPC;
/// Those that need `CAP_SYS_ADMIN`.
const PRIVILEGED: u64 = SUPPORTED
    | (general::CLONE_NEWNS
        | general::CLONE_NEWCGROUP
        | general::CLONE_NEWPID
        | general::CLONE_NEWNET) as u64
    | general::CLONE_NEWTIME as u64;
const ALL: u64 = PRIVILEGED | general::CLONE_NEWUSER as u64;

/// A number for a namespace that is not one of the first.
pub(crate) fn next_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0xf000_0100);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A thread's namespaces.
#[derive(Clone, Debug)]
pub struct Namespaces {
    /// Host name and the like (`uname(2)`).
    pub uts: Arc<Uts>,
    /// System V objects and POSIX message queues.
    pub ipc: Arc<ipc::Namespace>,
}

/// One of a thread's namespaces.
#[derive(Clone, Debug)]
pub enum Namespace {
    /// Of names.
    Uts(Arc<Uts>),
    /// Of IPC objects.
    Ipc(Arc<ipc::Namespace>),
}

/// Checks that the namespaces `flags` ask for can be made.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; `EINVAL` for those there are none of.
pub(super) fn check_new(t: &Thread, flags: u64) -> Result<()> {
    if flags & PRIVILEGED != 0 && !t.credentials().has(general::CAP_SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    if flags & ALL & !SUPPORTED != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

impl Namespaces {
    /// These, or new ones where `flags` ask for them.
    pub(super) fn with_new(self: &Arc<Self>, t: &Thread, flags: u64) -> Arc<Self> {
        if flags & SUPPORTED == 0 {
            return self.clone();
        }
        let mut new = (**self).clone();
        if flags & NEWUTS != 0 {
            new.uts = Arc::new(self.uts.copy());
        }
        if flags & NEWIPC != 0 {
            new.ipc = ipc::Namespace::new(t.kernel.fs.new_device());
        }
        Arc::new(new)
    }
}

/// `unshare(2)`.
///
/// # Errors
/// `EINVAL`, `EPERM`.
pub fn unshare(t: &Thread, flags: u64) -> SysResult {
    const FS: u64 = general::CLONE_FS as u64;
    const FILES: u64 = general::CLONE_FILES as u64;
    const SYSVSEM: u64 = general::CLONE_SYSVSEM as u64;
    /// What only a process of one thread can give up sharing: it shares none of it then.
    const ALONE: u64 = (general::CLONE_THREAD | general::CLONE_SIGHAND | general::CLONE_VM) as u64;
    if flags & !(ALL | FS | FILES | SYSVSEM | ALONE) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & ALONE != 0 && t.process.thread_count() > 1 {
        return Err(Errno::EINVAL);
    }
    check_new(t, flags)?;
    if flags & FS != 0 {
        let own = t.fs().fork();
        let old = t.fs.lock().replace(own);
        drop(old);
    }
    if flags & FILES != 0 {
        t.unshare_files();
    }
    // Other semaphores are to be undone from now on.
    if flags & (SYSVSEM | NEWIPC) != 0 {
        let old = t.undo.lock().take();
        drop(old);
    }
    let new = t.namespaces().with_new(t, flags);
    let old = core::mem::replace(&mut *t.namespaces.lock(), new);
    drop(old);
    Ok(0)
}

/// `setns(2)` with a file of `/proc/PID/ns`.
///
/// # Errors
/// `EBADF`, `EINVAL`, `EPERM`.
pub fn setns(t: &Thread, fd: Fd, kind: Hex) -> SysResult {
    let file = t.file(fd)?;
    let namespace = procfs::namespace_of(&file).ok_or(Errno::EINVAL)?;
    let own_kind = match &namespace {
        Namespace::Uts(_) => NEWUTS,
        Namespace::Ipc(_) => NEWIPC,
    };
    if kind != 0 && kind != own_kind {
        return Err(Errno::EINVAL);
    }
    if !t.credentials().has(general::CAP_SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let mut new = (*t.namespaces()).clone();
    match namespace {
        Namespace::Uts(uts) => new.uts = uts,
        Namespace::Ipc(ipc) => {
            let undo = t.undo.lock().take();
            drop(undo);
            new.ipc = ipc;
        }
    }
    let old = core::mem::replace(&mut *t.namespaces.lock(), Arc::new(new));
    drop(old);
    Ok(0)
}
