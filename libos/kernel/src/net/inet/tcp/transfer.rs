//! Sending and receiving.

use alloc::sync::Arc;

use husk_abi::linux::net;

use super::{Phase, TcpSocket};
use crate::net::inet::endpoint;
use crate::net::{Incoming, Outgoing, Patience};
use crate::signal;
use crate::{Errno, Result, SysResult, Thread};

/// The most bytes that are moved in one step.
const STEP: usize = 64 * 1024;
/// The message connects the socket first (`send(2)`).
pub(super) const MSG_FASTOPEN: u32 = 0x2000_0000;

impl TcpSocket {
    /// `MSG_FASTOPEN`: connects to where the message goes, which is sent afterwards, as by a Linux that has no cookie of the peer's.
    ///
    /// # Errors
    /// As `connect(2)`; `EINPROGRESS` if it may not wait, and nothing is sent; `EOPNOTSUPP` for `AF_UNSPEC`; `EINVAL` without an
    /// address.
    pub(super) fn connect_first(&self, t: &Thread, message: &mut Outgoing<'_, '_>) -> Result<()> {
        let address = message.destination().unwrap_or_default();
        if !address.is_empty() && endpoint::is_none(address) {
            return Err(Errno::EOPNOTSUPP);
        }
        if self.inner.lock().phase == Phase::Connected {
            return Err(Errno::EISCONN);
        }
        self.connect_to(t, address, message.is_nonblocking())?;
        message.flags &= !MSG_FASTOPEN;
        message.address = None;
        Ok(())
    }

    /// How many bytes may be under way to `peer`: about what both buffers hold on Linux, where half of each
    /// goes to bookkeeping.
    fn limit(&self, peer: &TcpSocket) -> usize {
        let sending = self.base.options().send_buffer as usize / 2;
        sending + peer.base.options().receive_buffer as usize / 2
    }

    /// Whether pollers are told that there is room.
    pub(super) fn has_much_room(&self, peer: &TcpSocket) -> bool {
        peer.inner.lock().received.len() <= self.limit(peer) / 3 * 2
    }

    /// How many bytes can be sent now, or why none can be; `None` if one has to wait.
    fn room(&self) -> Option<Result<(Arc<TcpSocket>, usize)>> {
        if let Some(error) = self.base.take_error() {
            return Some(Err(error));
        }
        let peer = {
            let inner = self.inner.lock();
            match inner.phase {
                Phase::Connecting => return None,
                Phase::Connected if !inner.shut_sending => inner.peer.clone(),
                _ => None,
            }
        };
        let Some(peer) = peer else {
            return Some(Err(Errno::EPIPE));
        };
        let used = peer.inner.lock().received.len();
        match self.limit(&peer).saturating_sub(used) {
            0 => None,
            room => Some(Ok((peer, room))),
        }
    }

    /// Takes bytes of the peer; false if nobody will read them.
    fn take(&self, data: alloc::vec::Vec<u8>) -> bool {
        {
            let mut inner = self.inner.lock();
            if inner.is_released || inner.phase != Phase::Connected {
                return false;
            }
            inner.received.push(data);
        }
        self.base.readers.wake_all();
        true
    }

    /// `send(2)`.
    pub(super) fn send_bytes(&self, t: &Thread, message: &mut Outgoing<'_, '_>) -> SysResult {
        // Urgent bytes are not done.
        if message.flags & net::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut sent = 0;
        match self.send_all(t, message, &mut sent) {
            Err(_) if sent > 0 => Ok(sent),
            Err(Errno::EPIPE) => {
                if message.flags & net::MSG_NOSIGNAL == 0 {
                    signal::raise_sigpipe(t);
                }
                Err(Errno::EPIPE)
            }
            result => result.map(|()| sent),
        }
    }

    fn send_all(&self, t: &Thread, message: &mut Outgoing<'_, '_>, sent: &mut usize) -> Result<()> {
        let patience = self.base.send_patience(message.is_nonblocking());
        loop {
            let (peer, room) = patience.wait(t, &self.base.writers, || {
                self.room().or_else(|| {
                    self.base.note_no_room();
                    self.room()
                })
            })??;
            let len = room.min(STEP).min(message.buf.remaining());
            if len == 0 {
                return Ok(());
            }
            let mut data = alloc::vec![0; len];
            let got = message.buf.take(&mut data)?;
            data.truncate(got);
            *sent += got;
            if !peer.take(data) {
                self.reset();
            }
            if got < len {
                return Err(Errno::EFAULT);
            }
            if message.buf.remaining() == 0 {
                return Ok(());
            }
        }
    }

