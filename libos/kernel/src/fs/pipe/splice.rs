//! `splice(2)`, `tee(2)`, `vmsplice(2)`.
//!
//! Pages are not passed around: bytes are copied, which for the amounts a pipe holds costs less than changing
//! mappings would.

use alloc::sync::Arc;

use husk_abi::linux::general;

use super::{Fill, Pipe, of_file};
use crate::fs::inotify::{Events, notify};
use crate::fs::{File, FileRef};
use crate::signal;
use crate::syscall::{Fd, Hex, Iov, Len, Ptr};
use crate::user::IoBuf;
use crate::{Errno, Result, SysResult, Thread};

const SPLICE_F_NONBLOCK: u32 = 2;
/// `SPLICE_F_MOVE`, `NONBLOCK`, `MORE` and `GIFT`; all but the second are hints.
const SPLICE_F_ALL: u32 = 15;

/// The most that is copied in one step.
const CHUNK: usize = 65536;

fn is_nonblocking(flags: Hex) -> Result<bool> {
    let flags = flags as u32;
    if flags & !SPLICE_F_ALL != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(flags & SPLICE_F_NONBLOCK != 0)
}

/// The two files, if one may be read and the other written.
fn open_files(t: &Thread, fd_in: Fd, fd_out: Fd) -> Result<(FileRef, FileRef)> {
    let files = t.files();
    let (from, to) = (files.get(fd_in)?, files.get(fd_out)?);
    if from.is_readable() && to.is_writable() {
        Ok((from, to))
    } else {
        Err(Errno::EBADF)
    }
}

/// `splice(2)`.
///
/// # Errors
/// `EBADF`, `EINVAL` (unknown flags, no pipe, the same pipe, appending), `ESPIPE` (an offset for a pipe),
/// `EAGAIN`, `EFAULT`, and what the files give.
pub fn splice(
    t: &Thread,
    fd_in: Fd,
    off_in: Ptr,
    fd_out: Fd,
    off_out: Ptr,
    len: Len,
    flags: Hex,
) -> SysResult {
    if len == 0 {
        return Ok(0);
    }
    let nonblocking = is_nonblocking(flags)?;
    let (from, to) = open_files(t, fd_in, fd_out)?;
    match (of_file(&from), of_file(&to)) {
        (Some(_), Some(_)) if !off_in.is_null() || !off_out.is_null() => Err(Errno::ESPIPE),
        (Some(a), Some(b)) => {
            let nonblocking = nonblocking || from.is_nonblocking() || to.is_nonblocking();
            between(t, a, b, len, nonblocking, true)
        }
        (Some(_), None) if !off_in.is_null() => Err(Errno::ESPIPE),
        (Some(_), None) if to.flags() & general::O_APPEND != 0 => Err(Errno::EINVAL),
        (Some(pipe), None) => at_position(&to, off_out, Events::MODIFY, |position| {
            out_of_pipe(t, pipe, &to, position, len, nonblocking)
        }),
        (None, Some(_)) if !off_out.is_null() => Err(Errno::ESPIPE),
        (None, Some(pipe)) => at_position(&from, off_in, Events::ACCESS, |position| {
            into_pipe(t, &from, position, pipe, len, nonblocking)
        }),
        (None, None) => Err(Errno::EINVAL),
    }
}

/// Calls `transfer` with the offset at `address`, or with the file's position, and moves it on; `event` is what that is to
/// `file`.
fn at_position(
    file: &File,
    address: Ptr,
    event: Events,
    transfer: impl FnOnce(u64) -> SysResult,
) -> SysResult {
    let told = |moved: usize| {
        if moved > 0 {
            notify::file(file, event);
        }
        moved
    };
    if address.is_null() {
        if !file.ops.is_seekable() {
            return transfer(0).map(told);
        }
        let mut position = file.position.lock();
        let moved = transfer(*position)?;
        *position += moved as u64;
        return Ok(told(moved));
    }
    if !file.ops.is_seekable() {
        return Err(Errno::EINVAL);
    }
    let offset = u64::try_from(address.read::<i64>()?).map_err(|_| Errno::EINVAL)?;
    let moved = told(transfer(offset)?);
    address.write(&(offset + moved as u64))?;
    Ok(moved)
}

/// From a pipe to a file, until the pipe is empty.
fn out_of_pipe(
    t: &Thread,
    pipe: &Pipe,
    to: &File,
    position: u64,
    len: usize,
    nonblocking: bool,
) -> SysResult {
    let mut moved = 0;
    while moved < len {
        let mut bytes = alloc::vec![0; (len - moved).min(CHUNK).min(pipe.level().max(1))];
        let got = match pipe.try_read(&mut IoBuf::kernel(&mut bytes)) {
            Some(got) => got?,
            None if moved > 0 => break,
            None => {
                pipe.wait_readable(t, nonblocking)?;
                continue;
            }
        };
        if got == 0 {
            break;
        }
        let mut buf = IoBuf::kernel_const(&bytes[..got]);
        let result = to.ops.write(t, to, &mut buf, position + moved as u64);
        let written = result.unwrap_or(0);
        // What the file did not take stays in the pipe.
        pipe.put_back(&bytes[written..got]);
        moved += written;
        match result {
            Err(error) if moved == 0 => return Err(error),
            Ok(_) if written == got => {}
            _ => break,
        }
    }
    Ok(moved)
}

