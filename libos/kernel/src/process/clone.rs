//! Making threads and processes: `fork(2)`, `vfork(2)`, `clone(2)`, `clone3(2)`.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use husk_abi::linux::general::{self, clone_args};
use husk_abi::linux::ptrace::PTRACE_EVENT_VFORK_DONE;
use husk_hal::trap::{EXIT_FULL, TrapFrame};
use husk_hal::{fpu, thread as hal_thread};

use super::thread::{Family, Life, VforkDone};
use super::{Process, Thread, namespaces, ptrace};
use crate::fs::pidfd;
use crate::sched::{self, ThreadSched};
use crate::signal::{self, ProcessSignals, ThreadSignals};
use crate::sync::{Interruptible, SpinLock, WaitQueue};
use crate::syscall::filters::Filters;
use crate::time::ProcessTimers;
use crate::tty::Controlling;
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult};

const CLONE_VM: u64 = general::CLONE_VM as u64;
const CLONE_FS: u64 = general::CLONE_FS as u64;
const CLONE_FILES: u64 = general::CLONE_FILES as u64;
const CLONE_SIGHAND: u64 = general::CLONE_SIGHAND as u64;
const CLONE_VFORK: u64 = general::CLONE_VFORK as u64;
const CLONE_PARENT: u64 = general::CLONE_PARENT as u64;
const CLONE_THREAD: u64 = general::CLONE_THREAD as u64;
const CLONE_SETTLS: u64 = general::CLONE_SETTLS as u64;
const CLONE_PARENT_SETTID: u64 = general::CLONE_PARENT_SETTID as u64;
const CLONE_CHILD_CLEARTID: u64 = general::CLONE_CHILD_CLEARTID as u64;
const CLONE_CHILD_SETTID: u64 = general::CLONE_CHILD_SETTID as u64;
const CLONE_PTRACE: u64 = general::CLONE_PTRACE as u64;
const CLONE_PIDFD: u64 = general::CLONE_PIDFD as u64;
const CLONE_DETACHED: u64 = general::CLONE_DETACHED as u64;
const CLONE_CLEAR_SIGHAND: u64 = general::CLONE_CLEAR_SIGHAND;
/// Flags without an effect here: what they are about does not exist or is always so.
const NEUTRAL: u64 = (general::CLONE_IO | general::CLONE_DETACHED) as u64;
const CLONE_SYSVSEM: u64 = general::CLONE_SYSVSEM as u64;
const SUPPORTED: u64 = CLONE_VM
    | CLONE_FS
    | CLONE_FILES
    | CLONE_SIGHAND
    | CLONE_VFORK
    | CLONE_PARENT
    | CLONE_THREAD
    | CLONE_SETTLS
    | CLONE_PARENT_SETTID
    | CLONE_CHILD_CLEARTID
    | CLONE_CHILD_SETTID
    | CLONE_CLEAR_SIGHAND
    | CLONE_PIDFD
    | CLONE_PTRACE
    | CLONE_SYSVSEM
    | namespaces::SUPPORTED
    | general::CLONE_UNTRACED as u64
    | NEUTRAL;

/// What to make, from any of the calls.
#[derive(Clone, Copy, Debug, Default)]
struct Request {
    flags: u64,
    exit_signal: u32,
    /// Stack pointer of the child; 0 keeps the parent's.
    stack: u64,
    parent_tid: u64,
    child_tid: u64,
    tls: u64,
    /// Where the process's descriptor goes.
    pidfd: u64,
}

/// `fork(2)`.
///
/// # Errors
/// `EAGAIN`, `ENOMEM`.
pub fn fork(t: &Thread) -> SysResult {
    run(
        t,
        &Request {
            exit_signal: general::SIGCHLD,
            ..Request::default()
        },
    )
}

/// `vfork(2)`.
///
/// # Errors
/// `EAGAIN`, `ENOMEM`.
pub fn vfork(t: &Thread) -> SysResult {
    let flags = CLONE_VM | CLONE_VFORK;
    run(
        t,
        &Request {
            flags,
            exit_signal: general::SIGCHLD,
            ..Request::default()
        },
    )
}

