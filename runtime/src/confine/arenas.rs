//! The allocator's arenas.
#![allow(unsafe_code, reason = "mallopt(3)")]

/// As many as threads that allocate at the same time, more or less.
const ARENAS: i32 = 4;

/// Bounds how many arenas there are. Without a bound glibc makes one for each thread until there are more than eight, and then
/// opens a file to see how many CPUs there are, which few threads of a confined process may.
pub fn bound() {
    // SAFETY: it changes a number of the allocator, under the allocator's own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}
