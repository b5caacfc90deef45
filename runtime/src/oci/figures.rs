//! What a container uses, as runc's `events` has it: the cgroup's numbers, which are what it costs the host, with limits and
//! processes as the container has them.

use husk_abi::boundary::control::Usage;
use serde_json::{Map, Value, json};

use super::cgroup::Cgroup;
use super::shadow::VMM_OVERHEAD_BYTES;

/// Nanoseconds in a tick of `USER_HZ`, which cgroups count CPU time in.
const TICK_NS: u64 = 10_000_000;

/// A cgroup's files, read as numbers; what is not there is 0.
struct Files<'c>(&'c Cgroup);

impl Files<'_> {
    /// The number in the first of `names` that is there. `max` is the largest.
    fn number(&self, names: &[&str]) -> u64 {
        let text = names.iter().find_map(|name| self.0.get(name));
        text.map_or(0, |text| match text.trim() {
            "max" => u64::MAX,
            number => number.parse().unwrap_or(0),
        })
    }

    /// All numbers of a file.
    fn numbers(&self, name: &str) -> Vec<u64> {
        let text = self.0.get(name).unwrap_or_default();
        let words = text.split_whitespace();
        words.filter_map(|word| word.parse().ok()).collect()
    }

    /// The lines of a file, each a name and a number.
    fn table(&self, name: &str) -> Map<String, Value> {
        table(&self.0.get(name).unwrap_or_default())
    }
}

fn table(text: &str) -> Map<String, Value> {
    text.lines()
        .filter_map(|line| {
            let (name, number) = line.split_once(' ')?;
            let number: u64 = number.trim().parse().ok()?;
            Some((name.to_owned(), number.into()))
        })
        .collect()
}

fn of(table: &Map<String, Value>, name: &str) -> u64 {
    table.get(name).and_then(Value::as_u64).unwrap_or(0)
}

/// `MAJOR:MINOR OPERATION NUMBER`, a line each.
fn transfers(text: &str) -> Vec<Value> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (major, minor) = words.next()?.split_once(':')?;
            let (operation, number) = (words.next()?, words.next()?);
            Some(json!({
                "major": major.parse::<u64>().ok()?, "minor": minor.parse::<u64>().ok()?,
                "op": operation, "value": number.parse::<u64>().ok()?,
            }))
        })
        .collect()
}

/// Adds what is not 0: runc leaves zeros out.
fn put(object: &mut Map<String, Value>, name: &str, number: u64) {
    if number != 0 {
        object.insert(name.to_owned(), number.into());
    }
}

/// How many processes the kernel has killed because `cgroup` ran out of memory.
pub fn oom_kills(cgroup: &Cgroup) -> u64 {
    let files = Files(cgroup);
    let kills = |file| of(&files.table(file), "oom_kill");
    kills("memory.oom_control").max(kills("memory.events"))
}

fn cpu(files: &Files<'_>) -> Value {
    // Version 2 has all in one file, in microseconds.
    let stat = files.table("cpu.stat");
    let micro = |name| of(&stat, name).saturating_mul(1000);
    let acct = files.table("cpuacct.stat");
    let ticks = |name| of(&acct, name).saturating_mul(TICK_NS);
    let total = files.number(&["cpuacct.usage"]);
    let mut usage = json!({
        "total": total.max(micro("usage_usec")),
        "kernel": ticks("system").max(micro("system_usec")),
        "user": ticks("user").max(micro("user_usec")),
    });
    let each = files.numbers("cpuacct.usage_percpu");
    if !each.is_empty() {
        usage["percpu"] = each.into();
    }
    let mut throttling = Map::new();
    put(&mut throttling, "periods", of(&stat, "nr_periods"));
    put(
        &mut throttling,
        "throttledPeriods",
        of(&stat, "nr_throttled"),
    );
    let throttled = of(&stat, "throttled_time").max(micro("throttled_usec"));
    put(&mut throttling, "throttledTime", throttled);
    json!({ "usage": usage, "throttling": throttling })
}

/// A limit of the host's is one of the guest's and room for the VMM, unless there is none.
fn narrow(limit: u64) -> u64 {
    if limit >= i64::MAX as u64 - 4096 {
        limit
    } else {
        limit.saturating_sub(VMM_OVERHEAD_BYTES.unsigned_abs())
    }
}

