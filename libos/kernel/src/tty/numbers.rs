//! Numbers of terminals.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use spin::Once;

use crate::fs::devpts::Devpts;
use crate::sync::SpinLock;
use crate::{Errno, Kernel, Result};

/// Pseudo-terminals there may be (`/proc/sys/kernel/pty/max`).
pub const MAX: u32 = 4096;
/// How many of them are not for containers (`/proc/sys/kernel/pty/reserve`).
pub const RESERVED: u32 = 1024;

/// What all instances of devpts share.
#[derive(Debug, Default)]
pub struct Numbers {
    /// Where terminals of the host are, and what a `/dev/ptmx` outside of any devpts opens.
    first: Once<Arc<Devpts>>,
    /// Held while a number of the first is chosen.
    choosing: SpinLock<()>,
    count: AtomicU32,
}

impl Numbers {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The first devpts; `None` without one.
    #[must_use]
    pub fn first(&self) -> Option<Arc<Devpts>> {
        self.first.get().cloned()
    }

    /// There is a devpts; the first stays it.
    pub fn add(&self, devpts: &Arc<Devpts>) {
        self.first.call_once(|| devpts.clone());
    }

    /// Pseudo-terminals there are (`/proc/sys/kernel/pty/nr`).
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Chooses the lowest number below `max` of `devpts` that is free for one more pseudo-terminal, as `take` says by taking it.
    ///
    /// # Errors
    /// `ENOSPC` if there are too many.
    pub(crate) fn choose(
        &self,
        kernel: &Kernel,
        devpts: &Devpts,
        max: u32,
        take: impl Fn(u32) -> bool,
    ) -> Result<u32> {
        let _choosing = self.choosing.lock();
        let below_limit = |count| (count < MAX - RESERVED).then_some(count + 1);
        self.count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, below_limit)
            .map_err(|_| Errno::ENOSPC)?;
        let is_first = self
            .first
            .get()
            .is_some_and(|first| core::ptr::eq(&raw const **first, devpts));
        let outside = if is_first {
            kernel.host.terminal_numbers()
        } else {
            alloc::vec::Vec::new()
        };
        let number = (0..max).find(|number| !outside.contains(number) && take(*number));
        number.ok_or_else(|| {
            self.release();
            Errno::ENOSPC
        })
    }

    /// A pseudo-terminal is gone.
    pub(crate) fn release(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Chooses a number for a terminal of the host: `choose` is asked which is the lowest that is not taken here.
    pub(crate) fn choose_outside(&self, choose: impl FnOnce(&dyn Fn(u32) -> bool)) {
        let _choosing = self.choosing.lock();
        let first = self.first.get();
        choose(&|number| first.is_some_and(|first| first.has(number)));
    }
}
