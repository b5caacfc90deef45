//! Epoll instances that watch epoll instances: no loops, and no long chains, because a wake-up recurses.

use super::{Epoll, of_file};
use crate::fs::FileRef;
use crate::sync::Mutex;
use crate::{Errno, Result};

/// Links of a chain (`EP_MAX_NESTS` allows four).
const MAX_DEPTH: usize = 4;

/// Held while an instance is added to another: two threads adding each to the other must not both pass.
pub(super) static NESTING: Mutex<()> = Mutex::new(());

/// Whether `outer` may watch the instance `inner`. To be called with [`NESTING`] held.
///
/// # Errors
/// `ELOOP` if that would close a loop or make too long a chain.
pub(super) fn check(outer: &Epoll, inner: &FileRef) -> Result<()> {
    if depth_below(outer, inner, 1)? + depth_above(outer) > MAX_DEPTH {
        return Err(Errno::ELOOP);
    }
    Ok(())
}

/// Length of the longest chain down from `file`, itself included.
fn depth_below(outer: &Epoll, file: &FileRef, depth: usize) -> Result<usize> {
    let Some(epoll) = of_file(file) else {
        return Ok(0);
    };
    if core::ptr::eq(epoll, outer) || depth > MAX_DEPTH {
        return Err(Errno::ELOOP);
    }
    let mut longest = 0;
    for watched in epoll.watched() {
        longest = longest.max(depth_below(outer, &watched, depth + 1)?);
    }
    Ok(longest + 1)
}

/// Length of the longest chain of instances that watch `epoll`.
fn depth_above(epoll: &Epoll) -> usize {
    epoll
        .watchers
        .lock()
        .iter()
        .filter_map(alloc::sync::Weak::upgrade)
        .map(|outer| 1 + depth_above(&outer))
        .max()
        .unwrap_or(0)
}
