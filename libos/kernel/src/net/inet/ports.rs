//! Ports: who has which, and whom a packet is for.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::{AtomicUsize, Ordering};

use super::EPHEMERAL_PORTS;
use crate::fs::random;
use crate::sync::SpinLock;
use crate::{Errno, Result};

/// Which addresses of this host a socket takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One.
    One(IpAddr),
    /// All IPv4 addresses.
    AnyV4,
    /// All IPv6 addresses (`IPV6_V6ONLY`).
    AnyV6,
    /// All.
    Any,
}

impl Scope {
    /// Of a socket bound to `ip`; `only_v6` of an IPv6 socket.
    #[must_use]
    pub fn new(ip: IpAddr, only_v6: bool) -> Self {
        match ip {
            ip if !ip.is_unspecified() => Scope::One(ip),
            IpAddr::V4(_) => Scope::AnyV4,
            IpAddr::V6(_) if only_v6 => Scope::AnyV6,
            IpAddr::V6(_) => Scope::Any,
        }
    }

    fn takes(self, ip: IpAddr) -> bool {
        match self {
            Scope::One(own) => own == ip,
            Scope::AnyV4 => ip.is_ipv4(),
            Scope::AnyV6 => ip.is_ipv6(),
            Scope::Any => true,
        }
    }

    fn overlaps(self, other: Self) -> bool {
        match (self, other) {
            (Scope::One(ip), other) | (other, Scope::One(ip)) => other.takes(ip),
            (Scope::AnyV4, Scope::AnyV6) | (Scope::AnyV6, Scope::AnyV4) => false,
            _ => true,
        }
    }

    /// How well it fits what it takes.
    fn rank(self) -> u32 {
        match self {
            Scope::One(_) => 2,
            Scope::AnyV4 | Scope::AnyV6 => 1,
            Scope::Any => 0,
        }
    }
}

/// How a socket wants to have a port.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// On which addresses.
    pub scope: Scope,
    /// `SO_REUSEADDR`.
    pub reuse_address: bool,
    /// `SO_REUSEPORT`.
    pub reuse_port: bool,
    /// Whose it is: only one user's sockets share a port.
    pub user: u32,
    /// Listening, or of datagrams: two such exclude each other more than others do.
    pub is_listening: bool,
    /// The only sender it takes packets from.
    pub remote: Option<SocketAddr>,
}

impl Claim {
    /// Whether `new` may not have the port that this one has. `listeners_share`: `SO_REUSEADDR` is enough even
    /// if this one listens (UDP).
    fn excludes(&self, new: &Self, listeners_share: bool) -> bool {
        let by_address =
            self.reuse_address && new.reuse_address && (listeners_share || !self.is_listening);
        let by_port = self.reuse_port && new.reuse_port && self.user == new.user;
        self.scope.overlaps(new.scope) && !by_address && !by_port
    }
}

#[derive(Debug)]
struct Entry<S> {
    number: u64,
    claim: Claim,
    socket: Weak<S>,
}

/// The ports of one protocol.
#[derive(Debug)]
pub struct Ports<S> {
    entries: SpinLock<BTreeMap<u16, Vec<Entry<S>>>>,
    /// Turns among sockets that share a port.
    turn: AtomicUsize,
}

impl<S> Default for Ports<S> {
    fn default() -> Self {
        Self {
            entries: SpinLock::default(),
            turn: AtomicUsize::new(0),
        }
    }
}

impl<S> Ports<S> {
    /// Gives socket `number` a port: `port`, or a free one for 0. Returns which.
    ///
    /// # Errors
    /// `EADDRINUSE`.
    pub fn bind(
        &self,
        number: u64,
        socket: &Weak<S>,
        port: u16,
        claim: Claim,
        listeners_share: bool,
    ) -> Result<u16> {
        let mut entries = self.entries.lock();
        let is_free = |entries: &BTreeMap<u16, Vec<Entry<S>>>, port: u16, strictly: bool| {
            entries.get(&port).is_none_or(|entries| {
                entries.iter().all(|entry| {
                    let overlaps = strictly && entry.claim.scope.overlaps(claim.scope);
                    !overlaps && !entry.claim.excludes(&claim, listeners_share)
                })
            })
        };
        let port = if port != 0 {
            is_free(&entries, port, false).then_some(port)
        } else {
            let count = EPHEMERAL_PORTS.len();
            let mut seed = [0; 4];
            random::fill(&mut seed);
            let first = u32::from_ne_bytes(seed) as usize % count;
            (0..count)
                .map(|index| EPHEMERAL_PORTS.start() + ((first + index) % count) as u16)
                .find(|port| is_free(&entries, *port, true))
        };
        let port = port.ok_or(Errno::EADDRINUSE)?;
        entries.entry(port).or_default().push(Entry {
            number,
            claim,
            socket: socket.clone(),
        });
        Ok(port)
    }

    /// Adds a connection that came in at a port that is taken.
    pub fn add_connection(&self, number: u64, socket: &Weak<S>, port: u16, claim: Claim) {
        self.entries.lock().entry(port).or_default().push(Entry {
            number,
            claim,
            socket: socket.clone(),
        });
    }

    /// Changes how socket `number` has `port`.
    pub fn update(&self, number: u64, port: u16, change: impl FnOnce(&mut Claim)) {
        let mut entries = self.entries.lock();
        let entry = entries
            .get_mut(&port)
            .and_then(|entries| entries.iter_mut().find(|entry| entry.number == number));
        if let Some(entry) = entry {
            change(&mut entry.claim);
        }
    }

