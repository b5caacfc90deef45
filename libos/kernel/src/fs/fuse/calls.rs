//! The messages, typed: one function an operation.

use alloc::boxed::Box;
use alloc::vec::Vec;

use husk_abi::boundary::fuse::{
    Attr, AttrOut, CHANNEL_PARTNER, CHUNK_BYTES, ChannelIn, ChannelOpenIn, ChannelOpenOut,
    ChannelPollOut, CopyIn, Dirent, EntryOut, FallocateIn, FsyncIn, LinkIn, LockIn, LockOut,
    LseekIn, LseekOut, MAP_READ, MAP_WRITE, MAX_DATA, MkdirIn, MknodIn, OpenIn, ReadIn, Rename2In,
    SetattrIn, SetupmappingIn, SetxattrIn, StatfsOut, Validity, WriteIn, WriteOut, encode_dev, op,
};
use husk_abi::linux::general;

use super::buffer::each_page;
use crate::fs::{Create, FileKind, devfs};
use crate::host::{Ask, BULK_BYTES, Needs};
use crate::mm::{Held, Span};
use crate::user::IoBuf;
use crate::{Errno, Kernel, Result, Thread};

/// Data of at least so many bytes go straight to and from the process's memory.
const DIRECT: usize = 32 << 10;

/// Sends `ask` and gives the answer, which is at most a page.
pub(super) fn call(kernel: &Kernel, ask: &Ask<'_>) -> Result<Vec<u8>> {
    let needs = if ask.body.len() > 3072 {
        Needs::Buffer
    } else {
        Needs::Nothing
    };
    let mut exchange = kernel.host.files.begin(&kernel.frames, needs)?;
    let len = exchange.call(&kernel.frames, ask)?;
    Ok(exchange.answer(len))
}

pub(super) fn ask<'a>(opcode: u32, node: u64, body: &'a [u8]) -> Ask<'a> {
    Ask {
        opcode,
        node,
        body,
        ..Ask::default()
    }
}

/// `name` and its NUL behind what `body` has.
fn with_name(mut body: Vec<u8>, name: &[u8]) -> Vec<u8> {
    body.reserve(name.len() + 1);
    body.extend_from_slice(name);
    body.push(0);
    body
}

macro_rules! body {
    ($arguments:expr) => {{
        let mut body = Vec::with_capacity(128);
        $arguments.put(&mut body);
        body
    }};
}

fn attr(bytes: &[u8]) -> Result<Attr> {
    AttrOut::take(bytes)
        .map(|(out, _)| out.attr)
        .ok_or(Errno::EIO)
}

/// A file found or made, and its directory's attributes where the message gives them.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub node: u64,
    pub attr: Attr,
}

fn entry(bytes: &[u8]) -> Result<(Entry, &[u8])> {
    let (out, rest) = EntryOut::take(bytes).ok_or(Errno::EIO)?;
    let entry = Entry {
        node: out.nodeid,
        attr: out.attr,
    };
    Ok((entry, rest))
}

fn entry_and_directory(bytes: &[u8]) -> Result<(Entry, Attr)> {
    let (entry, rest) = entry(bytes)?;
    Ok((entry, attr(rest)?))
}

/// Attributes, and how long they are good.
pub fn getattr(kernel: &Kernel, node: u64) -> Result<(Attr, Validity)> {
    let answer = call(kernel, &ask(op::GETATTR, node, &[]))?;
    let (out, _) = AttrOut::take(&answer).ok_or(Errno::EIO)?;
    Ok((
        out.attr,
        Validity::from_wire(out.attr_valid, out.attr_valid_nsec),
    ))
}

pub fn setattr(kernel: &Kernel, node: u64, change: &SetattrIn) -> Result<Attr> {
    attr(&call(kernel, &ask(op::SETATTR, node, &body!(change)))?)
}

pub fn lookup(kernel: &Kernel, directory: u64, name: &[u8]) -> Result<Entry> {
    let body = with_name(Vec::new(), name);
    entry(&call(kernel, &ask(op::LOOKUP, directory, &body))?).map(|(entry, _)| entry)
}

