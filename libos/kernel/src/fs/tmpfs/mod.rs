//! tmpfs: files in RAM (`tmpfs(5)`).
//!
//! | module | what |
//! | --- | --- |
//! | `node` | a file of any kind: attributes and the [`Inode`] operations |
//! | `directory` | names in stable order |
//! | `rename` | moving names |
//! | `data` | contents of a regular file: pages in RAM over an archive's bytes |
//! | `file` | an open regular file |
//!
//! It also is the container's root: [`Tmpfs::add_archived`] makes files whose bytes stay in the archive until
//! they are written.
//!
//! Locks: a directory's names, then a node's attributes; a file's pages alone. Whoever takes two directories'
//! locks holds the VFS's tree lock.

mod data;
mod directory;
mod file;
mod node;
mod rename;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use husk_abi::boundary::boot::GuestRange;
use husk_abi::linux::general;

use super::{Create, FileSystem, FsStatistics, Inode};
use crate::{Errno, Kernel, Result};

pub use node::Node;

const PAGE: u64 = 4096;

/// Limits and looks of a tmpfs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Most bytes of contents; 0 for no limit but memory.
    pub size_bytes: u64,
    /// Most files; 0 for no limit.
    pub files: u64,
    /// The size is not one that was asked for, so that it is not shown.
    pub default_size: bool,
    /// Nothing can be changed, through any mount.
    pub read_only: bool,
    /// Report directories with the size and blocks a disk file system gives them, not tmpfs's: for the root,
    /// which stands for the image's file system.
    pub like_disk: bool,
}

/// What all nodes of a tmpfs share.
#[derive(Debug)]
struct Shared {
    kernel: &'static Kernel,
    dev: u64,
    options: Options,
    used_pages: AtomicU64,
    used_files: AtomicU64,
    next_ino: AtomicU64,
}

impl Shared {
    /// Accounts for one page of contents.
    fn charge_page(&self) -> Result<()> {
        let limit = self.options.size_bytes.div_ceil(PAGE);
        if self.used_pages.fetch_add(1, Ordering::Relaxed) >= limit && limit != 0 {
            self.uncharge_pages(1);
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    fn uncharge_pages(&self, count: u64) {
        self.used_pages.fetch_sub(count, Ordering::Relaxed);
    }

    /// Accounts for a new file and gives it a number.
    fn charge_file(&self) -> Result<u64> {
        let limit = self.options.files;
        if self.used_files.fetch_add(1, Ordering::Relaxed) >= limit && limit != 0 {
            self.used_files.fetch_sub(1, Ordering::Relaxed);
            return Err(Errno::ENOSPC);
        }
        Ok(self.next_ino.fetch_add(1, Ordering::Relaxed))
    }
}

/// Nanoseconds of `CLOCK_REALTIME`.
fn now_ns() -> i64 {
    let monotonic = i64::try_from(husk_hal::clock::now_ns()).unwrap_or(i64::MAX);
    monotonic.saturating_add(husk_hal::clock::wall_offset_ns())
}

/// A tmpfs.
#[derive(Debug)]
pub struct Tmpfs {
    shared: Arc<Shared>,
    root: Arc<Node>,
}

impl Tmpfs {
    /// An empty file system whose root directory has `mode`, `uid` and `gid`.
    #[must_use]
    pub fn new(
        kernel: &'static Kernel,
        options: Options,
        mode: u32,
        uid: u32,
        gid: u32,
    ) -> Arc<Self> {
        let shared = Arc::new(Shared {
            kernel,
            dev: kernel.fs.new_device(),
            options,
            used_pages: AtomicU64::new(0),
            used_files: AtomicU64::new(1),
            next_ino: AtomicU64::new(2),
        });
        let root = Node::new_root(&shared, mode, uid, gid);
        Arc::new(Self { shared, root })
    }

    /// The root directory.
    #[must_use]
    pub fn root_node(&self) -> &Arc<Node> {
        &self.root
    }

    /// A regular file without a name (`memfd_create(2)`, shared anonymous memory).
    ///
    /// # Errors
    /// `ENOSPC`.
    pub fn unnamed(&self, what: &Create<'_>) -> Result<Arc<Node>> {
        Node::unnamed(&self.shared, what)
    }
}

impl FileSystem for Tmpfs {
    fn kind(&self) -> &'static str {
        "tmpfs"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statistics(&self) -> FsStatistics {
        let options = &self.shared.options;
        let used = self.shared.used_pages.load(Ordering::Relaxed);
        let files = self.shared.used_files.load(Ordering::Relaxed);
        // Without a limit the container's memory is the limit.
        let bytes = match options.size_bytes {
            0 => self.shared.kernel.frames.usage().limit_bytes,
            limit => limit,
        };
        let blocks = bytes / PAGE;
        FsStatistics {
            magic: general::TMPFS_MAGIC,
            block_size: PAGE as u32,
            blocks,
            blocks_free: blocks.saturating_sub(used),
            blocks_available: blocks.saturating_sub(used),
            files: if options.files == 0 {
                blocks
            } else {
                options.files
            },
            files_free: match options.files {
                0 => blocks.saturating_sub(files),
                limit => limit.saturating_sub(files),
            },
        }
    }

    fn is_read_only(&self) -> bool {
        self.shared.options.read_only
    }

    fn options(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let options = &self.shared.options;
        if options.size_bytes != 0 && !options.default_size {
            let size = alloc::format!(",size={}k", options.size_bytes >> 10);
            text.extend_from_slice(size.as_bytes());
        }
        if options.files != 0 {
            let files = alloc::format!(",nr_inodes={}", options.files);
            text.extend_from_slice(files.as_bytes());
        }
        // What tmpfs(5) calls the defaults is not shown.
        let root = self.root.attributes();
        if root.mode != 0o1777 {
            text.extend_from_slice(alloc::format!(",mode={:03o}", root.mode).as_bytes());
        }
        if root.uid != 0 {
            text.extend_from_slice(alloc::format!(",uid={}", root.uid).as_bytes());
        }
        if root.gid != 0 {
            text.extend_from_slice(alloc::format!(",gid={}", root.gid).as_bytes());
        }
        text
    }
}

/// Where an archive keeps a file's bytes.
pub type ArchiveRange = GuestRange;
