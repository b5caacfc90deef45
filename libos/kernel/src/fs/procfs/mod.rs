//! `/proc` (`proc(5)`).
//!
//! | module | what |
//! | --- | --- |
//! | `row` | what a name is: a row of a table, with the function that makes its contents |
//! | `node` | rows as inodes, the directories of processes, threads and descriptors |
//! | `file` | an open file: contents are made when it is read from its start |
//! | `subject` | whom a node is about, and what to do when that one is gone |
//! | `text` | contents under construction |
//! | `process` | the tables of process and thread directories, and their small files |
//! | `status` | `stat`, `statm`, `status` |
//! | `memory` | `maps`, `smaps`, `cmdline`, `environ`, `auxv` |
//! | `mem` | `mem` |
//! | `namespaces` | `ns` |
//! | `descriptors` | `fd`, `fdinfo` |
//! | `mounts` | `mounts`, `mountinfo`, `mountstats` |
//! | `system` | the table of the root, and files about the whole system |
//! | `sysctl` | `/proc/sys` |
//!
//! To add a file, add a row. Formats are Linux's to the byte: programs parse them.
#![expect(
    clippy::write_with_newline,
    reason = "formats stand in the code as they are in the file"
)]

mod descriptors;
mod file;
mod mem;
mod memory;
mod mounts;
mod namespaces;
mod net;
mod node;
mod process;
mod row;
mod status;
mod subject;
mod sysctl;
mod system;
mod text;

use alloc::sync::Arc;

use super::{File, FileSystem, FsStatistics, Inode};
use crate::Kernel;
use crate::process::namespaces::Namespace;
use node::Node;

/// Linux's `PROC_SUPER_MAGIC`.
const MAGIC: u32 = 0x9fa0;

/// The file system.
#[derive(Debug)]
pub struct ProcFs {
    root: Arc<Node>,
}

impl ProcFs {
    /// The one instance's worth of `/proc`; mount it with source `proc`.
    #[must_use]
    pub fn new(kernel: &'static Kernel) -> Arc<Self> {
        Arc::new(Self {
            root: Node::root(kernel, kernel.fs.new_device()),
        })
    }
}

/// The namespace that `file`, one of `/proc/PID/ns`, is.
#[must_use]
pub fn namespace_of(file: &File) -> Option<Namespace> {
    namespaces::of_file(file)
}

impl FileSystem for ProcFs {
    fn kind(&self) -> &'static str {
        "proc"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statistics(&self) -> FsStatistics {
        FsStatistics {
            magic: MAGIC,
            block_size: 4096,
            ..FsStatistics::default()
        }
    }
}

#[cfg(test)]
mod tests;
