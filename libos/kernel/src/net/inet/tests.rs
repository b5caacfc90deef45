//! Internet sockets through their system calls, on a test kernel.

use husk_abi::linux::{general, net};

use crate::fs::rw::{read, write};
use crate::net::calls::{
    accept, bind, connect, getsockname, getsockopt, listen, recvfrom, sendto, setsockopt, shutdown,
    socket,
};
use crate::process::testing::{test_thread, user_credentials};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

const NULL: UserAddr = UserAddr(0);
const INET: i32 = net::AF_INET as i32;
const STREAM: u64 = net::SOCK_STREAM as u64;
const DATAGRAM: u64 = net::SOCK_DGRAM as u64;
const NONBLOCK: u64 = general::O_NONBLOCK as u64;
const DONTWAIT: u64 = net::MSG_DONTWAIT as u64;

fn addr<T: ?Sized>(value: &mut T) -> UserAddr {
    UserAddr(core::ptr::from_mut(value).cast::<u8>() as u64)
}

fn address(ip: [u8; 4], port: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&(net::AF_INET as u16).to_ne_bytes());
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    bytes[4..8].copy_from_slice(&ip);
    bytes
}

type Named = fn(&Thread, i32, UserAddr, i32) -> SysResult;

fn at(t: &Thread, call: Named, fd: i32, ip: [u8; 4], port: u16) -> SysResult {
    call(t, fd, addr(&mut address(ip, port)), 16)
}

fn new(t: &Thread, kind: u64) -> i32 {
    socket(t, INET, kind, 0).unwrap() as i32
}

fn port(t: &Thread, fd: i32) -> u16 {
    let (mut name, mut len) = ([0u8; 16], 16i32);
    getsockname(t, fd, addr(&mut name), addr(&mut len)).unwrap();
    u16::from_be_bytes([name[2], name[3]])
}

fn put(t: &Thread, fd: i32, bytes: &[u8]) -> SysResult {
    write(t, fd, UserAddr(bytes.as_ptr() as u64), bytes.len())
}

fn get(t: &Thread, fd: i32, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let got = recvfrom(t, fd, addr(bytes.as_mut_slice()), len, DONTWAIT, NULL, NULL)?;
    bytes.truncate(got);
    Ok(bytes)
}

fn error(t: &Thread, fd: i32) -> i32 {
    let (mut value, mut len) = (0i32, 4i32);
    let (level, name) = (net::SOL_SOCKET as i32, net::SO_ERROR as i32);
    getsockopt(t, fd, level, name, addr(&mut value), addr(&mut len)).unwrap();
    value
}

const LOCAL: [u8; 4] = [127, 0, 0, 1];

fn pair(t: &Thread) -> (i32, i32) {
    let listener = new(t, STREAM);
    listen(t, listener, 5).unwrap();
    let client = new(t, STREAM);
    at(t, connect, client, LOCAL, port(t, listener)).unwrap();
    let server = accept(t, listener, NULL, NULL).unwrap() as i32;
    t.files().close(listener).unwrap();
    (client, server)
}

#[test]
fn a_connection_from_beginning_to_end() {
    let t = test_thread();
    let (client, server) = pair(&t);
    put(&t, client, b"hello").unwrap();
    put(&t, client, b"world").unwrap();
    assert_eq!(get(&t, server, 7).unwrap(), b"hellowo");
    assert_eq!(get(&t, server, 7).unwrap(), b"rld");
    assert_eq!(get(&t, server, 7), Err(Errno::EAGAIN));
    shutdown(&t, client, 1).unwrap();
    assert_eq!(get(&t, server, 7).unwrap(), b"");
    put(&t, server, b"back").unwrap();
    t.files().close(server).unwrap();
    assert_eq!(get(&t, client, 7).unwrap(), b"back");
    assert_eq!(get(&t, client, 7).unwrap(), b"");
    assert_eq!(put(&t, client, b"x"), Err(Errno::EPIPE));
}

