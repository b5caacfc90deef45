//! What a container uses, in the types containerd decodes.
//!
//! CPU time and memory are those of the container's control group, in which only its VMM runs: all that the guest
//! costs the host. Numbers of processes are the guest's, as the limit is the guest's too.

use std::time::Duration;

use containerd_shim::Result;
use containerd_shim::protos::cgroups::metrics as v1;
use containerd_shim::protos::cgroups_v2::metrics as v2;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::util::convert_to_any;

use crate::cgroup::{Cgroup, Table};

/// Unit of CPU times in `cpuacct.stat` (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// The guest's processes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pids {
    /// How many there are.
    pub current: u64,
    /// How many there may be; 0 without limit.
    pub limit: u64,
}

/// What the control group tells.
///
/// # Errors
/// When the message cannot be encoded.
pub fn collect(cgroup: &Cgroup, pids: Pids) -> Result<Any> {
    match cgroup {
        Cgroup::V1(_) => convert_to_any(Box::new(version_1(cgroup, pids))),
        Cgroup::V2(_) => convert_to_any(Box::new(version_2(cgroup, pids))),
    }
}

fn nanoseconds(ticks: u64) -> u64 {
    ticks.saturating_mul(u64::try_from(TICK.as_nanos()).unwrap_or(0))
}

fn version_1(cgroup: &Cgroup, pids: Pids) -> v1::Metrics {
    let used = cgroup.table("cpuacct", "cpuacct.stat");
    let per_cpu = cgroup.text("cpuacct", "cpuacct.usage_percpu");
    let throttled = cgroup.table("cpu", "cpu.stat");
    let cpu = v1::CPUStat {
        usage: Some(v1::CPUUsage {
            total: cgroup.number("cpuacct", "cpuacct.usage", 0),
            kernel: nanoseconds(used.get("system")),
            user: nanoseconds(used.get("user")),
            per_cpu: per_cpu
                .unwrap_or_default()
                .split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect(),
            ..v1::CPUUsage::default()
        })
        .into(),
        throttling: Some(v1::Throttle {
            periods: throttled.get("nr_periods"),
            throttled_periods: throttled.get("nr_throttled"),
            throttled_time: throttled.get("throttled_time"),
            ..v1::Throttle::default()
        })
        .into(),
        ..v1::CPUStat::default()
    };
    let oom = cgroup.table("memory", "memory.oom_control");
    v1::Metrics {
        pids: Some(v1::PidsStat {
            current: pids.current,
            limit: pids.limit,
            ..v1::PidsStat::default()
        })
        .into(),
        cpu: Some(cpu).into(),
        memory: Some(memory_1(cgroup)).into(),
        blkio: Some(v1::BlkIOStat {
            io_service_bytes_recursive: block_io(
                cgroup,
                "blkio.throttle.io_service_bytes_recursive",
            ),
            io_serviced_recursive: block_io(cgroup, "blkio.throttle.io_serviced_recursive"),
            ..v1::BlkIOStat::default()
        })
        .into(),
        memory_oom_control: Some(v1::MemoryOomControl {
            oom_kill_disable: oom.get("oom_kill_disable"),
            under_oom: oom.get("under_oom"),
            oom_kill: oom.get("oom_kill"),
            ..v1::MemoryOomControl::default()
        })
        .into(),
        ..v1::Metrics::default()
    }
}

