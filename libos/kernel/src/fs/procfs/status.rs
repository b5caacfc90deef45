//! `stat`, `statm` and `status` of processes and threads (`proc_pid_stat(5)`, `proc_pid_status(5)`).

use alloc::sync::Arc;

use husk_abi::boundary::layout::PAGE_SIZE;
use husk_abi::linux::general::{RLIMIT_RSS, RLIMIT_SIGPENDING, SIGCHLD};

use super::process::name;
use super::subject::Subject;
use super::text::{Bits, Text};
use crate::mm::{Places, Totals};
use crate::process::Life;
use crate::signal::SigSet;
use crate::syscall::filters;
use crate::{Process, Result, Thread};

/// Nanoseconds of a clock tick (`USER_HZ` is 100).
const TICK_NS: u64 = 10_000_000;

/// What both formats are made of.
struct Task {
    process: Arc<Process>,
    /// `None` for a zombie.
    thread: Option<Arc<Thread>>,
    tid: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Running,
    Sleeping,
    Stopped,
    Tracing,
    Zombie,
}

impl State {
    fn letter(self) -> char {
        match self {
            State::Running => 'R',
            State::Sleeping => 'S',
            State::Stopped => 'T',
            State::Tracing => 't',
            State::Zombie => 'Z',
        }
    }

    fn word(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Sleeping => "sleeping",
            State::Stopped => "stopped",
            State::Tracing => "tracing stop",
            State::Zombie => "zombie",
        }
    }

    /// Of a thread.
    pub fn of(thread: &Thread) -> Self {
        if thread.signals.is_trace_stopped() {
            State::Tracing
        } else if thread.signals.is_stopped() {
            State::Stopped
        } else if thread.sched.is_parked() {
            State::Sleeping
        } else {
            State::Running
        }
    }
}

impl Task {
    fn of(subject: &Subject) -> Result<Self> {
        let process = subject.process()?;
        let thread = match (subject.thread(), process.life()) {
            (Ok(thread), Life::Alive) => Some(thread),
            (Err(error), Life::Alive) if subject.is_thread() => return Err(error),
            _ => None,
        };
        Ok(Self {
            tid: subject.tid(),
            state: thread.as_ref().map_or(State::Zombie, |t| State::of(t)),
            process,
            thread,
        })
    }

    fn memory(&self) -> Option<(Totals, Places)> {
        let mm = self.thread.as_ref()?.mm_opt()?;
        Some((mm.totals(), mm.places()))
    }
}

/// `stat`.
pub(super) fn stat(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    let task = Task::of(subject)?;
    let process = &task.process;
    let (totals, places) = task.memory().unwrap_or_default();
    let times = match &task.thread {
        Some(thread) if subject.is_thread() => thread.sched.times(),
        _ => process.times(),
    };
    let children = process.children_times();
    let exit_code = match process.life() {
        Life::Zombie(status) => status,
        _ => 0,
    };
    let signals = task.thread.as_ref().map(|thread| &thread.signals);
    let (ignored, caught) = process.handlers().ignored_and_caught();
    let (terminal, foreground) = process.controlling.get().map_or((0, -1), |tty| {
        (tty.device(), i64::from(tty.job().foreground()))
    });
    write!(text, "{} (", task.tid);
    text.push_escaped(&name(subject)?, b"\n");
    write!(
        text,
        ") {} {} {} {} {terminal} {foreground} 4194304 0 0 0 0 {} {} {} {} 20 0 {} 0 {} {} {} {} ",
        task.state.letter(),
        process.ppid(),
        process.pgid(),
        process.sid(),
        times.user_ns() / TICK_NS,
        times.system_ns / TICK_NS,
        children.user_ns() / TICK_NS,
        children.system_ns / TICK_NS,
        process.thread_count(),
        process.start_ns() / TICK_NS,
        totals.size,
        totals.resident / PAGE_SIZE,
        process.limit(RLIMIT_RSS)?.rlim_cur,
    );
    // Stack and instruction pointer are shown of exiting tasks only.
    write!(
        text,
        "{} {} {} 0 0 {} {} {} {} 0 0 0 {SIGCHLD} 0 0 0 0 0 0 ",
        places.start_code,
        places.end_code,
        places.start_stack,
        signals.map_or(0, |signals| signals.pending().0 & LOW_SIGNALS),
        signals.map_or(0, |signals| signals.mask().0 & LOW_SIGNALS),
        ignored.0 & LOW_SIGNALS,
        caught.0 & LOW_SIGNALS,
    );
    write!(
        text,
        "{} {} {} {} {} {} {} {exit_code}\n",
        places.start_data,
        places.end_data,
        places.start_brk,
        places.arg_start,
        places.arg_end,
        places.env_start,
        places.env_end,
    );
    Ok(())
}

/// `stat` shows the first 31 signals only.
const LOW_SIGNALS: u64 = 0x7fff_ffff;

/// `statm`.
pub(super) fn statm(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    let (totals, _) = Task::of(subject)?.memory().unwrap_or_default();
    write!(
        text,
        "{} {} {} {} 0 {} 0\n",
        totals.size / PAGE_SIZE,
        totals.resident / PAGE_SIZE,
        totals.resident_file / PAGE_SIZE,
        totals.text / PAGE_SIZE,
        (totals.data + totals.stack) / PAGE_SIZE,
    );
    Ok(())
}

