//! `husk check`: what this host can do, and what to fix.

mod engines;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use husk_abi::boundary::config::{GuestConfig, LogLevel, ProcessConfig, StreamKind};
use husk_abi::boundary::log::ROOMS;
use husk_abi::linux::Errno;
use husk_images::{NoProgress, Stack};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Uid, mkdtemp};

use super::{Error, STATUS_FAILED};
use crate::oci::mounts::default_mounts;
use crate::plan::{Host, MemorySize};
use crate::sandbox::{self, Debugging, Ended, Plan};
use crate::vmm;

/// How a thing stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    /// Good.
    Ok(String),
    /// husk runs, but not at its best; says what to do.
    Slow(String),
    /// An engine is not set up for husk, which nobody need want.
    Absent(String),
    /// husk cannot run; says what to do.
    Problem(String),
}

use Finding::{Absent, Ok as Good, Problem, Slow};

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, text) = match self {
            Good(text) => ("ok", text),
            Slow(text) => ("slow", text),
            Absent(text) => ("no", text),
            Problem(text) => ("problem", text),
        };
        write!(f, "{word:<8} {text}")
    }
}

/// What the boot may take, in a machine under load.
const BOOT_LIMIT: Duration = Duration::from_secs(20);
/// Memory of the guest that is booted.
const BOOT_MEMORY: MemorySize = MemorySize { bytes: 64 << 20 };
/// Less than this available and hardly a container starts.
const LITTLE_MEMORY: MemorySize = MemorySize { bytes: 128 << 20 };