fn memory_1(cgroup: &Cgroup) -> v1::MemoryStat {
    let stat = cgroup.table("memory", "memory.stat");
    let entry = |prefix: &str| {
        let file = |name: &str| cgroup.number("memory", &format!("memory.{prefix}{name}"), 0);
        Some(v1::MemoryEntry {
            limit: file("limit_in_bytes"),
            usage: file("usage_in_bytes"),
            max: file("max_usage_in_bytes"),
            failcnt: file("failcnt"),
            ..v1::MemoryEntry::default()
        })
        .into()
    };
    v1::MemoryStat {
        cache: stat.get("cache"),
        rss: stat.get("rss"),
        rss_huge: stat.get("rss_huge"),
        mapped_file: stat.get("mapped_file"),
        dirty: stat.get("dirty"),
        writeback: stat.get("writeback"),
        pg_pg_in: stat.get("pgpgin"),
        pg_pg_out: stat.get("pgpgout"),
        pg_fault: stat.get("pgfault"),
        pg_maj_fault: stat.get("pgmajfault"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        hierarchical_memory_limit: stat.get("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat.get("hierarchical_memsw_limit"),
        total_cache: stat.get("total_cache"),
        total_rss: stat.get("total_rss"),
        total_rss_huge: stat.get("total_rss_huge"),
        total_mapped_file: stat.get("total_mapped_file"),
        total_dirty: stat.get("total_dirty"),
        total_writeback: stat.get("total_writeback"),
        total_pg_pg_in: stat.get("total_pgpgin"),
        total_pg_pg_out: stat.get("total_pgpgout"),
        total_pg_fault: stat.get("total_pgfault"),
        total_pg_maj_fault: stat.get("total_pgmajfault"),
        total_inactive_anon: stat.get("total_inactive_anon"),
        total_active_anon: stat.get("total_active_anon"),
        total_inactive_file: stat.get("total_inactive_file"),
        total_active_file: stat.get("total_active_file"),
        total_unevictable: stat.get("total_unevictable"),
        usage: entry(""),
        swap: entry("memsw."),
        kernel: entry("kmem."),
        kernel_tcp: entry("kmem.tcp."),
        ..v1::MemoryStat::default()
    }
}

/// `MAJOR:MINOR OPERATION VALUE` lines.
fn block_io(cgroup: &Cgroup, name: &str) -> Vec<v1::BlkIOEntry> {
    let text = cgroup.text("blkio", name).unwrap_or_default();
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        Some(v1::BlkIOEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: words.next()?.to_owned(),
            value: words.next()?.parse().ok()?,
            ..v1::BlkIOEntry::default()
        })
    };
    text.lines().filter_map(entry).collect()
}

fn version_2(cgroup: &Cgroup, pids: Pids) -> v2::Metrics {
    let cpu = cgroup.table("cpu", "cpu.stat");
    let events = cgroup.table("memory", "memory.events");
    v2::Metrics {
        pids: Some(v2::PidsStat {
            current: pids.current,
            limit: pids.limit,
            ..v2::PidsStat::default()
        })
        .into(),
        cpu: Some(v2::CPUStat {
            usage_usec: cpu.get("usage_usec"),
            user_usec: cpu.get("user_usec"),
            system_usec: cpu.get("system_usec"),
            nr_periods: cpu.get("nr_periods"),
            nr_throttled: cpu.get("nr_throttled"),
            throttled_usec: cpu.get("throttled_usec"),
            ..v2::CPUStat::default()
        })
        .into(),
        memory: Some(memory_2(cgroup, &cgroup.table("memory", "memory.stat"))).into(),
        io: Some(v2::IOStat {
            usage: io_entries(&cgroup.text("io", "io.stat").unwrap_or_default()),
            ..v2::IOStat::default()
        })
        .into(),
        memory_events: Some(v2::MemoryEvents {
            low: events.get("low"),
            high: events.get("high"),
            max: events.get("max"),
            oom: events.get("oom"),
            oom_kill: events.get("oom_kill"),
            ..v2::MemoryEvents::default()
        })
        .into(),
        ..v2::Metrics::default()
    }
}

