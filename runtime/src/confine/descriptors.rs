//! Descriptors: a VMM starts with those it was handed.
#![allow(unsafe_code, reason = "close_range(2)")]

use std::io;
use std::os::fd::RawFd;

/// The gaps between 3 and the end that `kept` leaves, as first and last number.
fn gaps(kept: &[RawFd]) -> Vec<(u32, u32)> {
    let mut kept: Vec<u32> = kept
        .iter()
        .filter_map(|fd| u32::try_from(*fd).ok())
        .collect();
    kept.sort_unstable();
    let mut gaps = Vec::new();
    let mut next = 3;
    for fd in kept {
        if fd > next {
            gaps.push((next, fd - 1));
        }
        next = next.max(fd + 1);
    }
    gaps.push((next, u32::MAX));
    gaps
}

/// Closes every descriptor from 3 on that is not in `kept`. Only for a process that has opened none itself yet.
///
/// # Errors
/// What `close_range(2)` gives.
pub fn close_all_but(kept: &[RawFd]) -> io::Result<()> {
    for (first, last) in gaps(kept) {
        // SAFETY: no Rust object owns any of these: they were inherited, and the caller names all that are used.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::gaps;

    #[test]
    fn gaps_between() {
        assert_eq!(gaps(&[]), [(3, u32::MAX)]);
        assert_eq!(gaps(&[5, 3, 9, 4]), [(6, 8), (10, u32::MAX)]);
        assert_eq!(gaps(&[7, 7, 1]), [(3, 6), (8, u32::MAX)]);
    }
}
