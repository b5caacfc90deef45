//! Internet addresses with ports.
//!
//! Inside, an IPv4 address is always that; as an IPv6 socket it is shown as `::ffff:a.b.c.d`.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use husk_abi::linux::{general, net};

use super::FIRST_UNPRIVILEGED_PORT;
use crate::net::address;
use crate::{Errno, Result, Thread};

const V4_BYTES: usize = 16;
/// Without the scope, as the first version of the struct was.
const V6_BYTES: usize = 24;
const V6_FULL_BYTES: usize = 28;

/// Whether a socket of `family` is one for IPv6.
#[must_use]
pub fn is_v6(family: u32) -> bool {
    family == net::AF_INET6
}

/// The address of no host in particular.
#[must_use]
pub fn unspecified(family: u32) -> IpAddr {
    if is_v6(family) {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    }
}

/// Whether connecting to it means disconnecting.
#[must_use]
pub fn is_none(bytes: &[u8]) -> bool {
    address::family(bytes).map(u32::from) == Some(net::AF_UNSPEC)
}

fn port(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[2], bytes[3]])
}

fn parse_v4(bytes: &[u8]) -> SocketAddr {
    let ip = Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]);
    SocketAddr::new(IpAddr::V4(ip), port(bytes))
}

/// An address of a program for a socket of `family`.
///
/// # Errors
/// `EINVAL` if it is too short, `EAFNOSUPPORT` if it is of another family.
pub fn parse(family: u32, bytes: &[u8]) -> Result<SocketAddr> {
    let given = address::family(bytes).map(u32::from).ok_or(Errno::EINVAL)?;
    if !is_v6(family) {
        if bytes.len() < V4_BYTES {
            return Err(Errno::EINVAL);
        }
        if given != net::AF_INET {
            return Err(Errno::EAFNOSUPPORT);
        }
        return Ok(parse_v4(bytes));
    }
    if given != net::AF_INET6 {
        return Err(if bytes.len() < V6_BYTES {
            Errno::EINVAL
        } else {
            Errno::EAFNOSUPPORT
        });
    }
    let ip = bytes.get(8..V6_BYTES).ok_or(Errno::EINVAL)?;
    let ip: [u8; 16] = ip.try_into().map_err(|_| Errno::EINVAL)?;
    // A mapped address is an IPv4 address.
    let ip = Ipv6Addr::from(ip).to_canonical();
    Ok(SocketAddr::new(ip, port(bytes)))
}

/// For binding, where an IPv4 address may also be of no family if it is none in particular.
///
/// # Errors
/// As [`parse`].
pub fn parse_for_bind(family: u32, bytes: &[u8]) -> Result<SocketAddr> {
    if !is_v6(family) && bytes.len() >= V4_BYTES && is_none(bytes) {
        let address = parse_v4(bytes);
        return if address.ip().is_unspecified() {
            Ok(address)
        } else {
            Err(Errno::EAFNOSUPPORT)
        };
    }
    parse(family, bytes)
}

/// The address as a socket of `family` shows it.
#[must_use]
pub fn to_bytes(family: u32, address: SocketAddr) -> Vec<u8> {
    let mut bytes = (family as u16).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&address.port().to_be_bytes());
    match (is_v6(family), address.ip()) {
        (false, IpAddr::V4(ip)) => bytes.extend_from_slice(&ip.octets()),
        (true, ip) => {
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&to_v6(ip).octets());
            bytes.resize(V6_FULL_BYTES, 0);
        }
        (false, IpAddr::V6(_)) => {}
    }
    bytes.resize(bytes.len().max(V4_BYTES), 0);
    bytes
}

/// As an IPv6 address: mapped if need be. No host in particular stays that.
fn to_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V6(ip) => ip,
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
    }
}

