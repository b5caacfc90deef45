//! Pipes and FIFOs (`pipe(7)`, `fifo(7)`).
//!
//! The bytes are in a [`Ring`] under a sleeping mutex, because they are copied straight between it and user
//! memory. What pollers and waiting threads look at (fill level, numbers of readers and writers) are atomics
//! beside it: each is written before its wait queue is woken, and read after registering there, both
//! sequentially consistent, so that no wake-up is lost.

mod fifo;
mod ring;
mod splice;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Release, SeqCst},
};

use husk_abi::linux::{general, ioctl};
use husk_hal::lock::full_barrier;

use super::anon::AnonInode;
use super::poll::PollTable;
use super::sigio::Band;
use super::{Attributes, File, FileKind, FileOps, FileRef, Inode, PollEvents, SetAttributes};
use crate::signal;
use crate::sync::{Interruptible, Mutex, MutexGuard, WaitQueue};
use crate::syscall::{OpenFlags, Ptr};
use crate::user::{IoBuf, UserAddr};
use crate::{Errno, Result, SysResult, Thread};

pub use fifo::open_fifo;
pub use ring::{PIPE_BUF, Ring};
pub use splice::{splice, tee, vmsplice};

/// Bytes a new pipe holds.
pub const DEFAULT_CAPACITY: usize = 65536;
/// The most `F_SETPIPE_SZ` gives without `CAP_SYS_RESOURCE` (`/proc/sys/fs/pipe-max-size`).
pub const MAX_CAPACITY: usize = 1 << 20;

/// The shared part of a pipe.
#[derive(Debug)]
pub struct Pipe {
    ring: Mutex<Ring>,
    /// [`Fill`] of the ring, both halves in one word so that an update is one atomic store.
    fill: AtomicU64,
    readers: AtomicU32,
    writers: AtomicU32,
    /// How often each end was opened: a FIFO's opener waits for a partner that may be gone again when it wakes.
    reader_opens: AtomicU32,
    writer_opens: AtomicU32,
    /// Somebody polls it: edge-triggered pollers want to hear of every write, not only of the first.
    is_polled: AtomicBool,
    read_queue: Arc<WaitQueue>,
    write_queue: Arc<WaitQueue>,
    open_queue: WaitQueue,
}

impl Default for Pipe {
    fn default() -> Self {
        Self::new()
    }
}

