//! Connecting, listening, accepting, shutting down, closing; readiness.

use alloc::sync::Arc;
use core::mem;

use husk_abi::linux::net;

use super::{Identity, Phase, Shut, UnixSocket, names, rights};
use crate::fs::PollEvents;
use crate::fs::poll::PollTable;
use crate::net::options::Switches;
use crate::net::{Patience, Shutdown, Socket, address};
use crate::{Errno, Result, Thread};

/// The receiving and the ready-to-read events.
const READABLE: PollEvents = PollEvents::IN.union(PollEvents::RDNORM);
const WRITABLE: PollEvents = PollEvents::OUT
    .union(PollEvents::WRNORM)
    .union(PollEvents::WRBAND);

impl UnixSocket {
    /// `listen(2)`.
    pub(super) fn start_listening(&self, t: &Thread, backlog: u32) -> Result<()> {
        if !self.is_connecting_kind() {
            return Err(Errno::EOPNOTSUPP);
        }
        if self.outlet.name().is_none() {
            return Err(Errno::EINVAL);
        }
        {
            let mut inner = self.inner.lock();
            if inner.phase == Phase::Connected {
                return Err(Errno::EINVAL);
            }
            inner.phase = Phase::Listening;
            inner.backlog = backlog;
            inner.listener = Some(Identity::current(t));
        }
        self.room.wake_all();
        Ok(())
    }

    /// `connect(2)` of a stream or of sequenced packets.
    pub(super) fn connect_stream(
        &self,
        t: &Thread,
        address: &[u8],
        nonblocking: bool,
    ) -> Result<()> {
        names::check(address)?;
        self.name_for_credentials()?;
        let patience = self.base.send_patience(nonblocking);
        if self.connect_outside(t, address, patience)? {
            return Ok(());
        }
        let embryo = UnixSocket::new(self.base.kernel, self.base.kind);
        let result = loop {
            let listener = match self.find(t, address) {
                Ok(listener) => listener,
                Err(error) => break Err(error),
            };
            match self.join_queue(t, &listener, &embryo) {
                Err(Errno::EAGAIN) => {
                    let has_room = || {
                        let inner = listener.inner.lock();
                        let waits = inner.phase == Phase::Listening
                            && !inner.shut.receiving
                            && inner.has_embryos_enough();
                        (!waits).then_some(())
                    };
                    if let Err(error) = patience.wait(t, &listener.room, has_room) {
                        break Err(error);
                    }
                }
                result => break result.map(|()| listener),
            }
        };
        match result {
            Ok(listener) => {
                listener.base.readers.wake_all();
                Ok(())
            }
            Err(error) => {
                embryo.close(false);
                Err(error)
            }
        }
    }

    /// Puts `embryo`, this socket's peer to be, into the listener's queue; `EAGAIN` if that is full.
    fn join_queue(
        &self,
        t: &Thread,
        listener: &Arc<UnixSocket>,
        embryo: &Arc<UnixSocket>,
    ) -> Result<()> {
        // What the embryo inherits is settled before anybody can see it.
        let identity = {
            let inner = listener.inner.lock();
            if inner.phase != Phase::Listening || inner.shut.receiving {
                return Err(Errno::ECONNREFUSED);
            }
            if inner.has_embryos_enough() {
                return Err(Errno::EAGAIN);
            }
            inner.listener.clone()
        };
        {
            let mut inner = self.inner.lock();
            match inner.phase {
                Phase::Unconnected => {}
                Phase::Connected => return Err(Errno::EISCONN),
                Phase::Listening => return Err(Errno::EINVAL),
            }
            inner.phase = Phase::Connected;
            inner.peer = Some(embryo.clone());
            inner.peer_identity = identity;
        }
        {
            let mut inner = embryo.inner.lock();
            inner.is_embryo = true;
            inner.phase = Phase::Connected;
            inner.peer = Some(self.arc());
            inner.peer_identity = Some(Identity::current(t));
        }
        if let Some(name) = listener.outlet.name() {
            embryo.outlet.set_name(name);
        }
        let passes = listener.passes_credentials();
        embryo
            .base
            .edit_options(|options| options.switches.set(Switches::PASS_CREDENTIALS, passes));
        let joined = {
            let mut inner = listener.inner.lock();
            if inner.phase != Phase::Listening || inner.shut.receiving {
                Err(Errno::ECONNREFUSED)
            } else if inner.has_embryos_enough() {
                Err(Errno::EAGAIN)
            } else {
                inner.embryos.push_back(embryo.clone());
                Ok(())
            }
        };
        if joined.is_err() {
            // Somebody was faster: as if nothing had happened.
            let peers = [self, embryo].map(|socket| {
                let mut inner = socket.inner.lock();
                inner.phase = Phase::Unconnected;
                inner.peer_identity = None;
                inner.peer.take()
            });
            drop(peers);
        }
        joined
    }