/// Prints a line for each thing husk needs; fails if one is missing.
pub fn run() -> Result<ExitCode, Error> {
    let mut failed = false;
    let mut tell = |finding: &Finding| {
        failed |= matches!(finding, Problem(_));
        writeln!(io::stdout(), "{finding}").map_err(Error::Output)
    };
    tell(&Good(format!(
        "Linux {}, {}",
        text_of("/proc/sys/kernel/osrelease").unwrap_or_else(|| "of unknown release".to_owned()),
        user(Uid::effective())
    )))?;
    tell(&processors())?;
    tell(&memory(text_of("/proc/meminfo").as_deref()))?;
    let pages = text_of("/sys/kernel/mm/transparent_hugepage/enabled");
    tell(&huge_pages(pages.as_deref()))?;
    tell(&Good(cgroups(Path::new("/sys/fs/cgroup"))))?;
    match kvm() {
        Err(problem) => tell(&problem)?,
        Ok(lines) => {
            for line in &lines {
                tell(line)?;
            }
            tell(&boot())?;
        }
    }
    for line in &engines::check(Path::new("/")) {
        tell(line)?;
    }
    Ok(if failed {
        ExitCode::from(STATUS_FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

fn text_of(path: &str) -> Option<String> {
    fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

fn user(uid: Uid) -> String {
    if uid.is_root() {
        "as root".to_owned()
    } else {
        format!("as user {uid}")
    }
}

fn processors() -> Finding {
    match std::thread::available_parallelism() {
        Ok(count) => Good(format!("CPUs: {count}")),
        Err(error) => Problem(format!("CPUs: cannot be counted: {error}")),
    }
}

/// Of the text of `/proc/meminfo`.
fn memory(meminfo: Option<&str>) -> Finding {
    let field = |name: &str| {
        let line = meminfo?.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(MemorySize {
            bytes: kib.checked_mul(1024)?,
        })
    };
    match (field("MemTotal:"), field("MemAvailable:")) {
        (Some(total), Some(available)) if available < LITTLE_MEMORY => Slow(format!(
            "memory: only {available} of {total} are available: end something else"
        )),
        (Some(total), Some(available)) => {
            Good(format!("memory: {available} of {total} are available"))
        }
        _ => Problem("memory: /proc/meminfo does not tell: is /proc mounted?".to_owned()),
    }
}

/// Of the text of `transparent_hugepage/enabled`.
fn huge_pages(enabled: Option<&str>) -> Finding {
    let fix = "for speed: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled";
    match enabled {
        Some(text) if text.contains("[always]") || text.contains("[madvise]") => {
            Good(format!("transparent huge pages: {text}"))
        }
        Some(text) => Slow(format!("transparent huge pages: {text}; {fix}")),
        None => Slow("transparent huge pages: this kernel has none".to_owned()),
    }
}

/// Of what is mounted at `root`.
fn cgroups(root: &Path) -> String {
    let version = if root.join("cgroup.controllers").exists() {
        "version 2"
    } else if root.join("unified/cgroup.controllers").exists() {
        "version 1 with a version 2 tree (hybrid)"
    } else if root.join("memory").exists() || root.join("cpu").exists() {
        "version 1"
    } else {
        "none mounted"
    };
    format!("cgroups: {version}")
}

/// What kind of KVM this is: `flags` are those of `/proc/cpuinfo`.
fn kind_of_kvm(flags: Option<&str>) -> &'static str {
    let has = |flag: &str| flags.is_some_and(|flags| flags.split_whitespace().any(|f| f == flag));
    if has("vmx") {
        "hardware (Intel VT-x)"
    } else if has("svm") {
        "hardware (AMD-V)"
    } else {
        "PVM (the CPU shows neither vmx nor svm)"
    }
}

fn kvm() -> Result<Vec<Finding>, Finding> {
    let problem = |error: vmm::Error| Problem(format!("KVM: {error}"));
    let kvm = vmm::open_kvm().map_err(problem)?;
    let vm = kvm.create_vm().map_err(|error| {
        let cause = io::Error::from_raw_os_error(error.errno());
        Problem(format!(
            "KVM: cannot create a VM: {cause}; look at what the kernel logged (dmesg)"
        ))
    })?;
    drop(vm);
    let cpuinfo = text_of("/proc/cpuinfo");
    let flags = cpuinfo
        .as_deref()
        .and_then(|text| text.lines().find(|line| line.starts_with("flags")));
    Ok(vec![
        Good("/dev/kvm: present and permitted, API version 12".to_owned()),
        Good(format!("KVM: {}; a VM can be created", kind_of_kvm(flags))),
    ])
}

/// A directory that goes when this does.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> io::Result<Self> {
        Ok(Self(mkdtemp(
            &std::env::temp_dir().join("husk-check-XXXXXX"),
        )?))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A root file system without any file.
fn empty_root() -> Result<File, String> {
    let directory = Temporary::new().map_err(|error| error.to_string())?;
    let file = memfd_create(c"husk-check", MFdFlags::MFD_CLOEXEC)
        .map(File::from)
        .map_err(|errno| errno.to_string())?;
    let root =
        Stack::open(std::slice::from_ref(&directory.0)).map_err(|error| error.to_string())?;
    husk_images::cpio::write_root_archive(&root, &file, &mut NoProgress)
        .map_err(|error| error.to_string())?;
    Ok(file)
}

/// Boots the libOS in a root without a program: it is to find that out.
fn boot() -> Finding {
    let failed = |why: String| Problem(format!("the libOS does not boot: {why}"));
    let kvm = match vmm::open_kvm() {
        Ok(kvm) => kvm,
        Err(error) => return failed(error.to_string()),
    };
    let (root_archive, host) = match (empty_root(), Host::look()) {
        (Ok(root), Ok(host)) => (root, host),
        (Err(error), _) => return failed(error),
        (_, Err(error)) => return failed(error.to_string()),
    };
    let plan = Plan {
        handed: Vec::new(),
        id: "0".repeat(64),
        memory_bytes: BOOT_MEMORY.bytes.min(host.memory.bytes),
        is_short_of_cpus: false,
        root_archive: Some(root_archive),
        trees: Vec::new(),
        has_sockets: false,
        kvm,
        reporter: None,
        control: None,
        memory_events: None,
        guest: GuestConfig {
            process: ProcessConfig {
                args: vec![b"/husk-check".to_vec()],
                env: Vec::new(),
                cwd: b"/".to_vec(),
                uid: 0,
                gid: 0,
                additional_gids: Vec::new(),
                umask: 0o022,
                capabilities: [0; 5],
                no_new_privileges: true,
                rlimits: Vec::new(),
                oom_score_adj: 0,
                streams: [StreamKind::Null; 3],
                handed: Vec::new(),
                window: None,
            },
            hostname: "check".to_owned(),
            domainname: None,
            pids_limit: None,
            mounts: default_mounts(),
            devices: Vec::new(),
            user_namespace: None,
            root_readonly: false,
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
            sysctl: Vec::new(),
            seccomp: None,
            terminal: false,
            log_levels: [LogLevel::Warn; ROOMS.len()],
            trees: Vec::new(),
            count_sites: false,
        },
        trace: None,
        timeout: Some(BOOT_LIMIT),
        debugging: Debugging::default(),
    };
    match sandbox::run(plan) {
        Ok(outcome) => match outcome.ended {
            Ended::NotExecuted(Errno::ENOENT) => Good(format!(
                "the libOS boots, in {:.0} ms with its VM",
                (outcome.times.machine + outcome.times.run).as_secs_f64() * 1e3
            )),
            Ended::TimedOut => failed(format!("it is not up after {} s", BOOT_LIMIT.as_secs())),
            Ended::Crashed { reason, log, .. } => {
                failed([&[reason], &*log].concat().join("; libOS: "))
            }
            other => failed(format!("it ended in an odd way: {other:?}")),
        },
        Err(error) => failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_kvm() {
        assert!(kind_of_kvm(Some("flags : fpu vmx sse")).contains("VT-x"));
        assert!(kind_of_kvm(Some("flags : fpu svm_lock svm")).contains("AMD-V"));
        assert!(kind_of_kvm(Some("flags : fpu svm_lock")).contains("PVM"));
        assert!(kind_of_kvm(None).contains("PVM"));
    }

    #[test]
    fn pages_and_memory() {
        assert!(matches!(
            huge_pages(Some("always [madvise] never")),
            Good(_)
        ));
        assert!(matches!(
            huge_pages(Some("always madvise [never]")),
            Slow(_)
        ));
        assert!(matches!(huge_pages(None), Slow(_)));
        let text = |available| format!("MemTotal: 2000000 kB\nMemAvailable: {available} kB\n");
        assert!(matches!(memory(Some(&text(1_000_000))), Good(_)));
        assert!(matches!(memory(Some(&text(1_000))), Slow(_)));
        assert!(matches!(memory(None), Problem(_)));
    }

    #[test]
    fn versions_of_cgroups() {
        let temporary = Temporary::new().unwrap();
        let root = &temporary.0;
        assert_eq!(cgroups(root), "cgroups: none mounted");
        fs::create_dir(root.join("memory")).unwrap();
        assert_eq!(cgroups(root), "cgroups: version 1");
        fs::create_dir(root.join("unified")).unwrap();
        fs::write(root.join("unified/cgroup.controllers"), "").unwrap();
        assert!(cgroups(root).contains("hybrid"));
        fs::write(root.join("cgroup.controllers"), "").unwrap();
        assert_eq!(cgroups(root), "cgroups: version 2");
    }

    #[test]
    fn an_empty_root_is_a_root() {
        assert!(empty_root().unwrap().metadata().unwrap().len() > 0);
    }

    #[test]
    fn lines() {
        assert_eq!(Good("x".into()).to_string(), "ok       x");
        assert_eq!(Problem("x".into()).to_string(), "problem  x");
    }
}
