//! `AF_UNIX` sockets (`unix(7)`).
//!
//! | module | what |
//! | --- | --- |
//! | `queue` | messages, and the budget their sender pays for them |
//! | `names` | addresses: path names, abstract names, binding and finding |
//! | `connection` | connecting, listening, accepting, shutting down, closing |
//! | `stream`, `packet` | moving bytes, moving messages |
//! | `host` | sockets connected to a server outside, by way of a volume |
//! | `handed` | sockets that processes were handed from outside |
//! | `rights` | descriptors in flight, and those that only reach each other |
//!
//! All state of a socket is under its [`Inner`] lock. No two of them are ever held together: a sender reads
//! who its peer is, lets go, and then finds under the peer's lock whether the peer still takes anything. The
//! lock of [`InFlight`] comes before them.
//!
//! A socket holds its peer counted, and the peer holds it; closing one takes its own reference away.

mod connection;
mod handed;
mod host;
mod names;
mod packet;
mod queue;
mod rights;
mod stream;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use husk_abi::linux::{ioctl, net};

pub use handed::handed;
pub use names::{Name, PATH_AT};
pub use rights::InFlight;

use self::host::Remote;
use self::names::{Bound, Names};
use self::queue::{Message, Outlet};
use super::control::Ucred;
use super::interface;
use super::message::{Incoming, Outgoing};
use super::options::Switches;
use super::socket::{Base, Shutdown, Socket};
use crate::fs::PollEvents;
use crate::fs::poll::PollTable;
use crate::sync::{Mutex, SpinLock, WaitQueue};
use crate::user::UserAddr;
use crate::{Errno, Kernel, Result, SysResult, Thread};

/// Messages a datagram socket queues for senders that are not its peer (`net.unix.max_dgram_qlen`), less one.
pub const MAX_DATAGRAMS: u32 = 10;

/// What all unix sockets share.
#[derive(Debug, Default)]
pub struct Unix {
    names: Names,
    /// Descriptors in messages.
    pub in_flight: InFlight,
    /// Every open socket, by a number that only grows (`/proc/net/unix`).
    sockets: SpinLock<BTreeMap<u64, Weak<UnixSocket>>>,
    next: AtomicU64,
}

impl Unix {
    /// Every open socket, the oldest first.
    #[must_use]
    pub fn sockets(&self) -> Vec<Arc<UnixSocket>> {
        let sockets = self.sockets.lock();
        sockets.values().filter_map(Weak::upgrade).collect()
    }
}

/// Where a socket is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Neither of the others.
    Unconnected,
    Listening,
    Connected,
}

/// The halves that are shut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shut {
    receiving: bool,
    sending: bool,
}

impl Shut {
    const BOTH: Self = Self {
        receiving: true,
        sending: true,
    };

    fn is_both(self) -> bool {
        self == Self::BOTH
    }
}

/// Whom `SO_PEERCRED` names.
#[derive(Clone, Debug)]
struct Identity {
    ucred: Ucred,
    groups: Vec<u32>,
}

impl Identity {
    fn current(t: &Thread) -> Self {
        Self {
            ucred: Ucred {
                uid: t.credentials().euid,
                gid: t.credentials().egid,
                ..Ucred::current(t)
            },
            groups: t.credentials().groups.clone(),
        }
    }
}

/// A socket's state.
#[derive(Debug)]
struct Inner {
    phase: Phase,
    /// Closed.
    is_dead: bool,
    /// In a listener's queue; no program has it yet.
    is_embryo: bool,
    shut: Shut,
    peer: Option<Arc<UnixSocket>>,
    /// Datagram sockets connected to this one: they wait for room here.
    followers: Vec<Weak<UnixSocket>>,
    /// What was received.
    messages: VecDeque<Message>,
    /// Number of the next message.
    next_message: u64,
    /// The number of the message that is one out-of-band byte.
    urgent: Option<u64>,
    /// Connections nobody has accepted yet, of a listener.
    embryos: VecDeque<Arc<UnixSocket>>,
    /// How many of these, or of messages, there may be beyond one.
    backlog: u32,
    /// What the peer of a connection is told of a listener.
    listener: Option<Identity>,
    /// Who the peer is.
    peer_identity: Option<Identity>,
    bound: Option<Bound>,
}

impl Inner {
    fn is_peer(&self, other: &UnixSocket) -> bool {
        self.peer
            .as_ref()
            .is_some_and(|peer| core::ptr::eq(Arc::as_ptr(peer), other))
    }

    /// Whether `sender`, which is not the peer, has to wait.
    fn is_full(&self) -> bool {
        self.messages.len() > self.backlog as usize
    }

    fn has_embryos_enough(&self) -> bool {
        self.embryos.len() > self.backlog as usize
    }
}

