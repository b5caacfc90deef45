//! Descriptors that a process is handed from outside, beyond its standard streams.
//!
//! Files keep their position on the host, where whoever has passed them on may share it; opening one anew by
//! `/proc/self/fd` gives a position of its own.

use alloc::sync::Arc;

use husk_abi::boundary::config::{FIRST_HANDED, Handed, HandedKind, ProcessConfig};
use husk_abi::boundary::fuse::MAX_CHANNEL_DATA;
use husk_abi::boundary::stdio::SETTINGS_BYTES;
use husk_abi::linux::{general, ioctl};

use super::anon::AnonInode;
use super::file::OWN_POSITION;
use super::fuse::{self, Channel, Fifo};
use super::poll::PollTable;
use super::{Attributes, File, FileKind, FileOps, FileRef, Inode, PollEvents, SetAttributes};
use crate::net::{Socket, SocketFile, inet, unix};
use crate::user::{IoBuf, UserAddr};
use crate::{Errno, Result, SysResult, Thread};

/// Flags that a descriptor has here as it has them on the host.
const FLAGS: u32 = general::O_ACCMODE | general::O_APPEND | general::O_NONBLOCK;

/// Gives the process of `session` what it is handed.
///
/// # Errors
/// `EBADF` if `RLIMIT_NOFILE` leaves no room; what taking it from the host gives.
pub fn open_handed(t: &Thread, session: u32, config: &ProcessConfig) -> Result<()> {
    for (index, handed) in (0i32..).zip(&config.handed) {
        let file = open(t, session, index.cast_unsigned(), handed, config)?;
        t.files()
            .replace(t, FIRST_HANDED.cast_signed() + index, file, false)?;
    }
    Ok(())
}

fn open(
    t: &Thread,
    session: u32,
    index: u32,
    handed: &Handed,
    config: &ProcessConfig,
) -> Result<FileRef> {
    let flags = handed.flags & FLAGS;
    let channel = || Channel::take(t.kernel, session, index);
    match &handed.kind {
        HandedKind::Stream {
            mode,
            rdev,
            name,
            is_terminal,
        } => {
            let kind = FileKind::from_mode(*mode).unwrap_or(FileKind::Anonymous);
            let anon = AnonInode::owned_by(config.uid, config.gid, kind, mode & 0o7777);
            anon.edit(|attributes| attributes.rdev = *rdev);
            let path = if name.first() == Some(&b'/') || name.starts_with(b"anon_inode:") {
                name.clone()
            } else {
                anon.link_name(core::str::from_utf8(name).unwrap_or("pipe"))
            };
            let stream = Arc::new(Stream {
                fifo: Fifo {
                    channel: channel()?,
                },
                is_terminal: *is_terminal,
            });
            let inode = Arc::new(StreamInode {
                anon,
                stream: stream.clone(),
                access: flags & general::O_ACCMODE,
            });
            Ok(File::new(stream, inode, path, flags))
        }
        HandedKind::File { name } => {
            let channel = channel()?;
            let inode = Arc::new(FileInode {
                channel: channel.clone(),
                device: t.kernel.fs.new_device(),
                last: fuse::attributes_of(&channel.attr()?, 0),
                access: flags & general::O_ACCMODE,
            });
            let ops = Arc::new(HandedFile {
                channel,
                is_anew: false,
            });
            Ok(File::new(ops, inode, name.clone(), flags))
        }
        HandedKind::Unix {
            kind,
            listens,
            names,
            peer,
        } => {
            let socket = unix::handed(t.kernel, *kind, channel()?, *listens, names, *peer);
            Ok(open_socket(t, socket, flags))
        }
        HandedKind::Inet {
            family,
            kind,
            listens,
            connected,
        } => {
            let taken = inet::Taken {
                session,
                index,
                family: *family,
                kind: *kind,
                listens: *listens,
                connected: *connected,
            };
            Ok(open_socket(t, inet::handed(t.kernel, &taken)?, flags))
        }
    }
}

fn open_socket(t: &Thread, socket: Arc<dyn Socket>, flags: u32) -> FileRef {
    SocketFile::open(t, socket, flags & general::O_NONBLOCK)
}

/// A pipe, a terminal, or the like.
#[derive(Debug)]
struct Stream {
    fifo: Fifo,
    is_terminal: bool,
}

/// Bytes of the argument of an `ioctl(2)` the host is asked, and whether it is read and written.
fn terminal_request(request: u32) -> Option<(u32, usize, bool)> {
    const WINDOW_BYTES: usize = 8;
    match request {
        ioctl::TCGETS => Some((request, SETTINGS_BYTES, false)),
        // What is to be written first is written already: nothing waits here.
        ioctl::TCSETS | ioctl::TCSETSW | ioctl::TCSETSF => {
            Some((ioctl::TCSETS, SETTINGS_BYTES, true))
        }
        ioctl::TIOCGWINSZ => Some((request, WINDOW_BYTES, false)),
        _ => None,
    }
}

impl FileOps for Stream {
    fn read(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, offset: u64) -> Result<usize> {
        self.fifo.read(t, file, buf, offset)
    }

    fn write(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, offset: u64) -> Result<usize> {
        self.fifo.write(t, file, buf, offset)
    }

