//! Standard streams: bytes the container's processes write, and bytes they ask for (`abi::boundary::stdio`), for one session.

mod input;
mod output;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use husk_abi::boundary::boot::Virtqueue;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm_sys_util::eventfd::EventFd;

use super::{Error, Interrupt};
use crate::vmm::GuestMemory;
use input::Input;
use output::Output;

/// The host's end of a stream.
#[derive(Debug)]
pub enum End {
    /// The VMM's own standard descriptor of this number.
    Own(i32),
    /// One that was handed over.
    Given(OwnedFd),
    /// The stream is closed.
    Closed,
}

impl End {
    fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        match self {
            Self::Own(number) => Ok(input::standard(*number)),
            Self::Given(fd) => Ok(fd.as_fd()),
            Self::Closed => Err(Errno::EBADF),
        }
    }
}

/// The three ends of a session.
pub type Ends = Arc<[End; 3]>;

/// What a session's threads tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// All output that was queued when [`Streams::flush`] was called is written.
    Flushed,
    /// All output is written, and there will be no more.
    OutputEnded,
    /// Nothing is read any more.
    InputEnded,
}

/// Bytes that went through a stream.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// The stream's descriptor number in the process: 0 to 2.
    pub stream: u32,
    /// How many.
    pub bytes: usize,
    /// Errno, or 0.
    pub errno: u32,
    /// How long it took.
    pub duration: Duration,
}

/// Is told of what the container reads and writes.
pub trait StreamObserver: Send + Sync {
    /// Bytes went through a stream, or could not.
    fn transferred(&self, transfer: Transfer);
}

/// Takes [`Event`]s.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// A session's streams, served by two threads.
#[derive(Debug)]
pub struct Streams {
    output: Output,
    input: Input,
}

/// What the threads work with.
pub struct Parts {
    /// Guest memory.
    pub memory: GuestMemory,
    /// Rings of the output and the input queue.
    pub rings: [Virtqueue; 2],
    /// Their doorbells.
    pub bells: [EventFd; 2],
    /// The host's ends.
    pub ends: Ends,
    /// Makes the guest look.
    pub interrupt: Arc<dyn Interrupt>,
    /// Who wants to know.
    pub listener: Option<Listener>,
    /// Who is told what went through them, for records.
    pub observer: Option<Arc<dyn StreamObserver>>,
}

impl Streams {
    /// Starts the threads.
    ///
    /// # Errors
    /// When a thread or a descriptor cannot be had.
    pub fn start(parts: Parts) -> Result<Self, Error> {
        let [output_bell, input_bell] = parts.bells;
        Ok(Self {
            output: Output::start(
                parts.memory.clone(),
                &parts.rings[0],
                output_bell,
                parts.ends.clone(),
                parts.interrupt.clone(),
                parts.listener.clone(),
                parts.observer.clone(),
            )?,
            input: Input::start(
                parts.memory,
                &parts.rings[1],
                input_bell,
                parts.ends,
                parts.interrupt,
                parts.listener,
                parts.observer,
            )?,
        })
    }

    /// Tells by [`Event::Flushed`] when what is queued is written.
    pub fn flush(&self) {
        self.output.flush();
    }

    /// Ends the threads, the output's when what is queued is written.
    pub fn close(&self) {
        self.input.stop();
        self.output.stop();
    }

    /// Writes what is queued, waits for that, and puts the terminal back as it was.
    pub fn finish(self) {
        self.output.finish();
    }
}

/// Sleeps until one of `fds` has what is asked of it; gives which have.
fn wait_for_any<const N: usize>(fds: [(BorrowedFd<'_>, PollFlags); N]) -> Result<[bool; N], Errno> {
    let mut fds = fds.map(|(fd, flags)| PollFd::new(fd, flags));
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => return Ok(fds.map(|fd| fd.any().unwrap_or(true))),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Sleeps until `fd` is ready.
fn wait_for(fd: BorrowedFd<'_>, flags: PollFlags) -> Result<(), Errno> {
    wait_for_any([(fd, flags)]).map(drop)
}
