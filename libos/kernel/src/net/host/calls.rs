//! The messages, typed: one function an operation.

use alloc::vec::Vec;

use husk_abi::boundary::net::{
    AcceptOut, MAX_ADDRESS, MAX_CONTROL, MAX_ROUTE_ANSWER, MAX_SOCKET_DATA, NetIn, OptionIn,
    RECEIVE_HEAD, ReceiveIn, ReceiveOut, SendIn, SocketIn, SocketOut, TakeIn, op,
};

use crate::host::{Ask, BULK_BYTES, Exchange, Needs};
use crate::mm::Held;
use crate::net::control::Item;
use crate::user::IoBuf;
use crate::{Errno, Kernel, Result, Thread};

const PAGE: usize = 4096;
/// Data of at least so many bytes go straight to and from the process's memory.
const DIRECT: usize = 16 << 10;
/// Data of at most so many bytes go in the message itself.
const SMALL: usize = 3 << 10;
/// Bytes of a `cmsghdr`.
const CONTROL_HEADER: usize = 16;
const _: () = assert!(MAX_SOCKET_DATA <= BULK_BYTES && MAX_ROUTE_ANSWER <= BULK_BYTES);
const _: () = assert!(SMALL + RECEIVE_HEAD + 64 <= PAGE && MAX_ADDRESS + MAX_CONTROL < SMALL);

/// Arguments as bytes.
macro_rules! body {
    ($arguments:expr) => {{
        let mut body = Vec::with_capacity(64);
        $arguments.put(&mut body);
        body
    }};
}

/// Sends a message whose answer is small.
fn call(kernel: &Kernel, opcode: u32, body: &[u8]) -> Result<Vec<u8>> {
    let needs = if body.len() > SMALL {
        Needs::Buffer
    } else {
        Needs::Nothing
    };
    let mut exchange = kernel.host.files.begin(&kernel.frames, needs)?;
    let ask = Ask {
        opcode,
        body,
        ..Ask::default()
    };
    let len = ask_host(kernel, &mut exchange, &ask)?;
    Ok(exchange.answer(len))
}

/// Asks, and wakes who waits for what the answer brought about.
fn ask_host(kernel: &Kernel, exchange: &mut Exchange<'_>, ask: &Ask<'_>) -> Result<usize> {
    let len = exchange.call(&kernel.frames, ask);
    kernel.net.host.poll();
    len
}

fn simple(kernel: &Kernel, opcode: u32, socket: u32, argument: u32) -> Result<Vec<u8>> {
    call(kernel, opcode, &body!(NetIn { socket, argument }))
}

fn with_address(kernel: &Kernel, opcode: u32, socket: u32, address: &[u8]) -> Result<Vec<u8>> {
    let mut body = body!(NetIn {
        socket,
        argument: 0
    });
    body.extend_from_slice(address);
    call(kernel, opcode, &body)
}

/// A new socket's number.
pub fn socket(kernel: &Kernel, family: u32, kind: u32, protocol: u32) -> Result<u32> {
    let body = body!(SocketIn {
        family,
        kind,
        protocol,
        padding: 0,
    });
    let answer = call(kernel, op::SOCKET, &body)?;
    let (out, _) = SocketOut::take(&answer).ok_or(Errno::EIO)?;
    Ok(out.socket)
}

/// The number of a socket that was handed over.
pub fn take(kernel: &Kernel, session: u32, index: u32) -> Result<u32> {
    let answer = call(kernel, op::TAKE, &body!(TakeIn { session, index }))?;
    let (out, _) = SocketOut::take(&answer).ok_or(Errno::EIO)?;
    Ok(out.socket)
}

/// Gives the address it has then.
pub fn bind(kernel: &Kernel, socket: u32, address: &[u8]) -> Result<Vec<u8>> {
    with_address(kernel, op::BIND, socket, address)
}

pub fn connect(kernel: &Kernel, socket: u32, address: &[u8]) -> Result<()> {
    with_address(kernel, op::CONNECT, socket, address).map(drop)
}

pub fn listen(kernel: &Kernel, socket: u32, backlog: u32) -> Result<()> {
    simple(kernel, op::LISTEN, socket, backlog).map(drop)
}

/// The connection's number, the peer's and its own address.
pub fn accept(kernel: &Kernel, socket: u32) -> Result<(u32, Vec<u8>, Vec<u8>)> {
    let answer = simple(kernel, op::ACCEPT, socket, 0)?;
    let (out, rest) = AcceptOut::take(&answer).ok_or(Errno::EIO)?;
    let (peer, rest) = rest
        .split_at_checked(out.peer_bytes as usize)
        .ok_or(Errno::EIO)?;
    let own = rest.get(..out.own_bytes as usize).ok_or(Errno::EIO)?;
    Ok((out.socket, peer.to_vec(), own.to_vec()))
}

/// Its own address, or the peer's.
pub fn name(kernel: &Kernel, socket: u32, of_peer: bool) -> Result<Vec<u8>> {
    simple(kernel, op::NAME, socket, of_peer.into())
}

