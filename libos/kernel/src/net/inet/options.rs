//! Options of levels `IPPROTO_IP`, `IPPROTO_IPV6` and `IPPROTO_TCP` (`ip(7)`, `ipv6(7)`, `tcp(7)`).
//!
//! Most tell how packets are to look or when they are sent. There are none inside, so here these are checked, kept and given
//! back, and nothing more; what leads out has them set on the host's socket, too ([`crate::net::host::Outside::mirror`]).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use husk_abi::linux::net;

use crate::sync::SpinLock;
use crate::{Errno, Result};

const IP: u32 = net::SOL_IP;
const IPV6: u32 = net::SOL_IPV6;
const TCP: u32 = net::SOL_TCP;

/// `IPV6_V6ONLY`.
pub const V6_ONLY: (u32, u32) = (IPV6, 26);
/// `IP_PKTINFO`.
pub const PACKET_INFO: (u32, u32) = (IP, 8);
/// `IPV6_RECVPKTINFO`.
pub const PACKET_INFO_V6: (u32, u32) = (IPV6, 49);
/// `TCP_CONGESTION`.
const CONGESTION: (u32, u32) = (TCP, 13);
const ALGORITHM: &[u8; 16] = b"cubic\0\0\0\0\0\0\0\0\0\0\0";

/// An option with an `int` value.
struct Known {
    level: u32,
    name: u32,
    default: i32,
    least: i32,
    most: i32,
}

const fn known(level: u32, name: u32, default: i32, least: i32, most: i32) -> Known {
    Known {
        level,
        name,
        default,
        least,
        most,
    }
}

/// On or off: any value that is not 0 is on.
const fn switch(level: u32, name: u32, default: i32) -> Known {
    known(level, name, default, 1, 0)
}

const KNOWN: &[Known] = &[
    // IP_TOS, TTL, PKTINFO, RECVOPTS, MTU_DISCOVER, RECVERR, RECVTTL, RECVTOS, FREEBIND
    known(IP, 1, 0, 0, 255),
    known(IP, 2, 64, 1, 255),
    switch(IP, 8, 0),
    switch(IP, 6, 0),
    known(IP, 10, 1, 0, 5),
    switch(IP, 11, 0),
    switch(IP, 12, 0),
    switch(IP, 13, 0),
    switch(IP, 15, 0),
    // IP_RECVORIGDSTADDR, MINTTL, BIND_ADDRESS_NO_PORT, MULTICAST_TTL, MULTICAST_LOOP, MULTICAST_ALL
    switch(IP, 20, 0),
    known(IP, 21, 0, 0, 255),
    switch(IP, 24, 0),
    known(IP, 33, 1, 0, 255),
    switch(IP, 34, 1),
    switch(IP, 49, 1),
    // IPV6_UNICAST_HOPS, MULTICAST_HOPS, MULTICAST_LOOP, MTU_DISCOVER, RECVERR, V6ONLY
    known(IPV6, 16, 64, -1, 255),
    known(IPV6, 18, 1, -1, 255),
    switch(IPV6, 19, 1),
    known(IPV6, 23, 1, 0, 5),
    switch(IPV6, 25, 0),
    switch(IPV6, 26, 0),
    // IPV6_RECVPKTINFO, RECVHOPLIMIT, RECVRTHDR, RECVTCLASS, TCLASS, FREEBIND
    switch(IPV6, 49, 0),
    switch(IPV6, 51, 0),
    switch(IPV6, 56, 0),
    switch(IPV6, 66, 0),
    known(IPV6, 67, 0, -1, 255),
    switch(IPV6, 78, 0),
    // TCP_NODELAY, CORK, KEEPIDLE, KEEPINTVL, KEEPCNT, SYNCNT, LINGER2, DEFER_ACCEPT, QUICKACK, USER_TIMEOUT
    switch(TCP, 1, 0),
    switch(TCP, 3, 0),
    known(TCP, 4, 7200, 1, 32767),
    known(TCP, 5, 75, 1, 32767),
    known(TCP, 6, 9, 1, 127),
    known(TCP, 7, 6, 1, 127),
    known(TCP, 8, 60, i32::MIN, i32::MAX),
    known(TCP, 9, 0, 0, i32::MAX),
    switch(TCP, 12, 1),
    known(TCP, 18, 0, 0, i32::MAX),
    // TCP_MAXSEG, WINDOW_CLAMP, FASTOPEN, NOTSENT_LOWAT
    known(TCP, 2, 536, 88, 32767),
    known(TCP, 10, 0, 0, i32::MAX),
    known(TCP, 23, 0, 0, i32::MAX),
    known(TCP, 25, -1, i32::MIN, i32::MAX),
];

