//! `socket(2)` and `socketpair(2)`.

use alloc::sync::Arc;

use husk_abi::linux::{general, net};

use crate::fs::FileRef;
use crate::net::{Socket, SocketFile, inet, netlink, unix};
use crate::syscall::{Hex, Int, Ptr};
use crate::{Errno, Result, SysResult, Thread};

/// Bits of the type argument that are the type.
const TYPE_MASK: u32 = 0xf;
/// One more than the largest type.
const TYPE_LIMIT: u32 = 11;

/// The type, and the `O_*` flags that came with it.
struct Kind {
    kind: u32,
    nonblocking: u32,
    close_on_exec: bool,
}

impl Kind {
    fn new(argument: Hex) -> Result<Self> {
        let argument = argument as u32;
        let flags = argument & !TYPE_MASK;
        if flags & !(general::O_CLOEXEC | general::O_NONBLOCK) != 0 {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            kind: argument & TYPE_MASK,
            nonblocking: flags & general::O_NONBLOCK,
            close_on_exec: flags & general::O_CLOEXEC != 0,
        })
    }
}

/// What can be asked of every family, before it is looked for.
fn check(domain: Int, kind: u32) -> Result<u32> {
    let domain = u32::try_from(domain)
        .ok()
        .filter(|domain| *domain < net::AF_MAX)
        .ok_or(Errno::EAFNOSUPPORT)?;
    if kind >= TYPE_LIMIT {
        return Err(Errno::EINVAL);
    }
    Ok(domain)
}

fn create(t: &Thread, domain: Int, kind: u32, protocol: Int) -> Result<Arc<dyn Socket>> {
    match check(domain, kind)? {
        net::AF_UNIX => Ok(unix::create(t, kind, protocol)?),
        family @ (net::AF_INET | net::AF_INET6) => inet::create(t, family, kind, protocol),
        net::AF_NETLINK => Ok(netlink::create(t, kind, protocol)?),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

/// `socket(2)`.
///
/// # Errors
/// `EINVAL`, `EAFNOSUPPORT`, `ESOCKTNOSUPPORT`, `EPROTONOSUPPORT`, `EACCES`, `EMFILE`.
pub fn socket(t: &Thread, domain: Int, kind: Hex, protocol: Int) -> SysResult {
    let kind = Kind::new(kind)?;
    let socket = create(t, domain, kind.kind, protocol)?;
    let file = SocketFile::open(t, socket, kind.nonblocking);
    let fd = t.files().alloc(t, file, kind.close_on_exec)?;
    Ok(fd as usize)
}

fn pair(t: &Thread, domain: Int, kind: u32, protocol: Int) -> Result<[Arc<dyn Socket>; 2]> {
    match check(domain, kind)? {
        net::AF_UNIX => {
            let (one, other) = unix::pair(t, kind, protocol)?;
            Ok([one, other])
        }
        _ => {
            // The family's own errors come first.
            create(t, domain, kind, protocol)?.released();
            Err(Errno::EOPNOTSUPP)
        }
    }
}

/// `socketpair(2)`.
///
/// # Errors
/// As [`socket()`]; `EOPNOTSUPP` for families without pairs; `EFAULT`.
pub fn socketpair(t: &Thread, domain: Int, kind: Hex, protocol: Int, sv: Ptr) -> SysResult {
    let kind = Kind::new(kind)?;
    let files = t.files();
    let [one, other] = pair(t, domain, kind.kind, protocol)?
        .map(|socket| SocketFile::open(t, socket, kind.nonblocking));
    let install = |file: FileRef| files.alloc(t, file, kind.close_on_exec);
    let one = install(one)?;
    let installed = install(other).and_then(|other| {
        sv.write(&[one, other]).inspect_err(|_| {
            let _ = files.close(other);
        })
    });
    if let Err(error) = installed {
        let _ = files.close(one);
        return Err(error);
    }
    Ok(0)
}