/// `clone(2)` as the raw system call of x86-64 takes it.
///
/// # Errors
/// `EINVAL`, `EPERM`, `EAGAIN`, `ENOMEM`.
pub fn clone(
    t: &Thread,
    flags: u64,
    stack: u64,
    parent_tid: UserAddr,
    child_tid: UserAddr,
    tls: u64,
) -> SysResult {
    // Only the low half is flags; the lowest byte is the exit signal.
    let exit_signal = (flags & 0xff) as u32;
    let flags = flags & 0xffff_ff00;
    // One address serves both.
    if flags & CLONE_PIDFD != 0 && flags & CLONE_PARENT_SETTID != 0 {
        return Err(Errno::EINVAL);
    }
    run(
        t,
        &Request {
            flags,
            exit_signal,
            stack,
            parent_tid: parent_tid.0,
            child_tid: child_tid.0,
            tls,
            pidfd: parent_tid.0,
        },
    )
}

/// `clone3(2)`.
///
/// # Errors
/// `EINVAL`, `E2BIG`, `EPERM`, `EAGAIN`, `ENOMEM`.
pub fn clone3(t: &Thread, args: UserAddr, size: usize) -> SysResult {
    const FIRST_VERSION: usize = 64;
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    if size < FIRST_VERSION {
        return Err(Errno::EINVAL);
    }
    let mut words = [0u64; size_of::<clone_args>() / 8];
    for (index, word) in words.iter_mut().enumerate().take(size / 8) {
        *word = args.add(index as u64 * 8).read()?;
    }
    for index in words.len()..size / 8 {
        if args.add(index as u64 * 8).read::<u64>()? != 0 {
            return Err(Errno::E2BIG);
        }
    }
    let [
        flags,
        pidfd,
        child_tid,
        parent_tid,
        exit_signal,
        stack,
        stack_size,
        tls,
        set_tid,
        set_tid_size,
        _,
    ] = words;
    if flags & 0xff != 0 || exit_signal > 64 || (stack == 0) != (stack_size == 0) {
        return Err(Errno::EINVAL);
    }
    // Choosing the id needs CAP_CHECKPOINT_RESTORE and is not offered.
    if set_tid != 0 || set_tid_size != 0 {
        return Err(if set_tid_size > 32 {
            Errno::EINVAL
        } else {
            Errno::EPERM
        });
    }
    let stack = stack.wrapping_add(stack_size);
    let exit_signal = exit_signal as u32;
    run(
        t,
        &Request {
            flags,
            exit_signal,
            stack,
            parent_tid,
            child_tid,
            tls,
            pidfd,
        },
    )
}

fn check(t: &Thread, request: &Request) -> Result<()> {
    let flags = request.flags;
    let needs = |flag: u64, other: u64| flags & flag == 0 || flags & other != 0;
    namespaces::check_new(t, flags)?;
    // Undoing for a process of another namespace makes no sense.
    if flags & CLONE_SYSVSEM != 0 && flags & u64::from(general::CLONE_NEWIPC) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & !SUPPORTED != 0
        || !needs(CLONE_THREAD, CLONE_SIGHAND)
        || !needs(CLONE_SIGHAND, CLONE_VM)
        || (flags & CLONE_CLEAR_SIGHAND != 0 && flags & CLONE_SIGHAND != 0)
        || (flags & CLONE_PIDFD != 0 && flags & (CLONE_DETACHED | CLONE_THREAD) != 0)
        || request.exit_signal > 64
        || (flags & CLONE_PARENT != 0 && t.process.pid == 1)
    {
        return Err(Errno::EINVAL);
    }
    let user = t.credentials().uid;
    let limit = t.process.limit(general::RLIMIT_NPROC)?.rlim_cur;
    let is_hosts_root = user == 0 && t.kernel.config.user_namespace.is_none();
    if !is_hosts_root
        && !t.is_capable(general::CAP_SYS_RESOURCE)
        && !t.is_capable(general::CAP_SYS_ADMIN)
        && t.kernel.tasks.threads_of(user) as u64 >= limit
    {
        return Err(Errno::EAGAIN);
    }
    // The pids controller's limit, which spares nobody.
    if t.kernel.tasks.count() as u64 >= t.kernel.tasks.limit() {
        return Err(Errno::EAGAIN);
    }
    Ok(())
}

