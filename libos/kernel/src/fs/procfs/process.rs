//! The directories of processes and threads.

use alloc::string::ToString;
use alloc::vec::Vec;

use core::sync::atomic::Ordering;

use husk_abi::linux::general::{
    CAP_AUDIT_CONTROL, CAP_SYS_RESOURCE, RLIM_INFINITY, RLIMIT_AS, RLIMIT_CORE, RLIMIT_CPU,
    RLIMIT_DATA, RLIMIT_FSIZE, RLIMIT_LOCKS, RLIMIT_MEMLOCK, RLIMIT_MSGQUEUE, RLIMIT_NICE,
    RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_RSS, RLIMIT_RTPRIO, RLIMIT_RTTIME, RLIMIT_SIGPENDING,
    RLIMIT_STACK,
};

use super::row::{Names, Row, What, directory, file, private};
use super::subject::Subject;
use super::text::Text;
use super::{descriptors, memory, mounts, namespaces, net, status};
use crate::fs::Location;
use crate::mm::oom;
use crate::process::user_namespace;
use crate::{Errno, Result, Thread};

const fn magic(name: &'static str, text: super::row::LinkText, to: super::row::Target) -> Row {
    Row {
        name,
        mode: 0o777,
        what: What::Magic(text, to),
    }
}

/// A row whose contents never change.
macro_rules! constant {
    ($name:literal, $mode:literal, $text:literal) => {
        private($name, $mode, |_, _, text| {
            write!(text, $text);
            Ok(())
        })
    };
}

/// The descriptors' directory.
const FD: Row = Row {
    name: "fd",
    mode: 0o500,
    what: What::Dynamic(Names::Descriptors, &[]),
};
/// What is to be known of descriptors.
const FDINFO: Row = Row {
    name: "fdinfo",
    mode: 0o555,
    what: What::Dynamic(Names::DescriptorInfo, &[]),
};
/// The memory itself.
const MEM: Row = Row {
    name: "mem",
    mode: 0o600,
    what: What::Memory,
};
/// The name threads give themselves.
const COMM: Row = Row {
    name: "comm",
    mode: 0o644,
    what: What::Writable(comm, set_comm),
};

/// How much it is to be spared, or not, when memory runs out.
const OOM_SCORE_ADJ: Row = Row {
    name: "oom_score_adj",
    mode: 0o644,
    what: What::Writable(oom_score_adj, set_oom_score_adj),
};

/// Who logged in; only the process itself says so.
const LOGINUID: Row = Row {
    name: "loginuid",
    mode: 0o644,
    what: What::Writable(loginuid, set_loginuid),
};

/// `/proc/PID`.
pub(super) static PROCESS: Row = directory(
    "",
    &[
        Row {
            name: "task",
            mode: 0o555,
            what: What::Dynamic(Names::Threads, &[]),
        },
        private("auxv", 0o400, memory::auxv),
        file("cgroup", cgroup),
        file("cmdline", memory::cmdline),
        COMM,
        constant!("coredump_filter", 0o644, "00000033\n"),
        constant!("cpuset", 0o444, "/\n"),
        magic("cwd", cwd_text, cwd),
        private("environ", 0o400, memory::environ),
        magic("exe", exe_text, exe),
        FD,
        FDINFO,
        private("gid_map", 0o644, gid_map),
        private("io", 0o400, io),
        file("limits", limits),
        LOGINUID,
        file("maps", memory::maps),
        MEM,
        file("mountinfo", mounts::mountinfo),
        file("mounts", mounts::mounts),
        private("mountstats", 0o400, mounts::mountstats),
        directory("net", net::TABLE),
        Row {
            name: "ns",
            mode: 0o511,
            what: What::Directory(namespaces::TABLE),
        },
        file("oom_score", oom_score),
        OOM_SCORE_ADJ,
        private("personality", 0o400, personality),
        magic("root", root_text, root),
        file("schedstat", schedstat),
        file("sessionid", sessionid),
        private("setgroups", 0o644, setgroups),
        file("smaps", memory::smaps),
        file("stat", status::stat),
        file("statm", status::statm),
        file("status", status::status),
        constant!("timerslack_ns", 0o444, "50000\n"),
        private("uid_map", 0o644, uid_map),
        constant!("wchan", 0o444, "0"),
    ],
);

