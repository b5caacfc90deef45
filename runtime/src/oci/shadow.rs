//! The specification that libcontainer sees: the VMM's, not the workload's.

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde_json::{Map, Value, json};

use super::spec::{Bundle, Error};
use super::{idmap, mounts};
use crate::plan::{Cpus, Network};

/// What the VMM process keeps. It serves the container's files as their owner of all kinds of files, opens
/// sockets on the container's behalf, and nothing else.
const CAPABILITIES: [&str; 8] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
];

/// What the VMM needs beyond the guest's own memory, in bytes: its code and stacks, the libOS, page tables.
pub const VMM_OVERHEAD_BYTES: i64 = 96 << 20;

/// Where the container's cgroup lies when the bundle names none: relative to each hierarchy's root, or in systemd's words.
pub fn default_cgroup(id: &str, systemd: bool) -> PathBuf {
    PathBuf::from(if systemd {
        format!(":husk:{id}")
    } else {
        format!("/husk-{id}")
    })
}

/// What a shadow is made of besides the bundle.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Absolute path of the root file system.
    pub rootfs: &'a Path,
    /// Path of the container's cgroup, as the specification writes it.
    pub cgroup: &'a Path,
}

/// The shadow of `bundle`.
///
/// # Errors
/// [`Error`], naming the field.
pub fn of_bundle(bundle: &Bundle, parts: &Parts<'_>) -> Result<Value, Error> {
    let mut shadow = bundle.raw.clone();
    let Some(root) = shadow.as_object_mut() else {
        return Err(Error::field(".", "is not an object"));
    };
    let terminal = bundle
        .spec
        .process()
        .as_ref()
        .and_then(|process| process.terminal())
        .unwrap_or(false);
    let mut process = process(root.get("process"), terminal);
    if let Some(linux) = bundle.spec.linux()
        && super::userns::wanted(linux)?.is_some()
        && let Some(sets) = process["capabilities"].as_object_mut()
    {
        // To enter the container's user namespace, in which it means nothing outside any more.
        for set in sets.values_mut().filter_map(Value::as_array_mut) {
            set.push(json!("CAP_SYS_ADMIN"));
        }
    }
    root.insert("process".to_owned(), process);
    root.insert(
        "root".to_owned(),
        json!({"path": parts.rootfs, "readonly": false}),
    );
    root.insert(
        "mounts".to_owned(),
        Value::Array(mounts(&bundle.spec, &bundle.raw, terminal)?),
    );
    if let Some(hooks) = root.get_mut("hooks").and_then(Value::as_object_mut) {
        super::hooks::drop_own(hooks);
    }
    if let Some(linux) = root.get_mut("linux").and_then(Value::as_object_mut) {
        self::linux(linux, parts.cgroup)?;
        if are_private(&bundle.spec) && linux.get("rootfsPropagation") != Some(&json!("shared")) {
            linux.insert("rootfsPropagation".to_owned(), json!("private"));
        }
    }
    Ok(shadow)
}

/// The shadow of a container without a bundle, everything of which the VMM is handed: an empty root of its own, `runc spec`'s
/// namespaces, but the caller's network if that is asked for. Limits of memory and CPUs are the container's.
pub fn plain(
    hostname: &str,
    memory_bytes: Option<u64>,
    cpus: Option<Cpus>,
    cgroup: &Path,
    rootfs: &Path,
    network: Network,
) -> Value {
    let mut resources = Map::new();
    if let Some(bytes) = memory_bytes.and_then(|bytes| i64::try_from(bytes).ok()) {
        let limit = bytes.saturating_add(VMM_OVERHEAD_BYTES);
        resources.insert("memory".to_owned(), json!({"limit": limit}));
    }
    if let Some(cpus) = cpus {
        let quota = cpus.hundredths.saturating_mul(PERIOD_US / 100);
        resources.insert(
            "cpu".to_owned(),
            json!({"quota": quota, "period": PERIOD_US}),
        );
    }
    let mut namespaces =
        json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]);
    if let (Network::None, Some(all)) = (network, namespaces.as_array_mut()) {
        all.push(json!({"type": "network"}));
    }
    json!({
        "ociVersion": VERSION,
        "process": process(None, false),
        "root": {"path": rootfs, "readonly": true},
        "hostname": hostname,
        "mounts": [own_proc(), tmpfs("/dev")],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": namespaces,
            "resources": resources,
        },
    })
}