fn run(t: &Thread, request: &Request) -> SysResult {
    t.sched.in_libos(|| run_in_libos(t, request))
}

fn run_in_libos(t: &Thread, request: &Request) -> SysResult {
    check(t, request)?;
    let flags = request.flags;
    let tid = t.kernel.tasks.allocate()?;
    let mm = t.mm();
    let child_mm = if flags & CLONE_VM != 0 {
        mm
    } else {
        mm.fork(t.frame().get().rsp)?
    };
    let files = t.files();
    let fs = t.fs();
    let namespaces = t.namespaces().with_new(t, flags);
    let process = if flags & CLONE_THREAD != 0 {
        t.process.clone()
    } else {
        new_process(t, request, tid)
    };

    let mut frame = t.frame().get();
    frame.rax = 0;
    frame.orig_rax = u64::MAX;
    frame.code = EXIT_FULL;
    // As `syscall` leaves it; a translated call's frame does not have it.
    frame.r11 = frame.rflags;
    frame.rflags = ptrace::childs_flags(t, frame.rflags);
    if request.stack != 0 {
        frame.rsp = request.stack;
    }
    let tls = if flags & CLONE_SETTLS != 0 {
        request.tls
    } else {
        hal_thread::live_fs_base()
    };
    let vfork_done = (flags & CLONE_VFORK != 0).then(Arc::<VforkDone>::default);
    let context = hal_thread::Context::user(
        &frame,
        tls,
        hal_thread::live_gs_base(),
        fpu::State::of_running(),
    )
    .ok_or(Errno::ENOMEM)?;
    if flags & CLONE_PIDFD != 0 {
        let fd = pidfd::open(t, process.clone(), 0)?;
        if let Err(errno) = UserAddr(request.pidfd).write(&fd) {
            t.files().close(fd)?;
            return Err(errno);
        }
    }
    let child_tid = UserAddr(request.child_tid);
    // A thread on the same memory cannot use its maker's alternate stack (sigaltstack(2)).
    let beside = flags & CLONE_VM != 0 && flags & CLONE_VFORK == 0;
    let child = Arc::new_cyclic(|weak: &Weak<Thread>| Thread {
        kernel: t.kernel,
        process: process.clone(),
        context,
        sched: ThreadSched::of_child(&t.sched.params()),
        signals: ThreadSignals::for_child(&t.signals, beside),
        trace: ptrace::Tracing::default(),
        clear_child_tid: SpinLock::new(if flags & CLONE_CHILD_CLEARTID != 0 {
            child_tid
        } else {
            UserAddr(0)
        }),
        robust_list: SpinLock::new(UserAddr(0)),
        personality: AtomicU32::new(t.personality()),
        rseq: SpinLock::new(if flags & CLONE_VM != 0 {
            None
        } else {
            *t.rseq.lock()
        }),
        tid: AtomicU32::new(tid),
        weak: weak.clone(),
        mm: SpinLock::new(Some(child_mm)),
        files: SpinLock::new(Some(if flags & CLONE_FILES != 0 {
            files
        } else {
            files.fork()
        })),
        fs: SpinLock::new(Some(if flags & CLONE_FS != 0 { fs } else { fs.fork() })),
        credentials: SpinLock::new(t.credentials()),
        filters: t.filters.inherited(),
        namespaces: SpinLock::new(namespaces),
        undo: SpinLock::new((flags & CLONE_SYSVSEM != 0).then(|| t.undo())),
        name: SpinLock::new(*t.name.lock()),
        vfork_done: SpinLock::new(vfork_done.clone()),
        set_child_tid: SpinLock::new(if flags & CLONE_CHILD_SETTID != 0 {
            child_tid
        } else {
            UserAddr(0)
        }),
    });

    child.context.record().set_name(&child.name.lock());
    child.sched.set_slack_ns(t.sched.slack_ns());

    // From here on nothing fails: the child becomes visible and runs.
    if flags & CLONE_PARENT_SETTID != 0 {
        // As on Linux a bad address is not reported: the child exists.
        let _ = UserAddr(request.parent_tid).write(&tid);
    }
    enter(t, &process, &child, request);
    let event = ptrace::clone_event(t, flags, request.exit_signal);
    if event.is_some() || flags & CLONE_PTRACE != 0 {
        ptrace::inherit(t, &child, t.frame().nr());
    }
    sched::start(&child);
    drop((process, child));
    if let Some(event) = event {
        ptrace::event(t, event, u64::from(tid));
    }
    if let Some(done) = vfork_done
        && wait_for_vfork(t, &done)
    {
        ptrace::event(t, PTRACE_EVENT_VFORK_DONE, u64::from(tid));
    }
    Ok(tid as usize)
}

