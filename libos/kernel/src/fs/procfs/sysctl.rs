//! `/proc/sys`.

use super::row::{Row, What, directory};
use super::text::Text;
use crate::fs::devfs::ENTROPY_BITS;
use crate::fs::{inotify, pipe, random};
use crate::ipc::mqueue;
use crate::net;
use crate::process::uts;
use crate::tty::numbers;
use crate::{Result, Thread};

const fn sysctl(name: &'static str, mode: u32, generate: super::row::Generate) -> Row {
    Row {
        name,
        mode,
        what: What::Sysctl(generate),
    }
}

/// A setting that always has the same value.
macro_rules! setting {
    ($name:literal, $value:expr) => {
        setting!($name, 0o644, $value)
    };
    ($name:literal, $mode:literal, $value:expr) => {
        sysctl($name, $mode, |_, subject, text| {
            match configured(subject, $name) {
                // Whatever the words were written apart with, the kernel writes a tab.
                Some(value) => {
                    for (index, word) in value.split_ascii_whitespace().enumerate() {
                        text.push(if index == 0 { b"" } else { b"\t" });
                        text.push(word.as_bytes());
                    }
                    text.push(b"\n");
                }
                None => write!(text, "{}\n", $value),
            }
            Ok(())
        })
    };
}

/// A limit of the reader's IPC namespace.
macro_rules! ipc {
    ($name:literal, $limit:ident) => {
        sysctl($name, 0o644, |t, _, text| {
            write!(text, "{}\n", t.namespaces().ipc.limits.$limit);
            Ok(())
        })
    };
}

/// The tables below `/proc/sys`.
pub(super) const SYS: &[Row] = &[
    directory("fs", FS),
    directory("kernel", KERNEL),
    directory(
        "net",
        &[
            directory("core", NET_CORE),
            directory("ipv4", NET_IPV4),
            directory("unix", NET_UNIX),
        ],
    ),
    directory("vm", VM),
];

const FS: &[Row] = &[
    directory("inotify", FS_INOTIFY),
    directory("mqueue", FS_MQUEUE),
    setting!("file-max", 9_223_372_036_854_775_807_u64),
    setting!("file-nr", 0o444, "0\t0\t9223372036854775807"),
    setting!("lease-break-time", 45),
    setting!("nr_open", 1_048_576),
    setting!("overflowgid", 65534),
    setting!("overflowuid", 65534),
    setting!("pipe-max-size", pipe::MAX_CAPACITY),
    setting!("pipe-user-pages-hard", 0),
    setting!("pipe-user-pages-soft", 16384),
    setting!("protected_fifos", 0),
    setting!("protected_hardlinks", 1),
    setting!("protected_regular", 0),
    setting!("protected_symlinks", 1),
    setting!("suid_dumpable", 0),
];

const FS_INOTIFY: &[Row] = &[
    setting!("max_queued_events", inotify::MAX_QUEUED),
    setting!("max_user_instances", inotify::MAX_INSTANCES),
    setting!("max_user_watches", inotify::MAX_WATCHES),
];

const FS_MQUEUE: &[Row] = &[
    setting!("msg_default", mqueue::MAX_MESSAGES),
    setting!("msg_max", mqueue::MAX_MESSAGES),
    setting!("msgsize_default", mqueue::MAX_BYTES),
    setting!("msgsize_max", mqueue::MAX_BYTES),
    setting!("queues_max", mqueue::MAX_QUEUES),
];

const KERNEL: &[Row] = &[
    setting!("cap_last_cap", 0o444, 40),
    setting!("core_pattern", "core"),
    setting!("core_uses_pid", 0),
    sysctl("domainname", 0o644, |t, _, text| {
        let name = t.namespaces().uts.domainname.lock().clone();
        line(text, &name)
    }),
    sysctl("hostname", 0o644, |t, _, text| {
        let name = t.namespaces().uts.hostname.lock().clone();
        line(text, &name)
    }),
    ipc!("msgmax", message_bytes),
    ipc!("msgmnb", queue_bytes),
    ipc!("msgmni", queues),
    setting!("ngroups_max", 0o444, 65536),
    setting!("osrelease", 0o444, uts::RELEASE),
    setting!("ostype", 0o444, uts::SYSNAME),
    setting!("overflowgid", 65534),
    setting!("overflowuid", 65534),
    setting!("panic", 0),
    setting!("pid_max", crate::process::PID_MAX),
    directory("pty", PTY),
    directory("random", RANDOM),
    setting!("randomize_va_space", 2),
    sysctl("sem", 0o644, |t, _, text| {
        let [of_set, in_all, operations, sets] = t.namespaces().ipc.limits.semaphores;
        write!(text, "{of_set}\t{in_all}\t{operations}\t{sets}\n");
        Ok(())
    }),
    ipc!("shmall", segment_pages),
    ipc!("shmmax", segment_bytes),
    ipc!("shmmni", segments),
    setting!("tainted", 0),
    setting!("threads-max", 32768),
    setting!("version", 0o444, uts::VERSION),
];