/// The usual period of a limit of CPU time, in microseconds.
const PERIOD_US: u64 = 100_000;

/// How many CPUs a specification lets a container use; `None` for all.
pub fn cpus(spec: &Value) -> Option<f64> {
    let cpu = spec.get("linux")?.get("resources")?.get("cpu")?;
    let quota = cpu.get("quota")?.as_f64().filter(|quota| *quota > 0.0)?;
    let period = cpu.get("period").and_then(Value::as_f64);
    Some(
        quota
            / period
                .filter(|period| *period > 0.0)
                .unwrap_or(PERIOD_US as f64),
    )
}

/// The version of the specification that husk's own specifications follow.
pub const VERSION: &str = "1.0.2";

/// The VMM reopens files by their descriptors' names there, and needs nothing else of it; the guest mounts its own over it.
fn own_proc() -> Value {
    json!({
        "destination": "/proc",
        "type": "proc",
        "source": "proc",
        "options": ["nosuid", "nodev", "noexec", "subset=pid"],
    })
}

fn process(of_workload: Option<&Value>, terminal: bool) -> Value {
    let mut process = json!({
        "terminal": terminal,
        "user": {"uid": 0, "gid": 0},
        "args": [super::executor::PROCESS_NAME],
        "env": [],
        "cwd": "/",
        "noNewPrivileges": true,
        "capabilities": {
            "bounding": CAPABILITIES,
            "effective": CAPABILITIES,
            "permitted": CAPABILITIES,
        },
    });
    for kept in ["consoleSize", "oomScoreAdj", "ioPriority", "scheduler"] {
        if let Some(value) = of_workload.and_then(|process| process.get(kept)) {
            process[kept] = value.clone();
        }
    }
    process
}

fn tmpfs(destination: &str) -> Value {
    json!({
        "destination": destination,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "noexec", "mode=755", "size=64k"],
    })
}

/// The host's mounts; and of the guest's own those that the host's lie in, so that no mount point is made in the
/// root file system itself.
fn mounts(spec: &Spec, raw: &Value, terminal: bool) -> Result<Vec<Value>, Error> {
    let typed = spec.mounts().as_deref().unwrap_or_default();
    let empty = Vec::new();
    let written = raw
        .get("mounts")
        .and_then(Value::as_array)
        .unwrap_or(&empty);
    let holds_later = |index: usize, of: &Path| {
        typed[index + 1..].iter().any(|later| {
            let path = mounts::destination(later.destination());
            !mounts::is_guests(later) && path != of && path.starts_with(of)
        })
    };
    let mut shadow = vec![own_proc()];
    for (index, (mount, value)) in typed.iter().zip(written).enumerate() {
        let destination = mounts::destination(mount.destination());
        let kind = mount.typ().as_deref().unwrap_or_default();
        if idmap::wanted(index, mount)?.is_some() {
            // The VMM is handed it.
        } else if !mounts::is_guests(mount) {
            shadow.push(value.clone());
        } else if destination == Path::new("/dev") {
            shadow.push(tmpfs("/dev"));
        } else if terminal && kind == "devpts" {
            shadow.push(value.clone());
        } else if kind == "tmpfs" && holds_later(index, &destination) {
            let mut value = value.clone();
            if let Some(options) = value.get_mut("options").and_then(Value::as_array_mut) {
                options.retain(|option| option.as_str() != Some("tmpcopyup"));
            }
            shadow.push(value);
        }
    }
    Ok(shadow)
}

