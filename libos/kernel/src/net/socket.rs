//! What a socket is: the trait its family implements, and the open file over it.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use husk_abi::linux::{general, ioctl, net};
use spin::Once;

use super::host::Outside;
use super::message::{Incoming, Outgoing};
use super::options::Options;
use crate::fs::anon::AnonInode;
use crate::fs::poll::PollTable;
use crate::fs::sigio::{self, Band};
use crate::fs::{Attributes, File, FileKind, FileOps, FileRef, Inode, PollEvents, SetAttributes};
use crate::sync::{Interruptible, SpinLock, WaitError, WaitQueue};
use crate::user::{IoBuf, UserAddr};
use crate::{Errno, Kernel, Result, SysResult, Thread};

/// Device number of sockets (`st_dev`), as Linux's sockfs has.
const SOCKET_DEV: u64 = 8;

/// Which halves `shutdown(2)` closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// `SHUT_RD`.
    Read,
    /// `SHUT_WR`.
    Write,
    /// `SHUT_RDWR`.
    Both,
}

impl Shutdown {
    /// Whether it closes the receiving half.
    #[must_use]
    pub fn reads(self) -> bool {
        self != Shutdown::Write
    }

    /// Whether it closes the sending half.
    #[must_use]
    pub fn writes(self) -> bool {
        self != Shutdown::Read
    }
}

/// How long a call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all.
    Never,
    /// Until this time, ns of `CLOCK_MONOTONIC` (`SO_RCVTIMEO`, `SO_SNDTIMEO`).
    Until(u64),
    /// For ever.
    Forever,
}

impl Patience {
    /// Of a call that is nonblocking or has a timeout in nanoseconds (0: it must not wait either).
    #[must_use]
    pub fn new(nonblocking: bool, timeout_ns: Option<u64>) -> Self {
        match timeout_ns {
            _ if nonblocking => Patience::Never,
            None => Patience::Forever,
            Some(0) => Patience::Never,
            Some(ns) => Patience::Until(husk_hal::clock::now_ns().saturating_add(ns)),
        }
    }

    /// Sleeps on `queue` until `condition` gives a value.
    ///
    /// # Errors
    /// `EAGAIN` when patience ends; for a signal `ERESTARTSYS`, or `EINTR` if there is a timeout, which a
    /// restart would begin anew.
    pub fn wait<T>(
        self,
        t: &Thread,
        queue: &WaitQueue,
        mut condition: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let deadline = match self {
            Patience::Never => return condition().ok_or(Errno::EAGAIN),
            Patience::Until(deadline) => Some(deadline),
            Patience::Forever => None,
        };
        queue
            .wait(t, Interruptible::Yes, deadline, condition)
            .map_err(|error| match error {
                WaitError::TimedOut => Errno::EAGAIN,
                WaitError::Interrupted if deadline.is_some() => Errno::EINTR,
                WaitError::Interrupted => Errno::ERESTARTSYS,
            })
    }
}

/// What every socket has.
#[derive(Debug)]
pub struct Base {
    /// The kernel it lives in.
    pub kernel: &'static Kernel,
    /// `AF_*`.
    pub family: u32,
    /// `SOCK_*`.
    pub kind: u32,
    /// As `SO_PROTOCOL` shows it.
    pub protocol: i32,
    /// Threads and pollers that wait for something to receive, and for the end.
    pub readers: Arc<WaitQueue>,
    /// Threads and pollers that wait for room to send, and for the end.
    pub writers: Arc<WaitQueue>,
    options: SpinLock<Options>,
    /// Somebody was told that there is no room to send, and nobody that there is again (`SOCKWQ_ASYNC_NOSPACE`).
    lacks_room: AtomicBool,
    /// The pending error's number, 0 for none (`SO_ERROR`).
    error: AtomicI32,
    /// Of a socket that a program has; a connection in a listener's queue has none.
    inode: Once<Arc<SocketInode>>,
}

impl Base {
    /// A new socket's.
    #[must_use]
    pub fn new(kernel: &'static Kernel, family: u32, kind: u32, protocol: i32) -> Self {
        Self {
            kernel,
            family,
            kind,
            protocol,
            readers: Arc::new(WaitQueue::new()),
            writers: Arc::new(WaitQueue::new()),
            options: SpinLock::new(Options::default()),
            lacks_room: AtomicBool::new(false),
            error: AtomicI32::new(0),
            inode: Once::new(),
        }
    }

    /// Its options.
    #[must_use]
    pub fn options(&self) -> Options {
        *self.options.lock()
    }

    /// Changes its options.
    pub fn edit_options(&self, edit: impl FnOnce(&mut Options)) {
        edit(&mut self.options.lock());
    }

