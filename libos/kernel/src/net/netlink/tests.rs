//! Requests and their answers, on a test kernel.

use std::sync::Arc;

use husk_abi::linux::net;

use super::{NetlinkSocket, create};
use crate::net::{Incoming, Outgoing, Socket};
use crate::process::testing::test_thread;
use crate::user::IoBuf;
use crate::{Errno, Result, Thread};

fn ask(t: &Thread, socket: &NetlinkSocket, kind: u16, flags: u16, body: &[u8]) {
    let mut bytes = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&7u32.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(body);
    let mut buf = IoBuf::kernel_const(&bytes);
    socket.send(t, &mut Outgoing::new(&mut buf, 0)).unwrap();
}

/// The next datagram's messages: type and the message.
fn answers(t: &Thread, socket: &NetlinkSocket) -> Result<Vec<(u16, Vec<u8>)>> {
    let mut bytes = vec![0; 8192];
    let mut buf = IoBuf::kernel(&mut bytes);
    let len = socket.receive(t, &mut Incoming::new(&mut buf, net::MSG_DONTWAIT))?;
    let mut rest = &bytes[..len];
    let mut found = Vec::new();
    while rest.len() >= 16 {
        let len = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
        found.push((u16::from_ne_bytes([rest[4], rest[5]]), rest[..len].to_vec()));
        rest = &rest[len.next_multiple_of(4).min(rest.len())..];
    }
    Ok(found)
}

fn socket(t: &Thread) -> Arc<NetlinkSocket> {
    create(t, net::SOCK_RAW, 0).unwrap()
}

#[test]
fn kinds() {
    let t = test_thread();
    assert_eq!(
        create(&t, net::SOCK_STREAM, 0).err(),
        Some(Errno::ESOCKTNOSUPPORT)
    );
    assert_eq!(
        create(&t, net::SOCK_RAW, 31).err(),
        Some(Errno::EPROTONOSUPPORT)
    );
}

#[test]
fn addresses_of_the_loopback() {
    let t = test_thread();
    let socket = socket(&t);
    ask(&t, &socket, 22, 0x301, &[0; 8]);
    let list = answers(&t, &socket).unwrap();
    assert_eq!(
        list.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
        [20, 20]
    );
    assert!(list[0].1.windows(4).any(|bytes| bytes == [127, 0, 0, 1]));
    assert_eq!(answers(&t, &socket).unwrap()[0].0, 3);
    assert_eq!(answers(&t, &socket), Err(Errno::EAGAIN));
    // Of one family.
    ask(&t, &socket, 22, 0x301, &[10, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(answers(&t, &socket).unwrap().len(), 1);
}

#[test]
fn what_changes_something_is_refused() {
    let t = test_thread();
    let socket = socket(&t);
    ask(&t, &socket, 16, 0x5, &[0; 16]);
    let refused = answers(&t, &socket).unwrap();
    assert_eq!(refused[0].0, 2);
    assert_eq!(refused[0].1[16..20], (-Errno::EPERM.code()).to_ne_bytes());
    let mut other = [0; 16];
    other[4] = 9;
    ask(&t, &socket, 18, 1, &other);
    assert_eq!(
        answers(&t, &socket).unwrap()[0].1[16..20],
        (-Errno::ENODEV.code()).to_ne_bytes()
    );
}
