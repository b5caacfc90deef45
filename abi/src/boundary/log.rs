//! The libOS's log: a byte ring the guest writes and the VMM reads, for `--debug` and for last words.

use core::sync::atomic::AtomicU64;

/// Bytes of text the ring holds; a power of two. Older text is overwritten.
pub const LOG_BYTES: usize = 64 << 10;

/// Header of the log ring; [`LOG_BYTES`] of UTF-8 text, lines ended by `\n`, follow it.
#[repr(C)]
#[derive(Debug)]
pub struct LogRing {
    /// Bytes ever written; the next byte goes to `written % LOG_BYTES`.
    pub written: AtomicU64,
}
super::assert_size!(LogRing, 8);

/// The libOS's rooms, each with a log threshold of its own; the names stand in the lines.
pub const ROOMS: [&str; 13] = [
    "boot",
    "fs",
    "futex",
    "host",
    "mm",
    "panic",
    "process",
    "sched",
    "signal",
    "syscall",
    "time",
    "trace",
    "translate",
];

/// Index of `name` in [`ROOMS`].
#[must_use]
pub const fn room(name: &str) -> Option<usize> {
    let mut index = 0;
    while index < ROOMS.len() {
        if is_same(ROOMS[index].as_bytes(), name.as_bytes()) {
            return Some(index);
        }
        index += 1;
    }
    None
}

/// `==` of byte strings, for constants.
const fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::{ROOMS, room};

    #[test]
    fn rooms_by_name() {
        for (index, name) in ROOMS.iter().enumerate() {
            assert_eq!(room(name), Some(index));
        }
        assert_eq!(room("m"), None);
        assert_eq!(room("mmm"), None);
    }
}
