//! TCP (`tcp(7)`).
//!
//! | module | what |
//! | --- | --- |
//! | `bytes` | the queue of received bytes |
//! | `connection` | connecting, listening, accepting, shutting down, closing; readiness |
//! | `transfer` | sending and receiving |
//! | `outside` | connections whose other end is outside |
//!
//! Two connected sockets hold each other; closing one takes its reference away. As with unix sockets all
//! state is under one short lock, and no two of them are held together.

mod bytes;
mod connection;
mod outside;
mod transfer;

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::convert::Infallible;
use core::net::{IpAddr, SocketAddr};

use husk_abi::linux::{ioctl, net};

use self::bytes::ByteQueue;
use super::endpoint;
use super::options::{InetOptions, V6_ONLY};
use super::ports::{Claim, Ports, Scope};
use crate::fs::PollEvents;
use crate::fs::poll::PollTable;
use crate::net::host::Outside;
use crate::net::options::Switches;
use crate::net::{Base, Incoming, Outgoing, Shutdown, Socket, interface};
use crate::sync::{Mutex, SpinLock, WaitQueue};
use crate::user::UserAddr;
use crate::{Errno, Kernel, Result, SysResult, Thread};

/// `SO_SNDBUF` and `SO_RCVBUF` of a new socket, and `SO_SNDBUF` of a connection over the loopback.
const SEND_BUFFER: u32 = 16384;
const RECEIVE_BUFFER: u32 = 131_072;
const LOOPBACK_SEND_BUFFER: u32 = 2_626_560;

/// Where a socket is in its life. What is shut is told by [`Inner`]'s other fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not connected, or not any more.
    Closed,
    Listening,
    /// Waits for room in a listener's queue.
    Connecting,
    Connected,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    /// Address and port it is bound to.
    local: Option<SocketAddr>,
    /// The program said which port.
    is_bound: bool,
    remote: Option<SocketAddr>,
    /// The connection, or the attempt, is the host's.
    leads_out: bool,
    peer: Option<Arc<TcpSocket>>,
    /// A nonblocking `connect(2)` has not told yet how it went.
    is_attempt_open: bool,
    received: ByteQueue,
    /// Reading ends when the queue is empty.
    shut_receiving: bool,
    shut_sending: bool,
    /// The peer sends no more.
    peer_finished: bool,
    /// It was connected once.
    was_connected: bool,
    /// Nobody has it any more.
    is_released: bool,
    embryos: VecDeque<Arc<TcpSocket>>,
    /// Those that wait for room in `embryos`.
    waiting: VecDeque<Weak<TcpSocket>>,
    backlog: usize,
}

impl Inner {
    /// Whether the connection is over in both directions (`TCP_CLOSE`).
    fn is_over(&self) -> bool {
        self.phase == Phase::Closed
            || self.phase == Phase::Connected && self.shut_sending && self.peer_finished
    }
}

/// A TCP socket.
#[derive(Debug)]
pub struct TcpSocket {
    base: Base,
    weak: Weak<TcpSocket>,
    number: u64,
    options: InetOptions,
    /// The host's side; lets in who comes from outside.
    outside: Outside,
    inner: SpinLock<Inner>,
    /// Held while bytes are copied out, so that readers do not mix.
    reading: Mutex<()>,
    /// Threads in `connect(2)`.
    connecting: WaitQueue,
}

impl TcpSocket {
    /// A socket without a port.
    #[must_use]
    pub fn new(kernel: &'static Kernel, family: u32) -> Arc<Self> {
        Self::inside(kernel, family, InetOptions::default())
    }

    /// A socket without a host's side.
    fn inside(kernel: &'static Kernel, family: u32, options: InetOptions) -> Arc<Self> {
        let none = |_: &Base| -> core::result::Result<_, Infallible> { Ok(Outside::default()) };
        let Ok(socket) = Self::with_options(kernel, family, options, none);
        socket
    }

