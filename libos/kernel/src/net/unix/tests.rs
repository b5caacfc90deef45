//! Unix sockets through their system calls, on a test kernel.

use std::sync::Arc;

use husk_abi::linux::{general, net};

use crate::fs::poll_calls::poll;
use crate::fs::rw::{read, write};
use crate::net::calls::{
    accept, bind, connect, getsockname, getsockopt, listen, recvfrom, recvmsg, sendmsg, sendto,
    setsockopt, shutdown, socket, socketpair,
};
use crate::process::testing::test_thread;
use crate::user::UserAddr;
use crate::{Errno, SysResult, Thread};

const NULL: UserAddr = UserAddr(0);
const UNIX: i32 = net::AF_UNIX as i32;
const STREAM: u64 = net::SOCK_STREAM as u64;
const DATAGRAM: u64 = net::SOCK_DGRAM as u64;
const DONTWAIT: u64 = net::MSG_DONTWAIT as u64;

fn addr<T: ?Sized>(value: &mut T) -> UserAddr {
    UserAddr(core::ptr::from_mut(value).cast::<u8>() as u64)
}

fn pair(t: &Thread, kind: u64) -> (i32, i32) {
    let mut fds = [0i32; 2];
    socketpair(t, UNIX, kind, 0, addr(&mut fds)).unwrap();
    (fds[0], fds[1])
}

fn put(t: &Thread, fd: i32, bytes: &[u8]) -> SysResult {
    write(t, fd, UserAddr(bytes.as_ptr() as u64), bytes.len())
}

fn get(t: &Thread, fd: i32, len: usize, flags: u64) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0u8; len];
    let at = addr(bytes.as_mut_slice());
    let got = recvfrom(t, fd, at, len, flags | DONTWAIT, NULL, NULL)?;
    bytes.truncate(got);
    Ok(bytes)
}

fn close(t: &Thread, fd: i32) {
    t.files().close(fd).unwrap();
}

fn name(path: &[u8]) -> Vec<u8> {
    [&(net::AF_UNIX as u16).to_ne_bytes()[..], path].concat()
}

fn at_name(
    t: &Thread,
    call: fn(&Thread, i32, UserAddr, i32) -> SysResult,
    fd: i32,
    path: &[u8],
) -> SysResult {
    let mut name = name(path);
    let len = name.len() as i32;
    call(t, fd, addr(name.as_mut_slice()), len)
}

fn ready(t: &Thread, fd: i32) -> u32 {
    let mut entry = general::pollfd {
        fd,
        events: (general::POLLIN | general::POLLOUT) as i16,
        revents: 0,
    };
    poll(t, addr(&mut entry), 1, 0).unwrap();
    entry.revents as u32
}

/// Sends one byte with descriptors.
fn pass(t: &Thread, fd: i32, fds: &[i32]) -> SysResult {
    let mut control = vec![0u64; 2];
    control[0] = (16 + fds.len() * 4) as u64;
    control[1] = u64::from(net::SOL_SOCKET) | u64::from(net::SCM_RIGHTS) << 32;
    for pair in fds.chunks(2) {
        let high = pair.get(1).copied().unwrap_or(0);
        control.push(pair[0] as u64 | (high as u64) << 32);
    }
    let mut byte = [b'x'];
    let mut iov = [addr(&mut byte).0, 1];
    let mut message = header(&mut iov, &mut control);
    message.msg_controllen = 16 + fds.len() * 4;
    sendmsg(t, fd, addr(&mut message), 0)
}

fn header(iov: &mut [u64; 2], control: &mut [u64]) -> net::msghdr {
    net::msghdr {
        msg_name: core::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: core::ptr::from_mut(iov).cast(),
        msg_iovlen: 1,
        msg_control: control.as_mut_ptr().cast(),
        msg_controllen: control.len() * 8,
        msg_flags: 0,
    }
}

/// Receives one byte and the descriptors that came with it.
fn take(t: &Thread, fd: i32) -> Result<Vec<i32>, Errno> {
    let mut control = vec![0u64; 34];
    let mut byte = [0u8];
    let mut iov = [addr(&mut byte).0, 1];
    let mut message = header(&mut iov, &mut control);
    recvmsg(t, fd, addr(&mut message), DONTWAIT)?;
    let count = (control[0] as usize).saturating_sub(16) / 4;
    Ok((0..count)
        .map(|index| (control[2 + index / 2] >> (index % 2 * 32)) as i32)
        .collect())
}

