//! Connections whose other end is outside: the host's socket does everything but wait.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use husk_abi::linux::net;

use super::{Phase, TcpSocket};
use crate::fs::PollEvents;
use crate::fs::poll::PollTable;
use crate::net::host::{Accepted, HostSocket, Outside};
use crate::net::inet::options::InetOptions;
use crate::net::inet::ports::{Claim, Scope};
use crate::net::inet::{Taken, endpoint, sides};
use crate::net::{Incoming, Outgoing, Patience};
use crate::{Errno, Kernel, Result, SysResult, Thread};

impl TcpSocket {
    /// The host's socket of a connection, or an attempt, that leads out.
    pub(super) fn leads_out(&self) -> Option<Arc<HostSocket>> {
        let leads_out = self.inner.lock().leads_out;
        if leads_out { self.outside.get() } else { None }
    }

    fn may_lead_out(&self) -> bool {
        self.base.kernel.net.host.is_available()
    }

    /// `bind(2)`, outside as well as inside.
    pub(super) fn bind_both(&self, t: &Thread, bytes: &[u8], address: SocketAddr) -> Result<()> {
        let take = |address| self.bind_to(t, address, true);
        sides::bind(&self.outside, &self.base, bytes, address, take, || {
            self.give_up_port(false);
        })
    }

    /// Has the host listen; a socket without a port gets one.
    pub(super) fn listen_outside(&self, t: &Thread, backlog: u32) -> Result<()> {
        if !self.may_lead_out() {
            return Ok(());
        }
        if self.inner.lock().local.is_none() {
            let any = SocketAddr::new(endpoint::unspecified(self.base.family), 0);
            let bytes = endpoint::to_bytes(self.base.family, any);
            self.bind_both(t, &bytes, any)?;
            self.inner.lock().is_bound = false;
        }
        self.outside.open(&self.base)?.listen(backlog)
    }

    /// The next connection from outside, if there is one.
    pub(super) fn accept_outside(&self) -> Option<Result<Arc<TcpSocket>>> {
        let host = self.outside.get()?;
        let ready = host.ready();
        if !ready.intersects(PollEvents::IN | PollEvents::ERR | PollEvents::HUP) {
            return None;
        }
        match host.accept() {
            Err(Errno::EAGAIN) => None,
            accepted => Some(accepted.and_then(|accepted| self.embryo_outside(&accepted))),
        }
    }

    /// The socket of a connection that came in from outside.
    fn embryo_outside(&self, accepted: &Accepted) -> Result<Arc<TcpSocket>> {
        let (kernel, family) = (self.base.kernel, self.base.family);
        let embryo = Self::with_options(kernel, family, self.options.inherit(), |base| {
            HostSocket::of_accepted(base, accepted).map(|host| self.outside.accepted(host))
        })?;
        let inherited = self.base.options();
        embryo.base.edit_options(|options| *options = inherited);
        let own = endpoint::parse(family, &accepted.own)?;
        let peer = endpoint::parse(family, &accepted.peer)?;
        embryo.connected_outside(own, peer);
        Ok(embryo)
    }

    /// A socket that was handed over from outside.
    ///
    /// # Errors
    /// As [`HostSocket::taken`].
    pub fn handed(kernel: &'static Kernel, taken: &Taken) -> Result<Arc<Self>> {
        let family = taken.family;
        let socket = Self::with_options(kernel, family, InetOptions::default(), |base| {
            let host = HostSocket::taken(base, taken.session, taken.index)?;
            Ok(Outside::shared(host, taken.connected))
        })?;
        let host = socket.outside.get().ok_or(Errno::EIO)?;
        let own = endpoint::parse(family, &host.name(false)?)?;
        if taken.connected {
            let peer = endpoint::parse(family, &host.name(true)?)?;
            socket.connected_outside(own, peer);
        } else {
            let mut inner = socket.inner.lock();
            inner.local = (own.port() != 0).then_some(own);
            inner.is_bound = own.port() != 0;
            if taken.listens {
                inner.phase = Phase::Listening;
            }
        }
        Ok(socket)
    }