    /// `accept(2)`.
    pub(super) fn accept_next(&self, t: &Thread, nonblocking: bool) -> Result<Arc<UnixSocket>> {
        if !self.is_connecting_kind() {
            return Err(Errno::EOPNOTSUPP);
        }
        if !self.is_listening() {
            return Err(Errno::EINVAL);
        }
        let patience = self.base.receive_patience(nonblocking);
        if let Some(remote) = self.remote() {
            return self.accept_outside(t, &remote, patience);
        }
        let next = || {
            let mut inner = self.inner.lock();
            if let Some(embryo) = inner.embryos.pop_front() {
                return Some(Ok(embryo));
            }
            inner.shut.receiving.then_some(Err(Errno::EINVAL))
        };
        let embryo = patience.wait(t, &self.base.readers, next)??;
        self.room.wake_all();
        embryo.inner.lock().is_embryo = false;
        Ok(embryo)
    }

    /// `connect(2)` of a datagram socket: where it sends to, and whom it receives from.
    pub(super) fn connect_datagrams(&self, t: &Thread, address: &[u8]) -> Result<()> {
        let peer = match address::family(address) {
            None => return Err(Errno::EINVAL),
            Some(family) if u32::from(family) == net::AF_UNSPEC => None,
            Some(_) => {
                names::check(address)?;
                self.name_for_credentials()?;
                if self.connect_outside(t, address, Patience::Forever)? {
                    return Ok(());
                }
                let peer = self.find(t, address)?;
                if !peer.takes_from(self) {
                    return Err(Errno::EPERM);
                }
                Some(peer)
            }
        };
        if let Some(peer) = &peer {
            peer.inner.lock().followers.push(self.weak.clone());
        }
        let new = peer.as_ref().map(Arc::as_ptr);
        let old = {
            let mut inner = self.inner.lock();
            inner.phase = if peer.is_some() {
                Phase::Connected
            } else {
                Phase::Unconnected
            };
            mem::replace(&mut inner.peer, peer)
        };
        let remote = self.remote.lock().take();
        drop(remote);
        if let Some(old) = old {
            old.forget_follower(self);
            if Some(Arc::as_ptr(&old)) != new {
                self.disconnected_from(&old);
            }
        }
        self.base.writers.wake_all();
        Ok(())
    }

    /// Whether it takes messages from `sender`: a connected socket does from its peer only.
    pub(super) fn takes_from(&self, sender: &UnixSocket) -> bool {
        let inner = self.inner.lock();
        inner.peer.is_none() || inner.is_peer(sender)
    }

    /// A datagram socket that is no longer connected to `old` loses what it received. If `old` was connected
    /// to it, it is told.
    pub(super) fn disconnected_from(&self, old: &UnixSocket) {
        let lost = mem::take(&mut self.inner.lock().messages);
        if lost.is_empty() {
            return;
        }
        drop(lost);
        self.announce_room();
        let is_mutual = {
            let inner = old.inner.lock();
            !inner.is_dead && inner.is_peer(self)
        };
        if is_mutual {
            old.base.set_error(Errno::ECONNRESET);
            old.base.wake_all();
        }
    }

    fn forget_follower(&self, follower: &UnixSocket) {
        let mut inner = self.inner.lock();
        let followers = &mut inner.followers;
        if let Some(index) = followers
            .iter()
            .position(|other| other.ptr_eq(&follower.weak))
        {
            followers.swap_remove(index);
        }
    }