/// Puts the new thread, and its process if that is new, into the tables.
fn enter(t: &Thread, process: &Arc<Process>, child: &Arc<Thread>, request: &Request) {
    process.threads.lock().insert(child.tid(), child.clone());
    t.kernel.tasks.add_thread(child);
    if request.flags & CLONE_THREAD != 0 {
        // A process that is being killed or stopped takes the newcomer along.
        if process.exiting.lock().is_some() {
            signal::kill_thread(child);
        }
        signal::thread_joined(child);
        return;
    }
    if process
        .limit(general::RLIMIT_CPU)
        .is_ok_and(|limit| limit.rlim_cur != u64::MAX)
    {
        crate::time::cpu_limit_changed(process);
    }
    t.kernel.tasks.add_process(process);
    if let Some(parent) = process.parent() {
        parent.family.lock().children.push(process.clone());
    }
}

fn new_process(t: &Thread, request: &Request, pid: u32) -> Arc<Process> {
    let this = &t.process;
    let (parent, parent_thread) = if request.flags & CLONE_PARENT != 0 {
        let family = this.family.lock();
        (family.parent.upgrade(), family.parent_thread.clone())
    } else {
        (Some(this.clone()), t.weak())
    };
    let handlers = this.handlers();
    let handlers = if request.flags & CLONE_SIGHAND != 0 {
        handlers
    } else if request.flags & CLONE_CLEAR_SIGHAND != 0 {
        handlers.reset_for_exec()
    } else {
        handlers.fork()
    };
    Arc::new(Process {
        kernel: t.kernel,
        pid,
        signals: ProcessSignals::default(),
        timers: ProcessTimers::default(),
        ppid: AtomicU32::new(parent.as_ref().map_or(0, |parent| parent.pid)),
        pgid: AtomicU32::new(this.pgid()),
        sid: AtomicU32::new(this.sid()),
        controlling: this.controlling.inherited(),
        family: SpinLock::new(Family {
            parent: parent.as_ref().map_or_else(Weak::new, Arc::downgrade),
            parent_thread,
            children: Vec::new(),
            life: Life::Alive,
            job_event: None,
        }),
        threads: SpinLock::new(BTreeMap::new()),
        handlers: SpinLock::new(handlers),
        limits: SpinLock::new(*this.limits.lock()),
        child_events: WaitQueue::new(),
        thread_exits: WaitQueue::new(),
        ended: Arc::default(),
        exiting: SpinLock::new(None),
        executable: SpinLock::new(this.executable()),
        arguments: SpinLock::new(this.arguments()),
        program: SpinLock::new(this.program.lock().clone()),
        has_execed: AtomicBool::new(false),
        start_ns: husk_hal::clock::now_ns(),
        dead_times: SpinLock::default(),
        children_times: SpinLock::default(),
        child_subreaper: AtomicBool::new(false),
        dumpable: AtomicBool::new(this.dumpable.load(Ordering::Relaxed)),
        login: SpinLock::new(*this.login.lock()),
        oom_score_adj: AtomicI32::new(this.oom_score_adj.load(Ordering::Relaxed)),
        oom_score_adj_min: AtomicI32::new(this.oom_score_adj_min.load(Ordering::Relaxed)),
        record_marks: AtomicU32::new(
            t.kernel
                .trace
                .marks(this.record_marks.load(Ordering::Relaxed), pid),
        ),
        exit_signal: AtomicU32::new(request.exit_signal),
        leader_tracer: SpinLock::new(Weak::new()),
        ended_tracees: AtomicU32::new(0),
        outside: None,
    })
}

/// The parent of a vfork child sleeps until the child has exec'd or ended, which is true then; only death ends it earlier.
fn wait_for_vfork(t: &Thread, done: &Arc<VforkDone>) -> bool {
    let outcome = done.queue.wait(t, Interruptible::Killable, None, || {
        done.done.load(Ordering::Acquire).then_some(())
    });
    outcome.is_ok()
}