    /// It is connected, or about to be, by the host's socket.
    fn connected_outside(&self, own: SocketAddr, peer: SocketAddr) {
        let had = {
            let mut inner = self.inner.lock();
            inner.phase = Phase::Connected;
            inner.leads_out = true;
            inner.was_connected = true;
            inner.remote = Some(peer);
            inner.local.replace(own)
        };
        self.outside.buffer();
        let claim = |claim: &mut Claim| {
            claim.scope = Scope::One(own.ip());
            claim.remote = Some(peer);
        };
        if had.is_some_and(|had| had.port() == own.port()) {
            self.ports().update(self.number, own.port(), claim);
            return;
        }
        let mut new = Claim {
            scope: Scope::One(own.ip()),
            reuse_address: false,
            reuse_port: false,
            user: 0,
            is_listening: false,
            remote: None,
        };
        claim(&mut new);
        self.ports()
            .add_connection(self.number, &self.weak, own.port(), new);
    }

    /// `connect(2)` to `to`, which `bytes` are, by the host's socket.
    pub(super) fn connect_outside(
        &self,
        t: &Thread,
        bytes: &[u8],
        to: SocketAddr,
        patience: Patience,
    ) -> Result<()> {
        let host = self.outside.open(&self.base)?;
        let result = host.connect(bytes);
        if matches!(result, Ok(()) | Err(Errno::EINPROGRESS | Errno::EALREADY))
            && !self.inner.lock().leads_out
        {
            let own = endpoint::parse(self.base.family, &host.name(false)?)?;
            self.connected_outside(own, to);
        }
        let failed = |errno| {
            self.left_outside();
            errno
        };
        match result {
            Err(Errno::EINPROGRESS | Errno::EALREADY) if patience != Patience::Never => {
                // Asking again tells how it ended, as a call that waited would, and lets the next attempt begin.
                let writers = &self.base.writers;
                let ended = host.wait(t, patience, writers, PollEvents::OUT, || {
                    host.connect(bytes).map_err(|errno| match errno {
                        Errno::EALREADY => Errno::EAGAIN,
                        errno => errno,
                    })
                });
                match ended {
                    Ok(()) | Err(Errno::EISCONN) => Ok(()),
                    // As Linux says that time is over.
                    Err(Errno::EAGAIN) => Err(Errno::EINPROGRESS),
                    Err(errno @ (Errno::ERESTARTSYS | Errno::EINTR)) => Err(errno),
                    Err(errno) => Err(failed(errno)),
                }
            }
            Err(errno @ (Errno::EINPROGRESS | Errno::EALREADY | Errno::EISCONN)) => Err(errno),
            result => result.map_err(failed),
        }
    }

    /// What failed leads nowhere: the next attempt may lead inside.
    fn left_outside(&self) {
        {
            let mut inner = self.inner.lock();
            if !inner.leads_out {
                return;
            }
            inner.leads_out = false;
            inner.phase = Phase::Closed;
            inner.remote = None;
        }
        if let Some(host) = self.outside.get() {
            host.set_buffered(false);
        }
        self.give_up_port(true);
    }

    /// `connect(2)` to nobody.
    pub(super) fn disconnect_outside(&self) {
        const NOBODY: [u8; 16] = [0; 16];
        if let Some(host) = self.leads_out() {
            let _ = host.connect(&NOBODY);
            self.left_outside();
        }
    }

    pub(super) fn send_outside(
        &self,
        t: &Thread,
        host: &HostSocket,
        message: &mut Outgoing<'_, '_>,
    ) -> SysResult {
        let patience = self.base.send_patience(message.is_nonblocking());
        host.send_bytes(t, patience, message)
    }

    pub(super) fn receive_outside(
        &self,
        t: &Thread,
        host: &HostSocket,
        message: &mut Incoming<'_, '_>,
    ) -> SysResult {
        if message.flags & net::MSG_ERRQUEUE != 0 {
            return host.receive_message(message);
        }
        let size = message.buf.remaining();
        let target = if message.flags & net::MSG_WAITALL != 0 {
            size
        } else {
            size.min(self.base.options().receive_low_water)
        };
        let patience = self.base.receive_patience(message.is_nonblocking());
        host.receive_bytes(t, patience, target.max(1), message)
    }

    pub(super) fn ready_outside(
        &self,
        host: &HostSocket,
        table: Option<&mut PollTable<'_>>,
    ) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.base.readers);
            table.register(&self.base.writers);
        }
        let mut events = host.ready();
        if self.base.has_error() {
            events |= PollEvents::ERR;
        }
        if !events.contains(PollEvents::OUT) {
            self.base.note_no_room();
        }
        events
    }

    /// An option's value as the host has it, where it is the host's to know.
    pub(super) fn option_outside(&self, option: (u32, u32), room: usize) -> Option<Vec<u8>> {
        let host = self.leads_out()?;
        host.option(option, room).ok()
    }
}
