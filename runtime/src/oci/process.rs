//! The process part of the specification (config.md, "Process"), as the libOS takes it.

use nix::sys::resource::{Resource, getrlimit};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use husk_abi::boundary::config::{
    Device, GuestConfig, LogLevel, ProcessConfig, Rlimit, StreamKind, WindowSize,
};
use husk_abi::boundary::log::ROOMS;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use oci_spec::runtime::{LinuxDeviceType, PosixRlimitType, Process, Spec};
use serde_json::Value;

use super::spec::{Bundle, Error};
use super::{mounts, seccomp};

/// Names of capabilities without `CAP_`, by number (`capabilities(7)`, linux/capability.h).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The number of `CAP_NAME`.
pub fn capability_number(name: &str) -> Option<u32> {
    let name = name.strip_prefix("CAP_")?;
    CAPABILITIES
        .iter()
        .position(|known| *known == name)
        .and_then(|number| u32::try_from(number).ok())
}

/// All names, for `husk features`.
pub fn capability_names() -> Vec<String> {
    CAPABILITIES
        .iter()
        .map(|name| format!("CAP_{name}"))
        .collect()
}

/// A set of `process.capabilities` as bits.
fn capability_set(raw: &Value, set: &str) -> u64 {
    raw.pointer(&format!("/process/capabilities/{set}"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|name| capability_number(name.as_str()?))
        .fold(0, |bits, number| bits | 1 << number)
}

/// bounding, effective, inheritable, permitted, ambient.
///
/// Without `process.capabilities` runc leaves the sets as its caller has them: all, for root.
fn capabilities(bundle: &Bundle, uid: u32) -> [u64; 5] {
    const ALL: u64 = (1 << CAPABILITIES.len()) - 1;
    if bundle
        .raw
        .pointer("/process/capabilities")
        .is_none_or(Value::is_null)
    {
        let held = if uid == 0 { ALL } else { 0 };
        return [ALL, held, 0, held, 0];
    }
    let set = |name| capability_set(&bundle.raw, name);
    let (bounding, inheritable) = (set("bounding"), set("inheritable"));
    // As the kernel keeps them: nothing effective that is not permitted, nothing ambient that is not both
    // permitted and inheritable.
    let permitted = set("permitted");
    let effective = set("effective") & permitted;
    let ambient = set("ambient") & permitted & inheritable;
    [bounding, effective, inheritable, permitted, ambient]
}

fn rlimits(spec: &Spec) -> Result<Vec<Rlimit>, Error> {
    use PosixRlimitType as Kind;
    use husk_abi::linux::general as linux;
    let list = spec
        .process()
        .as_ref()
        .and_then(|process| process.rlimits().as_ref());
    let mut limits: Vec<Rlimit> = Vec::new();
    for (index, limit) in list.into_iter().flatten().enumerate() {
        let field = format!("process.rlimits[{index}]");
        let resource = match limit.typ() {
            Kind::RlimitCpu => linux::RLIMIT_CPU,
            Kind::RlimitFsize => linux::RLIMIT_FSIZE,
            Kind::RlimitData => linux::RLIMIT_DATA,
            Kind::RlimitStack => linux::RLIMIT_STACK,
            Kind::RlimitCore => linux::RLIMIT_CORE,
            Kind::RlimitRss => linux::RLIMIT_RSS,
            Kind::RlimitNproc => linux::RLIMIT_NPROC,
            Kind::RlimitNofile => linux::RLIMIT_NOFILE,
            Kind::RlimitMemlock => linux::RLIMIT_MEMLOCK,
            Kind::RlimitAs => linux::RLIMIT_AS,
            Kind::RlimitLocks => linux::RLIMIT_LOCKS,
            Kind::RlimitSigpending => linux::RLIMIT_SIGPENDING,
            Kind::RlimitMsgqueue => linux::RLIMIT_MSGQUEUE,
            Kind::RlimitNice => linux::RLIMIT_NICE,
            Kind::RlimitRtprio => linux::RLIMIT_RTPRIO,
            Kind::RlimitRttime => linux::RLIMIT_RTTIME,
        };
        let (soft, hard) = (limit.soft(), limit.hard());
        if soft > hard {
            return Err(Error::field(
                field,
                format!("soft {soft} is above hard {hard}"),
            ));
        }
        if limits.iter().any(|other| other.resource == resource) {
            return Err(Error::field(format!("{field}.type"), "occurs twice"));
        }
        limits.push(Rlimit {
            resource,
            soft,
            hard,
        });
    }
    // As under runc: what is not said is the caller's.
    if !limits.iter().any(|l| l.resource == linux::RLIMIT_NOFILE)
        && let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
    {
        limits.push(Rlimit {
            resource: linux::RLIMIT_NOFILE,
            soft,
            hard,
        });
    }
    Ok(limits)
}

/// Device nodes the specification asks for.
fn devices(spec: &Spec) -> Result<Vec<Device>, Error> {
    use husk_abi::linux::general::{S_IFBLK, S_IFCHR, S_IFIFO};
    let list = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.devices().as_ref());
    let mut devices = Vec::new();
    for (index, device) in list.into_iter().flatten().enumerate() {
        let field = format!("linux.devices[{index}]");
        if !device.path().is_absolute() {
            return Err(Error::field(
                format!("{field}.path"),
                "is not an absolute path",
            ));
        }
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => S_IFCHR,
            LinuxDeviceType::B => S_IFBLK,
            LinuxDeviceType::P => S_IFIFO,
            LinuxDeviceType::A => {
                return Err(Error::field(format!("{field}.type"), "a is for rules only"));
            }
        };
        let number = |value: i64, what: &str| {
            u32::try_from(value)
                .map_err(|_| Error::field(format!("{field}.{what}"), "is out of range"))
        };
        let (major, minor) = match kind {
            S_IFIFO => (0, 0),
            _ => (
                number(device.major(), "major")?,
                number(device.minor(), "minor")?,
            ),
        };
        devices.push(Device {
            path: device.path().as_os_str().as_bytes().to_vec(),
            mode: kind | device.file_mode().unwrap_or(0o666) & 0o7777,
            rdev: libc::makedev(major, minor),
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        });
    }
    Ok(devices)
}

