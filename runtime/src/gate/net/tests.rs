//! The service against real sockets, on 127.0.0.1.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use husk_abi::boundary::boot::GuestRange;
use husk_abi::boundary::fuse::{InHeader, OutHeader};
use husk_abi::boundary::net::{
    AREA_BYTES, AcceptOut, CHANGED_OFFSET, MAX_ADDRESS, MAX_SOCKETS, NO_SOCKET, NetIn, OptionIn,
    RECEIVE_HEAD, ReceiveIn, ReceiveOut, STATES_OFFSET, SUMMARY_OFFSET, SendIn, SocketIn,
    SocketOut, SocketState, op,
};
use rustix::event::PollFlags;
use rustix::io::Errno;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::readiness::{Name, Numbers, Readiness};
use super::{Service, Sockets};
use crate::gate::Interrupt;
use crate::gate::requests::message::Request;
use crate::vmm::GuestMemory;

/// Where the tests put requests, and have answers put.
const REQUEST: u64 = 1 << 20;
const ANSWER: u64 = 2 << 20;
const MEMORY: usize = 4 << 20;
const STATE: u64 = size_of::<SocketState>() as u64;

struct Interrupts(mpsc::Sender<()>);

impl Interrupt for Interrupts {
    fn interrupt(&self) {
        let _ = self.0.send(());
    }

    fn wake(&self) -> bool {
        self.interrupt();
        true
    }
}

/// A guest.
pub(super) struct Guest {
    pub(super) memory: GuestMemory,
    pub(super) sockets: Arc<Sockets>,
    pub(super) interrupts: mpsc::Receiver<()>,
}

