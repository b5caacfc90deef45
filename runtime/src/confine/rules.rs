//! Which system calls the VMM may make: by which kind of thread, and why.

use libc::c_long;

/// A kind of thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The first thread and those that start others.
    Main,
    /// Runs a vCPU and serves what cannot block.
    Vcpu,
    /// Writes the guest's output.
    Output,
    /// Reads the guest's input.
    Input,
    /// Waits for signals for the guest.
    Signals,
    /// Publishes the wall clock.
    Clock,
    /// Writes records.
    Records,
    /// Serves files and sockets that may block.
    Service,
    /// Serves the control socket, and starts the threads of streams.
    Control,
}

impl Role {
    /// All there are.
    pub const ALL: [Self; 9] = [
        Self::Main,
        Self::Vcpu,
        Self::Output,
        Self::Input,
        Self::Signals,
        Self::Clock,
        Self::Records,
        Self::Service,
        Self::Control,
    ];
}

/// With which arguments a call is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// All.
    Always,
    /// This argument has this value.
    Arg(u8, u64),
    /// This argument, masked, has this value.
    Masked(u8, u64, u64),
    /// This argument has one of these values.
    OneOf(u8, &'static [u64]),
}

/// A call that is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its number.
    pub syscall: c_long,
    /// With which arguments.
    pub when: When,
    /// For whom.
    pub roles: &'static [Role],
    /// What for.
    pub why: &'static str,
}

const EVERYBODY: &[Role] = &Role::ALL;
const MAIN: &[Role] = &[Role::Main];
const SERVES: &[Role] = &[Role::Main, Role::Vcpu, Role::Service];
const STREAMS: &[Role] = &[
    Role::Main,
    Role::Vcpu,
    Role::Service,
    Role::Output,
    Role::Input,
    Role::Control,
];
const STARTS: &[Role] = &[Role::Main, Role::Control];
const CONTROLS: &[Role] = &[Role::Main, Role::Vcpu, Role::Service, Role::Control];

const fn rule(syscall: c_long, roles: &'static [Role], why: &'static str) -> Rule {
    Rule {
        syscall,
        when: When::Always,
        roles,
        why,
    }
}

const fn only(syscall: c_long, when: When, roles: &'static [Role], why: &'static str) -> Rule {
    Rule {
        syscall,
        when,
        roles,
        why,
    }
}

/// `ioctl` requests of KVM have this type byte.
const KVM: When = When::Masked(1, 0xff00, 0xae00);
/// Internet sockets, `rtnetlink(7)`, and sockets that lie in volumes.
const FAMILIES: &[u64] = &[
    libc::AF_INET as u64,
    libc::AF_INET6 as u64,
    libc::AF_NETLINK as u64,
    libc::AF_UNIX as u64,
];

/// The requests of `gate::net::ioctl`: all of them read.
pub const SOCKET_REQUESTS: &[u64] = &[
    0x541b,
    0x5411,
    0x894b,
    0x8905,
    0x8906,
    0x8907,
    0x8010_8906,
    0x8010_8907,
    0x8910,
    0x8912,
    0x8913,
    0x8915,
    0x8917,
    0x8919,
    0x891b,
    0x891d,
    0x8921,
    0x8927,
    0x8933,
    0x8942,
    0x8970,
];

const HEAP: &str = "the allocator's heap";
const THREADS: &str = "starting and ending threads";
const LOCKS: &str = "locks and channels between threads";
const TIME: &str = "reading clocks, sleeping";
const FILES: &str = "the file service: what the guest asks for below the root";
const SOCKETS: &str = "the socket service: what the guest asks for in its network namespace";
const EVENTS: &str = "descriptors that wake threads";

