//! Socket options of level `SOL_SOCKET` (`socket(7)`).

use alloc::vec::Vec;

use husk_abi::linux::{general, net};

use super::{BUFFER_BYTES, MAX_BUFFER_BYTES, Socket};
use crate::{Errno, Result, Thread};

/// Smallest buffer sizes, in bytes.
const MIN_SEND: u32 = 4608;
const MIN_RECEIVE: u32 = 2304;
const NS_PER_SEC: u64 = 1_000_000_000;
const NS_PER_US: u64 = 1000;

bitflags::bitflags! {
    /// Options that are on or off.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Switches: u32 {
        /// `SO_DEBUG`; has no effect.
        const DEBUG = 1;
        /// `SO_REUSEADDR`.
        const REUSE_ADDRESS = 1 << 1;
        /// `SO_REUSEPORT`.
        const REUSE_PORT = 1 << 2;
        /// `SO_DONTROUTE`; has no effect inside the guest.
        const DONT_ROUTE = 1 << 3;
        /// `SO_BROADCAST`.
        const BROADCAST = 1 << 4;
        /// `SO_KEEPALIVE`; a peer inside the guest is never silently gone.
        const KEEP_ALIVE = 1 << 5;
        /// `SO_OOBINLINE`.
        const OOB_INLINE = 1 << 6;
        /// `SO_NO_CHECK`; there are no checksums.
        const NO_CHECK = 1 << 7;
        /// `SO_PASSCRED`.
        const PASS_CREDENTIALS = 1 << 8;
        /// `SO_TIMESTAMP`.
        const TIMESTAMP = 1 << 9;
        /// `SO_TIMESTAMPNS`.
        const TIMESTAMP_NS = 1 << 10;
        /// `SO_RXQ_OVFL`; no message is dropped unseen.
        const COUNT_DROPS = 1 << 11;
    }
}

impl Switches {
    fn of_option(name: u32) -> Option<Self> {
        Some(match name {
            net::SO_DEBUG => Self::DEBUG,
            net::SO_REUSEADDR => Self::REUSE_ADDRESS,
            net::SO_REUSEPORT => Self::REUSE_PORT,
            net::SO_DONTROUTE => Self::DONT_ROUTE,
            net::SO_BROADCAST => Self::BROADCAST,
            net::SO_KEEPALIVE => Self::KEEP_ALIVE,
            net::SO_OOBINLINE => Self::OOB_INLINE,
            net::SO_NO_CHECK => Self::NO_CHECK,
            net::SO_PASSCRED => Self::PASS_CREDENTIALS,
            net::SO_TIMESTAMP => Self::TIMESTAMP,
            net::SO_TIMESTAMPNS => Self::TIMESTAMP_NS,
            net::SO_RXQ_OVFL => Self::COUNT_DROPS,
            _ => return None,
        })
    }
}

/// What `SOL_SOCKET` options say.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Those that are on or off.
    pub switches: Switches,
    /// `SO_SNDBUF` as read back, in bytes: twice what was set.
    pub send_buffer: u32,
    /// `SO_RCVBUF`, likewise.
    pub receive_buffer: u32,
    /// `SO_RCVTIMEO`; `None` is for ever.
    pub receive_timeout_ns: Option<u64>,
    /// `SO_SNDTIMEO`.
    pub send_timeout_ns: Option<u64>,
    /// `SO_RCVLOWAT`, bytes.
    pub receive_low_water: usize,
    /// `SO_LINGER` if on: seconds.
    pub linger_seconds: Option<u32>,
    /// `SO_PRIORITY`.
    pub priority: i32,
    /// `SO_PEEK_OFF`; -1 is off.
    pub peek_offset: i32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            switches: Switches::empty(),
            send_buffer: BUFFER_BYTES,
            receive_buffer: BUFFER_BYTES,
            receive_timeout_ns: None,
            send_timeout_ns: None,
            receive_low_water: 1,
            linger_seconds: None,
            priority: 0,
            peek_offset: -1,
        }
    }
}

impl Options {
    /// Whether all of `switches` are on.
    #[must_use]
    pub fn has(&self, switches: Switches) -> bool {
        self.switches.contains(switches)
    }
}

/// Reads an `int` option.
///
/// # Errors
/// `EINVAL` if the value is shorter.
pub fn int(value: &[u8]) -> Result<i32> {
    let bytes = value.first_chunk::<4>().ok_or(Errno::EINVAL)?;
    Ok(i32::from_ne_bytes(*bytes))
}