    fn poll(&self, t: &Thread, file: &File, table: Option<&mut PollTable<'_>>) -> PollEvents {
        self.fifo.poll(t, file, table)
    }

    fn ioctl(&self, _t: &Thread, _file: &File, request: u32, arg: u64) -> SysResult {
        let channel = &self.fifo.channel;
        if request == ioctl::FIONREAD {
            let mut value = [0; 4];
            channel.terminal(request, &mut value)?;
            UserAddr(arg).write(&value)?;
            return Ok(0);
        }
        let (request, len, writes) = terminal_request(request)
            .filter(|_| self.is_terminal)
            .ok_or(Errno::ENOTTY)?;
        let mut value = [0; SETTINGS_BYTES];
        if writes {
            value = UserAddr(arg).read()?;
        }
        channel.terminal(request, &mut value[..len])?;
        if writes {
            return Ok(0);
        }
        let mut buf = IoBuf::user(UserAddr(arg), len)?;
        buf.put(&value[..len])?;
        Ok(0)
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// Checks that what is open with `access` may be opened with `flags`.
fn check_access(access: u32, flags: u32) -> Result<()> {
    let wanted = flags & general::O_ACCMODE;
    if access == general::O_RDWR || access == wanted {
        Ok(())
    } else {
        Err(Errno::EACCES)
    }
}

#[derive(Debug)]
struct StreamInode {
    anon: AnonInode,
    stream: Arc<Stream>,
    access: u32,
}

impl Inode for StreamInode {
    fn attributes(&self) -> Attributes {
        self.anon.attributes()
    }

    fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        // Opening with O_TRUNC must work.
        let change = SetAttributes {
            size: None,
            ..*change
        };
        self.anon.set_attributes(&change)
    }

    fn open(self: Arc<Self>, _thread: &Thread, flags: u32) -> Result<Arc<dyn FileOps>> {
        if self.anon.attributes().kind == FileKind::Anonymous {
            return Err(Errno::ENXIO);
        }
        check_access(self.access, flags)?;
        Ok(self.stream.clone())
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// An open regular file of the host.
#[derive(Debug)]
struct HandedFile {
    channel: Arc<Channel>,
    /// It was opened here, and has a position of its own.
    is_anew: bool,
}

impl FileOps for HandedFile {
    fn read(&self, _t: &Thread, _file: &File, buf: &mut IoBuf<'_>, offset: u64) -> Result<usize> {
        let mut done = 0;
        while buf.remaining() > 0 {
            let got = if offset == OWN_POSITION {
                self.channel.read(buf, false)
            } else {
                self.channel.read_at(buf, offset + done as u64)
            };
            match got {
                Ok(0) => break,
                Ok(got) => done += got,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    fn write(&self, _t: &Thread, file: &File, buf: &mut IoBuf<'_>, offset: u64) -> Result<usize> {
        let appends = self.is_anew && file.flags() & general::O_APPEND != 0;
        let mut offset = if appends { self.size() } else { offset };
        let mut done = 0;
        while buf.remaining() > 0 {
            let mut bytes = alloc::vec![0; buf.remaining().min(MAX_CHANNEL_DATA)];
            let got = buf.take(&mut bytes)?;
            let mut at = 0;
            while at < got {
                let written = if offset == OWN_POSITION {
                    self.channel.write(&bytes[at..got])
                } else {
                    self.channel.write_at(&bytes[at..got], offset)
                };
                match written {
                    Ok(0) => return Ok(done),
                    Ok(written) => {
                        at += written;
                        done += written;
                        if offset != OWN_POSITION {
                            offset += written as u64;
                        }
                    }
                    Err(_) if done > 0 => return Ok(done),
                    Err(errno) => return Err(errno),
                }
            }
        }
        Ok(done)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn has_position(&self) -> bool {
        self.is_anew
    }

    fn seek(&self, offset: i64, whence: u32) -> Result<u64> {
        self.channel.seek(offset, whence)
    }

    fn size(&self) -> u64 {
        self.channel.attr().map_or(0, |attr| attr.size)
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

#[derive(Debug)]
struct FileInode {
    channel: Arc<Channel>,
    device: u64,
    /// For when the host does not tell.
    last: Attributes,
    access: u32,
}

impl Inode for FileInode {
    fn attributes(&self) -> Attributes {
        let now = self.channel.attr();
        Attributes {
            is_foreign: false,
            dev: self.device,
            ..now.map_or(self.last, |attr| fuse::attributes_of(&attr, 0))
        }
    }

    fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        // What is the host's stays as it is: who may change it is not known here.
        if change.mode.is_some() || change.uid.is_some() || change.gid.is_some() {
            return Err(Errno::EPERM);
        }
        match change.size {
            Some(size) if self.access != general::O_RDONLY => self.channel.resize(size),
            Some(_) => Err(Errno::EACCES),
            None => Err(Errno::EPERM),
        }
    }

    fn open(self: Arc<Self>, _thread: &Thread, flags: u32) -> Result<Arc<dyn FileOps>> {
        check_access(self.access, flags)?;
        Ok(Arc::new(HandedFile {
            channel: self.channel.clone(),
            is_anew: true,
        }))
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        self.channel.sync(data_only)
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