/// A unix socket.
#[derive(Debug)]
pub struct UnixSocket {
    base: Base,
    weak: Weak<UnixSocket>,
    number: u64,
    outlet: Arc<Outlet>,
    inner: SpinLock<Inner>,
    /// Held while a stream's bytes are copied out, so that readers do not mix.
    reading: Mutex<()>,
    /// Held by whoever gives it a name.
    binding: Mutex<()>,
    /// Those that wait for room in `messages` or `embryos`.
    room: Arc<WaitQueue>,
    /// The connection to a server outside.
    remote: SpinLock<Option<Arc<Remote>>>,
}

impl UnixSocket {
    fn new(kernel: &'static Kernel, kind: u32) -> Arc<Self> {
        let base = Base::new(kernel, net::AF_UNIX, kind, 0);
        let number = kernel.net.unix.next.fetch_add(1, Ordering::Relaxed);
        let socket = Arc::new_cyclic(|weak| Self {
            weak: weak.clone(),
            number,
            outlet: Outlet::new(&base),
            base,
            inner: SpinLock::new(Inner {
                phase: Phase::Unconnected,
                is_dead: false,
                is_embryo: false,
                shut: Shut::default(),
                peer: None,
                followers: Vec::new(),
                messages: VecDeque::new(),
                next_message: 0,
                urgent: None,
                embryos: VecDeque::new(),
                backlog: MAX_DATAGRAMS,
                listener: None,
                peer_identity: None,
                bound: None,
            }),
            reading: Mutex::new(()),
            binding: Mutex::new(()),
            room: Arc::new(WaitQueue::new()),
            remote: SpinLock::new(None),
        });
        kernel
            .net
            .unix
            .sockets
            .lock()
            .insert(number, Arc::downgrade(&socket));
        socket
    }

    fn arc(&self) -> Arc<Self> {
        self.weak.upgrade().expect("a socket in use is alive")
    }

    fn is_stream(&self) -> bool {
        self.base.kind == net::SOCK_STREAM
    }

    /// Whether it has connections.
    fn is_connecting_kind(&self) -> bool {
        self.base.kind != net::SOCK_DGRAM
    }

    fn passes_credentials(&self) -> bool {
        self.base.options().has(Switches::PASS_CREDENTIALS)
    }

    fn peer(&self) -> Option<Arc<UnixSocket>> {
        self.inner.lock().peer.clone()
    }

    /// What `/proc/net/unix` shows: flags and state.
    #[must_use]
    pub fn summary(&self) -> (u32, u32) {
        const ACCEPTS: u32 = 0x10000;
        let inner = self.inner.lock();
        let flags = if inner.phase == Phase::Listening {
            ACCEPTS
        } else {
            0
        };
        let state = match (inner.is_embryo, inner.phase) {
            (false, Phase::Connected) => 3,
            (false, _) => 1,
            (true, Phase::Connected) => 2,
            (true, _) => 4,
        };
        (flags, state)
    }

    /// The name it is bound to.
    #[must_use]
    pub fn bound_name(&self) -> Option<Name> {
        self.outlet.name()
    }

    /// Bytes to read without waiting: of a stream all, else of the next message.
    fn available(&self) -> SysResult {
        if self.remote().is_some() {
            // How much waits outside is not known.
            return Err(Errno::ENOTTY);
        }
        let inner = self.inner.lock();
        if inner.phase == Phase::Listening {
            return Err(Errno::EINVAL);
        }
        Ok(if self.base.kind == net::SOCK_DGRAM {
            inner.messages.front().map_or(0, Message::len)
        } else {
            inner.messages.iter().map(Message::len).sum()
        })
    }

    /// Whether the next byte is the out-of-band mark.
    fn is_at_mark(&self) -> bool {
        let inner = self.inner.lock();
        let Some(first) = inner.messages.front() else {
            return false;
        };
        let is_urgent = |message: &Message| Some(message.number) == inner.urgent;
        is_urgent(first)
            || first.len() == 0
                && (inner.urgent.is_none() || inner.messages.get(1).is_some_and(is_urgent))
    }
}

impl Socket for UnixSocket {
    fn base(&self) -> &Base {
        &self.base
    }

    fn bind(&self, t: &Thread, address: &[u8]) -> Result<()> {
        self.bind_name(t, address)
    }

    fn connect(&self, t: &Thread, address: &[u8], nonblocking: bool) -> Result<()> {
        if self.is_connecting_kind() {
            self.connect_stream(t, address, nonblocking)
        } else {
            self.connect_datagrams(t, address)
        }
    }

    fn listen(&self, t: &Thread, backlog: u32) -> Result<()> {
        self.start_listening(t, backlog)
    }

    fn accept(&self, t: &Thread, nonblocking: bool) -> Result<Arc<dyn Socket>> {
        Ok(self.accept_next(t, nonblocking)?)
    }

    fn name(&self) -> Result<Vec<u8>> {
        Ok(names::to_bytes(self.outlet.name()))
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        if let Some(remote) = self.remote() {
            if remote.name.is_empty() {
                return Err(Errno::ENOTCONN);
            }
            return Ok(remote.name.clone());
        }
        let peer = self.peer().ok_or(Errno::ENOTCONN)?;
        Ok(names::to_bytes(peer.outlet.name()))
    }

