//! What a container finds under `/dev`: what runc makes for the default specification.

use alloc::sync::Arc;

use super::makedev;
use crate::fs::{Create, FileKind, Inode};
use crate::{Errno, Result};

/// What one name under `/dev` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Character device with major and minor number.
    Char(u64, u64),
    /// Symbolic link.
    Link(&'static str),
}

/// One name under `/dev`.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Name.
    pub name: &'static str,
    /// Kind.
    pub kind: NodeKind,
    /// Permission bits.
    pub mode: u32,
}

const fn char_device(name: &'static str, major: u64, minor: u64) -> Node {
    Node {
        name,
        kind: NodeKind::Char(major, minor),
        mode: 0o666,
    }
}

const fn link(name: &'static str, target: &'static str) -> Node {
    Node {
        name,
        kind: NodeKind::Link(target),
        mode: 0o777,
    }
}

/// The tree, in the order runc makes it. runc adds `core` only where the host has `/proc/kcore`, and
/// `console` only with a terminal.
pub const NODES: &[Node] = &[
    char_device("null", 1, 3),
    char_device("zero", 1, 5),
    char_device("full", 1, 7),
    char_device("random", 1, 8),
    char_device("urandom", 1, 9),
    char_device("tty", 5, 0),
    link("ptmx", "pts/ptmx"),
    link("fd", "/proc/self/fd"),
    link("stdin", "/proc/self/fd/0"),
    link("stdout", "/proc/self/fd/1"),
    link("stderr", "/proc/self/fd/2"),
];

/// Lays [`NODES`] into the directory `dev`; names that are there already stay. With `console`, also
/// `/dev/console`, as for a container with a terminal.
///
/// # Errors
/// What creating gives (`ENOSPC`).
pub fn populate(dev: &Arc<dyn Inode>, console: bool) -> Result<()> {
    let console = console.then_some(Node {
        name: "console",
        kind: NodeKind::Char(5, 1),
        mode: 0o620,
    });
    for node in NODES.iter().chain(&console) {
        let mut what = Create {
            kind: FileKind::CharDevice,
            mode: node.mode,
            uid: 0,
            gid: 0,
            rdev: 0,
            target: b"",
        };
        match node.kind {
            NodeKind::Char(major, minor) => {
                what.rdev = makedev(major, minor);
            }
            NodeKind::Link(target) => {
                what.kind = FileKind::Symlink;
                what.target = target.as_bytes();
            }
        }
        match dev.create(node.name.as_bytes(), &what) {
            // A mount point, or the image's own.
            Ok(_) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