    /// A socket with the host's side that `outside` makes for it.
    fn with_options<E>(
        kernel: &'static Kernel,
        family: u32,
        options: InetOptions,
        outside: impl FnOnce(&Base) -> core::result::Result<Outside, E>,
    ) -> core::result::Result<Arc<Self>, E> {
        let base = Base::new(kernel, family, net::SOCK_STREAM, super::TCP);
        base.edit_options(|options| {
            options.send_buffer = SEND_BUFFER;
            options.receive_buffer = RECEIVE_BUFFER;
        });
        let outside = outside(&base)?;
        Ok(Arc::new_cyclic(|weak| Self {
            base,
            weak: weak.clone(),
            number: super::next_number(),
            options,
            outside,
            inner: SpinLock::new(Inner {
                phase: Phase::Closed,
                local: None,
                is_bound: false,
                remote: None,
                leads_out: false,
                peer: None,
                is_attempt_open: false,
                received: ByteQueue::default(),
                shut_receiving: false,
                shut_sending: false,
                peer_finished: false,
                was_connected: false,
                is_released: false,
                embryos: VecDeque::new(),
                waiting: VecDeque::new(),
                backlog: 0,
            }),
            reading: Mutex::new(()),
            connecting: WaitQueue::new(),
        }))
    }

    fn arc(&self) -> Arc<Self> {
        self.weak.upgrade().expect("a socket in use is alive")
    }

    fn ports(&self) -> &'static Ports<TcpSocket> {
        &self.base.kernel.net.inet.tcp
    }

    fn claim(&self, t: &Thread, ip: IpAddr) -> Claim {
        let options = self.base.options();
        Claim {
            scope: Scope::new(ip, self.options.is_on(V6_ONLY)),
            reuse_address: options.has(Switches::REUSE_ADDRESS),
            reuse_port: options.has(Switches::REUSE_PORT),
            user: t.credentials().euid,
            is_listening: false,
            remote: None,
        }
    }

    fn bind_to(&self, t: &Thread, address: SocketAddr, by_program: bool) -> Result<()> {
        let claim = self.claim(t, address.ip());
        let port = self
            .ports()
            .bind(self.number, &self.weak, address.port(), claim, false)?;
        let mut inner = self.inner.lock();
        inner.local = Some(SocketAddr::new(address.ip(), port));
        inner.is_bound = by_program;
        Ok(())
    }

    /// Leaves the port it has; if `automatic_only`, only one it got without asking.
    fn give_up_port(&self, automatic_only: bool) {
        let port = {
            let mut inner = self.inner.lock();
            if inner.is_bound && automatic_only {
                return;
            }
            inner.local.take().map(|local| local.port())
        };
        if let Some(port) = port {
            self.ports().release(self.number, port);
        }
    }

    /// What `/proc/net/tcp` shows: both ends, the state's number, bytes received and not read.
    #[must_use]
    pub fn summary(&self) -> (SocketAddr, SocketAddr, u8, usize) {
        let none = SocketAddr::new(endpoint::unspecified(self.base.family), 0);
        let inner = self.inner.lock();
        let state = match inner.phase {
            Phase::Listening => 10,
            Phase::Connecting => 2,
            Phase::Closed => 7,
            Phase::Connected => match (inner.shut_sending, inner.peer_finished) {
                (false, false) => 1,
                (false, true) => 8,
                (true, false) => 5,
                (true, true) => 7,
            },
        };
        let queued = match inner.phase {
            Phase::Listening => inner.embryos.len(),
            _ => inner.received.len(),
        };
        (
            inner.local.unwrap_or(none),
            inner.remote.unwrap_or(none),
            state,
            queued,
        )
    }

    /// `TCP_INFO`: the state and what a connection over the loopback always shows.
    fn info(&self) -> Vec<u8> {
        let (_, _, state, _) = self.summary();
        let mut info = alloc::vec![0; size_of::<net::tcp_info>()];
        info[0] = state;
        info
    }
}

impl Socket for TcpSocket {
    fn base(&self) -> &Base {
        &self.base
    }

    fn bind(&self, t: &Thread, bytes: &[u8]) -> Result<()> {
        let address = endpoint::parse_for_bind(self.base.family, bytes)?;
        let only_v6 = endpoint::is_v6(self.base.family) && self.options.is_on(V6_ONLY);
        if address.is_ipv4() && only_v6 {
            return Err(Errno::EINVAL);
        }
        endpoint::check_port(t, address.port())?;
        {
            let inner = self.inner.lock();
            if inner.local.is_some() || inner.phase != Phase::Closed {
                return Err(Errno::EINVAL);
            }
        }
        self.bind_both(t, bytes, address)
    }

    fn connect(&self, t: &Thread, address: &[u8], nonblocking: bool) -> Result<()> {
        self.connect_to(t, address, nonblocking)
    }

