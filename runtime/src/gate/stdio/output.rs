//! Output: a thread that writes what the guest queued, in order.
#![allow(unsafe_code, reason = "ioctls for a terminal's settings")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use husk_abi::boundary::boot::Virtqueue;
use husk_abi::boundary::stdio::{
    CONTROL_BYTES, MAX_PAYLOAD, OUT_CONTROL, OUT_SETTINGS, OUT_WRITE, OutHeader, SETTINGS_BYTES,
};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::signal::{SigSet, Signal};
use virtio_queue::{DescriptorChain, Queue, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::{Ends, Event, Listener, StreamObserver, Transfer, wait_for};
use crate::confine::{self, rules::Role};
use crate::gate::{Error, Interrupt, queue};
use crate::vmm::GuestMemory;

/// The output service.
#[derive(Debug)]
pub struct Output {
    event: EventFd,
    wishes: Arc<Wishes>,
    thread: JoinHandle<()>,
}

/// What the thread shall do besides.
#[derive(Debug, Default)]
struct Wishes {
    stop: AtomicBool,
    flush: AtomicBool,
}

/// A terminal's settings as the kernel has them.
type Settings = [u8; SETTINGS_BYTES];

struct Worker {
    memory: GuestMemory,
    queue: Queue,
    interrupt: Arc<dyn Interrupt>,
    /// Errno of a stream that failed, by number; it stays failed.
    failed: [u32; 3],
    ends: Ends,
    observer: Option<Arc<dyn StreamObserver>>,
    /// What a terminal had before the guest changed it, and its stream.
    before: Option<(usize, Settings)>,
}

impl Output {
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
        let queue = queue::open(&memory, rings, "stdio output")?;
        let doorbell = event.try_clone().map_err(failed)?;
        let wishes = Arc::new(Wishes::default());
        let mut worker = Worker {
            memory,
            queue,
            interrupt,
            failed: [0; 3],
            ends,
            observer,
            before: None,
        };
        let wished = wishes.clone();
        let thread = std::thread::Builder::new()
            .name("stdout".into())
            .spawn(move || {
                // A process in the background may not change its terminal, if that signal is not blocked.
                let _ = SigSet::from(Signal::SIGTTOU).thread_block();
                confine::enter_thread(Role::Output);
                while doorbell.read().is_ok() {
                    let stops = wished.stop.load(Ordering::Acquire);
                    let flushes = wished.flush.swap(false, Ordering::AcqRel);
                    worker.serve();
                    if flushes && let Some(listener) = &listener {
                        listener(Event::Flushed);
                    }
                    if stops {
                        break;
                    }
                }
                worker.restore();
                drop(worker);
                if let Some(listener) = listener {
                    listener(Event::OutputEnded);
                }
            })
            .map_err(failed)?;
        Ok(Self {
            event,
            wishes,
            thread,
        })
    }

    /// Tells when what is queued is written.
    pub fn flush(&self) {
        self.wishes.flush.store(true, Ordering::Release);
        let _ = self.event.write(1);
    }

    /// Ends the thread when what is queued is written.
    pub fn stop(&self) {
        self.wishes.stop.store(true, Ordering::Release);
        let _ = self.event.write(1);
    }

    /// Writes what is queued and ends the thread.
    pub fn finish(self) {
        self.stop();
        let _ = self.thread.join();
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
        let op = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let len = reader.available_bytes();
        if op == OUT_SETTINGS && len == SETTINGS_BYTES {
            let mut settings = [0; SETTINGS_BYTES];
            let read = io::Read::read_exact(&mut reader, &mut settings);
            return match read.map(|()| self.set_settings(stream, &settings)) {
                Ok(Ok(())) => 0,
                Ok(Err(errno)) => errno as i32 as u32,
                Err(_) => INVALID,
            };
        }
        if op == OUT_CONTROL && len == CONTROL_BYTES {
            let mut words = [0; CONTROL_BYTES];
            if io::Read::read_exact(&mut reader, &mut words).is_err() {
                return INVALID;
            }
            let done = self.control(stream, &words);
            return done.map_or_else(|errno| errno as i32 as u32, |()| 0);
        }
        if op != OUT_WRITE || !(1..=2).contains(&stream) || len > MAX_PAYLOAD {
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
            let written = self.ends[stream as usize]
                .fd()
                .and_then(|fd| write_all(fd, &bytes));
            if let Err(errno) = written {
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

    /// Gives the terminal behind `stream` other settings.
    fn set_settings(&mut self, stream: u32, settings: &Settings) -> Result<(), Errno> {
        let stream = stream as usize;
        let fd = self.ends.get(stream).ok_or(Errno::EINVAL)?.fd()?;
        let mut old = [0; SETTINGS_BYTES];
        // SAFETY: the request fills a `struct termios` of this size.
        Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TCGETS, old.as_mut_ptr()) })?;
        self.before.get_or_insert((stream, old));
        put_settings(fd, settings)
    }

    /// Has the terminal behind `stream` throw away what it holds, or waits until it holds nothing.
    fn control(&self, stream: u32, words: &[u8; CONTROL_BYTES]) -> Result<(), Errno> {
        let [request, argument] = [&words[..4], &words[4..]].map(|bytes| {
            let word = bytes.first_chunk().copied().unwrap_or_default();
            libc::c_ulong::from(u32::from_le_bytes(word))
        });
        if ![libc::TCFLSH, libc::TCSBRK].contains(&request) {
            return Err(Errno::EINVAL);
        }
        let fd = self.ends.get(stream as usize).ok_or(Errno::EINVAL)?.fd()?;
        // SAFETY: the argument of both requests is a number.
        Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) }).map(drop)
    }

    /// Puts a terminal back as it was.
    fn restore(&mut self) {
        if let Some((stream, settings)) = self.before.take()
            && let Ok(fd) = self.ends[stream].fd()
        {
            let _ = put_settings(fd, &settings);
        }
    }
}

fn put_settings(fd: BorrowedFd<'_>, settings: &Settings) -> Result<(), Errno> {
    // SAFETY: the request reads a `struct termios` of this size.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TCSETS, settings.as_ptr()) }).map(drop)
}

/// Writes everything, waiting where the descriptor is non-blocking.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
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