/// All rules.
pub const RULES: &[Rule] = &[
    // Every thread.
    rule(libc::SYS_mmap, EVERYBODY, HEAP),
    rule(libc::SYS_munmap, EVERYBODY, HEAP),
    rule(libc::SYS_mremap, EVERYBODY, HEAP),
    rule(libc::SYS_mprotect, EVERYBODY, HEAP),
    rule(
        libc::SYS_madvise,
        EVERYBODY,
        "the allocator's heap, and memory the guest gives back",
    ),
    rule(libc::SYS_brk, EVERYBODY, HEAP),
    rule(libc::SYS_futex, EVERYBODY, LOCKS),
    rule(libc::SYS_sched_yield, EVERYBODY, LOCKS),
    rule(libc::SYS_membarrier, EVERYBODY, LOCKS),
    rule(
        libc::SYS_rt_sigaction,
        EVERYBODY,
        "the handler of the signal that kicks vCPUs",
    ),
    rule(
        libc::SYS_rt_sigprocmask,
        EVERYBODY,
        "which thread takes which signals",
    ),
    rule(
        libc::SYS_rt_sigreturn,
        EVERYBODY,
        "the end of a signal handler",
    ),
    rule(
        libc::SYS_sigaltstack,
        EVERYBODY,
        "the stack that tells of an overflow",
    ),
    rule(libc::SYS_tgkill, EVERYBODY, "kicking a vCPU, aborting"),
    rule(libc::SYS_gettid, EVERYBODY, THREADS),
    rule(libc::SYS_getpid, EVERYBODY, "aborting"),
    rule(libc::SYS_set_robust_list, EVERYBODY, THREADS),
    rule(libc::SYS_rseq, EVERYBODY, THREADS),
    rule(libc::SYS_exit, EVERYBODY, THREADS),
    rule(libc::SYS_exit_group, EVERYBODY, "the end"),
    rule(
        libc::SYS_restart_syscall,
        EVERYBODY,
        "the kernel's own, after a stop",
    ),
    rule(libc::SYS_clock_gettime, EVERYBODY, TIME),
    rule(libc::SYS_clock_nanosleep, EVERYBODY, TIME),
    rule(libc::SYS_nanosleep, EVERYBODY, TIME),
    rule(libc::SYS_gettimeofday, EVERYBODY, TIME),
    rule(libc::SYS_getrandom, EVERYBODY, "seeds of hash maps"),
    rule(libc::SYS_read, EVERYBODY, EVENTS),
    rule(
        libc::SYS_write,
        EVERYBODY,
        "descriptors that wake threads, log lines",
    ),
    rule(libc::SYS_close, EVERYBODY, "descriptors that are done with"),
    rule(libc::SYS_poll, EVERYBODY, EVENTS),
    rule(
        libc::SYS_ppoll,
        EVERYBODY,
        "an idle vCPU sleeps, a stream waits",
    ),
    only(
        libc::SYS_prctl,
        When::Arg(0, libc::PR_SET_NAME as u64),
        EVERYBODY,
        "names of threads",
    ),
    only(
        libc::SYS_prctl,
        When::Arg(0, 0x5356_4d41),
        EVERYBODY,
        "names of memory areas, by the allocator",
    ),
    only(
        libc::SYS_ioctl,
        KVM,
        &[Role::Main, Role::Vcpu, Role::Clock, Role::Control],
        "KVM",
    ),
    // A thread that narrows its own filter.
    rule(
        libc::SYS_seccomp,
        EVERYBODY,
        "a thread's own, narrower filter",
    ),
    only(
        libc::SYS_prctl,
        When::Arg(0, libc::PR_SET_NO_NEW_PRIVS as u64),
        EVERYBODY,
        "a thread's own, narrower filter",
    ),
    only(
        libc::SYS_prctl,
        When::Arg(0, libc::PR_SET_SECCOMP as u64),
        EVERYBODY,
        "a thread's own, narrower filter",
    ),
    rule(
        libc::SYS_sched_getaffinity,
        EVERYBODY,
        "glibc asks it when it says where a stack is",
    ),
    rule(libc::SYS_fcntl, EVERYBODY, "flags of descriptors"),
    // Threads that start threads, and make the machine.
    rule(libc::SYS_clone3, STARTS, THREADS),
    rule(libc::SYS_clone, STARTS, THREADS),
    rule(libc::SYS_eventfd2, CONTROLS, EVENTS),
    rule(
        libc::SYS_timerfd_create,
        MAIN,
        "the clock's timer, and the vCPU's where no signals are left",
    ),
    rule(
        libc::SYS_timerfd_settime,
        &[Role::Main, Role::Clock, Role::Vcpu],
        "the clock's timer, and the vCPU's where no signals are left",
    ),
    rule(
        libc::SYS_timerfd_gettime,
        &[Role::Main, Role::Clock],
        "the clock's timer",
    ),
    rule(libc::SYS_timer_create, MAIN, "the vCPU's timer"),
    rule(
        libc::SYS_timer_settime,
        &[Role::Main, Role::Vcpu],
        "the vCPU's timer",
    ),
    rule(
        libc::SYS_timer_delete,
        &[Role::Main, Role::Vcpu],
        "the vCPU's timer",
    ),
    rule(
        libc::SYS_memfd_create,
        MAIN,
        "memory that is shared with nobody",
    ),
    rule(libc::SYS_sysinfo, MAIN, "the host's RAM"),
    rule(libc::SYS_uname, MAIN, "the host name of the namespace"),
    rule(
        libc::SYS_rt_sigtimedwait,
        &[Role::Main, Role::Signals],
        "waiting for signals for the guest",
    ),
    rule(libc::SYS_prlimit64, STARTS, "sizes of stacks"),
    // Streams.
    rule(libc::SYS_readv, STREAMS, "input, files, sockets"),
    rule(libc::SYS_writev, STREAMS, "output, files, sockets"),
    only(
        libc::SYS_ioctl,
        When::Arg(1, libc::TIOCGWINSZ),
        &[
            Role::Main,
            Role::Vcpu,
            Role::Service,
            Role::Output,
            Role::Input,
            Role::Control,
            Role::Signals,
        ],
        "the size of the terminal",
    ),
    only(
        libc::SYS_ioctl,
        When::Arg(1, libc::TCGETS),
        STREAMS,
        "whether a stream is a terminal",
    ),
    only(
        libc::SYS_ioctl,
        When::Arg(1, libc::TCSETS),
        STREAMS,
        "what the guest wants its terminal to do",
    ),
    only(
        libc::SYS_ioctl,
        When::Arg(1, libc::TCFLSH),
        STREAMS,
        "what the guest wants its terminal to throw away",
    ),
    only(
        libc::SYS_ioctl,
        When::Arg(1, libc::TCSBRK),
        STREAMS,
        "waiting until the guest's terminal has sent everything",
    ),
    only(
        libc::SYS_ioctl,
        When::Arg(1, libc::FIONREAD),
        STREAMS,
        "how much there is to read",
    ),
    only(
        libc::SYS_ioctl,
        When::Arg(1, libc::FIONBIO),
        STREAMS,
        "sockets that do not block",
    ),
    // The file service.
    rule(libc::SYS_openat, SERVES, FILES),
    rule(libc::SYS_openat2, SERVES, FILES),
    rule(libc::SYS_fstat, SERVES, FILES),
    rule(libc::SYS_newfstatat, SERVES, FILES),
    rule(libc::SYS_statx, SERVES, FILES),
    rule(libc::SYS_lseek, SERVES, FILES),
    rule(libc::SYS_readlinkat, SERVES, FILES),
    rule(libc::SYS_faccessat2, SERVES, FILES),
    rule(libc::SYS_mkdirat, SERVES, FILES),
    rule(libc::SYS_mknodat, SERVES, FILES),
    rule(libc::SYS_unlinkat, SERVES, FILES),
    rule(libc::SYS_symlinkat, SERVES, FILES),
    rule(libc::SYS_linkat, SERVES, FILES),
    rule(libc::SYS_renameat2, SERVES, FILES),
    rule(libc::SYS_renameat, SERVES, FILES),
    rule(libc::SYS_fchmod, SERVES, FILES),
    rule(libc::SYS_fchmodat, SERVES, FILES),
    rule(452, SERVES, FILES), // fchmodat2
    rule(libc::SYS_fchown, SERVES, FILES),
    rule(libc::SYS_fchownat, SERVES, FILES),
    rule(libc::SYS_utimensat, SERVES, FILES),
    rule(libc::SYS_statfs, SERVES, FILES),
    rule(libc::SYS_fstatfs, SERVES, FILES),
    rule(libc::SYS_getdents64, SERVES, FILES),
    rule(libc::SYS_pread64, SERVES, FILES),
    rule(
        libc::SYS_pwrite64,
        CONTROLS,
        "files, and the count of what was killed for want of memory",
    ),
    rule(libc::SYS_preadv, SERVES, FILES),
    rule(libc::SYS_pwritev, SERVES, FILES),
    rule(libc::SYS_preadv2, SERVES, FILES),
    rule(libc::SYS_pwritev2, SERVES, FILES),
    rule(libc::SYS_ftruncate, SERVES, FILES),
    rule(libc::SYS_fallocate, SERVES, FILES),
    rule(libc::SYS_fsync, SERVES, FILES),
    rule(libc::SYS_fdatasync, SERVES, FILES),
    rule(libc::SYS_sync_file_range, SERVES, FILES),
    rule(libc::SYS_syncfs, SERVES, FILES),
    rule(libc::SYS_copy_file_range, SERVES, FILES),
    rule(libc::SYS_getxattr, SERVES, FILES),
    rule(libc::SYS_lgetxattr, SERVES, FILES),
    rule(libc::SYS_fgetxattr, SERVES, FILES),
    rule(libc::SYS_setxattr, SERVES, FILES),
    rule(libc::SYS_lsetxattr, SERVES, FILES),
    rule(libc::SYS_fsetxattr, SERVES, FILES),
    rule(libc::SYS_listxattr, SERVES, FILES),
    rule(libc::SYS_llistxattr, SERVES, FILES),
    rule(libc::SYS_flistxattr, SERVES, FILES),
    rule(libc::SYS_removexattr, SERVES, FILES),
    rule(libc::SYS_lremovexattr, SERVES, FILES),
    rule(libc::SYS_fremovexattr, SERVES, FILES),
    rule(libc::SYS_flock, SERVES, FILES),
    rule(
        libc::SYS_pipe2,
        SERVES,
        "looking whether a FIFO has a writer",
    ),
    rule(libc::SYS_tee, SERVES, "looking whether a FIFO has a writer"),
    rule(libc::SYS_umask, SERVES, FILES),
    rule(libc::SYS_dup, CONTROLS, FILES),
    rule(libc::SYS_dup3, SERVES, FILES),
    rule(
        libc::SYS_inotify_init1,
        SERVES,
        "changes the host makes to volumes",
    ),
    rule(
        libc::SYS_inotify_add_watch,
        SERVES,
        "changes the host makes to volumes",
    ),
    rule(
        libc::SYS_inotify_rm_watch,
        SERVES,
        "changes the host makes to volumes",
    ),
    // The socket service.
    only(
        libc::SYS_socket,
        When::OneOf(0, FAMILIES),
        SERVES,
        "the socket service, and sockets in volumes",
    ),
    rule(libc::SYS_bind, SERVES, SOCKETS),
    rule(libc::SYS_listen, SERVES, SOCKETS),
    rule(libc::SYS_accept4, CONTROLS, SOCKETS),
    rule(libc::SYS_connect, SERVES, SOCKETS),
    rule(libc::SYS_shutdown, SERVES, SOCKETS),
    rule(libc::SYS_getsockname, SERVES, SOCKETS),
    rule(libc::SYS_getpeername, SERVES, SOCKETS),
    rule(libc::SYS_getsockopt, SERVES, SOCKETS),
    rule(libc::SYS_setsockopt, SERVES, SOCKETS),
    rule(libc::SYS_sendto, SERVES, SOCKETS),
    rule(libc::SYS_recvfrom, SERVES, SOCKETS),
    rule(libc::SYS_sendmsg, CONTROLS, SOCKETS),
    rule(libc::SYS_recvmsg, CONTROLS, SOCKETS),
    rule(libc::SYS_epoll_create1, SERVES, "readiness of sockets"),
    rule(libc::SYS_epoll_ctl, SERVES, "readiness of sockets"),
    rule(libc::SYS_epoll_wait, SERVES, "readiness of sockets"),
    rule(libc::SYS_epoll_pwait, SERVES, "readiness of sockets"),
    only(
        libc::SYS_ioctl,
        When::OneOf(1, SOCKET_REQUESTS),
        SERVES,
        "what the guest asks of its sockets and their interfaces",
    ),
];
