//! Descriptors in messages (`SCM_RIGHTS`).
//!
//! A file in a message is kept alive by it. A socket whose only holders are messages in queues that in turn
//! only such sockets own can never be received again: [`collect_if_any`] finds these and empties their queues.
//! It runs when a descriptor of a socket is closed while sockets are in flight.
//!
//! A message with descriptors enters and leaves a queue under the [`InFlight`] lock, so that what is counted
//! holds still.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use husk_abi::linux::general;

use super::{Inner, Message, UnixSocket};
use crate::fs::{File, FileRef, WeakFile};
use crate::net::socket;
use crate::sync::{SpinLock, SpinLockGuard};
use crate::{Errno, Kernel, Result, Thread};

/// A socket's file that is in messages.
#[derive(Debug)]
struct Passed {
    file: WeakFile,
    /// In how many messages.
    count: usize,
}

/// What is in messages.
#[derive(Debug, Default)]
pub struct Table {
    /// Unix sockets, by the address of their open file.
    sockets: BTreeMap<usize, Passed>,
    /// Files of any kind, by the user that sent them.
    by_user: BTreeMap<u32, usize>,
}

/// All descriptors in messages.
#[derive(Debug, Default)]
pub struct InFlight {
    table: SpinLock<Table>,
    /// Sockets in the table.
    count: AtomicUsize,
    /// Files whose last reference goes: dropped one after the other, however deep they lie in each other.
    grave: SpinLock<Vec<FileRef>>,
    is_burying: AtomicBool,
    is_collecting: AtomicBool,
}

/// The table, locked.
pub type InFlightGuard<'a> = SpinLockGuard<'a, Table>;

/// The open files one message carries.
#[derive(Debug)]
pub struct Rights {
    kernel: &'static Kernel,
    files: Vec<FileRef>,
    user: u32,
    /// Counted in the table.
    is_counted: bool,
}

/// The unix socket behind `file`.
fn unix_socket(file: &File) -> Option<&UnixSocket> {
    socket::of_file(file)
        .ok()?
        .as_any()
        .downcast_ref::<UnixSocket>()
}

fn address(file: &FileRef) -> usize {
    FileRef::as_ptr(file) as usize
}

impl Rights {
    /// What the thread sends; `None` for no files.
    ///
    /// # Errors
    /// `ETOOMANYREFS` if its user has more in messages than it may have open.
    pub fn new(t: &Thread, files: Vec<FileRef>) -> Result<Option<Self>> {
        if files.is_empty() {
            return Ok(None);
        }
        let user = t.credentials().uid;
        let limit = t.process.limit(general::RLIMIT_NOFILE)?.rlim_cur;
        let table = t.kernel.net.unix.in_flight.table.lock();
        let count = table.by_user.get(&user).copied().unwrap_or(0) as u64;
        if count > limit
            && !t.is_capable(general::CAP_SYS_RESOURCE)
            && !t.is_capable(general::CAP_SYS_ADMIN)
        {
            return Err(Errno::ETOOMANYREFS);
        }
        drop(table);
        Ok(Some(Self {
            kernel: t.kernel,
            files,
            user,
            is_counted: false,
        }))
    }

    /// Counts them; the message is queued under the same lock.
    pub fn enter(&mut self, table: &mut Table) {
        self.is_counted = true;
        *table.by_user.entry(self.user).or_default() += self.files.len();
        for file in &self.files {
            if unix_socket(file).is_some() {
                let passed = table
                    .sockets
                    .entry(address(file))
                    .or_insert_with(|| Passed {
                        file: FileRef::downgrade(file),
                        count: 0,
                    });
                passed.count += 1;
            }
        }
        self.publish(table);
    }

    fn leave(&mut self, table: &mut Table) {
        self.is_counted = false;
        if let Some(count) = table.by_user.get_mut(&self.user) {
            *count = count.saturating_sub(self.files.len());
            if *count == 0 {
                table.by_user.remove(&self.user);
            }
        }
        for file in &self.files {
            let key = address(file);
            if let Some(passed) = table.sockets.get_mut(&key) {
                passed.count -= 1;
                if passed.count == 0 {
                    table.sockets.remove(&key);
                }
            }
        }
        self.publish(table);
    }

    fn publish(&self, table: &Table) {
        let count = &self.kernel.net.unix.in_flight.count;
        count.store(table.sockets.len(), Ordering::Relaxed);
    }

    /// The files, for a receiver that takes the message; under the lock the message is taken with.
    #[must_use]
    pub fn take(mut self, table: &mut Table) -> Vec<FileRef> {
        self.leave(table);
        core::mem::take(&mut self.files)
    }

    /// The files, for a receiver that leaves the message.
    #[must_use]
    pub fn peek(&self) -> Vec<FileRef> {
        self.files.clone()
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        let in_flight = &self.kernel.net.unix.in_flight;
        if self.is_counted {
            self.leave(&mut in_flight.table.lock());
        }
        if !self.files.is_empty() {
            in_flight.bury(core::mem::take(&mut self.files));
        }
    }
}

