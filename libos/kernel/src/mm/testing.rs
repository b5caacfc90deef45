//! Physical memory for host-side tests: one arena, of which each test gets its own part.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Frames;

const ARENA_BYTES: usize = 6 << 30;
const LARGE: u64 = 2 << 20;

static NEXT: AtomicU64 = AtomicU64::new(LARGE);
static READY: Mutex<bool> = Mutex::new(false);

/// Frames over `mib` MiB of zeroed memory of their own. Anything that calls `husk_hal::phys` in a test needs
/// to have called this or [`arena`] first.
pub fn frames(mib: u64) -> &'static Frames {
    let range = arena(mib);
    let bytes = range.end - range.start;
    Box::leak(Box::new(Frames::new(range.start, range.end, bytes)))
}

/// `mib` MiB of zeroed physical memory of a test's own.
pub fn arena(mib: u64) -> core::ops::Range<u64> {
    let mut ready = READY.lock().expect("no test panics here");
    if !*ready {
        husk_hal::phys::init_arena(ARENA_BYTES);
        *ready = true;
    }
    drop(ready);
    let bytes = mib << 20;
    let at = NEXT.fetch_add(bytes.next_multiple_of(LARGE), Ordering::Relaxed);
    assert!(at + bytes <= ARENA_BYTES as u64, "the test arena is full");
    at..at + bytes
}