impl Guest {
    /// One whose sockets' events nobody looks at.
    pub(super) fn deaf() -> Self {
        let memory: GuestMemory =
            Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap());
        let area = GuestRange {
            gpa: 0,
            len: AREA_BYTES,
        };
        let (sender, interrupts) = mpsc::channel();
        let readiness = Readiness::new(memory.clone(), area, Arc::new(Interrupts(sender))).unwrap();
        let sockets = Sockets::new(memory.clone(), readiness, Arc::default(), false, None);
        let sockets = Arc::new(sockets.unwrap());
        Self {
            memory,
            sockets,
            interrupts,
        }
    }

    pub(super) fn new() -> Self {
        let guest = Self::deaf();
        let sockets = guest.sockets.clone();
        std::thread::spawn(move || sockets.announce());
        guest
    }

    fn ask_for(&self, opcode: u32, parts: &[&[u8]], room: usize) -> Result<Vec<u8>, Errno> {
        let body = parts.concat();
        let mut bytes = Vec::new();
        InHeader {
            len: (InHeader::BYTES + body.len()) as u32,
            opcode,
            ..InHeader::default()
        }
        .put(&mut bytes);
        bytes.extend(body);
        self.memory
            .write_slice(&bytes, GuestAddress(REQUEST))
            .unwrap();
        // In pieces, as a guest's buffers may be.
        let cut = room.min(600);
        let room = vec![
            (ANSWER, OutHeader::BYTES),
            (ANSWER + 4096, cut),
            (ANSWER + 65536, room - cut),
        ];
        let request =
            Request::from_ranges(&self.memory, vec![(REQUEST, bytes.len())], room.clone()).unwrap();
        let len = request.answer(&self.memory, self.sockets.serve(&request)) as usize;
        assert!(len >= OutHeader::BYTES);
        let mut answer = Vec::new();
        for (at, bytes) in room {
            let mut piece = vec![0; bytes];
            self.memory
                .read_slice(&mut piece, GuestAddress(at))
                .unwrap();
            answer.extend(piece);
        }
        let (header, rest) = OutHeader::take(&answer).unwrap();
        match header.error {
            0 => Ok(rest[..len - OutHeader::BYTES].to_vec()),
            error => Err(Errno::from_raw_os_error(-error)),
        }
    }

    pub(super) fn ask(&self, opcode: u32, parts: &[&[u8]]) -> Result<Vec<u8>, Errno> {
        self.ask_for(opcode, parts, 300 << 10)
    }

    pub(super) fn net(
        &self,
        opcode: u32,
        socket: u32,
        argument: u32,
        rest: &[u8],
    ) -> Result<Vec<u8>, Errno> {
        let mut args = Vec::new();
        NetIn { socket, argument }.put(&mut args);
        self.ask(opcode, &[&args, rest])
    }

    pub(super) fn socket(&self, family: i32, kind: i32, protocol: i32) -> Result<u32, Errno> {
        let mut args = Vec::new();
        SocketIn {
            family: family as u32,
            kind: kind as u32,
            protocol: protocol as u32,
            padding: 0,
        }
        .put(&mut args);
        let answer = self.ask(op::SOCKET, &[&args])?;
        Ok(SocketOut::take(&answer).unwrap().0.socket)
    }

    fn tcp(&self) -> u32 {
        self.socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap()
    }

    pub(super) fn send(
        &self,
        socket: u32,
        to: &[u8],
        control: &[u8],
        data: &[u8],
    ) -> Result<u32, Errno> {
        let mut args = Vec::new();
        SendIn {
            socket,
            flags: 0,
            address_bytes: to.len() as u32,
            control_bytes: control.len() as u32,
        }
        .put(&mut args);
        let answer = self.ask(op::SEND, &[&args, to, control, data])?;
        Ok(u32::from_le_bytes(answer.try_into().unwrap()))
    }

    pub(super) fn receive(&self, socket: u32, flags: i32, size: u32) -> Result<Message, Errno> {
        let mut args = Vec::new();
        ReceiveIn {
            socket,
            flags: flags as u32,
            size,
            deliveries: 0,
        }
        .put(&mut args);
        let answer = self.ask(op::RECEIVE, &[&args])?;
        let (out, rest) = ReceiveOut::take(&answer).unwrap();
        Ok(Message {
            address: rest[..out.address_bytes as usize].to_vec(),
            control: rest[MAX_ADDRESS..][..out.control_bytes as usize].to_vec(),
            data: answer[RECEIVE_HEAD..].to_vec(),
            out,
        })
    }

    fn option(
        &self,
        opcode: u32,
        socket: u32,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<Vec<u8>, Errno> {
        let mut args = Vec::new();
        OptionIn {
            socket,
            level: level as u32,
            name: name as u32,
            size: value.len() as u32,
        }
        .put(&mut args);
        let value = if opcode == op::SET_OPTION { value } else { b"" };
        self.ask(opcode, &[&args, value])
    }

    pub(super) fn word(&self, at: u64) -> u32 {
        self.memory
            .load::<u32>(GuestAddress(at), Ordering::SeqCst)
            .unwrap()
    }

    pub(super) fn ready(&self, socket: u32) -> PollFlags {
        let word = self.word(STATES_OFFSET + u64::from(socket) * STATE);
        PollFlags::from_bits_retain(word as u16)
    }

    fn want(&self, socket: u32) {
        let at = GuestAddress(STATES_OFFSET + u64::from(socket) * STATE + 4);
        self.memory.store(1u32, at, Ordering::SeqCst).unwrap();
    }

    /// Waits until the guest is told of `socket`, as a guest would: what is ready already needs no telling.
    fn wait(&self, socket: u32, events: PollFlags) {
        loop {
            self.want(socket);
            if self.ready(socket).contains(events) {
                return;
            }
            self.interrupts
                .recv_timeout(Duration::from_secs(20))
                .expect("the guest is interrupted");
            let bit = |offset: u64, index: u64| {
                let word = self
                    .memory
                    .load::<u64>(GuestAddress(offset + index / 64 * 8), Ordering::SeqCst)
                    .unwrap();
                word >> (index % 64) & 1 != 0
            };
            assert!(
                bit(CHANGED_OFFSET, socket.into()) && bit(SUMMARY_OFFSET, u64::from(socket) / 64)
            );
        }
    }
}

pub(super) struct Message {
    out: ReceiveOut,
    address: Vec<u8>,
    control: Vec<u8>,
    pub(super) data: Vec<u8>,
}