#[test]
fn families_and_kinds() {
    let t = test_thread();
    assert_eq!(socket(&t, 3, STREAM, 0), Err(Errno::EAFNOSUPPORT));
    assert_eq!(socket(&t, UNIX, 4, 0), Err(Errno::ESOCKTNOSUPPORT));
    assert_eq!(socket(&t, UNIX, STREAM, 5), Err(Errno::EPROTONOSUPPORT));
    assert_eq!(socket(&t, UNIX, 0x101, 0), Err(Errno::EINVAL));
    assert_eq!(socket(&t, UNIX, STREAM, 0), Ok(0));
    assert_eq!(listen(&t, 0, 1), Err(Errno::EINVAL));
    assert_eq!(put(&t, 0, b"x"), Err(Errno::ENOTCONN));
}

#[test]
fn a_stream_carries_bytes_and_ends() {
    let t = test_thread();
    let (a, b) = pair(&t, STREAM);
    put(&t, a, b"hello").unwrap();
    put(&t, a, b"world").unwrap();
    assert_eq!(get(&t, b, 7, u64::from(net::MSG_PEEK)).unwrap(), b"hellowo");
    assert_eq!(get(&t, b, 3, 0).unwrap(), b"hel");
    assert_eq!(get(&t, b, 30, 0).unwrap(), b"loworld");
    assert_eq!(get(&t, b, 1, 0), Err(Errno::EAGAIN));
    shutdown(&t, a, 1).unwrap();
    assert_eq!(get(&t, b, 1, 0).unwrap(), b"");
    put(&t, b, b"lost").unwrap();
    close(&t, a);
    assert_eq!(get(&t, b, 1, 0), Err(Errno::ECONNRESET));
    assert_eq!(put(&t, b, b"x"), Err(Errno::EPIPE));
}

#[test]
fn listening_accepting_and_refusing() {
    let t = test_thread();
    let server = socket(&t, UNIX, STREAM, 0).unwrap() as i32;
    at_name(&t, bind, server, b"/sock").unwrap();
    let client = socket(&t, UNIX, STREAM | u64::from(general::O_NONBLOCK), 0).unwrap() as i32;
    assert_eq!(
        at_name(&t, connect, client, b"/sock"),
        Err(Errno::ECONNREFUSED)
    );
    listen(&t, server, 0).unwrap();
    at_name(&t, connect, client, b"/sock").unwrap();
    let late = socket(&t, UNIX, STREAM | u64::from(general::O_NONBLOCK), 0).unwrap() as i32;
    assert_eq!(at_name(&t, connect, late, b"/sock"), Err(Errno::EAGAIN));
    assert_eq!(ready(&t, server), general::POLLIN);
    put(&t, client, b"first").unwrap();
    let connection = accept(&t, server, NULL, NULL).unwrap() as i32;
    assert_eq!(get(&t, connection, 9, 0).unwrap(), b"first");
    let (mut own, mut len) = ([0u8; 32], 32i32);
    getsockname(&t, connection, addr(&mut own), addr(&mut len)).unwrap();
    assert_eq!(&own[..len as usize], name(b"/sock\0"));
    at_name(&t, connect, late, b"/sock").unwrap();
    close(&t, server);
    assert_eq!(get(&t, late, 1, 0), Err(Errno::ECONNRESET));
    let again = socket(&t, UNIX, STREAM, 0).unwrap() as i32;
    assert_eq!(at_name(&t, bind, again, b"/sock"), Err(Errno::EADDRINUSE));
    assert_eq!(at_name(&t, bind, again, b"\0abstract"), Ok(0));
    assert_eq!(
        at_name(&t, bind, late, b"\0abstract"),
        Err(Errno::EADDRINUSE)
    );
    close(&t, again);
    assert_eq!(at_name(&t, bind, late, b"\0abstract"), Ok(0));
}

#[test]
fn datagrams_keep_their_bounds_and_their_sender() {
    let t = test_thread();
    let to = socket(&t, UNIX, DATAGRAM, 0).unwrap() as i32;
    at_name(&t, bind, to, b"/to").unwrap();
    let from = socket(&t, UNIX, DATAGRAM, 0).unwrap() as i32;
    at_name(&t, bind, from, b"/from").unwrap();
    let mut target = name(b"/to");
    let len = target.len() as i32;
    let mut send = |bytes: &[u8]| {
        let bytes_at = UserAddr(bytes.as_ptr() as u64);
        let target = addr(target.as_mut_slice());
        sendto(&t, from, bytes_at, bytes.len(), DONTWAIT, target, len)
    };
    send(b"one").unwrap();
    send(b"twotwo").unwrap();
    let (mut bytes, mut name_bytes, mut name_len) = ([0u8; 3], [0u8; 32], 32i32);
    let trunc = DONTWAIT | u64::from(net::MSG_TRUNC);
    let (at, name_at, len_at) = (addr(&mut bytes), addr(&mut name_bytes), addr(&mut name_len));
    assert_eq!(recvfrom(&t, to, at, 3, trunc, name_at, len_at), Ok(3));
    assert_eq!(&name_bytes[..name_len as usize], name(b"/from\0"));
    assert_eq!(recvfrom(&t, to, at, 3, trunc, NULL, NULL), Ok(6));
    let sent = (0..20).take_while(|_| send(b"x").is_ok()).count();
    assert_eq!(sent, 11);
    assert_eq!(send(b"x"), Err(Errno::EAGAIN));
    close(&t, to);
    assert_eq!(send(b"x"), Err(Errno::ECONNREFUSED));
}