    fn listen(&self, t: &Thread, backlog: u32) -> Result<()> {
        self.start_listening(t, backlog)
    }

    fn accept(&self, t: &Thread, nonblocking: bool) -> Result<Arc<dyn Socket>> {
        Ok(self.accept_next(t, nonblocking)?)
    }

    fn name(&self) -> Result<Vec<u8>> {
        let family = self.base.family;
        let none = SocketAddr::new(endpoint::unspecified(family), 0);
        let local = self.inner.lock().local.unwrap_or(none);
        Ok(endpoint::to_bytes(family, local))
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        if let Some(host) = self.leads_out() {
            return host.name(true);
        }
        let inner = self.inner.lock();
        let remote = inner
            .remote
            .filter(|_| inner.phase == Phase::Connected && !inner.is_over())
            .ok_or(Errno::ENOTCONN)?;
        Ok(endpoint::to_bytes(self.base.family, remote))
    }

    fn send(&self, t: &Thread, message: &mut Outgoing<'_, '_>) -> SysResult {
        if message.flags & transfer::MSG_FASTOPEN != 0 {
            self.connect_first(t, message)?;
        }
        match self.leads_out() {
            Some(host) => self.send_outside(t, &host, message),
            None => self.send_bytes(t, message),
        }
    }

    fn receive(&self, t: &Thread, message: &mut Incoming<'_, '_>) -> SysResult {
        match self.leads_out() {
            Some(host) => self.receive_outside(t, &host, message),
            None => self.receive_bytes(t, message),
        }
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        match self.leads_out() {
            Some(host) => host.shutdown(how),
            None => self.shut_down(how),
        }
    }

    fn poll(&self, table: Option<&mut PollTable<'_>>) -> PollEvents {
        match self.leads_out() {
            Some(host) => self.ready_outside(&host, table),
            None => self.readiness(table),
        }
    }

    fn set_option(&self, _t: &Thread, level: u32, name: u32, value: &[u8]) -> Result<()> {
        if (level, name) == V6_ONLY && self.inner.lock().local.is_some() {
            return Err(Errno::EINVAL);
        }
        match self.options.set(level, name, value, true) {
            Err(Errno::ENOPROTOOPT) => self.outside.set_unknown(&self.base, (level, name), value),
            result => result.and_then(|()| self.outside.mirror((level, name), value)),
        }
    }

    fn option(&self, _t: &Thread, level: u32, name: u32, room: usize) -> Result<Vec<u8>> {
        const INFO: u32 = 11;
        if let Some(value) = self.option_outside((level, name), room) {
            return Ok(value);
        }
        if (level, name) == (net::SOL_TCP, INFO) {
            return Ok(self.info());
        }
        match self.options.get(level, name, true) {
            Err(Errno::ENOPROTOOPT) => self.outside.unknown(&self.base, (level, name), room),
            result => result,
        }
    }

    fn is_listening(&self) -> bool {
        self.inner.lock().phase == Phase::Listening
    }

    fn options_changed(&self) {
        let options = self.base.options();
        let Some(local) = self.inner.lock().local else {
            return;
        };
        self.ports().update(self.number, local.port(), |claim| {
            claim.reuse_address = options.has(Switches::REUSE_ADDRESS);
            claim.reuse_port = options.has(Switches::REUSE_PORT);
        });
    }

    fn outside(&self) -> Option<&Outside> {
        Some(&self.outside)
    }

    fn ioctl(&self, t: &Thread, request: u32, arg: u64) -> SysResult {
        if let ioctl::FIONREAD | ioctl::TIOCOUTQ | ioctl::SIOCATMARK = request
            && let Some(host) = self.leads_out()
        {
            UserAddr(arg).write(&host.ioctl_int(request)?)?;
            return Ok(0);
        }
        let value = match request {
            ioctl::FIONREAD | ioctl::TIOCOUTQ if self.is_listening() => {
                return Err(Errno::EINVAL);
            }
            ioctl::FIONREAD => self.inner.lock().received.len(),
            // What was sent is in the peer's queue already.
            ioctl::TIOCOUTQ | ioctl::SIOCATMARK => 0,
            _ => return interface::ioctl(t, request, arg),
        };
        UserAddr(arg).write(&(value as i32))?;
        Ok(0)
    }

    fn released(&self) {
        self.close(false);
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