pub(super) fn raw(address: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(v4) = address else {
        panic!("{address} is not IPv4");
    };
    let mut bytes = 2u16.to_ne_bytes().to_vec();
    bytes.extend(v4.port().to_be_bytes());
    bytes.extend(v4.ip().octets());
    bytes.extend([0; 8]);
    bytes
}

fn parsed(bytes: &[u8]) -> SocketAddr {
    assert_eq!(bytes.len(), 16);
    let port = u16::from_be_bytes([bytes[2], bytes[3]]);
    let ip = Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]);
    SocketAddrV4::new(ip, port).into()
}

pub(super) fn localhost(port: u16) -> SocketAddr {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into()
}

/// A socket that hears of changes of the network does nothing else.
#[test]
fn a_listener_to_changes() {
    let guest = Guest::new();
    let make = |kind, protocol| guest.socket(libc::AF_NETLINK, kind, protocol);
    assert_eq!(make(libc::SOCK_STREAM, 0), Err(Errno::PROTONOSUPPORT));
    assert_eq!(make(libc::SOCK_RAW, 15), Err(Errno::PROTONOSUPPORT));
    let socket = make(libc::SOCK_RAW, libc::NETLINK_ROUTE).unwrap();
    let mut address = vec![16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    let bind = |address: &[u8]| guest.net(op::BIND, socket, 0, address).map(drop);
    assert_eq!(bind(&address), Err(Errno::INVAL));
    address[8] = 0;
    assert_eq!(bind(&address), Ok(()));
    let connect = guest.net(op::CONNECT, socket, 0, &address);
    assert_eq!(connect.err(), Some(Errno::PERM));
    let mut send = Vec::new();
    SendIn {
        socket,
        address_bytes: 12,
        ..SendIn::default()
    }
    .put(&mut send);
    let sent = guest.ask(op::SEND, &[&send, &address, b"RTM_NEWLINK"]);
    assert_eq!(sent.err(), Some(Errno::PERM));
}

#[test]
fn connects_and_talks() {
    let guest = Guest::new();
    let listener = TcpListener::bind(localhost(0)).unwrap();
    let server = listener.local_addr().unwrap();
    let socket = guest.tcp();
    assert!(
        guest
            .ready(socket)
            .contains(PollFlags::HUP | PollFlags::OUT)
    );
    match guest.net(op::CONNECT, socket, 0, &raw(server)) {
        Ok(_) | Err(Errno::INPROGRESS) => {}
        Err(other) => panic!("{other}"),
    }
    guest.wait(socket, PollFlags::OUT);
    let error = guest.option(
        op::GET_OPTION,
        socket,
        libc::SOL_SOCKET,
        libc::SO_ERROR,
        &[0; 4],
    );
    assert_eq!(error, Ok(vec![0; 4]));
    let (mut peer, own) = listener.accept().unwrap();
    assert_eq!(
        guest.net(op::NAME, socket, 0, b"").map(|it| parsed(&it)),
        Ok(own)
    );
    assert_eq!(
        guest.net(op::NAME, socket, 1, b"").map(|it| parsed(&it)),
        Ok(server)
    );

    assert_eq!(guest.receive(socket, 0, 100).err(), Some(Errno::AGAIN));
    assert_eq!(guest.ready(socket), PollFlags::OUT);
    assert_eq!(guest.send(socket, b"", b"", b"question"), Ok(8));
    let mut question = [0; 8];
    peer.read_exact(&mut question).unwrap();
    assert_eq!(&question, b"question");
    peer.write_all(b"an answer").unwrap();
    guest.wait(socket, PollFlags::IN);
    let peeked = guest.receive(socket, libc::MSG_PEEK, 2).unwrap();
    assert_eq!(
        (peeked.data.as_slice(), peeked.out.bytes),
        (b"an".as_slice(), 2)
    );
    assert!(guest.ready(socket).contains(PollFlags::IN));
    assert_eq!(guest.receive(socket, 0, 1000).unwrap().data, b"an answer");
    // Exact as soon as it was answered.
    assert_eq!(guest.ready(socket), PollFlags::OUT);

    drop(peer);
    guest.wait(socket, PollFlags::RDHUP);
    assert_eq!(guest.receive(socket, 0, 10).unwrap().out.bytes, 0);
    guest.net(op::CLOSE, socket, 0, b"").unwrap();
    assert_eq!(guest.ready(socket), PollFlags::empty());
    assert_eq!(guest.net(op::CLOSE, socket, 0, b""), Err(Errno::BADF));
}

#[test]
fn listens_and_accepts() {
    let guest = Guest::new();
    let listener = guest.tcp();
    guest
        .option(
            op::SET_OPTION,
            listener,
            libc::SOL_SOCKET,
            libc::SO_REUSEADDR,
            &1i32.to_ne_bytes(),
        )
        .unwrap();
    let bound = parsed(
        &guest
            .net(op::BIND, listener, 0, &raw(localhost(0)))
            .unwrap(),
    );
    assert_ne!(bound.port(), 0);
    guest.net(op::LISTEN, listener, 5, b"").unwrap();
    assert_eq!(guest.ready(listener), PollFlags::empty());
    assert_eq!(guest.net(op::ACCEPT, listener, 0, b""), Err(Errno::AGAIN));
    let mut peer = TcpStream::connect(bound).unwrap();
    guest.wait(listener, PollFlags::IN);
    let answer = guest.net(op::ACCEPT, listener, 0, b"").unwrap();
    let (out, addresses) = AcceptOut::take(&answer).unwrap();
    assert_ne!(out.socket, listener);
    let (of_peer, own) = addresses.split_at(out.peer_bytes as usize);
    assert_eq!(parsed(of_peer), peer.local_addr().unwrap());
    assert_eq!((parsed(own), own.len()), (bound, out.own_bytes as usize));
    assert_eq!(guest.ready(listener), PollFlags::empty());

    peer.write_all(b"x").unwrap();
    guest.wait(out.socket, PollFlags::IN);
    guest.net(op::SHUTDOWN, out.socket, 1, b"").unwrap();
    let mut rest = Vec::new();
    peer.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    // One that was accepted is not lost for want of room in the answer: it is not accepted.
    let _waiting = TcpStream::connect(bound).unwrap();
    guest.wait(listener, PollFlags::IN);
    let mut args = Vec::new();
    NetIn {
        socket: listener,
        argument: 0,
    }
    .put(&mut args);
    assert_eq!(guest.ask_for(op::ACCEPT, &[&args], 20), Err(Errno::INVAL));
    assert!(guest.net(op::ACCEPT, listener, 0, b"").is_ok());
}

#[test]
fn datagrams() {
    let guest = Guest::new();
    let peer = UdpSocket::bind(localhost(0)).unwrap();
    let to = raw(peer.local_addr().unwrap());
    let socket = guest
        .socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDP)
        .unwrap();
    guest
        .option(
            op::SET_OPTION,
            socket,
            libc::IPPROTO_IP,
            libc::IP_PKTINFO,
            &1i32.to_ne_bytes(),
        )
        .unwrap();
    assert_eq!(guest.send(socket, &to, b"", b"one"), Ok(3));
    let mut buffer = [0; 10];
    let (bytes, from) = peer.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..bytes], b"one");
    peer.send_to(b"a longer one", from).unwrap();
    guest.wait(socket, PollFlags::IN);
    let message = guest.receive(socket, libc::MSG_TRUNC, 4).unwrap();
    assert_eq!(message.data, b"a lo");
    assert_eq!((message.out.bytes, message.address), (12, to.clone()));
    assert!(message.out.flags as i32 & libc::MSG_TRUNC != 0);
    // IP_PKTINFO, with the address it was sent to.
    assert_eq!(message.control[8..16], [0, 0, 0, 0, 8, 0, 0, 0]);
    assert_eq!(message.control[24..28], [127, 0, 0, 1]);
    // Control messages go out, too, and only those that may.
    let mut ttl = 20u64.to_ne_bytes().to_vec();
    for word in [libc::IPPROTO_IP, libc::IP_TTL, 9] {
        ttl.extend(word.to_ne_bytes());
    }
    assert_eq!(guest.send(socket, &to, &ttl, b"two"), Ok(3));
    ttl[12..16].copy_from_slice(&libc::SO_MARK.to_ne_bytes());
    assert_eq!(guest.send(socket, &to, &ttl, b"two"), Err(Errno::INVAL));
    // Nothing to nobody is a message as well.
    assert_eq!(guest.send(socket, &to, b"", b""), Ok(0));
}