fn find(level: u32, name: u32) -> Result<&'static Known> {
    KNOWN
        .iter()
        .find(|known| (known.level, known.name) == (level, name))
        .ok_or(Errno::ENOPROTOOPT)
}

/// What a program has set.
#[derive(Debug, Default)]
pub struct InetOptions {
    set: SpinLock<BTreeMap<(u32, u32), i32>>,
}

impl InetOptions {
    /// A copy, for an accepted connection.
    #[must_use]
    pub fn inherit(&self) -> Self {
        Self {
            set: SpinLock::new(self.set.lock().clone()),
        }
    }

    /// Whether a switch is on.
    #[must_use]
    pub fn is_on(&self, option: (u32, u32)) -> bool {
        self.set
            .lock()
            .get(&option)
            .is_some_and(|value| *value != 0)
    }

    /// `setsockopt(2)`; `has_tcp`: level TCP exists.
    ///
    /// # Errors
    /// `ENOPROTOOPT`, `EINVAL`, `ENOENT` for a congestion control there is not.
    pub fn set(&self, level: u32, name: u32, value: &[u8], has_tcp: bool) -> Result<()> {
        if level == TCP && !has_tcp {
            return Err(Errno::ENOPROTOOPT);
        }
        if (level, name) == CONGESTION {
            let end = value.iter().position(|byte| *byte == 0);
            return match &value[..end.unwrap_or(value.len())] {
                b"cubic" | b"reno" => Ok(()),
                b"" => Err(Errno::EINVAL),
                _ => Err(Errno::ENOENT),
            };
        }
        let known = find(level, name)?;
        let value = match (value.first_chunk::<4>(), value.first()) {
            (Some(bytes), _) => i32::from_ne_bytes(*bytes),
            // IPv4's options may be given as a byte.
            (None, Some(byte)) if level == IP => i32::from(*byte),
            _ => return Err(Errno::EINVAL),
        };
        let value = if known.least > known.most {
            i32::from(value != 0)
        } else if (known.least..=known.most).contains(&value) {
            value
        } else if value == -1 && (level, name) == (IP, 2) {
            known.default
        } else {
            return Err(Errno::EINVAL);
        };
        let kept = if value == -1 && level == IPV6 {
            known.default
        } else {
            value
        };
        self.set.lock().insert((level, name), kept);
        Ok(())
    }

    /// `getsockopt(2)`.
    ///
    /// # Errors
    /// `ENOPROTOOPT`.
    pub fn get(&self, level: u32, name: u32, has_tcp: bool) -> Result<Vec<u8>> {
        if level == TCP && !has_tcp {
            return Err(Errno::ENOPROTOOPT);
        }
        if (level, name) == CONGESTION {
            return Ok(ALGORITHM.to_vec());
        }
        let known = find(level, name)?;
        let set = self.set.lock().get(&(level, name)).copied();
        Ok(set.unwrap_or(known.default).to_ne_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_and_kept() {
        let options = InetOptions::default();
        let get = |level, name| options.get(level, name, true).map(|value| value[0]);
        assert_eq!(get(IP, 2), Ok(64));
        assert_eq!(options.set(IP, 2, &[7], true), Ok(()));
        assert_eq!(get(IP, 2), Ok(7));
        assert_eq!(
            options.set(IP, 2, &0i32.to_ne_bytes(), true),
            Err(Errno::EINVAL)
        );
        assert_eq!(options.set(TCP, 1, &[1], true), Err(Errno::EINVAL));
        assert_eq!(options.set(TCP, 1, &77i32.to_ne_bytes(), true), Ok(()));
        assert_eq!(get(TCP, 1), Ok(1));
        assert_eq!(options.get(TCP, 1, false), Err(Errno::ENOPROTOOPT));
        assert_eq!(options.set(IPV6, 26, &1i32.to_ne_bytes(), true), Ok(()));
        assert!(options.is_on(V6_ONLY));
        assert_eq!(options.set(TCP, 13, b"bbr", true), Err(Errno::ENOENT));
    }
}
