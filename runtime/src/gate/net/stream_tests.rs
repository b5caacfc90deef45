//! Bytes of streams, and datagrams, that come without asking, and that go together.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::Ordering;

use husk_abi::boundary::net::{
    DELIVERED_BYTES, DELIVERED_OFFSET, DeliveredOut, HAND_IN, MAX_DELIVERED, NO_SOCKET, NetIn,
    ReceiveIn, ReceiveOut, SHARED_OFFSET, STATES_OFFSET, SendOne, Shared, SocketState, op, wanted,
};
use rustix::event::PollFlags;
use rustix::io::Errno;
use vm_memory::{Bytes, GuestAddress};

use super::tests::{Guest, localhost, raw};

/// A guest's stream, and its peer.
fn stream(guest: &Guest) -> (u32, TcpStream) {
    let listener = TcpListener::bind(localhost(0)).unwrap();
    let socket = guest.socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let connected = guest.net(op::CONNECT, socket, 0, &raw(address));
    assert!(matches!(connected, Ok(_) | Err(Errno::INPROGRESS)));
    (socket, listener.accept().unwrap().0)
}

fn state(socket: u32, offset: usize) -> u64 {
    STATES_OFFSET + (socket as usize * size_of::<SocketState>() + offset) as u64
}

fn shared(offset: usize) -> u64 {
    SHARED_OFFSET + offset as u64
}

impl Guest {
    fn store(&self, at: u64, value: u32) {
        self.memory
            .store(value, GuestAddress(at), Ordering::SeqCst)
            .unwrap();
    }

    fn want_bytes(&self, socket: u32) {
        let at = state(socket, std::mem::offset_of!(SocketState, wanted));
        self.store(at, wanted::BYTES);
    }

    /// Takes what was delivered: whose it is, and the bytes or an error.
    fn delivered(&self) -> Vec<(u32, Result<Vec<u8>, i32>)> {
        let taken = shared(std::mem::offset_of!(Shared, taken));
        let end = self.word(shared(std::mem::offset_of!(Shared, delivered)));
        let mut at = self.word(taken);
        let mut all = Vec::new();
        while at != end {
            let place = DELIVERED_OFFSET + u64::from(at % DELIVERED_BYTES);
            let mut head = [0; DeliveredOut::BYTES];
            self.memory
                .read_slice(&mut head, GuestAddress(place))
                .unwrap();
            let (head, _) = DeliveredOut::take(&head).unwrap();
            let mut bytes = vec![0; (head.bytes - head.tail) as usize];
            let data = GuestAddress(place + DeliveredOut::BYTES as u64);
            self.memory.read_slice(&mut bytes, data).unwrap();
            if head.socket != NO_SOCKET {
                let result = if head.error == 0 {
                    Ok(bytes)
                } else {
                    Err(head.error)
                };
                all.push((head.socket, result));
            }
            at = at.wrapping_add(DeliveredOut::BYTES as u32 + head.bytes.next_multiple_of(16));
        }
        self.store(taken, end);
        all
    }

    fn send_many(&self, parts: &[(u32, &[u8])]) -> Result<Vec<i32>, Errno> {
        let mut body = Vec::new();
        NetIn {
            socket: NO_SOCKET,
            argument: parts.len() as u32,
        }
        .put(&mut body);
        for (socket, data) in parts {
            SendOne {
                socket: *socket,
                bytes: data.len() as u32,
                ..SendOne::default()
            }
            .put(&mut body);
        }
        let data: Vec<&[u8]> = parts.iter().map(|(_, data)| *data).collect();
        let answer = self.ask(op::SEND_MANY, &[&body, &data.concat()])?;
        Ok(answer
            .chunks_exact(4)
            .map(|bytes| i32::from_le_bytes(bytes.try_into().unwrap()))
            .collect())
    }
}

