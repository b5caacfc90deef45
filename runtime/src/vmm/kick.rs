//! Getting a vCPU's attention from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::raw;

#[derive(Debug)]
struct Shared {
    event: EventFd,
    /// The vCPU sleeps on `event` instead of running.
    idle: AtomicBool,
    /// Somebody kicked since the vCPU last looked.
    pending: AtomicBool,
    tid: AtomicI32,
}

/// Interrupts a vCPU, or wakes it from idling.
#[derive(Clone, Debug)]
pub struct Kicker(Arc<Shared>);

impl Kicker {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            event: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
            idle: AtomicBool::new(false),
            pending: AtomicBool::new(false),
            tid: AtomicI32::new(0),
        })))
    }

    /// Makes the vCPU look at the boundary's queues and timers.
    pub fn kick(&self) {
        let shared = &*self.0;
        shared.pending.store(true, Ordering::SeqCst);
        if shared.idle.load(Ordering::SeqCst) {
            let _ = shared.event.write(1);
        } else {
            let tid = shared.tid.load(Ordering::SeqCst);
            if tid != 0 {
                raw::kick_thread(tid);
            }
        }
    }

    /// As [`Kicker::kick`] if the vCPU idles; false, and nothing is done, if it runs.
    pub fn wake(&self) -> bool {
        let is_idle = self.0.idle.load(Ordering::SeqCst);
        if is_idle {
            self.kick();
        }
        is_idle
    }

    pub(super) fn attach_this_thread(&self) {
        self.0.tid.store(raw::thread_id(), Ordering::SeqCst);
    }

    /// Whether there was a kick since the last call.
    pub(super) fn take(&self) -> bool {
        self.0.pending.swap(false, Ordering::SeqCst)
    }

    /// Sleeps until a kick, until `also` has something, or for `timeout`; for the vCPU's own thread. True if `also` has.
    pub(super) fn sleep(&self, timeout: Option<Duration>, also: Option<&Also<'_>>) -> bool {
        let shared = &*self.0;
        let mut has_news = false;
        shared.idle.store(true, Ordering::SeqCst);
        if !shared.pending.load(Ordering::SeqCst) {
            has_news = match also {
                Some(also) => self.sleep_on_both(timeout, also),
                None => {
                    let mut fds = [PollFd::new(shared.event.as_fd(), PollFlags::POLLIN)];
                    let _ = ppoll(&mut fds, timeout.map(Into::into), None);
                    false
                }
            };
        }
        shared.idle.store(false, Ordering::SeqCst);
        shared.pending.store(false, Ordering::SeqCst);
        let _ = shared.event.read();
        has_news
    }

    fn sleep_on_both(&self, timeout: Option<Duration>, also: &Also<'_>) -> bool {
        let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        let looks = timeout.map_or(also.look, |timeout| timeout.min(also.look));
        let begun = Instant::now();
        while !looks.is_zero() && begun.elapsed() < looks {
            let mut fds = [PollFd::new(also.fd, PollFlags::POLLIN)];
            let _ = ppoll(&mut fds, Some(Duration::ZERO.into()), None);
            if is_ready(&fds[0]) {
                return true;
            }
            if self.0.pending.load(Ordering::SeqCst) {
                return false;
            }
        }
        let timeout = timeout.map(|timeout| timeout.saturating_sub(looks));
        let mut fds = [self.0.event.as_fd(), also.fd].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let _ = ppoll(&mut fds, timeout.map(Into::into), None);
        is_ready(&fds[1])
    }
}

/// What a vCPU that sleeps is woken by beside kicks.
#[derive(Clone, Copy, Debug)]
pub struct Also<'a> {
    /// When this is readable.
    pub fd: BorrowedFd<'a>,
    /// So long it looks again and again, before it sleeps.
    pub look: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps_on_both() {
        let kicker = Kicker::new().unwrap();
        let other = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
        for look in [Duration::ZERO, Duration::from_micros(50)] {
            let also = Also {
                fd: other.as_fd(),
                look,
            };
            assert!(!kicker.sleep(Some(Duration::from_micros(100)), Some(&also)));
            kicker.kick();
            assert!(!kicker.sleep(None, Some(&also)));
            other.write(1).unwrap();
            assert!(kicker.sleep(None, Some(&also)));
            let _ = other.read();
        }
    }
}
