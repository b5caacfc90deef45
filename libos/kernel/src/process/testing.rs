//! A kernel and its first thread for host-side tests: memory of its own, an empty root, all capabilities.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use husk_abi::boundary::boot::{BOOT_MAGIC, BootInfo, GuestRange, MAX_VCPUS, VcpuBoot, Virtqueue};
use husk_abi::boundary::config::{
    GuestConfig, LogLevel, Mount, MountKind, ProcessConfig, StreamKind,
};
use husk_hal::fpu;
use husk_hal::phys::{self, Frame};
use husk_hal::thread::Context;
use husk_hal::trap::TrapFrame;

use super::{Credentials, InitParts, Process, clone};
use crate::fs::{self, FdTable, FsContext};
use crate::mm::{self, AddressSpace};
use crate::sched::ThreadSched;
use crate::signal::ThreadSignals;
use crate::sync::SpinLock;
use crate::user::UserAddr;
use crate::{Kernel, Thread};

/// Memory of a test's kernel, in MiB.
const MIB: u64 = 16;

/// The first thread of a kernel whose root is empty.
pub(crate) fn test_thread() -> Arc<Thread> {
    test_thread_with_root(&[]).expect("an empty root can be mounted")
}

/// The first thread of a kernel whose root comes from `archive` (cpio); empty for none.
///
/// # Errors
/// What mounting gives.
pub(crate) fn test_thread_with_root(archive: &[u8]) -> crate::Result<Arc<Thread>> {
    first_thread(kernel(archive, |_| {}))
}

/// The first thread of a kernel whose root is empty, booted with what `change` makes of the boot info.
pub(crate) fn test_thread_with_boot(change: impl FnOnce(&mut BootInfo)) -> Arc<Thread> {
    first_thread(kernel(&[], change)).expect("an empty root can be mounted")
}

fn first_thread(kernel: &'static Kernel) -> crate::Result<Arc<Thread>> {
    fs::mount_initial(kernel)?;
    let t = new_process(kernel, root_credentials())?;
    fs::set_up(&t)?;
    Ok(t)
}

/// `/proc`, `/dev` and `/dev/shm`, as `runc spec` proposes them.
fn mounts() -> Vec<Mount> {
    use husk_abi::linux::general as g;
    let mount = |kind, target: &str, source: &str, flags, data: &str| Mount {
        kind,
        target: target.into(),
        source: source.into(),
        flags,
        data: data.into(),
    };
    alloc::vec![
        mount(MountKind::Proc, "/proc", "proc", 0, ""),
        mount(
            MountKind::Tmpfs(false),
            "/dev",
            "tmpfs",
            g::MS_NOSUID | g::MS_STRICTATIME,
            "mode=755,size=65536k",
        ),
        mount(
            MountKind::Tmpfs(false),
            "/dev/shm",
            "shm",
            g::MS_NOSUID | g::MS_NODEV | g::MS_NOEXEC,
            "mode=1777,size=65536k",
        ),
    ]
}

/// A thread of a new process, which has no parent and its own session and group.
///
/// # Errors
/// What its parts give.
pub(crate) fn new_process(
    kernel: &'static Kernel,
    credentials: Credentials,
) -> crate::Result<Arc<Thread>> {
    let parts = InitParts {
        mm: AddressSpace::new(kernel)?,
        files: FdTable::new(),
        fs: FsContext::new_init(kernel, 0o022)?,
        credentials,
        rlimits: Vec::new(),
        oom_score_adj: 0,
        outside: None,
    };
    clone::process_from_outside(kernel, parts)
}

/// Makes `child` a child of `parent`, in its session but in its own group.
pub(crate) fn adopt(parent: &Arc<Process>, child: &Arc<Process>) {
    child.family.lock().parent = Arc::downgrade(parent);
    child.ppid.store(parent.pid, Ordering::Relaxed);
    child.sid.store(parent.sid(), Ordering::Relaxed);
    parent.family.lock().children.push(child.clone());
}

