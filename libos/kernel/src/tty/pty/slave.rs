//! The slave: what programs take for a terminal.

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::linux::general::{self, SIGTTIN, SIGTTOU, TOSTOP};

use super::{Pair, WRITE_STEP, ioctl};
use crate::fs::poll::PollTable;
use crate::fs::sigio::Band;
use crate::fs::{Attributes, File, FileOps, Inode, PollEvents, SetAttributes};
use crate::sync::{Interruptible, WaitError, WaitQueue};
use crate::tty::job;
use crate::user::IoBuf;
use crate::{Errno, Result, SysResult, Thread};

/// What devpts shows for a pseudo-terminal.
#[derive(Debug)]
pub struct SlaveInode(pub Arc<Pair>);

impl Inode for SlaveInode {
    fn attributes(&self) -> Attributes {
        self.0.device.attributes()
    }

    fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        // Opening it with O_TRUNC must work.
        let change = SetAttributes {
            size: None,
            ..*change
        };
        self.0.device.set_attributes(&change)
    }

    fn open(self: Arc<Self>, t: &Thread, flags: u32) -> Result<Arc<dyn FileOps>> {
        let file = self.0.open_slave(t)?;
        if flags & general::O_NOCTTY == 0 {
            let is_readable = flags & general::O_ACCMODE != general::O_WRONLY;
            job::opened(t, self.0.clone(), is_readable);
        }
        Ok(file)
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// An opening of the slave.
#[derive(Debug)]
pub struct SlaveFile {
    pair: Arc<Pair>,
    /// How often the terminal had hung up then.
    hangups: u32,
}

/// How a step of a read went.
enum Step {
    /// Bytes, or a line's end, were moved.
    Moved,
    /// There is nothing.
    Nothing,
    /// The terminal hung up: the end of the file.
    HungUp,
    /// The master is gone.
    Gone,
}

impl SlaveFile {
    pub(super) fn new(pair: Arc<Pair>, hangups: u32) -> Self {
        Self { pair, hangups }
    }

    /// Whether the terminal hung up since it was opened.
    pub(super) fn is_hung_up(&self) -> bool {
        self.pair.state.lock().hangups != self.hangups
    }

    fn read_step(&self, bytes: &mut Vec<u8>, most: usize) -> Step {
        self.pair.change(|state| {
            if state.line.has_input() && state.hangups == self.hangups {
                state.line.read(bytes, most);
                Step::Moved
            } else if !state.has_master {
                Step::Gone
            } else if state.hangups != self.hangups {
                Step::HungUp
            } else {
                Step::Nothing
            }
        })
    }

    fn read_bytes(&self, t: &Thread, file: &File, most: usize) -> Result<Vec<u8>> {
        let pair = &self.pair;
        let patience = pair.state.lock().line.patience();
        let mut bytes = Vec::new();
        let mut wait_ns = patience.first_ns;
        loop {
            let left = most - bytes.len();
            let mut step = self.read_step(&mut bytes, left);
            if matches!(step, Step::Nothing) && wait_ns != Some(0) {
                if file.is_nonblocking() {
                    if bytes.is_empty() {
                        return Err(Errno::EAGAIN);
                    }
                    return Ok(bytes);
                }
                let deadline = wait_ns.map(|wait_ns| husk_hal::clock::now_ns() + wait_ns);
                let waited =
                    pair.slave_input.wait(t, Interruptible::Yes, deadline, || {
                        match self.read_step(&mut bytes, left) {
                            Step::Nothing => None,
                            step => Some(step),
                        }
                    });
                step = match waited {
                    Ok(step) => step,
                    Err(WaitError::TimedOut) => Step::Nothing,
                    Err(WaitError::Interrupted) if bytes.is_empty() => {
                        return Err(Errno::ERESTARTSYS);
                    }
                    Err(WaitError::Interrupted) => return Ok(bytes),
                };
            }
            match step {
                Step::Gone if bytes.is_empty() => return Err(Errno::EIO),
                Step::Moved if bytes.len() < patience.minimum.min(most) => {
                    wait_ns = patience.further_ns;
                }
                _ => return Ok(bytes),
            }
        }
    }
}

impl FileOps for SlaveFile {
    fn read(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        if self.is_hung_up() || buf.remaining() == 0 {
            return Ok(0);
        }
        job::check_foreground(t, &*self.pair, SIGTTIN)?;
        let bytes = self.read_bytes(t, file, buf.remaining())?;
        self.pair.touch(false);
        if bytes.is_empty() {
            return Ok(0);
        }
        // What cannot be stored is lost, as on Linux.
        buf.put(&bytes)
    }

    fn write(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        let pair = &self.pair;
        if self.is_hung_up() {
            return Err(Errno::EIO);
        }
        let stops = pair.state.lock().line.settings().has_local(TOSTOP);
        if stops {
            job::check_foreground(t, &**pair, SIGTTOU)?;
        }
        let is_gone = |state: &super::State| !state.has_master || state.hangups != self.hangups;
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
            let step = pair.change(|state| {
                if is_gone(state) {
                    return Err(Errno::EIO);
                }
                Ok(state.line.write(&chunk[..len], &mut state.wire))
            });
            let taken = match step {
                Ok(taken) => taken,
                Err(_) if written > 0 => break,
                Err(error) => return Err(error),
            };
            written += taken;
            if taken == len {
                continue;
            }
            buf.return_to(place);
            buf.skip(taken);
            let waited = if file.is_nonblocking() {
                Err(Errno::EAGAIN)
            } else {
                pair.slave_output
                    .wait(t, Interruptible::Yes, None, || {
                        let state = pair.state.lock();
                        let has_room = state.line.room(&state.wire) > 0;
                        (has_room || is_gone(&state)).then_some(())
                    })
                    .map_err(|error| error.errno(Errno::ERESTARTSYS))
            };
            match waited {
                Ok(()) => {}
                Err(_) if written > 0 => break,
                Err(error) => return Err(error),
            }
        }
        pair.touch(true);
        Ok(written)
    }

    fn poll(&self, _t: &Thread, _file: &File, table: Option<&mut PollTable<'_>>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.pair.slave_input);
            table.register(&self.pair.slave_output);
        }
        let state = self.pair.state.lock();
        let readable = PollEvents::IN | PollEvents::RDNORM;
        let writable = PollEvents::OUT | PollEvents::WRNORM;
        if state.hangups != self.hangups {
            return readable | writable | PollEvents::ERR | PollEvents::HUP;
        }
        let mut events = PollEvents::empty();
        if state.line.is_readable() {
            events |= readable;
        }
        if !state.has_master {
            events |= PollEvents::HUP;
        }
        if state.line.room(&state.wire) > 0 {
            events |= writable;
        }
        events
    }

    fn async_queues(&self) -> Vec<(Arc<WaitQueue>, Band)> {
        alloc::vec![
            (self.pair.slave_input.clone(), Band::In),
            (self.pair.slave_output.clone(), Band::Out),
        ]
    }

    fn ioctl(&self, t: &Thread, file: &File, request: u32, arg: u64) -> SysResult {
        if self.is_hung_up() {
            return Err(if request == husk_abi::linux::ioctl::TIOCSPGRP {
                Errno::ENOTTY
            } else {
                Errno::EIO
            });
        }
        ioctl::slave(&self.pair, t, file, request, arg)
    }

    fn released(&self) {
        self.pair.close_slave();
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
