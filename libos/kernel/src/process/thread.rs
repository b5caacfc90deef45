//! What a thread and a process are.
//!
//! As on Linux a thread holds references to the parts it may share (`clone(2)`): memory, descriptors,
//! file-system context, signal handlers. A process is its thread group: what all its threads share by
//! definition.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use husk_abi::linux::general::{RLIM_NLIMITS, RLIMIT_CPU, rlimit64};
use husk_hal::thread::Context;
use husk_hal::trap::LiveFrame;

use super::limits::{CpuLimit, cpu_limit};
use super::login::Login;
use super::{Credentials, Namespaces, Outside, ptrace};
use crate::fs::{FdTable, FileRef, FsContext};
use crate::ipc;
use crate::mm::{AddressSpace, oom};
use crate::sched::rseq::Registration;
use crate::sched::{CpuTimes, ThreadSched};
use crate::signal::{Handlers, ProcessSignals, ThreadSignals};
use crate::sync::{SpinLock, WaitQueue};
use crate::syscall::filters::Filters;
use crate::time::ProcessTimers;
use crate::tty::Controlling;
use crate::user::UserAddr;
use crate::{Errno, Kernel, Result};

/// A thread.
#[derive(Debug)]
pub struct Thread {
    /// The kernel it runs in.
    pub kernel: &'static Kernel,
    /// Its process.
    pub process: Arc<Process>,
    /// Machine state.
    pub context: Context,
    /// Scheduling state.
    pub sched: ThreadSched,
    /// Signal mask, pending signals, alternate stack.
    pub signals: ThreadSignals,
    /// Its part in `ptrace(2)`.
    pub trace: ptrace::Tracing,
    /// Where the kernel writes 0 and wakes when the thread ends (`set_tid_address(2)`).
    pub clear_child_tid: SpinLock<UserAddr>,
    /// Head of the robust futex list (`set_robust_list(2)`).
    pub robust_list: SpinLock<UserAddr>,
    /// `personality(2)`.
    pub(super) personality: AtomicU32,
    /// Restartable sequences (`rseq(2)`).
    pub rseq: SpinLock<Option<Registration>>,
    pub(super) tid: AtomicU32,
    pub(super) weak: Weak<Thread>,
    pub(super) mm: SpinLock<Option<Arc<AddressSpace>>>,
    pub(super) files: SpinLock<Option<Arc<FdTable>>>,
    pub(super) fs: SpinLock<Option<Arc<FsContext>>>,
    pub(super) credentials: SpinLock<Arc<Credentials>>,
    /// What it may not call any more (`seccomp(2)`).
    pub filters: Filters,
    pub(super) namespaces: SpinLock<Arc<Namespaces>>,
    /// What semaphores get back when it ends; threads share it (`CLONE_SYSVSEM`).
    pub(super) undo: SpinLock<Option<Arc<ipc::Undo>>>,
    pub(super) name: SpinLock<[u8; 16]>,
    /// A vfork child that borrows its parent's memory holds this until exec or exit.
    pub(super) vfork_done: SpinLock<Option<Arc<VforkDone>>>,
    /// Where the thread writes its id when it first runs (`CLONE_CHILD_SETTID`).
    pub(super) set_child_tid: SpinLock<UserAddr>,
}

/// What a vfork parent sleeps on.
#[derive(Debug, Default)]
pub struct VforkDone {
    pub(super) done: AtomicBool,
    pub(super) queue: WaitQueue,
}

impl Thread {
    /// Thread id.
    #[must_use]
    pub fn tid(&self) -> u32 {
        self.tid.load(Ordering::Relaxed)
    }

    /// Its personality (`personality(2)`).
    #[must_use]
    pub fn personality(&self) -> u32 {
        self.personality.load(Ordering::Relaxed)
    }

    /// A counted reference to this thread.
    ///
    /// # Panics
    /// Never while the thread is in use: whoever has `&self` got it from an `Arc`.
    #[must_use]
    pub fn arc(&self) -> Arc<Self> {
        self.weak.upgrade().expect("a thread in use is alive")
    }

    /// A weak reference to this thread.
    #[must_use]
    pub fn weak(&self) -> Weak<Self> {
        self.weak.clone()
    }

