//! An open regular file.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use husk_abi::linux::general;

use super::calls;
use super::data::MAX_BYTES;
use super::node::Node;
use crate::fs::{File, FileOps, Inode, open};
use crate::mm::Mappable;
use crate::user::IoBuf;
use crate::{Errno, Result, Thread};

/// An open regular file.
#[derive(Debug)]
pub(super) struct FuseFile {
    node: Arc<Node>,
    /// What it is counted as: a writer (1), executed (-1), or neither.
    step: i32,
}

impl FuseFile {
    /// Opens `node`.
    ///
    /// # Errors
    /// `ETXTBSY`; what opening it for writing on the host gives.
    pub(super) fn open(node: Arc<Node>, flags: u32) -> Result<Arc<Self>> {
        let data = node.data()?;
        let step = if flags & open::FMODE_EXEC != 0 {
            -1
        } else {
            i32::from(flags & general::O_ACCMODE != general::O_RDONLY)
        };
        if step != 0 {
            data.begin_use(step)?;
        }
        // From here on dropping it undoes that.
        let file = Arc::new(Self { node, step });
        let data = file.node.data()?;
        if step == 1 && !data.can_write.load(Ordering::Acquire) {
            file.node.flush_quietly();
            let attr = calls::open_to_write(file.node.kernel(), file.node.id())?;
            file.node.learned(&attr);
            data.can_write.store(true, Ordering::Release);
        } else {
            // What others wrote before is seen after opening.
            file.node.refresh_size();
        }
        Ok(file)
    }
}

impl FileOps for FuseFile {
    fn read(&self, _t: &Thread, file: &File, buf: &mut IoBuf<'_>, offset: u64) -> Result<usize> {
        let moved = self.node.read_data(buf, offset)?;
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
        data.buffered.take_error()?;
        let appends = file.flags() & general::O_APPEND != 0;
        let offset = if appends {
            self.node.refresh_size();
            data.size()
        } else {
            offset
        };
        let limit = open::file_size_limit(t, offset)?.min(MAX_BYTES);
        if offset >= limit {
            return Err(Errno::EFBIG);
        }
        let moved =
            self.node
                .write_data(buf, offset, limit, appends && !self.node.is_exclusive())?;
        self.node.written(&t.credentials())?;
        if moved > 0 && file.flags() & general::O_DSYNC != 0 {
            let data_only = file.flags() & general::O_SYNC != general::O_SYNC;
            self.node.sync(data_only)?;
        }
        Ok(moved)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn size(&self) -> u64 {
        self.node.refresh_size();
        self.node.data().map_or(0, super::data::Data::size)
    }

    fn seek_data(&self, offset: u64, hole: bool) -> Result<u64> {
        self.node.flush()?;
        calls::seek(self.node.kernel(), self.node.id(), offset, hole)
    }

    fn copy_range(&self, t: &Thread, offset: u64, to: &File, target: u64, len: u64) -> Result<u64> {
        let other = to
            .ops
            .as_any()
            .downcast_ref::<Self>()
            .ok_or(Errno::EOPNOTSUPP)?;
        let limit = open::file_size_limit(t, target)?;
        let len = len.min(limit - target);
        let data = other.node.data()?;
        let _writing = data.writing.lock();
        self.node.flush()?;
        other.node.drop_buffer();
        let mut done = 0;
        while done < len {
            let from = (self.node.id(), offset + done);
            let into = (other.node.id(), target + done);
            match calls::copy(self.node.kernel(), from, into, len - done) {
                Ok((0, _)) => break,
                Ok((copied, attr)) => {
                    done += copied;
                    other.node.learned(&attr);
                }
                Err(_) if done > 0 => break,
                // Between file systems of different kinds the bytes must pass through here.
                Err(Errno::EXDEV | Errno::ENOSYS) => return Err(Errno::EOPNOTSUPP),
                Err(errno) => return Err(errno),
            }
        }
        other.node.drop_buffer();
        other.node.text_changed(data, target..target + done);
        other.node.written(&t.credentials())?;
        Ok(done)
    }

    fn mappable(&self) -> Result<Arc<dyn Mappable>> {
        self.node.clone().mappable().ok_or(Errno::ENODEV)
    }

    fn released(&self) {
        if self.step == 1 {
            self.node.post_flush();
        }
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

impl Drop for FuseFile {
    fn drop(&mut self) {
        if self.step != 0
            && let Ok(data) = self.node.data()
        {
            data.end_use(self.step);
        }
    }
}
