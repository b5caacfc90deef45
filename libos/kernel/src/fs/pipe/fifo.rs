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
    open(t, pipe, flags, true)
}

/// Opens an end of an anonymous pipe anew, through `/proc/*/fd`: that never waits for a partner.
///
/// # Errors
/// As [`open_fifo`].
pub(super) fn reopen(t: &Thread, pipe: &Arc<Pipe>, flags: u32) -> Result<Arc<dyn FileOps>> {
    open(t, pipe, flags, false)
}

fn open(t: &Thread, pipe: &Arc<Pipe>, flags: u32, waits: bool) -> Result<Arc<dyn FileOps>> {
    let nonblocking = flags & general::O_NONBLOCK != 0;
    match flags & general::O_ACCMODE {
        general::O_RDONLY => {
            let before = pipe.writer_opens.load(SeqCst);
            // Counted from here on, so that the partner sees it; it leaves again if waiting fails.
            let end = PipeEnd::new(pipe, true, false);
            if waits && !nonblocking && !pipe.has_writers() {
                wait_for_partner(t, pipe, &pipe.writer_opens, before)?;
            }
            Ok(end)
        }
        general::O_WRONLY => {
            if waits && nonblocking && !pipe.has_readers() {
                return Err(Errno::ENXIO);
            }
            let before = pipe.reader_opens.load(SeqCst);
            let end = PipeEnd::new(pipe, false, true);
            if waits && !pipe.has_readers() {
                wait_for_partner(t, pipe, &pipe.reader_opens, before)?;
            }
            Ok(end)
        }
        general::O_RDWR => Ok(PipeEnd::new(pipe, true, true)),
        _ => Err(Errno::EINVAL),
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