/// Settings of the guest that can be given; those of networks are the host's to make.
const SYSCTL: [&str; 8] = [
    "kernel.domainname",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

fn check_sysctl(name: &str) -> Result<(), Error> {
    if name.starts_with("net.") || SYSCTL.contains(&name) {
        return Ok(());
    }
    let field = format!("linux.sysctl[{name}]");
    if name.starts_with("fs.mqueue.") || name == "kernel.shm_rmid_forced" {
        return Err(Error::unsupported(field, "this setting"));
    }
    Err(Error::field(field, "is not in a separate kernel namespace"))
}

fn sysctl_value(sysctl: &[(String, String)], name: &str) -> Option<String> {
    sysctl
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.clone())
}

/// The home of user `uid` as the container's `/etc/passwd` has it, else `/`.
fn home(rootfs: &Path, uid: u32) -> String {
    let read = || -> Option<String> {
        let root = File::open(rootfs).ok()?;
        // The root's links are the image's: none leads out of it.
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT);
        let file = openat2(&root, "etc/passwd", how).ok()?;
        let mut text = String::new();
        File::from(file)
            .take(PASSWD_LIMIT)
            .read_to_string(&mut text)
            .ok()?;
        text.lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.get(2).and_then(|id| id.parse().ok()) == Some(uid))
            .and_then(|fields| fields.get(5).map(|home| (*home).to_owned()))
    };
    read()
        .filter(|home| !home.is_empty())
        .unwrap_or_else(|| "/".to_owned())
}

/// As much of `/etc/passwd` as is read, in bytes.
const PASSWD_LIMIT: u64 = 1 << 20;

/// The variables; as runc, with a `HOME` where there is none.
fn environment(bundle: &Bundle, uid: u32) -> Result<Vec<Vec<u8>>, Error> {
    let spec = &bundle.spec;
    let list = spec
        .process()
        .as_ref()
        .and_then(|process| process.env().as_ref());
    let mut env: Vec<Vec<u8>> = Vec::new();
    for (index, entry) in list.into_iter().flatten().enumerate() {
        if entry.contains('\0') {
            return Err(Error::field(
                format!("process.env[{index}]"),
                "holds a NUL byte",
            ));
        }
        env.push(entry.as_bytes().to_vec());
    }
    if !env
        .iter()
        .any(|entry| entry.starts_with(b"HOME=") && entry.len() > 5)
    {
        env.push(format!("HOME={}", home(&bundle.rootfs, uid)).into_bytes());
    }
    Ok(env)
}

