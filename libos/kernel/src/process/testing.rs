//! Kernels, processes and threads for host-side tests: whole, except that nothing runs.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU32, Ordering};

use husk_abi::boundary::boot::{BOOT_MAGIC, BootInfo, GuestRange, MAX_VCPUS, VcpuBoot, Virtqueue};
use husk_abi::boundary::config::{GuestConfig, LogLevel, StreamKind};
use husk_abi::boundary::version::BOUNDARY_VERSION;
use husk_hal::trap::TrapFrame;
use husk_hal::{fpu, thread as hal_thread};

use super::{Credentials, InitParts, Process, Thread};
use crate::sched::ThreadSched;
use crate::signal::ThreadSignals;
use crate::sync::SpinLock;
use crate::user::UserAddr;
use crate::{Kernel, fs, mm};

/// 2 MiB units of memory a test kernel has.
const LARGE_PAGES: u64 = 8;
/// Bytes at the start of its memory for the pages it shares with the VMM.
const SHARED_BYTES: u64 = 64 << 10;

/// A kernel of its own, with an empty root file system.
pub fn kernel() -> &'static Kernel {
    let frames = mm::testing::frames((LARGE_PAGES + 2) * 2);
    let start = frames.alloc_contiguous(LARGE_PAGES * 512).unwrap().gpa();
    let rings = |page: u64| Virtqueue {
        desc_gpa: start + page * 4096,
        avail_gpa: start + (page + 1) * 4096,
        used_gpa: start + (page + 2) * 4096,
        size: 8,
        reserved: 0,
    };
    let boot = BootInfo {
        magic: BOOT_MAGIC,
        boundary_version: BOUNDARY_VERSION,
        vcpu_count: 1,
        ram_bytes: start + LARGE_PAGES * (2 << 20),
        free_gpa: start + SHARED_BYTES,
        memory_limit_bytes: LARGE_PAGES * (2 << 20) - SHARED_BYTES,
        root_archive: GuestRange::default(),
        config: GuestRange::default(),
        log: GuestRange::default(),
        wall_clock_gpa: start,
        record_filter_gpa: start + 4096,
        host_events_gpa: start + 2 * 4096,
        stdio_out: rings(3),
        stdio_in: rings(6),
        xcr0: 7,
        reserved: 0,
        vcpus: [VcpuBoot::default(); MAX_VCPUS],
    };
    let config = GuestConfig {
        args: Vec::new(),
        env: Vec::new(),
        cwd: b"/".to_vec(),
        uid: 0,
        gid: 0,
        additional_gids: Vec::new(),
        umask: 0o022,
        capabilities: [0; 5],
        no_new_privileges: false,
        rlimits: Vec::new(),
        hostname: "test".into(),
        streams: [StreamKind::Closed; 3],
        log_level: LogLevel::Error,
        count_sites: false,
    };
    let kernel: &'static Kernel = Box::leak(Box::new(Kernel::new(&boot, config, &[])));
    kernel.attach();
    fs::mount_initial(kernel).unwrap();
    kernel
}

/// A new process of user `uid` with one thread; the first is init. Without parent, in a session of its own.
pub fn process(kernel: &'static Kernel, uid: u32) -> Arc<Thread> {
    let credentials = Credentials {
        uid,
        euid: uid,
        suid: uid,
        fsuid: uid,
        gid: uid,
        egid: uid,
        sgid: uid,
        fsgid: uid,
        groups: Vec::new(),
        cap_bounding: 0,
        cap_effective: 0,
        cap_inheritable: 0,
        cap_permitted: 0,
        cap_ambient: 0,
        no_new_privileges: false,
        keep_caps: false,
    };
    let parts = InitParts {
        mm: mm::AddressSpace::new(kernel).unwrap(),
        files: fs::FdTable::new(),
        fs: fs::FsContext::new_init(kernel, 0o022).unwrap(),
        credentials,
    };
    super::clone::init_process(kernel, parts).unwrap()
}

/// Makes `child` a child of `parent`, in its session; in a group of its own.
pub fn adopt(parent: &Arc<Process>, child: &Arc<Process>) {
    child.family.lock().parent = Arc::downgrade(parent);
    child.ppid.store(parent.pid, Ordering::Relaxed);
    child.sid.store(parent.sid(), Ordering::Relaxed);
    parent.family.lock().children.push(child.clone());
}

/// Another thread of `t`'s process.
pub fn thread(t: &Thread) -> Arc<Thread> {
    let tid = t.kernel.tasks.allocate().unwrap();
    let frame = TrapFrame::user_entry(0, 0);
    let thread = Arc::new_cyclic(|weak: &Weak<Thread>| Thread {
        kernel: t.kernel,
        process: t.process.clone(),
        context: hal_thread::Context::user(&frame, 0, 0, fpu::State::initial()),
        sched: ThreadSched::new(),
        signals: ThreadSignals::for_child(&t.signals, true),
        clear_child_tid: SpinLock::new(UserAddr(0)),
        robust_list: SpinLock::new(UserAddr(0)),
        tid: AtomicU32::new(tid),
        weak: weak.clone(),
        mm: SpinLock::new(Some(t.mm())),
        files: SpinLock::new(Some(t.files())),
        fs: SpinLock::new(Some(t.fs())),
        credentials: SpinLock::new(t.credentials()),
        name: SpinLock::new([0; 16]),
        vfork_done: SpinLock::new(None),
        set_child_tid: SpinLock::new(UserAddr(0)),
    });
    t.process
        .threads
        .lock()
        .insert(tid, Arc::downgrade(&thread));
    t.kernel.tasks.add_thread(&thread);
    crate::signal::thread_joined(&thread);
    thread
}