fn memory_2(cgroup: &Cgroup, stat: &Table) -> v2::MemoryStat {
    let file = |name| cgroup.number("memory", name, 0);
    // "max" is what containerd knows as the largest number.
    let limit = |name| cgroup.number("memory", name, u64::MAX);
    v2::MemoryStat {
        anon: stat.get("anon"),
        file: stat.get("file"),
        kernel_stack: stat.get("kernel_stack"),
        slab: stat.get("slab"),
        sock: stat.get("sock"),
        shmem: stat.get("shmem"),
        file_mapped: stat.get("file_mapped"),
        file_dirty: stat.get("file_dirty"),
        file_writeback: stat.get("file_writeback"),
        anon_thp: stat.get("anon_thp"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        slab_reclaimable: stat.get("slab_reclaimable"),
        slab_unreclaimable: stat.get("slab_unreclaimable"),
        pgfault: stat.get("pgfault"),
        pgmajfault: stat.get("pgmajfault"),
        workingset_refault: stat.get("workingset_refault"),
        workingset_activate: stat.get("workingset_activate"),
        workingset_nodereclaim: stat.get("workingset_nodereclaim"),
        pgrefill: stat.get("pgrefill"),
        pgscan: stat.get("pgscan"),
        pgsteal: stat.get("pgsteal"),
        pgactivate: stat.get("pgactivate"),
        pgdeactivate: stat.get("pgdeactivate"),
        pglazyfree: stat.get("pglazyfree"),
        pglazyfreed: stat.get("pglazyfreed"),
        thp_fault_alloc: stat.get("thp_fault_alloc"),
        thp_collapse_alloc: stat.get("thp_collapse_alloc"),
        usage: file("memory.current"),
        usage_limit: limit("memory.max"),
        swap_usage: file("memory.swap.current"),
        swap_limit: limit("memory.swap.max"),
        max_usage: file("memory.peak"),
        ..v2::MemoryStat::default()
    }
}

/// `MAJOR:MINOR rbytes=N wbytes=N ...` lines.
fn io_entries(text: &str) -> Vec<v2::IOEntry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let mut entry = v2::IOEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            ..v2::IOEntry::default()
        };
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            let field = match name {
                "rbytes" => &mut entry.rbytes,
                "wbytes" => &mut entry.wbytes,
                "rios" => &mut entry.rios,
                "wios" => &mut entry.wios,
                _ => continue,
            };
            *field = value.parse().ok()?;
        }
        Some(entry)
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim::protos::protobuf::Message;
    use std::fs;

    const PIDS: Pids = Pids {
        current: 3,
        limit: 10,
    };

    #[test]
    fn of_version_1() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        for (name, text) in [
            ("cpuacct.usage", "123456789\n"),
            ("cpuacct.stat", "user 5\nsystem 7\n"),
            ("cpuacct.usage_percpu", "100 200 \n"),
            (
                "cpu.stat",
                "nr_periods 4\nnr_throttled 2\nthrottled_time 9\n",
            ),
            ("memory.stat", "cache 11\ntotal_inactive_file 12\n"),
            ("memory.usage_in_bytes", "4096\n"),
            ("memory.limit_in_bytes", "8192\n"),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 6\n",
            ),
            (
                "blkio.throttle.io_serviced_recursive",
                "8:0 Read 5\n8:0 Write 6\nTotal 11\n",
            ),
        ] {
            fs::write(path.join(name), text).unwrap();
        }
        let controllers = ["cpu", "cpuacct", "memory", "blkio"];
        let cgroup = Cgroup::V1(
            controllers
                .map(|name| (name.to_owned(), path.clone()))
                .into(),
        );
        let any = collect(&cgroup, PIDS).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        let metrics = v1::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!(metrics.cpu.usage.total, 123_456_789);
        assert_eq!(metrics.cpu.usage.user, 50_000_000);
        assert_eq!(metrics.cpu.usage.per_cpu, [100, 200]);
        assert_eq!(metrics.cpu.throttling.throttled_time, 9);
        assert_eq!(metrics.memory.usage.usage, 4096);
        assert_eq!(metrics.memory.usage.limit, 8192);
        assert_eq!(metrics.memory.total_inactive_file, 12);
        assert_eq!((metrics.pids.current, metrics.pids.limit), (3, 10));
        assert_eq!(metrics.memory_oom_control.oom_kill, 6);
        let writes = &metrics.blkio.io_serviced_recursive[1];
        assert_eq!((writes.op.as_str(), writes.value), ("Write", 6));
        assert_eq!(metrics.blkio.io_serviced_recursive.len(), 2);
    }

    #[test]
    fn of_version_2() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for (name, text) in [
            ("cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 1\ninactive_file 2\n"),
            ("memory.events", "low 0\noom 1\noom_kill 1\n"),
            (
                "io.stat",
                "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n\n",
            ),
        ] {
            fs::write(path.join(name), text).unwrap();
        }
        let any = collect(&Cgroup::V2(path.to_owned()), PIDS).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        let metrics = v2::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!(metrics.cpu.usage_usec, 30);
        assert_eq!(metrics.memory.usage, 4096);
        assert_eq!(metrics.memory.usage_limit, u64::MAX);
        assert_eq!(metrics.memory.inactive_file, 2);
        assert_eq!(metrics.memory_events.oom_kill, 1);
        let io = &metrics.io.usage[0];
        assert_eq!((io.major, io.rbytes, io.wios), (8, 1, 4));
        assert_eq!(metrics.pids.current, 3);
    }
}
