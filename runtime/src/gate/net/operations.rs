//! What each operation does to the host's sockets.

use std::sync::PoisonError;

use husk_abi::boundary::net::{
    AcceptOut, MAX_ADDRESS, MAX_ROUTE_ANSWER, MAX_SOCKET_DATA, MAX_VALUE, NO_SOCKET, NetIn,
    OptionIn, RECEIVE_HEAD, ReceiveIn, ReceiveOut, SendIn, SendOne, SocketIn, SocketOut, op,
};
use libc::c_int;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, Shutdown, SocketFlags, SocketType, socket_with};

use super::raw::{self, Address};
use super::table::Facts;
use super::{Sockets, ioctl, options, text};
use crate::gate::requests::Answer;
use crate::gate::requests::message::{Ranges, Reply, Request, split};

/// `MSG_*` that may be asked of a `SEND`; others are ignored, as the host ignores those it does not know.
const SEND_FLAGS: c_int = libc::MSG_OOB
    | libc::MSG_DONTROUTE
    | libc::MSG_EOR
    | libc::MSG_CONFIRM
    | libc::MSG_MORE
    | libc::MSG_FASTOPEN;
/// As [`SEND_FLAGS`], of a `RECEIVE`.
const RECEIVE_FLAGS: c_int =
    libc::MSG_OOB | libc::MSG_PEEK | libc::MSG_TRUNC | libc::MSG_WAITALL | libc::MSG_ERRQUEUE;

/// What there is to tell of an operation.
#[derive(Debug, Default)]
pub struct Seen {
    /// The socket, if it is about one.
    pub socket: Option<u32>,
    /// Bytes that moved.
    pub value: Option<u64>,
    /// What the socket is.
    protocol: &'static str,
    /// Its own address and where it leads, as far as the operation has to do with them.
    own: Address,
    peer: Address,
}

impl Seen {
    fn is(&mut self, facts: &Facts) {
        self.protocol = text::protocol(facts.family, facts.kind, facts.protocol);
    }

    /// Of `facts`' socket `socket`, for which so many bytes came, of a datagram `from` somebody.
    pub(super) fn moved(socket: u32, facts: &Facts, from: &Address, bytes: u64) -> Self {
        let mut seen = Self {
            socket: Some(socket),
            value: Some(bytes),
            ..Self::default()
        };
        seen.addresses(facts);
        if !from.as_bytes().is_empty() {
            seen.peer = *from;
        }
        seen
    }

    pub(super) fn addresses(&mut self, facts: &Facts) {
        self.is(facts);
        (self.own, self.peer) = (facts.own, facts.peer);
    }

    /// Protocol and addresses, such as `tcp 10.0.0.2:4711 > 10.0.0.1:80`.
    pub fn text(&self) -> String {
        text::flow(self.protocol, self.own.as_bytes(), self.peer.as_bytes())
    }
}

/// Cuts the operation's arguments off its body.
macro_rules! arguments {
    ($kind:ty, $request:expr) => {
        <$kind>::take(&$request.body).ok_or(Errno::INVAL)?
    };
}

/// The answer must have room for so many bytes: what was done could not be told otherwise.
fn needs_room(request: &Request, bytes: usize) -> Result<(), Errno> {
    if request.room() < bytes {
        return Err(Errno::INVAL);
    }
    Ok(())
}

/// Nothing is sent by a socket that only hears of changes: what is asked of the network goes by `ROUTE`.
fn may_lead_somewhere(facts: &Facts) -> Result<(), Errno> {
    if facts.only_hears() {
        return Err(Errno::PERM);
    }
    Ok(())
}

fn nothing() -> Answer {
    Ok(Reply::Data(Vec::new()))
}