    /// The registers it entered the libOS with and will leave with; for the running thread only.
    #[must_use]
    pub fn frame(&self) -> &LiveFrame {
        self.context.user_frame()
    }

    /// Its address space.
    ///
    /// # Panics
    /// After the thread gave it up in exit.
    #[must_use]
    pub fn mm(&self) -> Arc<AddressSpace> {
        self.mm
            .lock()
            .clone()
            .expect("a thread that runs user code has memory")
    }

    /// Its address space, or `None` once it is exiting.
    #[must_use]
    pub fn mm_opt(&self) -> Option<Arc<AddressSpace>> {
        self.mm.lock().clone()
    }

    /// Its descriptor table.
    ///
    /// # Panics
    /// After the thread gave it up in exit.
    #[must_use]
    pub fn files(&self) -> Arc<FdTable> {
        self.files
            .lock()
            .clone()
            .expect("a thread that runs user code has descriptors")
    }

    /// The open file of its descriptor `fd`.
    ///
    /// # Errors
    /// `EBADF` if it is not open, or was opened with `O_PATH`.
    pub fn file(&self, fd: i32) -> Result<FileRef> {
        // On every read and write: without counting a reference to the table.
        self.files.lock().as_ref().ok_or(Errno::EBADF)?.get(fd)
    }

    /// The open file of its descriptor `fd`, `O_PATH` files included.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn any_file(&self, fd: i32) -> Result<FileRef> {
        self.files.lock().as_ref().ok_or(Errno::EBADF)?.get_any(fd)
    }

    /// Its descriptor table, or `None` once it is exiting.
    #[must_use]
    pub fn files_opt(&self) -> Option<Arc<FdTable>> {
        self.files.lock().clone()
    }

    /// Gives it a descriptor table of its own if it shares one.
    pub fn unshare_files(&self) {
        let own = self.files().fork();
        let old = self.files.lock().replace(own);
        drop(old);
    }

    /// Its working directory, root and umask.
    ///
    /// # Panics
    /// After the thread gave it up in exit.
    #[must_use]
    pub fn fs(&self) -> Arc<FsContext> {
        self.fs
            .lock()
            .clone()
            .expect("a thread that runs user code has a working directory")
    }

    /// Calls `f` with its working directory, root and umask, and its credentials, both locked: for what is short and happens
    /// often.
    ///
    /// # Panics
    /// After the thread gave the first up in exit.
    pub fn with_fs_and_credentials<R>(
        &self,
        f: impl FnOnce(&FsContext, &Arc<Credentials>) -> R,
    ) -> R {
        let fs = self.fs.lock();
        let fs = fs
            .as_ref()
            .expect("a thread that runs user code has a working directory");
        f(fs, &self.credentials.lock())
    }

    /// Its working directory, root and umask, or `None` once it is exiting.
    #[must_use]
    pub fn fs_opt(&self) -> Option<Arc<FsContext>> {
        self.fs.lock().clone()
    }

    /// Its namespaces.
    #[must_use]
    pub fn namespaces(&self) -> Arc<Namespaces> {
        self.namespaces.lock().clone()
    }

    /// What semaphores get back when it ends, from now on if nothing yet.
    #[must_use]
    pub fn undo(&self) -> Arc<ipc::Undo> {
        let mut undo = self.undo.lock();
        undo.get_or_insert_with(|| ipc::Undo::new(self.process.pid))
            .clone()
    }

    /// Its credentials.
    #[must_use]
    pub fn credentials(&self) -> Arc<Credentials> {
        self.credentials.lock().clone()
    }

    /// Replaces its credentials.
    pub fn set_credentials(&self, credentials: Credentials) {
        *self.credentials.lock() = Arc::new(credentials);
    }

    /// Its name (`comm`), without trailing NULs.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        let name = *self.name.lock();
        name.iter().copied().take_while(|byte| *byte != 0).collect()
    }

    /// Its name with the NULs up to 16 bytes.
    #[must_use]
    pub fn name_field(&self) -> [u8; 16] {
        *self.name.lock()
    }

    /// Sets its name, cut to 15 bytes.
    pub fn set_name(&self, name: &[u8]) {
        let mut field = [0; 16];
        let len = name.len().min(15);
        field[..len].copy_from_slice(&name[..len]);
        *self.name.lock() = field;
        self.context.record().set_name(&field);
    }
}