    /// Makes socket `number` the listener at `port`.
    ///
    /// # Errors
    /// `EADDRINUSE` if another one is, and they do not share it.
    pub fn listen(&self, number: u64, port: u16) -> Result<()> {
        let mut entries = self.entries.lock();
        let entries = entries.entry(port).or_default();
        let own = entries
            .iter()
            .position(|entry| entry.number == number)
            .ok_or(Errno::EINVAL)?;
        let mut claim = entries[own].claim;
        claim.is_listening = true;
        let is_taken = entries
            .iter()
            .any(|entry| entry.number != number && entry.claim.excludes(&claim, false));
        if is_taken {
            return Err(Errno::EADDRINUSE);
        }
        entries[own].claim = claim;
        Ok(())
    }

    /// Whether a socket connected from `local` to `remote` exists.
    #[must_use]
    pub fn has_connection(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let entries = self.entries.lock();
        entries.get(&local.port()).is_some_and(|entries| {
            entries.iter().any(|entry| {
                entry.claim.remote == Some(remote) && entry.claim.scope == Scope::One(local.ip())
            })
        })
    }

    /// Socket `number` has `port` no more.
    pub fn release(&self, number: u64, port: u16) {
        let mut entries = self.entries.lock();
        if let Some(list) = entries.get_mut(&port) {
            list.retain(|entry| entry.number != number);
            if list.is_empty() {
                entries.remove(&port);
            }
        }
    }

    /// The socket that a packet from `from` to `to` is for; those that share the best fit take turns.
    #[must_use]
    pub fn find(&self, to: SocketAddr, from: SocketAddr) -> Option<Arc<S>> {
        let entries = self.entries.lock();
        let fits = entries.get(&to.port())?.iter().filter_map(|entry| {
            let claim = &entry.claim;
            let is_for = claim.is_listening
                && claim.scope.takes(to.ip())
                && claim.remote.is_none_or(|remote| remote == from);
            let rank = claim.scope.rank() + u32::from(claim.remote.is_some()) * 4;
            is_for.then_some((rank, entry))
        });
        let best = fits.clone().map(|(rank, _)| rank).max()?;
        let best: Vec<&Entry<S>> = fits
            .filter(|(rank, _)| *rank == best)
            .map(|(_, entry)| entry)
            .collect();
        let shared = best.iter().all(|entry| entry.claim.reuse_port);
        let index = if shared && best.len() > 1 {
            self.turn.fetch_add(1, Ordering::Relaxed) % best.len()
        } else {
            // The last one bound, as on Linux.
            best.len() - 1
        };
        best[index].socket.upgrade()
    }

    /// Every socket that has a port.
    #[must_use]
    pub fn sockets(&self) -> Vec<Arc<S>> {
        let entries = self.entries.lock();
        let all = entries.values().flatten();
        all.filter_map(|entry| entry.socket.upgrade()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(ip: &str, reuse_address: bool, reuse_port: bool) -> Claim {
        Claim {
            scope: Scope::new(ip.parse().unwrap(), false),
            reuse_address,
            reuse_port,
            user: 0,
            is_listening: false,
            remote: None,
        }
    }

    #[test]
    fn conflicts() {
        let ports = Ports::<u8>::default();
        let none = Weak::new();
        let bind = |number, ip, address, port| {
            ports.bind(number, &none, 80, claim(ip, address, port), false)
        };
        assert_eq!(bind(1, "127.0.0.1", true, false), Ok(80));
        assert_eq!(bind(2, "127.0.0.2", false, false), Ok(80));
        assert_eq!(bind(3, "0.0.0.0", true, false), Err(Errno::EADDRINUSE));
        ports.release(2, 80);
        assert_eq!(bind(3, "0.0.0.0", true, false), Ok(80));
        assert_eq!(bind(4, "::1", false, false), Ok(80));
        assert_eq!(bind(5, "::", true, false), Err(Errno::EADDRINUSE));
        assert_eq!(ports.listen(1, 80), Ok(()));
        assert_eq!(ports.listen(3, 80), Err(Errno::EADDRINUSE));
        ports.release(1, 80);
        assert_eq!(ports.listen(3, 80), Ok(()));
        assert_eq!(bind(6, "127.0.0.9", true, false), Err(Errno::EADDRINUSE));
    }

    #[test]
    fn shared_ports_and_free_ones() {
        let ports = Ports::<u8>::default();
        let sockets = [Arc::new(0u8), Arc::new(1u8)];
        for (number, socket) in (0..).zip(&sockets) {
            let socket = Arc::downgrade(socket);
            ports
                .bind(number, &socket, 80, claim("0.0.0.0", false, true), false)
                .unwrap();
            ports.listen(number, 80).unwrap();
        }
        let to: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let found: Vec<u8> = (0..4).map(|_| *ports.find(to, to).unwrap()).collect();
        assert!(found.contains(&0) && found.contains(&1));
        let none = Weak::new();
        let picked = ports
            .bind(9, &none, 0, claim("127.0.0.1", false, false), false)
            .unwrap();
        assert!(EPHEMERAL_PORTS.contains(&picked));
        assert!(ports.find("127.0.0.1:81".parse().unwrap(), to).is_none());
    }
}
