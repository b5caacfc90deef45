//! `NETLINK_ROUTE` (`rtnetlink(7)`): the host answers for the container's network namespace; without sockets of the host there
//! is the loopback interface, its addresses and the routes to them.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use husk_abi::linux::net;

use super::wire::{self, Builder, Request};
use crate::net::interface::{
    LOOPBACK, LOOPBACK_FLAGS, LOOPBACK_INDEX, LOOPBACK_MTU, LOOPBACK_TYPE, QUEUE_LENGTH,
};
use crate::{Errno, Result, Thread};

const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const GET_RULE: u16 = 34;
/// One more than the highest type.
const TYPE_LIMIT: u16 = 124;

/// Bytes of `struct ifinfomsg`.
const LINK_BYTES: usize = 16;
const IFLA_IFNAME: u16 = 3;
/// `IFF_LOWER_UP`, which only netlink tells.
const LOWER_UP: u32 = 0x10000;
const LIFETIME: u32 = u32::MAX;
/// `IFA_F_PERMANENT`.
const PERMANENT: u32 = 0x80;
/// `RT_TABLE_LOCAL`, `RTPROT_KERNEL`, `RTN_LOCAL`.
const TABLE_LOCAL: u8 = 255;
const BY_KERNEL: u8 = 2;
const LOCAL: u8 = 2;
const BROADCAST: u8 = 3;
const SCOPE_HOST: u8 = 254;
const SCOPE_LINK: u8 = 253;

/// Answers a request.
///
/// # Errors
/// `EPERM` for what changes something, `EOPNOTSUPP`, `ENODEV`, `ENETUNREACH`.
pub fn answer(_t: &Thread, port: u32, request: &Request<'_>) -> Result<Vec<Vec<u8>>> {
    let family = u32::from(request.body().first().copied().unwrap_or(0));
    let mut answers = match request.kind {
        GET_LINK if request.is_dump() => alloc::vec![link(port, request)],
        GET_LINK => {
            check_link(request)?;
            return Ok(alloc::vec![link(port, request)]);
        }
        GET_ADDRESS if request.is_dump() => addresses(port, request, family),
        GET_ROUTE if request.is_dump() => routes(port, request, family),
        GET_RULE if request.is_dump() => Vec::new(),
        kind if kind >= TYPE_LIMIT => return Err(Errno::EOPNOTSUPP),
        // Only getting is for everybody.
        _ if !request.asks() => return Err(Errno::EPERM),
        _ => return Err(Errno::EOPNOTSUPP),
    };
    answers.push(wire::done(port, request));
    Ok(answers)
}

/// Has the host answer a question.
///
/// # Errors
/// As the host's socket; what the host answers as an error is an answer.
pub fn ask_host(t: &Thread, port: u32, request: &Request<'_>) -> Result<Vec<Vec<u8>>> {
    let answer = crate::net::host::route(t.kernel, &request.unacknowledged())?;
    Ok(wire::readdress(port, &answer))
}

/// Whether a request for one interface means the one there is.
fn check_link(request: &Request<'_>) -> Result<()> {
    let index = request
        .body()
        .get(4..8)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_ne_bytes)
        .ok_or(Errno::EINVAL)?;
    let named = request
        .attribute(LINK_BYTES, IFLA_IFNAME)
        .and_then(|name| name.split(|byte| *byte == 0).next());
    match (index, named) {
        (LOOPBACK_INDEX, _) | (0, Some(LOOPBACK)) => Ok(()),
        (0, None) => Err(Errno::EINVAL),
        _ => Err(Errno::ENODEV),
    }
}