/// Makes a name.
pub fn create(
    kernel: &Kernel,
    directory: u64,
    name: &[u8],
    what: &Create<'_>,
) -> Result<(Entry, Attr)> {
    let (opcode, body) = match what.kind {
        FileKind::Directory => {
            let arguments = MkdirIn {
                mode: what.mode,
                umask: 0,
            };
            (op::MKDIR, with_name(body!(arguments), name))
        }
        FileKind::Symlink => {
            let body = with_name(Vec::new(), name);
            (op::SYMLINK, with_name(body, what.target))
        }
        FileKind::Anonymous => return Err(Errno::EINVAL),
        _ => (op::MKNOD, with_name(body!(mknod_arguments(what)), name)),
    };
    let ask = Ask {
        owner: (what.uid, what.gid),
        ..ask(opcode, directory, &body)
    };
    entry_and_directory(&call(kernel, &ask)?)
}

fn mknod_arguments(what: &Create<'_>) -> MknodIn {
    let (major, minor) = devfs::split(what.rdev);
    MknodIn {
        mode: what.kind.mode_bits() | what.mode,
        rdev: encode_dev(major as u32, minor as u32),
        umask: 0,
        padding: 0,
    }
}

/// Makes a regular file without a name.
pub fn tmpfile(kernel: &Kernel, directory: u64, what: &Create<'_>) -> Result<Entry> {
    let body = body!(mknod_arguments(what));
    let ask = Ask {
        owner: (what.uid, what.gid),
        ..ask(op::TMPFILE, directory, &body)
    };
    entry(&call(kernel, &ask)?).map(|(entry, _)| entry)
}

pub fn unlink(kernel: &Kernel, directory: u64, name: &[u8], is_directory: bool) -> Result<Attr> {
    let opcode = if is_directory { op::RMDIR } else { op::UNLINK };
    let body = with_name(Vec::new(), name);
    attr(&call(kernel, &ask(opcode, directory, &body))?)
}

pub fn link(kernel: &Kernel, directory: u64, name: &[u8], file: u64) -> Result<(Entry, Attr)> {
    let body = with_name(body!(LinkIn { oldnodeid: file }), name);
    entry_and_directory(&call(kernel, &ask(op::LINK, directory, &body))?)
}

/// Moves a name; gives both directories' attributes.
pub fn rename(
    kernel: &Kernel,
    source: u64,
    from: &[u8],
    target: u64,
    to: &[u8],
    flags: u32,
) -> Result<(Attr, Attr)> {
    let arguments = Rename2In {
        newdir: target,
        flags,
        padding: 0,
    };
    let body = with_name(with_name(body!(arguments), from), to);
    let answer = call(kernel, &ask(op::RENAME2, source, &body))?;
    let rest = answer.get(AttrOut::BYTES..).unwrap_or_default();
    Ok((attr(&answer)?, attr(rest)?))
}

pub fn readlink(kernel: &Kernel, node: u64) -> Result<Vec<u8>> {
    call(kernel, &ask(op::READLINK, node, &[]))
}

/// Whether the file can be opened for writing.
pub fn open_to_write(kernel: &Kernel, node: u64) -> Result<Attr> {
    let arguments = OpenIn {
        flags: general::O_RDWR,
        open_flags: 0,
    };
    attr(&call(kernel, &ask(op::OPEN, node, &body!(arguments)))?)
}

pub fn statfs(kernel: &Kernel, node: u64) -> Result<StatfsOut> {
    let answer = call(kernel, &ask(op::STATFS, node, &[]))?;
    StatfsOut::take(&answer)
        .map(|(out, _)| out)
        .ok_or(Errno::EIO)
}

/// `flags` are `FSYNC_*`.
pub fn fsync(kernel: &Kernel, node: u64, flags: u32) -> Result<()> {
    let arguments = FsyncIn {
        fsync_flags: flags,
        ..FsyncIn::default()
    };
    call(kernel, &ask(op::FSYNC, node, &body!(arguments))).map(drop)
}