/// The address as `/proc/net/tcp6` writes it: four words in host order.
#[must_use]
pub fn to_ipv6_words(ip: IpAddr) -> [u32; 4] {
    let bytes = to_v6(ip).octets();
    core::array::from_fn(|index| {
        let at = index * 4;
        u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    })
}

/// Whether a socket may be bound to `ip`: it is this host's, or a group's.
///
/// # Errors
/// `EADDRNOTAVAIL`.
pub fn check_local(ip: IpAddr) -> Result<()> {
    let is_group = match ip {
        IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_multicast(),
    };
    if ip.is_unspecified() || ip.is_loopback() || is_group {
        Ok(())
    } else {
        Err(Errno::EADDRNOTAVAIL)
    }
}

/// The lowest port for everybody: as the container's configuration sets it.
fn first_unprivileged(t: &Thread) -> u16 {
    const SETTING: &str = "net.ipv4.ip_unprivileged_port_start";
    let settings = &t.kernel.config.sysctl;
    let configured = settings.iter().find(|(name, _)| name == SETTING);
    let configured = configured.and_then(|(_, value)| value.trim().parse().ok());
    configured.unwrap_or(FIRST_UNPRIVILEGED_PORT)
}

/// Whether the thread may bind to `port`.
///
/// # Errors
/// `EACCES`.
pub fn check_port(t: &Thread, port: u16) -> Result<()> {
    if port != 0
        && port < first_unprivileged(t)
        && !t.credentials().has(general::CAP_NET_BIND_SERVICE)
    {
        return Err(Errno::EACCES);
    }
    Ok(())
}

/// Where a packet to `to` goes, and from which address: only this host is reachable.
///
/// # Errors
/// `ENETUNREACH`; `EACCES` for the network's broadcast address without `SO_BROADCAST`.
pub fn route(to: IpAddr, may_broadcast: bool) -> Result<(IpAddr, IpAddr)> {
    match to {
        IpAddr::V4(ip) => {
            if ip == Ipv4Addr::new(127, 255, 255, 255) && !may_broadcast {
                return Err(Errno::EACCES);
            }
            if ip.is_unspecified() {
                Ok((Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()))
            } else if ip.is_loopback() {
                Ok((to, Ipv4Addr::LOCALHOST.into()))
            } else {
                Err(Errno::ENETUNREACH)
            }
        }
        IpAddr::V6(ip) if ip.is_unspecified() || ip.is_loopback() => {
            Ok((Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()))
        }
        IpAddr::V6(_) => Err(Errno::ENETUNREACH),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn there_and_back() {
        for (family, text) in [
            (net::AF_INET, "127.0.0.1:80"),
            (net::AF_INET6, "[::1]:443"),
            (net::AF_INET6, "127.0.0.1:80"),
        ] {
            let address = v4(text);
            let bytes = to_bytes(family, address);
            assert_eq!(parse(family, &bytes), Ok(address), "{text}");
            assert_eq!(bytes.len(), if is_v6(family) { 28 } else { 16 });
        }
        let bytes = to_bytes(net::AF_INET, v4("1.2.3.4:5"));
        assert_eq!(parse(net::AF_INET, &bytes[..15]), Err(Errno::EINVAL));
        assert_eq!(parse(net::AF_INET6, &bytes), Err(Errno::EINVAL));
    }

    #[test]
    fn routes() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(
            route(ip("127.9.9.9"), false),
            Ok((ip("127.9.9.9"), ip("127.0.0.1")))
        );
        assert_eq!(
            route(ip("0.0.0.0"), false),
            Ok((ip("127.0.0.1"), ip("127.0.0.1")))
        );
        assert_eq!(route(ip("::"), false), Ok((ip("::1"), ip("::1"))));
        assert_eq!(route(ip("10.0.0.1"), false), Err(Errno::ENETUNREACH));
        assert_eq!(route(ip("127.255.255.255"), false), Err(Errno::EACCES));
        assert_eq!(check_local(ip("10.0.0.1")), Err(Errno::EADDRNOTAVAIL));
    }
}
