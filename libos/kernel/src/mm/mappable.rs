//! What a mapping shows: the file side's contract with the memory side.

use core::ops::Range;

use crate::translate::TextImage;
use crate::{Errno, Result};
use husk_hal::phys::Frame;

/// Contents that can be mapped. Implemented by file systems; the object owns its frames.
pub trait Mappable: Send + Sync + core::fmt::Debug {
    /// The frame that holds page `index` (4 KiB units), read in or made if need be. The frame's reference
    /// count was raised for the caller (no-op for read-only memory outside RAM), who lowers it when the page
    /// is unmapped. Private mappings map it read-only and copy on write; shared writable ones write to it.
    ///
    /// # Errors
    /// `ENXIO` past the end of the file (`SIGBUS` for the process), `ENOMEM`.
    fn page(&self, index: u64, shared_write: bool) -> Result<Frame>;

    /// Size in bytes.
    fn size_bytes(&self) -> u64;

    /// Device and inode number, for `/proc/*/maps`.
    fn identity(&self) -> (u64, u64);

    /// Changes whenever pages are taken out or replaced, before [`super::rmap::unmap_object`] tells the address spaces.
    fn version(&self) -> u64 {
        0
    }

    /// Makes the bytes `range` read as zeros and frees their memory (`MADV_REMOVE`).
    ///
    /// # Errors
    /// `EOPNOTSUPP`, or as `fallocate(2)`.
    fn remove(&self, _range: Range<u64>) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Whether its seals forbid shared mappings to write (`F_SEAL_WRITE`, `F_SEAL_FUTURE_WRITE`).
    fn is_sealed(&self) -> bool {
        false
    }

    /// Patched copies of its code pages, if the file can be executed; one per file, whoever maps it.
    fn text(&self) -> Option<&TextImage>;
}
