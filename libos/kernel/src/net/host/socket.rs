//! A socket of the host, and waiting for it.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::offset_of;

use husk_abi::boundary::net::{MAX_VALUE, SocketState};
use husk_abi::linux::net;
use husk_hal::phys;

use super::{calls, place};
use crate::fs::PollEvents;
use crate::net::{Base, Incoming, Outgoing, Patience, Shutdown};
use crate::sync::WaitQueue;
use crate::user::IoBuf;
use crate::{Errno, Kernel, Result, SysResult, Thread, signal};

pub use calls::Received;

/// What ends any wait.
const ENDS: PollEvents = PollEvents::HUP.union(PollEvents::ERR);

/// A socket of the host; closed when it is dropped.
#[derive(Debug)]
pub struct HostSocket {
    kernel: &'static Kernel,
    number: u32,
    state_gpa: u64,
    /// Woken when something happened to it.
    readers: Arc<WaitQueue>,
    writers: Arc<WaitQueue>,
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
            state_gpa,
            readers: base.readers.clone(),
            writers: base.writers.clone(),
        });
        super::enter(kernel, number, &socket);
        // Whoever has asked for signals (`O_ASYNC`) is told from the first event on.
        let _ = socket.ready();
        Ok(socket)
    }

    pub(super) fn wake(&self) {
        self.readers.wake_all();
        self.writers.wake_all();
    }

    /// What is ready now.
    fn now(&self) -> PollEvents {
        let (frame, ready) = place(self.state_gpa + offset_of!(SocketState, ready) as u64);
        let mut events = PollEvents::from_bits_truncate(phys::load_u32(frame, ready));
        events.set(PollEvents::RDNORM, events.contains(PollEvents::IN));
        events.set(PollEvents::WRNORM, events.contains(PollEvents::OUT));
        events
    }

    /// What is ready now. What happens from now on wakes the queues of the socket it was made for.
    #[must_use]
    pub fn ready(&self) -> PollEvents {
        let (frame, wanted) = place(self.state_gpa + offset_of!(SocketState, wanted) as u64);
        phys::swap_u32(frame, wanted, 1);
        self.now()
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
        let value = &value[..value.len().min(MAX_VALUE)];
        calls::set_option(self.kernel, self.number, option, value)
    }

    /// `getsockopt(2)`.
    ///
    /// # Errors
    /// As [`HostSocket::set_option`].
    pub fn option(&self, option: (u32, u32), room: usize) -> Result<Vec<u8>> {
        calls::option(self.kernel, self.number, option, room.min(MAX_VALUE))
    }

    /// Takes the pending error.
    #[must_use]
    pub fn take_error(&self) -> Option<Errno> {
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
        let bytes = calls::ioctl(self.kernel, self.number, request, &[0; 4])?;
        let value = bytes.first_chunk().ok_or(Errno::EIO)?;
        Ok(i32::from_ne_bytes(*value))
    }

    /// Sends a message once, or as much of it as a stream takes.
    fn send_once(&self, message: &mut Outgoing<'_, '_>) -> Result<usize> {
        let sending = calls::Sending {
            flags: message.flags,
            address: message.destination().unwrap_or_default(),
            control: &message.control.other,
        };
        let len = message.buf.remaining();
        calls::send(self.kernel, self.number, &sending, message.buf, len)
    }

    /// Sends one message, waiting for room.
    ///
    /// # Errors
    /// As `send(2)`; `EMSGSIZE` for more than a datagram holds. Raises no signal.
    pub fn send_message(
        &self,
        t: &Thread,
        patience: Patience,
        message: &mut Outgoing<'_, '_>,
    ) -> SysResult {
        const MAX_DATAGRAM: usize = 65535;
        if message.buf.remaining() > MAX_DATAGRAM {
            return Err(Errno::EMSGSIZE);
        }
        self.wait(t, patience, &self.writers, PollEvents::OUT, || {
            self.send_once(message)
        })
    }

    /// Sends all bytes, waiting for room; fewer if that ends, or a signal comes, in the middle.
    ///
    /// # Errors
    /// As `send(2)`, if nothing was sent. Raises `SIGPIPE` itself.
    pub fn send_bytes(
        &self,
        t: &Thread,
        patience: Patience,
        message: &mut Outgoing<'_, '_>,
    ) -> SysResult {
        let mut sent = 0;
        loop {
            let step = self.wait(t, patience, &self.writers, PollEvents::OUT, || {
                self.send_once(message)
            });
            match step {
                Ok(step) => sent += step,
                Err(_) if sent > 0 => return Ok(sent),
                Err(Errno::EPIPE) => {
                    if message.flags & net::MSG_NOSIGNAL == 0 {
                        signal::raise_sigpipe(t);
                    }
                    return Err(Errno::EPIPE);
                }
                Err(errno) => return Err(errno),
            }
            if message.buf.remaining() == 0 {
                return Ok(sent);
            }
        }
    }

    /// What has to be ready to receive with `flags`.
    fn awaited(flags: u32) -> PollEvents {
        if flags & net::MSG_OOB != 0 {
            PollEvents::PRI
        } else {
            PollEvents::IN
        }
    }

    /// Receives up to `wanted` bytes.
    ///
    /// # Errors
    /// `EAGAIN`; as `recvmsg(2)`.
    pub fn receive_once(&self, flags: u32, buf: &mut IoBuf<'_>, wanted: usize) -> Result<Received> {
        calls::receive(self.kernel, self.number, flags, buf, wanted)
    }

    /// Receives one message into `message`.
    ///
    /// # Errors
    /// As `recvmsg(2)`.
    pub fn receive_message(&self, message: &mut Incoming<'_, '_>) -> SysResult {
        let wanted = message.buf.remaining();
        let received = self.receive_once(message.flags, message.buf, wanted)?;
        message.result_flags |= received.flags;
        message.address = received.address;
        message.control.extend(received.control);
        Ok(if message.flags & net::MSG_TRUNC != 0 {
            received.bytes
        } else {
            received.put
        })
    }

    /// Receives bytes until there are `target`, the end comes, or, with some there, patience ends.
    ///
    /// # Errors
    /// As `recv(2)`, if nothing was received.
    pub fn receive_bytes(
        &self,
        t: &Thread,
        patience: Patience,
        target: usize,
        message: &mut Incoming<'_, '_>,
    ) -> SysResult {
        let awaited = Self::awaited(message.flags);
        // What the host would wait for is waited for here.
        let flags = message.flags & !net::MSG_WAITALL;
        let mut done = 0;
        loop {
            let wanted = message.buf.remaining();
            let buf = &mut *message.buf;
            let step = self.wait(t, patience, &self.readers, awaited, || {
                self.receive_once(flags, buf, wanted)
            });
            match step {
                Ok(received) => {
                    message.result_flags |= received.flags;
                    message.control.extend(received.control);
                    // Bytes that were thrown away (`MSG_TRUNC`) count, too.
                    message.buf.skip(received.bytes - received.put);
                    done += received.bytes;
                    let is_end = received.bytes == 0;
                    if is_end || done >= target || message.is_peek() || message.buf.remaining() == 0
                    {
                        return Ok(done);
                    }
                }
                Err(_) if done > 0 => return Ok(done),
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl Drop for HostSocket {
    fn drop(&mut self) {
        // The VMM gives the number out again only after it has closed the socket.
        self.kernel.net.host.open.lock().remove(&self.number);
        // A socket that is gone already needs no closing.
        let _ = calls::close(self.kernel, self.number);
    }
}
