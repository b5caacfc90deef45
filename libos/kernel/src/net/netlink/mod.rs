//! `AF_NETLINK` (`netlink(7)`): questions about the network that the kernel answers.
//!
//! | module | what |
//! | --- | --- |
//! | `wire` | messages and attributes as bytes |
//! | `route` | `NETLINK_ROUTE`: interfaces, addresses, routes |
//!
//! Who is in groups of `NETLINK_ROUTE` hears of changes of the network by a socket of the host. There are no messages between
//! programs.

mod route;
mod wire;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::mem;

use husk_abi::linux::{general, ioctl, net};

use self::wire::Request;
use super::host::Outside;
use super::message::{Incoming, Outgoing};
use super::socket::{Base, Shutdown, Socket};
use super::{address, interface};
use crate::fs::PollEvents;
use crate::fs::poll::PollTable;
use crate::sync::SpinLock;
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

const ROUTE: i32 = 0;
const AUDIT: i32 = 9;
const KOBJECT_UEVENT: i32 = 15;
const GENERIC: i32 = 16;
/// One more than the largest protocol.
const PROTOCOL_LIMIT: i32 = 32;
const ADDRESS_BYTES: usize = 12;
const ADD_MEMBERSHIP: u32 = 1;
const DROP_MEMBERSHIP: u32 = 2;
/// The largest datagram of answers.
const MAX_ANSWER: usize = 32 * 1024;

/// What all netlink sockets share: who has which port number of a protocol.
#[derive(Debug, Default)]
pub struct Netlink {
    ports: SpinLock<BTreeMap<(i32, u32), Weak<NetlinkSocket>>>,
}

#[derive(Debug, Default)]
struct Inner {
    port: Option<u32>,
    groups: u32,
    /// The port of whom it is connected to; 0 is the kernel.
    remote: Option<u32>,
    answers: VecDeque<Vec<u8>>,
}

/// A netlink socket.
#[derive(Debug)]
pub struct NetlinkSocket {
    base: Base,
    weak: Weak<NetlinkSocket>,
    inner: SpinLock<Inner>,
    /// What hears of changes, once it is in a group.
    outside: Outside,
}

/// A new socket (`socket(2)`).
///
/// # Errors
/// `ESOCKTNOSUPPORT`, `EPROTONOSUPPORT`.
pub fn create(t: &Thread, kind: u32, protocol: i32) -> Result<Arc<NetlinkSocket>> {
    if kind != net::SOCK_RAW && kind != net::SOCK_DGRAM {
        return Err(Errno::ESOCKTNOSUPPORT);
    }
    if !(0..PROTOCOL_LIMIT).contains(&protocol)
        || !matches!(protocol, ROUTE | AUDIT | KOBJECT_UEVENT | GENERIC)
    {
        return Err(Errno::EPROTONOSUPPORT);
    }
    Ok(Arc::new_cyclic(|weak| NetlinkSocket {
        base: Base::new(t.kernel, net::AF_NETLINK, kind, protocol),
        weak: weak.clone(),
        inner: SpinLock::default(),
        outside: Outside::default(),
    }))
}

/// An address's port and groups.
fn parse(bytes: &[u8]) -> Result<(u32, u32)> {
    if bytes.len() < ADDRESS_BYTES {
        return Err(Errno::EINVAL);
    }
    if address::family(bytes).map(u32::from) != Some(net::AF_NETLINK) {
        return Err(Errno::EINVAL);
    }
    let word =
        |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Ok((word(4), word(8)))
}

fn to_bytes(port: u32, groups: u32) -> Vec<u8> {
    let mut bytes = (net::AF_NETLINK as u16).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&port.to_ne_bytes());
    bytes.extend_from_slice(&groups.to_ne_bytes());
    bytes
}

