//! All processes and threads by id.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sync::SpinLock;
use crate::{Errno, Process, Result, Thread, inspect};

/// One more than the largest id handed out: `kernel.pid_max` as systemd sets it on 64-bit hosts.
pub const PID_MAX: u32 = 4_194_304;

/// The id tables.
#[derive(Debug)]
pub struct Tasks {
    threads: SpinLock<BTreeMap<u32, Weak<Thread>>>,
    processes: SpinLock<BTreeMap<u32, Weak<Process>>>,
    last: AtomicU32,
    /// Processes and threads ever made (`/proc/stat`).
    made: AtomicU32,
    /// The most threads and zombies (`pids.max`).
    limit: AtomicU64,
}

impl Tasks {
    /// Empty tables; the first id is 1.
    #[must_use]
    pub fn new() -> Self {
        Self {
            threads: SpinLock::new(BTreeMap::new()),
            processes: SpinLock::new(BTreeMap::new()),
            last: AtomicU32::new(0),
            made: AtomicU32::new(0),
            limit: AtomicU64::new(u64::MAX),
        }
    }

    /// An id no thread, process, group or session uses.
    ///
    /// # Errors
    /// `EAGAIN` if all are taken.
    pub fn allocate(&self) -> Result<u32> {
        let threads = self.threads.lock();
        let processes = self.processes.lock();
        // An id stays taken while a group or session bears it, though its process is gone.
        let borne = |id: u32| {
            processes
                .values()
                .filter_map(Weak::upgrade)
                .any(|p| p.pgid() == id || p.sid() == id)
        };
        let last = self.last.load(Ordering::Relaxed);
        // Ids below 300 are not given out again after the first round, as on Linux.
        let candidates = (last + 1..PID_MAX).chain(if last < 300 { 1 } else { 300 }..last + 1);
        for id in candidates {
            if !threads.contains_key(&id) && !processes.contains_key(&id) && !borne(id) {
                self.last.store(id, Ordering::Relaxed);
                self.made.fetch_add(1, Ordering::Relaxed);
                return Ok(id);
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Enters a thread.
    pub fn add_thread(&self, thread: &Arc<Thread>) {
        self.threads
            .lock()
            .insert(thread.tid(), Arc::downgrade(thread));
        inspect::add(thread);
    }

    /// Removes a thread.
    pub fn remove_thread(&self, tid: u32) {
        inspect::remove(tid);
        self.threads.lock().remove(&tid);
    }

    /// Enters a process.
    pub fn add_process(&self, process: &Arc<Process>) {
        self.processes
            .lock()
            .insert(process.pid, Arc::downgrade(process));
    }

    /// Removes a process: it has been waited for.
    pub fn remove_process(&self, pid: u32) {
        self.processes.lock().remove(&pid);
    }

    /// The thread with id `tid`.
    #[must_use]
    pub fn thread(&self, tid: u32) -> Option<Arc<Thread>> {
        self.threads.lock().get(&tid).and_then(Weak::upgrade)
    }

    /// The process with id `pid`, zombies included.
    #[must_use]
    pub fn process(&self, pid: u32) -> Option<Arc<Process>> {
        self.processes.lock().get(&pid).and_then(Weak::upgrade)
    }

    /// All processes in order of their ids, zombies included.
    #[must_use]
    pub fn processes(&self) -> Vec<Arc<Process>> {
        self.processes
            .lock()
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// All threads in order of their ids.
    #[must_use]
    pub fn threads(&self) -> Vec<Arc<Thread>> {
        self.threads
            .lock()
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Calls `f` with every address space in use.
    pub fn for_each_space(&self, f: impl Fn(&crate::mm::AddressSpace)) {
        let threads: Vec<_> = self.threads.lock().values().cloned().collect();
        let mut seen: Vec<Arc<crate::mm::AddressSpace>> = Vec::new();
        for thread in threads.iter().filter_map(Weak::upgrade) {
            if let Some(space) = thread.mm_opt()
                && !seen.iter().any(|other| Arc::ptr_eq(other, &space))
            {
                f(&space);
                seen.push(space);
            }
        }
    }

    /// Number of threads.
    #[must_use]
    pub fn thread_count(&self) -> usize {
        self.threads.lock().len()
    }

    /// Number of threads that run as real user `uid`, for `RLIMIT_NPROC`.
    #[must_use]
    pub fn threads_of(&self, uid: u32) -> usize {
        self.threads()
            .iter()
            .filter(|thread| thread.credentials().uid == uid)
            .count()
    }

    /// The most of them there may be (`pids.max`); `u64::MAX` for no limit.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Sets the most of them there may be.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Threads, and processes that nobody has waited for yet.
    #[must_use]
    pub fn count(&self) -> usize {
        let threads = self.threads.lock();
        let zombies = self
            .processes
            .lock()
            .keys()
            .filter(|pid| !threads.contains_key(pid))
            .count();
        threads.len() + zombies
    }

    /// Processes and threads ever made, and the last id given out.
    #[must_use]
    pub fn made(&self) -> (u32, u32) {
        (
            self.made.load(Ordering::Relaxed),
            self.last.load(Ordering::Relaxed),
        )
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}
