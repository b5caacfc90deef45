//! The master: what a terminal emulator holds.

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::linux::general::TIOCPKT_DATA;

use super::{MASTER_READ_BYTES, Pair, WRITE_STEP, ioctl};
use crate::fs::poll::PollTable;
use crate::fs::sigio::Band;
use crate::fs::{File, FileOps, PollEvents};
use crate::sync::{Interruptible, WaitQueue};
use crate::user::IoBuf;
use crate::{Errno, Result, SysResult, Thread};

/// The master, open: there is one opening of each.
#[derive(Debug)]
pub struct MasterFile {
    pair: Arc<Pair>,
}

impl MasterFile {
    /// The master of a new pair.
    #[must_use]
    pub fn new(pair: Arc<Pair>) -> Self {
        Self { pair }
    }

    /// Moves what is there; `None` if nothing is and something may come.
    fn try_read(&self, bytes: &mut Vec<u8>, most: usize) -> Option<Result<()>> {
        self.pair.change(|state| {
            let mut most = most.min(MASTER_READ_BYTES);
            if let Some(status) = &mut state.wire.packet
                && *status != 0
            {
                let status = core::mem::take(status);
                bytes.push(status.to_le_bytes()[0]);
                return Some(Ok(()));
            }
            let queue = &mut state.wire.queue;
            if queue.bytes.is_empty() {
                return state.has_slave_gone.then_some(Err(Errno::EIO));
            }
            if state.wire.packet.is_some() {
                bytes.push(TIOCPKT_DATA.to_le_bytes()[0]);
                most -= 1;
            }
            let len = most.min(queue.bytes.len());
            bytes.extend(queue.bytes.drain(..len));
            queue.shrunk();
            Some(Ok(()))
        })
    }
}

impl FileOps for MasterFile {
    fn read(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        let most = buf.remaining();
        if most == 0 {
            return Ok(0);
        }
        let mut bytes = Vec::new();
        match self.try_read(&mut bytes, most) {
            Some(outcome) => outcome?,
            None if file.is_nonblocking() => return Err(Errno::EAGAIN),
            None => self
                .pair
                .master_input
                .wait(t, Interruptible::Yes, None, || {
                    self.try_read(&mut bytes, most)
                })
                .map_err(|error| error.errno(Errno::ERESTARTSYS))??,
        }
        // What cannot be stored is lost, as on Linux.
        buf.put(&bytes)
    }

    fn write(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        let pair = &self.pair;
        let mut chunk = [0; WRITE_STEP];
        let mut written = 0;
        while buf.remaining() > 0 {
            let place = buf.place();
            let len = buf.remaining().min(chunk.len());
            let len = match buf.take(&mut chunk[..len]) {
                Ok(len) => len,
                Err(_) if written > 0 => break,
                Err(error) => return Err(error),
            };
            let taken = pair.change(|state| {
                let taken = len.min(state.master_room());
                state.typed.push(&chunk[..taken]);
                taken
            });
            written += taken;
            if taken == len {
                continue;
            }
            buf.return_to(place);
            buf.skip(taken);
            let waited = if file.is_nonblocking() {
                Err(Errno::EAGAIN)
            } else {
                pair.master_output
                    .wait(t, Interruptible::Yes, None, || {
                        (pair.state.lock().master_room() > 0).then_some(())
                    })
                    .map_err(|error| error.errno(Errno::ERESTARTSYS))
            };
            match waited {
                Ok(()) => {}
                Err(_) if written > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    fn poll(&self, _t: &Thread, _file: &File, table: Option<&mut PollTable<'_>>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.pair.master_input);
            table.register(&self.pair.master_output);
        }
        let state = self.pair.state.lock();
        let mut events = PollEvents::empty();
        if !state.wire.queue.bytes.is_empty() {
            events |= PollEvents::IN | PollEvents::RDNORM;
        }
        if state.wire.packet.is_some_and(|status| status != 0) {
            events |= PollEvents::PRI | PollEvents::IN | PollEvents::RDNORM;
        }
        if state.has_slave_gone {
            events |= PollEvents::HUP;
        }
        if state.master_room() > 0 {
            events |= PollEvents::OUT | PollEvents::WRNORM;
        }
        events
    }

    fn async_queues(&self) -> Vec<(Arc<WaitQueue>, Band)> {
        alloc::vec![
            (self.pair.master_input.clone(), Band::In),
            (self.pair.master_output.clone(), Band::Out),
        ]
    }

    fn ioctl(&self, t: &Thread, file: &File, request: u32, arg: u64) -> SysResult {
        ioctl::master(&self.pair, t, file, request, arg)
    }

    fn released(&self) {
        self.pair.close_master();
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