impl Sockets {
    /// Serves one request, once.
    pub(super) fn operate(&self, request: &Request, seen: &mut Seen) -> Answer {
        match request.header.opcode {
            op::SOCKET => self.socket(request, seen),
            op::TAKE => self.take(request, seen),
            op::BIND => self.bind(request, seen),
            op::CONNECT => self.connect(request, seen),
            op::LISTEN => self.listen(request, seen),
            op::ACCEPT => self.accept(request, seen),
            op::NAME => self.name(request, seen),
            op::SET_OPTION => self.set_option(request, seen),
            op::GET_OPTION => self.get_option(request, seen),
            op::SEND => self.send(request, seen),
            op::RECEIVE => self.receive(request, seen),
            op::SHUTDOWN => self.shutdown(request, seen),
            op::CLOSE => self.close(request, seen),
            op::IOCTL => self.ioctl(request, seen),
            op::ROUTE => self.ask_route(request),
            op::SEND_MANY => self.send_many(request, |_, _| {}),
            _ => Err(Errno::NOSYS),
        }
    }

    fn socket(&self, request: &Request, seen: &mut Seen) -> Answer {
        let (args, _) = arguments!(SocketIn, request);
        needs_room(request, SocketOut::BYTES)?;
        let (family, kind, protocol) = supported(&args)?;
        let facts = Facts::new(args.family, args.kind, args.protocol);
        seen.is(&facts);
        let reserved = self.table.reserve()?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(family, kind, flags, protocol)?;
        let socket = reserved.use_for(fd, facts, false)?;
        seen.socket = Some(socket);
        let mut out = Vec::with_capacity(SocketOut::BYTES);
        SocketOut { socket, padding: 0 }.put(&mut out);
        Ok(Reply::Data(out))
    }

    fn bind(&self, request: &Request, seen: &mut Seen) -> Answer {
        let (args, address) = arguments!(NetIn, request);
        needs_room(request, MAX_ADDRESS)?;
        seen.socket = Some(args.socket);
        let address = Address::new(address)?;
        self.table.with(args.socket, |open| {
            seen.is(&open.facts);
            seen.own = address;
            if open.facts.only_hears() {
                options::check_listener(address.as_bytes())?;
            }
            raw::bind(&open.fd, &address)?;
            let own = raw::own_name(&open.fd)?;
            (open.facts.own, seen.own) = (own, own);
            Ok(Reply::Data(own.as_bytes().to_vec()))
        })
    }

    fn connect(&self, request: &Request, seen: &mut Seen) -> Answer {
        let (args, address) = arguments!(NetIn, request);
        seen.socket = Some(args.socket);
        let address = Address::new(address)?;
        self.table.with(args.socket, |open| {
            seen.is(&open.facts);
            seen.peer = address;
            may_lead_somewhere(&open.facts)?;
            let connected = raw::connect(&open.fd, &address);
            if matches!(connected, Ok(()) | Err(Errno::INPROGRESS)) {
                open.facts.peer = address;
                open.facts.own = raw::own_name(&open.fd).unwrap_or_default();
            }
            seen.own = open.facts.own;
            connected?;
            nothing()
        })
    }

    fn listen(&self, request: &Request, seen: &mut Seen) -> Answer {
        let (args, _) = arguments!(NetIn, request);
        seen.socket = Some(args.socket);
        self.table.with(args.socket, |open| {
            rustix::net::listen(&open.fd, args.argument.cast_signed())?;
            // One that was not bound has an address now.
            open.facts.own = raw::own_name(&open.fd).unwrap_or_default();
            seen.addresses(&open.facts);
            nothing()
        })
    }

