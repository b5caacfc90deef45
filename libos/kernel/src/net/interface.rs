//! Network interfaces, and the ioctls that ask for them (`netdevice(7)`): the host's, or the loopback if there are none.

use husk_abi::boundary::net::MAX_VALUE;
use husk_abi::linux::{general, ioctl as request};

use super::host::interface_ioctl;
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

/// Its name.
pub const LOOPBACK: &[u8] = b"lo";
/// Its index.
pub const LOOPBACK_INDEX: u32 = 1;
/// `IFF_UP | IFF_LOOPBACK | IFF_RUNNING`.
pub const LOOPBACK_FLAGS: u32 = 0x49;
/// Bytes of its largest packet.
pub const LOOPBACK_MTU: u32 = 65536;
/// `ARPHRD_LOOPBACK`.
pub const LOOPBACK_TYPE: u16 = 772;
/// Length of its queue.
pub const QUEUE_LENGTH: u32 = 1000;

const NAME_BYTES: usize = 16;
const REQUEST_BYTES: usize = 40;
const AF_INET: u16 = 2;
/// `SIOCGIFINDEX`, `SIOCGIFTXQLEN`, `SIOCGIFMAP`, which the bindings lack.
const SIOCGIFINDEX: u32 = 0x8933;
const SIOCGIFTXQLEN: u32 = 0x8942;
const SIOCGIFMAP: u32 = 0x8970;

/// A `sockaddr_in` without port.
fn inet_address(ip: [u8; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&AF_INET.to_ne_bytes());
    bytes[4..8].copy_from_slice(&ip);
    bytes
}

/// `SIOCGIFCONF`: the interfaces that have an IPv4 address.
fn configuration(at: UserAddr) -> SysResult {
    let room: i32 = at.read()?;
    let buffer = UserAddr(at.add(8).read()?);
    let len = if buffer.is_null() {
        REQUEST_BYTES
    } else if room >= REQUEST_BYTES as i32 {
        let mut entry = [0; REQUEST_BYTES];
        entry[..LOOPBACK.len()].copy_from_slice(LOOPBACK);
        entry[NAME_BYTES..NAME_BYTES + 16].copy_from_slice(&inet_address([127, 0, 0, 1]));
        buffer.write_bytes(&entry)?;
        REQUEST_BYTES
    } else {
        0
    };
    at.write(&(len as i32))?;
    Ok(0)
}

/// `SIOCGIFCONF`, of the host's interfaces.
fn configuration_outside(t: &Thread, at: UserAddr) -> SysResult {
    let room: i32 = at.read()?;
    let buffer = UserAddr(at.add(8).read()?);
    let room = match usize::try_from(room) {
        Ok(room) if !buffer.is_null() => room.min(MAX_VALUE),
        Ok(_) => MAX_VALUE,
        Err(_) => return Err(Errno::EINVAL),
    };
    let room = room / REQUEST_BYTES * REQUEST_BYTES;
    let entries = interface_ioctl(t.kernel, request::SIOCGIFCONF, &alloc::vec![0; room])?;
    if !buffer.is_null() {
        buffer.write_bytes(&entries)?;
    }
    at.write(&(entries.len() as i32))?;
    Ok(0)
}

/// A request about one of the host's interfaces.
fn ask_host(t: &Thread, asked: u32, at: UserAddr) -> SysResult {
    let mut bytes = [0; REQUEST_BYTES];
    at.read_bytes(&mut bytes)?;
    at.write_bytes(&interface_ioctl(t.kernel, asked, &bytes)?)?;
    Ok(0)
}

