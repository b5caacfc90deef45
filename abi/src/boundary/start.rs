//! What the libOS tells about starting the container's first process.
//!
//! It lies in the page of [`super::events::HostEvents`], [`OFFSET`] bytes in. The guest writes it, once;
//! the VMM reads it when the machine ends.

use core::sync::atomic::AtomicU64;

/// Offset of [`StartReport`] in the host-events page.
pub const OFFSET: u64 = 64;

/// How the first process started. All 0 when it has not yet.
#[repr(C)]
#[derive(Debug)]
pub struct StartReport {
    /// Positive errno of the first `execve`, or 0. When it is set the libOS shuts down next; the wait
    /// status it gives then means nothing.
    pub exec_errno: AtomicU64,
    /// kvmclock when the first process was about to run, in nanoseconds, or 0.
    pub started_ns: AtomicU64,
}
super::assert_size!(StartReport, 16);
