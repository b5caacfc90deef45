//! Requests of `ioctl(2)` about sockets and interfaces: which the guest may make.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::raw;

/// Requests that read, and the bytes of their arguments.
const READING: &[(u32, usize)] = &[
    (0x541b, 4),       // FIONREAD
    (0x5411, 4),       // SIOCOUTQ
    (0x894b, 4),       // SIOCOUTQNSD
    (0x8905, 4),       // SIOCATMARK
    (0x8906, 16),      // SIOCGSTAMP
    (0x8907, 16),      // SIOCGSTAMPNS
    (0x8010_8906, 16), // SIOCGSTAMP_NEW
    (0x8010_8907, 16), // SIOCGSTAMPNS_NEW
    (0x8910, IFREQ),   // SIOCGIFNAME
    (0x8913, IFREQ),   // SIOCGIFFLAGS
    (0x8915, IFREQ),   // SIOCGIFADDR
    (0x8917, IFREQ),   // SIOCGIFDSTADDR
    (0x8919, IFREQ),   // SIOCGIFBRDADDR
    (0x891b, IFREQ),   // SIOCGIFNETMASK
    (0x891d, IFREQ),   // SIOCGIFMETRIC
    (0x8921, IFREQ),   // SIOCGIFMTU
    (0x8927, IFREQ),   // SIOCGIFHWADDR
    (0x8933, IFREQ),   // SIOCGIFINDEX
    (0x8942, IFREQ),   // SIOCGIFTXQLEN
    (0x8970, IFREQ),   // SIOCGIFMAP
];

/// Requests that change interfaces, routes or neighbours, which takes a privilege the container's network does not give away.
const CHANGING: &[u32] = &[
    0x890b, // SIOCADDRT
    0x890c, // SIOCDELRT
    0x8911, // SIOCSIFLINK
    0x8914, // SIOCSIFFLAGS
    0x8916, // SIOCSIFADDR
    0x8918, // SIOCSIFDSTADDR
    0x891a, // SIOCSIFBRDADDR
    0x891c, // SIOCSIFNETMASK
    0x891e, // SIOCSIFMETRIC
    0x8920, // SIOCSIFMEM
    0x8922, // SIOCSIFMTU
    0x8923, // SIOCSIFNAME
    0x8924, // SIOCSIFHWADDR
    0x8926, // SIOCSIFENCAP
    0x8930, // SIOCSIFSLAVE
    0x8931, // SIOCADDMULTI
    0x8932, // SIOCDELMULTI
    0x8934, // SIOCSIFPFLAGS
    0x8936, // SIOCDIFADDR
    0x8937, // SIOCSIFHWBROADCAST
    0x8943, // SIOCSIFTXQLEN
    0x8953, // SIOCDARP
    0x8955, // SIOCSARP
    0x8971, // SIOCSIFMAP
    0x89a0, // SIOCBRADDBR
    0x89a1, // SIOCBRDELBR
    0x89a2, // SIOCBRADDIF
    0x89a3, // SIOCBRDELIF
];

/// `SIOCGIFCONF`: its argument, here, is the array itself, and so is its answer.
const INTERFACES: u32 = 0x8912;
/// Bytes of `struct ifreq`.
const IFREQ: usize = 40;

/// What `request` makes of `argument`.
///
/// # Errors
/// `ENOTTY` for requests that are none of these, `EPERM` for those that change something, `EINVAL` for an argument of
/// another size; the request's own.
pub fn serve(socket: impl AsFd, request: u32, argument: &[u8]) -> Result<Vec<u8>, Errno> {
    if CHANGING.contains(&request) {
        return Err(Errno::PERM);
    }
    let mut answer = argument.to_vec();
    if request == INTERFACES {
        let bytes = raw::interfaces(socket, &mut answer)?;
        answer.truncate(bytes);
        return Ok(answer);
    }
    let known = READING.iter().find(|(known, _)| *known == request);
    let (_, bytes) = known.ok_or(Errno::NOTTY)?;
    if argument.len() != *bytes {
        return Err(Errno::INVAL);
    }
    raw::ioctl(socket, request, &mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confine::rules::SOCKET_REQUESTS;

    #[test]
    fn the_filter_allows_these() {
        let mut known: Vec<u64> = READING.iter().map(|(it, _)| u64::from(*it)).collect();
        known.push(u64::from(INTERFACES));
        let mut allowed = SOCKET_REQUESTS.to_vec();
        known.sort_unstable();
        allowed.sort_unstable();
        assert_eq!(known, allowed);
        assert!(CHANGING.iter().all(|it| !known.contains(&u64::from(*it))));
    }
}
