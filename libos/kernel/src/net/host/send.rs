//! Sending by a socket of the host: at once, or small messages later.

use husk_abi::linux::net;

use super::calls;
use super::shared::MAX_INET_ADDRESS;
use super::socket::{ABOUT_WAITING, ENDS, HostSocket};
use super::stream::MAX_UNSENT;
use crate::fs::PollEvents;
use crate::net::{Outgoing, Patience};
use crate::{Errno, Result, SysResult, Thread, signal};

impl HostSocket {
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
        let address = message.destination().unwrap_or_default();
        // Twice: what did not fit with others fits after them.
        for _ in 0..2 {
            if let Some(errno) = self.stream.take_error() {
                return Err(errno);
            }
            if self.keep_datagram(address, message)? {
                return Ok(message.buf.done());
            }
            if !self.stream.has_unsent() {
                break;
            }
            self.flush();
        }
        let sent = self.wait(t, patience, &self.writers, PollEvents::OUT, || {
            self.send_once(message)
        });
        if sent.is_ok() && address.len() <= MAX_INET_ADDRESS {
            self.stream.datagrams.reached(address);
        } else {
            self.stream.datagrams.forget_reached();
        }
        sent
    }

    /// Whether a small message may be kept to be sent with the next exit.
    fn may_keep(&self, message: &Outgoing<'_, '_>) -> bool {
        let len = message.buf.remaining();
        let is_plain = message.flags & !ABOUT_WAITING == 0 && message.control.other.is_empty();
        if !is_plain || !(1..=MAX_UNSENT).contains(&len) || !self.stream.is_buffered() {
            return false;
        }
        let now = self.now();
        !now.intersects(ENDS) && now.contains(PollEvents::OUT) && self.kernel.net.host.may_keep()
    }

    /// Keeps a small datagram to be sent with the next exit; false if it is to be sent now: the first to an address is, so that
    /// what there is against sending it is told at once.
    fn keep_datagram(&self, address: &[u8], message: &mut Outgoing<'_, '_>) -> Result<bool> {
        if !self.may_keep(message) || !self.stream.datagrams.may_go_later(address) {
            return Ok(false);
        }
        let place = message.buf.place();
        let mut data = alloc::vec![0; message.buf.remaining()];
        let got = message.buf.take(&mut data)?;
        let room = self.stream.room();
        if got < data.len() || !self.stream.datagrams.keep(address, &data, room) {
            message.buf.return_to(place);
            return Ok(false);
        }
        if self.stream.list() && !self.kernel.net.host.list(&self.stream) {
            self.flush();
        }
        Ok(true)
    }

    /// Keeps a small message of a stream to be sent with the next exit; false if it is to be sent now.
    fn keep(&self, message: &mut Outgoing<'_, '_>) -> Result<bool> {
        let len = message.buf.remaining();
        let room = self.stream.room();
        if message.destination().is_some()
            || self.stream.unsent() + len > room
            || !self.may_keep(message)
        {
            return Ok(false);
        }
        let place = message.buf.place();
        let mut data = alloc::vec![0; len];
        let got = message.buf.take(&mut data)?;
        // Half a message is for the way that can tell why; so is one for which somebody else took the room meanwhile.
        if got < len || !self.stream.keep(&data, room) {
            message.buf.return_to(place);
            return Ok(false);
        }
        if self.stream.list() && !self.kernel.net.host.list(&self.stream) {
            self.flush();
        }
        Ok(true)
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
        if self.keep(message)? {
            return Ok(message.buf.done());
        }
        self.flush();
        let mut sent = 0;
        loop {
            if let Some(errno) = self.stream.take_error() {
                return Err(errno);
            }
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
}