    /// `recv(2)`.
    pub(super) fn receive_bytes(&self, t: &Thread, message: &mut Incoming<'_, '_>) -> SysResult {
        if message.flags & net::MSG_ERRQUEUE != 0 {
            return Err(Errno::EAGAIN);
        }
        if self.inner.lock().phase == Phase::Listening {
            return Err(Errno::ENOTCONN);
        }
        if message.flags & net::MSG_OOB != 0 {
            return Err(Errno::EINVAL);
        }
        let size = message.buf.remaining();
        let options = self.base.options();
        let target = if message.flags & net::MSG_WAITALL != 0 {
            size
        } else {
            size.min(options.receive_low_water)
        }
        .max(1);
        let patience = self.base.receive_patience(message.is_nonblocking());
        let mut copied = 0;
        let result = self.receive_until(t, message, target, patience, &mut copied);
        if copied > 0 {
            Ok(copied)
        } else {
            result.map(|()| 0)
        }
    }

    fn receive_until(
        &self,
        t: &Thread,
        message: &mut Incoming<'_, '_>,
        target: usize,
        patience: Patience,
        copied: &mut usize,
    ) -> Result<()> {
        let is_peek = message.is_peek();
        loop {
            let reading = self.reading.lock();
            if is_peek {
                // From the start again: what is there stays.
                if *copied > 0 {
                    return Ok(());
                }
            }
            let before = *copied;
            self.copy_available(message, copied)?;
            drop(reading);
            if !is_peek && *copied > before {
                self.announce_room();
            }
            if *copied >= target || message.buf.remaining() == 0 && *copied > 0 {
                return Ok(());
            }
            if self.is_at_end(*copied)? {
                return Ok(());
            }
            let seen = if is_peek { *copied } else { 0 };
            patience.wait(t, &self.base.readers, || {
                let inner = self.inner.lock();
                let waits = inner.received.len() <= seen
                    && !inner.shut_receiving
                    && inner.phase != Phase::Closed
                    && !self.base.has_error();
                (!waits).then_some(())
            })?;
        }
    }

    /// Whether nothing more comes, or why.
    fn is_at_end(&self, copied: usize) -> Result<bool> {
        let inner = self.inner.lock();
        if inner.received.len() > 0 {
            return Ok(false);
        }
        if inner.peer_finished {
            return Ok(true);
        }
        let (is_shut, is_new) = (
            inner.shut_receiving,
            inner.phase == Phase::Closed && !inner.was_connected,
        );
        drop(inner);
        if copied > 0 && self.base.has_error() {
            return Ok(true);
        }
        if let Some(error) = self.base.take_error() {
            return Err(error);
        }
        if is_shut {
            return Ok(true);
        }
        if is_new {
            return Err(Errno::ENOTCONN);
        }
        Ok(false)
    }

    fn copy_available(&self, message: &mut Incoming<'_, '_>, copied: &mut usize) -> Result<()> {
        let mut index = 0;
        while message.buf.remaining() > 0 {
            let Some(taken) = self.inner.lock().received.take(index) else {
                return Ok(());
            };
            let want = taken.bytes().len().min(message.buf.remaining());
            let put = if message.flags & net::MSG_TRUNC != 0 {
                Ok(message.buf.skip(want))
            } else {
                message.buf.put(taken.bytes())
            };
            let read = put.unwrap_or(0);
            {
                let mut inner = self.inner.lock();
                let read = if message.is_peek() { 0 } else { read };
                inner.received.put_back(taken, read);
            }
            *copied += put?;
            if read < want {
                return Ok(());
            }
            if message.is_peek() {
                index += 1;
            }
        }
        Ok(())
    }

    /// Room for the peer's bytes again: its writers may go on once enough is free.
    fn announce_room(&self) {
        let (peer, used) = {
            let inner = self.inner.lock();
            (inner.peer.clone(), inner.received.len())
        };
        if let Some(peer) = peer
            && used <= peer.limit(self) / 3 * 2
        {
            peer.base.writers.wake_all();
        }
    }
}
