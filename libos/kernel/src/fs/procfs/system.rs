//! The root of `/proc`, and its files about the system as a whole.

use alloc::string::ToString;

use husk_hal::{clock, cpuid};

use super::row::{Names, Row, What, directory, file, link, private};
use super::status::State;
use super::subject::Subject;
use super::sysctl;
use super::text::Text;
use crate::process::uts;
use crate::{Kernel, Result, Thread};

/// Nanoseconds of a clock tick (`USER_HZ` is 100).
const TICK_NS: u64 = 10_000_000;
const NS_PER_SEC: u64 = 1_000_000_000;

/// The root directory.
pub(super) static ROOT: Row = Row {
    name: "",
    mode: 0o555,
    what: What::Dynamic(Names::Processes, TABLE),
};

const TABLE: &[Row] = &[
    directory("bus", &[]),
    file("cgroups", |_, _, text| {
        write!(text, "#subsys_name\thierarchy\tnum_cgroups\tenabled\n");
        Ok(())
    }),
    file("cmdline", |_, _, text| {
        write!(text, "\n");
        Ok(())
    }),
    file("cpuinfo", cpuinfo),
    file("devices", |_, _, text| {
        write!(
            text,
            "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 pts\n\n\
             Block devices:\n"
        );
        Ok(())
    }),
    file("diskstats", |_, _, _| Ok(())),
    file("filesystems", |_, _, text| {
        write!(
            text,
            "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tpipefs\nnodev\tdevpts\nnodev\tmqueue\n"
        );
        Ok(())
    }),
    directory("fs", &[]),
    directory("irq", &[]),
    file("interrupts", |_, subject, text| {
        write!(text, "           ");
        for cpu in 0..subject.kernel.sched.cpu_count() {
            write!(text, "{:<11}", alloc::format!("CPU{cpu}"));
        }
        write!(text, "\n");
        Ok(())
    }),
    file("loadavg", loadavg),
    file("locks", |_, _, _| Ok(())),
    file("meminfo", meminfo),
    file("misc", |_, _, _| Ok(())),
    file("modules", |_, _, _| Ok(())),
    link("mounts", |_, _| Ok(b"self/mounts".to_vec())),
    link("net", |_, _| Ok(b"self/net".to_vec())),
    file("partitions", |_, _, text| {
        write!(text, "major minor  #blocks  name\n\n");
        Ok(())
    }),
    file("stat", stat),
    file("swaps", |_, _, text| {
        write!(text, "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
        Ok(())
    }),
    directory("sys", sysctl::SYS),
    directory(
        "sysvipc",
        &[
            file("msg", |t, _, text| {
                text.push(t.namespaces().ipc.show_queues().as_bytes());
                Ok(())
            }),
            file("sem", |t, _, text| {
                text.push(t.namespaces().ipc.show_sets().as_bytes());
                Ok(())
            }),
            file("shm", |t, _, text| {
                text.push(t.namespaces().ipc.show_segments().as_bytes());
                Ok(())
            }),
        ],
    ),
    file("uptime", uptime),
    file("version", |_, _, text| {
        write!(
            text,
            "{} version {} (husk@husk) (rustc) {}\n",
            uts::SYSNAME,
            uts::RELEASE,
            uts::VERSION
        );
        Ok(())
    }),
    file("vmstat", vmstat),
    private("kmsg", 0o400, |_, _, _| Ok(())),
    link("self", |t, _| Ok(t.process.pid.to_string().into_bytes())),
    link("thread-self", |t, _| {
        Ok(alloc::format!("{}/task/{}", t.process.pid, t.tid()).into_bytes())
    }),
];

/// vCPU time all processes have used since boot, the dead included, in nanoseconds.
fn used_ns(kernel: &Kernel) -> u64 {
    let processes = kernel.tasks.processes();
    processes
        .iter()
        .map(|process| process.cpu_ns() + process.children_times().all_ns)
        .sum()
}

fn idle_ns(kernel: &Kernel) -> u64 {
    let total = clock::now_ns() * kernel.sched.cpu_count() as u64;
    total.saturating_sub(used_ns(kernel))
}

fn uptime(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    let hundredths = |ns: u64| (ns / NS_PER_SEC, ns % NS_PER_SEC / TICK_NS);
    let (up, up_fraction) = hundredths(clock::now_ns());
    let (idle, idle_fraction) = hundredths(idle_ns(subject.kernel));
    write!(text, "{up}.{up_fraction:02} {idle}.{idle_fraction:02}\n");
    Ok(())
}

/// Threads that run or could.
fn running(kernel: &Kernel) -> usize {
    let processes = kernel.tasks.processes();
    processes
        .iter()
        .flat_map(|process| process.threads())
        .filter(|thread| State::of(thread) == State::Running)
        .count()
}

fn loadavg(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    let tasks = &subject.kernel.tasks;
    let (_, last) = tasks.made();
    write!(
        text,
        "0.00 0.00 0.00 {}/{} {last}\n",
        running(subject.kernel),
        tasks.thread_count()
    );
    Ok(())
}

fn meminfo(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    let usage = subject.kernel.frames.usage();
    let (total, free) = (usage.limit_bytes, usage.free_bytes());
    let lines: [(&str, u64); 37] = [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapCached", 0),
        ("Active", total - free),
        ("Inactive", 0),
        ("Active(anon)", total - free),
        ("Inactive(anon)", 0),
        ("Active(file)", 0),
        ("Inactive(file)", 0),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Zswap", 0),
        ("Zswapped", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", total - free),
        ("Mapped", 0),
        ("Shmem", 0),
        ("KReclaimable", 0),
        ("Slab", 0),
        ("SReclaimable", 0),
        ("SUnreclaim", 0),
        ("KernelStack", 0),
        ("PageTables", 0),
        ("SecPageTables", 0),
        ("NFS_Unstable", 0),
        ("Bounce", 0),
        ("WritebackTmp", 0),
        ("CommitLimit", total / 2),
        ("Committed_AS", total - free),
        ("VmallocTotal", 34_359_738_367 << 10),
        ("VmallocUsed", 0),
    ];
    for (name, bytes) in lines {
        memory_line(text, name, bytes);
    }
    for (name, value) in [
        ("VmallocChunk", "       0 kB"),
        ("Percpu", "       0 kB"),
        ("AnonHugePages", "       0 kB"),
        ("ShmemHugePages", "       0 kB"),
        ("ShmemPmdMapped", "       0 kB"),
        ("FileHugePages", "       0 kB"),
        ("FilePmdMapped", "       0 kB"),
        ("HugePages_Total", "       0"),
        ("HugePages_Free", "       0"),
        ("HugePages_Rsvd", "       0"),
        ("HugePages_Surp", "       0"),
        ("Hugepagesize", "    2048 kB"),
        ("Hugetlb", "       0 kB"),
    ] {
        let label = alloc::format!("{name}:");
        write!(text, "{label:<15} {value}\n");
    }
    Ok(())
}

/// One line of `meminfo`.
pub(super) fn memory_line(text: &mut Text, name: &str, bytes: u64) {
    let label = alloc::format!("{name}:");
    write!(text, "{label:<15} {:>8} kB\n", bytes / 1024);
}

fn stat(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    let kernel = subject.kernel;
    let cpus = kernel.sched.cpu_count();
    // Time in the libOS is not told apart from time in the program: one privilege level, no switch between.
    let used = used_ns(kernel) / TICK_NS;
    let idle = idle_ns(kernel) / TICK_NS;
    write!(text, "cpu  {used} 0 0 {idle} 0 0 0 0 0 0\n");
    for cpu in 0..cpus {
        let share = cpus as u64;
        write!(
            text,
            "cpu{cpu} {} 0 0 {} 0 0 0 0 0 0\n",
            used / share,
            idle / share
        );
    }
    let wall_ns = clock::wall_offset_ns().max(0) as u64;
    let (made, _) = kernel.tasks.made();
    write!(
        text,
        "intr 0\nctxt {}\nbtime {}\nprocesses {made}\nprocs_running {}\nprocs_blocked 0\n\
         softirq 0 0 0 0 0 0 0 0 0 0 0\n",
        kernel.sched.switches(),
        wall_ns / NS_PER_SEC,
        running(kernel)
    );
    Ok(())
}

fn vmstat(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    let usage = subject.kernel.frames.usage();
    write!(
        text,
        "nr_free_pages {}\nnr_anon_pages {}\nnr_mapped 0\nnr_file_pages 0\nnr_dirty 0\nnr_writeback 0\n\
         pgpgin 0\npgpgout 0\npswpin 0\npswpout 0\npgfault 0\npgmajfault 0\noom_kill {}\n",
        usage.free_bytes() / 4096,
        usage.used_bytes / 4096,
        subject.kernel.host.oom_kills()
    );
    Ok(())
}

fn cpuinfo(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    let cpus = subject.kernel.sched.cpu_count();
    let info = cpuid::identify();
    for cpu in 0..cpus {
        write!(
            text,
            "processor\t: {cpu}\nvendor_id\t: {}\ncpu family\t: {}\nmodel\t\t: {}\nmodel name\t: {}\n\
             stepping\t: {}\n",
            info.vendor, info.family, info.model, info.name, info.stepping
        );
        if info.khz > 0 {
            write!(
                text,
                "cpu MHz\t\t: {}.{:03}\n",
                info.khz / 1000,
                info.khz % 1000
            );
        }
        write!(
            text,
            "physical id\t: 0\nsiblings\t: {cpus}\ncore id\t\t: {cpu}\ncpu cores\t: {cpus}\napicid\t\t: {cpu}\n\
             initial apicid\t: {cpu}\nfpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: {}\nwp\t\t: yes\nflags\t\t:",
            info.level
        );
        for flag in &info.flags {
            write!(text, " {flag}");
        }
        write!(text, "\nbugs\t\t:\nbogomips\t: ");
        let hundredths = info.khz / 5;
        write!(text, "{}.{:02}\n", hundredths / 100, hundredths % 100);
        write!(
            text,
            "clflush size\t: {}\ncache_alignment\t: {}\naddress sizes\t: {} bits physical, {} bits virtual\n\
             power management:\n\n",
            info.line_bytes, info.line_bytes, info.physical_bits, info.virtual_bits
        );
    }
    Ok(())
}
