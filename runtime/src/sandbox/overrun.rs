//! The end of a container whose first process was killed because its memory ran out.
//!
//! The guest's kernel killed it; the host's cgroup, which has room for the VMM above the container's limit, never came to
//! its own limit. Engines that know of control groups only (runc's shim, conmon) would not call that out of memory. So the VMM,
//! which has nothing left to do, comes to the limit: the host's kernel kills it, and tells whoever listens. Its
//! status is the same: 137.

use std::hint::black_box;

/// Taken at a time.
const PIECE: usize = 4 << 20;
/// At most. What the guest has used is still held, so that little is missing.
const MOST: u64 = 1 << 30;

/// Uses memory until the host's kernel ends this process, or `limit` bytes, the cgroup's limit, are used without that:
/// what is missing then was swapped out, or given back before.
pub fn until_killed(limit: u64) {
    let mut held: Vec<Vec<u8>> = Vec::new();
    let mut used = 0;
    while used < limit.min(MOST) {
        let mut piece = Vec::new();
        if piece.try_reserve_exact(PIECE).is_err() {
            return;
        }
        // Touched, so that it counts.
        piece.resize(PIECE, 1);
        held.push(black_box(piece));
        used += PIECE as u64;
    }
}
