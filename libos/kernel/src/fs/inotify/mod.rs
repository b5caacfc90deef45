//! File events (`inotify(7)`).
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | an inotify instance: the queue a program reads |
//! | `watches.rs` | which files are watched by whom |
//! | `notify.rs` | what the file calls tell when they have done something |
//! | `calls.rs` | the system calls |
//!
//! Only what processes of this container do is told; what the host does to a volume is not.

mod calls;
pub mod notify;
mod watches;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt::Write;

use husk_abi::linux::{general, ioctl};

use super::poll::PollTable;
use super::{File, FileOps, PollEvents};
use crate::sync::{Interruptible, SpinLock, WaitQueue};
use crate::user::{IoBuf, UserAddr};
use crate::{Errno, Result, SysResult, Thread};

pub use calls::{inotify_add_watch, inotify_init, inotify_init1, inotify_rm_watch};
pub use notify::Events;
use watches::Watch;
pub use watches::Watches;

/// Events a queue holds before it overflows (`fs.inotify.max_queued_events`).
pub const MAX_QUEUED: usize = 16384;
/// Instances a user may have (`fs.inotify.max_user_instances`).
pub const MAX_INSTANCES: usize = 128;
/// Watches of all instances together (`fs.inotify.max_user_watches`).
pub const MAX_WATCHES: usize = 65536;

/// Bytes of a `struct inotify_event` without the name.
const HEADER: usize = size_of::<general::inotify_event>();

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    /// The watch that saw it; -1 of an overflow.
    wd: i32,
    mask: Events,
    /// Joins the two halves of a rename; 0 of everything else.
    cookie: u32,
    /// Name in the watched directory; empty if it happened to the watched file itself.
    name: Vec<u8>,
}

impl Event {
    /// Bytes of its name as a program gets it: ended and filled up with zeros.
    fn name_bytes(&self) -> usize {
        if self.name.is_empty() {
            0
        } else {
            (self.name.len() + 1).next_multiple_of(HEADER)
        }
    }

    fn bytes(&self) -> usize {
        HEADER + self.name_bytes()
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes());
        bytes.extend_from_slice(&self.wd.to_ne_bytes());
        bytes.extend_from_slice(&self.mask.bits().to_ne_bytes());
        bytes.extend_from_slice(&self.cookie.to_ne_bytes());
        bytes.extend_from_slice(&(self.name_bytes() as u32).to_ne_bytes());
        bytes.extend_from_slice(&self.name);
        bytes.resize(self.bytes(), 0);
        bytes
    }

    /// Whether it says no more than `last`, the one queued before it.
    fn repeats(&self, last: &Self) -> bool {
        !last.mask.contains(Events::IGNORED)
            && (self.wd, self.mask, &self.name) == (last.wd, last.mask, &last.name)
    }
}

/// An inotify instance.
#[derive(Debug)]
pub struct Inotify {
    weak: Weak<Inotify>,
    /// The user whose limit it counts against.
    uid: u32,
    registry: Arc<Watches>,
    events: SpinLock<VecDeque<Event>>,
    watches: SpinLock<Descriptors>,
    queue: Arc<WaitQueue>,
}

/// An instance's watches by descriptor.
#[derive(Debug, Default)]
struct Descriptors {
    map: BTreeMap<i32, Arc<Watch>>,
    /// The last number given. They are not used again before all others were.
    last: i32,
}

impl Descriptors {
    fn next(&mut self) -> i32 {
        loop {
            self.last = self.last.checked_add(1).unwrap_or(1);
            if !self.map.contains_key(&self.last) {
                return self.last;
            }
        }
    }
}

impl Inotify {
    fn new(uid: u32, registry: Arc<Watches>) -> Arc<Self> {
        Arc::new_cyclic(|weak| Self {
            weak: weak.clone(),
            uid,
            registry,
            events: SpinLock::new(VecDeque::new()),
            watches: SpinLock::new(Descriptors::default()),
            queue: Arc::new(WaitQueue::new()),
        })
    }

    /// Puts `event` at the queue's end, unless it repeats the last one or the queue is full.
    fn queue(&self, event: Event) {
        {
            let mut events = self.events.lock();
            if events.back().is_some_and(|last| event.repeats(last)) {
                return;
            }
            if events.len() >= MAX_QUEUED {
                let overflow = Event {
                    wd: -1,
                    mask: Events::Q_OVERFLOW,
                    cookie: 0,
                    name: Vec::new(),
                };
                if events.back() == Some(&overflow) {
                    return;
                }
                events.push_back(overflow);
            } else {
                events.push_back(event);
            }
        }
        self.queue.wake_all();
    }

    /// The next event, if it fits `room` bytes; `None` if there is none.
    ///
    /// # Errors
    /// `EINVAL` if it does not fit.
    fn take(&self, room: usize) -> Option<Result<Event>> {
        let mut events = self.events.lock();
        if events.front()?.bytes() > room {
            return Some(Err(Errno::EINVAL));
        }
        events.pop_front().map(Ok)
    }

    /// Forgets a watch and says so.
    fn ignored(&self, wd: i32) {
        self.watches.lock().map.remove(&wd);
        self.queue(Event {
            wd,
            mask: Events::IGNORED,
            cookie: 0,
            name: Vec::new(),
        });
    }