    /// Takes the pending error.
    #[must_use]
    pub fn take_error(&self) -> Option<Errno> {
        if self.error.load(Ordering::Acquire) == 0 {
            return None;
        }
        match self.error.swap(0, Ordering::AcqRel) {
            0 => None,
            code => Some(Errno::from_code(code)),
        }
    }

    /// Leaves an error for the next call.
    pub fn set_error(&self, error: Errno) {
        self.error.store(error.code(), Ordering::Release);
    }

    /// Whether an error is pending.
    #[must_use]
    pub fn has_error(&self) -> bool {
        self.error.load(Ordering::Acquire) != 0
    }

    /// Wakes everybody: the state changed.
    pub fn wake_all(&self) {
        self.readers.wake_all();
        self.writers.wake_all();
    }

    /// It can be sent to now that it is connected.
    pub fn connected(&self) {
        self.note_no_room();
        self.writers.wake_all();
        self.lacks_room.store(false, Ordering::Relaxed);
    }

    /// Somebody finds no room to send: its coming is worth a signal (`O_ASYNC`).
    pub fn note_no_room(&self) {
        self.lacks_room.store(true, Ordering::Relaxed);
    }

    /// How long a receiving call waits.
    #[must_use]
    pub fn receive_patience(&self, nonblocking: bool) -> Patience {
        Patience::new(nonblocking, self.options.lock().receive_timeout_ns)
    }

    /// How long a sending or connecting call waits.
    #[must_use]
    pub fn send_patience(&self, nonblocking: bool) -> Patience {
        Patience::new(nonblocking, self.options.lock().send_timeout_ns)
    }

    /// The inode, of a socket that a program has.
    #[must_use]
    pub fn inode(&self) -> Option<&Arc<SocketInode>> {
        self.inode.get()
    }

    /// Inode number; 0 without an inode.
    #[must_use]
    pub fn ino(&self) -> u64 {
        self.inode().map_or(0, |inode| inode.anon.ino())
    }
}

/// A socket of some family. Calls that the family does not have are `EOPNOTSUPP`.
pub trait Socket: Send + Sync + core::fmt::Debug {
    /// What every socket has.
    fn base(&self) -> &Base;

    /// `bind(2)`.
    ///
    /// # Errors
    /// As the family's manual page says; so for all methods.
    fn bind(&self, t: &Thread, address: &[u8]) -> Result<()>;

    /// `connect(2)`.
    ///
    /// # Errors
    /// As `connect(2)`.
    fn connect(&self, t: &Thread, address: &[u8], nonblocking: bool) -> Result<()>;