#[test]
fn descriptors_travel() {
    let t = test_thread();
    let (a, b) = pair(&t, STREAM);
    let (c, d) = pair(&t, STREAM);
    assert_eq!(pass(&t, a, &[c, 99]), Err(Errno::EBADF));
    pass(&t, a, &[c, d]).unwrap();
    close(&t, c);
    let got = take(&t, b).unwrap();
    assert_eq!(got.len(), 2);
    put(&t, got[0], b"same").unwrap();
    assert_eq!(get(&t, d, 9, 0).unwrap(), b"same");
}

/// What is seen from outside when sockets that only reach each other go: the other end of one that is in
/// their messages.
#[test]
fn sockets_that_only_reach_each_other_are_closed() {
    let t = test_thread();
    let (inside, outside) = pair(&t, STREAM);
    let (a, b) = pair(&t, STREAM);
    pass(&t, a, &[b, inside]).unwrap();
    pass(&t, b, &[a, inside]).unwrap();
    close(&t, inside);
    close(&t, a);
    assert_eq!(get(&t, outside, 1, 0), Err(Errno::EAGAIN));
    close(&t, b);
    assert_eq!(get(&t, outside, 1, 0).unwrap(), b"");
    // What somebody can still receive stays.
    let (inside, outside) = pair(&t, STREAM);
    let (a, b) = pair(&t, STREAM);
    let (c, d) = pair(&t, STREAM);
    pass(&t, b, &[b, inside]).unwrap();
    pass(&t, c, &[a]).unwrap();
    close(&t, inside);
    close(&t, a);
    close(&t, b);
    assert_eq!(get(&t, outside, 1, 0), Err(Errno::EAGAIN));
    let a = take(&t, d).unwrap()[0];
    close(&t, a);
    assert_eq!(get(&t, outside, 1, 0).unwrap(), b"");
}

#[test]
fn a_chain_of_sockets_in_each_other_is_closed_without_recursion() {
    let t: Arc<Thread> = test_thread();
    let (mut inner, outside) = pair(&t, STREAM);
    for _ in 0..500 {
        let (a, b) = pair(&t, STREAM);
        pass(&t, a, &[inner]).unwrap();
        close(&t, inner);
        close(&t, a);
        inner = b;
    }
    close(&t, inner);
    assert_eq!(get(&t, outside, 1, 0).unwrap(), b"");
    assert_eq!(t.kernel.net.unix.sockets().len(), 1);
}

#[test]
fn credentials_when_asked_for() {
    let t = test_thread();
    let (a, b) = pair(&t, DATAGRAM);
    let mut on = 1i32;
    let (level, option) = (net::SOL_SOCKET as i32, net::SO_PASSCRED as i32);
    setsockopt(&t, b, level, option, addr(&mut on), 4).unwrap();
    put(&t, a, b"x").unwrap();
    let mut control = vec![0u64; 8];
    let mut byte = [0u8];
    let mut iov = [addr(&mut byte).0, 1];
    let mut message = header(&mut iov, &mut control);
    recvmsg(&t, b, addr(&mut message), DONTWAIT).unwrap();
    assert_eq!(control[0], 28);
    assert_eq!(control[2] as u32, t.process.pid);
    let (mut value, mut len) = (0i32, 4i32);
    let kind = net::SO_TYPE as i32;
    getsockopt(&t, a, level, kind, addr(&mut value), addr(&mut len)).unwrap();
    assert_eq!(value, net::SOCK_DGRAM as i32);
    // A number of bytes a name cannot have.
    let mut short = [0u8; 1];
    assert_eq!(bind(&t, a, addr(&mut short), 1), Err(Errno::EINVAL));
    assert_eq!(read(&t, a, NULL, 0), Ok(0));
}
