//! A socket of the host, and waiting for it.

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::boundary::net::MAX_VALUE;
use husk_abi::linux::{ioctl, net};

use super::calls;
use super::stream::Stream;
use crate::fs::PollEvents;
use crate::net::{Base, Patience, Shutdown};
use crate::sync::WaitQueue;
use crate::{Errno, Kernel, Result, Thread};

/// What ends any wait.
pub(super) const ENDS: PollEvents = PollEvents::HUP.union(PollEvents::ERR);
/// Flags that change nothing about what is sent or received.
pub(super) const ABOUT_WAITING: u32 = net::MSG_DONTWAIT | net::MSG_NOSIGNAL | net::MSG_CMSG_CLOEXEC;
/// `SO_LINGER` for an end without delay: on, with no time.
const RESET: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];

/// A socket of the host; closed when it is dropped.
#[derive(Debug)]
pub struct HostSocket {
    pub(super) kernel: &'static Kernel,
    pub(super) number: u32,
    pub(super) stream: Arc<Stream>,
    /// Woken when something happened to it.
    pub(super) readers: Arc<WaitQueue>,
    pub(super) writers: Arc<WaitQueue>,
}

/// A connection that came in.
#[derive(Debug)]
pub struct Accepted {
    /// Its number, to be made a [`HostSocket`].
    number: u32,
    /// The peer's address.
    pub peer: Vec<u8>,
    /// Its own.
    pub own: Vec<u8>,
}

impl HostSocket {
    /// A new socket of the host for the socket that `base` is of.
    ///
    /// # Errors
    /// `ENETUNREACH` if nothing leads out of the guest; what `socket(2)` gives on the host.
    pub fn new(base: &Base) -> Result<Arc<Self>> {
        let kernel = base.kernel;
        if !kernel.net.host.is_available() {
            return Err(Errno::ENETUNREACH);
        }
        let protocol = base.protocol.cast_unsigned();
        let number = calls::socket(kernel, base.family, base.kind, protocol)?;
        Self::enter(base, number)
    }

    /// The accepted connection's, for the socket that `base` is of.
    ///
    /// # Errors
    /// None that a VMM of this version gives.
    pub fn of_accepted(base: &Base, accepted: &Accepted) -> Result<Arc<Self>> {
        Self::enter(base, accepted.number)
    }

    /// The socket number `index` of those that the process of `session` was handed, for the socket that `base` is of.
    ///
    /// # Errors
    /// `ENETUNREACH` if nothing leads out of the guest; `ENFILE`; `EBADF` if it was taken.
    pub fn taken(base: &Base, session: u32, index: u32) -> Result<Arc<Self>> {
        if !base.kernel.net.host.is_available() {
            return Err(Errno::ENETUNREACH);
        }
        Self::enter(base, calls::take(base.kernel, session, index)?)
    }

    fn enter(base: &Base, number: u32) -> Result<Arc<Self>> {
        let kernel = base.kernel;
        let state_gpa = kernel.net.host.state_gpa(number).ok_or(Errno::EIO)?;
        let socket = Arc::new(Self {
            kernel,
            number,
            stream: Stream::new(number, state_gpa, base.writers.clone()),
            readers: base.readers.clone(),
            writers: base.writers.clone(),
        });
        super::enter(kernel, number, &socket);
        // Whoever has asked for signals (`O_ASYNC`) is told from the first event on.
        let _ = socket.ready();
        Ok(socket)
    }

    /// Something happened to it.
    pub(super) fn wake(&self) {
        if self.stream.now().contains(PollEvents::OUT) {
            self.kernel.net.host.list_again(&self.stream);
        }
        self.readers.wake_all();
        self.writers.wake_all();
    }

    /// From now on bytes, or datagrams, may come by themselves and go later; or no longer. Only for a stream that is connected, or
    /// about to be, and for datagrams, without options that are against it.
    pub fn set_buffered(&self, is_buffered: bool) {
        if !is_buffered {
            self.flush();
        }
        self.stream.set_buffered(is_buffered);
    }

    /// What is ready now.
    pub(super) fn now(&self) -> PollEvents {
        self.with_stream(self.stream.now())
    }

    /// `events` of the host's end, with what is on this side.
    fn with_stream(&self, mut events: PollEvents) -> PollEvents {
        events.set(
            PollEvents::IN,
            events.contains(PollEvents::IN)
                || self.stream.received() > 0
                || self.stream.datagrams.has_arrived(),
        );
        events.set(
            PollEvents::ERR,
            events.contains(PollEvents::ERR) || self.stream.has_error(),
        );
        events.set(PollEvents::RDNORM, events.contains(PollEvents::IN));
        events.set(PollEvents::WRNORM, events.contains(PollEvents::OUT));
        events
    }

    /// What is ready now. What happens from now on wakes the queues of the socket it was made for.
    #[must_use]
    pub fn ready(&self) -> PollEvents {
        self.with_stream(self.stream.look_for_any())
    }

    /// Has the host send what it was not given yet. What it has no room for it gets when there is some, which is waited for.
    pub(super) fn flush(&self) {
        while self.stream.has_unsent() {
            self.kernel.net.host.list_again(&self.stream);
            self.kernel.net.host.flush(self.kernel);
            self.kernel.host.files.settle(|| self.stream.is_settled());
            if self.stream.has_unsent() {
                let events = PollEvents::OUT | ENDS;
                self.writers
                    .wait_uninterruptible(|| self.ready().intersects(events).then_some(()));
            }
        }
    }

