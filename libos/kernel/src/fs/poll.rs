//! Readiness of files (`poll(2)`).

use alloc::sync::Arc;

use husk_abi::linux::general;

use crate::sync::{WaitQueue, Waiter};

bitflags::bitflags! {
    /// `POLL*` bits.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct PollEvents: u32 {
        /// Reading would not block.
        const IN = general::POLLIN;
        /// There is urgent data.
        const PRI = general::POLLPRI;
        /// Writing would not block.
        const OUT = general::POLLOUT;
        /// An error is pending, or a pipe's reader is gone.
        const ERR = general::POLLERR;
        /// The other end is closed.
        const HUP = general::POLLHUP;
        /// Not an open descriptor.
        const NVAL = general::POLLNVAL;
        /// As `IN`.
        const RDNORM = general::POLLRDNORM;
        /// As `OUT`.
        const WRNORM = general::POLLWRNORM;
        /// Out-of-band data may be sent; a socket says it with `OUT`.
        const WRBAND = general::POLLWRBAND;
        /// The peer will send no more.
        const RDHUP = general::POLLRDHUP;
    }
}

/// Collects the wait queues a poller has to leave again when it is done.
#[derive(Debug)]
pub struct PollTable<'a> {
    waiter: &'a Arc<Waiter>,
    registered: alloc::vec::Vec<Arc<WaitQueue>>,
}

impl<'a> PollTable<'a> {
    /// A table that registers `waiter`.
    #[must_use]
    pub fn new(waiter: &'a Arc<Waiter>) -> Self {
        Self {
            waiter,
            registered: alloc::vec::Vec::new(),
        }
    }

    /// Wakes the poller when `queue` is woken.
    pub fn register(&mut self, queue: &Arc<WaitQueue>) {
        queue.register(self.waiter);
        self.registered.push(queue.clone());
    }

    /// Ends the table but leaves its waiter registered; the caller takes it off these queues when it is done.
    #[must_use]
    pub fn keep(mut self) -> alloc::vec::Vec<Arc<WaitQueue>> {
        core::mem::take(&mut self.registered)
    }
}

impl Drop for PollTable<'_> {
    fn drop(&mut self) {
        for queue in &self.registered {
            queue.unregister(self.waiter);
        }
    }
}
