//! Tables of names.

use alloc::vec::Vec;

use super::subject::Subject;
use super::text::Text;
use crate::fs::{FileKind, Location};
use crate::{Result, Thread};

/// Makes a file's contents. The thread is the reader.
pub(super) type Generate = fn(&Thread, &Subject, &mut Text) -> Result<()>;
/// Takes what was written to a file.
pub(super) type Store = fn(&Thread, &Subject, &[u8]) -> Result<()>;
/// Makes a link's text.
pub(super) type LinkText = fn(&Thread, &Subject) -> Result<Vec<u8>>;
/// What a magic link leads to.
pub(super) type Target = fn(&Thread, &Subject) -> Result<Location>;

/// Names that are not in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// The processes, beside the table of the root.
    Processes,
    /// The threads of a process.
    Threads,
    /// The descriptors, as magic links.
    Descriptors,
    /// The descriptors, as files.
    DescriptorInfo,
}

/// What a name is.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// A directory of the names in a table.
    Directory(&'static [Row]),
    /// A directory of names that come and go, and those in a table.
    Dynamic(Names, &'static [Row]),
    /// A file.
    File(Generate),
    /// A file that can be written.
    Writable(Generate, Store),
    /// A file under `/proc/sys`, which containers have mounted read-only: writing is `EROFS`.
    Sysctl(Generate),
    /// A process's memory.
    Memory,
    /// A symbolic link.
    Link(LinkText),
    /// A symbolic link that leads to an object, whatever its text says.
    Magic(LinkText, Target),
}

/// A name, its permission bits and what it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub name: &'static str,
    pub mode: u32,
    pub what: What,
}

impl Row {
    pub fn kind(&self) -> FileKind {
        match self.what {
            What::Directory(_) | What::Dynamic(..) => FileKind::Directory,
            What::File(_) | What::Writable(..) | What::Sysctl(_) | What::Memory => {
                FileKind::Regular
            }
            What::Link(_) | What::Magic(..) => FileKind::Symlink,
        }
    }

    /// The table of a directory.
    pub fn table(&self) -> &'static [Row] {
        match self.what {
            What::Directory(table) | What::Dynamic(_, table) => table,
            _ => &[],
        }
    }

    /// The names of a directory that are in no table.
    pub fn names(&self) -> Option<Names> {
        match self.what {
            What::Dynamic(names, _) => Some(names),
            _ => None,
        }
    }
}

/// A directory of mode 0555.
pub(super) const fn directory(name: &'static str, table: &'static [Row]) -> Row {
    Row {
        name,
        mode: 0o555,
        what: What::Directory(table),
    }
}

/// A file of mode 0444.
pub(super) const fn file(name: &'static str, generate: Generate) -> Row {
    private(name, 0o444, generate)
}

/// A file of any mode.
pub(super) const fn private(name: &'static str, mode: u32, generate: Generate) -> Row {
    Row {
        name,
        mode,
        what: What::File(generate),
    }
}

/// A symbolic link.
pub(super) const fn link(name: &'static str, text: LinkText) -> Row {
    Row {
        name,
        mode: 0o777,
        what: What::Link(text),
    }
}