#[test]
fn bytes_come_to_who_waits_for_them() {
    let guest = Guest::new();
    let (socket, mut peer) = stream(&guest);
    guest.want_bytes(socket);
    peer.write_all(b"hello").unwrap();
    guest.interrupts.recv().unwrap();
    assert_eq!(guest.delivered(), [(socket, Ok(b"hello".to_vec()))]);
    assert!(!guest.ready(socket).contains(PollFlags::IN));
    // Who does not know of them gets no others.
    assert_eq!(guest.receive(socket, 0, 9).err(), Some(Errno::STALE));
    let mut args = Vec::new();
    ReceiveIn {
        socket,
        size: 9,
        deliveries: 1,
        ..ReceiveIn::default()
    }
    .put(&mut args);
    assert_eq!(guest.ask(op::RECEIVE, &[&args]), Err(Errno::AGAIN));
    // The end is no bytes: it stays to be asked for.
    guest.want_bytes(socket);
    drop(peer);
    guest.interrupts.recv().unwrap();
    assert_eq!(guest.delivered(), []);
    assert!(
        guest
            .ready(socket)
            .contains(PollFlags::IN | PollFlags::RDHUP)
    );
}

#[test]
fn bytes_come_with_an_operation() {
    let guest = Guest::deaf();
    let (socket, mut peer) = stream(&guest);
    guest.want_bytes(socket);
    peer.write_all(b"abc").unwrap();
    let mut delivered = Vec::new();
    while delivered.is_empty() {
        assert_eq!(guest.send_many(&[(socket, b"x")]), Ok(vec![1]));
        delivered = guest.delivered();
    }
    assert_eq!(delivered, [(socket, Ok(b"abc".to_vec()))]);
    // Nobody wants any: they stay.
    peer.write_all(b"def").unwrap();
    while !guest.ready(socket).contains(PollFlags::IN) {
        assert_eq!(guest.send_many(&[(socket, b"x")]), Ok(vec![1]));
    }
    assert_eq!(guest.delivered(), []);
}

/// The ring goes round, in order, and is never overrun.
#[test]
fn a_ring_full_of_bytes() {
    let guest = Guest::deaf();
    let (socket, mut peer) = stream(&guest);
    let total = 3 * DELIVERED_BYTES as usize;
    let bytes: Vec<u8> = (0..total).map(|at| (at / 7 % 251) as u8).collect();
    let all = bytes.clone();
    let writer = std::thread::spawn(move || peer.write_all(&all).map(|()| peer).unwrap());
    let mut got = Vec::new();
    let mut most = 0;
    while got.len() < total {
        // As much as the guest asks for before it takes any.
        for _ in 0..8 {
            guest.want_bytes(socket);
            let _ = guest.send_many(&[(socket, b"")]);
        }
        for (of, bytes) in guest.delivered() {
            assert_eq!(of, socket);
            let bytes = bytes.unwrap();
            most = most.max(bytes.len());
            got.extend(bytes);
        }
    }
    assert_eq!((got == bytes, most <= MAX_DELIVERED), (true, true));
    drop(writer.join().unwrap());
    // A guest that says it took what it was not given gets nothing.
    let taken = shared(std::mem::offset_of!(Shared, taken));
    guest.store(taken, guest.word(taken).wrapping_add(999));
    guest.want_bytes(socket);
    let _ = guest.send_many(&[(socket, b"")]);
}

#[test]
fn many_streams_send_together() {
    let guest = Guest::new();
    let (one, mut peer_of_one) = stream(&guest);
    let (other, mut peer_of_other) = stream(&guest);
    let sent = guest.send_many(&[(one, b"ab"), (4000, b"lost"), (other, b"cde")]);
    assert_eq!(sent, Ok(vec![2, -libc::EBADF, 3]));
    let (mut two, mut three) = ([0; 2], [0; 3]);
    peer_of_one.read_exact(&mut two).unwrap();
    peer_of_other.read_exact(&mut three).unwrap();
    assert_eq!((&two, &three), (b"ab", b"cde"));
    // What could not be sent is told at once, to a guest that may sleep.
    guest.interrupts.recv().unwrap();
    let room = guest.word(state(one, std::mem::offset_of!(SocketState, room)));
    assert!((1000..1 << 30).contains(&room), "{room}");
}

