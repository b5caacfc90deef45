//! Which options of sockets the guest may ask for. Any other is `ENOPROTOOPT`, as if the host did not have it.
//!
//! In no list: what needs a privilege the container's network does not give away (marks, forced buffers), what names
//! memory or descriptors of the VMM's (filters, zero copy), what would make a call wait (timeouts, which are the guest's
//! own affair), and what changes what a socket is (upper layer protocols, encapsulation, another address family).

use libc::{c_int, *};
use rustix::io::Errno;

/// What may be done with an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    Get,
    Both,
}
use May::{Both, Get};

/// Those of `<linux/*.h>` that the `libc` crate has no names for.
mod more {
    use libc::c_int;

    pub const IP_LOCAL_PORT_RANGE: c_int = 51;
    pub const ICMP_FILTER: c_int = 1;
}
use more::*;

const OPTIONS: &[(c_int, &[(c_int, May)])] = &[
    (
        SOL_SOCKET,
        &[
            (SO_REUSEADDR, Both),
            (SO_REUSEPORT, Both),
            (SO_SNDBUF, Both),
            (SO_RCVBUF, Both),
            (SO_KEEPALIVE, Both),
            (SO_BROADCAST, Both),
            (SO_OOBINLINE, Both),
            (SO_PRIORITY, Both),
            (SO_RCVLOWAT, Both),
            (SO_SNDLOWAT, Get),
            (SO_TIMESTAMP, Both),
            (SO_TIMESTAMPNS, Both),
            (SO_TIMESTAMPING, Both),
            (SO_TIMESTAMP_NEW, Both),
            (SO_TIMESTAMPNS_NEW, Both),
            (SO_TIMESTAMPING_NEW, Both),
            (SO_ERROR, Get),
            (SO_BINDTODEVICE, Both),
            (SO_DONTROUTE, Both),
            (SO_LINGER, Both),
            (SO_NO_CHECK, Both),
            (SO_RXQ_OVFL, Both),
            (SO_MAX_PACING_RATE, Both),
            (SO_INCOMING_CPU, Get),
            (SO_TYPE, Get),
            (SO_PROTOCOL, Get),
            (SO_DOMAIN, Get),
            (SO_ACCEPTCONN, Get),
        ],
    ),
    (
        IPPROTO_IP,
        &[
            (IP_TOS, Both),
            (IP_TTL, Both),
            (IP_HDRINCL, Both),
            (IP_OPTIONS, Get),
            (IP_RECVOPTS, Both),
            (IP_RETOPTS, Both),
            (IP_PKTINFO, Both),
            (IP_MTU_DISCOVER, Both),
            (IP_RECVERR, Both),
            (IP_RECVTTL, Both),
            (IP_RECVTOS, Both),
            (IP_MTU, Get),
            (IP_FREEBIND, Both),
            (IP_TRANSPARENT, Get),
            (IP_RECVORIGDSTADDR, Both),
            (IP_MINTTL, Both),
            (IP_CHECKSUM, Both),
            (IP_BIND_ADDRESS_NO_PORT, Both),
            (IP_RECVFRAGSIZE, Both),
            (IP_MULTICAST_IF, Both),
            (IP_MULTICAST_TTL, Both),
            (IP_MULTICAST_LOOP, Both),
            (IP_ADD_MEMBERSHIP, Both),
            (IP_DROP_MEMBERSHIP, Both),
            (IP_UNBLOCK_SOURCE, Both),
            (IP_BLOCK_SOURCE, Both),
            (IP_ADD_SOURCE_MEMBERSHIP, Both),
            (IP_DROP_SOURCE_MEMBERSHIP, Both),
            (IP_MSFILTER, Both),
            (MCAST_JOIN_GROUP, Both),
            (MCAST_BLOCK_SOURCE, Both),
            (MCAST_UNBLOCK_SOURCE, Both),
            (MCAST_LEAVE_GROUP, Both),
            (MCAST_JOIN_SOURCE_GROUP, Both),
            (MCAST_LEAVE_SOURCE_GROUP, Both),
            (MCAST_MSFILTER, Both),
            (IP_MULTICAST_ALL, Both),
            (IP_UNICAST_IF, Both),
            (IP_LOCAL_PORT_RANGE, Both),
            (SO_ORIGINAL_DST, Get),
        ],
    ),
    (
        IPPROTO_IPV6,
        &[
            (IPV6_V6ONLY, Both),
            (IPV6_UNICAST_HOPS, Both),
            (IPV6_MULTICAST_IF, Both),
            (IPV6_MULTICAST_HOPS, Both),
            (IPV6_MULTICAST_LOOP, Both),
            (IPV6_MULTICAST_ALL, Both),
            (IPV6_ADD_MEMBERSHIP, Both),
            (IPV6_DROP_MEMBERSHIP, Both),
            (MCAST_JOIN_GROUP, Both),
            (MCAST_BLOCK_SOURCE, Both),
            (MCAST_UNBLOCK_SOURCE, Both),
            (MCAST_LEAVE_GROUP, Both),
            (MCAST_JOIN_SOURCE_GROUP, Both),
            (MCAST_LEAVE_SOURCE_GROUP, Both),
            (MCAST_MSFILTER, Both),
            (IPV6_MTU_DISCOVER, Both),
            (IPV6_MTU, Both),
            (IPV6_RECVERR, Both),
            (IPV6_RECVPKTINFO, Both),
            (IPV6_PKTINFO, Both),
            (IPV6_RECVHOPLIMIT, Both),
            (IPV6_HOPLIMIT, Both),
            (IPV6_RECVTCLASS, Both),
            (IPV6_TCLASS, Both),
            (IPV6_DONTFRAG, Both),
            (IPV6_RECVPATHMTU, Both),
            (IPV6_PATHMTU, Get),
            (IPV6_FREEBIND, Both),
            (IPV6_UNICAST_IF, Both),
            (IPV6_ADDR_PREFERENCES, Both),
            (IPV6_AUTOFLOWLABEL, Both),
            (IPV6_FLOWINFO, Both),
            (IPV6_FLOWINFO_SEND, Both),
            (IPV6_MINHOPCOUNT, Both),
            (IPV6_RECVORIGDSTADDR, Both),
            (IPV6_RECVFRAGSIZE, Both),
            (IPV6_CHECKSUM, Both),
            (SO_ORIGINAL_DST, Get),
        ],
    ),
    (
        IPPROTO_TCP,
        &[
            (TCP_NODELAY, Both),
            (TCP_MAXSEG, Both),
            (TCP_CORK, Both),
            (TCP_KEEPIDLE, Both),
            (TCP_KEEPINTVL, Both),
            (TCP_KEEPCNT, Both),
            (TCP_SYNCNT, Both),
            (TCP_LINGER2, Both),
            (TCP_DEFER_ACCEPT, Both),
            (TCP_WINDOW_CLAMP, Both),
            (TCP_INFO, Get),
            (TCP_QUICKACK, Both),
            (TCP_CONGESTION, Both),
            (TCP_THIN_LINEAR_TIMEOUTS, Both),
            (TCP_THIN_DUPACK, Both),
            (TCP_USER_TIMEOUT, Both),
            (TCP_FASTOPEN, Both),
            (TCP_TIMESTAMP, Get),
            (TCP_NOTSENT_LOWAT, Both),
            (TCP_CC_INFO, Get),
            (TCP_FASTOPEN_CONNECT, Both),
            (TCP_FASTOPEN_NO_COOKIE, Both),
            (TCP_INQ, Both),
        ],
    ),
    (
        IPPROTO_UDP,
        &[
            (UDP_CORK, Both),
            (UDP_SEGMENT, Both),
            (UDP_GRO, Both),
            (UDP_NO_CHECK6_TX, Both),
            (UDP_NO_CHECK6_RX, Both),
        ],
    ),
    (IPPROTO_RAW, &[(ICMP_FILTER, Both), (IPV6_CHECKSUM, Both)]),
    (SOL_ICMPV6, &[(ICMP_FILTER, Both), (IPV6_CHECKSUM, Both)]),
];

