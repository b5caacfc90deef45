//! Classes of system calls, as strace(1) has them.

use husk_abi::linux::syscalls::Syscall;

/// All names, for a message.
pub const NAMES: &str =
    "%file, %desc, %process, %network, %net, %signal, %memory, %creds, %clock or %stat";

/// Calls that name a file and are not described in the table.
const FILE: &[&str] = &[
    "acct",
    "fanotify_mark",
    "fspick",
    "getcwd",
    "inotify_add_watch",
    "mount_setattr",
    "move_mount",
    "name_to_handle_at",
    "open_tree",
    "pivot_root",
    "quotactl",
    "swapoff",
    "swapon",
    "uselib",
];

/// Calls about descriptors that take none, or are not described in the table.
const DESC: &[&str] = &[
    "bpf",
    "close_range",
    "creat",
    "epoll_create",
    "epoll_create1",
    "eventfd",
    "eventfd2",
    "fanotify_init",
    "finit_module",
    "fsopen",
    "inotify_init",
    "inotify_init1",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "landlock_create_ruleset",
    "memfd_create",
    "memfd_secret",
    "mq_open",
    "open",
    "open_by_handle_at",
    "perf_event_open",
    "pidfd_open",
    "pipe",
    "pipe2",
    "poll",
    "ppoll",
    "pselect6",
    "select",
    "setns",
    "socket",
    "socketpair",
    "timerfd_create",
    "userfaultfd",
];

const PROCESS: &[&str] = &[
    "clone",
    "clone3",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "fork",
    "kill",
    "pidfd_send_signal",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "tgkill",
    "tkill",
    "unshare",
    "vfork",
    "wait4",
    "waitid",
];

const NETWORK: &[&str] = &[
    "accept",
    "accept4",
    "bind",
    "connect",
    "getpeername",
    "getpmsg",
    "getsockname",
    "getsockopt",
    "listen",
    "putpmsg",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "sendfile",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
    "socket",
    "socketpair",
];

const SIGNAL: &[&str] = &[
    "kill",
    "pause",
    "pidfd_send_signal",
    "rt_sigaction",
    "rt_sigpending",
    "rt_sigprocmask",
    "rt_sigqueueinfo",
    "rt_sigreturn",
    "rt_sigsuspend",
    "rt_sigtimedwait",
    "rt_tgsigqueueinfo",
    "sigaltstack",
    "signalfd",
    "signalfd4",
    "tgkill",
    "tkill",
];

const MEMORY: &[&str] = &[
    "brk",
    "get_mempolicy",
    "madvise",
    "map_shadow_stack",
    "mbind",
    "migrate_pages",
    "mincore",
    "mlock",
    "mlock2",
    "mlockall",
    "mmap",
    "move_pages",
    "mprotect",
    "mremap",
    "mseal",
    "msync",
    "munlock",
    "munlockall",
    "munmap",
    "pkey_alloc",
    "pkey_free",
    "pkey_mprotect",
    "process_madvise",
    "remap_file_pages",
    "set_mempolicy",
    "set_mempolicy_home_node",
    "shmat",
    "shmdt",
];

const CREDS: &[&str] = &[
    "capget",
    "capset",
    "getegid",
    "geteuid",
    "getgid",
    "getgroups",
    "getresgid",
    "getresuid",
    "getuid",
    "prctl",
    "setfsgid",
    "setfsuid",
    "setgid",
    "setgroups",
    "setregid",
    "setresgid",
    "setresuid",
    "setreuid",
    "setuid",
];

const CLOCK: &[&str] = &[
    "adjtimex",
    "clock_adjtime",
    "clock_getres",
    "clock_gettime",
    "clock_settime",
    "gettimeofday",
    "settimeofday",
    "time",
];

const STAT: &[&str] = &["fstat", "lstat", "newfstatat", "stat", "statx"];

/// Whether a call is in the class called `name`, without its `%`.
pub fn class(name: &str) -> Option<fn(&Syscall) -> bool> {
    Some(match name {
        "file" => |row| FILE.contains(&row.name) || row.args.iter().any(|(_, kind)| kind.is_path()),
        "desc" => {
            |row| DESC.contains(&row.name) || row.args.iter().any(|(_, kind)| kind.is_descriptor())
        }
        "process" => |row| PROCESS.contains(&row.name),
        "network" | "net" => |row| NETWORK.contains(&row.name),
        "signal" => |row| SIGNAL.contains(&row.name),
        "memory" => |row| MEMORY.contains(&row.name),
        "creds" => |row| CREDS.contains(&row.name),
        "clock" => |row| CLOCK.contains(&row.name),
        "stat" => |row| STAT.contains(&row.name),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use husk_abi::linux::syscalls::ALL;

    #[test]
    fn every_name_is_a_calls() {
        for name in [
            FILE, DESC, PROCESS, NETWORK, SIGNAL, MEMORY, CREDS, CLOCK, STAT,
        ]
        .concat()
        {
            assert!(ALL.iter().any(|row| row.name == name), "{name}");
        }
    }

    #[test]
    fn every_class_has_its_name() {
        for name in NAMES.replace(" or", ",").split(", ") {
            assert!(class(name.strip_prefix('%').unwrap()).is_some(), "{name}");
        }
    }
}