/// The size the specification gives the terminal.
fn console_size(process: &Process) -> Option<WindowSize> {
    let size = process.console_size()?;
    let clipped = |cells: u64| u16::try_from(cells).unwrap_or(u16::MAX);
    Some(WindowSize {
        rows: clipped(size.height()),
        columns: clipped(size.width()),
        ..WindowSize::default()
    })
}

/// Whether this process, and so one that it starts, can give itself a score of `wanted` (proc_pid_oom_score_adj(5)).
fn may_score(wanted: i32) -> std::io::Result<()> {
    const FILE: &str = "/proc/self/oom_score_adj";
    let own = std::fs::read_to_string(FILE)?;
    std::fs::write(FILE, wanted.to_string())?;
    std::fs::write(FILE, own)
}

/// The process of `bundle`, with streams of these kinds.
///
/// # Errors
/// [`Error`], naming the field.
pub fn of(bundle: &Bundle, streams: [StreamKind; 3]) -> Result<ProcessConfig, Error> {
    let spec = &bundle.spec;
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| Error::field("process", "is missing"))?;
    let user = process.user();
    let mut args = Vec::new();
    for (index, arg) in process.args().iter().flatten().enumerate() {
        if arg.contains('\0') {
            return Err(Error::field(
                format!("process.args[{index}]"),
                "holds a NUL byte",
            ));
        }
        args.push(arg.as_bytes().to_vec());
    }
    let umask = user.umask().unwrap_or(0o022);
    if umask > 0o777 {
        return Err(Error::field(
            "process.user.umask",
            format!("{umask} is no mode"),
        ));
    }
    let oom_score_adj = process.oom_score_adj().unwrap_or(0);
    if !(-1000..=1000).contains(&oom_score_adj) {
        return Err(Error::field(
            "process.oomScoreAdj",
            format!("{oom_score_adj} is not from -1000 to 1000"),
        ));
    }
    if process.oom_score_adj().is_some() {
        may_score(oom_score_adj).map_err(|cause| {
            let what = format!("{oom_score_adj}: {cause} (lowering it takes CAP_SYS_RESOURCE)");
            Error::field("process.oomScoreAdj", what)
        })?;
    }
    Ok(ProcessConfig {
        args,
        env: environment(bundle, user.uid())?,
        cwd: process.cwd().as_os_str().as_bytes().to_vec(),
        uid: user.uid(),
        gid: user.gid(),
        additional_gids: user.additional_gids().clone().unwrap_or_default(),
        umask,
        capabilities: capabilities(bundle, user.uid()),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        rlimits: rlimits(spec)?,
        oom_score_adj,
        streams,
        handed: Vec::new(),
        window: console_size(process),
    })
}