pub fn set_option(
    kernel: &Kernel,
    socket: u32,
    (level, name): (u32, u32),
    value: &[u8],
) -> Result<()> {
    let mut body = body!(OptionIn {
        socket,
        level,
        name,
        size: value.len() as u32,
    });
    body.extend_from_slice(value);
    call(kernel, op::SET_OPTION, &body).map(drop)
}

pub fn option(
    kernel: &Kernel,
    socket: u32,
    (level, name): (u32, u32),
    room: usize,
) -> Result<Vec<u8>> {
    let body = body!(OptionIn {
        socket,
        level,
        name,
        size: room as u32,
    });
    call(kernel, op::GET_OPTION, &body)
}

/// `how` is `SHUT_*`.
pub fn shutdown(kernel: &Kernel, socket: u32, how: u32) -> Result<()> {
    simple(kernel, op::SHUTDOWN, socket, how).map(drop)
}

pub fn close(kernel: &Kernel, socket: u32) -> Result<()> {
    simple(kernel, op::CLOSE, socket, 0).map(drop)
}

/// The argument's bytes, changed.
pub fn ioctl(kernel: &Kernel, socket: u32, request: u32, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut body = body!(NetIn {
        socket,
        argument: request,
    });
    body.extend_from_slice(bytes);
    call(kernel, op::IOCTL, &body)
}

/// Asks what routes, addresses and the like there are: one message of `NETLINK_ROUTE`, answered by others.
///
/// # Errors
/// What the host's socket gives; that a question fails stands in the answer.
pub fn route(kernel: &Kernel, question: &[u8]) -> Result<Vec<u8>> {
    let mut exchange = kernel.host.files.begin(&kernel.frames, Needs::Buffer)?;
    let ask = Ask {
        opcode: op::ROUTE,
        body: question,
        answer_bytes: MAX_ROUTE_ANSWER,
        ..Ask::default()
    };
    let len = exchange.call(&kernel.frames, &ask)?;
    Ok(exchange.bulk_bytes(len.min(MAX_ROUTE_ANSWER)))
}

/// The process's own memory that the next `len` bytes of `buf` are, if that is RAM and worth it.
fn direct(buf: &IoBuf<'_>, len: usize, to_fill: bool) -> Option<Held> {
    if len < DIRECT {
        return None;
    }
    let held = husk_hal::cpu::with_current(|t: &Thread| buf.hold(t, len, to_fill))?;
    (held.bytes() >= DIRECT).then_some(held)
}

fn needs(held: Option<&Held>) -> Needs {
    match held {
        None => Needs::Buffer,
        Some(held) if held.spans().len() > 1 => Needs::Table,
        Some(_) => Needs::Nothing,
    }
}