/// Control messages that may be sent, by level. Any other is `EINVAL`.
const CONTROL: &[(c_int, &[c_int])] = &[
    (SOL_SOCKET, &[SO_TIMESTAMPING, SO_TIMESTAMPING_NEW]),
    (IPPROTO_IP, &[IP_TTL, IP_TOS, IP_PKTINFO]),
    (
        IPPROTO_IPV6,
        &[
            IPV6_PKTINFO,
            IPV6_HOPLIMIT,
            IPV6_TCLASS,
            IPV6_DONTFRAG,
            IPV6_FLOWINFO,
        ],
    ),
    (IPPROTO_UDP, &[UDP_SEGMENT]),
];

/// Changes of which the guest may hear (`RTNLGRP_*`): of interfaces, neighbours, queues, addresses, routes, rules.
const GROUPS: &[u32] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 18, 19, 20];

/// The highest `SO_PRIORITY` that needs no privilege.
const MAX_PRIORITY: u32 = 6;

fn may(level: c_int, name: c_int) -> Option<May> {
    let (_, options) = OPTIONS.iter().find(|(known, _)| *known == level)?;
    let (_, may) = options.iter().find(|(known, _)| *known == name)?;
    Some(*may)
}

/// The first integer of a value.
fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// Whether the guest may set this.
///
/// # Errors
/// `ENOPROTOOPT`; `EPERM` for a priority that needs a privilege; `EINVAL` for a linger that would make closing wait: the
/// guest waits itself.
pub fn check_set(level: c_int, name: c_int, value: &[u8]) -> Result<(), Errno> {
    if may(level, name) != Some(Both) {
        return Err(Errno::NOPROTOOPT);
    }
    match (level, name) {
        (SOL_SOCKET, SO_PRIORITY) if number(value).is_some_and(|it| it > MAX_PRIORITY) => {
            Err(Errno::PERM)
        }
        (SOL_SOCKET, SO_LINGER) => {
            let (on, seconds) = (number(value), value.get(4..).and_then(number));
            if on.unwrap_or(0) != 0 && seconds.unwrap_or(0) != 0 {
                Err(Errno::INVAL)
            } else {
                Ok(())
            }
        }
        _ => Ok(()),
    }
}

