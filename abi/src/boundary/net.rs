//! Sockets of the host, in the container's network namespace: requests on the queue of [`super::fuse`], and words that tell
//! what is ready.
//!
//! A request is [`super::fuse::InHeader`], whose node is 0, and the operation's arguments; its answer begins with
//! [`super::fuse::OutHeader`]. Addresses are `struct sockaddr`s, options and flags Linux's, as system calls have them. A socket
//! is a number the VMM gives out, below [`MAX_SOCKETS`], gone with [`op::CLOSE`]. No operation waits: what would is `EAGAIN`, or
//! `EINPROGRESS` for [`op::CONNECT`].
//!
//! The guest decides who may do what among its own processes (low ports, raw sockets); the VMM decides what leaves the guest at
//! all, by family, type, option and request.
//!
//! *Readiness*: [`super::boot::BootInfo::sockets`] begins with a bit for each socket whose word changed while the guest wanted to
//! know ([`CHANGED_OFFSET`]), and one for each word of those ([`SUMMARY_OFFSET`]); the VMM sets the lower first, then interrupts,
//! and the guest takes the upper first. From [`STATES_OFFSET`] on each socket has a [`SocketState`]. Its `ready` is exact when an
//! operation on the socket was answered, and follows soon when the host's end changes.
//!
//! *Bytes that come by themselves*: who waits for a socket with [`wanted::BYTES`] gets a stream's first bytes, or the first datagrams,
//! without asking, in the ring at [`DELIVERED_OFFSET`]: [`DeliveredOut`]s with their bytes behind them, each at a multiple of 16
//! and in one piece. What was delivered was received: the host's socket no longer has it.
//!
//! *Bytes that go later*: the guest may keep what a program sends, up to [`SocketState::room`], and hand it in with
//! [`op::SEND_MANY`] when it next leaves for the VMM. It says so by [`Shared::unsent`], and does so only while [`Shared::watched`]
//! is set: then the VMM interrupts a guest that computes instead.

use alloc::vec::Vec;
use core::sync::atomic::AtomicU32;

/// Opcodes, apart from those of [`super::fuse::op`].
pub mod op {
    /// [`super::SocketIn`]; answered by [`super::SocketOut`].
    pub const SOCKET: u32 = 64;
    /// [`super::NetIn`] and an address; answered by the address it has now.
    pub const BIND: u32 = 65;
    /// [`super::NetIn`] and an address.
    pub const CONNECT: u32 = 66;
    /// [`super::NetIn`] with the backlog.
    pub const LISTEN: u32 = 67;
    /// [`super::NetIn`]; answered by [`super::AcceptOut`], the peer's and the own address.
    pub const ACCEPT: u32 = 68;
    /// [`super::NetIn`] with 0 for the own address, 1 for the peer's; answered by it.
    pub const NAME: u32 = 69;
    /// [`super::OptionIn`] and the value.
    pub const SET_OPTION: u32 = 70;
    /// [`super::OptionIn`] with the room; answered by the value.
    pub const GET_OPTION: u32 = 71;
    /// [`super::SendIn`], address, control messages, data; answered by how many bytes were taken, 4 bytes.
    pub const SEND: u32 = 72;
    /// [`super::ReceiveIn`]; answered by [`super::RECEIVE_HEAD`] bytes that begin with [`super::ReceiveOut`], address and control
    /// messages, and then data.
    pub const RECEIVE: u32 = 73;
    /// [`super::NetIn`] with `SHUT_*`.
    pub const SHUTDOWN: u32 = 74;
    /// [`super::NetIn`].
    pub const CLOSE: u32 = 75;
    /// [`super::NetIn`] with the request, and its argument's bytes; answered by these, changed.
    pub const IOCTL: u32 = 76;
    /// A question of `NETLINK_ROUTE` (`RTM_GET*`), one message; answered by the answers' messages.
    pub const ROUTE: u32 = 77;
    /// [`super::TakeIn`]: a socket that a process was handed from outside; answered by [`super::SocketOut`].
    pub const TAKE: u32 = 79;
    /// [`super::NetIn`] with a count, so many [`super::SendOne`]s, the address of each, and then the data of each; answered by a
    /// number for each, 4 bytes: how many were taken, or an error's number, negative.
    pub const SEND_MANY: u32 = 78;
}