/// A guest's datagram socket with a port, and somebody who knows it.
fn datagrams(guest: &Guest) -> (u32, UdpSocket, SocketAddr) {
    let other = UdpSocket::bind(localhost(0)).unwrap();
    let socket = guest.socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
    let name = guest.net(op::BIND, socket, 0, &raw(localhost(0))).unwrap();
    let port = u16::from_be_bytes([name[2], name[3]]);
    (socket, other, localhost(port))
}

#[test]
fn datagrams_come_together() {
    let guest = Guest::deaf();
    let (socket, other, to) = datagrams(&guest);
    for datagram in [&b"one"[..], b"three", &[7; MAX_DELIVERED + 1], b"last"] {
        other.send_to(datagram, to).unwrap();
    }
    guest.want_bytes(socket);
    guest.send_many(&[(socket, b"")]).unwrap();
    let expected = [b"one".to_vec(), b"three".to_vec()].map(|bytes| (socket, Ok(bytes)));
    // What is too long for the ring stays to be asked for, and what is behind it.
    assert_eq!(guest.delivered(), expected);
    assert!(guest.ready(socket).contains(PollFlags::IN));
    assert_eq!(guest.receive(socket, 0, 9).err(), Some(Errno::STALE));
}

/// What is told of a datagram stands behind it.
#[test]
fn datagrams_come_with_their_sender() {
    let guest = Guest::deaf();
    let (socket, other, to) = datagrams(&guest);
    other.send_to(b"abc", to).unwrap();
    guest.want_bytes(socket);
    guest.send_many(&[(socket, b"")]).unwrap();
    let mut all = [0; DeliveredOut::BYTES + 3 + ReceiveOut::BYTES + 16];
    let at = GuestAddress(DELIVERED_OFFSET);
    guest.memory.read_slice(&mut all, at).unwrap();
    let (head, rest) = DeliveredOut::take(&all).unwrap();
    assert_eq!(head.bytes as usize, rest.len());
    assert_eq!(head.tail as usize, ReceiveOut::BYTES + 16);
    let (data, tail) = rest.split_at(3);
    let (out, address) = ReceiveOut::take(tail).unwrap();
    assert_eq!((data, out.bytes), (&b"abc"[..], 3));
    assert_eq!(address, raw(other.local_addr().unwrap()));
}

#[test]
fn datagrams_go_together() {
    let guest = Guest::new();
    let (socket, other, _) = datagrams(&guest);
    let address = raw(other.local_addr().unwrap());
    let mut body = Vec::new();
    NetIn {
        socket: NO_SOCKET,
        argument: 2,
    }
    .put(&mut body);
    for bytes in [2, 3] {
        SendOne {
            socket,
            bytes,
            address_bytes: address.len() as u32,
            padding: 0,
        }
        .put(&mut body);
    }
    let all = [&body[..], &address, &address, b"abcde"].concat();
    let answer = guest.ask(op::SEND_MANY, &[&all]).unwrap();
    assert_eq!(answer, [2, 0, 0, 0, 3, 0, 0, 0]);
    let mut buffer = [0; 9];
    assert_eq!(other.recv(&mut buffer).unwrap(), 2);
    assert_eq!(
        (other.recv(&mut buffer).unwrap(), &buffer[..3]),
        (3, &b"cde"[..])
    );
}

/// Whoever keeps bytes without leaving is interrupted.
#[test]
fn kept_bytes_are_asked_for() {
    let guest = Guest::new();
    let (socket, _peer) = stream(&guest);
    guest.send_many(&[(socket, b"x")]).unwrap();
    let watched = shared(std::mem::offset_of!(Shared, watched));
    while guest.word(watched) == 0 {
        std::thread::yield_now();
    }
    guest.store(shared(std::mem::offset_of!(Shared, unsent)), 5);
    guest.interrupts.recv().unwrap();
    assert_eq!(guest.word(watched), HAND_IN);
    guest.store(shared(std::mem::offset_of!(Shared, unsent)), 0);
    // Nothing is sent any more: nobody watches.
    while guest.word(watched) != 0 {
        std::thread::yield_now();
    }
}