/// Whether the guest may bind a socket to this that hears of changes of the network: to any port of its own, and no groups.
///
/// # Errors
/// `EINVAL`.
pub fn check_listener(address: &[u8]) -> Result<(), Errno> {
    let mut expected = [0; size_of::<sockaddr_nl>()];
    expected[..2].copy_from_slice(&(AF_NETLINK as u16).to_ne_bytes());
    if address == expected {
        Ok(())
    } else {
        Err(Errno::INVAL)
    }
}

/// As [`check_set`], of a socket that hears of changes of the network: of which, and how much room there is for them.
///
/// # Errors
/// `ENOPROTOOPT`, `EINVAL`.
pub fn check_set_of_listener(level: c_int, name: c_int, value: &[u8]) -> Result<(), Errno> {
    match (level, name) {
        (SOL_SOCKET, SO_RCVBUF) => Ok(()),
        (SOL_NETLINK, NETLINK_ADD_MEMBERSHIP | NETLINK_DROP_MEMBERSHIP) => {
            let is_known = number(value).is_some_and(|group| GROUPS.contains(&group));
            is_known.then_some(()).ok_or(Errno::INVAL)
        }
        (SOL_NETLINK, NETLINK_NO_ENOBUFS) => Ok(()),
        _ => Err(Errno::NOPROTOOPT),
    }
}

/// Whether the guest may ask for this.
///
/// # Errors
/// `ENOPROTOOPT`.
pub fn check_get(level: c_int, name: c_int) -> Result<(), Errno> {
    may(level, name).map(drop).ok_or(Errno::NOPROTOOPT)
}

/// Whether the guest may send these control messages.
///
/// # Errors
/// `EINVAL`.
pub fn check_control(mut control: &[u8]) -> Result<(), Errno> {
    const HEADER: usize = size_of::<cmsghdr>();
    while !control.is_empty() {
        let (header, _) = control.split_at_checked(HEADER).ok_or(Errno::INVAL)?;
        let (len, rest) = header.split_first_chunk().ok_or(Errno::INVAL)?;
        let len = usize::try_from(u64::from_ne_bytes(*len)).map_err(|_| Errno::INVAL)?;
        let field = |at: usize| rest.get(at..).and_then(number).ok_or(Errno::INVAL);
        let (level, kind) = (field(0)?.cast_signed(), field(4)?.cast_signed());
        let is_known = CONTROL
            .iter()
            .any(|(known, kinds)| *known == level && kinds.contains(&kind));
        if !is_known || len < HEADER || len > control.len() {
            return Err(Errno::INVAL);
        }
        let next = len.next_multiple_of(8).min(control.len());
        control = &control[next..];
    }
    Ok(())
}