/// Reads a timeout: a `timeval` whose zero is for ever.
fn timeout(value: &[u8]) -> Result<Option<u64>> {
    let field = |at: usize| -> Result<i64> {
        let bytes = value.get(at..at + 8).ok_or(Errno::EINVAL)?;
        Ok(i64::from_ne_bytes(
            bytes.try_into().map_err(|_| Errno::EINVAL)?,
        ))
    };
    let (seconds, micros) = (field(0)?, field(8)?);
    let Ok(micros @ 0..1_000_000) = u64::try_from(micros) else {
        return Err(Errno::EDOM);
    };
    // A negative timeout is one that has passed.
    let Ok(seconds) = u64::try_from(seconds) else {
        return Ok(Some(0));
    };
    if seconds == 0 && micros == 0 {
        return Ok(None);
    }
    Ok(Some(
        seconds
            .saturating_mul(NS_PER_SEC)
            .saturating_add(micros * NS_PER_US),
    ))
}

fn timeval(timeout_ns: Option<u64>) -> Vec<u8> {
    let ns = timeout_ns.unwrap_or(0);
    let mut bytes = Vec::with_capacity(16);
    bytes.extend_from_slice(&(ns / NS_PER_SEC).to_ne_bytes());
    bytes.extend_from_slice(&(ns % NS_PER_SEC / NS_PER_US).to_ne_bytes());
    bytes
}

/// What is kept of a buffer size a program sets.
fn buffer_size(value: i32, min: u32, limit: u32) -> u32 {
    (value.cast_unsigned().min(limit) * 2).max(min)
}

/// Whether setting this option needs at least an `int`.
fn may_be_short(name: u32) -> bool {
    name == net::SO_BINDTODEVICE
}

/// `setsockopt(2)` of level `SOL_SOCKET`.
///
/// # Errors
/// `EINVAL`, `EDOM`, `EPERM`, `ENOPROTOOPT`, `EOPNOTSUPP` as `socket(7)` says.
pub fn set(t: &Thread, socket: &dyn Socket, name: u32, value: &[u8]) -> Result<()> {
    change(t, socket, name, value)?;
    socket.options_changed();
    if let Some(outside) = socket.outside() {
        // What the host does not allow holds inside all the same.
        let _ = outside.mirror((net::SOL_SOCKET, name), value);
    }
    Ok(())
}

fn change(t: &Thread, socket: &dyn Socket, name: u32, value: &[u8]) -> Result<()> {
    let base = socket.base();
    if value.len() < 4 && !may_be_short(name) {
        return Err(Errno::EINVAL);
    }
    if let Some(switch) = Switches::of_option(name) {
        let on = int(value)? != 0;
        if switch == Switches::PASS_CREDENTIALS && !socket.passes_rights() {
            return Err(Errno::EOPNOTSUPP);
        }
        if switch == Switches::DEBUG && on && !t.credentials().has(general::CAP_NET_ADMIN) {
            return Err(Errno::EACCES);
        }
        base.edit_options(|options| {
            // The last of the two decides which timestamps there are.
            const STAMPS: Switches = Switches::TIMESTAMP.union(Switches::TIMESTAMP_NS);
            if STAMPS.contains(switch) {
                options.switches.remove(STAMPS);
            }
            options.switches.set(switch, on);
        });
        return Ok(());
    }
    let forced = |value| {
        if t.credentials().has(general::CAP_NET_ADMIN) {
            Ok(value)
        } else {
            Err(Errno::EPERM)
        }
    };
    match name {
        net::SO_SNDBUF | net::SO_SNDBUFFORCE => {
            let limit = if name == net::SO_SNDBUF {
                MAX_BUFFER_BYTES
            } else {
                forced(i32::MAX as u32 / 2)?
            };
            let size = buffer_size(int(value)?, MIN_SEND, limit);
            base.edit_options(|options| options.send_buffer = size);
        }
        net::SO_RCVBUF | net::SO_RCVBUFFORCE => {
            let limit = if name == net::SO_RCVBUF {
                MAX_BUFFER_BYTES
            } else {
                forced(i32::MAX as u32 / 2)?
            };
            let size = buffer_size(int(value)?, MIN_RECEIVE, limit);
            base.edit_options(|options| options.receive_buffer = size);
        }
        net::SO_RCVTIMEO | net::SO_RCVTIMEO_NEW => {
            let ns = timeout(value)?;
            base.edit_options(|options| options.receive_timeout_ns = ns);
        }
        net::SO_SNDTIMEO | net::SO_SNDTIMEO_NEW => {
            let ns = timeout(value)?;
            base.edit_options(|options| options.send_timeout_ns = ns);
        }
        net::SO_RCVLOWAT => {
            let bytes = usize::try_from(int(value)?).unwrap_or(i32::MAX as usize);
            base.edit_options(|options| options.receive_low_water = bytes.max(1));
        }
        net::SO_LINGER => {
            let seconds = int(value.get(4..).unwrap_or_default())?;
            let on = int(value)? != 0;
            base.edit_options(|options| {
                options.linger_seconds = on.then_some(seconds.cast_unsigned());
            });
        }
        net::SO_PRIORITY => {
            let priority = int(value)?;
            let credentials = t.credentials();
            if !(0..=6).contains(&priority)
                && !credentials.has(general::CAP_NET_ADMIN)
                && !credentials.has(general::CAP_NET_RAW)
            {
                return Err(Errno::EPERM);
            }
            base.edit_options(|options| options.priority = priority);
        }
        net::SO_PEEK_OFF if socket.passes_rights() => {
            let offset = int(value)?;
            base.edit_options(|options| options.peek_offset = offset.max(-1));
        }
        net::SO_PEEK_OFF => return Err(Errno::EOPNOTSUPP),
        // Obsolete: accepted and ignored.
        net::SO_BSDCOMPAT => {}
        net::SO_TYPE | net::SO_PROTOCOL | net::SO_DOMAIN | net::SO_ERROR => {
            return Err(Errno::ENOPROTOOPT);
        }
        _ => return socket.set_option(t, net::SOL_SOCKET, name, value),
    }
    Ok(())
}

