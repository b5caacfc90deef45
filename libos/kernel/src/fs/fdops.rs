//! Calls about descriptors: `dup(2)`, `close_range(2)`, `fcntl(2)`, `ioctl(2)`.

use husk_abi::linux::{general, ioctl as request};

use super::open::O_ASYNC;
use super::{FileKind, FileRef, locks, permission, pipe, seals, sigio};
use crate::syscall::{FcntlCmd, Fd, Hex, Ioctl, OpenFlags, Uint};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

/// `dup(2)`.
pub fn dup(t: &Thread, oldfd: Fd) -> SysResult {
    let files = t.files();
    let file = files.get_any(oldfd)?;
    Ok(files.alloc(t, file, false)? as usize)
}

/// `dup2(2)`.
pub fn dup2(t: &Thread, oldfd: Fd, newfd: Fd) -> SysResult {
    let files = t.files();
    let file = files.get_any(oldfd)?;
    if oldfd != newfd {
        files.replace(t, newfd, file, false)?;
    }
    Ok(newfd as usize)
}

/// `dup3(2)`.
pub fn dup3(t: &Thread, oldfd: Fd, newfd: Fd, flags: OpenFlags) -> SysResult {
    if flags & !general::O_CLOEXEC != 0 || oldfd == newfd {
        return Err(Errno::EINVAL);
    }
    let files = t.files();
    let file = files.get_any(oldfd)?;
    files.replace(t, newfd, file, flags & general::O_CLOEXEC != 0)?;
    Ok(newfd as usize)
}

const CLOSE_RANGE_UNSHARE: u64 = 2;
const CLOSE_RANGE_CLOEXEC: u64 = 4;

/// `close_range(2)`.
pub fn close_range(t: &Thread, first: Uint, last: Uint, flags: Hex) -> SysResult {
    if flags & !(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) != 0 || first > last {
        return Err(Errno::EINVAL);
    }
    if flags & CLOSE_RANGE_UNSHARE != 0 {
        t.unshare_files();
    }
    let files = t.files();
    if flags & CLOSE_RANGE_CLOEXEC != 0 {
        files.close_on_exec_range(first, last);
    } else {
        files.close_range(first, last);
    }
    Ok(0)
}

/// Flags `F_SETFL` changes.
const SETTABLE: u32 =
    general::O_APPEND | general::O_NONBLOCK | general::O_DIRECT | general::O_NOATIME;

fn set_flags(t: &Thread, file: &FileRef, fd: Fd, flags: u32) -> Result<()> {
    let old = file.flags();
    if flags & general::O_NOATIME != 0
        && old & general::O_NOATIME == 0
        && !permission::is_owner_or_capable(&t.credentials(), &file.inode.attributes())
    {
        return Err(Errno::EPERM);
    }
    if (old ^ flags) & O_ASYNC != 0 {
        // Of a file that cannot do it the flag stays down, and nobody is told.
        sigio::set_async(t, file, fd, flags & O_ASYNC != 0);
    }
    file.set_flags(file.flags() & !SETTABLE | flags & SETTABLE);
    Ok(())
}

/// What `fcntl(2)` does for an `O_PATH` descriptor.
const PATH_COMMANDS: [u32; 5] = [
    general::F_DUPFD,
    general::F_DUPFD_CLOEXEC,
    general::F_GETFD,
    general::F_SETFD,
    general::F_GETFL,
];

/// `fcntl(2)`.
pub fn fcntl(t: &Thread, fd: Fd, cmd: FcntlCmd, arg: Hex) -> SysResult {
    let files = t.files();
    let file = files.get_any(fd)?;
    let command = u32::try_from(cmd).map_err(|_| Errno::EINVAL)?;
    if file.is_path() && !PATH_COMMANDS.contains(&command) {
        return Err(Errno::EBADF);
    }
    match command {
        general::F_DUPFD | general::F_DUPFD_CLOEXEC => {
            // The argument is an int that must not be negative.
            let min = usize::try_from(arg as i32).map_err(|_| Errno::EINVAL)?;
            let close_on_exec = command == general::F_DUPFD_CLOEXEC;
            Ok(files.alloc_from(t, min, file, close_on_exec)? as usize)
        }
        general::F_GETFD => Ok(usize::from(files.is_close_on_exec(fd)?)),
        general::F_SETFD => {
            const FD_CLOEXEC: u64 = 1;
            files.set_close_on_exec(fd, arg & FD_CLOEXEC != 0)?;
            Ok(0)
        }
        general::F_GETFL => Ok(file.flags() as usize),
        general::F_SETFL => {
            set_flags(t, &file, fd, arg as u32)?;
            Ok(0)
        }
        general::F_DUPFD_QUERY => {
            let other = files.get_any(arg as i32)?;
            Ok(usize::from(FileRef::ptr_eq(&file, &other)))
        }
        general::F_GETLK => locks::get_posix(t, &file, UserAddr(arg), false),
        general::F_SETLK => locks::set_posix(t, &files, &file, UserAddr(arg), false),
        general::F_SETLKW => locks::set_posix(t, &files, &file, UserAddr(arg), true),
        general::F_OFD_GETLK => locks::get_posix(t, &file, UserAddr(arg), true),
        general::F_OFD_SETLK => locks::set_ofd(t, &file, UserAddr(arg), false),
        general::F_OFD_SETLKW => locks::set_ofd(t, &file, UserAddr(arg), true),
        general::F_GETPIPE_SZ => {
            let pipe = pipe::of_file(&file).ok_or(Errno::EBADF)?;
            Ok(pipe.capacity())
        }
        general::F_SETPIPE_SZ => {
            let pipe = pipe::of_file(&file).ok_or(Errno::EBADF)?;
            pipe.set_capacity(t, arg)
        }
        general::F_ADD_SEALS => seals::add(&file, arg as u32),
        general::F_GET_SEALS => seals::get(&file),
        _ => sigio::fcntl(t, &file, command, arg).unwrap_or(Err(Errno::EINVAL)),
    }
}

/// `ioctl(2)`: what works on every descriptor; the rest is the file's business.
pub fn ioctl(t: &Thread, fd: Fd, request: Ioctl, argp: Hex) -> SysResult {
    let files = t.files();
    let file = files.get(fd)?;
    let arg = UserAddr(argp);
    let set = |bit: u32| -> SysResult {
        let on = arg.read::<i32>()? != 0;
        let old = file.flags();
        file.set_flags(if on { old | bit } else { old & !bit });
        Ok(0)
    };
    match request {
        request::FIOCLEX | request::FIONCLEX => {
            files.set_close_on_exec(fd, request == request::FIOCLEX)?;
            Ok(0)
        }
        request::FIONBIO => set(general::O_NONBLOCK),
        request::FIOASYNC => {
            let on = arg.read::<i32>()? != 0;
            let changes = on != (file.flags() & O_ASYNC != 0);
            if changes && !sigio::set_async(t, &file, fd, on) {
                return Err(Errno::ENOTTY);
            }
            Ok(0)
        }
        request::FIOQSIZE
            if matches!(
                file.inode.kind(),
                FileKind::Regular | FileKind::Directory | FileKind::Symlink
            ) =>
        {
            arg.write(&(file.inode.attributes().size as i64))?;
            Ok(0)
        }
        request::FIONREAD if file.inode.kind() == FileKind::Regular => {
            let left = file.ops.size() as i64 - *file.position.lock() as i64;
            arg.write(&(left as i32))?;
            Ok(0)
        }
        _ => file.ops.ioctl(t, &file, request, argp),
    }
}