/// Names of the opcodes, for records and statistics.
#[must_use]
pub fn op_name(opcode: u32) -> Option<&'static str> {
    Some(match opcode {
        op::SOCKET => "socket",
        op::BIND => "bind",
        op::CONNECT => "connect",
        op::LISTEN => "listen",
        op::ACCEPT => "accept",
        op::NAME => "name",
        op::SET_OPTION => "setsockopt",
        op::GET_OPTION => "getsockopt",
        op::SEND => "send",
        op::RECEIVE => "receive",
        op::SHUTDOWN => "shutdown",
        op::CLOSE => "close",
        op::IOCTL => "ioctl",
        op::ROUTE => "route",
        op::TAKE => "take",
        op::SEND_MANY => "send_many",
        _ => return None,
    })
}

/// Most sockets of the host a guest may have.
pub const MAX_SOCKETS: usize = 8192;
/// Most bytes of an address (`struct sockaddr_storage`).
pub const MAX_ADDRESS: usize = 128;
/// Most bytes of an option's value, or of an `ioctl`'s argument.
pub const MAX_VALUE: usize = 1024;
/// Most bytes of control messages, either way.
pub const MAX_CONTROL: usize = 352;
/// Most bytes of data of one `SEND` or `RECEIVE`.
pub const MAX_SOCKET_DATA: usize = 256 << 10;
/// Most bytes of the answers to one `ROUTE`.
pub const MAX_ROUTE_ANSWER: usize = 256 << 10;
/// Bytes before the data of a `RECEIVE`'s answer: [`ReceiveOut`], then room for an address, then for control messages.
pub const RECEIVE_HEAD: usize = ReceiveOut::BYTES + MAX_ADDRESS + MAX_CONTROL;

super::fuse::wire! {
    /// `SOCKET`: `AF_INET` or `AF_INET6`; `SOCK_STREAM`, `SOCK_DGRAM` or `SOCK_RAW`, without flags. Or `AF_NETLINK` and
    /// `NETLINK_ROUTE`: to hear of changes of the network, and for nothing else.
    SocketIn, 16 { family: u32, kind: u32, protocol: u32, padding: u32 }
}
super::fuse::wire! {
    /// `TAKE`: the descriptor number `index` of those session `session` was handed. Each can be taken once.
    TakeIn, 8 { session: u32, index: u32 }
}
super::fuse::wire! {
    /// Answers `SOCKET`.
    SocketOut, 8 { socket: u32, padding: u32 }
}
super::fuse::wire! {
    /// Operations with one number, or none. An `IOCTL` about interfaces needs no socket: [`NO_SOCKET`].
    NetIn, 8 { socket: u32, argument: u32 }
}
super::fuse::wire! {
    /// Answers `ACCEPT`; the addresses follow.
    AcceptOut, 16 { socket: u32, peer_bytes: u32, own_bytes: u32, padding: u32 }
}
super::fuse::wire! {
    /// `SET_OPTION` and `GET_OPTION`.
    OptionIn, 16 { socket: u32, level: u32, name: u32, size: u32 }
}
super::fuse::wire! {
    /// `SEND`: `flags` are `MSG_*`; the other sizes are those of what follows, in this order.
    SendIn, 16 { socket: u32, flags: u32, address_bytes: u32, control_bytes: u32 }
}
super::fuse::wire! {
    /// One of a `SEND_MANY`: its data have so many bytes, and the address where they go, if that is not the peer.
    SendOne, 16 { socket: u32, bytes: u32, address_bytes: u32, padding: u32 }
}
super::fuse::wire! {
    /// Bytes that were delivered: so many of a socket, or of nobody ([`NO_SOCKET`]). `error` is what receiving gave, if not 0. Of a
    /// datagram the last `tail` of the bytes are a [`ReceiveOut`], the sender's address and control messages; of a stream it is 0.
    DeliveredOut, 16 { socket: u32, bytes: u32, error: i32, tail: u32 }
}
super::fuse::wire! {
    /// `RECEIVE`: `flags` are `MSG_*`, `size` is how many bytes of data are wanted at most. `deliveries` is how often
    /// the guest found a [`DeliveredOut`] for the socket: if there are others, nothing is received (`ESTALE`).
    ReceiveIn, 16 { socket: u32, flags: u32, size: u32, deliveries: u32 }
}
super::fuse::wire! {
    /// Answers `RECEIVE`: `flags` are `MSG_*`; `bytes` is what `recvmsg(2)` returned, more than the data that follow if it was
    /// asked for (`MSG_TRUNC`).
    ReceiveOut, 32 { flags: u32, address_bytes: u32, control_bytes: u32, padding: u32, bytes: u64, reserved: u64 }
}

