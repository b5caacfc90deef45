//! FIFOs and sockets of the host: bytes that go through the VMM, one request each.
//!
//! Nothing waits in the VMM. Who has to wait asks what is ready, which also orders word of what is not, and sleeps until that
//! comes. What nobody can give word of, a partner that opens a FIFO or room in a listener's queue, is asked for again and again,
//! more and more slowly.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};

use husk_abi::boundary::fuse::{CHANNELS_OFFSET, MAX_CHANNEL_DATA, MAX_CHANNELS};
use husk_abi::linux::general;
use husk_hal::phys::{self, Frame};

use super::calls;
use super::node::Node;
use crate::fs::poll::PollTable;
use crate::fs::{File, FileKind, FileOps, Inode, PollEvents};
use crate::net::{Patience, Shutdown};
use crate::sync::{Interruptible, SpinLock, WaitError, WaitQueue};
use crate::user::IoBuf;
use crate::{Errno, Kernel, Result, Thread, signal};

/// Pauses between two questions nobody gives word about, in nanoseconds: the first, and the longest.
pub(crate) const FIRST_PAUSE_NS: u64 = 1_000_000;
pub(crate) const LONGEST_PAUSE_NS: u64 = 50_000_000;

/// All channels that are open.
#[derive(Debug, Default)]
pub struct Channels(SpinLock<BTreeMap<u32, Weak<Channel>>>);

impl Channels {
    /// Wakes who waits for channels that the VMM says have become ready.
    pub fn poll(&self, events_gpa: u64) {
        for word in 0..MAX_CHANNELS as u32 / 64 {
            let at = events_gpa + CHANNELS_OFFSET + u64::from(word) * 8;
            let (frame, offset) = (Frame::containing(at), (at % 4096) as usize);
            if phys::load_u64(frame, offset) == 0 {
                continue;
            }
            let bits = phys::swap_u64(frame, offset, 0);
            for bit in (0..64).filter(|bit| bits >> bit & 1 == 1) {
                let found = self.0.lock().get(&(word * 64 + bit)).cloned();
                if let Some(channel) = found.and_then(|channel| channel.upgrade()) {
                    channel.changed.wake_all();
                }
            }
        }
    }
}

/// An open FIFO or connected socket of the host.
#[derive(Debug)]
pub struct Channel {
    pub(super) kernel: &'static Kernel,
    /// Whose it is; the VMM knows it as long as it is held. `None` for what was handed over.
    node: Option<Arc<Node>>,
    id: u32,
    /// Woken when something may have become ready.
    pub changed: Arc<WaitQueue>,
    /// User and group of who listens, for a socket.
    pub peer: (u32, u32),
}

impl Channel {
    /// Opens the FIFO with `flags`, or connects a socket of type `kind` (0 for a FIFO).
    ///
    /// # Errors
    /// As opening or connecting without waiting: `ENXIO`, `EAGAIN`, `ECONNREFUSED`, `EPROTOTYPE`.
    fn open(node: &Arc<Node>, flags: u32, kind: u32) -> Result<Arc<Self>> {
        let kernel = node.kernel();
        let (id, peer) = calls::channel_open(kernel, node.id(), flags, kind)?;
        Ok(Self::enter(kernel, Some(node.clone()), id, peer))
    }

    /// Keeps channel `id` where word of it finds it.
    pub(super) fn enter(
        kernel: &'static Kernel,
        node: Option<Arc<Node>>,
        id: u32,
        peer: (u32, u32),
    ) -> Arc<Self> {
        let channel = Arc::new(Self {
            kernel,
            node,
            id,
            changed: Arc::default(),
            peer,
        });
        let mut channels = kernel.fs.channels.0.lock();
        channels.insert(id, Arc::downgrade(&channel));
        drop(channels);
        channel
    }

    /// Its node, 0 if it has none, and its number.
    pub(super) fn place(&self) -> (u64, u32) {
        (self.node.as_ref().map_or(0, |node| node.id()), self.id)
    }