    /// There is room in the queue of messages again.
    pub(super) fn announce_room(&self) {
        self.room.wake_all();
        let followers = {
            let inner = self.inner.lock();
            if inner.followers.is_empty() {
                return;
            }
            inner.followers.clone()
        };
        for follower in followers.iter().filter_map(|follower| follower.upgrade()) {
            follower.base.writers.wake_all();
        }
    }

    /// `shutdown(2)`: also shuts the other half of the peer of a connection.
    pub(super) fn shut_down(&self, how: Shutdown) {
        let peer = {
            let mut inner = self.inner.lock();
            inner.shut.receiving |= how.reads();
            inner.shut.sending |= how.writes();
            inner.peer.clone()
        };
        self.base.wake_all();
        self.room.wake_all();
        let Some(peer) = peer.filter(|_| self.is_connecting_kind()) else {
            return;
        };
        {
            let mut inner = peer.inner.lock();
            inner.shut.sending |= how.reads();
            inner.shut.receiving |= how.writes();
        }
        peer.base.wake_all();
    }

    /// The end: nobody has it any more. `as_embryo`: nobody ever had, its listener is closed.
    pub(super) fn close(&self, as_embryo: bool) {
        let (phase, peer, messages, embryos, bound) = {
            let mut inner = self.inner.lock();
            if mem::replace(&mut inner.is_dead, true) {
                return;
            }
            inner.shut = Shut::BOTH;
            inner.followers.clear();
            (
                mem::replace(&mut inner.phase, Phase::Unconnected),
                inner.peer.take(),
                mem::take(&mut inner.messages),
                mem::take(&mut inner.embryos),
                inner.bound.take(),
            )
        };
        let kernel = self.base.kernel;
        kernel.net.unix.sockets.lock().remove(&self.number);
        let remote = self.remote.lock().take();
        drop(remote);
        self.give_up_name(bound);
        self.base.wake_all();
        self.room.wake_all();
        if let Some(peer) = peer {
            if self.is_connecting_kind() {
                // In a stream only a mark that was read is empty, and nothing that gets lost.
                let has_unread = messages
                    .iter()
                    .any(|message| !self.is_stream() || message.len() > 0);
                peer.inner.lock().shut = Shut::BOTH;
                if has_unread || as_embryo {
                    peer.base.set_error(Errno::ECONNRESET);
                }
                peer.base.wake_all();
            } else {
                peer.forget_follower(self);
            }
        }
        debug_assert!(embryos.is_empty() || phase == Phase::Listening);
        for embryo in embryos {
            embryo.close(true);
        }
        drop(messages);
        rights::collect_if_any(kernel);
    }

    /// Readiness (`poll(2)`).
    pub(super) fn readiness(&self, table: Option<&mut PollTable<'_>>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.base.readers);
            table.register(&self.base.writers);
        }
        let mut events = PollEvents::empty();
        if self.base.has_error() {
            events |= PollEvents::ERR;
        }
        let (phase, peer) = {
            let inner = self.inner.lock();
            if inner.shut.is_both() {
                events |= PollEvents::HUP;
            }
            if inner.shut.receiving {
                events |= PollEvents::RDHUP | READABLE;
            }
            if !inner.messages.is_empty() || !inner.embryos.is_empty() {
                events |= READABLE;
            }
            if inner.urgent.is_some() {
                events |= PollEvents::PRI;
            }
            if self.is_connecting_kind() && inner.phase == Phase::Unconnected {
                events |= PollEvents::HUP;
            }
            let peer = inner.peer.clone().filter(|_| !self.is_stream());
            (inner.phase, peer)
        };
        let peer_is_full = peer.is_some_and(|peer| {
            let inner = peer.inner.lock();
            !inner.is_peer(self) && inner.is_full() && !inner.is_dead
        });
        if phase != Phase::Listening && self.outlet.is_writable() && !peer_is_full {
            events |= WRITABLE;
        } else {
            self.base.note_no_room();
        }
        events
    }
}
