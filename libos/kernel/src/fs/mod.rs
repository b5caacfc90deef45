//! Files: the VFS and what is mounted in it.
//!
//! | module | what |
//! | --- | --- |
//! | `inode`, `filesystem` | what a file system offers: [`Inode`], [`FileSystem`], attributes |
//! | `file`, `dirfile`, `poll` | what `open` makes: [`File`] over [`FileOps`]; readiness |
//! | `fdtable` | descriptors |
//! | `mount`, `vfs`, `context` | the tree of mounts; a process's root, working directory and umask |
//! | `path`, `permission` | walking a path; who may do what |
//! | `create`, `open` | making and opening files, `open_for_exec` |
//! | `rw`, `stat`, `attr`, `dir`, `link`, `xattr`, `fdops`, `transfer`, `mount_calls` | system calls by theme |
//! | `locks`, `seals` | advisory locks; seals of memory files |
//! | `init`, `cpio`, `surroundings`, `copy_tree` | what a container starts with: the root from its archive, mounts, devices, masks |
//! | `tmpfs`, `fuse`, `procfs`, `devfs`, `pseudo`, `internal` | file systems |
//! | `pipe`, `eventfd`, `signalfd`, `pidfd`, `epoll`, `stdio`, `terminal`, `random`, `anon` | files that are not in a file system |
//! | `poll_calls`, `select`, `sigmask`, `deadline` | waiting for readiness |
//! | `sigio` | signals about readiness |
//!
//! Paths are byte strings. Names are looked up under an inode's own lock; only rename and rmdir hold two
//! directories' locks, under [`Vfs::tree`]. Permissions are checked by the VFS, never by an inode.
//!
//! Lock order here: [`Vfs::tree`], then a file's position, then a file's write lock, then the short locks of
//! names, attributes and pages; none of these is held while a FIFO or a terminal blocks, except the position
//! of a seekable file.

pub mod anon;
pub mod attr;
pub mod context;
mod copy_tree;
pub mod cpio;
pub mod create;
pub mod deadline;
pub mod devfs;
pub mod devpts;
pub mod dir;
pub mod dirfile;
pub mod epoll;
pub mod eventfd;
pub mod fdops;
pub mod fdtable;
pub mod file;
pub mod filesystem;
pub mod fuse;
mod handed;
pub mod init;
pub mod inode;
pub mod inotify;
mod internal;
mod known;
pub mod link;
pub mod locks;
pub mod memfd;
pub mod mount;
pub mod mount_calls;
pub mod open;
pub mod path;
pub mod permission;
pub mod pidfd;
pub mod pipe;
pub mod poll;
pub mod poll_calls;
pub mod procfs;
pub mod pseudo;
pub mod random;
pub mod rw;
pub mod seals;
pub mod select;
pub mod sigio;
mod sigmask;
pub mod signalfd;
pub mod stat;
pub mod stdio;
mod surroundings;
mod sysfs;
pub mod terminal;
pub mod timerfd;
pub mod tmpfs;
pub mod transfer;
pub mod vfs;
pub mod xattr;

pub use context::FsContext;
pub use dirfile::DirFile;
pub use fdtable::FdTable;
pub use file::{File, FileOps, FileRef, WeakFile};
pub use filesystem::{FileSystem, FsStatistics};
pub use handed::open_handed;
pub use init::{enter_directory, mount_initial, open_streams};
pub use inode::{Attributes, Create, DirEntry, FileKind, Inode, SetAttributes};
pub use mount::{Location, Mount};
pub use open::{open_for_exec, open_path};
pub use path::{Lookup, lookup_at};
pub use poll::PollEvents;
pub use stdio::StreamSet;
pub use surroundings::{seal_root, set_up};
pub use vfs::Vfs;

#[cfg(test)]
mod calls_tests;
#[cfg(test)]
mod cpio_tests;
#[cfg(test)]
mod path_tests;
#[cfg(test)]
mod special_tests;
#[cfg(test)]
mod testing;