    fn send(&self, t: &Thread, message: &mut Outgoing<'_, '_>) -> SysResult {
        if let Some(remote) = self.remote() {
            return self.send_outside(t, &remote, message);
        }
        match self.base.kind {
            net::SOCK_STREAM => self.send_stream(t, message),
            net::SOCK_SEQPACKET => self.send_sequenced(t, message),
            _ => self.send_packet(t, message),
        }
    }

    fn receive(&self, t: &Thread, message: &mut Incoming<'_, '_>) -> SysResult {
        if let Some(remote) = self.remote() {
            return self.receive_outside(t, &remote, message);
        }
        if self.is_stream() {
            self.receive_stream(t, message)
        } else {
            self.receive_packet(t, message)
        }
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        if let Some(remote) = self.remote() {
            remote.channel.shut(how)?;
        }
        self.shut_down(how);
        Ok(())
    }

    fn poll(&self, table: Option<&mut PollTable<'_>>) -> PollEvents {
        if let Some(remote) = self.remote() {
            return self.ready_outside(&remote, table);
        }
        self.readiness(table)
    }

    fn option(&self, _t: &Thread, level: u32, name: u32, room: usize) -> Result<Vec<u8>> {
        if level != net::SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        let identity = || self.inner.lock().peer_identity.clone();
        match name {
            net::SO_PEERCRED => {
                const NOBODY: Ucred = Ucred {
                    pid: 0,
                    uid: u32::MAX,
                    gid: u32::MAX,
                };
                let ucred = identity().map_or(NOBODY, |identity| identity.ucred);
                Ok(ucred.to_bytes().to_vec())
            }
            net::SO_PEERGROUPS => {
                let groups = identity().ok_or(Errno::ENODATA)?.groups;
                if room < groups.len() * 4 {
                    return Err(Errno::ERANGE);
                }
                Ok(groups
                    .iter()
                    .flat_map(|group| group.to_ne_bytes())
                    .collect())
            }
            net::SO_PEERNAME => self.peer_name(),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn set_option(&self, _t: &Thread, level: u32, _name: u32, _value: &[u8]) -> Result<()> {
        Err(if level == net::SOL_SOCKET {
            Errno::ENOPROTOOPT
        } else {
            Errno::EOPNOTSUPP
        })
    }

    fn is_listening(&self) -> bool {
        self.inner.lock().phase == Phase::Listening
    }

    fn passes_rights(&self) -> bool {
        true
    }

    fn options_changed(&self) {
        self.outlet
            .set_limit(self.base.options().send_buffer as usize);
    }

    fn ioctl(&self, t: &Thread, request: u32, arg: u64) -> SysResult {
        let value = match request {
            ioctl::FIONREAD => self.available()?,
            ioctl::TIOCOUTQ => self.outlet.used(),
            ioctl::SIOCATMARK if self.is_stream() => usize::from(self.is_at_mark()),
            _ => return interface::ioctl(t, request, arg),
        };
        UserAddr(arg).write(&(value as i32))?;
        Ok(0)
    }

    fn released(&self) {
        self.close(false);
    }

    fn descriptor_closed(&self) {
        rights::collect_if_any(self.base.kernel);
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// Checks type and protocol as `socket(2)` does; returns the type the socket gets.
fn check_kind(kind: u32, protocol: i32) -> Result<u32> {
    if protocol != 0 && protocol != net::AF_UNIX as i32 {
        return Err(Errno::EPROTONOSUPPORT);
    }
    match kind {
        net::SOCK_STREAM | net::SOCK_DGRAM | net::SOCK_SEQPACKET => Ok(kind),
        // As BSD had it.
        net::SOCK_RAW => Ok(net::SOCK_DGRAM),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

/// A new socket (`socket(2)`).
///
/// # Errors
/// `EPROTONOSUPPORT`, `ESOCKTNOSUPPORT`.
pub fn create(t: &Thread, kind: u32, protocol: i32) -> Result<Arc<UnixSocket>> {
    Ok(UnixSocket::new(t.kernel, check_kind(kind, protocol)?))
}

/// Two sockets connected to each other (`socketpair(2)`).
///
/// # Errors
/// As [`create`].
pub fn pair(t: &Thread, kind: u32, protocol: i32) -> Result<(Arc<UnixSocket>, Arc<UnixSocket>)> {
    let one = create(t, kind, protocol)?;
    let other = create(t, kind, protocol)?;
    for (socket, peer) in [(&one, &other), (&other, &one)] {
        let mut inner = socket.inner.lock();
        inner.peer = Some(peer.clone());
        inner.phase = Phase::Connected;
        inner.peer_identity = Some(Identity::current(t));
    }
    Ok((one, other))
}

#[cfg(test)]
mod tests;