/// How a process's life ended, as `wait(2)` encodes it, or that it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It has threads.
    Alive,
    /// Ended with this wait status, not yet waited for.
    Zombie(i32),
    /// Waited for.
    Reaped,
}

/// A process: a thread group.
#[derive(Debug)]
pub struct Process {
    /// The kernel it runs in.
    pub kernel: &'static Kernel,
    /// Process id.
    pub pid: u32,
    /// Signals sent to the process as a whole.
    pub signals: ProcessSignals,
    /// Interval timers and POSIX timers.
    pub timers: ProcessTimers,
    /// Parent's id, for the fast path of `getppid(2)`; 0 for init.
    pub(super) ppid: AtomicU32,
    pub(super) pgid: AtomicU32,
    pub(super) sid: AtomicU32,
    /// Its controlling terminal.
    pub controlling: Controlling,
    pub(super) family: SpinLock<Family>,
    /// What keeps a thread alive while it is parked; it takes itself out when it ends.
    pub(super) threads: SpinLock<BTreeMap<u32, Arc<Thread>>>,
    pub(super) handlers: SpinLock<Arc<Handlers>>,
    pub(super) limits: SpinLock<[rlimit64; RLIM_NLIMITS as usize]>,
    /// Children that changed state are announced here.
    pub(super) child_events: WaitQueue,
    /// Threads that ended are announced here, for exec.
    pub(super) thread_exits: WaitQueue,
    /// Its end, and its being waited for, are announced here.
    pub ended: Arc<WaitQueue>,
    /// The whole process is ending with this status (`exit_group(2)`, fatal signals).
    pub(super) exiting: SpinLock<Option<i32>>,
    pub(super) executable: SpinLock<Vec<u8>>,
    /// See [`Process::arguments`].
    pub(super) arguments: SpinLock<Arc<[u8]>>,
    /// The running program's file, open for execution: nobody may write it meanwhile (`ETXTBSY`).
    pub(super) program: SpinLock<Option<FileRef>>,
    pub(super) has_execed: AtomicBool,
    pub(super) start_ns: u64,
    /// vCPU time of threads that ended, and of waited-for children.
    pub(super) dead_times: SpinLock<CpuTimes>,
    pub(super) children_times: SpinLock<CpuTimes>,
    pub(super) child_subreaper: AtomicBool,
    pub(super) dumpable: AtomicBool,
    /// Who logged in.
    pub login: SpinLock<Login>,
    /// `/proc/PID/oom_score_adj`, and the least it may be set to without privilege.
    pub oom_score_adj: AtomicI32,
    pub(super) oom_score_adj_min: AtomicI32,
    /// In which of the record filter's process trees it is ([`crate::trace::Recorder::marks`]).
    pub record_marks: AtomicU32,
    /// Signal for the parent when this process ends (`clone(2)`); 0 for none.
    pub(super) exit_signal: AtomicU32,
    /// Who traces its first thread.
    pub(super) leader_tracer: SpinLock<Weak<Thread>>,
    /// Traced threads that have ended and whose tracers have not waited for them: until then its end is not told.
    pub(super) ended_tracees: AtomicU32,
    /// Set if it was started from outside.
    pub outside: Option<Outside>,
}

/// A process's relatives and fate; locked parent before child.
#[derive(Debug)]
pub(super) struct Family {
    pub parent: Weak<Process>,
    /// The thread of the parent that made it; any other does once that is gone.
    pub parent_thread: Weak<Thread>,
    pub children: Vec<Arc<Process>>,
    pub life: Life,
    /// A stop or continue that `wait(2)` has not reported.
    pub job_event: Option<i32>,
}

impl Process {
    /// Parent's process id; 0 for init.
    #[must_use]
    pub fn ppid(&self) -> u32 {
        self.ppid.load(Ordering::Relaxed)
    }

    /// Process group id.
    #[must_use]
    pub fn pgid(&self) -> u32 {
        self.pgid.load(Ordering::Relaxed)
    }

    /// Session id.
    #[must_use]
    pub fn sid(&self) -> u32 {
        self.sid.load(Ordering::Relaxed)
    }

    /// The parent, if it lives.
    #[must_use]
    pub fn parent(&self) -> Option<Arc<Process>> {
        self.family.lock().parent.upgrade()
    }