fn memory_lines(text: &mut Text, totals: &Totals) {
    let lines = [
        ("VmPeak", totals.peak),
        ("VmSize", totals.size),
        ("VmLck", totals.locked),
        ("VmPin", 0),
        ("VmHWM", totals.resident_peak),
        ("VmRSS", totals.resident),
        ("RssAnon", totals.resident_anonymous),
        ("RssFile", totals.resident_file),
        ("RssShmem", 0),
        ("VmData", totals.data),
        ("VmStk", totals.stack),
        ("VmExe", totals.text),
        ("VmLib", 0),
        ("VmPTE", totals.page_tables),
        ("VmSwap", 0),
        ("HugetlbPages", 0),
    ];
    for (name, bytes) in lines {
        write!(text, "{name}:\t{:>8} kB\n", bytes / 1024);
    }
    write!(text, "CoreDumping:\t0\nTHP_enabled:\t1\n");
    write!(text, "untag_mask:\t0xffffffffffffffff\n");
}

fn identity_lines(text: &mut Text, task: &Task) {
    let process = &task.process;
    let thread = task.thread.as_ref();
    let umask = thread.and_then(|thread| Some(thread.fs_opt()?.umask()));
    if let Some(umask) = umask {
        write!(text, "Umask:\t0{umask:03o}\n");
    }
    write!(
        text,
        "State:\t{} ({})\n",
        task.state.letter(),
        task.state.word()
    );
    write!(
        text,
        "Tgid:\t{}\nNgid:\t0\nPid:\t{}\nPPid:\t{}\nTracerPid:\t{}\n",
        process.pid,
        task.tid,
        process.ppid(),
        thread
            .and_then(|thread| thread.trace.tracer())
            .map_or(0, |tracer| tracer.tid())
    );
    if let Some(credentials) = thread.map(|thread| thread.credentials()) {
        let c = &credentials;
        write!(
            text,
            "Uid:\t{}\t{}\t{}\t{}\nGid:\t{}\t{}\t{}\t{}\n",
            c.uid, c.euid, c.suid, c.fsuid, c.gid, c.egid, c.sgid, c.fsgid
        );
    } else {
        write!(text, "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n");
    }
    let highest = thread.and_then(|thread| thread.files_opt()?.open_fds().last().copied());
    let descriptors = usize::try_from(highest.unwrap_or_default()).unwrap_or_default() + 1;
    let size = if thread.is_some() {
        descriptors.next_power_of_two().max(64)
    } else {
        0
    };
    write!(text, "FDSize:\t{size}\nGroups:\t");
    if let Some(credentials) = thread.map(|thread| thread.credentials()) {
        for (index, group) in credentials.groups.iter().enumerate() {
            write!(text, "{}{group}", if index > 0 { " " } else { "" });
        }
    }
    write!(
        text,
        " \nNStgid:\t{}\nNSpid:\t{}\nNSpgid:\t{}\nNSsid:\t{}\nKthread:\t0\n",
        process.pid,
        task.tid,
        process.pgid(),
        process.sid()
    );
}

fn signal_lines(text: &mut Text, task: &Task) -> Result<()> {
    let process = &task.process;
    let thread = task.thread.as_ref().map(|thread| &thread.signals);
    let own = thread.map_or(SigSet(0), |signals| signals.pending());
    let shared = process.signals.pending();
    let (ignored, caught) = process.handlers().ignored_and_caught();
    write!(
        text,
        "Threads:\t{}\nSigQ:\t{}/{}\n",
        process.thread_count().max(1),
        own.0.count_ones() + shared.0.count_ones(),
        process.limit(RLIMIT_SIGPENDING)?.rlim_cur
    );
    let sets = [
        ("SigPnd", own),
        ("ShdPnd", shared),
        ("SigBlk", thread.map_or(SigSet(0), |signals| signals.mask())),
        ("SigIgn", ignored),
        ("SigCgt", caught),
    ];
    for (name, set) in sets {
        write!(text, "{name}:\t{:016x}\n", set.0);
    }
    Ok(())
}

fn privilege_lines(text: &mut Text, task: &Task) {
    let Some(thread) = task.thread.as_ref() else {
        return;
    };
    let credentials = thread.credentials();
    let sets = [
        ("CapInh", credentials.cap_inheritable),
        ("CapPrm", credentials.cap_permitted),
        ("CapEff", credentials.cap_effective),
        ("CapBnd", credentials.cap_bounding),
        ("CapAmb", credentials.cap_ambient),
    ];
    for (name, set) in sets {
        write!(text, "{name}:\t{set:016x}\n");
    }
    let filters = thread.filters.mode().1 + usize::from(thread.kernel.seccomp.is_some());
    write!(
        text,
        "NoNewPrivs:\t{}\nSeccomp:\t{}\nSeccomp_filters:\t{}\n",
        u8::from(credentials.no_new_privileges),
        filters::mode(thread),
        filters
    );
    write!(
        text,
        "Speculation_Store_Bypass:\tvulnerable\nSpeculationIndirectBranch:\talways enabled\n"
    );
}

/// `status`.
pub(super) fn status(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    let task = Task::of(subject)?;
    write!(text, "Name:\t");
    text.push_escaped(&name(subject)?, b"\n");
    write!(text, "\n");
    identity_lines(text, &task);
    if let Some((totals, _)) = task.memory() {
        memory_lines(text, &totals);
    }
    signal_lines(text, &task)?;
    privilege_lines(text, &task);
    let cpus = subject.kernel.sched.cpu_count();
    let all = u64::MAX >> (64 - cpus.clamp(1, 64));
    write!(text, "Cpus_allowed:\t{}\n", Bits(all, cpus));
    write!(text, "Cpus_allowed_list:\t");
    cpu_list(text, cpus);
    write!(text, "\nMems_allowed:\t1\nMems_allowed_list:\t0\n");
    write!(
        text,
        "voluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0\n"
    );
    Ok(())
}

/// All of `count` vCPUs as a list of ranges.
pub(super) fn cpu_list(text: &mut Text, count: usize) {
    match count {
        0 | 1 => write!(text, "0"),
        count => write!(text, "0-{}", count - 1),
    }
}
