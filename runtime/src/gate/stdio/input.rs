//! Input: a thread that reads from the host when the guest asks, never ahead of it.
#![allow(
    unsafe_code,
    reason = "the process's own standard descriptors, borrowed by number"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use husk_abi::boundary::boot::Virtqueue;
use husk_abi::boundary::stdio::{IN_READ, IN_WAIT, InReply, InRequest, MAX_PAYLOAD};
use nix::errno::Errno;
use nix::poll::PollFlags;
use virtio_queue::{DescriptorChain, Queue, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::{Ends, Event, Listener, StreamObserver, Transfer, wait_for_any};
use crate::confine::{self, rules::Role};
use crate::gate::{Error, Interrupt, queue};
use crate::vmm::GuestMemory;

/// The input service.
#[derive(Debug)]
pub struct Input {
    stop: EventFd,
}

/// What its thread works with.
struct Worker {
    memory: GuestMemory,
    queue: Queue,
    ends: Ends,
    interrupt: Arc<dyn Interrupt>,
    observer: Option<Arc<dyn StreamObserver>>,
    event: EventFd,
    stop: EventFd,
}

/// One of the process's standard descriptors.
pub(super) fn standard(fd: i32) -> BorrowedFd<'static> {
    assert!((0..=2).contains(&fd));
    // SAFETY: descriptors 0 to 2 are never closed by husk; one that its caller had closed is an error of each call.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

impl Input {
    /// Starts the thread; `event` is the queue's doorbell.
    pub fn start(
        memory: GuestMemory,
        rings: &Virtqueue,
        event: EventFd,
        ends: Ends,
        interrupt: Arc<dyn Interrupt>,
        listener: Option<Listener>,
        observer: Option<Arc<dyn StreamObserver>>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Start {
            service: "stdio",
            source,
        };
        let queue = queue::open(&memory, rings, "stdio input")?;
        let stop = EventFd::new(0).map_err(failed)?;
        let mut worker = Worker {
            memory,
            queue,
            ends,
            interrupt,
            observer,
            event,
            stop: stop.try_clone().map_err(failed)?,
        };
        std::thread::Builder::new()
            .name("stdin".into())
            .spawn(move || {
                confine::enter_thread(Role::Input);
                worker.run();
                drop(worker);
                if let Some(listener) = listener {
                    listener(Event::InputEnded);
                }
            })
            .map_err(failed)?;
        Ok(Self { stop })
    }

    /// Ends the thread, unless it is asleep in a read: then with that.
    pub fn stop(&self) {
        let _ = self.stop.write(1);
    }
}

fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the event is open as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

impl Worker {
    fn run(&mut self) {
        loop {
            let fds = [&self.event, &self.stop].map(|event| (borrow(event), PollFlags::POLLIN));
            match wait_for_any(fds) {
                Ok([true, false]) if self.event.read().is_ok() => self.serve(),
                _ => return,
            }
        }
    }

    fn serve(&mut self) {
        let memory = self.memory.clone();
        while let Some(chain) = self.queue.pop_descriptor_chain(&*memory) {
            let head = chain.head_index();
            let len = self.answer(chain).unwrap_or(0);
            if self.queue.add_used(&*memory, head, len).is_ok() {
                self.interrupt.interrupt();
            }
        }
    }

    /// Serves one request; returns the bytes written into the chain, or `None` if the chain is malformed.
    fn answer(&self, chain: DescriptorChain<&GuestMemoryMmap>) -> Option<u32> {
        let memory = &self.memory;
        let mut reader = chain.clone().reader(memory).ok()?;
        let mut writer = chain.writer(memory).ok()?;
        let mut request = [0; size_of::<InRequest>()];
        io::Read::read_exact(&mut reader, &mut request).ok()?;
        let word = |at: usize| {
            u32::from_le_bytes([
                request[at],
                request[at + 1],
                request[at + 2],
                request[at + 3],
            ])
        };
        let (op, len) = (word(0), word(4));
        let room = writer.available_bytes().checked_sub(size_of::<InReply>())?;
        let begun = Instant::now();
        let outcome = match op {
            IN_WAIT => self.wait().map(|()| Vec::new()),
            IN_READ => self.read((len as usize).min(room).min(MAX_PAYLOAD)),
            _ => Err(Errno::EINVAL),
        };
        let (error, bytes) = match outcome {
            Ok(bytes) => (0, bytes),
            Err(errno) => (errno as i32 as u32, Vec::new()),
        };
        if op == IN_READ
            && let Some(observer) = &self.observer
        {
            observer.transferred(Transfer {
                stream: 0,
                bytes: bytes.len(),
                errno: error,
                duration: begun.elapsed(),
            });
        }
        let mut reply = error.to_le_bytes().to_vec();
        reply.extend_from_slice(&u32::try_from(bytes.len()).ok()?.to_le_bytes());
        reply.extend_from_slice(&bytes);
        io::Write::write_all(&mut writer, &reply).ok()?;
        u32::try_from(reply.len()).ok()
    }

    /// Sleeps until there is something to read.
    fn wait(&self) -> Result<(), Errno> {
        let fds = [
            (self.ends[0].fd()?, PollFlags::POLLIN),
            (borrow(&self.stop), PollFlags::POLLIN),
        ];
        match wait_for_any(fds)? {
            [_, true] => Err(Errno::ECANCELED),
            _ => Ok(()),
        }
    }

    fn read(&self, len: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; len];
        loop {
            self.wait()?;
            match nix::unistd::read(self.ends[0].fd()?, &mut bytes) {
                Ok(got) => {
                    bytes.truncate(got);
                    return Ok(bytes);
                }
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}
