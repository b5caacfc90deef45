//! Opening a FIFO (`fifo(7)`).

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use husk_abi::linux::general;

use super::{Pipe, PipeEnd};
use crate::fs::FileOps;
use crate::sync::Interruptible;
use crate::{Errno, Result, Thread};

/// Opens an end of `pipe` as `open(2)` does with a FIFO: a reader waits for a writer and the other way round,
/// unless `flags` have `O_NONBLOCK`. A file system keeps one [`Pipe`] for each FIFO inode.
///
/// # Errors
/// `ENXIO` (only writing, not blocking, no reader), `ERESTARTSYS`, `EINVAL` for an impossible access mode.
pub fn open_fifo(t: &Thread, pipe: &Arc<Pipe>, flags: u32) -> Result<Arc<dyn FileOps>> {
    let nonblocking = flags & general::O_NONBLOCK != 0;
    match flags & general::O_ACCMODE {
        general::O_RDONLY => {
            let before = pipe.writer_opens.load(SeqCst);
            let end = Opening::new(pipe, true, false);
            if !nonblocking && !pipe.has_writers() {
                wait_for_partner(t, pipe, &pipe.writer_opens, before)?;
            }
            Ok(end.finish())
        }
        general::O_WRONLY => {
            if nonblocking && !pipe.has_readers() {
                return Err(Errno::ENXIO);
            }
            let before = pipe.reader_opens.load(SeqCst);
            let end = Opening::new(pipe, false, true);
            if !pipe.has_readers() {
                wait_for_partner(t, pipe, &pipe.reader_opens, before)?;
            }
            Ok(end.finish())
        }
        general::O_RDWR => Ok(Opening::new(pipe, true, true).finish()),
        _ => Err(Errno::EINVAL),
    }
}

/// An end that is counted already, so that the partner sees it, and leaves again if opening fails.
struct Opening(Option<Arc<PipeEnd>>);

impl Opening {
    fn new(pipe: &Arc<Pipe>, reads: bool, writes: bool) -> Self {
        Self(Some(PipeEnd::new(pipe, reads, writes)))
    }

    fn finish(mut self) -> Arc<dyn FileOps> {
        self.0.take().expect("finished once")
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end.released();
        }
    }
}

/// Sleeps until `opens` is no longer `before`. A partner that came and went meanwhile counts.
fn wait_for_partner(t: &Thread, pipe: &Pipe, opens: &AtomicU32, before: u32) -> Result<()> {
    pipe.open_queue
        .wait(t, Interruptible::Yes, None, || {
            (opens.load(SeqCst) != before).then_some(())
        })
        .map_err(|error| error.errno(Errno::ERESTARTSYS))
}
