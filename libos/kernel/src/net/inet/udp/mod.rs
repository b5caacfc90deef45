//! UDP (`udp(7)`).
//!
//! A socket has two sides: datagrams of sockets inside are in its queue, all others in the host's socket (`outside`), which has
//! the same port.

mod outside;

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::convert::Infallible;
use core::mem;
use core::net::{IpAddr, SocketAddr};

use husk_abi::linux::{ioctl, net};

use crate::fs::PollEvents;
use crate::fs::poll::PollTable;
use crate::net::control::Item;
use crate::net::host::Outside;
use crate::net::inet::endpoint;
use crate::net::inet::options::{InetOptions, PACKET_INFO, PACKET_INFO_V6, V6_ONLY};
use crate::net::inet::ports::{Claim, Ports, Scope};
use crate::net::options::Switches;
use crate::net::{Base, Incoming, Outgoing, Shutdown, Socket, interface};
use crate::sync::SpinLock;
use crate::user::UserAddr;
use crate::{Errno, Kernel, Result, SysResult, Thread};

/// The most bytes of a datagram: what IPv4's length field leaves.
const MAX_V4: usize = 65507;
/// The same for IPv6.
const MAX_V6: usize = 65527;
/// What a queued datagram counts against `SO_RCVBUF` beside its bytes.
const OVERHEAD: usize = 768;

/// A datagram that has arrived.
#[derive(Clone, Debug)]
struct Datagram {
    data: Vec<u8>,
    from: SocketAddr,
    to: IpAddr,
}

#[derive(Debug)]
struct Inner {
    /// Address and port it is bound to.
    local: Option<SocketAddr>,
    /// The program said which port.
    is_bound: bool,
    remote: Option<SocketAddr>,
    queue: VecDeque<Datagram>,
    /// What the queue counts, in bytes.
    queued: usize,
    shut_receiving: bool,
    shut_sending: bool,
    is_closed: bool,
}

/// What a receiving call gets.
enum Next {
    /// A datagram from inside; `None`: there will be none any more.
    Inside(Option<Datagram>),
    /// One from outside is in the program's memory; what the call returns.
    Outside(usize),
}

/// A UDP socket.
#[derive(Debug)]
pub struct UdpSocket {
    base: Base,
    weak: Weak<UdpSocket>,
    number: u64,
    options: InetOptions,
    /// The host's side.
    outside: Outside,
    inner: SpinLock<Inner>,
}

impl UdpSocket {
    /// A socket without a port.
    #[must_use]
    pub fn new(kernel: &'static Kernel, family: u32) -> Arc<Self> {
        let none =
            |_: &Base| -> core::result::Result<_, Infallible> { Ok(Outside::of_datagrams()) };
        let Ok(socket) = Self::with_outside(kernel, family, none);
        socket
    }

    /// A socket with the host's side that `outside` makes for it.
    fn with_outside<E>(
        kernel: &'static Kernel,
        family: u32,
        outside: impl FnOnce(&Base) -> core::result::Result<Outside, E>,
    ) -> core::result::Result<Arc<Self>, E> {
        let base = Base::new(kernel, family, net::SOCK_DGRAM, crate::net::inet::UDP);
        let outside = outside(&base)?;
        Ok(Arc::new_cyclic(|weak| Self {
            base,
            weak: weak.clone(),
            number: crate::net::inet::next_number(),
            options: InetOptions::default(),
            outside,
            inner: SpinLock::new(Inner {
                local: None,
                is_bound: false,
                remote: None,
                queue: VecDeque::new(),
                queued: 0,
                shut_receiving: false,
                shut_sending: false,
                is_closed: false,
            }),
        }))
    }

