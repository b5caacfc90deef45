//! A mounted file system as a whole.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Inode;
use crate::Result;

/// What `statfs(2)` says of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "statfs(2)'s terms")]
pub struct FsStatistics {
    /// `f_type`: the magic number of the kind.
    pub magic: u32,
    pub block_size: u32,
    pub blocks: u64,
    pub blocks_free: u64,
    /// Of these, what others than root may use.
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
}

/// A file system that can be mounted.
pub trait FileSystem: Send + Sync + core::fmt::Debug {
    /// Name of its kind, as `/proc/mounts` shows it.
    fn kind(&self) -> &'static str;

    /// Its root directory.
    fn root(&self) -> Arc<dyn Inode>;

    /// Size and use.
    fn statistics(&self) -> FsStatistics;

    /// Whether nothing in it can be changed through any mount.
    fn is_read_only(&self) -> bool {
        false
    }

    /// Makes everything that was written safe (`sync(2)`).
    ///
    /// # Errors
    /// `EIO`, `ENOSPC`: what writing back gave.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// Others may have changed it: what is known of it is asked for again. Does not sleep.
    fn distrust(&self) {}

    /// Options of its own as `/proc/mounts` shows them, each with a leading comma (`,size=65536k`).
    fn options(&self) -> Vec<u8> {
        Vec::new()
    }
}
