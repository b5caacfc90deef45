//! Both sides of a bound socket: a port is the container's and its network's.

use core::net::SocketAddr;

use super::endpoint;
use crate::net::Base;
use crate::net::host::Outside;
use crate::{Errno, Result};

/// How often a port that the host gave is taken inside before one gives up.
const TRIES: usize = 16;

/// Binds to `address`, which `bytes` are: inside by `take`, which `give_up` undoes, and outside, if anything leads out. The host picks
/// the port if it is 0.
///
/// # Errors
/// `EADDRNOTAVAIL`, `EADDRINUSE`, and others of `bind(2)` on the host. Neither side is bound then.
pub fn bind(
    outside: &Outside,
    base: &Base,
    bytes: &[u8],
    address: SocketAddr,
    take: impl Fn(SocketAddr) -> Result<()>,
    give_up: impl FnOnce(),
) -> Result<()> {
    if !base.kernel.net.host.is_available() {
        endpoint::check_local(address.ip())?;
        return take(address);
    }
    if address.port() != 0 {
        take(address)?;
        let bound = outside.open(base).and_then(|host| host.bind(bytes));
        return bound.map(drop).inspect_err(|_| {
            give_up();
            outside.close();
        });
    }
    for _ in 0..TRIES {
        let given = outside.open(base)?.bind(bytes)?;
        let given = endpoint::parse(base.family, &given)?;
        match take(SocketAddr::new(address.ip(), given.port())) {
            Err(Errno::EADDRINUSE) => outside.close(),
            result => return result,
        }
    }
    Err(Errno::EADDRINUSE)
}
