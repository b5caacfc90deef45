//! The container's standard streams.
//!
//! Bytes go to and come from the host through the `host` room; what kind of file each stream is there decides
//! what `fstat(2)` and `isatty(3)` say of it here.

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::boundary::config::StreamKind;
use husk_abi::boundary::stdio::STREAMS;
use husk_abi::linux::general;

use super::anon::AnonInode;
use super::devfs::{self, MemoryDevice};
use super::poll::PollTable;
use super::terminal::Terminal;
use super::{Attributes, File, FileKind, FileOps, FileRef, Inode, PollEvents, SetAttributes};
use crate::user::IoBuf;
use crate::{Errno, Kernel, Result, SysResult, Thread};

/// Number of standard input.
const INPUT: u32 = 0;

/// A stream: what all its openings share.
#[derive(Debug)]
struct Stream {
    number: u32,
    kind: StreamKind,
    terminal: Option<Arc<Terminal>>,
}

impl Stream {
    /// The stream that reads or writes of this opening concern. All streams of a terminal are one device.
    fn output(&self) -> u32 {
        self.number.max(1)
    }

    fn reads(&self) -> bool {
        self.number == INPUT || self.terminal.is_some()
    }

    fn writes(&self) -> bool {
        self.number != INPUT || self.terminal.is_some()
    }
}

/// An opening of a stream.
#[derive(Debug)]
struct StreamFile {
    stream: Arc<Stream>,
}

impl FileOps for StreamFile {
    fn read(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        if !self.stream.reads() {
            return Err(Errno::EBADF);
        }
        if buf.remaining() == 0 {
            return Ok(0);
        }
        t.kernel.host.console.read(t, buf, file.is_nonblocking())
    }

    fn write(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        if !self.stream.writes() {
            return Err(Errno::EBADF);
        }
        if buf.remaining() == 0 {
            return Ok(0);
        }
        let result =
            t.kernel
                .host
                .console
                .write(t, self.stream.output(), buf, file.is_nonblocking());
        if result == Err(Errno::EPIPE) {
            crate::signal::raise_sigpipe(t);
        }
        result
    }

    fn poll(&self, t: &Thread, _file: &File, mut table: Option<&mut PollTable<'_>>) -> PollEvents {
        let mut events = PollEvents::empty();
        if self.stream.reads() {
            events |= t.kernel.host.console.poll_in(table.as_deref_mut());
        }
        if self.stream.writes() {
            events |= t.kernel.host.console.poll_out(self.stream.output(), table);
        }
        events
    }

