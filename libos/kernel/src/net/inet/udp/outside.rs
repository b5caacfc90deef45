//! The host's side of a UDP socket.

use alloc::sync::Arc;
use core::net::SocketAddr;

use husk_abi::linux::ioctl;

use super::UdpSocket;
use crate::fs::PollEvents;
use crate::net::host::{HostSocket, Outside};
use crate::net::inet::{Taken, endpoint, sides};
use crate::net::{Incoming, Outgoing};
use crate::{Errno, Kernel, Result, SysResult, Thread};

impl UdpSocket {
    /// A socket that was handed over from outside.
    ///
    /// # Errors
    /// As [`HostSocket::taken`].
    pub fn handed(kernel: &'static Kernel, taken: &Taken) -> Result<Arc<Self>> {
        let family = taken.family;
        let socket = Self::with_outside(kernel, family, |base| {
            let host = HostSocket::taken(base, taken.session, taken.index)?;
            Ok(Outside::shared(host, true))
        })?;
        let host = socket.outside.get().ok_or(Errno::EIO)?;
        let own = endpoint::parse(family, &host.name(false)?)?;
        let remote = match host.name(true) {
            Ok(name) if taken.connected => Some(endpoint::parse(family, &name)?),
            _ => None,
        };
        {
            let mut inner = socket.inner.lock();
            inner.local = (own.port() != 0).then_some(own);
            inner.is_bound = own.port() != 0;
            inner.remote = remote;
        }
        Ok(socket)
    }

    fn may_lead_out(&self) -> bool {
        self.base.kernel.net.host.is_available()
    }

    /// `bind(2)`, outside as well as inside.
    pub(super) fn bind_both(
        &self,
        t: &Thread,
        bytes: &[u8],
        address: SocketAddr,
        by_program: bool,
    ) -> Result<()> {
        let take = |address| self.bind_to(t, address, by_program);
        sides::bind(&self.outside, &self.base, bytes, address, take, || {
            self.leave_port();
        })?;
        self.outside.buffer();
        Ok(())
    }

    /// `connect(2)` of the host's side; gives the address it has then.
    pub(super) fn connect_outside(&self, bytes: &[u8]) -> Result<Option<SocketAddr>> {
        if !self.may_lead_out() {
            return Ok(None);
        }
        let host = self.outside.open(&self.base)?;
        host.connect(bytes)?;
        endpoint::parse(self.base.family, &host.name(false)?).map(Some)
    }

    /// `connect(2)` to nobody, of the host's side.
    pub(super) fn disconnect_outside(&self) {
        const NOBODY: [u8; 16] = [0; 16];
        if let Some(host) = self.outside.get() {
            let _ = host.connect(&NOBODY);
        }
    }

    /// Whether a datagram to `to` leaves the guest: what no route inside leads to, and what nobody inside takes.
    pub(super) fn goes_out(&self, to: SocketAddr, route: Option<(SocketAddr, SocketAddr)>) -> bool {
        let is_taken = route.is_some_and(|(to, from)| self.ports().find(to, from).is_some());
        // A broadcast without permission is an error inside, too.
        let is_refused = route.is_none() && to.ip().is_loopback();
        self.may_lead_out() && !is_taken && !is_refused
    }

    pub(super) fn send_outside(&self, t: &Thread, message: &mut Outgoing<'_, '_>) -> SysResult {
        let host = self.outside.open(&self.base)?;
        let patience = self.base.send_patience(message.is_nonblocking());
        host.send_message(t, patience, message)
    }

    /// A datagram from outside, if there is one: what the call returns.
    pub(super) fn receive_outside(&self, message: &mut Incoming<'_, '_>) -> Option<SysResult> {
        const NEWS: PollEvents = PollEvents::IN.union(PollEvents::ERR).union(PollEvents::HUP);
        let host = self.outside.get()?;
        if !host.ready().intersects(NEWS) {
            return None;
        }
        match host.receive_message(message) {
            Err(Errno::EAGAIN) => None,
            result => Some(result),
        }
    }

    /// What is in the queue of errors (`MSG_ERRQUEUE`): only the host's side has any.
    pub(super) fn receive_error(&self, message: &mut Incoming<'_, '_>) -> SysResult {
        match self.outside.get() {
            Some(host) => host.receive_message(message),
            None => Err(Errno::EAGAIN),
        }
    }

    /// What is ready outside; there is always room to send.
    pub(super) fn ready_outside(&self) -> PollEvents {
        let host = self.outside.get();
        host.map_or(PollEvents::empty(), |host| host.ready())
    }

    /// Bytes of the next datagram from outside.
    pub(super) fn next_bytes_outside(&self) -> usize {
        let bytes = self
            .outside
            .get()
            .map(|host| host.ioctl_int(ioctl::FIONREAD));
        match bytes {
            Some(Ok(bytes)) => usize::try_from(bytes).unwrap_or(0),
            _ => 0,
        }
    }
}