/// `/proc/PID/task/TID`.
pub(super) static THREAD: Row = directory(
    "",
    &[
        private("auxv", 0o400, memory::auxv),
        file("cgroup", cgroup),
        file("children", children),
        file("cmdline", memory::cmdline),
        COMM,
        constant!("cpuset", 0o444, "/\n"),
        magic("cwd", cwd_text, cwd),
        private("environ", 0o400, memory::environ),
        magic("exe", exe_text, exe),
        FD,
        FDINFO,
        private("io", 0o400, io),
        file("limits", limits),
        LOGINUID,
        file("maps", memory::maps),
        MEM,
        file("mountinfo", mounts::mountinfo),
        file("mounts", mounts::mounts),
        directory("net", net::TABLE),
        file("oom_score", oom_score),
        OOM_SCORE_ADJ,
        private("personality", 0o400, personality),
        magic("root", root_text, root),
        file("schedstat", schedstat),
        file("sessionid", sessionid),
        file("smaps", memory::smaps),
        file("stat", status::stat),
        file("statm", status::statm),
        file("status", status::status),
        constant!("wchan", 0o444, "0"),
    ],
);

/// The name of a thread; of a zombie, of the program it ran.
pub(super) fn name(subject: &Subject) -> Result<Vec<u8>> {
    match subject.thread() {
        Ok(thread) => Ok(thread.name()),
        Err(_) => {
            let path = subject.process()?.executable();
            let base = path.rsplit(|byte| *byte == b'/').next();
            Ok(base.unwrap_or_default().iter().take(15).copied().collect())
        }
    }
}

fn comm(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    text.push(&name(subject)?);
    text.push(b"\n");
    Ok(())
}

fn set_comm(t: &Thread, subject: &Subject, name: &[u8]) -> Result<()> {
    let thread = subject.thread()?;
    // Only a process's own threads may be renamed.
    if thread.process.pid != t.process.pid {
        return Err(Errno::EINVAL);
    }
    thread.set_name(name);
    Ok(())
}

fn uid_map(t: &Thread, _subject: &Subject, text: &mut Text) -> Result<()> {
    text.push(&user_namespace::text(t.kernel.uid_map()));
    Ok(())
}

fn gid_map(t: &Thread, _subject: &Subject, text: &mut Text) -> Result<()> {
    text.push(&user_namespace::text(t.kernel.gid_map()));
    Ok(())
}

fn setgroups(t: &Thread, _subject: &Subject, text: &mut Text) -> Result<()> {
    text.push(if t.kernel.may_setgroups() {
        b"allow\n"
    } else {
        b"deny\n"
    });
    Ok(())
}

fn oom_score(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    let process = subject.process()?;
    write!(text, "{}\n", oom::score(&process));
    Ok(())
}

fn oom_score_adj(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    let adj = subject.process()?.oom_score_adj.load(Ordering::Relaxed);
    write!(text, "{adj}\n");
    Ok(())
}

fn set_oom_score_adj(t: &Thread, subject: &Subject, value: &[u8]) -> Result<()> {
    let value = core::str::from_utf8(value.trim_ascii()).map_err(|_| Errno::EINVAL)?;
    let adj = value.parse().map_err(|_| Errno::EINVAL)?;
    let privileged = t.is_capable(CAP_SYS_RESOURCE);
    subject.process()?.set_oom_score_adj(adj, privileged)
}

fn loginuid(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    write!(text, "{}", subject.process()?.login.lock().user);
    Ok(())
}

fn set_loginuid(t: &Thread, subject: &Subject, value: &[u8]) -> Result<()> {
    let process = subject.process()?;
    if process.pid != t.process.pid {
        return Err(Errno::EPERM);
    }
    let value = core::str::from_utf8(value.trim_ascii()).map_err(|_| Errno::EINVAL)?;
    let user = value.parse().map_err(|_| Errno::EINVAL)?;
    let privileged = t.is_capable(CAP_AUDIT_CONTROL);
    process.login.lock().change(user, privileged)
}

fn sessionid(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    write!(text, "{}", subject.process()?.login.lock().session);
    Ok(())
}

fn personality(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    write!(text, "{:08x}\n", subject.thread()?.personality());
    Ok(())
}

fn cgroup(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    subject.process()?;
    write!(text, "0::/\n");
    Ok(())
}