    fn ioctl(&self, t: &Thread, _file: &File, request: u32, arg: u64) -> SysResult {
        match &self.stream.terminal {
            Some(terminal) => terminal.ioctl(t, request, arg),
            None => Err(Errno::ENOTTY),
        }
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// A stream's inode; opening `/dev/stdout` leads here.
#[derive(Debug)]
struct StreamInode {
    anon: AnonInode,
    stream: Arc<Stream>,
}

impl Inode for StreamInode {
    fn attributes(&self) -> Attributes {
        self.anon.attributes()
    }

    fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        // Resizing a regular file of the host from here is not possible; opening one with O_TRUNC must work.
        let change = SetAttributes {
            size: None,
            ..*change
        };
        self.anon.set_attributes(&change)
    }

    fn open(self: Arc<Self>, _thread: &Thread, flags: u32) -> Result<Arc<dyn FileOps>> {
        match self.stream.kind {
            // A socket cannot be opened by name.
            StreamKind::Socket => Err(Errno::ENXIO),
            StreamKind::Null => Ok(Arc::new(MemoryDevice::Null)),
            _ if self.stream.terminal.is_none() => {
                let writes = flags & general::O_ACCMODE != general::O_RDONLY;
                let fits = if writes {
                    self.stream.writes()
                } else {
                    self.stream.reads()
                };
                if !fits {
                    return Err(Errno::EACCES);
                }
                Ok(Arc::new(StreamFile {
                    stream: self.stream.clone(),
                }))
            }
            _ => Ok(Arc::new(StreamFile {
                stream: self.stream.clone(),
            })),
        }
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// How a stream of `kind` looks: file kind, permission bits, device number, name in `/proc/*/fd`.
fn appearance(kind: StreamKind) -> (FileKind, u32, u64, &'static str) {
    match kind {
        StreamKind::Closed | StreamKind::Pipe => (FileKind::Fifo, 0o600, 0, "pipe"),
        StreamKind::File => (FileKind::Regular, 0o644, 0, "/dev/file"),
        StreamKind::Socket => (FileKind::Socket, 0o777, 0, "socket"),
        StreamKind::Terminal => {
            let rdev = devfs::makedev(136, 0);
            (FileKind::CharDevice, 0o620, rdev, "/dev/console")
        }
        StreamKind::Null => (
            FileKind::CharDevice,
            0o666,
            devfs::makedev(1, 3),
            "/dev/null",
        ),
        StreamKind::CharDevice => (
            FileKind::CharDevice,
            0o600,
            devfs::makedev(5, 1),
            "/dev/console",
        ),
    }
}

fn open_stream(
    number: u32,
    kind: StreamKind,
    owner: (u32, u32),
    terminal: Option<Arc<Terminal>>,
) -> FileRef {
    let (file_kind, mode, rdev, name) = appearance(kind);
    let is_terminal = terminal.is_some();
    let stream = Arc::new(Stream {
        number,
        kind,
        terminal,
    });
    let anon = AnonInode::owned_by(owner.0, owner.1, file_kind, mode);
    anon.edit(|attributes| attributes.rdev = rdev);
    let path = if name.starts_with('/') {
        name.as_bytes().to_vec()
    } else {
        anon.link_name(name)
    };
    let ops: Arc<dyn FileOps> = if kind == StreamKind::Null {
        Arc::new(MemoryDevice::Null)
    } else {
        Arc::new(StreamFile {
            stream: stream.clone(),
        })
    };
    let access = if is_terminal || kind == StreamKind::Socket {
        general::O_RDWR
    } else if number == INPUT {
        general::O_RDONLY
    } else {
        general::O_WRONLY
    };
    File::new(ops, Arc::new(StreamInode { anon, stream }), path, access)
}

/// The first process's descriptors 0, 1 and 2; `None` for one that is closed on the host.
#[must_use]
pub fn open_streams(kernel: &Kernel) -> [Option<FileRef>; STREAMS] {
    let config = &kernel.config;
    let terminal: Vec<_> = config
        .streams
        .iter()
        .filter(|kind| **kind == StreamKind::Terminal)
        .take(1)
        .map(|_| Arc::new(Terminal::new()))
        .collect();
    let mut number = 0..;
    config.streams.map(|kind| {
        let number = number.next().unwrap_or(INPUT);
        if kind == StreamKind::Closed {
            return None;
        }
        let terminal = (kind == StreamKind::Terminal)
            .then(|| terminal.first().cloned())
            .flatten();
        Some(open_stream(
            number,
            kind,
            (config.uid, config.gid),
            terminal,
        ))
    })
}

/// Opens `/dev/console`: the container's terminal.
///
/// # Errors
/// `ENXIO` if it has none.
pub(super) fn open_console(t: &Thread, _flags: u32) -> Result<Arc<dyn FileOps>> {
    let kinds = &t.kernel.config.streams;
    let number = kinds.iter().position(|kind| *kind == StreamKind::Terminal);
    let number = number.ok_or(Errno::ENXIO)? as u32;
    Ok(Arc::new(StreamFile {
        stream: Arc::new(Stream {
            number,
            kind: StreamKind::Terminal,
            terminal: Some(Arc::new(Terminal::new())),
        }),
    }))
}

#[cfg(test)]
mod tests {
    use super::{appearance, open_stream};
    use crate::fs::FileKind;
    use husk_abi::boundary::config::StreamKind;

    #[test]
    fn streams_look_like_the_host_s() {
        let pipe = open_stream(0, StreamKind::Pipe, (5, 6), None);
        let attributes = pipe.inode.attributes();
        assert_eq!(attributes.kind, FileKind::Fifo);
        assert_eq!(
            (attributes.uid, attributes.gid, attributes.mode),
            (5, 6, 0o600)
        );
        assert!(pipe.is_readable() && !pipe.is_writable());
        assert_eq!(pipe.path, format!("pipe:[{}]", attributes.ino).into_bytes());
        let null = open_stream(1, StreamKind::Null, (0, 0), None);
        assert_eq!(null.inode.attributes().rdev, 0x103);
        assert_eq!(null.path, b"/dev/null");
        assert_eq!(appearance(StreamKind::Terminal).2, 0x8800);
    }
}
