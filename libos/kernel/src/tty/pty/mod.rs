//! Pseudo-terminals (`pty(7)`).
//!
//! A [`Pair`] is what master and slave share: a line discipline between two queues. What the master writes waits in one until
//! the discipline has room for it; what the slave writes, and what is echoed, waits in the other for the master.

mod ioctl;
mod master;
mod slave;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::linux::general::{SIGWINCH, winsize};

use super::job::{self, Job, Tty};
use super::line::{self, Driver, Line};
use crate::fs::anon::{AnonInode, wall_ns};
use crate::fs::devpts::Devpts;
use crate::fs::{FileOps, devfs};
use crate::sync::{SpinLock, WaitQueue};
use crate::{Errno, Kernel, Result, Thread};

pub use master::MasterFile;
pub use slave::{SlaveFile, SlaveInode};

/// Major number of slaves.
pub const MAJOR: u64 = 136;
/// Bytes on their way to one side that nobody has read.
const QUEUE_BYTES: usize = 64 << 10;
/// A queue with less room is full: a written byte may become so many, so that room is always enough for the next.
const LEAST_ROOM: usize = 8;
/// A queue that was full takes bytes again when so many are gone.
const QUEUE_STEP: usize = 16 << 10;
/// What one read of the master gives at most, as Linux's does; so much is past recall by the slave.
const MASTER_READ_BYTES: usize = line::CAPACITY - 1;
/// Bytes one step of a write moves.
const WRITE_STEP: usize = 4096;

/// Bytes that wait to be read.
#[derive(Debug, Default)]
struct Queue {
    bytes: VecDeque<u8>,
    /// It has been full, and is not yet empty enough.
    is_full: bool,
}

impl Queue {
    fn room(&self) -> usize {
        if self.is_full {
            0
        } else {
            QUEUE_BYTES.saturating_sub(self.bytes.len())
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.is_full |= self.bytes.len() + LEAST_ROOM > QUEUE_BYTES;
    }

    /// Bytes were taken out.
    fn shrunk(&mut self) {
        if self.bytes.len() <= QUEUE_BYTES - QUEUE_STEP {
            self.is_full = false;
        }
        if self.bytes.is_empty() && self.bytes.capacity() > QUEUE_STEP {
            self.bytes = VecDeque::new();
        }
    }
}

/// The way from the line discipline to the master.
#[derive(Debug, Default)]
struct Wire {
    queue: Queue,
    /// The master hears of changes (`TIOCPKT`): those it has not heard of.
    packet: Option<u32>,
    /// Signals for the foreground.
    signals: Vec<u32>,
}

impl Driver for Wire {
    fn room(&self) -> usize {
        self.queue.room()
    }

    fn send(&mut self, bytes: &[u8]) {
        self.queue.push(bytes);
    }

    fn discard(&mut self) {
        self.queue.bytes.truncate(MASTER_READ_BYTES);
        self.queue.shrunk();
    }

    fn signal(&mut self, signo: u32) {
        self.signals.push(signo);
    }

    fn report(&mut self, set: u32, clear: u32) {
        if let Some(status) = &mut self.packet {
            *status = *status & !clear | set;
        }
    }
}

#[derive(Debug)]
struct State {
    line: Line,
    /// Slave to master.
    wire: Wire,
    /// Master to slave, as far as the line has no room for it.
    typed: Queue,
    size: winsize,
    /// How often the slave is open.
    slaves: u32,
    has_master: bool,
    /// The slave was open and is not any more.
    has_slave_gone: bool,
    /// The slave cannot be opened (`unlockpt(3)`).
    is_locked: bool,
    /// The master holds back what it writes (`TCXONC`).
    is_master_stopped: bool,
    /// Only the privileged can open the slave (`TIOCEXCL`); what that of the master means, Linux does not say.
    is_exclusive: bool,
    is_master_exclusive: bool,
    /// How often it hung up: what was opened before is of no more use.
    hangups: u32,
}

/// What others may wait for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Look {
    input: usize,
    has_input: bool,
    master: usize,
    status: u32,
    slave_room: bool,
    master_room: bool,
}

impl State {
    fn look(&self) -> Look {
        Look {
            input: self.line.available(),
            has_input: self.line.has_input(),
            master: self.wire.queue.bytes.len(),
            status: self.wire.packet.unwrap_or(0),
            slave_room: self.line.room(&self.wire) > 0,
            master_room: self.master_room() > 0,
        }
    }

    fn master_room(&self) -> usize {
        if self.is_master_stopped {
            0
        } else {
            self.typed.room()
        }
    }

    /// The line takes what it has room for.
    fn pump(&mut self) {
        while !self.typed.bytes.is_empty() {
            let (first, _) = self.typed.bytes.as_slices();
            let taken = self.line.receive(first, &mut self.wire);
            self.typed.bytes.drain(..taken);
            self.typed.shrunk();
            if taken == 0 {
                break;
            }
        }
    }
}

/// A pseudo-terminal.
#[derive(Debug)]
pub struct Pair {
    kernel: &'static Kernel,
    number: u32,
    devpts: Arc<Devpts>,
    job: Job,
    state: SpinLock<State>,
    device: AnonInode,
    slave_input: Arc<WaitQueue>,
    slave_output: Arc<WaitQueue>,
    master_input: Arc<WaitQueue>,
    master_output: Arc<WaitQueue>,
}