impl InFlight {
    /// Locks the table; before any socket's lock.
    pub fn lock(&self) -> InFlightGuard<'_> {
        self.table.lock()
    }

    /// Drops files that were in messages. A file may be a socket with messages with files: these come here in
    /// turn and only queue up, so that the depth of the stack does not depend on programs.
    fn bury(&self, files: Vec<FileRef>) {
        self.grave.lock().extend(files);
        while !self.is_burying.swap(true, Ordering::AcqRel) {
            loop {
                let next = self.grave.lock().pop();
                let Some(file) = next else { break };
                drop(file);
            }
            self.is_burying.store(false, Ordering::Release);
            if self.grave.lock().is_empty() {
                break;
            }
        }
    }
}

/// Calls `visit` for the files in the messages of `socket`, and of connections it has not accepted.
fn each_passed(socket: &UnixSocket, mut visit: impl FnMut(&FileRef)) {
    let mut scan = |inner: &Inner| {
        for rights in inner
            .messages
            .iter()
            .filter_map(|message| message.rights.as_ref())
        {
            rights.files.iter().for_each(&mut visit);
        }
    };
    let embryos: Vec<Arc<UnixSocket>> = {
        let inner = socket.inner.lock();
        scan(&inner);
        inner.embryos.iter().cloned().collect()
    };
    for embryo in &embryos {
        scan(&embryo.inner.lock());
    }
}

/// Takes all messages out of `socket` and of connections it has not accepted.
fn empty(socket: &UnixSocket, messages: &mut Vec<VecDeque<Message>>) {
    let embryos: Vec<Arc<UnixSocket>> = {
        let mut inner = socket.inner.lock();
        messages.push(core::mem::take(&mut inner.messages));
        inner.embryos.iter().cloned().collect()
    };
    for embryo in &embryos {
        messages.push(core::mem::take(&mut embryo.inner.lock().messages));
    }
}

/// A socket that nothing but messages holds.
struct Candidate {
    file: FileRef,
    /// References from elsewhere than the queues of candidates.
    outside: usize,
    is_reachable: bool,
}

/// [`collect`], when there is anything to look at.
pub fn collect_if_any(kernel: &'static Kernel) {
    if kernel.net.unix.in_flight.count.load(Ordering::Relaxed) > 0 {
        collect(kernel);
    }
}

/// Empties the queues of sockets that are in flight and can never be received.
fn collect(kernel: &'static Kernel) {
    let in_flight = &kernel.net.unix.in_flight;
    if in_flight.is_collecting.swap(true, Ordering::AcqRel) {
        return;
    }
    let mut lost = Vec::new();
    // Others, kept until the lock is gone: dropping a last reference closes a socket.
    let mut held = Vec::new();
    let table = in_flight.table.lock();
    let mut candidates: BTreeMap<usize, Candidate> = BTreeMap::new();
    for (key, passed) in &table.sockets {
        let Some(file) = passed.file.upgrade() else {
            continue;
        };
        // One of the references is the one just made.
        if FileRef::strong_count(&file) > passed.count + 1 {
            held.push(file);
            continue;
        }
        let candidate = Candidate {
            file,
            outside: passed.count,
            is_reachable: false,
        };
        candidates.insert(*key, candidate);
    }
    let keys: Vec<usize> = candidates.keys().copied().collect();
    let passed_in = |candidates: &BTreeMap<usize, Candidate>, key: usize| -> Vec<usize> {
        let mut found = Vec::new();
        if let Some(socket) = candidates.get(&key).and_then(|one| unix_socket(&one.file)) {
            each_passed(socket, |file| found.push(address(file)));
        }
        found
    };
    for key in &keys {
        for inside in passed_in(&candidates, *key) {
            if let Some(candidate) = candidates.get_mut(&inside) {
                candidate.outside = candidate.outside.saturating_sub(1);
            }
        }
    }
    let mut reachable: Vec<usize> = candidates
        .iter()
        .filter(|(_, candidate)| candidate.outside > 0)
        .map(|(key, _)| *key)
        .collect();
    while let Some(key) = reachable.pop() {
        let Some(candidate) = candidates.get_mut(&key) else {
            continue;
        };
        if !core::mem::replace(&mut candidate.is_reachable, true) {
            reachable.extend(passed_in(&candidates, key));
        }
    }
    for candidate in candidates.values().filter(|one| !one.is_reachable) {
        if let Some(socket) = unix_socket(&candidate.file) {
            empty(socket, &mut lost);
        }
    }
    drop(table);
    // Without locks: this closes the sockets.
    drop(held);
    drop(candidates);
    drop(lost);
    in_flight.is_collecting.store(false, Ordering::Release);
}