/// Whether what is mounted on the host later is not to be seen in any volume. libcontainer does not obey a mount's own
/// propagation, but a mount is as that is which it comes from, and that is as the root: private, or a slave.
fn are_private(spec: &Spec) -> bool {
    let mounts = spec.mounts().iter().flatten();
    let mut said = mounts
        .filter(|mount| !mounts::is_guests(mount))
        .flat_map(|mount| {
            let options = mount.options().iter().flatten();
            options.filter_map(|option| super::checks::propagation(option))
        });
    let mut any = false;
    said.all(|word| {
        any = true;
        word == "private"
    }) && any
}

fn linux(linux: &mut Map<String, Value>, cgroup: &Path) -> Result<(), Error> {
    for guests in [
        "seccomp",
        "maskedPaths",
        "readonlyPaths",
        "devices",
        "mountLabel",
        "personality",
        "uidMappings",
        "gidMappings",
    ] {
        linux.remove(guests);
    }
    if let Some(namespaces) = linux.get_mut("namespaces").and_then(Value::as_array_mut) {
        // The executor enters it.
        namespaces.retain(|namespace| namespace["type"] != "user");
    }
    linux.insert("cgroupsPath".to_owned(), json!(cgroup));
    // libcontainer always takes what is mounted below along, and knows the words for that alone.
    if let Some(word) = linux.get_mut("rootfsPropagation") {
        match word.as_str().and_then(super::checks::propagation) {
            Some(plain) => *word = json!(plain),
            None => *word = Value::Null,
        }
    }
    // The network namespace is the host's business, all other settings are the guest's.
    if let Some(sysctl) = linux.get_mut("sysctl").and_then(Value::as_object_mut) {
        sysctl.retain(|name, _| name.starts_with("net.") || name.starts_with("net/"));
    }
    if let Some(resources) = linux.get_mut("resources").and_then(Value::as_object_mut) {
        // The libOS counts the container's processes; here they are threads of the VMM.
        resources.remove("pids");
        if let Some(memory) = resources.get_mut("memory").and_then(Value::as_object_mut) {
            widen(memory)?;
        }
        if let Some(unified) = resources.get_mut("unified").and_then(Value::as_object_mut) {
            unified.remove("pids.max");
            widen_unified(unified)?;
        }
    }
    Ok(())
}

/// Gives the container the network namespace that descriptor `number` of its maker is, instead of a new one.
pub fn join_network(shadow: &mut Value, number: RawFd) {
    let namespaces = shadow.pointer_mut("/linux/namespaces");
    for namespace in namespaces
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if namespace["type"] == "network" {
            // libcontainer's processes inherit it.
            namespace["path"] = json!(format!("/proc/self/fd/{number}"));
        }
    }
}

/// Makes room for the VMM next to the guest's memory.
fn widen(memory: &mut Map<String, Value>) -> Result<(), Error> {
    for name in ["limit", "swap", "reservation"] {
        let Some(value) = memory.get_mut(name).filter(|value| !value.is_null()) else {
            continue;
        };
        let bytes = value.as_i64().ok_or_else(|| {
            Error::field(format!("linux.resources.memory.{name}"), "is no amount")
        })?;
        if bytes > 0 {
            *value = bytes.saturating_add(VMM_OVERHEAD_BYTES).into();
        }
    }
    Ok(())
}

