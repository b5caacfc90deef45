//! Output: a thread that writes what the guest queued, in order.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use husk_abi::boundary::boot::Virtqueue;
use husk_abi::boundary::stdio::{MAX_PAYLOAD, OutHeader};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use virtio_queue::{DescriptorChain, Queue, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use crate::confine::{self, rules::Role};
use crate::gate::{Error, Interrupt, StreamObserver, Transfer, queue};
use crate::vmm::GuestMemory;

/// The output service.
#[derive(Debug)]
pub struct Output {
    event: EventFd,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

struct Worker {
    memory: GuestMemory,
    queue: Queue,
    interrupt: Arc<dyn Interrupt>,
    observer: Option<Arc<dyn StreamObserver>>,
    /// Errno of a stream that failed, by number; it stays failed.
    failed: [u32; 3],
}

impl Output {
    /// Starts the thread; `event` is the queue's doorbell.
    pub fn start(
        memory: GuestMemory,
        rings: &Virtqueue,
        event: EventFd,
        interrupt: Arc<dyn Interrupt>,
        observer: Option<Arc<dyn StreamObserver>>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Start {
            service: "stdio",
            source,
        };
        let queue = queue::open(&memory, rings, "stdio output")?;
        let doorbell = event.try_clone().map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut worker = Worker {
            memory,
            queue,
            interrupt,
            observer,
            failed: [0; 3],
        };
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("stdout".into())
            .spawn(move || {
                confine::enter_thread(Role::Output);
                while doorbell.read().is_ok() {
                    worker.serve();
                    if stopped.load(Ordering::Acquire) {
                        break;
                    }
                }
            })
            .map_err(failed)?;
        Ok(Self {
            event,
            stop,
            thread,
        })
    }

    /// Writes what is queued and ends the thread.
    pub fn finish(self) {
        self.stop.store(true, Ordering::Release);
        if self.event.write(1).is_ok() {
            let _ = self.thread.join();
        }
    }
}

impl Worker {
    fn serve(&mut self) {
        let memory = self.memory.clone();
        let mut answered = false;
        while let Some(chain) = self.queue.pop_descriptor_chain(&*memory) {
            let head = chain.head_index();
            let errno = self.write_chain(chain);
            answered |= self.queue.add_used(&*memory, head, errno).is_ok();
        }
        if answered && self.queue.needs_notification(&*memory).unwrap_or(true) {
            self.interrupt.interrupt();
        }
    }

    /// Writes one buffer to its stream; returns 0 or an errno.
    fn write_chain(&mut self, chain: DescriptorChain<&GuestMemoryMmap>) -> u32 {
        const INVALID: u32 = libc::EINVAL as u32;
        let memory = self.memory.clone();
        let Ok(mut reader) = chain.reader(&*memory) else {
            return INVALID;
        };
        let mut header = [0; size_of::<OutHeader>()];
        if io::Read::read_exact(&mut reader, &mut header).is_err() {
            return INVALID;
        }
        let stream = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let len = reader.available_bytes();
        if !(1..=2).contains(&stream) || len > MAX_PAYLOAD {
            return INVALID;
        }
        let failed = &mut self.failed[stream as usize];
        if *failed == 0 {
            // A copy: the guest may change the buffer while it is written.
            let mut bytes = vec![0; len];
            if io::Read::read_exact(&mut reader, &mut bytes).is_err() {
                return INVALID;
            }
            let begun = Instant::now();
            if let Err(errno) = write_all(stream as i32, &bytes) {
                *failed = errno as i32 as u32;
            }
            if let Some(observer) = &self.observer {
                observer.transferred(Transfer {
                    stream,
                    bytes: len,
                    errno: *failed,
                    duration: begun.elapsed(),
                });
            }
        }
        *failed
    }
}

/// Writes everything, waiting where the descriptor is non-blocking.
fn write_all(fd: i32, mut bytes: &[u8]) -> Result<(), Errno> {
    let fd = super::input::standard(fd);
    while !bytes.is_empty() {
        match nix::unistd::write(fd, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => wait_for(fd, PollFlags::POLLOUT)?,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Sleeps until `fd` is ready.
pub(super) fn wait_for(fd: BorrowedFd<'_>, flags: PollFlags) -> Result<(), Errno> {
    loop {
        match poll(&mut [PollFd::new(fd, flags)], PollTimeout::NONE) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
