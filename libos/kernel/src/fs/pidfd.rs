//! Descriptors of processes (`pidfd_open(2)`, `pidfd_send_signal(2)`, `pidfd_getfd(2)`).

use alloc::string::String;
use alloc::sync::Arc;

use husk_abi::linux::general;

use super::anon::PlainAnonInode;
use super::poll::PollTable;
use super::{File, FileOps, FileRef, PollEvents};
use crate::process::{self, Life, Process};
use crate::signal::kill;
use crate::syscall::{Fd, Pid, Ptr, Signal, Uint};
use crate::user::IoBuf;
use crate::{Errno, Result, SysResult, Thread};

/// `PIDFD_SIGNAL_PROCESS_GROUP`; the other two scopes mean the process for a descriptor of one.
const SIGNAL_PROCESS_GROUP: u32 = 4;
const SIGNAL_SCOPES: u32 = 7;

/// A process, by descriptor. It stays the same process, whoever has its id later.
#[derive(Debug)]
pub struct PidFd {
    process: Arc<Process>,
}

impl PidFd {
    /// The lines it adds to `/proc/*/fdinfo`.
    #[must_use]
    pub fn fdinfo(&self) -> String {
        let pid = match self.process.life() {
            Life::Reaped => -1,
            _ => self.process.pid.cast_signed(),
        };
        alloc::format!("Pid:\t{pid}\nNSpid:\t{pid}\n")
    }
}

impl FileOps for PidFd {
    fn read(&self, _t: &Thread, _file: &File, _buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    fn poll(&self, _t: &Thread, _file: &File, table: Option<&mut PollTable<'_>>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.process.ended);
        }
        match self.process.life() {
            Life::Alive => PollEvents::empty(),
            Life::Zombie(_) => PollEvents::IN | PollEvents::RDNORM,
            Life::Reaped => PollEvents::IN | PollEvents::RDNORM | PollEvents::HUP,
        }
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// A new descriptor for `process`, close-on-exec; `flags` may be `O_NONBLOCK`.
///
/// # Errors
/// `EMFILE`.
pub fn open(t: &Thread, process: Arc<Process>, flags: u32) -> Result<i32> {
    let file = File::new(
        Arc::new(PidFd { process }),
        PlainAnonInode::new(t),
        b"anon_inode:[pidfd]".to_vec(),
        general::O_RDWR | flags & general::O_NONBLOCK,
    );
    t.files().alloc(t, file, true)
}

/// The process descriptor `fd` is of, and its open file.
///
/// # Errors
/// `EBADF` if it is not open or not of a process.
pub fn process_of(t: &Thread, fd: Fd) -> Result<(Arc<Process>, FileRef)> {
    let file = t.files().get(fd)?;
    let pidfd = file.ops.as_any().downcast_ref::<PidFd>();
    let process = pidfd.ok_or(Errno::EBADF)?.process.clone();
    Ok((process, file))
}

/// `pidfd_open(2)`.
///
/// # Errors
/// `EINVAL` for unknown flags and ids that are none; `ESRCH`, `EMFILE`; `ENOENT` for a thread that does not lead its
/// process.
pub fn pidfd_open(t: &Thread, pid: Pid, flags: Uint) -> SysResult {
    if flags & !general::O_NONBLOCK != 0 || pid <= 0 {
        return Err(Errno::EINVAL);
    }
    let tasks = &t.kernel.tasks;
    let id = pid.cast_unsigned();
    let process = match tasks.process(id) {
        Some(process) => process,
        None if tasks.thread(id).is_some() => return Err(Errno::ENOENT),
        None => return Err(Errno::ESRCH),
    };
    Ok(open(t, process, flags)?.cast_unsigned() as usize)
}

/// `pidfd_send_signal(2)`.
///
/// # Errors
/// `EBADF`, `EINVAL`, `EPERM`, `ESRCH`, `EFAULT`, `EAGAIN`.
pub fn pidfd_send_signal(t: &Thread, pidfd: Fd, sig: Signal, info: Ptr, flags: Uint) -> SysResult {
    if flags & !SIGNAL_SCOPES != 0 || flags.count_ones() > 1 {
        return Err(Errno::EINVAL);
    }
    let (process, _) = process_of(t, pidfd)?;
    kill::send_to(t, &process, sig, info, flags == SIGNAL_PROCESS_GROUP)?;
    Ok(0)
}

/// `pidfd_getfd(2)`.
///
/// # Errors
/// `EINVAL` for flags; `EBADF`, `ESRCH`, `EPERM`, `EMFILE`.
pub fn pidfd_getfd(t: &Thread, pidfd: Fd, target: Fd, flags: Uint) -> SysResult {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let (process, _) = process_of(t, pidfd)?;
    let thread = process.any_thread().ok_or(Errno::ESRCH)?;
    process::may_trace(t, &thread)?;
    let files = thread.files_opt().ok_or(Errno::ESRCH)?;
    let file = files.get_any(target)?;
    Ok(t.files().alloc(t, file, true)?.cast_unsigned() as usize)
}