/// Control messages one after the other, as `sendmsg(2)` has them.
fn control_bytes(control: &[(i32, i32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (level, kind, data) in control {
        bytes.extend_from_slice(&(CONTROL_HEADER + data.len()).to_ne_bytes());
        bytes.extend_from_slice(&level.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

/// What goes with the data of a `SEND`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sending<'a> {
    /// `MSG_*`.
    pub flags: u32,
    /// Where to; empty: to the peer.
    pub address: &'a [u8],
    /// Level, type and data of control messages.
    pub control: &'a [(i32, i32, Vec<u8>)],
}

/// Sends up to `len` bytes of `buf`, which has moved on behind what was sent.
///
/// # Errors
/// The host's; `EINVAL` for too many control messages; `EFAULT`. Nothing is sent and `buf` is where it was then.
pub fn send(
    kernel: &Kernel,
    socket: u32,
    sending: &Sending<'_>,
    buf: &mut IoBuf<'_>,
    len: usize,
) -> Result<usize> {
    let control = control_bytes(sending.control);
    if control.len() > MAX_CONTROL || sending.address.len() > MAX_ADDRESS {
        return Err(Errno::EINVAL);
    }
    let mut body = body!(SendIn {
        socket,
        flags: sending.flags,
        address_bytes: sending.address.len() as u32,
        control_bytes: control.len() as u32,
    });
    body.extend_from_slice(sending.address);
    body.extend_from_slice(&control);
    let mut len = len.min(buf.remaining()).min(MAX_SOCKET_DATA);
    let place = buf.place();
    let held = direct(buf, len, false);
    let is_small = held.is_none() && len <= SMALL;
    let needs = if is_small {
        Needs::Nothing
    } else {
        needs(held.as_ref())
    };
    let mut exchange = kernel.host.files.begin(&kernel.frames, needs)?;
    if is_small {
        let head = body.len();
        body.resize(head + len, 0);
        let got = buf
            .take(&mut body[head..])
            .inspect_err(|_| buf.return_to(place))?;
        if got < len {
            buf.return_to(place);
            return Err(Errno::EFAULT);
        }
    } else if let Some(held) = &held {
        len = len.min(held.bytes());
    } else {
        let mut done = 0;
        while done < len {
            let frame = exchange.bulk().offset((done / PAGE) as u64);
            let piece = (len - done).min(PAGE);
            let got = buf
                .take_frame(frame, 0, piece)
                .inspect_err(|_| buf.return_to(place))?;
            if got < piece {
                buf.return_to(place);
                return Err(Errno::EFAULT);
            }
            done += got;
        }
    }
    let ask = Ask {
        opcode: op::SEND,
        body: &body,
        data_bytes: if is_small { 0 } else { len },
        data_at: held.as_ref().map_or(&[], Held::spans),
        ..Ask::default()
    };
    let sent = ask_host(kernel, &mut exchange, &ask).and_then(|got| {
        let answer = exchange.answer(got);
        let sent = answer.first_chunk().ok_or(Errno::EIO)?;
        Ok((u32::from_le_bytes(*sent) as usize).min(len))
    });
    buf.return_to(place);
    buf.skip(*sent.as_ref().unwrap_or(&0));
    sent
}

/// What was received beside the data.
#[derive(Debug, Default)]
pub struct Received {
    /// What `recvmsg(2)` returned.
    pub bytes: usize,
    /// How many bytes of data there are: less if they were not all wanted (`MSG_TRUNC`).
    pub put: usize,
    /// `MSG_*`.
    pub flags: u32,
    /// The sender's address; empty if there is none.
    pub address: Vec<u8>,
    /// Control messages.
    pub control: Vec<Item>,
}

/// Control messages as `recvmsg(2)` has them.
pub fn control_items(mut bytes: &[u8]) -> Vec<Item> {
    let mut items = Vec::new();
    while let Some(head) = bytes.first_chunk::<CONTROL_HEADER>() {
        let (len, rest) = head.split_at(8);
        let len = len
            .first_chunk()
            .map_or(0, |len| usize::from_ne_bytes(*len));
        let (level, kind) = rest.split_at(4);
        let word = |bytes: &[u8]| {
            bytes
                .first_chunk()
                .map_or(0, |word| u32::from_ne_bytes(*word))
        };
        let Some(data) = bytes.get(CONTROL_HEADER..len) else {
            break;
        };
        items.push(Item::Plain {
            level: word(level),
            kind: word(kind),
            data: data.to_vec(),
        });
        bytes = bytes.get(len.next_multiple_of(8)..).unwrap_or_default();
    }
    items
}

/// Receives into `buf`, `wanted` bytes at most. `deliveries` is how often something came by itself.
///
/// # Errors
/// The host's; `ESTALE` if they came more often; `EFAULT` (what was received is lost then, as on Linux).
pub fn receive(
    kernel: &Kernel,
    socket: u32,
    flags: u32,
    deliveries: u32,
    buf: &mut IoBuf<'_>,
    wanted: usize,
) -> Result<Received> {
    let mut len = wanted.min(buf.remaining()).min(MAX_SOCKET_DATA);
    let held = direct(buf, len, true);
    if let Some(held) = &held {
        len = len.min(held.bytes());
    }
    let is_small = held.is_none() && len <= SMALL;
    let needs = if is_small {
        Needs::Nothing
    } else {
        needs(held.as_ref())
    };
    let body = body!(ReceiveIn {
        socket,
        flags,
        size: len as u32,
        deliveries,
    });
    let mut exchange = kernel.host.files.begin(&kernel.frames, needs)?;
    let ask = Ask {
        opcode: op::RECEIVE,
        body: &body,
        answer_bytes: if is_small { 0 } else { len },
        answer_head: if is_small { 0 } else { RECEIVE_HEAD },
        data_at: held.as_ref().map_or(&[], Held::spans),
        ..Ask::default()
    };
    let answered = ask_host(kernel, &mut exchange, &ask)?;
    let put = answered
        .checked_sub(RECEIVE_HEAD)
        .ok_or(Errno::EIO)?
        .min(len);
    let answer = exchange.answer(if is_small { answered } else { RECEIVE_HEAD });
    let (out, rest) = ReceiveOut::take(&answer).ok_or(Errno::EIO)?;
    let part = |from: usize, bytes: u32, room: usize| {
        let bytes = (bytes as usize).min(room);
        rest.get(from..from + bytes).unwrap_or_default()
    };
    let received = Received {
        bytes: usize::try_from(out.bytes).unwrap_or(put).max(put),
        put,
        flags: out.flags,
        address: part(0, out.address_bytes, MAX_ADDRESS).to_vec(),
        control: control_items(part(MAX_ADDRESS, out.control_bytes, MAX_CONTROL)),
    };
    if is_small {
        let data = answer
            .get(RECEIVE_HEAD..RECEIVE_HEAD + put)
            .ok_or(Errno::EIO)?;
        if buf.put(data)? < put {
            return Err(Errno::EFAULT);
        }
    } else if held.is_some() {
        buf.skip(put);
    } else {
        let mut done = 0;
        while done < put {
            let frame = exchange.bulk().offset((done / PAGE) as u64);
            let piece = (put - done).min(PAGE);
            if buf.put_frame(frame, 0, piece)? < piece {
                return Err(Errno::EFAULT);
            }
            done += piece;
        }
    }
    Ok(received)
}