    fn accept(&self, request: &Request, seen: &mut Seen) -> Answer {
        let (args, _) = arguments!(NetIn, request);
        needs_room(request, AcceptOut::BYTES + 2 * MAX_ADDRESS)?;
        seen.socket = Some(args.socket);
        // Before: a connection that has no number would be lost.
        let reserved = self.table.reserve()?;
        let (fd, facts) = self.table.with(args.socket, |open| {
            seen.addresses(&open.facts);
            let (fd, peer) = raw::accept(&open.fd)?;
            let own = raw::own_name(&fd)?;
            Ok((fd, open.facts.accepted(own, peer)))
        })?;
        seen.addresses(&facts);
        let (own, peer) = (facts.own, facts.peer);
        let socket = reserved.use_for(fd, facts, true)?;
        seen.value = Some(socket.into());
        let mut out = Vec::with_capacity(AcceptOut::BYTES + 2 * MAX_ADDRESS);
        AcceptOut {
            socket,
            peer_bytes: peer.as_bytes().len() as u32,
            own_bytes: own.as_bytes().len() as u32,
            padding: 0,
        }
        .put(&mut out);
        out.extend_from_slice(peer.as_bytes());
        out.extend_from_slice(own.as_bytes());
        Ok(Reply::Data(out))
    }

    fn name(&self, request: &Request, seen: &mut Seen) -> Answer {
        let (args, _) = arguments!(NetIn, request);
        seen.socket = Some(args.socket);
        self.table.look(args.socket, |open| {
            seen.is(&open.facts);
            let name = match args.argument {
                0 => {
                    seen.own = raw::own_name(&open.fd)?;
                    seen.own
                }
                1 => {
                    seen.peer = raw::peer_name(&open.fd)?;
                    seen.peer
                }
                _ => return Err(Errno::INVAL),
            };
            Ok(Reply::Data(name.as_bytes().to_vec()))
        })
    }

    fn set_option(&self, request: &Request, seen: &mut Seen) -> Answer {
        let (args, value) = arguments!(OptionIn, request);
        seen.socket = Some(args.socket);
        let (level, name) = (args.level.cast_signed(), args.name.cast_signed());
        if args.size as usize != value.len() || value.len() > MAX_VALUE {
            return Err(Errno::INVAL);
        }
        self.table.with(args.socket, |open| {
            seen.is(&open.facts);
            if open.facts.only_hears() {
                options::check_set_of_listener(level, name, value)?;
            } else {
                options::check_set(level, name, value)?;
            }
            raw::set_option(&open.fd, level, name, value)?;
            open.facts.option_set(level, name, value);
            nothing()
        })
    }

    fn get_option(&self, request: &Request, seen: &mut Seen) -> Answer {
        let (args, _) = arguments!(OptionIn, request);
        seen.socket = Some(args.socket);
        let (level, name) = (args.level.cast_signed(), args.name.cast_signed());
        let room = (args.size as usize).min(MAX_VALUE);
        needs_room(request, room)?;
        // `SO_ERROR` takes the error away.
        self.table.with(args.socket, |open| {
            seen.is(&open.facts);
            options::check_get(level, name)?;
            if open.facts.only_hears() && level != libc::SOL_SOCKET {
                return Err(Errno::NOPROTOOPT);
            }
            let mut value = vec![0; room];
            let bytes = raw::get_option(&open.fd, level, name, &mut value)?;
            value.truncate(bytes);
            Ok(Reply::Data(value))
        })
    }

    fn send(&self, request: &Request, seen: &mut Seen) -> Answer {
        let (args, rest) = arguments!(SendIn, request);
        seen.socket = Some(args.socket);
        needs_room(request, size_of::<u32>())?;
        let (address, control) = rest
            .split_at_checked(args.address_bytes as usize)
            .ok_or(Errno::INVAL)?;
        if request.sent_bytes() > MAX_SOCKET_DATA {
            return Err(Errno::MSGSIZE);
        }
        let address = Address::new(address)?;
        let flags = args.flags.cast_signed() & SEND_FLAGS | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        self.table.with(args.socket, |open| {
            seen.addresses(&open.facts);
            if !address.as_bytes().is_empty() {
                seen.peer = address;
            }
            may_lead_somewhere(&open.facts)?;
            options::check_control(control)?;
            let sent = raw::send(
                &self.memory,
                &open.fd,
                flags,
                &address,
                control,
                &request.data,
            )?;
            seen.value = Some(sent as u64);
            open.facts.sent = open.facts.sent.saturating_add(sent as u64);
            let sent = u32::try_from(sent).map_err(|_| Errno::OVERFLOW)?;
            self.table.moved();
            Ok(Reply::Data(sent.to_le_bytes().to_vec()))
        })
    }