fn widen_unified(unified: &mut Map<String, Value>) -> Result<(), Error> {
    for name in ["memory.max", "memory.high"] {
        let Some(text) = unified.get(name).and_then(Value::as_str) else {
            continue;
        };
        if text.trim() == "max" {
            continue;
        }
        let bytes: i64 = text.trim().parse().map_err(|_| {
            Error::field(format!("linux.resources.unified[{name}]"), "is no amount")
        })?;
        let wide = bytes.saturating_add(VMM_OVERHEAD_BYTES).to_string();
        unified.insert(name.to_owned(), wide.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shadow(raw: Value) -> Value {
        let (spec, raw) = super::super::spec::parse(raw.to_string().as_bytes()).unwrap();
        let bundle = Bundle {
            path: "/b".into(),
            rootfs: "/b/rootfs".into(),
            spec,
            raw,
        };
        let parts = Parts {
            rootfs: &bundle.rootfs,
            cgroup: Path::new("/c"),
        };
        of_bundle(&bundle, &parts).unwrap()
    }

    #[test]
    fn volumes_are_private_if_all_are() {
        let of = |propagation: Option<&str>, options: [&str; 2]| {
            let mount = |option: &str| json!({"destination": "/v", "type": "bind", "source": "/etc", "options": ["rbind", option]});
            shadow(json!({
                "ociVersion": "1.0.2",
                "process": {"user": {"uid": 5, "gid": 6}, "args": ["sh"], "cwd": "/"},
                "root": {"path": "rootfs"},
                "mounts": options.map(mount),
                "linux": {"namespaces": [], "rootfsPropagation": propagation},
            }))["linux"]["rootfsPropagation"]
                .clone()
        };
        assert_eq!(of(None, ["rprivate", "private"]), json!("private"));
        assert_eq!(of(Some("rslave"), ["rprivate", "ro"]), json!("private"));
        assert_eq!(of(Some("rslave"), ["rprivate", "rslave"]), json!("slave"));
        assert_eq!(of(None, ["ro", "ro"]), json!(null));
        assert_eq!(of(Some("shared"), ["rprivate", "ro"]), json!("shared"));
    }

    #[test]
    fn limits_of_cpus() {
        let of = |cpu: Value| cpus(&json!({"linux": {"resources": {"cpu": cpu}}}));
        assert_eq!(of(json!({"quota": 50000, "period": 100_000})), Some(0.5));
        assert_eq!(of(json!({"quota": 300_000})), Some(3.0));
        assert_eq!(of(json!({"quota": -1, "period": 100_000})), None);
        assert_eq!(of(json!({"shares": 2})), None);
        assert_eq!(cpus(&json!({})), None);
        let half = Some(Cpus { hundredths: 50 });
        let plain = plain(
            "h",
            None,
            half,
            Path::new("/c"),
            Path::new("/r"),
            Network::None,
        );
        assert_eq!(cpus(&plain), Some(0.5));
    }

    #[test]
    fn the_workload_is_taken_out() {
        let shadow = shadow(json!({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 5, "gid": 6}, "args": ["sh"], "cwd": "/x", "env": ["A=b"],
                "oomScoreAdj": 7, "rlimits": [{"type": "RLIMIT_NPROC", "soft": 1, "hard": 1}]},
            "root": {"path": "rootfs", "readonly": true},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "tmpcopyup"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/run/secrets", "type": "bind", "source": "/etc", "options": ["rbind"]},
            ],
            "linux": {
                "namespaces": [{"type": "pid"}, {"type": "mount"}],
                "sysctl": {"kernel.shmmax": "1", "net.ipv4.ip_forward": "1"},
                "maskedPaths": ["/proc/kcore"],
                "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
                "resources": {"memory": {"limit": 1000, "swap": -1}, "pids": {"limit": 5}},
            },
        }));
        let process = &shadow["process"];
        assert_eq!(process["user"], json!({"uid": 0, "gid": 0}));
        assert_eq!(
            (&process["oomScoreAdj"], &process["cwd"]),
            (&json!(7), &json!("/"))
        );
        assert!(process.get("rlimits").is_none());
        let linux = &shadow["linux"];
        assert_eq!(linux["sysctl"], json!({"net.ipv4.ip_forward": "1"}));
        assert!(linux.get("seccomp").is_none() && linux.get("maskedPaths").is_none());
        assert_eq!(
            linux["resources"]["memory"],
            json!({"limit": 1000 + VMM_OVERHEAD_BYTES, "swap": -1})
        );
        assert!(linux["resources"].get("pids").is_none());
        let destinations: Vec<_> = shadow["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|mount| mount["destination"].as_str().unwrap())
            .collect();
        assert_eq!(destinations, ["/proc", "/run", "/dev", "/run/secrets"]);
        assert_eq!(shadow["mounts"][1]["options"], json!(["size=1m"]));
    }
}