pub fn syncfs(kernel: &Kernel, node: u64) -> Result<()> {
    call(kernel, &ask(op::SYNCFS, node, &[])).map(drop)
}

/// Sends `body` and gives an answer that may be long.
fn call_long(kernel: &Kernel, opcode: u32, node: u64, body: &[u8], room: usize) -> Result<Vec<u8>> {
    let mut exchange = kernel.host.files.begin(&kernel.frames, Needs::Buffer)?;
    let ask = Ask {
        answer_bytes: room,
        ..ask(opcode, node, body)
    };
    let len = exchange.call(&kernel.frames, &ask)?;
    Ok(exchange.bulk_bytes(len))
}

/// The most a value or a list of names can be.
const XATTR_BYTES: usize = 64 << 10;

pub fn getxattr(kernel: &Kernel, node: u64, name: &[u8]) -> Result<Vec<u8>> {
    let body = with_name(Vec::new(), name);
    call_long(kernel, op::GETXATTR, node, &body, XATTR_BYTES)
}

/// The names, each with its NUL.
pub fn listxattr(kernel: &Kernel, node: u64) -> Result<Vec<u8>> {
    call_long(kernel, op::LISTXATTR, node, &[], XATTR_BYTES)
}

pub fn setxattr(
    kernel: &Kernel,
    node: u64,
    name: &[u8],
    value: Option<&[u8]>,
    flags: u32,
) -> Result<Attr> {
    let answer = match value {
        None => {
            let body = with_name(Vec::new(), name);
            call(kernel, &ask(op::REMOVEXATTR, node, &body))?
        }
        Some(value) => {
            let arguments = SetxattrIn {
                size: value.len() as u32,
                flags,
            };
            let mut body = with_name(body!(arguments), name);
            body.extend_from_slice(value);
            call(kernel, &ask(op::SETXATTR, node, &body))?
        }
    };
    attr(&answer)
}

pub fn fallocate(kernel: &Kernel, node: u64, mode: u32, offset: u64, len: u64) -> Result<Attr> {
    let arguments = FallocateIn {
        offset,
        length: len,
        mode,
        ..FallocateIn::default()
    };
    attr(&call(kernel, &ask(op::FALLOCATE, node, &body!(arguments)))?)
}

pub fn seek(kernel: &Kernel, node: u64, offset: u64, hole: bool) -> Result<u64> {
    let whence = if hole {
        general::SEEK_HOLE
    } else {
        general::SEEK_DATA
    };
    let arguments = LseekIn {
        offset,
        whence,
        ..LseekIn::default()
    };
    let answer = call(kernel, &ask(op::LSEEK, node, &body!(arguments)))?;
    LseekOut::take(&answer)
        .map(|(out, _)| out.offset)
        .ok_or(Errno::EIO)
}

/// Copies between two files on the host; gives the bytes copied and the target's attributes.
pub fn copy(kernel: &Kernel, from: (u64, u64), to: (u64, u64), len: u64) -> Result<(u64, Attr)> {
    let arguments = CopyIn {
        off_in: from.1,
        nodeid_out: to.0,
        off_out: to.1,
        len,
        ..CopyIn::default()
    };
    written(&call(
        kernel,
        &ask(op::COPY_FILE_RANGE, from.0, &body!(arguments)),
    )?)
}

fn written(answer: &[u8]) -> Result<(u64, Attr)> {
    let (out, rest) = WriteOut::take(answer).ok_or(Errno::EIO)?;
    Ok((u64::from(out.size), attr(rest)?))
}

/// The process's own memory that the next `len` bytes of `buf` are, if that is RAM and worth it.
fn direct(buf: &IoBuf<'_>, len: usize, to_fill: bool) -> Option<Held> {
    if len < DIRECT {
        return None;
    }
    let held = husk_hal::cpu::with_current(|t: &Thread| buf.hold(t, len, to_fill))?;
    (held.bytes() >= DIRECT).then_some(held)
}