    fn ports(&self) -> &'static Ports<UdpSocket> {
        &self.base.kernel.net.inet.udp
    }

    /// What `/proc/net/udp` shows: both ends and bytes queued.
    #[must_use]
    pub fn summary(&self) -> (SocketAddr, SocketAddr, usize) {
        let none = SocketAddr::new(endpoint::unspecified(self.base.family), 0);
        let inner = self.inner.lock();
        (
            inner.local.unwrap_or(none),
            inner.remote.unwrap_or(none),
            inner.queued,
        )
    }

    fn claim(&self, t: &Thread, ip: IpAddr) -> Claim {
        let options = self.base.options();
        Claim {
            scope: Scope::new(ip, self.options.is_on(V6_ONLY)),
            reuse_address: options.has(Switches::REUSE_ADDRESS),
            reuse_port: options.has(Switches::REUSE_PORT),
            user: t.credentials().euid,
            is_listening: true,
            remote: None,
        }
    }

    fn bind_to(&self, t: &Thread, address: SocketAddr, by_program: bool) -> Result<()> {
        let claim = self.claim(t, address.ip());
        let port = self
            .ports()
            .bind(self.number, &self.weak, address.port(), claim, true)?;
        let mut inner = self.inner.lock();
        inner.local = Some(SocketAddr::new(address.ip(), port));
        inner.is_bound = by_program;
        Ok(())
    }

    /// The address it sends from, bound now if it is not yet.
    fn local(&self, t: &Thread) -> Result<SocketAddr> {
        if self.inner.lock().local.is_none() {
            let any = SocketAddr::new(endpoint::unspecified(self.base.family), 0);
            self.bind_both(t, &endpoint::to_bytes(self.base.family, any), any, false)?;
        }
        self.inner.lock().local.ok_or(Errno::EINVAL)
    }

    /// Checks that the socket's family reaches `to`.
    fn check_reach(&self, to: SocketAddr) -> Result<()> {
        if to.is_ipv4() && endpoint::is_v6(self.base.family) && self.options.is_on(V6_ONLY) {
            return Err(Errno::ENETUNREACH);
        }
        Ok(())
    }

    /// Where `to` leads: the packet's destination and source.
    fn route(&self, to: SocketAddr, local: SocketAddr) -> Result<(SocketAddr, SocketAddr)> {
        self.check_reach(to)?;
        let may_broadcast = self.base.options().has(Switches::BROADCAST);
        let (ip, source) = endpoint::route(to.ip(), may_broadcast)?;
        let source = if local.ip().is_unspecified() {
            source
        } else {
            local.ip()
        };
        Ok((
            SocketAddr::new(ip, to.port()),
            SocketAddr::new(source, local.port()),
        ))
    }

    /// Takes a datagram, or loses it if there is no room.
    fn deliver(&self, datagram: Datagram) {
        let limit = self.base.options().receive_buffer as usize;
        let cost = datagram.data.len() + OVERHEAD;
        {
            let mut inner = self.inner.lock();
            if inner.is_closed || inner.queued > limit {
                return;
            }
            inner.queued += cost;
            inner.queue.push_back(datagram);
        }
        self.base.readers.wake_all();
    }

    /// Leaves the port it got without asking.
    fn give_up_port(&self) {
        let is_bound = self.inner.lock().is_bound;
        if !is_bound {
            self.leave_port();
            self.outside.close();
        }
    }

    fn leave_port(&self) {
        let port = self.inner.lock().local.take().map(|local| local.port());
        if let Some(port) = port {
            self.ports().release(self.number, port);
        }
    }

    /// The next datagram; `Some(Ok(None))` if there will be none any more.
    fn next(&self, is_peek: bool) -> Option<Result<Option<Datagram>>> {
        if let Some(error) = self.base.take_error() {
            return Some(Err(error));
        }
        let mut inner = self.inner.lock();
        let found = if is_peek {
            inner.queue.front().cloned()
        } else {
            inner.queue.pop_front()
        };
        if let Some(datagram) = &found
            && !is_peek
        {
            inner.queued -= datagram.data.len() + OVERHEAD;
        }
        match found {
            Some(datagram) => Some(Ok(Some(datagram))),
            None => inner.shut_receiving.then_some(Ok(None)),
        }
    }

    /// The control message that tells where a datagram was sent to.
    fn packet_info(&self, to: IpAddr) -> Option<Item> {
        let index = interface::LOOPBACK_INDEX.to_ne_bytes();
        let item = |level, kind, data| Item::Plain { level, kind, data };
        match to {
            IpAddr::V4(ip) if self.options.is_on(PACKET_INFO) => {
                let data = [index, ip.octets(), ip.octets()].concat();
                Some(item(net::SOL_IP, 8, data))
            }
            ip if self.options.is_on(PACKET_INFO_V6) => {
                let words = endpoint::to_ipv6_words(ip);
                let mut data: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
                data.extend_from_slice(&index);
                Some(item(net::SOL_IPV6, 50, data))
            }
            _ => None,
        }
    }
}