/// `NetIn::socket` of an `IOCTL` that is about no socket.
pub const NO_SOCKET: u32 = u32::MAX;

/// What is known of a socket without asking.
#[repr(C)]
#[derive(Debug)]
pub struct SocketState {
    /// `POLL*` that hold now; written by the VMM.
    pub ready: AtomicU32,
    /// Not 0 ([`wanted`]): the guest wants to be interrupted at the next event of the host's end, whether `ready` gains
    /// something by it or not: who waits for edges (`EPOLLET`) may have seen the earlier ones. Set by the guest, taken by the
    /// VMM when it does so. Either side writes its own word before it reads the other's.
    pub wanted: AtomicU32,
    /// So many bytes its send buffer has room for, and that for sure; a datagram takes [`DATAGRAM_COST`] more than it has. As exact
    /// as `ready`.
    pub room: AtomicU32,
    /// Zero.
    pub reserved: u32,
}
super::assert_size!(SocketState, 16);

/// Values of [`SocketState::wanted`].
pub mod wanted {
    /// The next event.
    pub const EVENT: u32 = 1;
    /// The next event, and if that is bytes of a stream, these: at most [`super::MAX_DELIVERED`]; or datagrams, each of at most
    /// so many.
    pub const BYTES: u32 = 2;
}

/// What a datagram takes of its sender's buffer beside its bytes, at most.
pub const DATAGRAM_COST: usize = 1024;
/// Most bytes delivered at a time.
pub const MAX_DELIVERED: usize = 16 << 10;

/// What both sides know of all sockets.
#[repr(C)]
#[derive(Debug)]
pub struct Shared {
    /// Bytes ever put into the ring at [`DELIVERED_OFFSET`], by the VMM.
    pub delivered: AtomicU32,
    /// Bytes ever taken out of it, by the guest.
    pub taken: AtomicU32,
    /// Not 0: the VMM looks at `unsent` every now and then. [`HAND_IN`]: it has interrupted the guest for it. Written by the VMM.
    pub watched: AtomicU32,
    /// Not 0: the guest has bytes to send; another number for others. Written by the guest.
    pub unsent: AtomicU32,
}
super::assert_size!(Shared, 16);

/// Value of [`Shared::watched`] when the guest is to hand in what it keeps at once.
pub const HAND_IN: u32 = 2;

/// Offset of the words with a bit for each socket.
pub const CHANGED_OFFSET: u64 = 0;
/// Offset of the words with a bit for each word at [`CHANGED_OFFSET`].
pub const SUMMARY_OFFSET: u64 = CHANGED_OFFSET + MAX_SOCKETS as u64 / 8;
/// Offset of [`Shared`].
pub const SHARED_OFFSET: u64 = SUMMARY_OFFSET + MAX_SOCKETS as u64 / 64 / 8;
/// Offset of the sockets' states.
pub const STATES_OFFSET: u64 = super::layout::PAGE_SIZE;
/// Offset of the ring of delivered bytes.
pub const DELIVERED_OFFSET: u64 = STATES_OFFSET + (MAX_SOCKETS * size_of::<SocketState>()) as u64;
/// Bytes of that ring.
pub const DELIVERED_BYTES: u32 = 64 << 10;
/// Bytes of [`super::boot::BootInfo::sockets`].
pub const AREA_BYTES: u64 = DELIVERED_OFFSET + DELIVERED_BYTES as u64;
const _: () = assert!(SHARED_OFFSET + size_of::<Shared>() as u64 <= STATES_OFFSET);
const _: () = assert!(DELIVERED_OFFSET.is_multiple_of(super::layout::PAGE_SIZE));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_round_trip() {
        let out = ReceiveOut {
            flags: 0x20,
            address_bytes: 16,
            bytes: 1 << 33,
            ..ReceiveOut::default()
        };
        let mut bytes = Vec::new();
        out.put(&mut bytes);
        bytes.push(9);
        assert_eq!(ReceiveOut::take(&bytes), Some((out, [9].as_slice())));
        assert_eq!(ReceiveOut::take(&bytes[..31]), None);
    }

    #[test]
    fn opcodes_are_apart_from_those_of_files() {
        for opcode in 0..128 {
            let files = super::super::fuse::op_name(opcode);
            assert!(files.is_none() || op_name(opcode).is_none(), "{opcode}");
        }
    }
}
