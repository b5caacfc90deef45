//! What `/proc/net` shows.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use husk_abi::linux::net;

use super::{Socket, inet};
use crate::Kernel;

/// A line of `/proc/net/unix`.
#[derive(Debug)]
pub struct UnixLine {
    /// Open files and others that keep it.
    pub references: usize,
    /// `__SO_ACCEPTCON` if listening.
    pub flags: u32,
    /// `SOCK_*`.
    pub kind: u32,
    /// `SS_*`.
    pub state: u32,
    /// Inode number; 0 if nobody has accepted it yet.
    pub ino: u64,
    /// The path, or `@` and the abstract name; empty without a name.
    pub path: Vec<u8>,
}

/// The lines of `/proc/net/unix`.
#[must_use]
pub fn unix(kernel: &Kernel) -> Vec<UnixLine> {
    let sockets = kernel.net.unix.sockets();
    sockets
        .iter()
        .map(|socket| {
            let (flags, state) = socket.summary();
            let is_connected = matches!(state, 2 | 3);
            UnixLine {
                references: 2 + usize::from(is_connected),
                flags,
                kind: socket.base().kind,
                state,
                ino: socket.base().ino(),
                path: socket.bound_name().map_or_else(Vec::new, |name| {
                    let path = &name[super::unix::PATH_AT..];
                    match path.strip_suffix(&[0]) {
                        Some(path) if path.first().is_some_and(|byte| *byte != 0) => path.to_vec(),
                        // Abstract names are shown with @ for NUL.
                        _ => path
                            .iter()
                            .map(|byte| if *byte == 0 { b'@' } else { *byte })
                            .collect(),
                    }
                }),
            }
        })
        .collect()
}

/// A line of `/proc/net/tcp`, `udp` and their like.
#[derive(Debug)]
pub struct InetLine {
    /// Its own address, as these files write them.
    pub local: String,
    /// The peer's.
    pub remote: String,
    /// `TCP_*`.
    pub state: u8,
    /// Bytes received and not read.
    pub received: usize,
    /// Whose it is.
    pub user: u32,
    /// Inode number; 0 if nobody has accepted it yet.
    pub ino: u64,
}

/// Words of the address in hexadecimal, and the port.
fn endpoint(family: u32, address: SocketAddr) -> String {
    let words = inet::to_ipv6_words(address.ip());
    let port = address.port();
    match address.ip() {
        IpAddr::V4(_) if family == net::AF_INET => alloc::format!("{:08X}:{port:04X}", words[3]),
        _ => {
            let [a, b, c, d] = words;
            alloc::format!("{a:08X}{b:08X}{c:08X}{d:08X}:{port:04X}")
        }
    }
}

fn inet_line(
    socket: &dyn Socket,
    (local, remote): (SocketAddr, SocketAddr),
    state: u8,
    received: usize,
) -> InetLine {
    let family = socket.base().family;
    let inode = socket.base().inode();
    InetLine {
        local: endpoint(family, local),
        remote: endpoint(family, remote),
        state,
        received,
        user: inode.map_or(0, |inode| crate::fs::Inode::attributes(inode.as_ref()).uid),
        ino: socket.base().ino(),
    }
}

/// The TCP sockets of `family` that have a port.
#[must_use]
pub fn tcp(kernel: &Kernel, family: u32) -> Vec<InetLine> {
    let sockets = kernel.net.inet.tcp_sockets();
    let of_family = sockets
        .iter()
        .filter(|socket| socket.base().family == family);
    of_family
        .map(|socket| {
            let (local, remote, state, received) = socket.summary();
            inet_line(socket.as_ref(), (local, remote), state, received)
        })
        .collect()
}

/// The UDP sockets of `family` that have a port.
#[must_use]
pub fn udp(kernel: &Kernel, family: u32) -> Vec<InetLine> {
    let sockets = kernel.net.inet.udp_sockets();
    let of_family = sockets
        .iter()
        .filter(|socket| socket.base().family == family);
    of_family
        .map(|socket| {
            let (local, remote, received) = socket.summary();
            let state = if remote.port() == 0 { 7 } else { 1 };
            inet_line(socket.as_ref(), (local, remote), state, received)
        })
        .collect()
}
