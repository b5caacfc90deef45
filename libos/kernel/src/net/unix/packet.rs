//! Moving messages: datagrams and sequenced packets.

use alloc::sync::Arc;
use core::mem;

use husk_abi::linux::net;

use super::names::to_bytes;
use super::queue::{Message, packet_cost};
use super::rights::Rights;
use super::stream::credentials_item;
use super::{Phase, UnixSocket, names};
use crate::net::control::Item;
use crate::net::options::Switches;
use crate::net::{Incoming, Outgoing};
use crate::{Errno, Result, SysResult, Thread};

/// What became of a message that was handed to its receiver.
enum Delivery {
    Done,
    /// The receiver's queue is full.
    Full(Message),
    /// The receiver is closed.
    Dead(Message),
}

impl UnixSocket {
    /// `send(2)` of sequenced packets.
    pub(super) fn send_sequenced(&self, t: &Thread, message: &mut Outgoing<'_, '_>) -> SysResult {
        if let Some(error) = self.base.take_error() {
            return Err(error);
        }
        if self.inner.lock().phase != Phase::Connected {
            return Err(Errno::ENOTCONN);
        }
        message.address = None;
        self.send_packet(t, message)
    }

    /// `send(2)` of a datagram.
    pub(super) fn send_packet(&self, t: &Thread, message: &mut Outgoing<'_, '_>) -> SysResult {
        if message.flags & net::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let destination = message.destination();
        if let Some(address) = destination {
            names::check(address)?;
        }
        self.name_for_credentials()?;
        let len = message.buf.remaining();
        if len > self.outlet.limit().saturating_sub(32) {
            return Err(Errno::EMSGSIZE);
        }
        let patience = self.base.send_patience(message.is_nonblocking());
        let rights = Rights::new(t, mem::take(&mut message.control.rights))?;
        let charge = self.pay(t, packet_cost(len), patience)?;
        let mut data = alloc::vec![0; len];
        if message.buf.take(&mut data)? < len {
            return Err(Errno::EFAULT);
        }
        let mut packet = Message::new(data, charge);
        packet.rights = rights;
        let mut receiver = match destination {
            Some(address) => self.find(t, address)?,
            None => self.peer().ok_or(Errno::ENOTCONN)?,
        };
        packet.credentials = message
            .control
            .credentials
            .or_else(|| self.told_credentials(t, &receiver));
        loop {
            match receiver.deliver(self, packet)? {
                Delivery::Done => {
                    receiver.base.readers.wake_all();
                    return Ok(len);
                }
                Delivery::Full(back) => {
                    packet = back;
                    patience.wait(t, &receiver.room, || {
                        let inner = receiver.inner.lock();
                        let waits = !inner.is_dead
                            && !inner.shut.receiving
                            && !inner.is_peer(self)
                            && inner.is_full();
                        (!waits).then_some(())
                    })?;
                }
                Delivery::Dead(back) => {
                    packet = back;
                    self.receiver_is_dead(&receiver)?;
                    // The name may be another socket's by now.
                    let address = destination.ok_or(Errno::ECONNRESET)?;
                    receiver = self.find(t, address)?;
                }
            }
        }
    }

    /// A message cannot be delivered because `receiver` is closed.
    fn receiver_is_dead(&self, receiver: &Arc<UnixSocket>) -> Result<()> {
        if self.base.kind == net::SOCK_SEQPACKET {
            return Err(Errno::EPIPE);
        }
        let old = {
            let mut inner = self.inner.lock();
            if !inner.is_peer(receiver) {
                return Ok(());
            }
            inner.phase = Phase::Unconnected;
            inner.peer.take()
        };
        drop(old);
        self.disconnected_from(receiver);
        Err(Errno::ECONNREFUSED)
    }

    /// Takes a message from `sender`.
    fn deliver(&self, sender: &UnixSocket, mut message: Message) -> Result<Delivery> {
        let in_flight = &self.base.kernel.net.unix.in_flight;
        let mut table = message.rights.is_some().then(|| in_flight.lock());
        let mut inner = self.inner.lock();
        let is_peer = inner.is_peer(sender);
        let is_self = core::ptr::eq(self, sender);
        let refused = if inner.peer.is_some() && !is_peer {
            Some(Errno::EPERM)
        } else if inner.is_dead {
            drop(inner);
            drop(table);
            return Ok(Delivery::Dead(message));
        } else if inner.shut.receiving {
            Some(Errno::EPIPE)
        } else {
            None
        };
        if let Some(error) = refused {
            // The message goes without the locks.
            drop(inner);
            drop(table);
            drop(message);
            return Err(error);
        }
        if !is_self && !is_peer && inner.is_full() {
            drop(inner);
            drop(table);
            return Ok(Delivery::Full(message));
        }
        if let (Some(rights), Some(table)) = (&mut message.rights, &mut table) {
            rights.enter(table);
        }
        inner.push(message);
        Ok(Delivery::Done)
    }

