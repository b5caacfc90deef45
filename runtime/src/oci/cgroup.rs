//! A container's cgroup from outside: freezing, killing what is in it, removing it.
//!
//! libcontainer makes it. Everything else is by files, in every hierarchy there is, so that it also works for
//! a container that was half-made.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Error;
use super::systemd::Unit;

/// How long processes may take to die.
const PATIENCE: Duration = Duration::from_secs(10);

/// A container's cgroup, in all hierarchies.
#[derive(Debug)]
pub struct Cgroup {
    directories: Vec<PathBuf>,
    /// Where systemd made it.
    unit: Option<Unit>,
}

/// Mount points of the cgroup hierarchies, those of version 1 and 2.
fn hierarchies() -> io::Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text.lines().filter_map(hierarchy).collect())
}

/// The mount point in a line of mountinfo that is one of a cgroup file system.
fn hierarchy(line: &str) -> Option<PathBuf> {
    let (mount, fs) = line.split_once(" - ")?;
    matches!(fs.split(' ').next()?, "cgroup" | "cgroup2")
        .then(|| mount.split(' ').nth(4).map(PathBuf::from))?
}

/// The directories of `path` below `mounts` that may exist. `path` is absolute, or relative to the root, or
/// systemd's `slice:prefix:name`.
fn directories(mounts: &[PathBuf], path: &Path, systemd: bool) -> Vec<PathBuf> {
    let text = path.to_string_lossy();
    let relative = match text.split(':').collect::<Vec<_>>().as_slice() {
        [slice, prefix, name] if systemd => systemd_path(slice, prefix, name),
        _ => super::mounts::destination(path)
            .strip_prefix("/")
            .map(Path::to_owned)
            .unwrap_or_default(),
    };
    if relative.as_os_str().is_empty() {
        // The root of a hierarchy is never a container's.
        return Vec::new();
    }
    mounts.iter().map(|mount| mount.join(&relative)).collect()
}

/// Where systemd puts the scope (systemd.slice(5): every dash in a slice's name is a level).
fn systemd_path(slice: &str, prefix: &str, name: &str) -> PathBuf {
    let slice = if slice.is_empty() {
        "system.slice"
    } else {
        slice
    };
    let mut path = PathBuf::new();
    if let Some(stem) = slice.strip_suffix(".slice").filter(|stem| *stem != "-") {
        let mut level = String::new();
        for part in stem.split('-') {
            if !level.is_empty() {
                level.push('-');
            }
            level.push_str(part);
            path.push(format!("{level}.slice"));
        }
    }
    path.push(if prefix.is_empty() {
        format!("{name}.scope")
    } else {
        format!("{prefix}-{name}.scope")
    });
    path
}

/// Whether this host has cgroups.
#[must_use]
pub fn exists() -> bool {
    hierarchies().is_ok_and(|mounts| !mounts.is_empty())
}

/// Whether the cgroup at `path` is frozen.
pub fn is_frozen(path: &Path) -> bool {
    let mounts = hierarchies().unwrap_or_default();
    directories(&mounts, path, true).iter().any(|dir| {
        let says = |file: &str, what: &str| {
            fs::read_to_string(dir.join(file)).is_ok_and(|text| text.contains(what))
        };
        says("freezer.state", "FROZEN") || says("cgroup.events", "frozen 1")
    })
}

/// Writes `text` into the file, if it is there.
fn put(file: &Path, text: &str) -> io::Result<bool> {
    match fs::OpenOptions::new().write(true).open(file) {
        Ok(mut file) => io::Write::write_all(&mut file, text.as_bytes()).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn has_memory_limit(dir: &Path) -> bool {
    // Version 1 has no word for none: as many bytes as a signed word can count, in whole pages.
    let is_limit = |text: String| {
        let number = text.trim().parse::<u64>();
        number.is_ok_and(|bytes| bytes < i64::MAX.unsigned_abs() >> 12 << 12)
    };
    ["memory.limit_in_bytes", "memory.max"]
        .iter()
        .filter_map(|file| fs::read_to_string(dir.join(file)).ok())
        .any(is_limit)
}

/// `dir` and the directories below it, deepest first.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(tree(&entry.path()));
        }
    }
    all.push(dir.to_owned());
    all
}

impl Cgroup {
    /// The cgroup at `path`, as the specification writes it.
    ///
    /// # Errors
    /// When the mounts cannot be read.
    pub fn new(id: &str, path: &Path, systemd: bool) -> Result<Self, Error> {
        let mounts = hierarchies().map_err(Error::host(format!("find the cgroup of {id}")))?;
        Ok(Self {
            directories: directories(&mounts, path, systemd),
            unit: systemd.then(|| Unit::new(id, path)).flatten(),
        })
    }

    /// Its directories that exist.
    pub fn existing(&self) -> impl Iterator<Item = &PathBuf> {
        self.directories.iter().filter(|dir| dir.is_dir())
    }

    /// The unit of systemd that it is.
    pub fn unit(&self) -> Option<&Unit> {
        self.unit.as_ref()
    }

    /// Freezes or thaws it. False if there is no freezer.
    ///
    /// # Errors
    /// When the freezer does not take it.
    pub fn freeze(&self, frozen: bool) -> Result<bool, Error> {
        let (v1, v2) = if frozen {
            ("FROZEN", "1")
        } else {
            ("THAWED", "0")
        };
        let mut any = false;
        for dir in self.existing() {
            for (file, text) in [("freezer.state", v1), ("cgroup.freeze", v2)] {
                any |= put(&dir.join(file), text).map_err(|error| Error::Cgroup {
                    what: if frozen { "frozen" } else { "thawed" },
                    message: error.to_string(),
                })?;
            }
        }
        Ok(any)
    }