    /// Sends on many sockets; `seen` gets what there is to tell of each. A guest that is not told at once that something was not
    /// sent is interrupted for it.
    pub(super) fn send_many(
        &self,
        request: &Request,
        mut seen: impl FnMut(&Seen, Option<Errno>),
    ) -> Answer {
        let (args, ones) = arguments!(NetIn, request);
        let count = args.argument as usize;
        needs_room(request, count.saturating_mul(size_of::<i32>()))?;
        let (mut ones, mut addresses) = ones
            .split_at_checked(count.saturating_mul(SendOne::BYTES))
            .ok_or(Errno::INVAL)?;
        let mut data = request.data.clone();
        let mut results = Vec::with_capacity(count * size_of::<i32>());
        let mut is_short = false;
        while let Some((one, rest)) = SendOne::take(ones) {
            ones = rest;
            let part = split(&mut data, one.bytes as usize).ok_or(Errno::INVAL)?;
            let (address, others) = addresses
                .split_at_checked(one.address_bytes as usize)
                .ok_or(Errno::INVAL)?;
            addresses = others;
            let address = Address::new(address)?;
            let mut what = Seen {
                socket: Some(one.socket),
                ..Seen::default()
            };
            let sent = self.send_one(one.socket, &address, &part, &mut what);
            seen(&what, sent.err());
            is_short |= sent != Ok(one.bytes as usize);
            let result = match sent {
                Ok(sent) => i32::try_from(sent).unwrap_or(i32::MAX),
                Err(errno) => -errno.raw_os_error(),
            };
            results.extend_from_slice(&result.to_le_bytes());
        }
        self.table.moved();
        if is_short {
            self.table.interrupt();
        }
        Ok(Reply::Data(results))
    }

    fn send_one(
        &self,
        socket: u32,
        address: &Address,
        data: &Ranges,
        seen: &mut Seen,
    ) -> Result<usize, Errno> {
        self.table.with(socket, |open| {
            seen.addresses(&open.facts);
            if !address.as_bytes().is_empty() {
                seen.peer = *address;
            }
            may_lead_somewhere(&open.facts)?;
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            let sent = loop {
                match raw::send(&self.memory, &open.fd, flags, address, &[], data) {
                    Err(Errno::INTR) => {}
                    sent => break sent?,
                }
            };
            seen.value = Some(sent as u64);
            open.facts.sent = open.facts.sent.saturating_add(sent as u64);
            Ok(sent)
        })
    }

    fn receive(&self, request: &Request, seen: &mut Seen) -> Answer {
        let (args, _) = arguments!(ReceiveIn, request);
        seen.socket = Some(args.socket);
        needs_room(request, RECEIVE_HEAD)?;
        let wanted = (args.size as usize).min(MAX_SOCKET_DATA);
        let (data, room) = request.room_after(RECEIVE_HEAD, wanted);
        let flags = args.flags.cast_signed() & RECEIVE_FLAGS | libc::MSG_DONTWAIT;
        self.table.with(args.socket, |open| {
            seen.addresses(&open.facts);
            if open.told.has_delivered(args.deliveries)
                && flags & (libc::MSG_OOB | libc::MSG_ERRQUEUE) == 0
            {
                return Err(Errno::STALE);
            }
            let received = raw::receive(&self.memory, &open.fd, flags, &data)?;
            self.table.moved();
            if !received.address.as_bytes().is_empty() {
                seen.peer = received.address;
            }
            let placed = received.bytes.min(room);
            seen.value = Some(placed as u64);
            if args.flags.cast_signed() & (libc::MSG_PEEK | libc::MSG_ERRQUEUE) == 0 {
                open.facts.received = open.facts.received.saturating_add(placed as u64);
            }
            let mut head = Vec::with_capacity(RECEIVE_HEAD);
            received.out().put(&mut head);
            head.extend_from_slice(received.address.as_bytes());
            head.resize(ReceiveOut::BYTES + MAX_ADDRESS, 0);
            head.extend_from_slice(&received.control);
            head.resize(RECEIVE_HEAD, 0);
            Ok(Reply::Before(head, placed))
        })
    }