impl Socket for UdpSocket {
    fn base(&self) -> &Base {
        &self.base
    }

    fn bind(&self, t: &Thread, bytes: &[u8]) -> Result<()> {
        let address = endpoint::parse_for_bind(self.base.family, bytes)?;
        if address.is_ipv4() && endpoint::is_v6(self.base.family) && self.options.is_on(V6_ONLY) {
            return Err(Errno::EINVAL);
        }
        endpoint::check_port(t, address.port())?;
        if self.inner.lock().local.is_some() {
            return Err(Errno::EINVAL);
        }
        self.bind_both(t, bytes, address, true)
    }

    fn connect(&self, t: &Thread, address: &[u8], _nonblocking: bool) -> Result<()> {
        if endpoint::is_none(address) {
            self.disconnect_outside();
            self.inner.lock().remote = None;
            let local = self.inner.lock().local;
            if let Some(local) = local {
                let scope = self.claim(t, local.ip()).scope;
                self.ports().update(self.number, local.port(), |claim| {
                    claim.remote = None;
                    claim.scope = scope;
                });
            }
            self.give_up_port();
            return Ok(());
        }
        let to = endpoint::parse(self.base.family, address)?;
        let local = self.local(t)?;
        self.check_reach(to).inspect_err(|_| self.give_up_port())?;
        let source = self
            .connect_outside(address)
            .inspect_err(|_| self.give_up_port())?;
        let (to, from) = match (self.route(to, local), source) {
            (Ok(route), _) => route,
            // No route inside: the host knows which address it has there.
            (Err(_), Some(source)) => (to, SocketAddr::new(source.ip(), local.port())),
            (Err(errno), None) => {
                self.give_up_port();
                return Err(errno);
            }
        };
        {
            let mut inner = self.inner.lock();
            inner.remote = Some(to);
            inner.local = Some(from);
        }
        self.ports().update(self.number, from.port(), |claim| {
            claim.remote = Some(to);
            claim.scope = Scope::One(from.ip());
        });
        Ok(())
    }

    fn name(&self) -> Result<Vec<u8>> {
        let family = self.base.family;
        let none = SocketAddr::new(endpoint::unspecified(family), 0);
        let local = self.inner.lock().local.unwrap_or(none);
        Ok(endpoint::to_bytes(family, local))
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        let remote = self.inner.lock().remote.ok_or(Errno::ENOTCONN)?;
        Ok(endpoint::to_bytes(self.base.family, remote))
    }

    fn send(&self, t: &Thread, message: &mut Outgoing<'_, '_>) -> SysResult {
        let len = message.buf.remaining();
        if len > 0xffff {
            return Err(Errno::EMSGSIZE);
        }
        if message.flags & net::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let destination = match message.destination() {
            Some(address) if !endpoint::is_none(address) => {
                let to = endpoint::parse(self.base.family, address)?;
                if to.port() == 0 {
                    return Err(Errno::EINVAL);
                }
                Some(to)
            }
            _ => None,
        };
        let remote = self.inner.lock().remote;
        let to = destination.or(remote).ok_or(Errno::EDESTADDRREQ)?;
        if let Some(error) = self.base.take_error() {
            return Err(error);
        }
        if self.inner.lock().shut_sending {
            return Err(Errno::EPIPE);
        }
        if len > if to.is_ipv4() { MAX_V4 } else { MAX_V6 } {
            return Err(Errno::EMSGSIZE);
        }
        let local = self.local(t)?;
        let route = self.route(to, local);
        if self.goes_out(to, route.ok()) {
            return self.send_outside(t, message);
        }
        let (to, from) = route?;
        let mut data = alloc::vec![0; len];
        if message.buf.take(&mut data)? < len {
            return Err(Errno::EFAULT);
        }
        match self.ports().find(to, from) {
            Some(receiver) => receiver.deliver(Datagram {
                data,
                from,
                to: to.ip(),
            }),
            // Only who is connected hears that nobody is there.
            None if remote == Some(to) => {
                self.base.set_error(Errno::ECONNREFUSED);
                self.base.wake_all();
            }
            None => {}
        }
        Ok(len)
    }