#[test]
fn a_refused_connection_is_an_event() {
    let guest = Guest::new();
    let address = TcpListener::bind(localhost(0))
        .unwrap()
        .local_addr()
        .unwrap();
    let socket = guest.tcp();
    match guest.net(op::CONNECT, socket, 0, &raw(address)) {
        Err(Errno::CONNREFUSED) => return,
        Err(Errno::INPROGRESS) => {}
        other => panic!("{other:?}"),
    }
    guest.wait(socket, PollFlags::ERR);
    let error = guest.option(
        op::GET_OPTION,
        socket,
        libc::SOL_SOCKET,
        libc::SO_ERROR,
        &[0; 4],
    );
    assert_eq!(error, Ok(libc::ECONNREFUSED.to_ne_bytes().to_vec()));
    assert!(!guest.ready(socket).contains(PollFlags::ERR));
}

#[test]
fn room_to_send_is_told() {
    let guest = Guest::new();
    let listener = TcpListener::bind(localhost(0)).unwrap();
    let socket = guest.tcp();
    let _ = guest.net(op::CONNECT, socket, 0, &raw(listener.local_addr().unwrap()));
    let (mut peer, _) = listener.accept().unwrap();
    guest.wait(socket, PollFlags::OUT);
    let block = vec![7; 256 << 10];
    let mut sent = 0;
    loop {
        match guest.send(socket, b"", b"", &block) {
            Ok(bytes) => sent += bytes as usize,
            Err(errno) => {
                assert_eq!(errno, Errno::AGAIN);
                break;
            }
        }
    }
    assert_eq!(guest.ready(socket), PollFlags::empty());
    let reader = std::thread::spawn(move || {
        let mut all = vec![0; sent];
        peer.read_exact(&mut all).unwrap();
        all.iter().all(|byte| *byte == 7)
    });
    guest.wait(socket, PollFlags::OUT);
    assert!(reader.join().unwrap());
}