/// What the libOS is to run. `streams` and `log_levels` are not the specification's business; the host name stays
/// empty where the bundle gives none: then it is that of the namespace.
///
/// # Errors
/// [`Error`], naming the field.
pub fn guest(
    bundle: &Bundle,
    streams: [StreamKind; 3],
    log_levels: [LogLevel; ROOMS.len()],
) -> Result<GuestConfig, Error> {
    let spec = &bundle.spec;
    let (Some(process), Some(linux)) = (spec.process(), spec.linux()) else {
        return Err(Error::field("process", "is missing"));
    };
    let paths = |list: &Option<Vec<String>>| -> Vec<Vec<u8>> {
        list.iter()
            .flatten()
            .map(|path| path.as_bytes().to_vec())
            .collect()
    };
    let mut sysctl: Vec<(String, String)> = linux
        .sysctl()
        .iter()
        .flatten()
        .map(|(name, value)| (name.replace('/', "."), value.clone()))
        .collect();
    sysctl.sort();
    for (name, _) in &sysctl {
        check_sysctl(name)?;
    }
    Ok(GuestConfig {
        process: of(bundle, streams)?,
        trees: Vec::new(),
        hostname: spec.hostname().clone().unwrap_or_default(),
        domainname: spec
            .domainname()
            .clone()
            .filter(|name| !name.is_empty())
            .or_else(|| sysctl_value(&sysctl, "kernel.domainname")),
        pids_limit: linux
            .resources()
            .as_ref()
            .and_then(|resources| resources.pids().as_ref())
            .and_then(|pids| pids.limit().try_into().ok())
            .filter(|limit| *limit > 0),
        mounts: mounts::guest(spec)?,
        devices: devices(spec)?,
        user_namespace: None,
        root_readonly: spec
            .root()
            .as_ref()
            .and_then(|root| root.readonly())
            .unwrap_or(false),
        masked_paths: paths(linux.masked_paths()),
        readonly_paths: paths(linux.readonly_paths()),
        sysctl,
        seccomp: linux.seccomp().as_ref().map(seccomp::profile).transpose()?,
        terminal: process.terminal().unwrap_or(false),
        log_levels,
        count_sites: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::path::PathBuf;

    fn guest_of(change: impl FnOnce(&mut Value)) -> Result<GuestConfig, Error> {
        let mut raw = json!({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 5, "gid": 6, "additionalGids": [7]}, "args": ["sh"], "cwd": "/"},
            "root": {"path": "rootfs"},
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "uts"}]},
        });
        change(&mut raw);
        let (spec, raw) = super::super::spec::parse(raw.to_string().as_bytes())?;
        let bundle = Bundle {
            path: PathBuf::from("/b"),
            rootfs: PathBuf::from("/b/rootfs"),
            spec,
            raw,
        };
        guest(
            &bundle,
            [StreamKind::Null; 3],
            [LogLevel::Warn; ROOMS.len()],
        )
    }

    #[test]
    fn capabilities_have_numbers() {
        assert_eq!(capability_number("CAP_CHOWN"), Some(0));
        assert_eq!(capability_number("CAP_SYS_ADMIN"), Some(21));
        assert_eq!(capability_number("CAP_CHECKPOINT_RESTORE"), Some(40));
        assert_eq!(capability_number("CHOWN"), None);
    }

    #[test]
    fn sets_are_as_the_kernel_keeps_them() {
        let guest = guest_of(|v| {
            v["process"]["capabilities"] = json!({
                "bounding": ["CAP_CHOWN", "CAP_KILL"],
                "effective": ["CAP_KILL", "CAP_FOWNER"],
                "permitted": ["CAP_KILL"],
                "inheritable": ["CAP_KILL"],
                "ambient": ["CAP_KILL", "CAP_CHOWN"],
            });
        })
        .unwrap();
        assert_eq!(
            guest.process.capabilities,
            [0b10_0001, 0b10_0000, 0b10_0000, 0b10_0000, 0b10_0000]
        );
        assert_eq!(
            (
                guest.process.uid,
                guest.process.gid,
                guest.process.additional_gids
            ),
            (5, 6, vec![7])
        );
        let none = guest_of(|_| {}).unwrap();
        assert_eq!(none.process.capabilities[1], 0);
        assert_eq!(none.process.capabilities[0].count_ones(), 41);
    }

    #[test]
    fn bad_values_are_named() {
        let text = |change: &dyn Fn(&mut Value)| guest_of(change).unwrap_err().to_string();
        assert!(
            text(&|v| v["process"]["rlimits"] = json!([
                {"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}
            ]))
            .contains("process.rlimits[0]")
        );
        assert!(text(&|v| v["process"]["oomScoreAdj"] = json!(2000)).contains("oomScoreAdj"));
        assert!(text(&|v| v["process"]["user"]["umask"] = json!(4096)).contains("umask"));
        assert!(text(&|v| v["process"]["args"] = json!(["a\u{0}b"])).contains("process.args[0]"));
        assert!(
            text(&|v| v["linux"]["devices"] = json!([
                {"path": "dev/x", "type": "c", "major": 1, "minor": 3}
            ]))
            .contains("linux.devices[0].path")
        );
    }
}