impl Pipe {
    /// An empty pipe that nobody has open.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ring: Mutex::new(Ring::new(DEFAULT_CAPACITY)),
            fill: AtomicU64::new(Fill::empty(DEFAULT_CAPACITY).pack()),
            readers: AtomicU32::new(0),
            writers: AtomicU32::new(0),
            reader_opens: AtomicU32::new(0),
            writer_opens: AtomicU32::new(0),
            is_polled: AtomicBool::new(false),
            read_queue: Arc::new(WaitQueue::new()),
            write_queue: Arc::new(WaitQueue::new()),
            open_queue: WaitQueue::new(),
        }
    }

    /// Bytes in the pipe.
    #[must_use]
    pub fn level(&self) -> usize {
        self.fill().used
    }

    /// Bytes a write can add.
    fn room(&self) -> usize {
        self.fill().free
    }

    fn fill(&self) -> Fill {
        Fill::unpack(self.fill.load(SeqCst))
    }

    /// Publishes what `ring` holds now, unlocks it and wakes whom the change since `before` concerns.
    fn announce(&self, ring: MutexGuard<'_, Ring>, before: Fill) {
        let after = Fill::of(&ring);
        self.fill.store(after.pack(), Release);
        drop(ring);
        full_barrier();
        let polled = self.is_polled.load(SeqCst);
        if after.used > before.used && (before.used == 0 || polled) {
            self.read_queue.wake_all();
        }
        // Writers of up to PIPE_BUF bytes wait for that much room, so that a reader of single bytes does
        // not wake them for each.
        let has_room = before.free < PIPE_BUF && after.free >= PIPE_BUF;
        if after.free > before.free && (has_room || polled) {
            self.write_queue.wake_all();
        }
    }

    fn has_readers(&self) -> bool {
        self.readers.load(SeqCst) > 0
    }

    fn has_writers(&self) -> bool {
        self.writers.load(SeqCst) > 0
    }

    /// Moves what is there into `buf`; `None` if there is nothing yet but writers.
    fn try_read(&self, buf: &mut IoBuf<'_>) -> Option<SysResult> {
        // Looked at before the bytes: a writer that writes and leaves in between is not missed.
        let has_writers = self.has_writers();
        let mut ring = self.ring.lock();
        let before = Fill::of(&ring);
        if before.used == 0 {
            return if has_writers { None } else { Some(Ok(0)) };
        }
        let result = ring.drain(buf);
        self.announce(ring, before);
        Some(result)
    }

    fn read(&self, t: &Thread, buf: &mut IoBuf<'_>, nonblocking: bool) -> SysResult {
        if buf.remaining() == 0 {
            return Ok(0);
        }
        loop {
            if let Some(result) = self.try_read(buf) {
                return result;
            }
            self.wait_readable(t, nonblocking)?;
        }
    }

    /// Sleeps until there are bytes or no writers.
    fn wait_readable(&self, t: &Thread, nonblocking: bool) -> Result<()> {
        if nonblocking {
            return Err(Errno::EAGAIN);
        }
        self.read_queue
            .wait(t, Interruptible::Yes, None, || {
                (self.level() > 0 || !self.has_writers()).then_some(())
            })
            .map_err(|error| error.errno(Errno::ERESTARTSYS))
    }

    /// Sleeps until `room` bytes fit or there are no readers.
    fn wait_writable(&self, t: &Thread, room: usize, nonblocking: bool) -> Result<()> {
        if nonblocking {
            return Err(Errno::EAGAIN);
        }
        self.write_queue
            .wait(t, Interruptible::Yes, None, || {
                (self.room() >= room || !self.has_readers()).then_some(())
            })
            .map_err(|error| error.errno(Errno::ERESTARTSYS))
    }

    /// One step of a write: how many bytes went in, 0 if there is no room for what must go in at once.
    fn try_write(&self, buf: &mut IoBuf<'_>, packets: bool) -> SysResult {
        let mut ring = self.ring.lock();
        let before = Fill::of(&ring);
        if before.free < write_room(buf, packets) {
            return Ok(0);
        }
        let result = if packets {
            ring.fill_packet(buf)
        } else {
            ring.fill(buf, buf.remaining())
        };
        self.announce(ring, before);
        result
    }

    fn write(&self, t: &Thread, buf: &mut IoBuf<'_>, flags: u32) -> SysResult {
        if buf.remaining() == 0 {
            return Ok(0);
        }
        let nonblocking = flags & general::O_NONBLOCK != 0;
        let packets = flags & general::O_DIRECT != 0;
        let mut written = 0;
        loop {
            if !self.has_readers() {
                signal::raise_sigpipe(t);
                return if written > 0 {
                    Ok(written)
                } else {
                    Err(Errno::EPIPE)
                };
            }
            let room = write_room(buf, packets);
            let step = match self.try_write(buf, packets) {
                Ok(0) => self.wait_writable(t, room, nonblocking).map(|()| 0),
                step => step,
            };
            match step {
                Ok(moved) => written += moved,
                Err(_) if written > 0 => return Ok(written),
                Err(error) => return Err(error),
            }
            if buf.remaining() == 0 {
                return Ok(written);
            }
        }
    }

    /// Capacity in bytes (`F_GETPIPE_SZ`).
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.ring.lock().capacity()
    }

    /// Changes the capacity to at least `wanted` bytes (`F_SETPIPE_SZ`); returns the new one.
    ///
    /// # Errors
    /// `EINVAL`, `EPERM`, `EBUSY`, `ENOMEM` as `fcntl(2)` says.
    pub fn set_capacity(&self, t: &Thread, wanted: u64) -> SysResult {
        let wanted = u32::try_from(wanted).map_err(|_| Errno::EINVAL)? as usize;
        if wanted > 1 << 31 {
            return Err(Errno::EINVAL);
        }
        let capacity = wanted.max(PIPE_BUF).next_power_of_two();
        let mut ring = self.ring.lock();
        if capacity > ring.capacity()
            && capacity > MAX_CAPACITY
            && !t.is_capable(general::CAP_SYS_RESOURCE)
        {
            return Err(Errno::EPERM);
        }
        let before = Fill::of(&ring);
        ring.set_capacity(capacity)?;
        self.announce(ring, before);
        Ok(capacity)
    }

    fn add_end(&self, reads: bool, writes: bool) {
        if reads {
            self.readers.fetch_add(1, SeqCst);
            self.reader_opens.fetch_add(1, SeqCst);
        }
        if writes {
            self.writers.fetch_add(1, SeqCst);
            self.writer_opens.fetch_add(1, SeqCst);
        }
        self.open_queue.wake_all();
    }

    fn remove_end(&self, reads: bool, writes: bool) {
        let readers_gone = reads && self.readers.fetch_sub(1, SeqCst) == 1;
        let writers_gone = writes && self.writers.fetch_sub(1, SeqCst) == 1;
        if readers_gone || writers_gone {
            self.read_queue.wake_all();
            self.write_queue.wake_all();
        }
        // A FIFO nobody has open is empty (and its memory free) when it is opened again. Whoever opens it now
        // cannot write before the lock is free.
        let mut ring = self.ring.lock();
        if !self.has_readers() && !self.has_writers() {
            let capacity = ring.capacity();
            *ring = Ring::new(capacity);
            self.fill.store(Fill::empty(capacity).pack(), SeqCst);
        }
    }
}

