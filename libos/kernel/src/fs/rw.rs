//! `read(2)`, `write(2)` and their relatives, `lseek(2)`.

use husk_abi::linux::general;

use super::file::OWN_POSITION;
use super::inotify::{Events, notify};
use super::{File, FileRef};
use crate::syscall::{BufIn, BufOut, Fd, Hex, Iov, Len, Off, Whence};
use crate::user::IoBuf;
use crate::{Errno, Result, SysResult, Thread};

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

/// Checks that the file may be read from or written to.
fn check_direction(file: &File, direction: Direction) -> Result<()> {
    let allowed = match direction {
        Direction::Read => file.is_readable(),
        Direction::Write => file.is_writable(),
    };
    if allowed { Ok(()) } else { Err(Errno::EBADF) }
}

/// The open file, if it may be read from or written to.
fn open_file(t: &Thread, fd: Fd, direction: Direction) -> Result<FileRef> {
    let file = t.file(fd)?;
    check_direction(&file, direction)?;
    Ok(file)
}

fn transfer_at(
    t: &Thread,
    file: &File,
    direction: Direction,
    buf: &mut IoBuf<'_>,
    offset: u64,
) -> Result<usize> {
    let (moved, event) = match direction {
        Direction::Read => (file.ops.read(t, file, buf, offset)?, Events::ACCESS),
        Direction::Write => (file.ops.write(t, file, buf, offset)?, Events::MODIFY),
    };
    if moved > 0 {
        notify::file(file, event);
    }
    Ok(moved)
}

/// Reads or writes at the file's position and moves it.
fn transfer(t: &Thread, file: &File, direction: Direction, buf: &mut IoBuf<'_>) -> Result<usize> {
    if !file.ops.has_position() {
        return transfer_at(t, file, direction, buf, OWN_POSITION);
    }
    let mut position = file.position.lock();
    let moved = transfer_at(t, file, direction, buf, *position)?;
    *position =
        if direction == Direction::Write && moved > 0 && file.flags() & general::O_APPEND != 0 {
            file.ops.size()
        } else {
            *position + moved as u64
        };
    Ok(moved)
}

/// Reads at the file's position and moves it, for the kernel's own use.
///
/// # Errors
/// As `read(2)`.
pub fn read_file(t: &Thread, file: &File, buf: &mut IoBuf<'_>) -> Result<usize> {
    transfer(t, file, Direction::Read, buf)
}

/// Writes at the file's position and moves it, for the kernel's own use.
///
/// # Errors
/// As `write(2)`.
pub fn write_file(t: &Thread, file: &File, buf: &mut IoBuf<'_>) -> Result<usize> {
    transfer(t, file, Direction::Write, buf)
}

/// The length C's `ssize_t` can report.
fn check_len(count: Len) -> Result<()> {
    if isize::try_from(count).is_err() {
        Err(Errno::EINVAL)
    } else {
        Ok(())
    }
}

/// `read(2)`.
pub fn read(t: &Thread, fd: Fd, buf: BufOut, count: Len) -> SysResult {
    let file = open_file(t, fd, Direction::Read)?;
    check_len(count)?;
    transfer(t, &file, Direction::Read, &mut IoBuf::user(buf, count)?)
}

/// `write(2)`.
pub fn write(t: &Thread, fd: Fd, buf: BufIn, count: Len) -> SysResult {
    let file = open_file(t, fd, Direction::Write)?;
    check_len(count)?;
    transfer(t, &file, Direction::Write, &mut IoBuf::user(buf, count)?)
}

/// Reads or writes at `offset` and leaves the position.
fn positioned(
    t: &Thread,
    fd: Fd,
    direction: Direction,
    offset: Off,
    buf: impl FnOnce() -> Result<IoBuf<'static>>,
) -> SysResult {
    let offset = u64::try_from(offset).map_err(|_| Errno::EINVAL)?;
    let file = t.file(fd)?;
    if !file.ops.is_seekable() {
        return Err(Errno::ESPIPE);
    }
    check_direction(&file, direction)?;
    transfer_at(t, &file, direction, &mut buf()?, offset)
}

/// `pread(2)`.
pub fn pread64(t: &Thread, fd: Fd, buf: BufOut, count: Len, offset: Off) -> SysResult {
    positioned(t, fd, Direction::Read, offset, || {
        check_len(count)?;
        IoBuf::user(buf, count)
    })
}

