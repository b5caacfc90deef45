//! Sockets that a process was handed from outside. They lead out only: the network they were made in may be another than the
//! container's, so they take no port inside.

use alloc::sync::Arc;

use husk_abi::linux::net;

use super::{TcpSocket, UdpSocket};
use crate::net::Socket;
use crate::{Errno, Kernel, Result};

/// A socket about to be taken.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// The session whose process was handed it.
    pub session: u32,
    /// Which of those it was handed.
    pub index: u32,
    /// `AF_INET` or `AF_INET6`.
    pub family: u32,
    /// `SOCK_STREAM` or `SOCK_DGRAM`.
    pub kind: u32,
    /// It listens.
    pub listens: bool,
    /// It is connected.
    pub connected: bool,
}

/// Takes a socket.
///
/// # Errors
/// `ENETUNREACH` if nothing leads out of the guest; `ENFILE`; `ESOCKTNOSUPPORT`.
pub fn handed(kernel: &'static Kernel, taken: &Taken) -> Result<Arc<dyn Socket>> {
    match taken.kind {
        net::SOCK_STREAM => Ok(TcpSocket::handed(kernel, taken)?),
        net::SOCK_DGRAM => Ok(UdpSocket::handed(kernel, taken)?),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}