impl Pair {
    /// Number `number` of `devpts`, which has chosen it; `device` is its device there. The slave is locked.
    #[must_use]
    pub fn new(
        kernel: &'static Kernel,
        devpts: Arc<Devpts>,
        number: u32,
        device: AnonInode,
    ) -> Arc<Self> {
        let queue = || Arc::new(WaitQueue::new());
        Arc::new(Self {
            kernel,
            number,
            devpts,
            job: Job::default(),
            state: SpinLock::new(State {
                line: Line::default(),
                wire: Wire::default(),
                typed: Queue::default(),
                size: winsize {
                    ws_row: 0,
                    ws_col: 0,
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                },
                slaves: 0,
                has_master: true,
                has_slave_gone: false,
                is_locked: true,
                is_master_stopped: false,
                is_exclusive: false,
                is_master_exclusive: false,
                hangups: 0,
            }),
            device,
            slave_input: queue(),
            slave_output: queue(),
            master_input: queue(),
            master_output: queue(),
        })
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Changes the state; then wakes and signals whom that concerns.
    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock();
        let before = state.look();
        let result = change(&mut state);
        state.pump();
        let after = state.look();
        let signals = core::mem::take(&mut state.wire.signals);
        drop(state);
        if after.input > before.input || after.has_input && !before.has_input {
            self.slave_input.wake_all();
        }
        let news = after.status & !before.status != 0;
        if after.master > before.master || news {
            self.master_input.wake_all();
        }
        if after.slave_room && !before.slave_room {
            self.slave_output.wake_all();
        }
        if after.master_room && !before.master_room {
            self.master_output.wake_all();
        }
        for signo in signals {
            self.job.signal(self.kernel, signo);
        }
        result
    }

    /// All who wait look again.
    fn wake_all(&self) {
        for queue in [
            &self.slave_input,
            &self.slave_output,
            &self.master_input,
            &self.master_output,
        ] {
            queue.wake_all();
        }
    }

    /// Opens the slave.
    fn open_slave(self: &Arc<Self>, t: &Thread) -> Result<Arc<SlaveFile>> {
        use husk_abi::linux::general::CAP_SYS_ADMIN;
        let hangups = {
            let mut state = self.state.lock();
            if state.is_exclusive && !t.is_capable(CAP_SYS_ADMIN) {
                return Err(Errno::EBUSY);
            }
            if state.is_locked || !state.has_master {
                return Err(Errno::EIO);
            }
            state.slaves += 1;
            state.has_slave_gone = false;
            state.hangups
        };
        Ok(Arc::new(SlaveFile::new(self.clone(), hangups)))
    }

    fn close_slave(&self) {
        let mut state = self.state.lock();
        state.slaves -= 1;
        if state.slaves > 0 {
            return;
        }
        state.has_slave_gone = true;
        state.is_exclusive = false;
        let is_done = !state.has_master;
        drop(state);
        self.master_input.wake_all();
        self.master_output.wake_all();
        if is_done {
            self.devpts.release(self.number);
        }
    }

    fn close_master(&self) {
        let mut state = self.state.lock();
        state.has_master = false;
        let is_done = state.slaves == 0;
        drop(state);
        self.devpts.forget(self.number);
        // Who waits on the slave's side is told that the master is gone, and only then that the terminal hung up.
        self.wake_all();
        self.hang_up(self.kernel);
        if is_done {
            self.devpts.release(self.number);
        }
    }

    /// Takes another size, and tells the foreground if it is one.
    fn resize(&self, size: winsize) {
        let fields = |size: &winsize| (size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel);
        let old = core::mem::replace(&mut self.state.lock().size, size);
        if fields(&old) != fields(&size) {
            self.job.signal(self.kernel, SIGWINCH);
        }
    }

    /// Notes that it was read or written, to eight seconds, so that nobody sees when keys are struck.
    fn touch(&self, writes: bool) {
        const STEP_NS: i64 = 8_000_000_000;
        let now = wall_ns();
        self.device.edit(|attributes| {
            let time = if writes {
                &mut attributes.mtime_ns
            } else {
                &mut attributes.atime_ns
            };
            if *time / STEP_NS != now / STEP_NS {
                *time = now - now % 1_000_000_000;
            }
        });
    }
}

impl Tty for Pair {
    fn job(&self) -> &Job {
        &self.job
    }

    fn device(&self) -> u64 {
        devfs::makedev(MAJOR, self.number.into())
    }

    fn open(self: Arc<Self>, t: &Thread) -> Result<Arc<dyn FileOps>> {
        let file = self.open_slave(t)?;
        Ok(file)
    }

    fn hang_up(&self, kernel: &Kernel) {
        {
            let mut state = self.state.lock();
            state.hangups = state.hangups.wrapping_add(1);
            state.line.reset();
            state.typed = Queue::default();
            state.is_exclusive = false;
        }
        self.wake_all();
        job::leave_session(&self.job, kernel);
    }
}