    /// The lines it adds to `/proc/*/fdinfo`.
    #[must_use]
    pub fn fdinfo(&self) -> String {
        let watches: Vec<_> = self.watches.lock().map.values().cloned().collect();
        let mut text = String::new();
        for watch in watches {
            let (device, ino) = watch.id;
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "inotify wd:{:x} ino:{ino:x} sdev:{device:x} mask:{:x} ignored_mask:0 ",
                watch.wd,
                watch.mask().bits()
            );
        }
        text
    }
}

impl FileOps for Inotify {
    fn read(&self, t: &Thread, file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        let mut next = match self.take(buf.remaining()) {
            None if file.is_nonblocking() => return Err(Errno::EAGAIN),
            None => Some(
                self.queue
                    .wait(t, Interruptible::Yes, None, || self.take(buf.remaining()))
                    .map_err(|error| error.errno(Errno::ERESTARTSYS))?,
            ),
            taken => taken,
        };
        let mut bytes = 0;
        while let Some(taken) = next {
            match taken {
                Ok(event) => {
                    if buf.put(&event.encode())? < event.bytes() {
                        // What was taken is lost, as on Linux.
                        return Err(Errno::EFAULT);
                    }
                    bytes += event.bytes();
                }
                Err(_) if bytes > 0 => break,
                Err(errno) => return Err(errno),
            }
            next = self.take(buf.remaining());
        }
        Ok(bytes)
    }

    fn poll(&self, _t: &Thread, _file: &File, table: Option<&mut PollTable<'_>>) -> PollEvents {
        if let Some(table) = table {
            table.register(&self.queue);
        }
        if self.events.lock().is_empty() {
            PollEvents::empty()
        } else {
            PollEvents::IN | PollEvents::RDNORM
        }
    }

    fn ioctl(&self, _t: &Thread, _file: &File, request: u32, arg: u64) -> SysResult {
        if request != ioctl::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let bytes: usize = self.events.lock().iter().map(Event::bytes).sum();
        UserAddr(arg).write(&(bytes as i32))?;
        Ok(0)
    }

    fn released(&self) {
        let watches = core::mem::take(&mut self.watches.lock().map);
        for watch in watches.values() {
            self.registry.remove(watch);
        }
        self.registry.instance_gone(self.uid);
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(wd: i32, mask: Events, name: &[u8]) -> Event {
        Event {
            wd,
            mask,
            cookie: 0,
            name: name.to_vec(),
        }
    }

    fn instance() -> Arc<Inotify> {
        let registry = Arc::new(Watches::default());
        registry.instance(7).unwrap();
        Inotify::new(7, registry)
    }

    #[test]
    fn names_are_filled_up_to_whole_headers() {
        let bytes = event(3, Events::CREATE, b"abc").encode();
        assert_eq!(bytes.len(), 32);
        assert_eq!(bytes[0..4], 3i32.to_ne_bytes());
        assert_eq!(bytes[12..16], 16u32.to_ne_bytes());
        assert_eq!(bytes[16..20], *b"abc\0");
        assert_eq!(event(3, Events::CREATE, &[b'x'; 16]).bytes(), 48);
        assert_eq!(event(3, Events::OPEN, b"").bytes(), 16);
    }

    #[test]
    fn repeated_events_are_one() {
        let inotify = instance();
        for mask in [
            Events::MODIFY,
            Events::MODIFY,
            Events::ACCESS,
            Events::MODIFY,
        ] {
            inotify.queue(event(1, mask, b"f"));
        }
        inotify.queue(event(2, Events::MODIFY, b"f"));
        assert_eq!(inotify.events.lock().len(), 4);
        for _ in 0..2 {
            inotify.queue(event(1, Events::IGNORED, b""));
        }
        assert_eq!(inotify.events.lock().len(), 6);
    }

    #[test]
    fn a_full_queue_says_so_once() {
        let inotify = instance();
        for n in 0..MAX_QUEUED + 5 {
            inotify.queue(event(n as i32 + 1, Events::OPEN, b""));
        }
        let events = inotify.events.lock();
        assert_eq!(events.len(), MAX_QUEUED + 1);
        assert_eq!(events.back(), Some(&event(-1, Events::Q_OVERFLOW, b"")));
    }

    #[test]
    fn what_does_not_fit_is_left() {
        let inotify = instance();
        inotify.queue(event(1, Events::CREATE, b"name"));
        assert_eq!(inotify.take(31), Some(Err(Errno::EINVAL)));
        assert!(inotify.take(32).is_some_and(|taken| taken.is_ok()));
        assert_eq!(inotify.take(32), None);
    }

    #[test]
    fn instances_are_counted_by_user() {
        let registry = Watches::default();
        for _ in 0..MAX_INSTANCES {
            registry.instance(5).unwrap();
        }
        assert_eq!(registry.instance(5), Err(Errno::EMFILE));
        assert_eq!(registry.instance(6), Ok(()));
        registry.instance_gone(5);
        assert_eq!(registry.instance(5), Ok(()));
    }
}
