//! Whom a node is about.

use alloc::sync::{Arc, Weak};

use crate::mm::AddressSpace;
use crate::process::Life;
use crate::{Errno, Kernel, Process, Result, Thread};

/// The system as a whole, a process, or one of its threads. Held weakly: an open file does not keep a
/// process, and its id may belong to another one meanwhile.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub kernel: &'static Kernel,
    process: Option<Weak<Process>>,
    /// `None` for a process directory: then any thread answers for the process.
    thread: Option<Weak<Thread>>,
    pid: u32,
    tid: u32,
    /// In `fd` and `fdinfo`: the descriptor.
    pub fd: i32,
    /// In an open file: the memory the subject had when it was opened.
    memory: Option<Weak<AddressSpace>>,
}

impl Subject {
    pub fn system(kernel: &'static Kernel) -> Self {
        Self {
            kernel,
            process: None,
            thread: None,
            pid: 0,
            tid: 0,
            fd: -1,
            memory: None,
        }
    }

    /// The subject of a file that is opened now: it stays with the memory of now, and reads as empty when that
    /// is gone (Linux binds `environ`, `maps` and the like at `open`).
    pub fn opened(&self) -> Self {
        let mm = self.thread().ok().and_then(|thread| thread.mm_opt());
        Self {
            memory: mm.map(|mm| Arc::downgrade(&mm)),
            ..self.clone()
        }
    }

    /// The memory a file about it shows; `None` if it is gone.
    ///
    /// # Errors
    /// `ESRCH` if the process is gone.
    pub fn memory(&self) -> Result<Option<Arc<AddressSpace>>> {
        match &self.memory {
            Some(memory) => Ok(memory.upgrade()),
            None => Ok(self.thread()?.mm_opt()),
        }
    }

    pub fn of_process(process: &Arc<Process>) -> Self {
        Self {
            process: Some(Arc::downgrade(process)),
            pid: process.pid,
            tid: process.pid,
            ..Self::system(process.kernel)
        }
    }

    pub fn of_thread(thread: &Arc<Thread>) -> Self {
        Self {
            thread: Some(Arc::downgrade(thread)),
            tid: thread.tid(),
            ..Self::of_process(&thread.process)
        }
    }

    pub fn with_fd(&self, fd: i32) -> Self {
        Self { fd, ..self.clone() }
    }

    /// Its place in inode numbers.
    pub fn identity(&self) -> [u64; 4] {
        let thread = u64::from(self.thread.is_some());
        [
            u64::from(self.pid),
            u64::from(self.tid),
            thread,
            u64::from(self.fd.cast_unsigned()),
        ]
    }

    /// Thread id; the process's for a process directory.
    pub fn tid(&self) -> u32 {
        self.tid
    }

    /// Whether it is one thread rather than a whole process.
    pub fn is_thread(&self) -> bool {
        self.thread.is_some()
    }

    /// The process, zombies included.
    ///
    /// # Errors
    /// `ESRCH` once it is gone.
    pub fn process(&self) -> Result<Arc<Process>> {
        self.process
            .as_ref()
            .and_then(Weak::upgrade)
            .filter(|process| process.life() != Life::Reaped)
            .ok_or(Errno::ESRCH)
    }

    /// The thread, or one that answers for the process: its leader, else any that lives.
    ///
    /// # Errors
    /// `ESRCH` once there is none.
    pub fn thread(&self) -> Result<Arc<Thread>> {
        if let Some(thread) = &self.thread {
            return thread.upgrade().ok_or(Errno::ESRCH);
        }
        let threads = self.process()?.threads();
        threads
            .iter()
            .find(|thread| thread.tid() == self.pid)
            .or(threads.first())
            .cloned()
            .ok_or(Errno::ESRCH)
    }

    /// Whether its node still has a name.
    pub fn is_alive(&self) -> bool {
        match (&self.process, &self.thread) {
            (None, _) => true,
            (Some(_), Some(thread)) => thread.strong_count() > 0,
            (Some(_), None) => self.process().is_ok(),
        }
    }

    /// User and group its files belong to.
    pub fn owner(&self) -> (u32, u32) {
        match self.process.as_ref().map(|_| self.thread()) {
            Some(Ok(thread)) => {
                let credentials = thread.credentials();
                (credentials.euid, credentials.egid)
            }
            _ => (0, 0),
        }
    }
}
