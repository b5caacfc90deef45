//! Getting a vCPU's attention from another thread.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

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

    /// Sleeps until a kick or for `timeout`; for the vCPU's own thread.
    pub(super) fn sleep(&self, timeout: Option<Duration>) {
        let shared = &*self.0;
        shared.idle.store(true, Ordering::SeqCst);
        if !shared.pending.load(Ordering::SeqCst) {
            let mut fds = [PollFd::new(shared.event.as_fd(), PollFlags::POLLIN)];
            let _ = ppoll(&mut fds, timeout.map(Into::into), None);
        }
        shared.idle.store(false, Ordering::SeqCst);
        shared.pending.store(false, Ordering::SeqCst);
        let _ = shared.event.read();
    }
}