fn read_arguments(offset: u64, len: usize) -> Vec<u8> {
    body!(ReadIn {
        offset,
        size: len as u32,
        ..ReadIn::default()
    })
}

fn write_arguments(offset: Option<u64>, len: usize) -> Vec<u8> {
    body!(WriteIn {
        offset: offset.unwrap_or(0),
        size: len as u32,
        flags: offset.map_or(general::O_APPEND, |_| 0),
        ..WriteIn::default()
    })
}

/// Reads up to `len` bytes into `buf`, at least one if there is one and the buffer is not empty.
pub fn read(
    kernel: &Kernel,
    node: u64,
    buf: &mut IoBuf<'_>,
    offset: u64,
    len: usize,
) -> Result<usize> {
    if let Some(held) = direct(buf, len.min(MAX_DATA), true) {
        let got = read_to(kernel, node, held.spans(), offset, held.bytes())?;
        return Ok(buf.skip(got));
    }
    let want = len.min(BULK_BYTES);
    let mut exchange = kernel.host.files.begin(&kernel.frames, Needs::Buffer)?;
    let body = read_arguments(offset, want);
    let ask = Ask {
        answer_bytes: want,
        ..ask(op::READ, node, &body)
    };
    let got = exchange.call(&kernel.frames, &ask)?.min(want);
    let bulk = exchange.bulk();
    each_page(0, got, |page, offset, piece| {
        buf.put_frame(bulk.offset(page), offset, piece)
    })
}

/// Writes up to `len` bytes from `buf` at an offset, or else at the file's end; gives the bytes written, how many of `buf`'s were
/// taken for that, and the attributes then.
pub fn write(
    kernel: &Kernel,
    node: u64,
    buf: &mut IoBuf<'_>,
    offset: Option<u64>,
    len: usize,
) -> Result<(usize, usize, Attr)> {
    if let Some(held) = direct(buf, len.min(MAX_DATA), false) {
        let taken = held.bytes();
        let (done, attr) = write_from(kernel, node, held.spans(), offset, taken)?;
        buf.skip(done);
        return Ok((done, taken, attr));
    }
    let want = len.min(BULK_BYTES);
    let mut exchange = kernel.host.files.begin(&kernel.frames, Needs::Buffer)?;
    let bulk = exchange.bulk();
    let taken = each_page(0, want, |page, offset, piece| {
        buf.take_frame(bulk.offset(page), offset, piece)
    })?;
    let body = write_arguments(offset, taken);
    let ask = Ask {
        data_bytes: taken,
        ..ask(op::WRITE, node, &body)
    };
    let len = exchange.call(&kernel.frames, &ask)?;
    let (size, attr) = written(&exchange.answer(len))?;
    Ok(((size as usize).min(taken), taken, attr))
}

fn needs(places: &[Span]) -> Needs {
    if places.len() > 1 {
        Needs::Table
    } else {
        Needs::Nothing
    }
}

/// Reads `len` bytes, at most `MAX_DATA`, to the first bytes of `places`; less is the end of the file.
pub fn read_to(
    kernel: &Kernel,
    node: u64,
    places: &[Span],
    offset: u64,
    len: usize,
) -> Result<usize> {
    let mut exchange = kernel.host.files.begin(&kernel.frames, needs(places))?;
    let body = read_arguments(offset, len);
    let ask = Ask {
        answer_bytes: len,
        data_at: places,
        ..ask(op::READ, node, &body)
    };
    Ok(exchange.call(&kernel.frames, &ask)?.min(len))
}

