//! One watched file.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::AtomicBool;

use super::{ALWAYS, EDGE, EXCLUSIVE, Epoll, ONESHOT, WAKEUP};
use crate::fs::{FileRef, PollEvents, WeakFile};
use crate::sync::{Listener, SpinLock, WaitQueue, Waiter};

/// What an entry waits for and what its owner is told then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interest {
    /// `EPOLL*` bits, the ones that change behaviour included.
    pub events: u32,
    /// The owner's own value.
    pub data: u64,
}

impl Interest {
    /// Bits of a disarmed one-shot entry: behaviour only, no events.
    const BEHAVIOUR: u32 = EDGE | ONESHOT | EXCLUSIVE | WAKEUP;

    /// Which of `events` the owner is told; errors and hang-ups always, unless the entry is disarmed.
    pub fn matches(self, events: PollEvents) -> u32 {
        if self.events & !Self::BEHAVIOUR == 0 {
            return 0;
        }
        events.bits() & self.events
    }
}

/// A watched file. Errors and hang-ups are part of `interest` from the start.
#[derive(Debug)]
pub(super) struct Entry {
    epoll: Weak<Epoll>,
    weak: Weak<Entry>,
    file: WeakFile,
    interest: SpinLock<Interest>,
    /// Whether it is on the ready list; changed under that list's lock.
    pub queued: AtomicBool,
    waiter: Arc<Waiter>,
    queues: SpinLock<Vec<Arc<WaitQueue>>>,
}

impl Entry {
    pub fn new(epoll: &Weak<Epoll>, file: &FileRef, interest: Interest) -> Arc<Self> {
        Arc::new_cyclic(|weak: &Weak<Self>| Self {
            epoll: epoll.clone(),
            weak: weak.clone(),
            file: FileRef::downgrade(file),
            interest: SpinLock::new(Self::completed(interest)),
            queued: AtomicBool::new(false),
            waiter: Waiter::for_listener(weak.clone()),
            queues: SpinLock::new(Vec::new()),
        })
    }

    fn completed(interest: Interest) -> Interest {
        Interest {
            events: interest.events | ALWAYS,
            ..interest
        }
    }

    pub fn waiter(&self) -> &Arc<Waiter> {
        &self.waiter
    }

    /// Remembers where the waiter is registered.
    pub fn listen_at(&self, queues: Vec<Arc<WaitQueue>>) {
        *self.queues.lock() = queues;
    }

    pub fn file(&self) -> Option<FileRef> {
        self.file.upgrade()
    }

    pub fn is_alive(&self) -> bool {
        self.file.strong_count() > 0
    }

    pub fn interest(&self) -> Interest {
        *self.interest.lock()
    }

    pub fn set_interest(&self, interest: Interest) {
        *self.interest.lock() = Self::completed(interest);
    }

    /// After its one shot: silent until the interest is set again.
    pub fn disarm(&self) {
        self.interest.lock().events &= Interest::BEHAVIOUR;
    }

    /// Which of `events` the owner is to be told.
    pub fn wants(&self, events: PollEvents) -> u32 {
        self.interest().matches(events)
    }

    /// Stops listening for good; what may still be on the ready list has nothing to tell.
    pub fn retire(&self) {
        self.disarm();
        let queues = core::mem::take(&mut *self.queues.lock());
        for queue in queues {
            queue.unregister(&self.waiter);
        }
    }
}

impl Listener for Entry {
    fn woken(&self) {
        if self.interest().events & !Interest::BEHAVIOUR == 0 {
            return;
        }
        if let (Some(epoll), Some(entry)) = (self.epoll.upgrade(), self.weak.upgrade()) {
            epoll.enqueue(&entry);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.retire();
    }
}