    /// Reads what there is; with `peek` it stays.
    ///
    /// # Errors
    /// `EAGAIN` if there is nothing.
    pub fn read(&self, buf: &mut IoBuf<'_>, peek: bool) -> Result<usize> {
        let len = buf.remaining().min(MAX_CHANNEL_DATA);
        let bytes = calls::channel_read(self.kernel, self.place(), len, peek)?;
        buf.put(&bytes)
    }

    /// Reads one message, however long.
    ///
    /// # Errors
    /// `EAGAIN` if there is none.
    pub fn read_message(&self, peek: bool) -> Result<alloc::vec::Vec<u8>> {
        calls::channel_read(self.kernel, self.place(), MAX_CHANNEL_DATA, peek)
    }

    /// Writes `bytes`, or as many as there is room for.
    ///
    /// # Errors
    /// `EAGAIN` if there is no room; `EPIPE`.
    pub fn write(&self, bytes: &[u8]) -> Result<usize> {
        calls::channel_write(self.kernel, self.place(), bytes)
    }

    /// Shuts a socket's halves.
    ///
    /// # Errors
    /// As `shutdown(2)`.
    pub fn shut(&self, how: Shutdown) -> Result<()> {
        let how = match how {
            Shutdown::Read => 0,
            Shutdown::Write => 1,
            Shutdown::Both => 2,
        };
        calls::channel_shut(self.kernel, self.place(), how)
    }

    /// What is ready now; what is not wakes [`Channel::changed`] once it is.
    pub fn ready(&self) -> PollEvents {
        calls::channel_poll(self.kernel, self.place(), false)
            .map_or(PollEvents::ERR, |(events, _)| spread(events))
    }

    /// Repeats `attempt` while it is `EAGAIN`, sleeping for `events` between.
    ///
    /// # Errors
    /// `attempt`'s, or as [`Patience::wait`].
    pub fn wait<T>(
        &self,
        t: &Thread,
        patience: Patience,
        events: PollEvents,
        mut attempt: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let events = events | PollEvents::HUP | PollEvents::ERR;
        let mut again = || {
            // What became ready between the attempt and the question is tried at once.
            for _ in 0..3 {
                match attempt() {
                    Err(Errno::EAGAIN) => {}
                    other => return Some(other),
                }
                if patience == Patience::Never || !self.ready().intersects(events) {
                    break;
                }
            }
            None
        };
        patience.wait(t, &self.changed, &mut again)?
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // The VMM gives the number out again only after it has closed the channel.
        self.kernel.fs.channels.0.lock().remove(&self.id);
        // A channel that is gone already needs no closing.
        let _ = calls::channel_close(self.kernel, self.place());
    }
}

/// The host's bits, and those that mean the same.
fn spread(events: u32) -> PollEvents {
    let mut events = PollEvents::from_bits_truncate(events);
    events.set(PollEvents::RDNORM, events.contains(PollEvents::IN));
    events.set(PollEvents::WRNORM, events.contains(PollEvents::OUT));
    events
}

/// The pauses of a wait that nobody ends but the one who waits.
#[derive(Debug)]
pub(crate) struct Pauses {
    queue: WaitQueue,
    next_ns: u64,
}

impl Pauses {
    pub(crate) fn new() -> Self {
        Self {
            queue: WaitQueue::new(),
            next_ns: FIRST_PAUSE_NS,
        }
    }

    /// How long the next pause is.
    pub(crate) fn next_ns(&mut self) -> u64 {
        let pause = self.next_ns;
        self.next_ns = (pause * 2).min(LONGEST_PAUSE_NS);
        pause
    }

    /// Sleeps, longer than before.
    ///
    /// # Errors
    /// `ERESTARTSYS` for a signal.
    pub(crate) fn sleep(&mut self, t: &Thread) -> Result<()> {
        let until = husk_hal::clock::now_ns().saturating_add(self.next_ns());
        let never = || None::<()>;
        match self.queue.wait(t, Interruptible::Yes, Some(until), never) {
            Err(WaitError::Interrupted) => Err(Errno::ERESTARTSYS),
            _ => Ok(()),
        }
    }
}