#[test]
fn every_event_is_told_who_wants_to_know() {
    let guest = Guest::new();
    let peer = UdpSocket::bind(localhost(0)).unwrap();
    let socket = guest.socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
    let bound = parsed(&guest.net(op::BIND, socket, 0, &raw(localhost(0))).unwrap());
    peer.send_to(b"1", bound).unwrap();
    guest.wait(socket, PollFlags::IN);
    while guest.interrupts.try_recv().is_ok() {}
    // Ready already, and an edge all the same.
    for _ in 0..3 {
        guest.want(socket);
        peer.send_to(b"2", bound).unwrap();
        guest
            .interrupts
            .recv_timeout(Duration::from_secs(20))
            .unwrap();
    }
}

#[test]
fn what_is_in_no_list() {
    let guest = Guest::deaf();
    for (family, kind, protocol, errno) in [
        (libc::AF_UNIX, libc::SOCK_STREAM, 0, Errno::AFNOSUPPORT),
        (libc::AF_PACKET, libc::SOCK_RAW, 0, Errno::AFNOSUPPORT),
        (libc::AF_NETLINK, libc::SOCK_RAW, 15, Errno::PROTONOSUPPORT),
        (
            libc::AF_INET,
            libc::SOCK_SEQPACKET,
            0,
            Errno::SOCKTNOSUPPORT,
        ),
        (
            libc::AF_INET,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
            0,
            Errno::SOCKTNOSUPPORT,
        ),
        (libc::AF_INET, libc::SOCK_STREAM, 262, Errno::PROTONOSUPPORT),
        (
            libc::AF_INET,
            libc::SOCK_STREAM,
            libc::IPPROTO_SCTP,
            Errno::PROTONOSUPPORT,
        ),
        (
            libc::AF_INET,
            libc::SOCK_DGRAM,
            libc::IPPROTO_ICMPV6,
            Errno::PROTONOSUPPORT,
        ),
        (
            libc::AF_INET6,
            libc::SOCK_DGRAM,
            libc::IPPROTO_ICMP,
            Errno::PROTONOSUPPORT,
        ),
        (libc::AF_INET, libc::SOCK_RAW, 256, Errno::PROTONOSUPPORT),
    ] {
        assert_eq!(
            guest.socket(family, kind, protocol),
            Err(errno),
            "{family} {kind} {protocol}"
        );
    }
    let socket = guest.tcp();
    let on = 1i32.to_ne_bytes();
    let set = |level, name| guest.option(op::SET_OPTION, socket, level, name, &on);
    assert_eq!(set(libc::SOL_SOCKET, libc::SO_MARK), Err(Errno::NOPROTOOPT));
    assert_eq!(set(libc::IPPROTO_TCP, libc::TCP_NODELAY), Ok(Vec::new()));
    let get = guest.option(
        op::GET_OPTION,
        socket,
        libc::IPPROTO_TCP,
        libc::TCP_NODELAY,
        &on,
    );
    assert_eq!(get, Ok(on.to_vec()));
    // SIOCSIFFLAGS, an unknown one, FIONREAD of another size.
    assert_eq!(
        guest.net(op::IOCTL, socket, 0x8914, &[0; 40]),
        Err(Errno::PERM)
    );
    assert_eq!(
        guest.net(op::IOCTL, socket, 0x8946, &[0; 40]),
        Err(Errno::NOTTY)
    );
    assert_eq!(
        guest.net(op::IOCTL, socket, 0x541b, &[0; 8]),
        Err(Errno::INVAL)
    );
    for opcode in op::BIND..=op::IOCTL {
        let errno = guest.net(opcode, 5000, 0, &[0; 8]).unwrap_err();
        assert!(
            [Errno::BADF, Errno::INVAL, Errno::NOTTY].contains(&errno),
            "{opcode}: {errno}"
        );
    }
}

