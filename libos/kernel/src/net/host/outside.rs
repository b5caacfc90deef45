//! The host's side of a socket that a program has: made when the socket is first bound or leads out, with the options the
//! program has set until then.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use husk_abi::linux::net;

use super::HostSocket;
use crate::net::Base;
use crate::sync::SpinLock;
use crate::{Errno, Result};

/// An option's level and name, and its value.
type Setting = ((u32, u32), Vec<u8>);

/// The host's side.
#[derive(Debug, Default)]
pub struct Outside {
    socket: SpinLock<Option<Arc<HostSocket>>>,
    /// What the program has set, in order.
    settings: SpinLock<Vec<Setting>>,
    /// An option was set with which bytes must not be kept on this side.
    is_unbuffered: AtomicBool,
    /// It is of a datagram socket.
    of_datagrams: bool,
}

/// Whether a datagram socket with this option may have datagrams on this side: not where it is about which of them can be sent, or
/// makes several of one.
fn may_buffer_datagrams((level, name): (u32, u32)) -> bool {
    match level {
        net::SOL_SOCKET => {
            may_buffer((level, name))
                || matches!(
                    name,
                    net::SO_TIMESTAMP
                        | net::SO_TIMESTAMP_NEW
                        | net::SO_TIMESTAMPNS
                        | net::SO_TIMESTAMPNS_NEW
                        | net::SO_RXQ_OVFL
                        | net::SO_BINDTODEVICE
                )
        }
        net::SOL_IP => name != net::IP_MTU_DISCOVER && name != net::IP_HDRINCL,
        net::SOL_IPV6 => !matches!(
            name,
            net::IPV6_MTU_DISCOVER | net::IPV6_MTU | net::IPV6_DONTFRAG
        ),
        _ => false,
    }
}

/// Whether a stream with this option may have bytes on this side ([`HostSocket::set_buffered`]).
fn may_buffer((level, name): (u32, u32)) -> bool {
    match level {
        net::SOL_SOCKET => matches!(
            name,
            net::SO_REUSEADDR
                | net::SO_REUSEPORT
                | net::SO_KEEPALIVE
                | net::SO_LINGER
                | net::SO_BROADCAST
                | net::SO_SNDBUF
                | net::SO_RCVBUF
                | net::SO_SNDBUFFORCE
                | net::SO_RCVBUFFORCE
                | net::SO_PRIORITY
                | net::SO_DONTROUTE
                | net::SO_RCVTIMEO
                | net::SO_RCVTIMEO_NEW
                | net::SO_SNDTIMEO
                | net::SO_SNDTIMEO_NEW
        ),
        net::SOL_TCP => matches!(
            name,
            net::TCP_NODELAY
                | net::TCP_MAXSEG
                | net::TCP_CORK
                | net::TCP_KEEPIDLE
                | net::TCP_KEEPINTVL
                | net::TCP_KEEPCNT
                | net::TCP_SYNCNT
                | net::TCP_LINGER2
                | net::TCP_DEFER_ACCEPT
                | net::TCP_WINDOW_CLAMP
                | net::TCP_QUICKACK
                | net::TCP_CONGESTION
                | net::TCP_USER_TIMEOUT
        ),
        // Streams tell nothing of single packets.
        _ => true,
    }
}

/// The option as the host's socket gets it; `None` for what only the libOS has to do with.
fn for_host(option: (u32, u32), value: &[u8]) -> Option<((u32, u32), &[u8])> {
    let (level, name) = option;
    if level != net::SOL_SOCKET {
        return Some((option, value));
    }
    match name {
        // Who waits is in the guest.
        net::SO_RCVTIMEO
        | net::SO_RCVTIMEO_NEW
        | net::SO_SNDTIMEO
        | net::SO_SNDTIMEO_NEW
        | net::SO_PASSCRED
        | net::SO_PEEK_OFF
        | net::SO_DEBUG
        | net::SO_BSDCOMPAT => None,
        net::SO_SNDBUFFORCE => Some(((level, net::SO_SNDBUF), value)),
        net::SO_RCVBUFFORCE => Some(((level, net::SO_RCVBUF), value)),
        // The VMM must not wait in close(2): only an end without delay is the host's.
        net::SO_LINGER => {
            let is_zero = |at: usize| value.get(at..at + 4) == Some(&[0; 4]);
            (is_zero(0) || is_zero(4)).then_some((option, value))
        }
        _ => Some((option, value)),
    }
}

impl Outside {
    /// The host's side that is `socket`.
    #[must_use]
    pub fn of(socket: Arc<HostSocket>) -> Self {
        Self {
            socket: SpinLock::new(Some(socket)),
            ..Self::default()
        }
    }

    /// The host's side of a datagram socket, not made yet.
    #[must_use]
    pub fn of_datagrams() -> Self {
        Self {
            of_datagrams: true,
            ..Self::default()
        }
    }