    /// The next message for a reader; `Some(Ok(None))` if there will be none any more.
    fn next_packet(&self, is_peek: bool, skip: usize) -> Option<Result<Option<Packet>>> {
        if let Some(error) = self.base.take_error() {
            return Some(Err(error));
        }
        let in_flight = &self.base.kernel.net.unix.in_flight;
        let mut table = None;
        let (finished, packet) = loop {
            let mut inner = self.inner.lock();
            let mut skip = skip;
            let mut index = 0;
            if is_peek {
                while let Some(message) = inner.messages.get(index)
                    && skip > 0
                    && skip >= message.len()
                {
                    skip -= message.len();
                    index += 1;
                }
            } else {
                skip = 0;
            }
            let Some(message) = inner.messages.get(index) else {
                return inner.shut.receiving.then_some(Ok(None));
            };
            if message.rights.is_some() && table.is_none() {
                drop(inner);
                table = Some(in_flight.lock());
                continue;
            }
            let was_full = inner.is_full();
            if is_peek {
                let message = &inner.messages[index];
                let packet = Packet {
                    data: message.data[skip..].to_vec(),
                    name: message.sender(),
                    credentials: message.credentials,
                    rights: message
                        .rights
                        .as_ref()
                        .map(Rights::peek)
                        .unwrap_or_default(),
                    was_full: false,
                };
                break (None, packet);
            }
            let mut message = inner.messages.pop_front()?;
            let rights = match (message.rights.take(), &mut table) {
                (Some(rights), Some(table)) => rights.take(table),
                _ => alloc::vec::Vec::new(),
            };
            let packet = Packet {
                data: mem::take(&mut message.data),
                name: message.sender(),
                credentials: message.credentials,
                rights,
                was_full,
            };
            break (Some(message), packet);
        };
        drop(table);
        drop(finished);
        Some(Ok(Some(packet)))
    }

    /// `recv(2)` of a message.
    pub(super) fn receive_packet(&self, t: &Thread, message: &mut Incoming<'_, '_>) -> SysResult {
        let is_sequenced = self.base.kind == net::SOCK_SEQPACKET;
        if is_sequenced && self.inner.lock().phase != Phase::Connected {
            return Err(Errno::ENOTCONN);
        }
        if message.flags & net::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let options = self.base.options();
        let is_peek = message.is_peek();
        let skip = usize::try_from(options.peek_offset).unwrap_or(0);
        let nonblocking = message.is_nonblocking();
        let patience = self.base.receive_patience(nonblocking);
        let found = patience.wait(t, &self.base.readers, || self.next_packet(is_peek, skip))?;
        let packet = match found? {
            Some(packet) => packet,
            None if is_sequenced || !nonblocking => return Ok(0),
            // A nonblocking datagram socket does not tell the end.
            None => return Err(Errno::EAGAIN),
        };
        if !is_peek && packet.was_full {
            self.announce_room();
        }
        let len = packet.data.len();
        let copied = if message.buf.remaining() == 0 || len == 0 {
            0
        } else {
            let want = len.min(message.buf.remaining());
            let put = message.buf.put(&packet.data)?;
            if put < want {
                return Err(Errno::EFAULT);
            }
            put
        };
        if options.peek_offset >= 0 {
            self.move_peek_offset(if is_peek { copied } else { len }, is_peek);
        }
        if message.wants_address {
            message.address = packet
                .name
                .map(|name| to_bytes(Some(name)))
                .unwrap_or_default();
        }
        if copied < len {
            message.result_flags |= net::MSG_TRUNC;
        }
        message.stamp(&options);
        if options.has(Switches::PASS_CREDENTIALS) {
            message.control.push(credentials_item(packet.credentials));
        }
        if !packet.rights.is_empty() {
            message.control.push(Item::Rights(packet.rights));
        }
        Ok(if message.flags & net::MSG_TRUNC != 0 {
            len
        } else {
            copied
        })
    }
}

/// A message as its receiver gets it.
struct Packet {
    data: alloc::vec::Vec<u8>,
    name: Option<super::Name>,
    credentials: Option<crate::net::control::Ucred>,
    rights: alloc::vec::Vec<crate::fs::FileRef>,
    /// There was no room for others' messages.
    was_full: bool,
}
