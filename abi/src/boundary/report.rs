//! What the libOS tells about its life when it ends, for `--stats`.
//!
//! It leaves a [`GuestReport`], encoded with postcard, somewhere in RAM and says where in a
//! [`ReportPlace`], [`OFFSET`] bytes into the page of [`super::events::HostEvents`], before it rings
//! `doorbell::SHUTDOWN`. The VMM reads it once the machine has ended, and believes none of it.

use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;

use serde::{Deserialize, Serialize};

use super::stats::{MemoryEvent, TranslationReport};

/// Offset of [`ReportPlace`] in the host-events page.
pub const OFFSET: u64 = 128;
/// The longest encoding the VMM looks at.
pub const MAX_BYTES: u64 = 1 << 20;

/// Where the report is. All 0 when there is none.
#[repr(C)]
#[derive(Debug)]
pub struct ReportPlace {
    /// Guest physical address.
    pub gpa: AtomicU64,
    /// Length in bytes.
    pub bytes: AtomicU64,
}
super::assert_size!(ReportPlace, 16);

/// Everything the libOS counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestReport {
    /// Syscall translation.
    pub translation: TranslationReport,
    /// Calls the libOS does not have, by number, with how often each was made.
    pub missing: Vec<(u32, u32)>,
    /// What the memory room counted; events that did not happen are left out.
    pub memory: Vec<(MemoryEvent, u64)>,
}

/// Encodes a report.
///
/// # Errors
/// Only if memory for the encoding runs out.
pub fn encode(report: &GuestReport) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_allocvec(report)
}

/// Decodes what [`encode`] made.
///
/// # Errors
/// When `bytes` is not such an encoding.
pub fn decode(bytes: &[u8]) -> Result<GuestReport, postcard::Error> {
    postcard::from_bytes(bytes)
}
