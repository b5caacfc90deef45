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

pub mod anon;
pub mod attr;
pub mod context;
pub mod cpio;
pub mod create;
pub mod deadline;
pub mod devfs;
pub mod dir;
pub mod dirfile;
pub mod epoll;
pub mod eventfd;
pub mod fdops;
pub mod fdtable;
pub mod file;
pub mod filesystem;
pub mod init;
pub mod inode;
mod internal;
pub mod link;
pub mod locks;
pub mod memfd;
pub mod mount;
pub mod open;
pub mod path;
pub mod permission;
pub mod pipe;
pub mod poll;
pub mod poll_calls;
pub mod procfs;
pub mod random;
pub mod rw;
pub mod seals;
pub mod select;
mod sigmask;
pub mod stat;
pub mod stdio;
pub mod terminal;
pub mod timerfd;
pub mod tmpfs;
pub mod vfs;

pub use context::FsContext;
pub use dirfile::DirFile;
pub use fdtable::FdTable;
pub use file::{File, FileOps};
pub use filesystem::{FileSystem, FsStatistics};
pub use init::{enter_directory, mount_initial, open_streams};
pub use inode::{Attributes, Create, DirEntry, FileKind, Inode, SetAttributes};
pub use mount::{Location, Mount};
pub use open::{open_for_exec, open_path};
pub use path::{Lookup, lookup_at};
pub use poll::PollEvents;
pub use vfs::Vfs;

#[cfg(test)]
mod special_tests;