/// `getsockopt(2)` of level `SOL_SOCKET`; `room` is the size of the program's buffer.
///
/// # Errors
/// `ENOPROTOOPT`, and what the family gives.
pub fn get(t: &Thread, socket: &dyn Socket, name: u32, room: usize) -> Result<Vec<u8>> {
    let base = socket.base();
    let options = base.options();
    if let Some(switch) = Switches::of_option(name) {
        if switch == Switches::PASS_CREDENTIALS && !socket.passes_rights() {
            return Err(Errno::EOPNOTSUPP);
        }
        return Ok(i32::from(options.has(switch)).to_ne_bytes().to_vec());
    }
    let value = match name {
        net::SO_TYPE => base.kind.cast_signed(),
        net::SO_DOMAIN => base.family.cast_signed(),
        net::SO_PROTOCOL => base.protocol,
        net::SO_ERROR => {
            let own = base.take_error();
            let error = own.or_else(|| socket.outside()?.take_error());
            error.map_or(0, Errno::code)
        }
        net::SO_ACCEPTCONN => i32::from(socket.is_listening()),
        net::SO_SNDBUF => options.send_buffer.cast_signed(),
        net::SO_RCVBUF => options.receive_buffer.cast_signed(),
        net::SO_RCVLOWAT => options.receive_low_water as i32,
        net::SO_SNDLOWAT => 1,
        net::SO_BSDCOMPAT => 0,
        net::SO_PRIORITY => options.priority,
        net::SO_PEEK_OFF if socket.passes_rights() => options.peek_offset,
        net::SO_PEEK_OFF => return Err(Errno::EOPNOTSUPP),
        net::SO_RCVTIMEO | net::SO_RCVTIMEO_NEW => return Ok(timeval(options.receive_timeout_ns)),
        net::SO_SNDTIMEO | net::SO_SNDTIMEO_NEW => return Ok(timeval(options.send_timeout_ns)),
        net::SO_LINGER => {
            let mut bytes = i32::from(options.linger_seconds.is_some())
                .to_ne_bytes()
                .to_vec();
            bytes.extend_from_slice(&options.linger_seconds.unwrap_or(0).to_ne_bytes());
            return Ok(bytes);
        }
        _ => {
            return match socket.option(t, net::SOL_SOCKET, name, room) {
                Err(Errno::EOPNOTSUPP) => Err(Errno::ENOPROTOOPT),
                result => result,
            };
        }
    };
    Ok(value.to_ne_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::{buffer_size, timeout, timeval};
    use crate::Errno;

    fn bytes(seconds: i64, micros: i64) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&seconds.to_ne_bytes());
        bytes[8..].copy_from_slice(&micros.to_ne_bytes());
        bytes
    }

    #[test]
    fn timeouts() {
        assert_eq!(timeout(&bytes(0, 0)), Ok(None));
        assert_eq!(timeout(&bytes(1, 500_000)), Ok(Some(1_500_000_000)));
        assert_eq!(timeout(&bytes(-1, 0)), Ok(Some(0)));
        assert_eq!(timeout(&bytes(0, 1_000_000)), Err(Errno::EDOM));
        assert_eq!(timeout(&bytes(0, -1)), Err(Errno::EDOM));
        assert_eq!(timeout(&[0; 8]), Err(Errno::EINVAL));
        assert_eq!(timeval(Some(1_500_000_000)), bytes(1, 500_000));
        assert_eq!(timeval(None), bytes(0, 0));
    }

    #[test]
    fn buffers_are_doubled_and_bounded() {
        assert_eq!(buffer_size(8192, 4608, 212_992), 16384);
        assert_eq!(buffer_size(1, 4608, 212_992), 4608);
        assert_eq!(buffer_size(1 << 30, 4608, 212_992), 425_984);
        assert_eq!(buffer_size(-1, 4608, 212_992), 425_984);
    }
}