fn link(port: u32, request: &Request<'_>) -> Vec<u8> {
    let mut link = Builder::new(port, request, NEW_LINK);
    link.put(&[0, 0])
        .put(&LOOPBACK_TYPE.to_ne_bytes())
        .put(&LOOPBACK_INDEX.to_ne_bytes())
        .put(&(LOOPBACK_FLAGS | LOWER_UP).to_ne_bytes())
        .put(&0u32.to_ne_bytes());
    // IFNAME, TXQLEN, OPERSTATE, LINKMODE, MTU, GROUP, PROMISCUITY, NUM_TX_QUEUES, NUM_RX_QUEUES
    link.attribute(IFLA_IFNAME, b"lo\0")
        .attribute(13, &QUEUE_LENGTH.to_ne_bytes())
        .attribute(16, &[0])
        .attribute(17, &[0])
        .attribute(4, &LOOPBACK_MTU.to_ne_bytes())
        .attribute(27, &0u32.to_ne_bytes())
        .attribute(30, &0u32.to_ne_bytes())
        .attribute(31, &1u32.to_ne_bytes())
        .attribute(32, &1u32.to_ne_bytes());
    // CARRIER, QDISC, MAP, ADDRESS, BROADCAST, STATS
    link.attribute(33, &[1])
        .attribute(6, b"noqueue\0")
        .attribute(14, &[0; 32])
        .attribute(1, &[0; 6])
        .attribute(2, &[0; 6])
        .attribute(7, &[0; 96]);
    link.finish()
}

/// Whether a list for `family` has entries of `other`.
fn includes(family: u32, other: u32) -> bool {
    family == net::AF_UNSPEC || family == other
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn family_of(ip: IpAddr) -> u32 {
    if ip.is_ipv4() {
        net::AF_INET
    } else {
        net::AF_INET6
    }
}

fn addresses(port: u32, request: &Request<'_>, family: u32) -> Vec<Vec<u8>> {
    let all = [
        (IpAddr::V4(Ipv4Addr::LOCALHOST), 8u8),
        (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    ];
    let wanted = all
        .into_iter()
        .filter(|(ip, _)| includes(family, family_of(*ip)));
    let entry = |(ip, prefix): (IpAddr, u8)| {
        let mut entry = Builder::new(port, request, NEW_ADDRESS);
        entry
            .put(&[family_of(ip) as u8, prefix, PERMANENT as u8, SCOPE_HOST])
            .put(&LOOPBACK_INDEX.to_ne_bytes());
        // ADDRESS, LOCAL, LABEL, FLAGS, CACHEINFO
        entry.attribute(1, &octets(ip));
        if ip.is_ipv4() {
            entry.attribute(2, &octets(ip)).attribute(3, b"lo\0");
        }
        entry.attribute(8, &PERMANENT.to_ne_bytes());
        let lifetimes = [LIFETIME, LIFETIME, 0, 0].map(u32::to_ne_bytes).concat();
        entry.attribute(6, &lifetimes);
        entry.finish()
    };
    wanted.map(entry).collect()
}

fn routes(port: u32, request: &Request<'_>, family: u32) -> Vec<Vec<u8>> {
    let v4 = |a, b, c, d| IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    let all = [
        (v4(127, 0, 0, 0), 8u8, LOCAL, SCOPE_HOST),
        (v4(127, 0, 0, 1), 32, LOCAL, SCOPE_HOST),
        (v4(127, 255, 255, 255), 32, BROADCAST, SCOPE_LINK),
        (IpAddr::V6(Ipv6Addr::LOCALHOST), 128, LOCAL, 0),
    ];
    let wanted = all
        .into_iter()
        .filter(|(ip, ..)| includes(family, family_of(*ip)));
    let entry = |(ip, prefix, kind, scope): (IpAddr, u8, u8, u8)| {
        let mut entry = Builder::new(port, request, NEW_ROUTE);
        entry
            .put(&[family_of(ip) as u8, prefix, 0, 0])
            .put(&[TABLE_LOCAL, BY_KERNEL, scope, kind])
            .put(&0u32.to_ne_bytes());
        // TABLE, DST, PREFSRC, OIF
        entry
            .attribute(15, &u32::from(TABLE_LOCAL).to_ne_bytes())
            .attribute(1, &octets(ip));
        if ip.is_ipv4() {
            entry.attribute(7, &octets(v4(127, 0, 0, 1)));
        }
        entry.attribute(4, &LOOPBACK_INDEX.to_ne_bytes());
        entry.finish()
    };
    wanted.map(entry).collect()
}
