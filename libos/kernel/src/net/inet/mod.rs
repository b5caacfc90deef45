//! `AF_INET` and `AF_INET6` (`ip(7)`, `tcp(7)`, `udp(7)`): the loopback network inside the guest, and the way out.
//!
//! | module | what |
//! | --- | --- |
//! | `endpoint` | addresses and ports, as programs pass them and as routes take them |
//! | `ports` | who has which port, and whom a packet is for |
//! | `sides` | binding inside and outside |
//! | `tcp` | streams |
//! | `udp` | datagrams |
//! | `raw` | raw sockets and those of ping |
//! | `handed` | sockets that processes were handed from outside |
//! | `options` | options of levels IP, IPv6, TCP |
//!
//! There are no packets inside. A connection is two sockets that put bytes into each other's queues. What leads elsewhere is a
//! socket of the host ([`super::host`]) in the container's network namespace, and a socket that is bound has one beside it, on
//! the same port, for whoever comes from there. A destination on the loopback is inside if somebody inside has its port, and
//! otherwise the host's: in a pod, other containers are there. A container without sockets of the host has the loopback only.
//!
//! What a network does in time is left out: a closed connection leaves no `TIME_WAIT` behind, and a connection
//! that waits for room in a listener's queue does not time out.

mod endpoint;
mod handed;
mod options;
mod ports;
mod raw;
mod sides;
mod tcp;
mod udp;

use alloc::sync::Arc;

use husk_abi::linux::{general, net};

pub use endpoint::to_ipv6_words;
pub use handed::{Taken, handed};
pub use tcp::TcpSocket;
pub use udp::UdpSocket;

use self::ports::Ports;
use self::raw::RawSocket;
use super::Socket;
use crate::{Errno, Result, Thread};

/// Lowest and highest port the kernel picks (`net.ipv4.ip_local_port_range`).
pub const EPHEMERAL_PORTS: core::ops::RangeInclusive<u16> = 32768..=60999;
/// Ports below need `CAP_NET_BIND_SERVICE` (`net.ipv4.ip_unprivileged_port_start`).
pub const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

const PROTOCOL_LIMIT: i32 = 263;
const TCP: i32 = net::SOL_TCP as i32;
const UDP: i32 = net::SOL_UDP as i32;

/// What all internet sockets share.
#[derive(Debug, Default)]
pub struct Inet {
    tcp: Ports<TcpSocket>,
    udp: Ports<UdpSocket>,
}

impl Inet {
    /// Every TCP socket that has a port.
    #[must_use]
    pub fn tcp_sockets(&self) -> alloc::vec::Vec<Arc<TcpSocket>> {
        self.tcp.sockets()
    }

    /// Every UDP socket that has a port.
    #[must_use]
    pub fn udp_sockets(&self) -> alloc::vec::Vec<Arc<UdpSocket>> {
        self.udp.sockets()
    }
}

/// A new socket (`socket(2)`); `family` is `AF_INET` or `AF_INET6`.
///
/// # Errors
/// `EINVAL`, `ESOCKTNOSUPPORT`, `EPROTONOSUPPORT`; `EPERM` for raw ones without `CAP_NET_RAW`; if nothing leads out of the
/// guest `EACCES` for ping sockets, and `EPROTONOSUPPORT` for raw ones.
pub fn create(t: &Thread, family: u32, kind: u32, protocol: i32) -> Result<Arc<dyn Socket>> {
    if !(0..PROTOCOL_LIMIT).contains(&protocol) {
        return Err(Errno::EINVAL);
    }
    match (kind, protocol) {
        (net::SOCK_STREAM, 0 | TCP) => Ok(TcpSocket::new(t.kernel, family)),
        (net::SOCK_DGRAM, 0 | UDP) => Ok(UdpSocket::new(t.kernel, family)),
        (net::SOCK_DGRAM, _) if raw::is_ping(family, protocol) => {
            if !t.kernel.net.host.is_available() {
                return Err(Errno::EACCES);
            }
            Ok(RawSocket::new(t, family, kind, protocol)?)
        }
        (net::SOCK_RAW, 1..) if !t.credentials().has(general::CAP_NET_RAW) => Err(Errno::EPERM),
        (net::SOCK_RAW, 1..) => Ok(RawSocket::new(t, family, kind, protocol)?),
        (net::SOCK_STREAM | net::SOCK_DGRAM | net::SOCK_RAW, _) => Err(Errno::EPROTONOSUPPORT),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

/// A number no socket had before, for telling them apart in tables.
fn next_number() -> u64 {
    use core::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests;
