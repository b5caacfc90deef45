//! Who refers to the window of host files.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, Ordering};

use husk_hal::phys::Frame;

use super::frames::LARGE_FRAMES;

/// References to the frames of the window, counted by chunk: pages of one chunk come and go together.
#[derive(Debug)]
pub struct WindowCounts {
    first: u64,
    chunks: Box<[AtomicU32]>,
}

/// The count of a chunk that is being given to another file.
const CLAIMED: u32 = u32::MAX;

/// Changes a count to what `change` gives, if anything; whether it did. Every read through the window comes here twice: one vCPU
/// needs no locked instruction for it.
#[inline]
fn update(count: &AtomicU32, change: impl Fn(u32) -> Option<u32>) -> bool {
    if husk_hal::lock::several_cpus() {
        return count
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change)
            .is_ok();
    }
    let new = change(count.load(Ordering::Relaxed));
    if let Some(new) = new {
        count.store(new, Ordering::Relaxed);
    }
    new.is_some()
}

impl WindowCounts {
    /// No references to `chunks` times 2 MiB from `first` on.
    pub(super) fn new(first: Frame, chunks: usize) -> Self {
        Self {
            first: first.number(),
            chunks: (0..chunks).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    pub(super) fn chunk(&self, frame: Frame) -> Option<&AtomicU32> {
        let index = frame.number().checked_sub(self.first)? / LARGE_FRAMES;
        self.chunks.get(usize::try_from(index).ok()?)
    }

    /// One more reference to a chunk, unless it is being given away.
    #[must_use]
    pub fn pin(&self, chunk: usize) -> bool {
        let more = |count| (count != CLAIMED).then_some(count + 1);
        update(&self.chunks[chunk], more)
    }

    /// One reference less.
    pub fn unpin(&self, chunk: usize) {
        update(&self.chunks[chunk], |count| Some(count - 1));
    }

    /// Takes a chunk nobody refers to; it stays so until [`WindowCounts::release`].
    #[must_use]
    pub fn claim(&self, chunk: usize) -> bool {
        self.chunks[chunk]
            .compare_exchange(0, CLAIMED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// A claimed chunk may be referred to again; it has `count` references.
    pub fn release(&self, chunk: usize, count: u32) {
        self.chunks[chunk].store(count, Ordering::Release);
    }
}