/// Whether an option adds to what was set before, instead of replacing it.
pub fn accumulates(level: c_int, name: c_int) -> bool {
    match level {
        IPPROTO_IP => {
            (IP_ADD_MEMBERSHIP..=IP_DROP_SOURCE_MEMBERSHIP).contains(&name)
                || (MCAST_JOIN_GROUP..=MCAST_LEAVE_SOURCE_GROUP).contains(&name)
        }
        IPPROTO_IPV6 => {
            [IPV6_ADD_MEMBERSHIP, IPV6_DROP_MEMBERSHIP].contains(&name)
                || (MCAST_JOIN_GROUP..=MCAST_LEAVE_SOURCE_GROUP).contains(&name)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_by_list() {
        let one = 1i32.to_ne_bytes();
        assert_eq!(check_set(SOL_SOCKET, SO_REUSEADDR, &one), Ok(()));
        assert_eq!(
            check_set(SOL_SOCKET, SO_ERROR, &one),
            Err(Errno::NOPROTOOPT)
        );
        assert_eq!(check_get(SOL_SOCKET, SO_ERROR), Ok(()));
        for (level, name) in [
            (SOL_SOCKET, SO_MARK),
            (SOL_SOCKET, SO_ATTACH_FILTER),
            (SOL_SOCKET, SO_RCVTIMEO),
            (SOL_SOCKET, SO_ZEROCOPY),
            (SOL_SOCKET, SO_SNDBUFFORCE),
            (IPPROTO_TCP, TCP_ULP),
            (IPPROTO_TCP, TCP_REPAIR),
            (IPPROTO_IPV6, IPV6_ADDRFORM),
            (SOL_NETLINK, 1),
            (-1, -1),
        ] {
            assert_eq!(
                check_set(level, name, &one),
                Err(Errno::NOPROTOOPT),
                "{level} {name}"
            );
            assert_eq!(
                check_get(level, name),
                Err(Errno::NOPROTOOPT),
                "{level} {name}"
            );
        }
    }

    #[test]
    fn what_hears_of_changes() {
        let mut address = vec![16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(check_listener(&address), Ok(()));
        address[8] = 1;
        assert_eq!(check_listener(&address), Err(Errno::INVAL));
        assert_eq!(check_listener(&address[..8]), Err(Errno::INVAL));
        let join = |group: u32| {
            let value = group.to_ne_bytes();
            check_set_of_listener(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &value)
        };
        assert_eq!((join(1), join(5)), (Ok(()), Ok(())));
        assert_eq!((join(0), join(13)), (Err(Errno::INVAL), Err(Errno::INVAL)));
        for (level, name) in [(SOL_SOCKET, SO_BROADCAST), (IPPROTO_IP, IP_TTL)] {
            let one = 1i32.to_ne_bytes();
            assert_eq!(
                check_set_of_listener(level, name, &one),
                Err(Errno::NOPROTOOPT)
            );
        }
    }

    #[test]
    fn values_that_are_not_for_the_guest() {
        let set = |name, words: &[u32]| {
            let value: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            check_set(SOL_SOCKET, name, &value)
        };
        assert_eq!(set(SO_PRIORITY, &[6]), Ok(()));
        assert_eq!(set(SO_PRIORITY, &[7]), Err(Errno::PERM));
        assert_eq!(set(SO_PRIORITY, &[u32::MAX]), Err(Errno::PERM));
        assert_eq!(set(SO_LINGER, &[1, 0]), Ok(()));
        assert_eq!(set(SO_LINGER, &[0, 5]), Ok(()));
        assert_eq!(set(SO_LINGER, &[1, 5]), Err(Errno::INVAL));
    }

    #[test]
    fn control_messages_by_list() {
        let message = |len: u64, level: c_int, kind: c_int, data: &[u8]| {
            let mut bytes = len.to_ne_bytes().to_vec();
            bytes.extend(level.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(data);
            bytes
        };
        let ttl = message(20, IPPROTO_IP, IP_TTL, &[1, 0, 0, 0]);
        assert_eq!(check_control(&[]), Ok(()));
        assert_eq!(check_control(&ttl), Ok(()));
        let mut two = ttl.clone();
        two.extend([0; 4]);
        two.extend(message(18, IPPROTO_UDP, UDP_SEGMENT, &[1, 0]));
        assert_eq!(check_control(&two), Ok(()));
        for bad in [
            message(20, SOL_SOCKET, SCM_RIGHTS, &[0; 4]),
            message(20, SOL_SOCKET, SO_MARK, &[0; 4]),
            message(15, IPPROTO_IP, IP_TTL, &[0; 4]),
            message(21, IPPROTO_IP, IP_TTL, &[0; 4]),
            message(u64::MAX, IPPROTO_IP, IP_TTL, &[0; 4]),
            ttl[..15].to_vec(),
        ] {
            assert_eq!(check_control(&bad), Err(Errno::INVAL), "{bad:?}");
        }
    }
}
