//! Counters of what costs switches between guest and KVM, for `--stats`.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

pub use husk_abi::boundary::stats::MemoryEvent as Event;

static COUNTS: [AtomicU64; Event::ALL.len()] = [const { AtomicU64::new(0) }; Event::ALL.len()];

/// Counts one.
pub(super) fn count(event: Event) {
    add(event, 1);
}

/// Counts `many`.
pub(super) fn add(event: Event, many: u64) {
    COUNTS[event as usize].fetch_add(many, Ordering::Relaxed);
}

/// What has happened so far, and how often.
#[must_use]
pub fn report() -> Vec<(Event, u64)> {
    Event::ALL
        .into_iter()
        .map(|event| (event, COUNTS[event as usize].load(Ordering::Relaxed)))
        .filter(|(_, count)| *count > 0)
        .collect()
}