    /// The thread that made it, or another of its parent.
    #[must_use]
    pub fn parent_thread(&self) -> Option<Arc<Thread>> {
        let (parent, maker) = {
            let family = self.family.lock();
            (family.parent.upgrade()?, family.parent_thread.upgrade())
        };
        maker
            .filter(|maker| {
                Arc::ptr_eq(&maker.process, &parent)
                    && parent.threads.lock().contains_key(&maker.tid())
            })
            .or_else(|| parent.any_thread())
    }

    /// Whether it lives, and if not, how it ended.
    #[must_use]
    pub fn life(&self) -> Life {
        self.family.lock().life
    }

    /// Its threads.
    #[must_use]
    pub fn threads(&self) -> Vec<Arc<Thread>> {
        self.threads.lock().values().cloned().collect()
    }

    /// Its first thread, or any other if that has ended; `None` for a zombie.
    #[must_use]
    pub fn any_thread(&self) -> Option<Arc<Thread>> {
        let threads = self.threads.lock();
        let leader = threads.get(&self.pid);
        leader.or_else(|| threads.values().next()).cloned()
    }

    /// Whether others of its user may look into it (`PR_SET_DUMPABLE`).
    #[must_use]
    pub fn is_dumpable(&self) -> bool {
        self.dumpable.load(Ordering::Relaxed)
    }

    /// Number of threads.
    #[must_use]
    pub fn thread_count(&self) -> usize {
        self.threads.lock().len()
    }

    /// Whether it is ending.
    #[must_use]
    pub fn is_exiting(&self) -> bool {
        self.exiting.lock().is_some()
    }

    /// Sets `oom_score_adj`.
    ///
    /// # Errors
    /// `EINVAL` out of range; `EACCES` if it is less than it may be and the caller is not `privileged`.
    pub fn set_oom_score_adj(&self, adj: i32, privileged: bool) -> Result<()> {
        if !(oom::ADJ_NEVER..=oom::ADJ_MAX).contains(&adj) {
            return Err(Errno::EINVAL);
        }
        if privileged {
            self.oom_score_adj_min.store(adj, Ordering::Relaxed);
        } else if adj < self.oom_score_adj_min.load(Ordering::Relaxed) {
            return Err(Errno::EACCES);
        }
        self.oom_score_adj.store(adj, Ordering::Relaxed);
        Ok(())
    }

    /// Its signal handlers.
    #[must_use]
    pub fn handlers(&self) -> Arc<Handlers> {
        self.handlers.lock().clone()
    }

    /// A resource limit (`RLIMIT_*`).
    ///
    /// # Errors
    /// `EINVAL` for an unknown resource.
    pub fn limit(&self, resource: u32) -> Result<rlimit64> {
        self.limits
            .lock()
            .get(resource as usize)
            .copied()
            .ok_or(Errno::EINVAL)
    }

    /// Looks whether `RLIMIT_CPU` has something to say to a process that has used `used_ns`.
    pub(crate) fn check_cpu_limit(&self, used_ns: u64) -> CpuLimit {
        let mut limits = self.limits.lock();
        cpu_limit(&mut limits[RLIMIT_CPU as usize], used_ns)
    }

    /// Absolute path of the running program.
    #[must_use]
    pub fn executable(&self) -> Vec<u8> {
        self.executable.lock().clone()
    }

    /// The arguments its program was given, each ended by a NUL, as far as they are kept.
    #[must_use]
    pub fn arguments(&self) -> Arc<[u8]> {
        self.arguments.lock().clone()
    }

    /// When it was made, ns of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn start_ns(&self) -> u64 {
        self.start_ns
    }

    /// vCPU time of all its threads, dead ones included.
    #[must_use]
    pub fn times(&self) -> CpuTimes {
        let threads = self.threads();
        let live = threads.iter().map(|thread| thread.sched.times());
        live.fold(*self.dead_times.lock(), |sum, times| sum + times)
    }

    /// The same in nanoseconds, the libOS's share included.
    #[must_use]
    pub fn cpu_ns(&self) -> u64 {
        self.times().all_ns
    }

    /// vCPU time of children that were waited for.
    #[must_use]
    pub fn children_times(&self) -> CpuTimes {
        *self.children_times.lock()
    }
}
