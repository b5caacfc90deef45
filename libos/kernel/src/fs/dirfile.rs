//! An open directory, for any file system.

use alloc::sync::Arc;

use super::{DirEntry, File, FileOps, Inode};
use crate::user::IoBuf;
use crate::{Errno, Result, Thread};

/// What opening a directory makes: entries come from the inode, the position is a `getdents` cookie.
#[derive(Debug)]
pub struct DirFile {
    inode: Arc<dyn Inode>,
}

impl DirFile {
    /// An open directory.
    #[must_use]
    pub fn new(inode: Arc<dyn Inode>) -> Arc<Self> {
        Arc::new(Self { inode })
    }
}

impl FileOps for DirFile {
    fn read(&self, _t: &Thread, _file: &File, _buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn size(&self) -> u64 {
        self.inode.attributes().size
    }

    fn read_dir(&self, position: u64, sink: &mut dyn FnMut(DirEntry) -> bool) -> Result<()> {
        self.inode.read_dir(position, sink)
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