    /// The host's side that is `socket`, which others outside may share: if data come `directly`, none are on this side that no
    /// program has asked for.
    #[must_use]
    pub fn shared(socket: Arc<HostSocket>, directly: bool) -> Self {
        Self {
            is_unbuffered: directly.into(),
            ..Self::of(socket)
        }
    }

    /// The host's side of a connection that came in at this one.
    #[must_use]
    pub fn accepted(&self, socket: Arc<HostSocket>) -> Self {
        Self {
            is_unbuffered: self.is_unbuffered.load(Ordering::Acquire).into(),
            ..Self::of(socket)
        }
    }

    /// A stream is connected, or about to be; or datagrams may come: they may be on this side, if no option is against it.
    pub fn buffer(&self) {
        if let Some(socket) = self.get() {
            socket.set_buffered(!self.is_unbuffered.load(Ordering::Acquire));
        }
    }

    /// An option is about to be set.
    fn consider(&self, option: (u32, u32)) {
        let may_buffer = if self.of_datagrams {
            may_buffer_datagrams(option)
        } else {
            may_buffer(option)
        };
        if !may_buffer
            && !self.is_unbuffered.swap(true, Ordering::AcqRel)
            && let Some(socket) = self.get()
        {
            socket.set_buffered(false);
        }
    }

    /// The host's socket, if there is one.
    #[must_use]
    pub fn get(&self) -> Option<Arc<HostSocket>> {
        self.socket.lock().clone()
    }

    /// The host's socket, made now if there is none.
    ///
    /// # Errors
    /// As [`HostSocket::new`].
    pub fn open(&self, base: &Base) -> Result<Arc<HostSocket>> {
        if let Some(socket) = self.get() {
            return Ok(socket);
        }
        let socket = HostSocket::new(base)?;
        let settings = self.settings.lock().clone();
        for (option, value) in &settings {
            // What could not be set would have been told when the program set it, had there been a socket.
            let _ = socket.set_option(*option, value);
        }
        let mut place = self.socket.lock();
        let kept = place.get_or_insert_with(|| socket.clone()).clone();
        drop(place);
        Ok(kept)
    }

    /// The program has set an option, which the libOS knows, too.
    ///
    /// # Errors
    /// The host's, for levels other than `SOL_SOCKET`.
    pub fn mirror(&self, option: (u32, u32), value: &[u8]) -> Result<()> {
        self.consider(option);
        let Some((option, value)) = for_host(option, value) else {
            return Ok(());
        };
        if let Some(socket) = self.get() {
            let result = socket.set_option(option, value);
            if option.0 != net::SOL_SOCKET {
                result?;
            }
        }
        let mut settings = self.settings.lock();
        settings.retain(|(other, _)| *other != option);
        settings.push((option, value.to_vec()));
        Ok(())
    }

    /// Sets an option that the libOS does not know.
    ///
    /// # Errors
    /// `ENOPROTOOPT` if nothing leads out; the host's.
    pub fn set_unknown(&self, base: &Base, option: (u32, u32), value: &[u8]) -> Result<()> {
        if !base.kernel.net.host.is_available() {
            return Err(Errno::ENOPROTOOPT);
        }
        self.consider(option);
        self.open(base)?.set_option(option, value)?;
        // All of them: several groups may be joined.
        self.settings.lock().push((option, value.to_vec()));
        Ok(())
    }

    /// The value of an option that the libOS does not know.
    ///
    /// # Errors
    /// As [`Outside::set_unknown`].
    pub fn unknown(&self, base: &Base, option: (u32, u32), room: usize) -> Result<Vec<u8>> {
        if !base.kernel.net.host.is_available() {
            return Err(Errno::ENOPROTOOPT);
        }
        self.open(base)?.option(option, room)
    }

    /// The next event of the host's side is wanted (`O_ASYNC`). Does not sleep.
    pub fn want_events(&self) {
        if let Some(socket) = self.get() {
            let _ = socket.ready();
        }
    }

    /// Takes the pending error of the host's side.
    #[must_use]
    pub fn take_error(&self) -> Option<Errno> {
        self.get()?.take_error()
    }

    /// Lets go of it, which closes it unless a call is under way.
    pub fn close(&self) {
        let socket = self.socket.lock().take();
        drop(socket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_gets() {
        let option = |name| (net::SOL_SOCKET, name);
        assert_eq!(for_host(option(net::SO_RCVTIMEO), &[0; 16]), None);
        let linger = |on: i32, seconds: i32| {
            let value = [on.to_ne_bytes(), seconds.to_ne_bytes()].concat();
            for_host(option(net::SO_LINGER), &value).is_some()
        };
        assert!(linger(0, 5) && linger(1, 0) && !linger(1, 5));
        let value = [1; 4];
        assert_eq!(
            for_host(option(net::SO_SNDBUFFORCE), &value),
            Some((option(net::SO_SNDBUF), &value[..]))
        );
        assert!(for_host((net::SOL_TCP, 1), &value).is_some());
    }
}
