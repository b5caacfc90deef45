//! Raw sockets and those of `ping(8)` (`raw(7)`, `icmp(7)`): wholly the host's.

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::linux::{ioctl, net};

use super::endpoint;
use crate::fs::PollEvents;
use crate::fs::poll::PollTable;
use crate::net::host::{HostSocket, Outside};
use crate::net::{Base, Incoming, Outgoing, Shutdown, Socket, interface};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

/// A socket that sends and receives packets of a protocol.
#[derive(Debug)]
pub struct RawSocket {
    base: Base,
    outside: Outside,
}

impl RawSocket {
    /// A new socket of the host.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` if nothing leads out of the guest; as `socket(2)` on the host.
    pub fn new(t: &Thread, family: u32, kind: u32, protocol: i32) -> Result<Arc<Self>> {
        if !t.kernel.net.host.is_available() {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let base = Base::new(t.kernel, family, kind, protocol);
        let outside = Outside::of(HostSocket::new(&base)?);
        Ok(Arc::new(Self { base, outside }))
    }

    fn host(&self) -> Result<Arc<HostSocket>> {
        self.outside.get().ok_or(Errno::EBADF)
    }
}

impl Socket for RawSocket {
    fn base(&self) -> &Base {
        &self.base
    }

    fn bind(&self, _t: &Thread, address: &[u8]) -> Result<()> {
        self.host()?.bind(address).map(drop)
    }

    fn connect(&self, _t: &Thread, address: &[u8], _nonblocking: bool) -> Result<()> {
        self.host()?.connect(address)
    }

    fn name(&self) -> Result<Vec<u8>> {
        self.host()?.name(false)
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        self.host()?.name(true)
    }

    fn send(&self, t: &Thread, message: &mut Outgoing<'_, '_>) -> SysResult {
        if let Some(error) = self.base.take_error() {
            return Err(error);
        }
        let patience = self.base.send_patience(message.is_nonblocking());
        self.host()?.send_message(t, patience, message)
    }

    fn receive(&self, t: &Thread, message: &mut Incoming<'_, '_>) -> SysResult {
        let host = self.host()?;
        if message.flags & net::MSG_ERRQUEUE != 0 {
            return host.receive_message(message);
        }
        let patience = self.base.receive_patience(message.is_nonblocking());
        let readers = &self.base.readers;
        host.wait(t, patience, readers, PollEvents::IN, || {
            host.receive_message(message)
        })
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.host()?.shutdown(how)
    }

    fn poll(&self, table: Option<&mut PollTable<'_>>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.base.readers);
            table.register(&self.base.writers);
        }
        self.host().map_or(PollEvents::ERR, |host| host.ready())
    }

    fn set_option(&self, _t: &Thread, level: u32, name: u32, value: &[u8]) -> Result<()> {
        self.host()?.set_option((level, name), value)
    }

    fn option(&self, _t: &Thread, level: u32, name: u32, room: usize) -> Result<Vec<u8>> {
        self.host()?.option((level, name), room)
    }

    fn outside(&self) -> Option<&Outside> {
        Some(&self.outside)
    }

    fn ioctl(&self, t: &Thread, request: u32, arg: u64) -> SysResult {
        if !matches!(request, ioctl::FIONREAD | ioctl::TIOCOUTQ) {
            return interface::ioctl(t, request, arg);
        }
        UserAddr(arg).write(&self.host()?.ioctl_int(request)?)?;
        Ok(0)
    }

    fn released(&self) {
        self.outside.close();
        self.base.wake_all();
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// Whether `protocol` is the one of `ping(8)` in `family`.
#[must_use]
pub fn is_ping(family: u32, protocol: i32) -> bool {
    const ICMP: i32 = 1;
    const ICMP_V6: i32 = 58;
    let own = if endpoint::is_v6(family) {
        ICMP_V6
    } else {
        ICMP
    };
    protocol == own
}