#[test]
fn interfaces() {
    let guest = Guest::deaf();
    let all = guest.net(op::IOCTL, NO_SOCKET, 0x8912, &[0; 1000]).unwrap();
    assert!(all.len().is_multiple_of(40));
    assert!(all.chunks(40).any(|entry| entry.starts_with(b"lo\0")));
    let mut request = [0; 40];
    request[..2].copy_from_slice(b"lo");
    let flags = guest.net(op::IOCTL, NO_SOCKET, 0x8913, &request).unwrap();
    let loopback = u16::from_ne_bytes([flags[16], flags[17]]);
    assert!(loopback & libc::IFF_LOOPBACK as u16 != 0);
}

/// A question, with one byte of `struct rtgenmsg`.
fn question(kind: u16, flags: u16) -> Vec<u8> {
    let mut bytes = 20u32.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(77u32.to_ne_bytes());
    bytes.extend(4711u32.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes
}

#[test]
fn questions_about_routes() {
    const RTM_NEWLINK: u16 = 16;
    const RTM_GETLINK: u16 = 18;
    const RTM_GETADDR: u16 = 22;
    const RTM_GETNSID: u16 = 90;
    let guest = Guest::deaf();
    for _ in 0..2 {
        let links = guest
            .ask(op::ROUTE, &[&question(RTM_GETLINK, 0x301)])
            .unwrap();
        let mut rest = links.as_slice();
        let mut kinds = Vec::new();
        while let Some((header, _)) = rest.split_first_chunk::<16>() {
            let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            kinds.push(u16::from_ne_bytes([header[4], header[5]]));
            let mut origin = 77u32.to_ne_bytes().to_vec();
            origin.extend(4711u32.to_ne_bytes());
            assert_eq!(header[8..], origin);
            rest = &rest[len.next_multiple_of(4)..];
        }
        assert_eq!((kinds[0], kinds.last()), (RTM_NEWLINK, Some(&3)));
    }
    // An answer that does not fit leaves nothing for the next.
    let ask = |room| guest.ask_for(op::ROUTE, &[&question(RTM_GETADDR, 0x301)], room);
    assert_eq!(ask(30), Err(Errno::NOBUFS));
    assert!(ask(300 << 10).is_ok());
    // What the host does not take is an answer, too, and repeats the question.
    let refused = guest.ask(op::ROUTE, &[&question(RTM_GETLINK, 1)]).unwrap();
    assert_eq!(refused[4..6], 2u16.to_ne_bytes());
    assert_eq!(refused[20 + 8..20 + 16], question(0, 0)[8..16]);
    for (kind, flags, errno) in [
        (RTM_NEWLINK, 1, Errno::PERM),
        (RTM_NEWLINK + 1, 1, Errno::PERM),
        (RTM_GETNSID, 1, Errno::OPNOTSUPP),
        (RTM_GETLINK, 0, Errno::INVAL),
        (2, 1, Errno::INVAL),
    ] {
        assert_eq!(
            guest.ask(op::ROUTE, &[&question(kind, flags)]),
            Err(errno),
            "{kind}"
        );
    }
    assert_eq!(guest.ask(op::ROUTE, &[b"short"]), Err(Errno::INVAL));
    let mut long = question(RTM_GETLINK, 0x301);
    long[0] = 200;
    assert_eq!(guest.ask(op::ROUTE, &[&long]), Err(Errno::INVAL));
}

#[test]
fn numbers_have_turns() {
    let mut numbers = Numbers::default();
    let all: Vec<Name> = (0..MAX_SOCKETS).map(|_| numbers.take().unwrap()).collect();
    assert_eq!(numbers.take(), Err(Errno::NFILE));
    numbers.give_back(all[7]);
    let again = numbers.take().unwrap();
    assert_eq!(again.number, 7);
    assert_ne!(again, all[7]);
}

/// An event of a socket that is gone is nothing to the next with its number.
#[test]
fn late_events() {
    let guest = Guest::deaf();
    let peer = UdpSocket::bind(localhost(0)).unwrap();
    let udp = || guest.socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
    let gone = udp();
    let bound = parsed(&guest.net(op::BIND, gone, 0, &raw(localhost(0))).unwrap());
    peer.send_to(b"x", bound).unwrap();
    guest.net(op::CLOSE, gone, 0, b"").unwrap();
    let next = udp();
    assert_eq!((next, guest.ready(next)), (gone, PollFlags::OUT));
    let other = udp();
    let bound = parsed(&guest.net(op::BIND, other, 0, &raw(localhost(0))).unwrap());
    guest.want(next);
    guest.want(other);
    peer.send_to(b"x", bound).unwrap();
    guest
        .sockets
        .table
        .wait(&mut super::Watch::default())
        .unwrap();
    assert!(guest.ready(other).contains(PollFlags::IN));
    assert_eq!(guest.ready(next), PollFlags::OUT);
    assert_eq!(guest.word(CHANGED_OFFSET), 1 << other);
}

/// Whatever bodies come: errors, or what was asked for.
#[test]
fn mutated_bodies() {
    let guest = Guest::deaf();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    // Bound to where nothing leaves the host from.
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
        let socket = guest.socket(libc::AF_INET, kind, 0).unwrap();
        guest.net(op::BIND, socket, 0, &raw(localhost(0))).unwrap();
    }
    for _ in 0..20_000 {
        let opcode = op::BIND + random() as u32 % 15;
        let mut body: Vec<u8> = (0..random() % 80).map(|_| random() as u8 & 3).collect();
        if let Some(first) = body.first_chunk_mut() {
            *first = (random() as u32 % 3).to_le_bytes();
        }
        let mut bytes = Vec::new();
        InHeader {
            len: (InHeader::BYTES + body.len()) as u32,
            opcode,
            ..InHeader::default()
        }
        .put(&mut bytes);
        bytes.extend(&body);
        guest
            .memory
            .write_slice(&bytes, GuestAddress(REQUEST))
            .unwrap();
        let room = vec![(
            ANSWER + (random() % 2) * 64 * MEMORY as u64,
            random() as usize % 2000,
        )];
        let ranges = vec![(REQUEST, bytes.len())];
        if let Some(request) = Request::from_ranges(&guest.memory, ranges, room) {
            let answer = guest.sockets.serve(&request);
            request.answer(&guest.memory, answer);
        }
    }
}