/// From a file to a pipe, as much as there is room for.
fn into_pipe(
    t: &Thread,
    from: &File,
    position: u64,
    pipe: &Pipe,
    len: usize,
    nonblocking: bool,
) -> SysResult {
    let room = loop {
        if !pipe.has_readers() {
            signal::raise_sigpipe(t);
            return Err(Errno::EPIPE);
        }
        match pipe.room() {
            0 => pipe.wait_writable(t, 1, nonblocking)?,
            room => break room,
        }
    };
    let mut bytes = alloc::vec![0; len.min(room).min(CHUNK)];
    let got = from
        .ops
        .read(t, from, &mut IoBuf::kernel(&mut bytes), position)?;
    if got == 0 {
        return Ok(0);
    }
    pipe.write(t, &mut IoBuf::kernel_const(&bytes[..got]), 0)
}

/// From one pipe to another; the bytes stay in the first unless `consume`.
fn between(
    t: &Thread,
    from: &Arc<Pipe>,
    to: &Arc<Pipe>,
    len: usize,
    nonblocking: bool,
    consume: bool,
) -> SysResult {
    if Arc::ptr_eq(from, to) {
        return Err(Errno::EINVAL);
    }
    loop {
        if !to.has_readers() {
            signal::raise_sigpipe(t);
            return Err(Errno::EPIPE);
        }
        let has_writers = from.has_writers();
        let moved = copy(from, to, len, consume)?;
        if moved > 0 {
            return Ok(moved);
        }
        if from.level() == 0 {
            if !has_writers {
                return Ok(0);
            }
            from.wait_readable(t, nonblocking)?;
        } else {
            to.wait_writable(t, 1, nonblocking)?;
        }
    }
}

/// Copies what is there and fits. The pipe at the lower address is locked first.
fn copy(from: &Arc<Pipe>, to: &Arc<Pipe>, len: usize, consume: bool) -> SysResult {
    let (mut source, mut target) = if Arc::as_ptr(from) < Arc::as_ptr(to) {
        let source = from.ring.lock();
        (source, to.ring.lock())
    } else {
        let target = to.ring.lock();
        (from.ring.lock(), target)
    };
    let (source_before, target_before) = (Fill::of(&source), Fill::of(&target));
    let moved = source.copy_to(&mut target, len)?;
    if consume {
        source.consume(moved);
    }
    from.announce(source, source_before);
    to.announce(target, target_before);
    Ok(moved)
}

/// `tee(2)`.
///
/// # Errors
/// `EBADF`, `EINVAL` (unknown flags, not two different pipes), `EAGAIN`.
pub fn tee(t: &Thread, fd_in: Fd, fd_out: Fd, len: Len, flags: Hex) -> SysResult {
    let nonblocking = is_nonblocking(flags)?;
    if len == 0 {
        return Ok(0);
    }
    let (from, to) = open_files(t, fd_in, fd_out)?;
    match (of_file(&from), of_file(&to)) {
        (Some(a), Some(b)) => {
            let nonblocking = nonblocking || from.is_nonblocking() || to.is_nonblocking();
            between(t, a, b, len, nonblocking, false)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// `vmsplice(2)`; a gift of pages (`SPLICE_F_GIFT`) is copied.
///
/// # Errors
/// `EBADF` if `fd` is no pipe, `EINVAL`, `EFAULT`, `EAGAIN`.
pub fn vmsplice(t: &Thread, fd: Fd, iov: Iov, nr_segs: Len, flags: Hex) -> SysResult {
    let nonblocking = is_nonblocking(flags)?;
    let file = t.file(fd)?;
    let pipe = of_file(&file).ok_or(Errno::EBADF)?;
    let mut buf = IoBuf::iovec(iov, nr_segs)?;
    if file.is_writable() {
        let flags = if nonblocking { general::O_NONBLOCK } else { 0 };
        pipe.write(t, &mut buf, flags)
    } else if file.is_readable() {
        pipe.read(t, &mut buf, nonblocking)
    } else {
        Err(Errno::EBADF)
    }
}

impl Pipe {
    /// Puts bytes that were read back to the front, whatever the capacity.
    fn put_back(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut ring = self.ring.lock();
        let before = Fill::of(&ring);
        // Only fails without memory: then they are lost.
        let _ = ring.unread(bytes);
        self.announce(ring, before);
    }
}
