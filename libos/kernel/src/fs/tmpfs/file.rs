//! An open regular file of a tmpfs.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use husk_abi::linux::general;

use super::data::MAX_BYTES;
use super::node::Node;
use crate::fs::{File, FileOps, Inode, open};
use crate::mm::Mappable;
use crate::user::IoBuf;
use crate::{Errno, Result, Thread};

/// What an open file keeps others from doing with the contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Nothing,
    /// Executing it.
    Write,
    /// Opening it for writing.
    Execute,
}

/// An open regular file.
#[derive(Debug)]
pub(super) struct TmpFile {
    node: Arc<Node>,
    hold: Hold,
}

impl TmpFile {
    /// Opens `node`.
    ///
    /// # Errors
    /// `ETXTBSY` if it is to be written and is executed, or the other way round.
    pub(super) fn open(node: Arc<Node>, flags: u32) -> Result<Arc<Self>> {
        let data = node.data()?;
        let hold = if flags & open::FMODE_EXEC != 0 {
            data.begin_exec()?;
            Hold::Write
        } else if flags & general::O_ACCMODE != general::O_RDONLY {
            data.begin_write_access()?;
            Hold::Execute
        } else {
            Hold::Nothing
        };
        Ok(Arc::new(Self { node, hold }))
    }
}

impl FileOps for TmpFile {
    fn read(&self, _t: &Thread, file: &File, buf: &mut IoBuf<'_>, offset: u64) -> Result<usize> {
        let moved = self.node.data()?.read(&self.node.shared, buf, offset)?;
        if moved > 0 && file.updates_atime() {
            self.node.accessed();
        }
        Ok(moved)
    }

    fn write(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, offset: u64) -> Result<usize> {
        if buf.remaining() == 0 {
            return Ok(0);
        }
        let data = self.node.data()?;
        let _writing = data.writing.lock();
        let offset = if file.flags() & general::O_APPEND != 0 {
            data.size()
        } else {
            offset
        };
        let mut limit = open::file_size_limit(t, offset)?.min(MAX_BYTES);
        if offset >= limit {
            return Err(Errno::EFBIG);
        }
        let seals = data.seals.load(Ordering::Acquire);
        if seals & (general::F_SEAL_WRITE | general::F_SEAL_FUTURE_WRITE) != 0 {
            return Err(Errno::EPERM);
        }
        if seals & general::F_SEAL_GROW != 0 {
            limit = limit.min(data.size());
            if offset >= limit {
                return Err(Errno::EPERM);
            }
        }
        let moved = data.write(&self.node.shared, buf, offset, limit)?;
        let keep_privileges = self.node.meta.lock().mode & (general::S_ISUID | general::S_ISGID)
            == 0
            || t.credentials().has(general::CAP_FSETID);
        self.node.written(keep_privileges);
        Ok(moved)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn size(&self) -> u64 {
        self.node.size_bytes()
    }

    fn seek_data(&self, offset: u64, hole: bool) -> Result<u64> {
        self.node.data()?.seek(offset, hole)
    }

    fn mappable(&self) -> Result<Arc<dyn Mappable>> {
        self.node.clone().mappable().ok_or(Errno::ENODEV)
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

impl Drop for TmpFile {
    fn drop(&mut self) {
        if let Ok(data) = self.node.data() {
            match self.hold {
                Hold::Nothing => {}
                Hold::Write => data.end_exec(),
                Hold::Execute => data.end_write_access(),
            }
        }
    }
}
