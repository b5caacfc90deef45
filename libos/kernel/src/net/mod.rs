//! Sockets (`socket(7)`).
//!
//! | module | what |
//! | --- | --- |
//! | `socket` | the [`Socket`] trait a family implements, the open file over it, how long a call waits |
//! | `options` | `SOL_SOCKET` options |
//! | `address`, `message`, `control` | what programs pass: socket addresses, `msghdr`, ancillary data |
//! | `calls` | the system calls, by theme |
//! | `unix` | `AF_UNIX`: wholly inside the guest |
//! | `inet` | `AF_INET` and `AF_INET6`: the loopback inside, and what leads out |
//! | `host` | sockets of the host: how inet sockets lead out |
//! | `netlink` | `AF_NETLINK`: what interfaces and addresses there are |
//! | `interface` | the one interface, and the ioctls that ask for it |
//! | `proc` | `/proc/net` |
//!
//! A family keeps its state behind short locks of its own; none of them is held over a copy to or from user
//! memory, nor while another socket is locked, except the table of passed descriptors
//! ([`unix::InFlight`]), which comes before a socket's lock.

pub mod address;
pub mod calls;
pub mod control;
pub mod host;
pub mod inet;
pub mod interface;
pub mod message;
pub mod netlink;
pub mod options;
pub mod proc;
pub mod socket;
pub mod unix;

use husk_abi::boundary::boot::BootInfo;

pub use message::{Incoming, Outgoing};
pub use options::Options;
pub use socket::{Base, Patience, Shutdown, Socket, SocketFile};

/// Longest queue of connections `listen(2)` gives (`net.core.somaxconn`).
pub const SOMAXCONN: u32 = 4096;
/// Default buffer size in bytes (`net.core.wmem_default` and `rmem_default`).
pub const BUFFER_BYTES: u32 = 212_992;
/// The largest size programs can ask for, before it is doubled (`net.core.wmem_max` and `rmem_max`).
pub const MAX_BUFFER_BYTES: u32 = 4 << 20;

/// What all sockets of the guest share.
#[derive(Debug)]
pub struct Net {
    /// `AF_UNIX`.
    pub unix: unix::Unix,
    /// `AF_INET` and `AF_INET6`.
    pub inet: inet::Inet,
    /// `AF_NETLINK`.
    pub netlink: netlink::Netlink,
    /// Sockets of the host.
    pub host: host::HostSockets,
}

impl Net {
    /// No sockets; those of the host are to be had as the boot info says.
    #[must_use]
    pub fn new(boot: &BootInfo) -> Self {
        Self {
            unix: unix::Unix::default(),
            inet: inet::Inet::default(),
            netlink: netlink::Netlink::default(),
            host: host::HostSockets::new(boot),
        }
    }
}