/// Another thread of `t`'s process.
pub(crate) fn new_thread(t: &Thread) -> Arc<Thread> {
    let tid = t.kernel.tasks.allocate().expect("a free id");
    let frame = TrapFrame::user_entry(0, 0);
    let thread = Arc::new_cyclic(|weak: &Weak<Thread>| Thread {
        kernel: t.kernel,
        process: t.process.clone(),
        context: Context::user(&frame, 0, 0, fpu::State::initial()).expect("memory"),
        sched: ThreadSched::new(),
        signals: ThreadSignals::for_child(&t.signals, true),
        trace: crate::process::ptrace::Tracing::default(),
        clear_child_tid: SpinLock::new(UserAddr(0)),
        robust_list: SpinLock::new(UserAddr(0)),
        personality: AtomicU32::new(0),
        rseq: SpinLock::new(None),
        tid: AtomicU32::new(tid),
        weak: weak.clone(),
        mm: SpinLock::new(Some(t.mm())),
        files: SpinLock::new(Some(t.files())),
        fs: SpinLock::new(Some(t.fs())),
        credentials: SpinLock::new(t.credentials()),
        filters: t.filters.inherited(),
        namespaces: SpinLock::new(t.namespaces()),
        undo: SpinLock::new(None),
        name: SpinLock::new([0; 16]),
        vfork_done: SpinLock::new(None),
        set_child_tid: SpinLock::new(UserAddr(0)),
    });
    t.process.threads.lock().insert(tid, thread.clone());
    t.kernel.tasks.add_thread(&thread);
    crate::signal::thread_joined(&thread);
    thread
}

/// Root's credentials with every capability.
pub(crate) fn root_credentials() -> Credentials {
    user_credentials(0, u64::MAX)
}

/// Credentials of user and group `id` with capabilities `caps`.
pub(crate) fn user_credentials(id: u32, caps: u64) -> Credentials {
    Credentials {
        uid: id,
        euid: id,
        suid: id,
        fsuid: id,
        gid: id,
        egid: id,
        sgid: id,
        fsgid: id,
        groups: Vec::new(),
        cap_bounding: caps,
        cap_effective: caps,
        cap_inheritable: 0,
        cap_permitted: caps,
        cap_ambient: 0,
        no_new_privileges: false,
        securebits: 0,
    }
}

fn kernel(archive: &[u8], change: impl FnOnce(&mut BootInfo)) -> &'static Kernel {
    let range = mm::testing::arena(MIB + archive.len().div_ceil(1 << 20) as u64);
    let mut free_gpa = range.start;
    for chunk in archive.chunks(4096) {
        phys::write(Frame::containing(free_gpa), 0, chunk);
        free_gpa += 4096;
    }
    // What the boundary shares with the VMM.
    let shared_gpa = free_gpa;
    let mut boot = BootInfo {
        magic: BOOT_MAGIC,
        boundary_version: 0,
        vcpu_count: 1,
        ram_bytes: range.end,
        ready_bytes: range.end,
        free_gpa: shared_gpa + 16 * 4096,
        memory_limit_bytes: range.end - range.start,
        root_archive: GuestRange {
            gpa: range.start,
            len: archive.len() as u64,
        },
        config: GuestRange::default(),
        log: GuestRange::default(),
        wall_clock_gpa: shared_gpa,
        record_filter_gpa: shared_gpa + 4096,
        host_events_gpa: shared_gpa + 2 * 4096,
        stdio_out: queue(shared_gpa + 3 * 4096),
        stdio_in: queue(shared_gpa + 6 * 4096),
        fuse: queue(shared_gpa + 9 * 4096),
        window: GuestRange::default(),
        truncated_gpa: shared_gpa + 12 * 4096,
        sockets: husk_abi::boundary::boot::GuestRange::default(),
        control_in: Virtqueue::default(),
        control_out: Virtqueue::default(),
        sessions_gpa: shared_gpa + 13 * 4096,
        xcr0: 7,
        vcpus: [VcpuBoot::default(); MAX_VCPUS],
    };
    change(&mut boot);
    let config = GuestConfig {
        process: ProcessConfig {
            args: Vec::new(),
            env: Vec::new(),
            cwd: b"/".to_vec(),
            uid: 0,
            gid: 0,
            additional_gids: Vec::new(),
            umask: 0o022,
            capabilities: [u64::MAX; 5],
            no_new_privileges: false,
            rlimits: Vec::new(),
            oom_score_adj: 0,
            streams: [StreamKind::Null; 3],
            handed: Vec::new(),
            window: None,
        },
        hostname: String::from("test"),
        domainname: None,
        pids_limit: None,
        mounts: mounts(),
        devices: Vec::new(),
        user_namespace: None,
        root_readonly: false,
        masked_paths: Vec::new(),
        readonly_paths: Vec::new(),
        sysctl: Vec::new(),
        seccomp: None,
        terminal: false,
        log_levels: [LogLevel::Error; husk_abi::boundary::log::ROOMS.len()],
        trees: Vec::new(),
        count_sites: false,
    };
    Box::leak(Box::new(Kernel::new(&boot, config, &[])))
}

fn queue(gpa: u64) -> Virtqueue {
    Virtqueue {
        desc_gpa: gpa,
        avail_gpa: gpa + 4096,
        used_gpa: gpa + 2 * 4096,
        size: 8,
        reserved: 0,
    }
}
