//! The timer of a vCPU.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::Kicker;
use super::raw::SignalTimer;
use crate::confine::{self, rules::Role};

/// Kicks a vCPU once after a time.
#[derive(Debug)]
pub enum KickTimer {
    /// Without help of other threads.
    Signal(SignalTimer),
    /// A thread waits for it. Later than a signal, but it needs nothing that `RLIMIT_SIGPENDING` counts: that is shared with
    /// all processes of the user, who could else keep containers from starting.
    Watched(Arc<TimerFd>),
}

impl KickTimer {
    /// A disarmed timer for the vCPU of `kicker`, which will run on the calling thread.
    ///
    /// # Errors
    /// When the host has no timer, no descriptor or no thread left.
    pub fn new(kicker: &Kicker) -> io::Result<Self> {
        match SignalTimer::new() {
            Ok(timer) => Ok(Self::Signal(timer)),
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                tracing::debug!("no timer that signals ({error}): a thread waits for the vCPU's");
                Self::watched(kicker.clone())
            }
            Err(error) => Err(error),
        }
    }

    fn watched(kicker: Kicker) -> io::Result<Self> {
        let timer = Arc::new(TimerFd::new(
            ClockId::CLOCK_MONOTONIC,
            TimerFlags::TFD_CLOEXEC,
        )?);
        let watched = timer.clone();
        std::thread::Builder::new()
            .name("timer".to_owned())
            .spawn(move || {
                confine::enter_thread(Role::Clock);
                loop {
                    match watched.wait() {
                        Ok(()) => kicker.kick(),
                        Err(Errno::EINTR) => {}
                        Err(error) => {
                            tracing::error!("the vCPU's timer failed: {error}");
                            return;
                        }
                    }
                }
            })?;
        Ok(Self::Watched(timer))
    }

    /// Fires once after `after` (at least a nanosecond), instead of when it was to fire before.
    pub fn arm(&self, after: Duration) {
        let after = after.max(Duration::from_nanos(1));
        match self {
            Self::Signal(timer) => timer.arm(after),
            Self::Watched(timer) => {
                let once = Expiration::OneShot(after.into());
                if let Err(error) = timer.set(once, TimerSetTimeFlags::empty()) {
                    tracing::error!("cannot arm the vCPU's timer: {error}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watched_timer_kicks() {
        let kicker = Kicker::new().unwrap();
        let timer = KickTimer::watched(kicker.clone()).unwrap();
        timer.arm(Duration::ZERO);
        kicker.sleep(None, None);
        timer.arm(Duration::from_millis(1));
        kicker.sleep(None, None);
    }
}
