//! `setsockopt(2)` and `getsockopt(2)`.

use husk_abi::linux::net;

use super::Open;
use crate::net::options;
use crate::syscall::{Fd, Int, Ptr};
use crate::{Errno, SysResult, Thread};

/// The longest option value any level here reads, in bytes.
const MAX_VALUE: usize = 4096;

/// `setsockopt(2)`.
///
/// # Errors
/// `EBADF`, `ENOTSOCK`, `EINVAL`, `EFAULT`, and the level's.
pub fn setsockopt(
    t: &Thread,
    fd: Fd,
    level: Int,
    optname: Int,
    optval: Ptr,
    optlen: Int,
) -> SysResult {
    let len = usize::try_from(optlen).map_err(|_| Errno::EINVAL)?;
    let open = Open::get(t, fd)?;
    let socket = open.socket()?.as_ref();
    let (level, name) = (level.cast_unsigned(), optname.cast_unsigned());
    if level == net::SOL_SOCKET && len < 4 && name != net::SO_BINDTODEVICE {
        return Err(Errno::EINVAL);
    }
    let mut value = alloc::vec![0; len.min(MAX_VALUE)];
    optval.read_bytes(&mut value)?;
    if level == net::SOL_SOCKET {
        options::set(t, socket, name, &value)?;
    } else {
        socket.set_option(t, level, name, &value)?;
    }
    Ok(0)
}

/// `getsockopt(2)`.
///
/// # Errors
/// `EBADF`, `ENOTSOCK`, `EINVAL`, `EFAULT`, and the level's.
pub fn getsockopt(
    t: &Thread,
    fd: Fd,
    level: Int,
    optname: Int,
    optval: Ptr,
    optlen: Ptr,
) -> SysResult {
    let open = Open::get(t, fd)?;
    let socket = open.socket()?.as_ref();
    let room = usize::try_from(optlen.read::<i32>()?).map_err(|_| Errno::EINVAL)?;
    let (level, name) = (level.cast_unsigned(), optname.cast_unsigned());
    let value = if level == net::SOL_SOCKET {
        options::get(t, socket, name, room)
    } else {
        socket.option(t, level, name, room)
    };
    let value = match value {
        // The list is longer than the program's buffer: it learns how long.
        Err(Errno::ERANGE) => {
            let full = socket.option(t, level, name, usize::MAX)?;
            optlen.write(&(full.len() as i32))?;
            return Err(Errno::ERANGE);
        }
        value => value?,
    };
    let len = value.len().min(room);
    optval.write_bytes(&value[..len])?;
    optlen.write(&(len as i32))?;
    Ok(0)
}
