//! The kernel: one instance a guest, built at boot and handed around by reference.

use alloc::boxed::Box;
use alloc::sync::Arc;

use husk_abi::boundary::{boot::BootInfo, config::GuestConfig};

use crate::syscall::seccomp::Filter;
use crate::{fs, futex, host, ipc, mm, net, process, sched, signal, time, trace, translate, tty};

/// Everything that is not a thread's or a process's own.
#[derive(Debug)]
pub struct Kernel {
    /// What to run, as the VMM gave it.
    pub config: GuestConfig,
    /// Free frames and their reference counts.
    pub frames: mm::Frames,
    /// Run queues.
    pub sched: sched::Scheduler,
    /// Timers.
    pub timers: sched::Timers,
    /// Processes and threads by id, groups and sessions.
    pub tasks: process::Tasks,
    /// Queued signals by user.
    pub queued_signals: signal::QueuedByUser,
    /// Mounts and file systems.
    pub fs: fs::Vfs,
    /// Sockets.
    pub net: net::Net,
    /// Futex wait queues.
    pub futexes: futex::Futexes,
    /// Clocks and the vDSO.
    pub time: time::Clocks,
    /// Patched code.
    pub translator: translate::Translator,
    /// Syscall records.
    pub trace: trace::Recorder,
    /// Numbers of terminals.
    pub ttys: tty::Numbers,
    /// Queues to the VMM.
    pub host: host::Host,
    /// Which system calls are served, if not all.
    pub seccomp: Option<Box<Filter>>,
    /// The namespaces the container starts with.
    pub namespaces: Arc<process::Namespaces>,
}

impl Kernel {
    /// Builds the kernel from what the VMM said. `vdso` is the vDSO's ELF image.
    #[must_use]
    pub fn new(boot: &BootInfo, config: GuestConfig, vdso: &'static [u8]) -> Self {
        if boot.vcpu_count > 1 {
            husk_hal::lock::expect_several_cpus();
        }
        let frames = mm::Frames::new(boot.free_gpa, boot.ram_bytes, boot.memory_limit_bytes)
            .ready_to(boot.ready_bytes);
        let window = fs::fuse::Window::new(boot, &frames);
        let tasks = process::Tasks::new();
        tasks.set_limit(config.pids_limit.unwrap_or(u64::MAX));
        let vfs = fs::Vfs::new(boot.root_archive, window);
        let uts = process::Uts::new(&config.hostname, config.domainname.as_ref());
        let namespaces = Arc::new(process::Namespaces {
            uts: Arc::new(uts),
            ipc: ipc::Namespace::first(vfs.new_device(), ipc::limits::Limits::of(&config.sysctl)),
        });
        Self {
            frames,
            sched: sched::Scheduler::new(boot.vcpu_count as usize),
            timers: sched::Timers::new(),
            tasks,
            queued_signals: signal::QueuedByUser::new(),
            fs: vfs,
            net: net::Net::new(boot),
            futexes: futex::Futexes::new(),
            time: time::Clocks::new(vdso),
            translator: translate::Translator::new(config.count_sites),
            trace: trace::Recorder::new(boot, config.count_sites),
            ttys: tty::Numbers::new(),
            host: host::Host::new(boot),
            namespaces,
            seccomp: config
                .seccomp
                .as_ref()
                .map(|profile| Box::new(Filter::new(profile))),
            config,
        }
    }

    /// Tells the rooms that hold no reference from outside whose they are.
    pub(crate) fn attach(&'static self) {
        self.sched.attach(self);
        self.time.attach(self);
        self.host.attach(self);
        self.host.console.attach(self);
    }
}
