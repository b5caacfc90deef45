//! Addresses and connections: `bind(2)`, `listen(2)`, `accept(2)`, `connect(2)`, `shutdown(2)`.

use husk_abi::linux::general;

use super::Open;
use crate::net::{SOMAXCONN, Shutdown, SocketFile, address};
use crate::syscall::{Fd, Hex, Int, Ptr};
use crate::{Errno, SysResult, Thread};

/// `bind(2)`.
///
/// # Errors
/// `EBADF`, `ENOTSOCK`, `EINVAL`, `EFAULT`, and the family's.
pub fn bind(t: &Thread, fd: Fd, addr: Ptr, addrlen: Int) -> SysResult {
    let open = Open::get(t, fd)?;
    let address = address::read(addr, addrlen)?;
    open.socket()?.bind(t, &address)?;
    Ok(0)
}

/// `listen(2)`.
///
/// # Errors
/// `EBADF`, `ENOTSOCK`, and the family's.
pub fn listen(t: &Thread, fd: Fd, backlog: Int) -> SysResult {
    let open = Open::get(t, fd)?;
    let backlog = backlog.cast_unsigned().min(SOMAXCONN);
    open.socket()?.listen(t, backlog)?;
    Ok(0)
}

/// `accept(2)`.
///
/// # Errors
/// As [`accept4`].
pub fn accept(t: &Thread, fd: Fd, addr: Ptr, addrlen: Ptr) -> SysResult {
    accept4(t, fd, addr, addrlen, 0)
}

/// `accept4(2)`. A connection whose address cannot be written is lost, as on Linux.
///
/// # Errors
/// `EBADF`, `EINVAL`, `EMFILE`, `ENOTSOCK`, `EFAULT`, and the family's.
pub fn accept4(t: &Thread, fd: Fd, addr: Ptr, addrlen: Ptr, flags: Hex) -> SysResult {
    let files = t.files();
    let listener = files.get(fd)?;
    let flags = flags as u32;
    if flags & !(general::O_CLOEXEC | general::O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    files.check_room(t)?;
    let listener = Open(listener);
    let socket = listener.socket()?.accept(t, listener.0.is_nonblocking())?;
    let peer = if addr.is_null() {
        None
    } else {
        Some(socket.peer_name())
    };
    let file = SocketFile::open(t, socket, flags & general::O_NONBLOCK);
    if let Some(peer) = peer {
        let peer = peer.map_err(|_| Errno::ECONNABORTED)?;
        address::write(&peer, addr, addrlen)?;
    }
    let fd = files.alloc(t, file, flags & general::O_CLOEXEC != 0)?;
    Ok(fd as usize)
}

/// `connect(2)`.
///
/// # Errors
/// `EBADF`, `ENOTSOCK`, `EINVAL`, `EFAULT`, and the family's.
pub fn connect(t: &Thread, fd: Fd, addr: Ptr, addrlen: Int) -> SysResult {
    let open = Open::get(t, fd)?;
    let address = address::read(addr, addrlen)?;
    open.socket()?
        .connect(t, &address, open.0.is_nonblocking())?;
    Ok(0)
}

/// `getsockname(2)`.
///
/// # Errors
/// `EBADF`, `ENOTSOCK`, `EINVAL`, `EFAULT`.
pub fn getsockname(t: &Thread, fd: Fd, addr: Ptr, addrlen: Ptr) -> SysResult {
    let open = Open::get(t, fd)?;
    let name = open.socket()?.name()?;
    address::write(&name, addr, addrlen)?;
    Ok(0)
}

/// `getpeername(2)`.
///
/// # Errors
/// As [`getsockname`]; `ENOTCONN`.
pub fn getpeername(t: &Thread, fd: Fd, addr: Ptr, addrlen: Ptr) -> SysResult {
    let open = Open::get(t, fd)?;
    let name = open.socket()?.peer_name()?;
    address::write(&name, addr, addrlen)?;
    Ok(0)
}

/// `shutdown(2)`.
///
/// # Errors
/// `EBADF`, `ENOTSOCK`, `EINVAL`, and the family's.
pub fn shutdown(t: &Thread, fd: Fd, how: Int) -> SysResult {
    let open = Open::get(t, fd)?;
    let how = match how {
        0 => Shutdown::Read,
        1 => Shutdown::Write,
        2 => Shutdown::Both,
        _ => return Err(Errno::EINVAL),
    };
    open.socket()?.shutdown(how)?;
    Ok(0)
}