fn memory(files: &Files<'_>) -> Value {
    let amount = |limit: &[&str], usage: &[&str], max: &[&str], failures: &str| {
        let mut amount = Map::new();
        amount.insert("limit".to_owned(), narrow(files.number(limit)).into());
        put(&mut amount, "usage", files.number(usage));
        put(&mut amount, "max", files.number(max));
        amount.insert("failcnt".to_owned(), files.number(&[failures]).into());
        amount
    };
    let raw = files.table("memory.stat");
    let mut memory = Map::new();
    put(
        &mut memory,
        "cache",
        of(&raw, "cache").max(of(&raw, "file")),
    );
    let used = amount(
        &["memory.limit_in_bytes", "memory.max"],
        &["memory.usage_in_bytes", "memory.current"],
        &["memory.max_usage_in_bytes", "memory.peak"],
        "memory.failcnt",
    );
    let swap = amount(
        &["memory.memsw.limit_in_bytes", "memory.swap.max"],
        &["memory.memsw.usage_in_bytes", "memory.swap.current"],
        &["memory.memsw.max_usage_in_bytes"],
        "memory.memsw.failcnt",
    );
    let kernel = amount(
        &["memory.kmem.limit_in_bytes"],
        &["memory.kmem.usage_in_bytes"],
        &["memory.kmem.max_usage_in_bytes"],
        "memory.kmem.failcnt",
    );
    let tcp = amount(
        &["memory.kmem.tcp.limit_in_bytes"],
        &["memory.kmem.tcp.usage_in_bytes"],
        &["memory.kmem.tcp.max_usage_in_bytes"],
        "memory.kmem.tcp.failcnt",
    );
    for (name, amount) in [
        ("usage", used),
        ("swap", swap),
        ("kernel", kernel),
        ("kernelTCP", tcp),
    ] {
        memory.insert(name.to_owned(), amount.into());
    }
    memory.insert("raw".to_owned(), raw.into());
    memory.into()
}

fn pids(files: &Files<'_>, inside: Option<&Usage>) -> Value {
    let (current, limit) = match inside {
        Some(usage) => (usage.tasks, usage.tasks_limit),
        None => (files.number(&["pids.current"]), u64::MAX),
    };
    let mut pids = Map::new();
    put(&mut pids, "current", current);
    put(
        &mut pids,
        "limit",
        if limit == u64::MAX { 0 } else { limit },
    );
    pids.into()
}

fn blkio(files: &Files<'_>) -> Value {
    let mut blkio = Map::new();
    for (name, file) in [
        (
            "ioServiceBytesRecursive",
            "blkio.throttle.io_service_bytes_recursive",
        ),
        (
            "ioServicedRecursive",
            "blkio.throttle.io_serviced_recursive",
        ),
    ] {
        let all = transfers(&files.0.get(file).unwrap_or_default());
        if !all.is_empty() {
            blkio.insert(name.to_owned(), all.into());
        }
    }
    blkio.into()
}

/// All figures; `inside` are the libOS's, if it could be asked.
#[must_use]
pub fn of_container(cgroup: &Cgroup, inside: Option<&Usage>) -> Value {
    let files = Files(cgroup);
    json!({
        "cpu": cpu(&files),
        "cpuset": {},
        "memory": memory(&files),
        "pids": pids(&files, inside),
        "blkio": blkio(&files),
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_cgroup() {
        let stat = table("cache 4096\nrss 0\ngarbage\nrss_huge x\n");
        assert_eq!(Value::from(stat.clone()), json!({"cache": 4096, "rss": 0}));
        assert_eq!((of(&stat, "cache"), of(&stat, "none")), (4096, 0));
        assert_eq!(
            transfers("8:16 Read 512\n8:16 Write x\nTotal 512\n"),
            [json!({"major": 8, "minor": 16, "op": "Read", "value": 512})]
        );
    }

    #[test]
    fn no_limit_stays_none() {
        assert_eq!(narrow(u64::MAX), u64::MAX);
        assert_eq!(narrow(9_223_372_036_854_771_712), 9_223_372_036_854_771_712);
        assert_eq!(narrow((96 << 20) + 5), 5);
    }
}