    /// Writes `text` into `file` in each directory that has it; false if none has.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn set(&self, file: &str, text: &str) -> Result<bool, Error> {
        let mut any = false;
        for dir in self.existing() {
            any |= put(&dir.join(file), text).map_err(|error| Error::Cgroup {
                what: "changed",
                message: format!("{file}: {error}"),
            })?;
        }
        Ok(any)
    }

    /// What `file` says in the first directory that has it.
    pub fn get(&self, file: &str) -> Option<String> {
        self.existing()
            .find_map(|dir| fs::read_to_string(dir.join(file)).ok())
    }

    /// Whether a cgroup it is in has a limit of memory, which others may come to as well.
    pub fn shares_memory_limit(&self) -> bool {
        let mut parents = self
            .directories
            .iter()
            .flat_map(|dir| dir.ancestors().skip(1));
        parents.any(has_memory_limit)
    }

    /// Everything in it.
    pub fn processes(&self) -> Vec<Pid> {
        let mut all: Vec<Pid> = self
            .existing()
            .flat_map(|dir| tree(dir))
            .filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok())
            .flat_map(|text| {
                text.lines()
                    .filter_map(|line| line.trim().parse().ok())
                    .filter(|pid| *pid > 0)
                    .map(Pid::from_raw)
                    .collect::<Vec<_>>()
            })
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Kills everything in it and removes it.
    ///
    /// # Errors
    /// When something survives.
    pub fn destroy(&self) -> Result<(), Error> {
        let mut rest = Rest::new();
        // The frozen die when they thaw.
        let _ = self.freeze(false);
        loop {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            for pid in left {
                match kill(pid, Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(errno) => {
                        return Err(Error::Cgroup {
                            what: "emptied",
                            message: format!("process {pid}: {errno}"),
                        });
                    }
                }
            }
            rest.take("emptied", "processes do not die")?;
        }
        if let Some(unit) = &self.unit {
            unit.stop();
        }
        for dir in self.directories.iter().filter(|dir| dir.is_dir()) {
            for below in tree(dir) {
                loop {
                    match fs::remove_dir(&below) {
                        Ok(()) => break,
                        Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                        // The dead are counted until they are gone for good.
                        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                            rest.take("removed", &below.display().to_string())?;
                        }
                        Err(error) => {
                            return Err(Error::Cgroup {
                                what: "removed",
                                message: format!("{}: {error}", below.display()),
                            });
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Rests between tries: short ones at first, since most processes are gone at once.
struct Rest {
    deadline: Instant,
    next: Duration,
}

impl Rest {
    fn new() -> Self {
        Self {
            deadline: Instant::now() + PATIENCE,
            next: Duration::from_micros(100),
        }
    }

    /// Rests, unless it took too long already.
    fn take(&mut self, what: &'static str, message: &str) -> Result<(), Error> {
        if Instant::now() > self.deadline {
            return Err(Error::Cgroup {
                what,
                message: message.to_owned(),
            });
        }
        std::thread::sleep(self.next);
        self.next = (self.next * 2).min(Duration::from_millis(5));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo() {
        let line = "33 32 0:28 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu";
        assert_eq!(hierarchy(line), Some("/sys/fs/cgroup/cpu".into()));
        assert_eq!(hierarchy("1 2 0:3 / /proc rw - proc proc rw"), None);
        assert_eq!(hierarchy("garbage"), None);
    }

    #[test]
    fn paths() {
        let mounts = [PathBuf::from("/m")];
        let of = |path: &str, systemd| directories(&mounts, Path::new(path), systemd);
        assert_eq!(of("/docker/x", false), [PathBuf::from("/m/docker/x")]);
        assert_eq!(of("a/../b", false), [PathBuf::from("/m/b")]);
        assert!(of("/", false).is_empty());
        assert_eq!(
            of("user-1.slice:husk:x", true),
            [PathBuf::from("/m/user.slice/user-1.slice/husk-x.scope")]
        );
    }

    #[test]
    fn limits_around() {
        let pod = std::env::temp_dir().join(format!("husk-pod-{}", std::process::id()));
        let cgroup = Cgroup {
            directories: vec![pod.join("container")],
            unit: None,
        };
        fs::create_dir(&pod).unwrap();
        assert!(!cgroup.shares_memory_limit());
        for (file, text, is_limit) in [
            ("memory.max", "max\n", false),
            ("memory.max", "1048576\n", true),
            ("memory.limit_in_bytes", "1048576\n", true),
            ("memory.limit_in_bytes", "9223372036854771712\n", false),
        ] {
            let file = pod.join(file);
            fs::write(&file, text).unwrap();
            assert_eq!(cgroup.shares_memory_limit(), is_limit, "{text}");
            fs::remove_file(&file).unwrap();
        }
        fs::remove_dir(&pod).unwrap();
    }

    #[test]
    fn what_is_not_there_is_destroyed() {
        let cgroup = Cgroup::new("x", Path::new("/husk-no-such-cgroup"), false).unwrap();
        assert!(cgroup.processes().is_empty());
        cgroup.destroy().unwrap();
    }
}