/// Lets a vfork parent go on: the child has given up the parent's memory.
pub(super) fn finish_vfork(t: &Thread) {
    if let Some(done) = t.vfork_done.lock().take() {
        done.done.store(true, Ordering::Release);
        done.queue.wake_all();
    }
}

/// What a new thread does before its first user instruction.
pub fn thread_started(t: &Thread) {
    sched::finish_switch(t.kernel);
    let address = core::mem::replace(&mut *t.set_child_tid.lock(), UserAddr(0));
    if !address.is_null() {
        let _ = address.write(&t.tid());
    }
}

/// A process without a parent, with one thread that has no program yet.
pub(crate) fn process_from_outside(
    kernel: &'static crate::Kernel,
    parts: super::InitParts,
) -> Result<Arc<Thread>> {
    let pid = kernel.tasks.allocate()?;
    let process = Arc::new(Process {
        kernel,
        pid,
        signals: ProcessSignals::default(),
        timers: ProcessTimers::default(),
        ppid: AtomicU32::new(0),
        pgid: AtomicU32::new(pid),
        sid: AtomicU32::new(pid),
        controlling: Controlling::default(),
        family: SpinLock::new(Family {
            parent: Weak::new(),
            parent_thread: Weak::new(),
            children: Vec::new(),
            life: Life::Alive,
            job_event: None,
        }),
        threads: SpinLock::new(BTreeMap::new()),
        handlers: SpinLock::new(crate::signal::Handlers::new()),
        limits: SpinLock::new(super::limits::initial(&parts.rlimits)),
        child_events: WaitQueue::new(),
        thread_exits: WaitQueue::new(),
        ended: Arc::default(),
        exiting: SpinLock::new(None),
        executable: SpinLock::new(Vec::new()),
        arguments: SpinLock::default(),
        program: SpinLock::new(None),
        has_execed: AtomicBool::new(true),
        start_ns: husk_hal::clock::now_ns(),
        dead_times: SpinLock::default(),
        children_times: SpinLock::default(),
        child_subreaper: AtomicBool::new(false),
        dumpable: AtomicBool::new(true),
        login: SpinLock::default(),
        oom_score_adj: AtomicI32::new(parts.oom_score_adj),
        oom_score_adj_min: AtomicI32::new(parts.oom_score_adj),
        record_marks: AtomicU32::new(kernel.trace.marks(0, pid)),
        exit_signal: AtomicU32::new(general::SIGCHLD),
        leader_tracer: SpinLock::new(Weak::new()),
        ended_tracees: AtomicU32::new(0),
        outside: parts.outside,
    });
    let frame = TrapFrame::user_entry(0, 0);
    let context =
        hal_thread::Context::user(&frame, 0, 0, fpu::State::initial()).ok_or(Errno::ENOMEM)?;
    let thread = Arc::new_cyclic(|weak: &Weak<Thread>| Thread {
        kernel,
        process: process.clone(),
        context,
        sched: ThreadSched::new(),
        signals: ThreadSignals::new(0),
        trace: ptrace::Tracing::default(),
        clear_child_tid: SpinLock::new(UserAddr(0)),
        robust_list: SpinLock::new(UserAddr(0)),
        personality: AtomicU32::new(0),
        rseq: SpinLock::new(None),
        tid: AtomicU32::new(pid),
        weak: weak.clone(),
        mm: SpinLock::new(Some(parts.mm)),
        files: SpinLock::new(Some(parts.files)),
        fs: SpinLock::new(Some(parts.fs)),
        credentials: SpinLock::new(Arc::new(parts.credentials)),
        filters: Filters::default(),
        namespaces: SpinLock::new(kernel.namespaces.clone()),
        undo: SpinLock::new(None),
        name: SpinLock::new([0; 16]),
        vfork_done: SpinLock::new(None),
        set_child_tid: SpinLock::new(UserAddr(0)),
    });
    process.threads.lock().insert(pid, thread.clone());
    kernel.tasks.add_thread(&thread);
    kernel.tasks.add_process(&process);
    Ok(thread)
}
