//! `update`: limits of a container that runs. What is 0 or missing stays, as with runc.

use std::path::Path;

use husk_abi::boundary::control::Limits;
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};
use serde::Deserialize;

use super::cgroup::Cgroup;
use super::shadow::VMM_OVERHEAD_BYTES;
use super::state::{Container, Status};
use super::{Error, control};

/// New limits, in the specification's words (`linux.resources`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the specification's names")]
pub struct Resources {
    pub memory: Memory,
    pub cpu: Cpu,
    #[serde(rename = "blockIO")]
    pub block_io: BlockIo,
    pub pids: Pids,
}

/// `memory`, in bytes; -1 for no limit.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the specification's names")]
pub struct Memory {
    pub limit: Option<i64>,
    pub reservation: Option<i64>,
    pub swap: Option<i64>,
}

/// `cpu`, times in microseconds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the specification's names")]
pub struct Cpu {
    pub shares: Option<u64>,
    pub quota: Option<i64>,
    pub period: Option<u64>,
    #[serde(rename = "realtimeRuntime")]
    pub realtime_runtime: Option<i64>,
    #[serde(rename = "realtimePeriod")]
    pub realtime_period: Option<u64>,
    pub cpus: Option<String>,
    pub mems: Option<String>,
}

/// `blockIO`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the specification's names")]
pub struct BlockIo {
    pub weight: Option<u16>,
}

/// `pids`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the specification's names")]
pub struct Pids {
    pub limit: Option<i64>,
}

/// A number that says something.
fn given<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

/// Changes limits of `container`, whose directory is `dir`.
///
/// # Errors
/// [`Error::NotRunning`]; limits that cannot be had.
pub fn update(container: &Container, dir: &Path, new: &Resources) -> Result<(), Error> {
    let status = container.status();
    if matches!(status, Status::Stopped | Status::Creating) {
        return Err(Error::NotRunning);
    }
    let limits = Limits {
        memory_bytes: given(new.memory.limit).map(|limit| u64::try_from(limit).unwrap_or(u64::MAX)),
        pids: given(new.pids.limit).map(|limit| u64::try_from(limit).unwrap_or(u64::MAX)),
    };
    let cgroup = container.cgroup()?;
    // At no moment may the guest use more than the host allows.
    let raises = given(new.memory.limit).is_some_and(|limit| grows(&cgroup, limit));
    if raises {
        memory(&cgroup, &new.memory)?;
    }
    if limits != Limits::default() {
        // A paused one takes them when it goes on, one that was only created when it starts; the host's hold at once.
        control::limit(dir, limits, status == Status::Running)?;
    }
    if !raises {
        memory(&cgroup, &new.memory)?;
    }
    cpu(&cgroup, &new.cpu)?;
    if let Some(weight) = given(new.block_io.weight) {
        cgroup.set("blkio.weight", &weight.to_string())?;
    }
    match cgroup.unit() {
        // systemd writes its own idea of them again when it likes.
        Some(unit) => unit.limit(&kept_by_systemd(new)),
        None => Ok(()),
    }
}

/// The limits of the host's cgroup that systemd has properties for.
fn kept_by_systemd(new: &Resources) -> LinuxResources {
    let mut memory = LinuxMemory::default();
    let wide = |bytes: i64| match bytes {
        1.. => bytes.saturating_add(VMM_OVERHEAD_BYTES),
        _ => bytes,
    };
    memory
        .set_limit(given(new.memory.limit).map(wide))
        .set_swap(given(new.memory.swap).map(wide))
        .set_reservation(given(new.memory.reservation).map(wide));
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(given(new.cpu.shares))
        .set_quota(given(new.cpu.quota))
        .set_period(given(new.cpu.period))
        .set_cpus(given(new.cpu.cpus.clone()))
        .set_mems(given(new.cpu.mems.clone()));
    let mut resources = LinuxResources::default();
    // What says nothing is left out: an empty part would be an empty property.
    if memory != LinuxMemory::default() {
        resources.set_memory(Some(memory));
    }
    if cpu != LinuxCpu::default() {
        resources.set_cpu(Some(cpu));
    }
    resources.set_devices(None);
    resources
}

/// Whether a limit of memory is above the one the cgroup has.
fn grows(cgroup: &Cgroup, limit: i64) -> bool {
    let now = ["memory.limit_in_bytes", "memory.max"]
        .iter()
        .find_map(|file| cgroup.get(file));
    // No number: there is no limit.
    let now = now.and_then(|text| text.trim().parse().ok());
    limit < 0 || now.is_some_and(|now: i64| limit.saturating_add(VMM_OVERHEAD_BYTES) > now)
}