    fn shutdown(&self, request: &Request, seen: &mut Seen) -> Answer {
        let (args, _) = arguments!(NetIn, request);
        seen.socket = Some(args.socket);
        let how = match args.argument {
            0 => Shutdown::Read,
            1 => Shutdown::Write,
            2 => Shutdown::Both,
            _ => return Err(Errno::INVAL),
        };
        self.table.with(args.socket, |open| {
            seen.addresses(&open.facts);
            rustix::net::shutdown(&open.fd, how)?;
            nothing()
        })
    }

    fn close(&self, request: &Request, seen: &mut Seen) -> Answer {
        let (args, _) = arguments!(NetIn, request);
        seen.socket = Some(args.socket);
        let facts = self.table.close(args.socket)?;
        seen.addresses(&facts);
        nothing()
    }

    fn ioctl(&self, request: &Request, seen: &mut Seen) -> Answer {
        let (args, argument) = arguments!(NetIn, request);
        if argument.len() > MAX_VALUE {
            return Err(Errno::INVAL);
        }
        needs_room(request, argument.len())?;
        let answer = if args.socket == NO_SOCKET {
            ioctl::serve(&self.any, args.argument, argument)?
        } else {
            seen.socket = Some(args.socket);
            // Who is told how many bytes there are finds them.
            self.table.with(args.socket, |open| {
                seen.is(&open.facts);
                ioctl::serve(&open.fd, args.argument, argument)
            })?
        };
        Ok(Reply::Data(answer))
    }

    fn ask_route(&self, request: &Request) -> Answer {
        let room = request.room().min(MAX_ROUTE_ANSWER);
        let mut route = self.route.lock().unwrap_or_else(PoisonError::into_inner);
        route.ask(&request.body, room).map(Reply::Data)
    }
}

/// Which socket to make.
///
/// # Errors
/// `EAFNOSUPPORT`, `ESOCKTNOSUPPORT`, `EPROTONOSUPPORT`.
fn supported(args: &SocketIn) -> Result<(AddressFamily, SocketType, Option<Protocol>), Errno> {
    let (family, icmp) = match args.family.cast_signed() {
        libc::AF_INET => (AddressFamily::INET, libc::IPPROTO_ICMP),
        libc::AF_INET6 => (AddressFamily::INET6, libc::IPPROTO_ICMPV6),
        libc::AF_NETLINK => {
            let is_datagram = args.kind.cast_signed() != libc::SOCK_STREAM;
            return if is_datagram && args.protocol.cast_signed() == libc::NETLINK_ROUTE {
                Ok((AddressFamily::NETLINK, SocketType::RAW, None))
            } else {
                Err(Errno::PROTONOSUPPORT)
            };
        }
        _ => return Err(Errno::AFNOSUPPORT),
    };
    let protocol = args.protocol.cast_signed();
    let (kind, is_supported) = match args.kind.cast_signed() {
        libc::SOCK_STREAM => (
            SocketType::STREAM,
            matches!(protocol, 0 | libc::IPPROTO_TCP),
        ),
        libc::SOCK_DGRAM => (
            SocketType::DGRAM,
            matches!(protocol, 0 | libc::IPPROTO_UDP) || protocol == icmp,
        ),
        libc::SOCK_RAW => (SocketType::RAW, (1..=255).contains(&protocol)),
        _ => return Err(Errno::SOCKTNOSUPPORT),
    };
    if !is_supported {
        return Err(Errno::PROTONOSUPPORT);
    }
    let protocol = std::num::NonZeroU32::new(args.protocol).map(Protocol::from_raw);
    Ok((family, kind, protocol))
}