/// What a request about the interface gives: the bytes behind the name.
fn answer(asked: u32) -> Option<[u8; 24]> {
    let mut bytes = [0; 24];
    let mut put = |value: &[u8]| bytes[..value.len()].copy_from_slice(value);
    match asked {
        request::SIOCGIFFLAGS => put(&(LOOPBACK_FLAGS as u16).to_ne_bytes()),
        request::SIOCGIFADDR | request::SIOCGIFDSTADDR => put(&inet_address([127, 0, 0, 1])),
        request::SIOCGIFNETMASK => put(&inet_address([255, 0, 0, 0])),
        request::SIOCGIFBRDADDR => put(&inet_address([0; 4])),
        request::SIOCGIFMTU => put(&LOOPBACK_MTU.to_ne_bytes()),
        request::SIOCGIFHWADDR => put(&LOOPBACK_TYPE.to_ne_bytes()),
        request::SIOCGIFMETRIC | SIOCGIFMAP => {}
        SIOCGIFINDEX => put(&LOOPBACK_INDEX.to_ne_bytes()),
        SIOCGIFTXQLEN => put(&QUEUE_LENGTH.to_ne_bytes()),
        _ => return None,
    }
    Some(bytes)
}

fn name(at: UserAddr) -> Result<[u8; NAME_BYTES]> {
    let mut name = [0; NAME_BYTES];
    at.read_bytes(&mut name)?;
    // A name that fills the field is cut.
    name[NAME_BYTES - 1] = 0;
    Ok(name)
}

/// Whether it asks something about one interface.
fn is_question(asked: u32) -> bool {
    asked == request::SIOCGIFNAME || answer(asked).is_some()
}

/// The ioctls that every socket has.
///
/// # Errors
/// `ENODEV`, `EPERM` for what changes an interface, `EFAULT`; `ENOTTY` for other requests.
pub fn ioctl(t: &Thread, asked: u32, arg: u64) -> SysResult {
    let at = UserAddr(arg);
    let has_host = t.kernel.net.host.is_available();
    match asked {
        request::SIOCGIFCONF if has_host => return configuration_outside(t, at),
        _ if has_host && is_question(asked) => return ask_host(t, asked, at),
        request::SIOCGIFCONF => return configuration(at),
        request::SIOCGIFNAME => {
            let index: u32 = at.add(NAME_BYTES as u64).read()?;
            if index != LOOPBACK_INDEX {
                return Err(Errno::ENODEV);
            }
            let mut name = [0; NAME_BYTES];
            name[..LOOPBACK.len()].copy_from_slice(LOOPBACK);
            at.write_bytes(&name)?;
            return Ok(0);
        }
        request::SIOCSIFFLAGS
        | request::SIOCSIFADDR
        | request::SIOCSIFDSTADDR
        | request::SIOCSIFBRDADDR
        | request::SIOCSIFNETMASK
        | request::SIOCSIFMTU
        | request::SIOCSIFHWADDR
        | request::SIOCADDRT
        | request::SIOCDELRT
            if !t.credentials().has(general::CAP_NET_ADMIN) =>
        {
            return Err(Errno::EPERM);
        }
        _ => {}
    }
    let answer = answer(asked).ok_or(Errno::ENOTTY)?;
    let name = name(at)?;
    let end = name.iter().position(|byte| *byte == 0);
    // An alias has its interface's name before a colon.
    let base = name[..end.unwrap_or(NAME_BYTES)]
        .split(|byte| *byte == b':')
        .next();
    if base != Some(LOOPBACK) {
        return Err(Errno::ENODEV);
    }
    at.add(NAME_BYTES as u64).write_bytes(&answer)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::testing::test_thread;

    #[test]
    fn the_loopback_interface() {
        let t = test_thread();
        let mut entry = [0u8; REQUEST_BYTES];
        entry[..2].copy_from_slice(b"lo");
        let at = entry.as_mut_ptr() as u64;
        assert_eq!(ioctl(&t, request::SIOCGIFMTU, at), Ok(0));
        assert_eq!(entry[16..20], LOOPBACK_MTU.to_ne_bytes());
        assert_eq!(ioctl(&t, request::SIOCGIFADDR, at), Ok(0));
        assert_eq!(entry[20..24], [127, 0, 0, 1]);
        let mut other = [0u8; REQUEST_BYTES];
        other[..2].copy_from_slice(b"eo");
        let other = other.as_mut_ptr() as u64;
        assert_eq!(ioctl(&t, request::SIOCGIFMTU, other), Err(Errno::ENODEV));
        assert_eq!(ioctl(&t, 0x5401, at), Err(Errno::ENOTTY));
    }
}