/// `NETLINK_AUDIT` in a container: the audit system is the host's. What programs report (`AUDIT_USER` and its
/// like) is accepted from those who may, and as no auditing is on, that is all.
fn audit(t: &Thread, request: &Request<'_>) -> Result<Vec<Vec<u8>>> {
    match request.kind {
        1005 | 1100..=1199 | 2100..=2999 if t.credentials().has(general::CAP_AUDIT_WRITE) => {
            Ok(Vec::new())
        }
        1000..=1016 | 1100..=1199 | 2100..=2999 => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

impl NetlinkSocket {
    /// Takes `port`; for 0 the process's id, or another free number.
    fn bind_port(&self, t: &Thread, port: u32) -> Result<u32> {
        let mut inner = self.inner.lock();
        if let Some(own) = inner.port {
            return if port == 0 || port == own {
                Ok(own)
            } else {
                Err(Errno::EINVAL)
            };
        }
        let mut ports = self.base.kernel.net.netlink.ports.lock();
        let is_free = |port: u32| !ports.contains_key(&(self.base.protocol, port));
        // Numbers from the top, as Linux gives a process's second socket.
        let port = match port {
            0 => core::iter::once(t.process.pid)
                .chain((4096..).map(|step: u32| step.wrapping_neg()))
                .find(|port| is_free(*port)),
            port => Some(port).filter(|port| is_free(*port)),
        };
        let port = port.ok_or(Errno::EADDRINUSE)?;
        ports.insert((self.base.protocol, port), self.weak.clone());
        inner.port = Some(port);
        Ok(port)
    }

    /// Enters or leaves the group with this number.
    fn hear_of(&self, group: u32, enters: bool) -> Result<()> {
        if self.base.protocol == ROUTE && self.base.kernel.net.host.is_available() {
            let is_new = self.outside.get().is_none();
            let host = self.outside.open(&self.base)?;
            if is_new {
                host.bind(&to_bytes(0, 0))?;
            }
            let name = if enters {
                ADD_MEMBERSHIP
            } else {
                DROP_MEMBERSHIP
            };
            match host.set_option((net::SOL_NETLINK, name), &group.to_ne_bytes()) {
                // A group in which nobody tells what the container may hear.
                Ok(()) | Err(Errno::EINVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        if let Some(bit) = group.checked_sub(1).and_then(|at| 1u32.checked_shl(at)) {
            let mut inner = self.inner.lock();
            inner.groups = if enters {
                inner.groups | bit
            } else {
                inner.groups & !bit
            };
        }
        Ok(())
    }

    /// What the host's socket has, if anything: what the call returns.
    fn receive_outside(&self, message: &mut Incoming<'_, '_>) -> Option<SysResult> {
        let host = self.outside.get()?;
        if !host.ready().intersects(PollEvents::IN | PollEvents::ERR) {
            return None;
        }
        match host.receive_message(message) {
            Err(Errno::EAGAIN) => None,
            result => Some(result),
        }
    }

    /// Answers one request.
    fn answer(&self, t: &Thread, port: u32, request: &Request<'_>) -> Vec<Vec<u8>> {
        let result = match self.base.protocol {
            ROUTE if request.asks() && t.kernel.net.host.is_available() => {
                route::ask_host(t, port, request)
            }
            ROUTE => route::answer(t, port, request),
            AUDIT => audit(t, request),
            _ => Err(Errno::EOPNOTSUPP),
        };
        match result {
            Ok(mut answers) => {
                let has_failed = answers.last().is_some_and(|last| wire::is_error(last));
                if request.wants_acknowledgement() && !has_failed {
                    answers.push(wire::error(port, request, 0));
                }
                answers
            }
            Err(error) => alloc::vec![wire::error(port, request, -error.code())],
        }
    }
}

impl Socket for NetlinkSocket {
    fn base(&self) -> &Base {
        &self.base
    }

    fn bind(&self, t: &Thread, address: &[u8]) -> Result<()> {
        let (port, groups) = parse(address)?;
        self.bind_port(t, port)?;
        let before = self.inner.lock().groups;
        for group in 1..=u32::BITS {
            let bit = 1 << (group - 1);
            if (before ^ groups) & bit != 0 {
                self.hear_of(group, groups & bit != 0)?;
            }
        }
        Ok(())
    }

    fn connect(&self, t: &Thread, address: &[u8], _nonblocking: bool) -> Result<()> {
        if address::family(address).map(u32::from) == Some(net::AF_UNSPEC) {
            self.inner.lock().remote = None;
            return Ok(());
        }
        let (port, _) = parse(address)?;
        self.bind_port(t, 0)?;
        self.inner.lock().remote = Some(port);
        Ok(())
    }

    fn name(&self) -> Result<Vec<u8>> {
        let inner = self.inner.lock();
        Ok(to_bytes(inner.port.unwrap_or(0), inner.groups))
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        Ok(to_bytes(self.inner.lock().remote.unwrap_or(0), 0))
    }

    fn send(&self, t: &Thread, message: &mut Outgoing<'_, '_>) -> SysResult {
        if message.flags & net::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let to = match message.destination() {
            Some(address) => parse(address)?,
            None => (self.inner.lock().remote.unwrap_or(0), 0),
        };
        let len = message.buf.remaining();
        if len > self.base.options().send_buffer as usize - 32 {
            return Err(Errno::EMSGSIZE);
        }
        let port = self.bind_port(t, 0)?;
        // Only the kernel is there to talk to.
        if to != (0, 0) {
            return Err(if t.credentials().has(general::CAP_NET_ADMIN) {
                Errno::ECONNREFUSED
            } else {
                Errno::EPERM
            });
        }
        let mut bytes = alloc::vec![0; len];
        if message.buf.take(&mut bytes)? < len {
            return Err(Errno::EFAULT);
        }
        let mut answers = Vec::new();
        for request in wire::requests(&bytes) {
            answers.extend(self.answer(t, port, &request));
        }
        self.inner
            .lock()
            .answers
            .extend(wire::gather(answers, MAX_ANSWER));
        self.base.readers.wake_all();
        Ok(len)
    }

    fn receive(&self, t: &Thread, message: &mut Incoming<'_, '_>) -> SysResult {
        if message.flags & net::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let is_peek = message.is_peek();
        let patience = self.base.receive_patience(message.is_nonblocking());
        let next = || {
            let mut inner = self.inner.lock();
            if is_peek {
                inner.answers.front().cloned()
            } else {
                inner.answers.pop_front()
            }
        };
        let received = patience.wait(t, &self.base.readers, || match next() {
            Some(answers) => Some(Ok(answers)),
            None => self.receive_outside(message).map(Err),
        })?;
        let bytes = match received {
            Ok(bytes) => bytes,
            Err(received) => return received,
        };
        let want = bytes.len().min(message.buf.remaining());
        if want > 0 && message.buf.put(&bytes)? < want {
            return Err(Errno::EFAULT);
        }
        if want < bytes.len() {
            message.result_flags |= net::MSG_TRUNC;
        }
        message.address = to_bytes(0, 0);
        Ok(if message.flags & net::MSG_TRUNC != 0 {
            bytes.len()
        } else {
            want
        })
    }

    fn shutdown(&self, _how: Shutdown) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn poll(&self, table: Option<&mut PollTable<'_>>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.base.readers);
        }
        let mut events = PollEvents::OUT | PollEvents::WRNORM | PollEvents::WRBAND;
        if let Some(host) = self.outside.get() {
            events |= host.ready();
        }
        if !self.inner.lock().answers.is_empty() {
            events |= PollEvents::IN | PollEvents::RDNORM;
        }
        events
    }

    fn set_option(&self, _t: &Thread, level: u32, name: u32, value: &[u8]) -> Result<()> {
        // Details of answers that are all given.
        const PACKET_INFO: u32 = 3;
        const NO_ENOBUFS: u32 = 5;
        const CAP_ACK: u32 = 10;
        const EXT_ACK: u32 = 11;
        const STRICT_CHECK: u32 = 12;
        match (level, name) {
            (net::SOL_NETLINK, ADD_MEMBERSHIP | DROP_MEMBERSHIP) => {
                let group = super::options::int(value)?;
                let group = u32::try_from(group).map_err(|_| Errno::EINVAL)?;
                if group == 0 {
                    return Err(Errno::EINVAL);
                }
                self.hear_of(group, name == ADD_MEMBERSHIP)
            }
            (net::SOL_NETLINK, PACKET_INFO | NO_ENOBUFS | CAP_ACK | EXT_ACK | STRICT_CHECK) => {
                super::options::int(value).map(drop)
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn option(&self, _t: &Thread, _level: u32, _name: u32, _room: usize) -> Result<Vec<u8>> {
        Err(Errno::ENOPROTOOPT)
    }

    fn ioctl(&self, t: &Thread, request: u32, arg: u64) -> SysResult {
        match request {
            ioctl::FIONREAD => {
                let len = self.inner.lock().answers.front().map_or(0, Vec::len);
                UserAddr(arg).write(&(len as i32))?;
                Ok(0)
            }
            _ => interface::ioctl(t, request, arg),
        }
    }

    fn released(&self) {
        let (port, answers) = {
            let mut inner = self.inner.lock();
            (inner.port.take(), mem::take(&mut inner.answers))
        };
        drop(answers);
        self.outside.close();
        if let Some(port) = port {
            let mut ports = self.base.kernel.net.netlink.ports.lock();
            ports.remove(&(self.base.protocol, port));
        }
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

#[cfg(test)]
mod tests;
