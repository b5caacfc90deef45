//! `/proc/PID/mem`: a process's memory, at offsets that are its addresses (`proc_pid_mem(5)`).

use alloc::sync::{Arc, Weak};

use husk_abi::boundary::layout::PAGE_SIZE;

use super::subject::Subject;
use crate::fs::{File, FileOps};
use crate::mm::AddressSpace;
use crate::process;
use crate::user::IoBuf;
use crate::{Errno, Result, Thread};

/// The memory as of `open`: another program's is not to be had through it.
#[derive(Debug)]
pub(super) struct MemFile {
    memory: Weak<AddressSpace>,
}

impl MemFile {
    /// Opens the subject's memory for `t`.
    ///
    /// # Errors
    /// `EACCES` if `t` may not trace it, `ESRCH` if it is gone.
    pub fn open(t: &Thread, subject: &Subject) -> Result<Arc<Self>> {
        let thread = subject.thread()?;
        process::may_trace(t, &thread).map_err(|_| Errno::EACCES)?;
        let memory = thread
            .mm_opt()
            .map_or_else(Weak::new, |mm| Arc::downgrade(&mm));
        Ok(Arc::new(Self { memory }))
    }
}

/// Bytes from `address` to the end of its page, at most `len`.
fn piece(address: u64, len: usize) -> usize {
    let left = PAGE_SIZE - address % PAGE_SIZE;
    len.min(left as usize)
}

impl FileOps for MemFile {
    fn read(&self, _t: &Thread, _file: &File, buf: &mut IoBuf<'_>, offset: u64) -> Result<usize> {
        let Some(mm) = self.memory.upgrade() else {
            return Ok(0);
        };
        let mut page = [0; PAGE_SIZE as usize];
        let mut done = 0;
        while buf.remaining() > 0 {
            let address = offset.wrapping_add(done as u64);
            let bytes = &mut page[..piece(address, buf.remaining())];
            match mm.read_bytes_forced(address, bytes) {
                Ok(got) => done += buf.put(&bytes[..got])?,
                Err(_) if done > 0 => break,
                Err(_) => return Err(Errno::EIO),
            }
        }
        Ok(done)
    }

    fn write(&self, _t: &Thread, _file: &File, buf: &mut IoBuf<'_>, offset: u64) -> Result<usize> {
        let Some(mm) = self.memory.upgrade() else {
            return Ok(0);
        };
        let mut page = [0; PAGE_SIZE as usize];
        let mut done = 0;
        while buf.remaining() > 0 {
            let address = offset.wrapping_add(done as u64);
            let want = piece(address, buf.remaining());
            let got = buf.take(&mut page[..want])?;
            match mm.write_bytes_forced(address, &page[..got]) {
                Ok(written) => done += written,
                Err(_) if done > 0 => break,
                Err(_) => return Err(Errno::EIO),
            }
        }
        Ok(done)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::piece;

    #[test]
    fn pieces_end_with_pages() {
        assert_eq!(piece(0x1000, 10_000), 4096);
        assert_eq!(piece(0x1ffc, 8), 4);
        assert_eq!(piece(0x1234, 8), 8);
    }
}