fn children(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    let process = subject.process()?;
    // Children belong to the process; Linux lists them with the thread that made them, mostly the first.
    if subject.tid() != process.pid {
        return Ok(());
    }
    for child in subject.kernel.tasks.processes() {
        if child.ppid() == process.pid {
            write!(text, "{} ", child.pid);
        }
    }
    Ok(())
}

fn io(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    subject.process()?;
    for name in [
        "rchar",
        "wchar",
        "syscr",
        "syscw",
        "read_bytes",
        "write_bytes",
        "cancelled_write_bytes",
    ] {
        write!(text, "{name}: 0\n");
    }
    Ok(())
}

fn schedstat(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    write!(text, "{} 0 0\n", subject.thread()?.sched.cpu_ns());
    Ok(())
}

/// Resources in the order and with the words of Linux.
const LIMITS: [(u32, &str, &str); 16] = [
    (RLIMIT_CPU, "Max cpu time", "seconds"),
    (RLIMIT_FSIZE, "Max file size", "bytes"),
    (RLIMIT_DATA, "Max data size", "bytes"),
    (RLIMIT_STACK, "Max stack size", "bytes"),
    (RLIMIT_CORE, "Max core file size", "bytes"),
    (RLIMIT_RSS, "Max resident set", "bytes"),
    (RLIMIT_NPROC, "Max processes", "processes"),
    (RLIMIT_NOFILE, "Max open files", "files"),
    (RLIMIT_MEMLOCK, "Max locked memory", "bytes"),
    (RLIMIT_AS, "Max address space", "bytes"),
    (RLIMIT_LOCKS, "Max file locks", "locks"),
    (RLIMIT_SIGPENDING, "Max pending signals", "signals"),
    (RLIMIT_MSGQUEUE, "Max msgqueue size", "bytes"),
    (RLIMIT_NICE, "Max nice priority", ""),
    (RLIMIT_RTPRIO, "Max realtime priority", ""),
    (RLIMIT_RTTIME, "Max realtime timeout", "us"),
];

/// One line of `limits`.
pub(super) fn limit_line(text: &mut Text, name: &str, soft: u64, hard: u64, unit: &str) {
    let show = |value: u64| match value {
        value if value == RLIM_INFINITY as u64 => "unlimited".to_string(),
        value => value.to_string(),
    };
    write!(text, "{name:<25} {:<20} {:<20} ", show(soft), show(hard));
    if !unit.is_empty() {
        write!(text, "{unit:<10}");
    }
    write!(text, "\n");
}

fn limits(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    let process = subject.process()?;
    write!(
        text,
        "{:<25} {:<20} {:<20} {:<10}\n",
        "Limit", "Soft Limit", "Hard Limit", "Units"
    );
    for (resource, name, unit) in LIMITS {
        let limit = process.limit(resource)?;
        limit_line(text, name, limit.rlim_cur, limit.rlim_max, unit);
    }
    Ok(())
}

fn exe_text(_t: &Thread, subject: &Subject) -> Result<Vec<u8>> {
    let path = subject.process()?.executable();
    // Zombies have no program any more.
    if path.is_empty() || subject.thread().is_err() {
        return Err(Errno::ENOENT);
    }
    Ok(path)
}

fn exe(t: &Thread, subject: &Subject) -> Result<Location> {
    let path = exe_text(t, subject)?;
    subject.kernel.fs.find(&path)
}

fn place_text(place: &Location) -> Vec<u8> {
    place.current_path().unwrap_or_else(|| {
        let mut path = place.path.clone();
        path.extend_from_slice(descriptors::DELETED);
        path
    })
}

fn cwd(_t: &Thread, subject: &Subject) -> Result<Location> {
    Ok(subject.thread()?.fs_opt().ok_or(Errno::ENOENT)?.cwd())
}

fn cwd_text(t: &Thread, subject: &Subject) -> Result<Vec<u8>> {
    Ok(place_text(&cwd(t, subject)?))
}

fn root(_t: &Thread, subject: &Subject) -> Result<Location> {
    Ok(subject.thread()?.fs_opt().ok_or(Errno::ENOENT)?.root())
}

fn root_text(t: &Thread, subject: &Subject) -> Result<Vec<u8>> {
    Ok(place_text(&root(t, subject)?))
}
