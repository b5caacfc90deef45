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