/// Writes `len` bytes, at most `MAX_DATA`, the first of `places`, at an offset, or else at the file's end; gives the bytes written
/// and the attributes then.
pub fn write_from(
    kernel: &Kernel,
    node: u64,
    places: &[Span],
    offset: Option<u64>,
    len: usize,
) -> Result<(usize, Attr)> {
    let mut exchange = kernel.host.files.begin(&kernel.frames, needs(places))?;
    let body = write_arguments(offset, len);
    let ask = Ask {
        data_bytes: len,
        data_at: places,
        ..ask(op::WRITE, node, &body)
    };
    let answer = exchange.call(&kernel.frames, &ask)?;
    let (size, attr) = written(&exchange.answer(answer))?;
    Ok(((size as usize).min(len), attr))
}

/// Posts a change of attributes; false if there is no room. `done` gets the attributes then.
pub fn post_setattr(
    kernel: &Kernel,
    node: u64,
    change: &SetattrIn,
    done: impl FnOnce(Result<Attr>) + Send + 'static,
) -> bool {
    let body = body!(change);
    let done = Box::new(move |answer: Result<Vec<u8>>| done(answer.and_then(|bytes| attr(&bytes))));
    let files = &kernel.host.files;
    files
        .post(&kernel.frames, &ask(op::SETATTR, node, &body), done)
        .is_ok()
}

/// Posts [`write_from`]; false if there is no room. `done` gets the bytes written and the attributes then.
pub fn post_write(
    kernel: &Kernel,
    node: u64,
    from: Span,
    offset: u64,
    done: impl FnOnce(Result<(u64, Attr)>) + Send + 'static,
) -> bool {
    let body = write_arguments(Some(offset), from.len);
    let ask = Ask {
        data_bytes: from.len,
        data_at: core::slice::from_ref(&from),
        ..ask(op::WRITE, node, &body)
    };
    let done = Box::new(move |answer: Result<Vec<u8>>| {
        done(answer.and_then(|bytes| written(&bytes)));
    });
    kernel.host.files.post(&kernel.frames, &ask, done).is_ok()
}

/// Shows chunk `index` of a file in `slot` of the window; gives its attributes.
pub fn map(kernel: &Kernel, node: u64, index: u64, slot: usize, writable: bool) -> Result<Attr> {
    let arguments = SetupmappingIn {
        foffset: index * CHUNK_BYTES,
        len: CHUNK_BYTES,
        flags: MAP_READ | if writable { MAP_WRITE } else { 0 },
        moffset: slot as u64 * CHUNK_BYTES,
        ..SetupmappingIn::default()
    };
    attr(&call(
        kernel,
        &ask(op::SETUPMAPPING, node, &body!(arguments)),
    )?)
}

/// An entry of a listing.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The file; nothing for `.` and `..` and for what was gone when it was looked at.
    pub entry: Option<Entry>,
    pub ino: u64,
    pub next: u64,
    pub kind: FileKind,
    pub name: Vec<u8>,
}

/// Entries from `position` on, as many as one answer holds, and whether these are the last.
pub fn list(kernel: &Kernel, directory: u64, position: u64) -> Result<(Vec<Listed>, bool)> {
    let arguments = ReadIn {
        offset: position,
        size: BULK_BYTES as u32,
        ..ReadIn::default()
    };
    let answer = call_long(
        kernel,
        op::READDIRPLUS,
        directory,
        &body!(arguments),
        BULK_BYTES,
    )?;
    let mut listed = Vec::new();
    let mut is_end = answer.is_empty();
    let mut rest = answer.as_slice();
    while !rest.is_empty() {
        let (out, after) = EntryOut::take(rest).ok_or(Errno::EIO)?;
        let (dirent, after) = Dirent::take(after).ok_or(Errno::EIO)?;
        let len = dirent.namelen as usize;
        let name = after.get(..len).ok_or(Errno::EIO)?.to_vec();
        let skip = (Dirent::BYTES + len).next_multiple_of(8) - Dirent::BYTES;
        rest = after.get(skip..).unwrap_or_default();
        if name.is_empty() {
            is_end = true;
            break;
        }
        listed.push(Listed {
            entry: (out.nodeid != 0).then_some(Entry {
                node: out.nodeid,
                attr: out.attr,
            }),
            ino: dirent.ino,
            next: dirent.off,
            kind: FileKind::from_mode(dirent.kind << 12).unwrap_or(FileKind::Regular),
            name,
        });
    }
    Ok((listed, is_end))
}