/// Opens a FIFO of the host as `open(2)` does: a reader waits for a writer and the other way round, unless `flags` have
/// `O_NONBLOCK`.
///
/// # Errors
/// `ENXIO` (only writing, not blocking, no reader), `ERESTARTSYS`, what opening on the host gives.
pub(super) fn open_fifo(t: &Thread, node: &Arc<Node>, flags: u32) -> Result<Arc<dyn FileOps>> {
    let nonblocking = flags & general::O_NONBLOCK != 0;
    let access = flags & general::O_ACCMODE;
    let mut pauses = Pauses::new();
    let channel = loop {
        match Channel::open(node, access, 0) {
            Err(Errno::ENXIO) if !nonblocking && access == general::O_WRONLY => pauses.sleep(t)?,
            other => break other?,
        }
    };
    if access == general::O_RDONLY && !nonblocking {
        // A writer that came and went meanwhile has left a hang-up.
        let met = |(events, partner): (u32, bool)| {
            partner || events & (general::POLLIN | general::POLLHUP) != 0
        };
        while !met(calls::channel_poll(node.kernel(), channel.place(), true)?) {
            pauses.sleep(t)?;
        }
    }
    Ok(Arc::new(Fifo { channel }))
}

/// Connects a socket of type `kind` to the one `inode` is, if a host's server may be listening there.
///
/// # Errors
/// `ECONNREFUSED` if it is no file of a tree that others use, too; as `connect(2)`; `ERESTARTSYS`.
pub fn connect(
    t: &Thread,
    inode: &Arc<dyn Inode>,
    kind: u32,
    patience: Patience,
) -> Result<Arc<Channel>> {
    let node = inode
        .as_any()
        .downcast_ref::<Node>()
        .filter(|node| !node.is_exclusive() && node.kind() == FileKind::Socket)
        .ok_or(Errno::ECONNREFUSED)?
        .arc();
    let mut pauses = Pauses::new();
    loop {
        match Channel::open(&node, 0, kind) {
            // The listener's queue is full.
            Err(Errno::EAGAIN) if patience != Patience::Never => {
                if let Patience::Until(deadline) = patience
                    && husk_hal::clock::now_ns() >= deadline
                {
                    return Err(Errno::EAGAIN);
                }
                pauses.sleep(t)?;
            }
            other => return other,
        }
    }
}

/// An open FIFO of the host.
#[derive(Debug)]
pub(in crate::fs) struct Fifo {
    pub channel: Arc<Channel>,
}

fn patience(file: &File) -> Patience {
    Patience::new(file.is_nonblocking(), None)
}

impl FileOps for Fifo {
    fn read(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        if buf.remaining() == 0 {
            return Ok(0);
        }
        self.channel.wait(t, patience(file), PollEvents::IN, || {
            self.channel.read(buf, false)
        })
    }

    fn write(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        let written = write_all(t, &self.channel, patience(file), buf);
        if written == Err(Errno::EPIPE) {
            signal::raise_sigpipe(t);
        }
        written
    }

    fn poll(&self, _t: &Thread, _file: &File, table: Option<&mut PollTable<'_>>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.channel.changed);
        }
        self.channel.ready()
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// Writes all of `buf`, waiting for room as `patience` allows; less if that ends, or a signal comes, in the middle.
///
/// # Errors
/// What writing the first bytes gives.
pub fn write_all(
    t: &Thread,
    channel: &Channel,
    patience: Patience,
    buf: &mut IoBuf<'_>,
) -> Result<usize> {
    let mut done = 0;
    while buf.remaining() > 0 {
        let mut bytes = alloc::vec![0; buf.remaining().min(MAX_CHANNEL_DATA)];
        let got = buf.take(&mut bytes)?;
        let mut at = 0;
        while at < got {
            let attempt = || channel.write(&bytes[at..got]);
            match channel.wait(t, patience, PollEvents::OUT, attempt) {
                Ok(written) => {
                    at += written;
                    done += written;
                }
                Err(_) if done > 0 => return Ok(done),
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(done)
}