/// Bytes that must fit before the next part of `buf` is written: up to [`PIPE_BUF`] all of them, of more any
/// number, of packets the next packet.
fn write_room(buf: &IoBuf<'_>, packets: bool) -> usize {
    let left = buf.remaining();
    if packets {
        left.min(PIPE_BUF)
    } else if buf.done() == 0 && left <= PIPE_BUF {
        left
    } else {
        1
    }
}

/// How full a ring is, in bytes. A pipe holds less than 4 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fill {
    used: usize,
    free: usize,
}

impl Fill {
    fn empty(capacity: usize) -> Self {
        Self {
            used: 0,
            free: capacity,
        }
    }

    fn pack(self) -> u64 {
        (self.used as u64) << 32 | self.free as u64
    }

    fn unpack(word: u64) -> Self {
        Self {
            used: (word >> 32) as usize,
            free: (word & 0xffff_ffff) as usize,
        }
    }

    fn of(ring: &Ring) -> Self {
        Self {
            used: ring.used(),
            free: ring.free(),
        }
    }
}

/// An open end of a pipe; of a FIFO opened `O_RDWR`, both.
#[derive(Debug)]
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    reads: bool,
    writes: bool,
    /// A FIFO's reader that has not yet seen a writer is not told of a hang-up: the writer openings before it.
    hup_after: u32,
}

impl PipeEnd {
    fn new(pipe: &Arc<Pipe>, reads: bool, writes: bool) -> Arc<Self> {
        let hup_after = if pipe.has_writers() {
            u32::MAX
        } else {
            pipe.writer_opens.load(SeqCst)
        };
        pipe.add_end(reads, writes);
        Arc::new(Self {
            pipe: pipe.clone(),
            reads,
            writes,
            hup_after,
        })
    }

    /// The pipe, for `fcntl(2)` and `splice(2)`.
    #[must_use]
    pub fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        self.pipe.remove_end(self.reads, self.writes);
    }
}

/// The pipe behind `file`, or `None` if it is none.
#[must_use]
pub fn of_file(file: &File) -> Option<&Arc<Pipe>> {
    file.ops
        .as_any()
        .downcast_ref::<PipeEnd>()
        .map(PipeEnd::pipe)
}

impl FileOps for PipeEnd {
    fn read(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        self.pipe.read(t, buf, file.is_nonblocking())
    }

    fn write(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        self.pipe.write(t, buf, file.flags())
    }