/// Opens a FIFO, or connects to a socket; gives the channel's number, and user and group of who listens.
pub fn channel_open(
    kernel: &Kernel,
    node: u64,
    flags: u32,
    kind: u32,
) -> Result<(u32, (u32, u32))> {
    let body = body!(ChannelOpenIn { flags, kind });
    let answer = call(kernel, &ask(op::CHANNEL_OPEN, node, &body))?;
    let (out, _) = ChannelOpenOut::take(&answer).ok_or(Errno::EIO)?;
    Ok((out.channel, (out.uid, out.gid)))
}

/// A request about `channel`, without what is to be written.
pub(super) fn channel_body(channel: u32, flags: u32, size: usize) -> Vec<u8> {
    body!(ChannelIn {
        channel,
        flags,
        size: size as u32,
        padding: 0,
    })
}

/// Reads at most `len` bytes from `channel`, a node and its channel's number; so for the others.
pub fn channel_read(
    kernel: &Kernel,
    channel: (u64, u32),
    len: usize,
    peek: bool,
) -> Result<Vec<u8>> {
    let body = channel_body(channel.1, peek.into(), len);
    read_channel(kernel, channel.0, &body, len)
}

/// Reads as `body` says.
pub(super) fn read_channel(kernel: &Kernel, node: u64, body: &[u8], len: usize) -> Result<Vec<u8>> {
    let mut exchange = kernel.host.files.begin(&kernel.frames, Needs::Buffer)?;
    let ask = Ask {
        answer_bytes: len.max(1),
        ..ask(op::CHANNEL_READ, node, body)
    };
    let got = exchange.call(&kernel.frames, &ask)?.min(len);
    Ok(exchange.bulk_bytes(got))
}

/// Writes; gives how many bytes were taken.
pub fn channel_write(kernel: &Kernel, channel: (u64, u32), bytes: &[u8]) -> Result<usize> {
    let mut body = channel_body(channel.1, 0, bytes.len());
    body.extend_from_slice(bytes);
    let answer = call(kernel, &ask(op::CHANNEL_WRITE, channel.0, &body))?;
    let written = answer.first_chunk().ok_or(Errno::EIO)?;
    Ok((u32::from_le_bytes(*written) as usize).min(bytes.len()))
}

/// What is ready, as `POLL*`, and, if asked, whether a FIFO has a writer.
pub fn channel_poll(kernel: &Kernel, channel: (u64, u32), partner: bool) -> Result<(u32, bool)> {
    let flags = if partner { CHANNEL_PARTNER } else { 0 };
    let body = channel_body(channel.1, flags, 0);
    let answer = call(kernel, &ask(op::CHANNEL_POLL, channel.0, &body))?;
    let (out, _) = ChannelPollOut::take(&answer).ok_or(Errno::EIO)?;
    Ok((out.events, out.partner != 0))
}

pub fn channel_shut(kernel: &Kernel, channel: (u64, u32), how: u32) -> Result<()> {
    let body = channel_body(channel.1, how, 0);
    call(kernel, &ask(op::CHANNEL_SHUT, channel.0, &body)).map(drop)
}

pub fn channel_close(kernel: &Kernel, channel: (u64, u32)) -> Result<()> {
    let body = channel_body(channel.1, 0, 0);
    call(kernel, &ask(op::CHANNEL_CLOSE, channel.0, &body)).map(drop)
}

/// Sets what the guest holds of a file's locks; gives the lock in the way if that is what is asked.
pub fn lock(kernel: &Kernel, node: u64, lock: &LockIn) -> Result<Option<LockOut>> {
    let answer = call(kernel, &ask(op::LOCK, node, &body!(lock)))?;
    Ok(LockOut::take(&answer).map(|(out, _)| out))
}