    /// Makes `attempt` when one of `events` is ready, until it is not `EAGAIN`; sleeps on `queue` between.
    ///
    /// # Errors
    /// `attempt`'s, or as [`Patience::wait`].
    pub fn wait<T>(
        &self,
        t: &Thread,
        patience: Patience,
        queue: &WaitQueue,
        events: PollEvents,
        mut attempt: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        patience.wait(t, queue, || {
            // An event is asked for only by who is about to sleep: each costs an interrupt.
            if !self.now().intersects(events) && !self.ready().intersects(events | ENDS) {
                return None;
            }
            match attempt() {
                Err(Errno::EAGAIN) if self.ready().intersects(events) => match attempt() {
                    Err(Errno::EAGAIN) => None,
                    result => Some(result),
                },
                Err(Errno::EAGAIN) => None,
                result => Some(result),
            }
        })?
    }

    /// `bind(2)`: the address it has then.
    ///
    /// # Errors
    /// As the system call; so for all that follow.
    pub fn bind(&self, address: &[u8]) -> Result<Vec<u8>> {
        calls::bind(self.kernel, self.number, address)
    }

    /// `connect(2)`, which never waits.
    ///
    /// # Errors
    /// As `connect(2)` of a nonblocking socket.
    pub fn connect(&self, address: &[u8]) -> Result<()> {
        self.flush();
        self.stream.datagrams.forget_reached();
        calls::connect(self.kernel, self.number, address)
    }

    /// `listen(2)`.
    ///
    /// # Errors
    /// As `listen(2)`.
    pub fn listen(&self, backlog: u32) -> Result<()> {
        calls::listen(self.kernel, self.number, backlog)
    }

    /// `accept(2)`.
    ///
    /// # Errors
    /// As `accept(2)` of a nonblocking socket.
    pub fn accept(&self) -> Result<Accepted> {
        let (number, peer, own) = calls::accept(self.kernel, self.number)?;
        Ok(Accepted { number, peer, own })
    }

    /// Its own address, or the peer's.
    ///
    /// # Errors
    /// As `getsockname(2)` and `getpeername(2)`.
    pub fn name(&self, of_peer: bool) -> Result<Vec<u8>> {
        calls::name(self.kernel, self.number, of_peer)
    }

    /// `setsockopt(2)`.
    ///
    /// # Errors
    /// As the system call; `ENOPROTOOPT` for what the VMM does not allow.
    pub fn set_option(&self, option: (u32, u32), value: &[u8]) -> Result<()> {
        self.flush();
        self.stream.datagrams.forget_reached();
        let value = &value[..value.len().min(MAX_VALUE)];
        calls::set_option(self.kernel, self.number, option, value)
    }

    /// `getsockopt(2)`.
    ///
    /// # Errors
    /// As [`HostSocket::set_option`].
    pub fn option(&self, option: (u32, u32), room: usize) -> Result<Vec<u8>> {
        self.flush();
        calls::option(self.kernel, self.number, option, room.min(MAX_VALUE))
    }

    /// Takes the pending error.
    #[must_use]
    pub fn take_error(&self) -> Option<Errno> {
        if let Some(errno) = self.stream.take_error() {
            return Some(errno);
        }
        if !self.ready().contains(PollEvents::ERR) {
            return None;
        }
        let value = self.option((net::SOL_SOCKET, net::SO_ERROR), 4).ok()?;
        match value.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
            None | Some(0) => None,
            Some(code) => Some(Errno::from_code(code)),
        }
    }

    /// `shutdown(2)`.
    ///
    /// # Errors
    /// As `shutdown(2)`.
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.set_buffered(false);
        let how = match how {
            Shutdown::Read => 0,
            Shutdown::Write => 1,
            Shutdown::Both => 2,
        };
        calls::shutdown(self.kernel, self.number, how)
    }

    /// An `ioctl(2)` whose argument is an `int`.
    ///
    /// # Errors
    /// As `ioctl(2)`; `ENOTTY` for what the VMM does not allow.
    pub fn ioctl_int(&self, request: u32) -> Result<i32> {
        self.flush();
        // Bytes that the answer counts stay there meanwhile.
        let _receiving = self.stream.receiving();
        let is_next = |_: &usize| request == ioctl::FIONREAD;
        let next = || self.stream.datagrams.next_bytes().filter(is_next);
        if let Some(bytes) = next() {
            return Ok(bytes as i32);
        }
        let bytes = calls::ioctl(self.kernel, self.number, request, &[0; 4])?;
        // Datagrams that came before the answer are read before those it counts.
        if let Some(bytes) = next() {
            return Ok(bytes as i32);
        }
        let value = i32::from_ne_bytes(*bytes.first_chunk().ok_or(Errno::EIO)?);
        let here = self.stream.received() as i32;
        Ok(match request {
            ioctl::FIONREAD => value.saturating_add(here),
            ioctl::SIOCATMARK if here > 0 => 0,
            _ => value,
        })
    }
}

impl Drop for HostSocket {
    fn drop(&mut self) {
        self.flush();
        if self.stream.received() > 0 {
            // As where bytes are left unread in the kernel, the peer learns that nobody will read them.
            let _ = self.set_option((net::SOL_SOCKET, net::SO_LINGER), &RESET);
        }
        // The VMM gives the number out again only after it has closed the socket.
        self.kernel.net.host.open.lock().remove(&self.number);
        // A socket that is gone already needs no closing.
        let _ = calls::close(self.kernel, self.number);
    }
}