/// The host's limits: the guest's, and room for the VMM.
fn memory(cgroup: &Cgroup, new: &Memory) -> Result<(), Error> {
    let wide = |bytes: i64| {
        if bytes > 0 {
            bytes.saturating_add(VMM_OVERHEAD_BYTES)
        } else {
            bytes
        }
    };
    let v2 = |bytes: i64| {
        if bytes < 0 {
            "max".to_owned()
        } else {
            bytes.to_string()
        }
    };
    let (limit, swap) = (given(new.limit).map(wide), given(new.swap).map(wide));
    // Version 1 keeps memory below memory and swap at every moment: what grows goes first, and one of two orders works.
    let first = swap.is_some_and(|swap| {
        let file = "memory.memsw.limit_in_bytes";
        matches!(cgroup.set(file, &swap.to_string()), Ok(true))
    });
    if let Some(limit) = limit {
        cgroup.set("memory.limit_in_bytes", &limit.to_string())?;
        cgroup.set("memory.max", &v2(limit))?;
    }
    if let Some(swap) = swap {
        if !first {
            cgroup.set("memory.memsw.limit_in_bytes", &swap.to_string())?;
        }
        if let Some(limit) = limit.filter(|limit| *limit > 0) {
            let only = if swap < 0 {
                swap
            } else {
                swap.saturating_sub(limit)
            };
            cgroup.set("memory.swap.max", &v2(only))?;
        }
    }
    if let Some(reservation) = given(new.reservation).map(wide) {
        cgroup.set("memory.soft_limit_in_bytes", &reservation.to_string())?;
        cgroup.set("memory.low", &v2(reservation))?;
    }
    Ok(())
}

/// Shares as version 2 has them, 1 to 10000: as libcgroups at `create`, and runc since 1.3, by a curve that leads from
/// 1024 to 100, what each has for who says nothing.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 1 and 10000"
)]
fn weight(shares: u64) -> u64 {
    let shares = u32::try_from(shares).unwrap_or(u32::MAX).clamp(2, 262_144);
    let log = f64::from(shares).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

fn cpu(cgroup: &Cgroup, new: &Cpu) -> Result<(), Error> {
    let files = [
        (
            "cpu.shares",
            given(new.shares).map(|number| number.to_string()),
        ),
        (
            "cpu.weight",
            given(new.shares).map(|shares| weight(shares).to_string()),
        ),
        (
            "cpu.cfs_period_us",
            given(new.period).map(|number| number.to_string()),
        ),
        (
            "cpu.cfs_quota_us",
            given(new.quota).map(|number| number.to_string()),
        ),
        (
            "cpu.rt_period_us",
            given(new.realtime_period).map(|number| number.to_string()),
        ),
        (
            "cpu.rt_runtime_us",
            given(new.realtime_runtime).map(|number| number.to_string()),
        ),
        ("cpuset.cpus", given(new.cpus.clone())),
        ("cpuset.mems", given(new.mems.clone())),
    ];
    for (file, text) in files {
        if let Some(text) = text {
            cgroup.set(file, &text)?;
        }
    }
    if let Some(quota) = given(new.quota) {
        let quota = if quota < 0 {
            "max".to_owned()
        } else {
            quota.to_string()
        };
        let period = given(new.period).unwrap_or(100_000);
        cgroup.set("cpu.max", &format!("{quota} {period}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_as_weights() {
        for (shares, expected) in [
            (2, 1),
            (512, 59),
            (1024, 100),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    #[test]
    fn what_engines_send() {
        let text = r#"{"memory":{"limit":268435456,"swap":0,"kernel":0},"cpu":{"shares":0,"quota":50000,"cpus":""},
            "blockIO":{"weight":0},"pids":{"limit":7}}"#;
        let new: Resources = serde_json::from_str(text).unwrap();
        assert_eq!(given(new.memory.limit), Some(268_435_456));
        assert_eq!(given(new.memory.swap), None);
        assert_eq!(
            (given(new.cpu.shares), given(new.cpu.quota)),
            (None, Some(50_000))
        );
        assert_eq!(given(new.cpu.cpus), None);
        assert_eq!(given(new.block_io.weight), None);
        assert_eq!(given(new.pids.limit), Some(7));
    }
}