#[test]
fn what_is_lost_resets() {
    let t = test_thread();
    let (client, server) = pair(&t);
    put(&t, client, b"lost").unwrap();
    t.files().close(server).unwrap();
    assert_eq!(get(&t, client, 1), Err(Errno::ECONNRESET));
    assert_eq!(get(&t, client, 1).unwrap(), b"");
    // Sent to a peer that is gone: accepted once.
    let (client, server) = pair(&t);
    t.files().close(server).unwrap();
    assert_eq!(put(&t, client, b"x"), Ok(1));
    assert_eq!(put(&t, client, b"x"), Err(Errno::EPIPE));
}

#[test]
fn connecting_without_waiting() {
    let t = test_thread();
    let listener = new(&t, STREAM);
    listen(&t, listener, 0).unwrap();
    let to = port(&t, listener);
    let clients = [(); 2].map(|()| new(&t, STREAM | NONBLOCK));
    for client in clients {
        assert_eq!(at(&t, connect, client, LOCAL, to), Err(Errno::EINPROGRESS));
    }
    assert_eq!(at(&t, connect, clients[0], LOCAL, to), Ok(0));
    assert_eq!(at(&t, connect, clients[0], LOCAL, to), Err(Errno::EISCONN));
    // The queue is full: the second waits until the first is accepted.
    assert_eq!(at(&t, connect, clients[1], LOCAL, to), Err(Errno::EALREADY));
    accept(&t, listener, NULL, NULL).unwrap();
    assert_eq!(at(&t, connect, clients[1], LOCAL, to), Ok(0));
    let nobody = new(&t, STREAM | NONBLOCK);
    assert_eq!(at(&t, connect, nobody, LOCAL, 1), Err(Errno::EINPROGRESS));
    assert_eq!(error(&t, nobody), Errno::ECONNREFUSED.code());
    assert_eq!(
        at(&t, connect, nobody, [10, 0, 0, 1], 1),
        Err(Errno::ECONNABORTED)
    );
    assert_eq!(
        at(&t, connect, nobody, [10, 0, 0, 1], 1),
        Err(Errno::ENETUNREACH)
    );
}

#[test]
fn datagrams_find_their_socket() {
    let t = test_thread();
    let server = new(&t, DATAGRAM);
    at(&t, bind, server, LOCAL, 0).unwrap();
    let to = port(&t, server);
    let client = new(&t, DATAGRAM);
    assert_eq!(put(&t, client, b"x"), Err(Errno::EDESTADDRREQ));
    let mut target = address(LOCAL, to);
    let text = b"datagram";
    let text_at = UserAddr(text.as_ptr() as u64);
    assert_eq!(
        sendto(&t, client, text_at, 8, 0, addr(&mut target), 16),
        Ok(8)
    );
    assert_eq!(get(&t, server, 4).unwrap(), b"data");
    assert_eq!(get(&t, server, 4), Err(Errno::EAGAIN));
    at(&t, connect, client, LOCAL, to).unwrap();
    t.files().close(server).unwrap();
    assert_eq!(put(&t, client, b"x"), Ok(1));
    assert_eq!(
        read(&t, client, addr(&mut [0u8]), 1),
        Err(Errno::ECONNREFUSED)
    );
}

#[test]
fn who_may_have_which_port() {
    let t = test_thread();
    let one = new(&t, STREAM);
    at(&t, bind, one, [0; 4], 80).unwrap();
    let other = new(&t, STREAM);
    assert_eq!(at(&t, bind, other, LOCAL, 80), Err(Errno::EADDRINUSE));
    assert_eq!(
        at(&t, bind, other, [10, 0, 0, 1], 81),
        Err(Errno::EADDRNOTAVAIL)
    );
    let mut on = 1i32;
    for fd in [one, other] {
        let (level, name) = (net::SOL_SOCKET as i32, net::SO_REUSEADDR as i32);
        setsockopt(&t, fd, level, name, addr(&mut on), 4).unwrap();
    }
    assert_eq!(at(&t, bind, other, LOCAL, 80), Ok(0));
    t.set_credentials(user_credentials(1000, 0));
    let low = new(&t, STREAM);
    assert_eq!(at(&t, bind, low, LOCAL, 80), Err(Errno::EACCES));
}
