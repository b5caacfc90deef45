//! Standard streams of processes that are started from outside.
//!
//! Bytes go to and come from the host through the `host` room; what kind of file each stream is there decides
//! what `fstat(2)` and `isatty(3)` say of it here.

use alloc::sync::Arc;

use husk_abi::boundary::config::{ProcessConfig, StreamKind};
use husk_abi::boundary::control::Report;
use husk_abi::boundary::stdio::STREAMS;
use husk_abi::linux::general::{self, SIGTTIN, SIGTTOU};

use super::anon::AnonInode;
use super::devfs::{self, MemoryDevice};
use super::poll::PollTable;
use super::{Attributes, File, FileKind, FileOps, FileRef, Inode, PollEvents, SetAttributes};
use crate::host::Console;
use crate::tty::{job, pty};
use crate::user::IoBuf;
use crate::{Errno, Kernel, Result, SysResult, Thread};

/// Number of standard input.
const INPUT: u32 = 0;

/// A session's streams, as long as anybody has one of them open.
#[derive(Debug)]
pub struct StreamSet {
    kernel: &'static Kernel,
    console: Arc<Console>,
}

impl Drop for StreamSet {
    fn drop(&mut self) {
        // Init's stay.
        if self.console.session != 0 {
            let closed = Report::Closed(self.console.session);
            self.kernel.host.control.report(&closed);
        }
    }
}

/// A stream: what all its openings share.
#[derive(Debug)]
struct Stream {
    set: Arc<StreamSet>,
    number: u32,
    kind: StreamKind,
}

impl Stream {
    /// The stream that reads or writes of this opening concern. All streams of a terminal are one device.
    fn output(&self) -> u32 {
        self.number.max(1)
    }

    fn console(&self) -> &Console {
        &self.set.console
    }

    fn is_terminal(&self) -> bool {
        self.kind == StreamKind::Terminal
    }

    fn reads(&self) -> bool {
        self.number == INPUT || self.is_terminal()
    }

    fn writes(&self) -> bool {
        self.number != INPUT || self.is_terminal()
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
        if self.stream.is_terminal() {
            job::check_foreground(t, &*self.stream.set.console, SIGTTIN)?;
        }
        self.stream.console().read(t, buf, file.is_nonblocking())
    }

    fn write(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        if !self.stream.writes() {
            return Err(Errno::EBADF);
        }
        if buf.remaining() == 0 {
            return Ok(0);
        }
        let stream = self.stream.output();
        if self.stream.is_terminal() && self.stream.console().terminal.stops_background_output() {
            job::check_foreground(t, &*self.stream.set.console, SIGTTOU)?;
        }
        let result = self
            .stream
            .console()
            .write(t, stream, buf, file.is_nonblocking());
        if result == Err(Errno::EPIPE) {
            crate::signal::raise_sigpipe(t);
        }
        result
    }

    fn poll(&self, _t: &Thread, _file: &File, mut table: Option<&mut PollTable<'_>>) -> PollEvents {
        let mut events = PollEvents::empty();
        if self.stream.reads() {
            events |= self.stream.console().poll_in(table.as_deref_mut());
        }
        if self.stream.writes() {
            events |= self.stream.console().poll_out(self.stream.output(), table);
        }
        events
    }