    fn poll(&self, _t: &Thread, _file: &File, table: Option<&mut PollTable<'_>>) -> PollEvents {
        let pipe = &self.pipe;
        if let Some(table) = table {
            pipe.is_polled.store(true, SeqCst);
            if self.reads {
                table.register(&pipe.read_queue);
            }
            if self.writes {
                table.register(&pipe.write_queue);
            }
        }
        let mut events = PollEvents::empty();
        if self.reads {
            if pipe.level() > 0 {
                events |= PollEvents::IN | PollEvents::RDNORM;
            }
            if !pipe.has_writers() && pipe.writer_opens.load(SeqCst) != self.hup_after {
                events |= PollEvents::HUP;
            }
        }
        if self.writes {
            if pipe.room() >= PIPE_BUF {
                events |= PollEvents::OUT | PollEvents::WRNORM;
            }
            if !pipe.has_readers() {
                events |= PollEvents::ERR;
            }
        }
        events
    }

    fn async_queues(&self) -> Vec<(Arc<WaitQueue>, Band)> {
        let pipe = &self.pipe;
        pipe.is_polled.store(true, SeqCst);
        let reads = self.reads.then(|| (pipe.read_queue.clone(), Band::In));
        let writes = self.writes.then(|| (pipe.write_queue.clone(), Band::Out));
        reads.into_iter().chain(writes).collect()
    }

    fn ioctl(&self, _t: &Thread, _file: &File, request: u32, arg: u64) -> SysResult {
        match request {
            ioctl::FIONREAD => {
                UserAddr(arg).write(&(self.pipe.level() as i32))?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// The inode of an unnamed pipe. Opening `/proc/self/fd/N` of one gives a new end of the same pipe.
#[derive(Debug)]
pub struct PipeInode {
    anon: AnonInode,
    pipe: Arc<Pipe>,
}

impl Inode for PipeInode {
    fn attributes(&self) -> Attributes {
        self.anon.attributes()
    }

    fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        self.anon.set_attributes(change)
    }

    fn open(self: Arc<Self>, thread: &Thread, flags: u32) -> Result<Arc<dyn FileOps>> {
        fifo::reopen(thread, &self.pipe, flags)
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// Makes a pipe: its reading and its writing end. `flags` are the `O_*` flags both get besides their access.
#[must_use]
pub fn create(t: &Thread, flags: u32) -> (FileRef, FileRef) {
    let inode = Arc::new(PipeInode {
        anon: AnonInode::new(t, FileKind::Fifo, 0o600),
        pipe: Arc::new(Pipe::new()),
    });
    let path = inode.anon.link_name("pipe");
    let reader = PipeEnd::new(&inode.pipe, true, false);
    let writer = PipeEnd::new(&inode.pipe, false, true);
    (
        File::new(
            reader,
            inode.clone(),
            path.clone(),
            flags & general::O_NONBLOCK | general::O_RDONLY,
        ),
        File::new(writer, inode, path, flags | general::O_WRONLY),
    )
}

/// `pipe(2)`.
///
/// # Errors
/// `EFAULT`, `EMFILE`.
pub fn pipe(t: &Thread, pipefd: Ptr) -> SysResult {
    pipe2(t, pipefd, 0)
}

/// `pipe2(2)`.
///
/// # Errors
/// `EINVAL` for other flags than `O_CLOEXEC`, `O_NONBLOCK`, `O_DIRECT`; `EFAULT`, `EMFILE`.
pub fn pipe2(t: &Thread, pipefd: Ptr, flags: OpenFlags) -> SysResult {
    if flags & !(general::O_CLOEXEC | general::O_NONBLOCK | general::O_DIRECT) != 0 {
        return Err(Errno::EINVAL);
    }
    let cloexec = flags & general::O_CLOEXEC != 0;
    let (reader, writer) = create(t, flags & !general::O_CLOEXEC);
    let files = t.files();
    let read_fd = files.alloc(t, reader, cloexec)?;
    let installed = files.alloc(t, writer, cloexec).and_then(|write_fd| {
        match pipefd.write(&[read_fd, write_fd]) {
            Ok(()) => Ok(0),
            Err(error) => {
                let _ = files.close(write_fd);
                Err(error)
            }
        }
    });
    if installed.is_err() {
        let _ = files.close(read_fd);
    }
    installed
}

#[cfg(test)]
mod tests;