/// `pwrite(2)`. As on Linux, with `O_APPEND` the data goes to the end whatever the offset.
pub fn pwrite64(t: &Thread, fd: Fd, buf: BufIn, count: Len, offset: Off) -> SysResult {
    positioned(t, fd, Direction::Write, offset, || {
        check_len(count)?;
        IoBuf::user(buf, count)
    })
}

/// `readv(2)`.
pub fn readv(t: &Thread, fd: Fd, iov: Iov, iovcnt: Len) -> SysResult {
    let file = open_file(t, fd, Direction::Read)?;
    transfer(t, &file, Direction::Read, &mut IoBuf::iovec(iov, iovcnt)?)
}

/// `writev(2)`.
pub fn writev(t: &Thread, fd: Fd, iov: Iov, iovcnt: Len) -> SysResult {
    let file = open_file(t, fd, Direction::Write)?;
    transfer(t, &file, Direction::Write, &mut IoBuf::iovec(iov, iovcnt)?)
}

/// `preadv(2)`. The low word of the position is all of it in a 64-bit process.
pub fn preadv(t: &Thread, fd: Fd, iov: Iov, iovcnt: Len, pos_l: Off, _pos_h: Off) -> SysResult {
    positioned(t, fd, Direction::Read, pos_l, || IoBuf::iovec(iov, iovcnt))
}

/// `pwritev(2)`.
pub fn pwritev(t: &Thread, fd: Fd, iov: Iov, iovcnt: Len, pos_l: Off, _pos_h: Off) -> SysResult {
    positioned(t, fd, Direction::Write, pos_l, || IoBuf::iovec(iov, iovcnt))
}

/// `RWF_*` that only ask for speed or durability, both of which memory has.
const HARMLESS: u64 = (RWF_HIPRI | RWF_DSYNC | RWF_SYNC) as u64;
const RWF_HIPRI: u32 = 1;
const RWF_DSYNC: u32 = 2;
const RWF_SYNC: u32 = 4;

/// `preadv2(2)`. Position -1 is the file's own.
pub fn preadv2(
    t: &Thread,
    fd: Fd,
    iov: Iov,
    iovcnt: Len,
    pos_l: Off,
    pos_h: Off,
    flags: Hex,
) -> SysResult {
    if flags & !HARMLESS != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if pos_l == -1 {
        readv(t, fd, iov, iovcnt)
    } else {
        preadv(t, fd, iov, iovcnt, pos_l, pos_h)
    }
}

/// `pwritev2(2)`.
pub fn pwritev2(
    t: &Thread,
    fd: Fd,
    iov: Iov,
    iovcnt: Len,
    pos_l: Off,
    pos_h: Off,
    flags: Hex,
) -> SysResult {
    if flags & !HARMLESS != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if pos_l == -1 {
        writev(t, fd, iov, iovcnt)
    } else {
        pwritev(t, fd, iov, iovcnt, pos_l, pos_h)
    }
}

/// `lseek(2)`.
pub fn lseek(t: &Thread, fd: Fd, offset: Off, whence: Whence) -> SysResult {
    let file = t.file(fd)?;
    let whence = u32::try_from(whence).map_err(|_| Errno::EINVAL)?;
    if whence > general::SEEK_MAX {
        return Err(Errno::EINVAL);
    }
    if !file.ops.is_seekable() {
        return Err(Errno::ESPIPE);
    }
    if !file.ops.has_position() {
        return Ok(file.ops.seek(offset, whence)? as usize);
    }
    let mut position = file.position.lock();
    let signed = |value: u64| i64::try_from(value).map_err(|_| Errno::EOVERFLOW);
    let new = match whence {
        general::SEEK_SET => offset,
        general::SEEK_CUR => signed(*position)?
            .checked_add(offset)
            .ok_or(Errno::EOVERFLOW)?,
        general::SEEK_END => signed(file.ops.size())?
            .checked_add(offset)
            .ok_or(Errno::EOVERFLOW)?,
        _ => {
            let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
            let found = file.ops.seek_data(from, whence == general::SEEK_HOLE)?;
            signed(found)?
        }
    };
    *position = u64::try_from(new).map_err(|_| Errno::EINVAL)?;
    Ok(*position as usize)
}
