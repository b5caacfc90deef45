//! Sockets and addresses as people write them, for records.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The protocol of a socket of this family and type that was made for this protocol.
pub fn protocol(family: u32, kind: u32, protocol: u32) -> &'static str {
    if family.cast_signed() == libc::AF_NETLINK {
        return "rtnetlink";
    }
    match (kind.cast_signed(), protocol.cast_signed()) {
        (libc::SOCK_STREAM, _) => "tcp",
        (libc::SOCK_DGRAM, 0 | libc::IPPROTO_UDP) => "udp",
        (_, libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6) => "icmp",
        _ => "raw",
    }
}

/// The address in the bytes of a `struct sockaddr`; nothing if it names none.
fn address(bytes: &[u8]) -> Option<String> {
    let (family, rest) = bytes.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let port = u16::from_be_bytes(*port);
    let ip = match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::from(*rest.first_chunk::<4>()?)),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port).to_string())
}

/// A socket of `protocol`, its own address and where it leads, as far as they are known.
pub fn flow(protocol: &str, own: &[u8], peer: &[u8]) -> String {
    let mut words = vec![protocol.to_owned()];
    words.extend(address(own));
    words.extend(address(peer).map(|peer| format!("> {peer}")));
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_text() {
        let v4 = [2, 0, 0, 80, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut v6 = vec![10, 0, 0x1f, 0x90, 0, 0, 0, 0];
        v6.extend(Ipv6Addr::LOCALHOST.octets());
        v6.extend([0; 4]);
        assert_eq!(flow("tcp", &v4, b""), "tcp 10.0.0.1:80");
        assert_eq!(flow("udp", &v4, &v6), "udp 10.0.0.1:80 > [::1]:8080");
        assert_eq!(flow("udp", b"", &v6), "udp > [::1]:8080");
        assert_eq!(flow("", b"", b""), "");
        for short in 0..8 {
            assert_eq!(flow("tcp", &v4[..short], b""), "tcp", "{short}");
        }
        assert_eq!(flow("tcp", &[0; 16], b""), "tcp");
    }
}
