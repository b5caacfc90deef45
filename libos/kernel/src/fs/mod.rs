//! Files: the VFS and what is mounted in it.
//!
//! | module | what |
//! | --- | --- |
//! | `inode` | what a file system offers: the [`Inode`] trait and attributes |
//! | `file` | what `open` makes: [`File`] over [`FileOps`] |
//! | `poll` | readiness: [`PollEvents`], registering a waiter |
//!
//! Paths are byte strings. Names are looked up under an inode's own lock; a handler never holds two inode
//! locks except in rename and link, which order them (see `Inode::rename`).

pub mod file;
pub mod inode;
pub mod poll;

pub use file::{File, FileOps};
pub use inode::{Attributes, Create, DirEntry, FileKind, Inode, SetAttributes};
pub use poll::PollEvents;

use husk_abi::boundary::boot::GuestRange;

/// Mounts.
#[derive(Debug)]
pub struct Vfs;

impl Vfs {
    /// Nothing mounted yet.
    #[must_use]
    pub fn new(_root_archive: GuestRange) -> Self {
        Self
    }
}

/// Descriptors.
#[derive(Debug)]
pub struct FdTable;

/// Working directory, root, umask.
#[derive(Debug)]
pub struct FsContext;