    /// `listen(2)`; the backlog is already cut to [`super::SOMAXCONN`].
    ///
    /// # Errors
    /// As `listen(2)`.
    fn listen(&self, _t: &Thread, _backlog: u32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// `accept(2)`: the next connection.
    ///
    /// # Errors
    /// As `accept(2)`.
    fn accept(&self, _t: &Thread, _nonblocking: bool) -> Result<Arc<dyn Socket>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// The socket's address.
    ///
    /// # Errors
    /// As `getsockname(2)`.
    fn name(&self) -> Result<Vec<u8>>;

    /// The peer's address.
    ///
    /// # Errors
    /// As `getpeername(2)`.
    fn peer_name(&self) -> Result<Vec<u8>>;

    /// Sends; returns the bytes taken.
    ///
    /// # Errors
    /// As `send(2)`. Raises `SIGPIPE` itself.
    fn send(&self, t: &Thread, message: &mut Outgoing<'_, '_>) -> SysResult;

    /// Receives; returns what `recv(2)` returns.
    ///
    /// # Errors
    /// As `recv(2)`.
    fn receive(&self, t: &Thread, message: &mut Incoming<'_, '_>) -> SysResult;

    /// `shutdown(2)`.
    ///
    /// # Errors
    /// As `shutdown(2)`.
    fn shutdown(&self, how: Shutdown) -> Result<()>;

    /// Readiness now; with a table also registers at the queues.
    fn poll(&self, table: Option<&mut PollTable<'_>>) -> PollEvents;

    /// Sets an option; `SOL_SOCKET`'s general ones were dealt with before.
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    fn set_option(&self, _t: &Thread, _level: u32, _name: u32, _value: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// The value of an option; `SOL_SOCKET`'s general ones were dealt with before.
    ///
    /// # Errors
    /// As `getsockopt(2)`.
    fn option(&self, _t: &Thread, _level: u32, _name: u32, _room: usize) -> Result<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Whether it is listening (`SO_ACCEPTCONN`).
    fn is_listening(&self) -> bool {
        false
    }

    /// Whether messages carry descriptors and credentials.
    fn passes_rights(&self) -> bool {
        false
    }

    /// An option of `SOL_SOCKET` changed.
    fn options_changed(&self) {}

    /// The host's side, of a family that leads out.
    fn outside(&self) -> Option<&Outside> {
        None
    }

    /// `ioctl(2)`.
    ///
    /// # Errors
    /// `ENOTTY` for requests it does not know.
    fn ioctl(&self, _t: &Thread, _request: u32, _arg: u64) -> SysResult {
        Err(Errno::ENOTTY)
    }

    /// The last descriptor was closed.
    fn released(&self);

    /// A descriptor was closed, but others, or messages, still hold the socket.
    fn descriptor_closed(&self) {}

    /// For families that need their own type back.
    fn as_any(&self) -> &dyn core::any::Any;
}

/// The inode of an open socket.
#[derive(Debug)]
pub struct SocketInode {
    anon: AnonInode,
}

impl SocketInode {
    fn new(t: &Thread) -> Arc<Self> {
        let anon = AnonInode::new(t, FileKind::Socket, 0o777);
        anon.edit(|attributes| attributes.dev = SOCKET_DEV);
        Arc::new(Self { anon })
    }
}

impl Inode for SocketInode {
    fn attributes(&self) -> Attributes {
        self.anon.attributes()
    }

    fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        self.anon.set_attributes(change)
    }

    /// `/proc/self/fd/N` of a socket cannot be opened anew.
    fn open(self: Arc<Self>, _thread: &Thread, _flags: u32) -> Result<Arc<dyn FileOps>> {
        Err(Errno::ENXIO)
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// An open socket.
#[derive(Debug)]
pub struct SocketFile {
    /// The socket.
    pub socket: Arc<dyn Socket>,
}

impl SocketFile {
    /// The open file of `socket`; `flags` are the `O_*` flags besides its access.
    #[must_use]
    pub fn open(t: &Thread, socket: Arc<dyn Socket>, flags: u32) -> FileRef {
        let inode = socket
            .base()
            .inode
            .call_once(|| SocketInode::new(t))
            .clone();
        let path = inode.anon.link_name("socket");
        File::new(
            Arc::new(Self { socket }),
            inode,
            path,
            general::O_RDWR | flags,
        )
    }
}

/// The socket behind `file`.
///
/// # Errors
/// `ENOTSOCK`.
pub fn of_file(file: &File) -> Result<&Arc<dyn Socket>> {
    file.ops
        .as_any()
        .downcast_ref::<SocketFile>()
        .map(|file| &file.socket)
        .ok_or(Errno::ENOTSOCK)
}

/// `MSG_DONTWAIT` for a nonblocking file.
#[must_use]
pub fn file_flags(file: &File) -> u32 {
    if file.is_nonblocking() {
        net::MSG_DONTWAIT
    } else {
        0
    }
}

impl FileOps for SocketFile {
    fn read(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        if buf.remaining() == 0 {
            return Ok(0);
        }
        let mut message = Incoming::new(buf, file_flags(file));
        self.socket.receive(t, &mut message)
    }

    fn write(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        let mut message = Outgoing::new(buf, file_flags(file));
        self.socket.send(t, &mut message)
    }

    fn poll(&self, _t: &Thread, _file: &File, table: Option<&mut PollTable<'_>>) -> PollEvents {
        self.socket.poll(table)
    }

    fn async_queues(&self) -> Vec<(Arc<WaitQueue>, Band)> {
        let base = self.socket.base();
        alloc::vec![
            (base.readers.clone(), Band::In),
            (base.writers.clone(), Band::Out)
        ]
    }

    fn is_async_news(&self, band: Band) -> bool {
        if let Some(outside) = self.socket.outside() {
            outside.want_events();
        }
        let lacks_room = &self.socket.base().lacks_room;
        band == Band::In || lacks_room.swap(false, Ordering::Relaxed)
    }

    fn ioctl(&self, t: &Thread, file: &File, request: u32, arg: u64) -> SysResult {
        let at = UserAddr(arg);
        let owner = |command, number: i32| {
            sigio::fcntl(t, file, command, number as u64).unwrap_or(Err(Errno::EINVAL))
        };
        match request {
            ioctl::FIOSETOWN | ioctl::SIOCSPGRP => owner(general::F_SETOWN, at.read()?),
            ioctl::FIOGETOWN | ioctl::SIOCGPGRP => {
                at.write(&(owner(general::F_GETOWN, 0)? as i32))?;
                Ok(0)
            }
            _ => self.socket.ioctl(t, request, arg),
        }
    }

    fn released(&self) {
        self.socket.released();
    }

    fn descriptor_closed(&self) {
        self.socket.descriptor_closed();
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
