//! Receiving from a socket of the host: what is here already, and of streams more than is wanted at once.

use husk_abi::boundary::net::{MAX_SOCKET_DATA, wanted};
use husk_abi::linux::net;

use super::calls::{self, Received};
use super::datagrams::Arrived;
use super::socket::{ABOUT_WAITING, HostSocket};
use crate::fs::PollEvents;
use crate::net::{Incoming, Patience};
use crate::user::IoBuf;
use crate::{Errno, Result, SysResult, Thread};

/// So much is received at once if less is wanted.
const AHEAD: usize = 16 << 10;

impl HostSocket {
    /// What has to be ready to receive with `flags`.
    fn awaited(flags: u32) -> PollEvents {
        if flags & net::MSG_OOB != 0 {
            PollEvents::PRI
        } else {
            PollEvents::IN
        }
    }

    /// Receives up to `wanted` bytes from the host's end.
    ///
    /// # Errors
    /// `EAGAIN`; `ESTALE` if bytes that came before came by themselves; as `recvmsg(2)`.
    fn receive_once(&self, flags: u32, buf: &mut IoBuf<'_>, wanted: usize) -> Result<Received> {
        let deliveries = self.stream.deliveries();
        calls::receive(self.kernel, self.number, flags, deliveries, buf, wanted)
    }

    /// Receives one message into `message`: the next that is here, or else from the host's end, and others may come with it.
    ///
    /// # Errors
    /// As `recvmsg(2)`.
    pub fn receive_message(&self, message: &mut Incoming<'_, '_>) -> SysResult {
        if message.flags & net::MSG_ERRQUEUE != 0 || !self.stream.is_buffered() {
            return match self.take_datagram(message) {
                Some(received) if message.flags & net::MSG_ERRQUEUE == 0 => received,
                _ => self.receive_message_once(message),
            };
        }
        loop {
            if let Some(errno) = self.stream.take_error() {
                return Err(errno);
            }
            if let Some(received) = self.take_datagram(message) {
                return received;
            }
            let _receiving = self.stream.receiving();
            if self.stream.datagrams.has_arrived() {
                continue;
            }
            if !message.is_peek() {
                let _ = self.stream.look(wanted::BYTES);
            }
            match self.receive_message_once(message) {
                // They are here now.
                Err(Errno::ESTALE) => self.kernel.net.host.poll(),
                result => return result,
            }
        }
    }

    /// Hands the next datagram that is here to the program.
    fn take_datagram(&self, message: &mut Incoming<'_, '_>) -> Option<SysResult> {
        let Arrived {
            data,
            flags,
            address,
            control,
        } = self.stream.datagrams.next(message.is_peek())?;
        let put = data.len().min(message.buf.remaining());
        match message.buf.put(&data[..put]) {
            Ok(done) if done == put => {}
            // It is lost then, as on Linux.
            Ok(_) => return Some(Err(Errno::EFAULT)),
            Err(errno) => return Some(Err(errno)),
        }
        let is_cut = if put < data.len() { net::MSG_TRUNC } else { 0 };
        message.result_flags |= flags | is_cut;
        message.address = address;
        message.control.extend(calls::control_items(&control));
        Some(Ok(if message.flags & net::MSG_TRUNC != 0 {
            data.len()
        } else {
            put
        }))
    }

    fn receive_message_once(&self, message: &mut Incoming<'_, '_>) -> SysResult {
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

    /// Receives into what is here, up to `wanted` bytes; gives how many, 0 at the end.
    ///
    /// # Errors
    /// As [`HostSocket::receive_once`].
    fn fetch(&self, wanted: usize) -> Result<usize> {
        let mut data = alloc::vec![0; wanted];
        let received = self.receive_once(0, &mut IoBuf::kernel(&mut data), wanted)?;
        data.truncate(received.put);
        if received.put > 0 {
            self.stream.push(data);
        }
        Ok(received.put)
    }

    /// Hands bytes that are here to the program.
    fn take(&self, flags: u32, buf: &mut IoBuf<'_>, wanted: usize) -> Result<Received> {
        let is_peek = flags & net::MSG_PEEK != 0;
        let data = self.stream.take(wanted, is_peek);
        let put = if flags & net::MSG_TRUNC == 0 {
            buf.put(&data)?
        } else {
            0
        };
        if flags & net::MSG_TRUNC == 0 && put < data.len() {
            return Err(Errno::EFAULT);
        }
        Ok(Received {
            bytes: data.len(),
            put,
            ..Received::default()
        })
    }

    /// Receives bytes of a stream: those that are here, or else from the host's end. Who looks without taking (`MSG_PEEK`) waits
    /// for `target` bytes.
    fn receive_step(
        &self,
        flags: u32,
        buf: &mut IoBuf<'_>,
        wanted: usize,
        target: usize,
    ) -> Result<Received> {
        if flags & (net::MSG_OOB | net::MSG_ERRQUEUE) != 0 {
            return self.receive_once(flags, buf, wanted);
        }
        let is_peek = flags & net::MSG_PEEK != 0;
        let is_plain = self.stream.is_buffered() && flags & !(ABOUT_WAITING | net::MSG_PEEK) == 0;
        let enough = if is_peek && is_plain {
            target.min(MAX_SOCKET_DATA)
        } else {
            1
        };
        if self.stream.received() >= enough {
            return self.take(flags, buf, wanted);
        }
        // Bytes come by themselves, or are received; not both at once, or their order would be lost.
        let _receiving = self.stream.receiving();
        loop {
            let here = self.stream.received();
            if here >= enough {
                return self.take(flags, buf, wanted);
            }
            if here == 0
                && let Some(errno) = self.stream.take_error()
            {
                return Err(errno);
            }
            let result = if !is_plain || here == 0 && wanted >= AHEAD && !is_peek {
                self.receive_once(flags, buf, wanted)
            } else {
                let more = enough.saturating_sub(here).max(AHEAD);
                match self.fetch(more) {
                    // The end, or an error, after what is here.
                    Ok(0) if here > 0 => return self.take(flags, buf, wanted),
                    Err(errno) if here > 0 && !matches!(errno, Errno::EAGAIN | Errno::ESTALE) => {
                        self.stream.set_error(errno);
                        return self.take(flags, buf, wanted);
                    }
                    Ok(0) => Ok(Received::default()),
                    Ok(_) => continue,
                    Err(errno) => Err(errno),
                }
            };
            match result {
                // They are here now.
                Err(Errno::ESTALE) => self.kernel.net.host.poll(),
                result => return result,
            }
        }
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
                self.receive_step(flags, buf, wanted, target)
            });
            // What there is to see when patience ends.
            let step = match step {
                Err(_) if message.is_peek() && self.stream.received() > 0 => {
                    self.take(flags, message.buf, wanted)
                }
                step => step,
            };
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
