//! Sockets connected to a server outside, whose name is in a volume: bytes and messages go through the VMM.
//!
//! Descriptors and credentials do not pass: they mean nothing on the other side.

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::boundary::fuse::MAX_CHANNEL_DATA;
use husk_abi::linux::net;

use super::{Identity, Phase, UnixSocket};
use crate::fs::PollEvents;
use crate::fs::fuse::{self, Channel};
use crate::fs::poll::PollTable;
use crate::net::control::Ucred;
use crate::net::{Incoming, Outgoing, Patience};
use crate::{Errno, Result, SysResult, Thread, signal};

/// A connection to a server outside.
#[derive(Debug)]
pub(super) struct Remote {
    pub channel: Arc<Channel>,
    /// The server's address, as the program named it.
    pub name: Vec<u8>,
}

impl UnixSocket {
    pub(super) fn remote(&self) -> Option<Arc<Remote>> {
        self.remote.lock().clone()
    }

    /// Connects to a server outside if `address` is a name of one; false if it is not.
    ///
    /// # Errors
    /// As `connect(2)`.
    pub(super) fn connect_outside(
        &self,
        t: &Thread,
        address: &[u8],
        patience: Patience,
    ) -> Result<bool> {
        let Some(inode) = self.find_outside(t, address)? else {
            return Ok(false);
        };
        match self.inner.lock().phase {
            Phase::Connected if self.is_connecting_kind() => return Err(Errno::EISCONN),
            Phase::Listening => return Err(Errno::EINVAL),
            _ => {}
        }
        let channel = fuse::connect(t, &inode, self.base.kind, patience)?;
        let (uid, gid) = channel.peer;
        let old = {
            let mut inner = self.inner.lock();
            inner.phase = Phase::Connected;
            // Its process is not one of the container's.
            let ucred = Ucred { pid: 0, uid, gid };
            inner.peer_identity = Some(Identity {
                ucred,
                groups: Vec::new(),
            });
            inner.peer.take()
        };
        drop(old);
        let mut name = address.to_vec();
        if name.last() != Some(&0) {
            name.push(0);
        }
        let remote = Arc::new(Remote { channel, name });
        let old = self.remote.lock().replace(remote);
        drop(old);
        self.base.wake_all();
        Ok(true)
    }

    pub(super) fn send_outside(
        &self,
        t: &Thread,
        remote: &Remote,
        message: &mut Outgoing<'_, '_>,
    ) -> SysResult {
        if message.flags & net::MSG_OOB != 0 || !message.control.rights.is_empty() {
            return Err(Errno::EOPNOTSUPP);
        }
        if message.destination().is_some() && self.is_connecting_kind() {
            return Err(Errno::EISCONN);
        }
        if let Some(error) = self.base.take_error() {
            return Err(error);
        }
        let patience = self.base.send_patience(message.is_nonblocking());
        let result = if self.inner.lock().shut.sending {
            Err(Errno::EPIPE)
        } else if self.is_stream() {
            fuse::write_all(t, &remote.channel, patience, message.buf)
        } else {
            self.send_message_outside(t, remote, patience, message)
        };
        if result == Err(Errno::EPIPE)
            && message.flags & net::MSG_NOSIGNAL == 0
            && self.is_connecting_kind()
        {
            signal::raise_sigpipe(t);
        }
        result
    }

    fn send_message_outside(
        &self,
        t: &Thread,
        remote: &Remote,
        patience: Patience,
        message: &mut Outgoing<'_, '_>,
    ) -> SysResult {
        let len = message.buf.remaining();
        if len > MAX_CHANNEL_DATA {
            return Err(Errno::EMSGSIZE);
        }
        let mut bytes = alloc::vec![0; len];
        if message.buf.take(&mut bytes)? < len {
            return Err(Errno::EFAULT);
        }
        let channel = &remote.channel;
        channel.wait(t, patience, PollEvents::OUT, || channel.write(&bytes))
    }

    pub(super) fn receive_outside(
        &self,
        t: &Thread,
        remote: &Remote,
        message: &mut Incoming<'_, '_>,
    ) -> SysResult {
        if message.flags & (net::MSG_OOB | net::MSG_ERRQUEUE) != 0 {
            return Err(Errno::EINVAL);
        }
        if self.inner.lock().shut.receiving {
            return Ok(0);
        }
        let patience = self.base.receive_patience(message.is_nonblocking());
        let channel = &remote.channel;
        let peek = message.is_peek();
        if !self.is_stream() {
            let read = || channel.read_message(peek);
            let bytes = channel.wait(t, patience, PollEvents::IN, read)?;
            let put = message.buf.put(&bytes)?;
            if put < bytes.len() {
                message.result_flags |= net::MSG_TRUNC;
                if message.flags & net::MSG_TRUNC != 0 {
                    return Ok(bytes.len());
                }
            }
            return Ok(put);
        }
        let all = message.flags & net::MSG_WAITALL != 0 && !peek;
        let mut done = 0;
        while message.buf.remaining() > 0 {
            let buf = &mut *message.buf;
            match channel.wait(t, patience, PollEvents::IN, || channel.read(buf, peek)) {
                Ok(0) => break,
                Ok(got) => done += got,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
            if !all {
                break;
            }
        }
        Ok(done)
    }

    pub(super) fn ready_outside(
        &self,
        remote: &Remote,
        table: Option<&mut PollTable<'_>>,
    ) -> PollEvents {
        if let Some(table) = table {
            table.register(&remote.channel.changed);
            table.register(&self.base.readers);
        }
        let mut events = remote.channel.ready();
        if self.base.has_error() {
            events |= PollEvents::ERR;
        }
        if self.inner.lock().shut.receiving {
            events |= PollEvents::IN | PollEvents::RDNORM | PollEvents::RDHUP;
        }
        events
    }
}
