//! Connecting, listening, accepting, shutting down, closing; readiness.

use alloc::sync::Arc;
use core::mem;
use core::net::{IpAddr, SocketAddr};

use super::{LOOPBACK_SEND_BUFFER, Phase, SEND_BUFFER, TcpSocket};
use crate::fs::PollEvents;
use crate::fs::poll::PollTable;
use crate::net::inet::endpoint;
use crate::net::inet::options::V6_ONLY;
use crate::net::inet::ports::{Claim, Scope};
use crate::net::{Patience, Shutdown};
use crate::{Errno, Result, Thread};

/// What became of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Connected,
    /// The listener's queue is full.
    Waiting,
    Refused,
}

impl TcpSocket {
    /// `listen(2)`; a socket without a port gets one.
    pub(super) fn start_listening(&self, t: &Thread, backlog: u32) -> Result<()> {
        {
            let mut inner = self.inner.lock();
            match inner.phase {
                Phase::Listening => {
                    inner.backlog = backlog as usize;
                    drop(inner);
                    return self.listen_outside(t, backlog);
                }
                Phase::Closed if !inner.is_attempt_open => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        self.listen_outside(t, backlog)?;
        let local = self.inner.lock().local;
        let local = match local {
            Some(local) => local,
            None => {
                let any = endpoint::unspecified(self.base.family);
                self.bind_to(t, SocketAddr::new(any, 0), false)?;
                self.inner.lock().local.ok_or(Errno::EINVAL)?
            }
        };
        // Whether the port may be shared is as the options say now.
        let claim = self.claim(t, local.ip());
        self.ports()
            .update(self.number, local.port(), |old| *old = claim);
        self.ports().listen(self.number, local.port())?;
        let mut inner = self.inner.lock();
        inner.phase = Phase::Listening;
        inner.backlog = backlog as usize;
        inner.shut_receiving = false;
        inner.shut_sending = false;
        Ok(())
    }

    /// `connect(2)`.
    pub(super) fn connect_to(&self, t: &Thread, address: &[u8], nonblocking: bool) -> Result<()> {
        if endpoint::is_none(address) {
            self.disconnect();
            return Ok(());
        }
        let patience = self.base.send_patience(nonblocking);
        if self.leads_out().is_some() {
            let to = endpoint::parse(self.base.family, address)?;
            return self.connect_outside(t, address, to, patience);
        }
        let (phase, was_open) = {
            let mut inner = self.inner.lock();
            let still_open = inner.phase == Phase::Connecting;
            (
                inner.phase,
                mem::replace(&mut inner.is_attempt_open, still_open),
            )
        };
        match (phase, was_open) {
            (Phase::Connecting, _) if nonblocking => return Err(Errno::EALREADY),
            (Phase::Connecting, _) => return self.wait_connected(t, patience),
            (Phase::Connected, true) => return Ok(()),
            (Phase::Connected | Phase::Listening, _) => return Err(Errno::EISCONN),
            // How the attempt went is told once.
            (Phase::Closed, true) => {
                return Err(self.base.take_error().unwrap_or(Errno::ECONNABORTED));
            }
            (Phase::Closed, false) => {}
        }
        let to = endpoint::parse(self.base.family, address)?;
        let is_v6 = endpoint::is_v6(self.base.family);
        if to.is_ipv4() && is_v6 && self.options.is_on(V6_ONLY) {
            return Err(Errno::ENETUNREACH);
        }
        let route = endpoint::route(to.ip(), true);
        if self.is_outside(to, route.ok()) {
            return self.connect_outside(t, address, to, patience);
        }
        let (ip, source) = route?;
        let to = SocketAddr::new(ip, to.port());
        let local = match self.inner.lock().local {
            Some(local) if local.ip().is_unspecified() => SocketAddr::new(source, local.port()),
            Some(local) => local,
            None => SocketAddr::new(source, 0),
        };
        if local.port() == 0 {
            self.bind_to(t, local, false)
                .map_err(|_| Errno::EADDRNOTAVAIL)?;
        } else if self.ports().has_connection(local, to) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let attempt = self.attempt(to);
        if nonblocking {
            self.inner.lock().is_attempt_open = true;
            if attempt == Attempt::Refused {
                self.base.set_error(Errno::ECONNREFUSED);
                self.base.wake_all();
            }
            return Err(Errno::EINPROGRESS);
        }
        match attempt {
            Attempt::Connected => Ok(()),
            Attempt::Refused => Err(Errno::ECONNREFUSED),
            Attempt::Waiting => self.wait_connected(t, patience),
        }
    }

    fn wait_connected(&self, t: &Thread, patience: Patience) -> Result<()> {
        let done = || (self.inner.lock().phase != Phase::Connecting).then_some(());
        patience
            .wait(t, &self.connecting, done)
            .map_err(|error| match error {
                Errno::EAGAIN => Errno::EINPROGRESS,
                error => error,
            })?;
        let mut inner = self.inner.lock();
        inner.is_attempt_open = false;
        let phase = inner.phase;
        drop(inner);
        if phase == Phase::Connected {
            return Ok(());
        }
        Err(self.base.take_error().unwrap_or(Errno::ECONNREFUSED))
    }

    /// Whether whoever is at `to` is outside: what no route inside leads to, and what nobody inside listens at.
    fn is_outside(&self, to: SocketAddr, route: Option<(IpAddr, IpAddr)>) -> bool {
        let Some((ip, source)) = route else {
            return self.base.kernel.net.host.is_available();
        };
        let to = SocketAddr::new(ip, to.port());
        let from = self.inner.lock().local;
        let from = from.unwrap_or(SocketAddr::new(source, 0));
        self.base.kernel.net.host.is_available() && self.ports().find(to, from).is_none()
    }

    /// Connects to whoever listens at `to`.
    fn attempt(&self, to: SocketAddr) -> Attempt {
        let Some(mut local) = self.inner.lock().local else {
            return Attempt::Refused;
        };
        if local.ip().is_unspecified()
            && let Ok((_, source)) = endpoint::route(to.ip(), true)
        {
            local.set_ip(source);
        }
        {
            let mut inner = self.inner.lock();
            inner.local = Some(local);
            inner.remote = Some(to);
            inner.phase = Phase::Connecting;
            inner.shut_receiving = false;
            inner.shut_sending = false;
            inner.peer_finished = false;
        }
        self.ports().update(self.number, local.port(), |claim| {
            claim.scope = Scope::One(local.ip());
            claim.remote = Some(to);
        });
        let attempt = match self.ports().find(to, local) {
            Some(listener) => self.join_queue(&listener),
            None => Attempt::Refused,
        };
        if attempt == Attempt::Refused {
            self.unconnect(true);
        }
        attempt
    }

    /// After an attempt that failed: as before it, except that a socket that was `refused` reads as ended.
    fn unconnect(&self, refused: bool) {
        {
            let mut inner = self.inner.lock();
            inner.shut_receiving = refused;
            inner.shut_sending = refused;
            inner.phase = Phase::Closed;
            inner.remote = None;
        }
        self.give_up_port(true);
    }

    /// Enters the queue of `listener`, or waits for room in it.
    fn join_queue(&self, listener: &Arc<TcpSocket>) -> Attempt {
        let (local, remote) = {
            let inner = self.inner.lock();
            match (inner.local, inner.remote) {
                (Some(local), Some(remote)) => (local, remote),
                _ => return Attempt::Refused,
            }
        };
        let has_room = {
            let mut inner = listener.inner.lock();
            if inner.phase != Phase::Listening {
                return Attempt::Refused;
            }
            let has_room = inner.embryos.len() <= inner.backlog;
            if !has_room {
                inner.waiting.push_back(self.weak.clone());
            }
            has_room
        };
        if !has_room {
            return Attempt::Waiting;
        }
        let embryo = TcpSocket::inside(
            self.base.kernel,
            listener.base.family,
            listener.options.inherit(),
        );
        let inherited = listener.base.options();
        embryo.base.edit_options(|options| *options = inherited);
        for (socket, peer, own, other) in [
            (self, &embryo, local, remote),
            (&*embryo, &self.arc(), remote, local),
        ] {
            socket.base.edit_options(|options| {
                if options.send_buffer == SEND_BUFFER {
                    options.send_buffer = LOOPBACK_SEND_BUFFER;
                }
            });
            let mut inner = socket.inner.lock();
            inner.local = Some(own);
            inner.remote = Some(other);
            inner.peer = Some(peer.clone());
            inner.phase = Phase::Connected;
            inner.was_connected = true;
        }
        let claim = Claim {
            scope: Scope::One(remote.ip()),
            reuse_address: inherited.has(crate::net::options::Switches::REUSE_ADDRESS),
            reuse_port: inherited.has(crate::net::options::Switches::REUSE_PORT),
            user: 0,
            is_listening: false,
            remote: Some(local),
        };
        self.ports()
            .add_connection(embryo.number, &embryo.weak, remote.port(), claim);
        let is_queued = {
            let mut inner = listener.inner.lock();
            let listens = inner.phase == Phase::Listening;
            if listens {
                inner.embryos.push_back(embryo.clone());
            }
            listens
        };
        if !is_queued {
            let peer = self.inner.lock().peer.take();
            drop(peer);
            embryo.inner.lock().peer = None;
            embryo.close(false);
            return Attempt::Refused;
        }
        listener.base.readers.wake_all();
        self.connecting.wake_all();
        self.base.connected();
        Attempt::Connected
    }

    /// `accept(2)`.
    pub(super) fn accept_next(&self, t: &Thread, nonblocking: bool) -> Result<Arc<TcpSocket>> {
        if self.inner.lock().phase != Phase::Listening {
            return Err(Errno::EINVAL);
        }
        let patience = self.base.receive_patience(nonblocking);
        let next = || {
            let mut inner = self.inner.lock();
            if let Some(embryo) = inner.embryos.pop_front() {
                return Some(Ok(embryo));
            }
            if inner.phase != Phase::Listening {
                return Some(Err(Errno::EINVAL));
            }
            drop(inner);
            self.accept_outside()
        };
        let embryo = patience.wait(t, &self.base.readers, next)??;
        self.admit_waiting();
        Ok(embryo)
    }

    /// Lets those in that wait for room in the queue.
    fn admit_waiting(&self) {
        loop {
            let next = {
                let mut inner = self.inner.lock();
                if inner.embryos.len() > inner.backlog {
                    return;
                }
                inner.waiting.pop_front()
            };
            let Some(next) = next else { return };
            let Some(socket) = next.upgrade() else {
                continue;
            };
            let waits = socket.inner.lock().phase == Phase::Connecting;
            if waits && socket.join_queue(&self.arc()) == Attempt::Refused {
                socket.refuse();
            }
        }
    }

    /// The attempt of a socket that waits has failed.
    fn refuse(&self) {
        self.unconnect(true);
        self.base.set_error(Errno::ECONNREFUSED);
        self.connecting.wake_all();
        self.base.wake_all();
    }

    /// `connect(2)` to nobody.
    fn disconnect(&self) {
        self.disconnect_outside();
        self.leave(true);
        {
            let mut inner = self.inner.lock();
            inner.phase = Phase::Closed;
            inner.remote = None;
            inner.is_attempt_open = false;
            inner.was_connected = false;
            inner.shut_receiving = false;
            inner.shut_sending = false;
            inner.peer_finished = false;
        }
        self.give_up_port(true);
        self.base.wake_all();
    }

    /// `shutdown(2)`.
    pub(super) fn shut_down(&self, how: Shutdown) -> Result<()> {
        let (phase, is_over) = {
            let inner = self.inner.lock();
            (inner.phase, inner.is_over())
        };
        match phase {
            Phase::Listening if how.reads() => {
                if let Some(host) = self.outside.get() {
                    let _ = host.shutdown(how);
                }
                self.leave(false);
                let mut inner = self.inner.lock();
                inner.phase = Phase::Closed;
                let local = inner.local;
                drop(inner);
                if let Some(local) = local {
                    self.ports().update(self.number, local.port(), |claim| {
                        claim.is_listening = false;
                    });
                }
            }
            Phase::Listening => {}
            Phase::Connecting => {
                self.unconnect(false);
                self.connecting.wake_all();
            }
            Phase::Closed | Phase::Connected => {
                let peer = {
                    let mut inner = self.inner.lock();
                    inner.shut_receiving |= how.reads();
                    let finishes = how.writes() && !inner.shut_sending;
                    inner.shut_sending |= how.writes();
                    inner.peer.clone().filter(|_| finishes)
                };
                if let Some(peer) = peer {
                    peer.finish();
                }
            }
        }
        self.base.wake_all();
        if is_over && phase != Phase::Listening {
            return Err(Errno::ENOTCONN);
        }
        Ok(())
    }

    /// The peer sends no more.
    fn finish(&self) {
        {
            let mut inner = self.inner.lock();
            if inner.phase != Phase::Connected {
                return;
            }
            inner.peer_finished = true;
            inner.shut_receiving = true;
        }
        self.base.wake_all();
    }

    /// The peer is gone and what was sent to it is lost.
    pub(super) fn reset(&self) {
        {
            let mut inner = self.inner.lock();
            if inner.is_over() {
                return;
            }
            self.base.set_error(if inner.peer_finished {
                Errno::EPIPE
            } else {
                Errno::ECONNRESET
            });
            inner.phase = Phase::Closed;
            inner.shut_receiving = true;
            inner.shut_sending = true;
        }
        self.base.wake_all();
    }

    /// Lets go of the peer, of connections not accepted and of those that wait. `abort`: the peer is reset
    /// even if nothing gets lost.
    fn leave(&self, abort: bool) {
        let (peer, received, embryos, waiting, was_over) = {
            let mut inner = self.inner.lock();
            let was_over = inner.is_over();
            (
                inner.peer.take(),
                inner.received.clear(),
                mem::take(&mut inner.embryos),
                mem::take(&mut inner.waiting),
                was_over,
            )
        };
        if let Some(peer) = peer
            && !was_over
        {
            let loses = received.len() > 0 || self.base.options().linger_seconds == Some(0);
            if abort || loses {
                peer.reset();
            } else {
                peer.finish();
            }
        }
        for embryo in embryos {
            embryo.close(true);
        }
        for socket in waiting.iter().filter_map(|socket| socket.upgrade()) {
            socket.refuse();
        }
    }

    /// The end: nobody has it any more. `abort`: nobody ever had, its listener is closed.
    pub(super) fn close(&self, abort: bool) {
        if mem::replace(&mut self.inner.lock().is_released, true) {
            return;
        }
        // Nobody new comes, before those that wait are refused.
        let was_listening = {
            let mut inner = self.inner.lock();
            let was_listening = inner.phase == Phase::Listening;
            if was_listening {
                inner.phase = Phase::Closed;
            }
            was_listening
        };
        self.leave(abort && !was_listening);
        {
            let mut inner = self.inner.lock();
            inner.phase = Phase::Closed;
            inner.shut_receiving = true;
            inner.shut_sending = true;
        }
        self.give_up_port(false);
        self.outside.close();
        self.connecting.wake_all();
        self.base.wake_all();
    }

    /// Readiness (`poll(2)`).
    pub(super) fn readiness(&self, table: Option<&mut PollTable<'_>>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.base.readers);
            table.register(&self.base.writers);
        }
        const READABLE: PollEvents = PollEvents::IN.union(PollEvents::RDNORM);
        let mut events = PollEvents::empty();
        let peer = {
            let inner = self.inner.lock();
            if inner.phase == Phase::Listening {
                if !inner.embryos.is_empty() {
                    return READABLE;
                }
                drop(inner);
                let host = self.outside.get();
                return host.map_or(events, |host| host.ready() & READABLE);
            }
            if inner.is_over() && inner.phase == Phase::Closed
                || inner.shut_receiving && inner.shut_sending
            {
                events |= PollEvents::HUP;
            }
            if inner.shut_receiving {
                events |= READABLE | PollEvents::RDHUP;
            }
            if inner.phase != Phase::Connecting {
                if inner.received.len() >= self.base.options().receive_low_water {
                    events |= READABLE;
                }
                events |= PollEvents::OUT | PollEvents::WRNORM;
            }
            inner.peer.clone().filter(|_| !inner.shut_sending)
        };
        if let Some(peer) = peer
            && !self.has_much_room(&peer)
        {
            events.remove(PollEvents::OUT | PollEvents::WRNORM);
            self.base.note_no_room();
        }
        if self.base.has_error() {
            events |= PollEvents::ERR;
        }
        events
    }
}