    fn receive(&self, t: &Thread, message: &mut Incoming<'_, '_>) -> SysResult {
        if message.flags & net::MSG_ERRQUEUE != 0 {
            return self.receive_error(message);
        }
        let is_peek = message.is_peek();
        let nonblocking = message.is_nonblocking();
        let patience = self.base.receive_patience(nonblocking);
        let next = patience.wait(t, &self.base.readers, || {
            let inside = self.next(is_peek);
            let next = inside.map(|next| next.map(Next::Inside));
            next.or_else(|| {
                self.receive_outside(message)
                    .map(|got| got.map(Next::Outside))
            })
        })??;
        let next = match next {
            Next::Outside(received) => return Ok(received),
            Next::Inside(next) => next,
        };
        let Some(datagram) = next else {
            return if nonblocking {
                Err(Errno::EAGAIN)
            } else {
                Ok(0)
            };
        };
        let len = datagram.data.len();
        let want = len.min(message.buf.remaining());
        if want > 0 && message.buf.put(&datagram.data)? < want {
            return Err(Errno::EFAULT);
        }
        if want < len {
            message.result_flags |= net::MSG_TRUNC;
        }
        message.address = endpoint::to_bytes(self.base.family, datagram.from);
        message.stamp(&self.base.options());
        message.control.extend(self.packet_info(datagram.to));
        Ok(if message.flags & net::MSG_TRUNC != 0 {
            len
        } else {
            want
        })
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        let is_connected = {
            let mut inner = self.inner.lock();
            if inner.remote.is_some() {
                inner.shut_receiving |= how.reads();
                inner.shut_sending |= how.writes();
            }
            inner.remote.is_some()
        };
        if let Some(host) = self.outside.get() {
            let _ = host.shutdown(how);
        }
        self.base.wake_all();
        if is_connected {
            Ok(())
        } else {
            Err(Errno::ENOTCONN)
        }
    }

    fn poll(&self, table: Option<&mut PollTable<'_>>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.base.readers);
            table.register(&self.base.writers);
        }
        // There is always room: what does not fit is lost.
        let mut events = PollEvents::OUT | PollEvents::WRNORM | PollEvents::WRBAND;
        events |= self.ready_outside();
        if self.base.has_error() {
            events |= PollEvents::ERR;
        }
        let inner = self.inner.lock();
        if inner.shut_receiving {
            events |= PollEvents::RDHUP | PollEvents::IN | PollEvents::RDNORM;
            if inner.shut_sending {
                events |= PollEvents::HUP;
            }
        }
        if !inner.queue.is_empty() {
            events |= PollEvents::IN | PollEvents::RDNORM;
        }
        events
    }

    fn set_option(&self, _t: &Thread, level: u32, name: u32, value: &[u8]) -> Result<()> {
        if (level, name) == V6_ONLY && self.inner.lock().local.is_some() {
            return Err(Errno::EINVAL);
        }
        match self.options.set(level, name, value, false) {
            Err(Errno::ENOPROTOOPT) => self.outside.set_unknown(&self.base, (level, name), value),
            result => result.and_then(|()| self.outside.mirror((level, name), value)),
        }
    }

    fn option(&self, _t: &Thread, level: u32, name: u32, room: usize) -> Result<Vec<u8>> {
        match self.options.get(level, name, false) {
            Err(Errno::ENOPROTOOPT) => self.outside.unknown(&self.base, (level, name), room),
            result => result,
        }
    }

    fn outside(&self) -> Option<&Outside> {
        Some(&self.outside)
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

    fn ioctl(&self, t: &Thread, request: u32, arg: u64) -> SysResult {
        let value = match request {
            ioctl::FIONREAD => {
                let inside = {
                    let inner = self.inner.lock();
                    inner.queue.front().map(|datagram| datagram.data.len())
                };
                inside.unwrap_or_else(|| self.next_bytes_outside())
            }
            ioctl::TIOCOUTQ => 0,
            _ => return interface::ioctl(t, request, arg),
        };
        UserAddr(arg).write(&(value as i32))?;
        Ok(0)
    }

    fn released(&self) {
        let (local, queue) = {
            let mut inner = self.inner.lock();
            inner.is_closed = true;
            (inner.local.take(), mem::take(&mut inner.queue))
        };
        drop(queue);
        self.outside.close();
        if let Some(local) = local {
            self.ports().release(self.number, local.port());
        }
        self.base.wake_all();
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