const PTY: &[Row] = &[
    setting!("max", numbers::MAX),
    sysctl("nr", 0o444, |_, subject, text| {
        write!(text, "{}\n", subject.kernel.ttys.count());
        Ok(())
    }),
    setting!("reserve", numbers::RESERVED),
];

const RANDOM: &[Row] = &[
    sysctl("boot_id", 0o444, boot_id),
    setting!("entropy_avail", 0o444, ENTROPY_BITS),
    setting!("poolsize", 0o444, ENTROPY_BITS),
    setting!("urandom_min_reseed_secs", 60),
    sysctl("uuid", 0o444, |_, _, text| {
        uuid(text, random_uuid());
        Ok(())
    }),
    setting!("write_wakeup_threshold", ENTROPY_BITS),
];

const NET_CORE: &[Row] = &[
    setting!("rmem_default", net::BUFFER_BYTES),
    setting!("rmem_max", net::MAX_BUFFER_BYTES),
    setting!("somaxconn", net::SOMAXCONN),
    setting!("wmem_default", net::BUFFER_BYTES),
    setting!("wmem_max", net::MAX_BUFFER_BYTES),
];

const NET_IPV4: &[Row] = &[
    sysctl("ip_local_port_range", 0o644, |_, _, text| {
        let ports = net::inet::EPHEMERAL_PORTS;
        write!(text, "{}\t{}\n", ports.start(), ports.end());
        Ok(())
    }),
    setting!(
        "ip_unprivileged_port_start",
        net::inet::FIRST_UNPRIVILEGED_PORT
    ),
    setting!("ping_group_range", "1\t0"),
    setting!("tcp_congestion_control", 0o644, "cubic"),
];

const NET_UNIX: &[Row] = &[setting!("max_dgram_qlen", net::unix::MAX_DATAGRAMS)];

const VM: &[Row] = &[
    setting!("admin_reserve_kbytes", 8192),
    setting!("max_map_count", 65530),
    setting!("mmap_min_addr", 65536),
    setting!("nr_hugepages", 0),
    setting!("overcommit_memory", 0),
    setting!("overcommit_ratio", 50),
    setting!("page-cluster", 3),
    setting!("swappiness", 60),
    setting!("user_reserve_kbytes", 131_072),
    setting!("vfs_cache_pressure", 100),
];

/// What the container's configuration sets the setting whose last component is `name` to. Of those shown here only some below
/// `net` can be configured, and no name occurs twice there.
fn configured<'a>(subject: &'a super::subject::Subject, name: &str) -> Option<&'a str> {
    subject
        .kernel
        .config
        .sysctl
        .iter()
        .find(|(key, _)| key.rsplit('.').next() == Some(name))
        .map(|(_, value)| value.as_str())
}

fn line(text: &mut Text, bytes: &[u8]) -> Result<()> {
    text.push(bytes);
    text.push(b"\n");
    Ok(())
}

/// A version 4 UUID.
fn random_uuid() -> [u8; 16] {
    let mut bytes = [0; 16];
    random::fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

/// A line with `bytes` as UUIDs are written.
pub(super) fn uuid(text: &mut Text, bytes: [u8; 16]) {
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push(b"-");
        }
        write!(text, "{byte:02x}");
    }
    text.push(b"\n");
}

fn boot_id(_t: &Thread, _subject: &super::subject::Subject, text: &mut Text) -> Result<()> {
    static BOOT_ID: spin::Once<[u8; 16]> = spin::Once::new();
    uuid(text, *BOOT_ID.call_once(random_uuid));
    Ok(())
}
