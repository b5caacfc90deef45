//! Copying between open files inside the kernel: `sendfile(2)`, `copy_file_range(2)`.

use alloc::vec::Vec;

use husk_abi::linux::general;

use super::inotify::{Events, notify};
use super::{File, FileKind, FileRef, rw};
use crate::syscall::{Fd, Hex, Len, Ptr};
use crate::user::{IoBuf, MAX_RW_COUNT};
use crate::{Errno, Result, SysResult, Thread};

/// Bytes moved in one step.
const CHUNK: usize = 64 << 10;

/// Copies up to `len` bytes from `input` at `from` to wherever `write` puts them; it is told how far the copy
/// is. An error counts only if nothing was copied before it.
fn copy(
    t: &Thread,
    input: &File,
    from: u64,
    len: usize,
    mut write: impl FnMut(&mut IoBuf<'_>, u64) -> Result<usize>,
) -> Result<usize> {
    let mut chunk: Vec<u8> = alloc::vec![0; CHUNK.min(len)];
    let mut done = 0;
    while done < len {
        let want = chunk.len().min(len - done);
        let mut step = || -> Result<(usize, usize)> {
            let mut buf = IoBuf::kernel(&mut chunk[..want]);
            let got = input.ops.read(t, input, &mut buf, from + done as u64)?;
            if got == 0 {
                return Ok((0, 0));
            }
            notify::file(input, Events::ACCESS);
            let mut buf = IoBuf::kernel_const(&chunk[..got]);
            Ok((got, write(&mut buf, done as u64)?))
        };
        match step() {
            Ok((got, put)) => {
                done += put;
                if got == 0 || put < got {
                    break;
                }
            }
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// An offset a call takes from and leaves in user memory, or the file's own position.
struct Offset<'a> {
    at: Ptr,
    file: &'a File,
    value: u64,
}

impl<'a> Offset<'a> {
    fn read(at: Ptr, file: &'a File) -> Result<Self> {
        let value = match at.read_opt::<i64>()? {
            Some(offset) => u64::try_from(offset).map_err(|_| Errno::EINVAL)?,
            None => file.tell()?,
        };
        Ok(Self { at, file, value })
    }

    fn advance(&self, by: usize) -> Result<()> {
        let value = self.value + by as u64;
        if self.at.is_null() {
            self.file.move_to(value)?;
            Ok(())
        } else {
            self.at.write(&value)
        }
    }
}

fn files(t: &Thread, input: Fd, output: Fd) -> Result<(FileRef, FileRef)> {
    let files = t.files();
    let (input, output) = (files.get(input)?, files.get(output)?);
    if !input.is_readable() || !output.is_writable() {
        return Err(Errno::EBADF);
    }
    Ok((input, output))
}

/// `sendfile(2)`.
pub fn sendfile(t: &Thread, out_fd: Fd, in_fd: Fd, offset: Ptr, count: Len) -> SysResult {
    let (input, output) = files(t, in_fd, out_fd)?;
    if !input.ops.is_seekable() {
        return Err(if offset.is_null() {
            Errno::EINVAL
        } else {
            Errno::ESPIPE
        });
    }
    if output.flags() & general::O_APPEND != 0 || input.inode.kind() == FileKind::Directory {
        return Err(Errno::EINVAL);
    }
    let from = Offset::read(offset, &input)?;
    let len = count.min(MAX_RW_COUNT);
    let done = copy(t, &input, from.value, len, |buf, _| {
        rw::write_file(t, &output, buf)
    })?;
    from.advance(done)?;
    Ok(done)
}

/// `copy_file_range(2)`.
pub fn copy_file_range(
    t: &Thread,
    fd_in: Fd,
    off_in: Ptr,
    fd_out: Fd,
    off_out: Ptr,
    len: Len,
    flags: Hex,
) -> SysResult {
    let (input, output) = files(t, fd_in, fd_out)?;
    if output.flags() & general::O_APPEND != 0 {
        return Err(Errno::EBADF);
    }
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    for file in [&input, &output] {
        match file.inode.kind() {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
    }
    let from = Offset::read(off_in, &input)?;
    let to = Offset::read(off_out, &output)?;
    let left = input.ops.size().saturating_sub(from.value);
    let len = len
        .min(MAX_RW_COUNT)
        .min(usize::try_from(left).unwrap_or(usize::MAX));
    let overlaps = from.value < to.value.saturating_add(len as u64)
        && to.value < from.value.saturating_add(len as u64);
    if overlaps && super::mount::same_inode(&input.inode, &output.inode) {
        return Err(Errno::EINVAL);
    }
    let direct = input
        .ops
        .copy_range(t, from.value, &output, to.value, len as u64);
    let done = match direct {
        Ok(done) => {
            if done > 0 {
                notify::file(&input, Events::ACCESS);
            }
            done as usize
        }
        Err(Errno::EOPNOTSUPP) => copy(t, &input, from.value, len, |buf, at| {
            output.ops.write(t, &output, buf, to.value + at)
        })?,
        Err(errno) => return Err(errno),
    };
    if done > 0 {
        notify::file(&output, Events::MODIFY);
    }
    from.advance(done)?;
    to.advance(done)?;
    Ok(done)
}
