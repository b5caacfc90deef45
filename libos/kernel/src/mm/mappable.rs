//! What a mapping shows: the file side's contract with the memory side.

use husk_hal::phys::Frame;

use crate::Result;
use crate::translate::TextImage;

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

    /// Patched copies of its code pages, if the file can be executed; one per file, whoever maps it.
    fn text(&self) -> Option<&TextImage>;
}