    fn ioctl(&self, t: &Thread, _file: &File, request: u32, arg: u64) -> SysResult {
        if !self.stream.is_terminal() {
            return Err(Errno::ENOTTY);
        }
        let console = &self.stream.set.console;
        let stream = self.stream.output();
        console.terminal.ioctl(t, console, stream, request, arg)
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// A stream's inode; opening `/dev/stdout` leads here.
#[derive(Debug)]
struct StreamInode {
    anon: Arc<AnonInode>,
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
            _ if !self.stream.is_terminal() => {
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

/// How a stream of `kind` looks: file kind, permission bits, device number, name in `/proc/*/fd`. Terminals look as
/// [`terminal_device`] says.
fn appearance(kind: StreamKind) -> (FileKind, u32, u64, &'static str) {
    match kind {
        StreamKind::Closed | StreamKind::Pipe => (FileKind::Fifo, 0o600, 0, "pipe"),
        StreamKind::File => (FileKind::Regular, 0o644, 0, "/dev/file"),
        StreamKind::Socket => (FileKind::Socket, 0o777, 0, "socket"),
        StreamKind::Terminal => (FileKind::CharDevice, 0o620, 0, "/dev/pts/"),
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

fn open_stream(set: &Arc<StreamSet>, number: u32, kind: StreamKind, owner: (u32, u32)) -> FileRef {
    let (file_kind, mode, rdev, name) = appearance(kind);
    let stream = Arc::new(Stream {
        set: set.clone(),
        number,
        kind,
    });
    let anon = if kind == StreamKind::Terminal {
        terminal_device(set, owner)
    } else {
        let anon = AnonInode::owned_by(owner.0, owner.1, file_kind, mode);
        anon.edit(|attributes| attributes.rdev = rdev);
        Arc::new(anon)
    };
    let path = match set.console.terminal.number() {
        Some(number) if kind == StreamKind::Terminal => {
            alloc::format!("{name}{number}").into_bytes()
        }
        _ if name.starts_with('/') => name.as_bytes().to_vec(),
        _ => anon.link_name(name),
    };
    let ops: Arc<dyn FileOps> = if kind == StreamKind::Null {
        Arc::new(MemoryDevice::Null)
    } else {
        Arc::new(StreamFile {
            stream: stream.clone(),
        })
    };
    let access = if stream.is_terminal() || kind == StreamKind::Socket {
        general::O_RDWR
    } else if number == INPUT {
        general::O_RDONLY
    } else {
        general::O_WRONLY
    };
    File::new(ops, Arc::new(StreamInode { anon, stream }), path, access)
}

/// Descriptors 0, 1 and 2 of a process started from outside, as session `console.session`; `None` for one that is
/// closed on the host.
#[must_use]
pub fn open_streams(
    kernel: &'static Kernel,
    console: &Arc<Console>,
    config: &ProcessConfig,
) -> [Option<FileRef>; STREAMS] {
    let set = Arc::new(StreamSet {
        kernel,
        console: console.clone(),
    });
    kernel.host.remember_streams(console.session, &set);
    let mut number = 0..;
    config.streams.map(|kind| {
        let number = number.next().unwrap_or(INPUT);
        (kind != StreamKind::Closed)
            .then(|| open_stream(&set, number, kind, (config.uid, config.gid)))
    })
}

/// The device of a session's terminal, of that user and group if it is new.
fn terminal_device(set: &StreamSet, owner: (u32, u32)) -> Arc<AnonInode> {
    let terminal = &set.console.terminal;
    let number = terminal.number().unwrap_or(0);
    terminal.device(|| {
        let (kind, mode, ..) = appearance(StreamKind::Terminal);
        let anon = AnonInode::owned_by(owner.0, owner.1, kind, mode);
        anon.edit(|attributes| {
            attributes.rdev = terminal_number(number);
            if let Some(place) = set.kernel.host.terminal_place() {
                place.fill(attributes, number);
            }
        });
        Arc::new(anon)
    })
}

fn terminal_stream(set: Arc<StreamSet>) -> Arc<Stream> {
    Arc::new(Stream {
        set,
        number: INPUT,
        kind: StreamKind::Terminal,
    })
}

/// What devpts shows for a session's terminal.
pub(super) fn terminal(set: Arc<StreamSet>) -> Arc<dyn Inode> {
    Arc::new(StreamInode {
        anon: terminal_device(&set, (0, 0)),
        stream: terminal_stream(set),
    })
}

fn open_terminal(set: Arc<StreamSet>) -> Arc<dyn FileOps> {
    Arc::new(StreamFile {
        stream: terminal_stream(set),
    })
}

/// Opens `/dev/console`: the container's terminal.
///
/// # Errors
/// `ENXIO` if it has none.
pub(super) fn open_console(t: &Thread) -> Result<Arc<dyn FileOps>> {
    if !t
        .kernel
        .config
        .process
        .streams
        .contains(&StreamKind::Terminal)
    {
        return Err(Errno::ENXIO);
    }
    let set = t.kernel.host.streams(|console| console.session == 0);
    set.map(open_terminal).ok_or(Errno::ENXIO)
}

/// Opens `/dev/tty`: the terminal of the caller's session.
///
/// # Errors
/// `ENXIO` if it has none.
pub(super) fn open_controlling(t: &Thread) -> Result<Arc<dyn FileOps>> {
    let tty = t.process.controlling.get().ok_or(Errno::ENXIO)?;
    tty.open(t)
}

/// Opens the terminal of session `session` at the host.
///
/// # Errors
/// `EIO` if nobody has it open any more.
pub(super) fn open_session(kernel: &'static Kernel, session: u32) -> Result<Arc<dyn FileOps>> {
    let set = kernel.host.streams(|console| console.session == session);
    set.map(open_terminal).ok_or(Errno::EIO)
}

/// The device number of terminal `number`.
pub(super) fn terminal_number(number: u32) -> u64 {
    devfs::makedev(pty::MAJOR, number.into())
}

#[cfg(test)]
mod tests {
    use super::{StreamSet, open_stream};
    use crate::fs::FileKind;
    use alloc::sync::Arc;
    use husk_abi::boundary::config::StreamKind;

    #[test]
    fn streams_look_like_the_host_s() {
        let kernel = crate::process::testing::test_thread().kernel;
        let set = Arc::new(StreamSet {
            kernel,
            console: kernel.host.console.clone(),
        });
        let pipe = open_stream(&set, 0, StreamKind::Pipe, (5, 6));
        let attributes = pipe.inode.attributes();
        assert_eq!(attributes.kind, FileKind::Fifo);
        assert_eq!(
            (attributes.uid, attributes.gid, attributes.mode),
            (5, 6, 0o600)
        );
        assert!(pipe.is_readable() && !pipe.is_writable());
        assert_eq!(pipe.path, format!("pipe:[{}]", attributes.ino).into_bytes());
        let null = open_stream(&set, 1, StreamKind::Null, (0, 0));
        assert_eq!(null.inode.attributes().rdev, 0x103);
        assert_eq!(null.path, b"/dev/null");
        set.console.terminal.set_number(3);
        let terminal = open_stream(&set, 1, StreamKind::Terminal, (5, 6));
        assert_eq!(terminal.path, b"/dev/pts/3");
        assert_eq!(terminal.inode.attributes().rdev, 0x8803);
        let same = super::terminal(set.clone()).attributes();
        assert_eq!(same, terminal.inode.attributes());
    }
}
