//! The state directory.
//!
//! ```text
//! ROOT/containers/lock        held while a container's directory appears or goes
//!                 ID/lock     held by the command that works on the container
//!                 ID/record   what husk knows; complete or not there
//!                 ID/shadow/  the bundle libcontainer sees
//!                 ID/run/ID/  libcontainer's own state
//!                 ID/hook     the name of the last hook libcontainer has run
//!                 ID/report   a FIFO: the VMM tells whether the first program runs
//!                 ID/control  a socket: what `exec` and others ask of the VMM
//!                 ID/memory.events  how many processes were killed inside because memory ran out
//!                 ID/process.json  the bundle's process, which `exec` changes
//! ```
//!
//! Locks are those of `fcntl(2)`: they go with the process that took them, and its children, which may live on as
//! the container, do not inherit them. Records are replaced by `rename(2)`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use oci_spec::runtime::Hook;
use serde::{Deserialize, Serialize};

use super::{cgroup, executor};
use crate::sandbox::report;

/// What can be wrong with the state.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("container does not exist")]
    NotFound,
    #[error("container with given ID already exists: {0}")]
    Exists(String),
    #[error("invalid container ID format: {0:?}")]
    Id(String),
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the record {} is damaged: {source}; delete --force removes the container", path.display())]
    Record {
        path: PathBuf,
        source: serde_json::Error,
    },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}

/// Status of a container (runtime-spec, runtime.md, "State").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the specification's words")]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// The container's process, told from later ones with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// Number, in the namespace husk was called in.
    pub pid: i32,
    /// When it started, in clock ticks after boot (`/proc/PID/stat`).
    pub started: u64,
}

/// What husk knows of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// `ociVersion` of the bundle.
    pub oci_version: String,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// Its root file system.
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    /// `annotations` of the bundle.
    pub annotations: BTreeMap<String, String>,
    /// The cgroup, as the specification writes it.
    pub cgroup: PathBuf,
    /// Whether systemd made it.
    pub systemd_cgroup: bool,
    /// User id of who created the container.
    pub owner: u32,
    /// `hooks.poststart`.
    pub poststart: Vec<Hook>,
    /// `hooks.poststop`.
    pub poststop: Vec<Hook>,
    /// Who made it and stays with it to its end; without that process it is a leftover.
    #[serde(default)]
    pub runner: Option<Init>,
    /// Its recording.
    #[serde(default)]
    pub trace: Option<PathBuf>,
    /// The process; `None` while the container is made.
    pub init: Option<Init>,
}

impl Record {
    /// Whether it is of a container, made, that somebody looks after.
    fn is_complete(&self) -> bool {
        self.init.is_some() && self.runner.is_none_or(|runner| runner.is_alive())
    }
}

/// The directory of all containers.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

/// A container's directory, locked.
#[derive(Debug)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// What is known.
    pub record: Record,
    /// The master end of its terminal, where the maker takes it itself.
    pub terminal: Option<OwnedFd>,
    dir: PathBuf,
    lock: Option<File>,
}

/// A container as anybody may see it.
#[derive(Debug)]
pub struct Seen {
    /// Its id.
    pub id: String,
    /// What is known.
    pub record: Record,
    /// Its status.
    pub status: Status,
}

/// Takes the lock in `path`, waiting for it; makes the file if `create` says so.
fn lock(path: &Path, create: bool) -> Result<File, Error> {
    loop {
        let file = OpenOptions::new()
            .write(true)
            .create(create)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed("open", path))?;
        match fcntl(&file, FcntlArg::F_SETLKW(&whole(libc::F_WRLCK))) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(errno) => return Err(failed("lock", path)(errno.into())),
        }
        // The container may have gone meanwhile, and another have come under its name.
        let locked = file.metadata().map_err(failed("look at", path))?;
        match fs::metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (locked.dev(), locked.ino()) => {
                return Ok(file);
            }
            _ => {}
        }
    }
}

/// Whether some other process holds the lock in `path`.
fn is_locked(path: &Path) -> bool {
    let Ok(file) = OpenOptions::new().write(true).open(path) else {
        return false;
    };
    let mut holder = whole(libc::F_WRLCK);
    match fcntl(&file, FcntlArg::F_GETLK(&mut holder)) {
        Ok(_) => holder.l_type != libc::F_UNLCK as libc::c_short,
        Err(_) => false,
    }
}

fn whole(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Whether runc would take `id`.
pub fn check_id(id: &str) -> Result<(), Error> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.is_empty() || id == "." || id == ".." || id.len() > 255 || !id.bytes().all(fits) {
        return Err(Error::Id(id.to_owned()));
    }
    Ok(())
}

impl Directory {
    /// The containers below `root`, husk's `--root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self(root.join("containers"))
    }

    /// The directory of container `id`.
    #[must_use]
    pub fn path(&self, id: &str) -> PathBuf {
        self.0.join(id)
    }

    fn lock(&self) -> Result<File, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(failed("create", &self.0))?;
        lock(&self.0.join("lock"), true)
    }

    /// Makes a container's directory with its first record, locked. Nobody else sees it half-made.
    ///
    /// # Errors
    /// [`Error::Exists`].
    pub fn create(&self, id: &str, record: Record) -> Result<Container, Error> {
        check_id(id)?;
        let _all = self.lock()?;
        let dir = self.0.join(id);
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !is_leftover(&dir) {
                    return Err(Error::Exists(id.to_owned()));
                }
                remove_leftover(id, &dir)?;
                DirBuilder::new()
                    .mode(0o700)
                    .create(&dir)
                    .map_err(failed("create", &dir))?;
            }
            Err(error) => return Err(failed("create", &dir)(error)),
        }
        let lock = lock(&dir.join("lock"), true)?;
        let container = Container {
            id: id.to_owned(),
            record,
            terminal: None,
            dir,
            lock: Some(lock),
        };
        container.save()?;
        Ok(container)
    }

    /// Opens and locks a container, waiting while another command works on it. A leftover is removed and does not
    /// exist.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Record`].
    pub fn open(&self, id: &str) -> Result<Container, Error> {
        check_id(id)?;
        let dir = self.0.join(id);
        if !dir.is_dir() {
            return Err(Error::NotFound);
        }
        // Not under the lock for all: whoever works on this container may take long.
        let own = match lock(&dir.join("lock"), false) {
            Ok(own) => Some(own),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let record = match (own.is_some(), read_record(&dir)) {
            (true, Ok(Some(record))) if record.is_complete() => record,
            (true, Err(error)) => return Err(error),
            _ => {
                // Its maker is dead, or the container is gone since.
                drop(own);
                let _all = self.lock()?;
                if dir.exists() && is_leftover(&dir) {
                    remove_leftover(id, &dir)?;
                }
                return Err(Error::NotFound);
            }
        };
        Ok(Container {
            id: id.to_owned(),
            record,
            terminal: None,
            dir,
            lock: own,
        })
    }

    /// A container without its lock, for looking only.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Record`].
    pub fn look(&self, id: &str) -> Result<Seen, Error> {
        check_id(id)?;
        let dir = self.0.join(id);
        match read_record(&dir)? {
            Some(record) if record.is_complete() => Ok(seen(id, record)),
            Some(record) if is_locked(&dir.join("lock")) => Ok(seen(id, record)),
            // A leftover goes by being opened.
            _ => self
                .open(id)
                .map(|container| seen(id, container.record.clone())),
        }
    }

    /// All containers, sorted by id; leftovers are removed on the way.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Seen>, Error> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("read", &self.0)(error)),
        };
        let mut ids: Vec<String> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        ids.sort();
        let mut all = Vec::new();
        for id in ids {
            match self.look(&id) {
                Ok(seen) => all.push(seen),
                Err(Error::NotFound) => {}
                Err(error) => tracing::warn!("{id}: {error}"),
            }
        }
        Ok(all)
    }

    /// Removes what there is of `id` without a readable record, by force.
    ///
    /// # Errors
    /// When files or the cgroup stay.
    pub fn remove_damaged(&self, id: &str) -> Result<(), Error> {
        check_id(id)?;
        let dir = self.0.join(id);
        let _all = self.lock()?;
        if dir.exists() {
            remove_leftover(id, &dir)?;
        }
        Ok(())
    }
}

fn seen(id: &str, record: Record) -> Seen {
    Seen {
        id: id.to_owned(),
        status: status(&record),
        record,
    }
}

fn read_record(dir: &Path) -> Result<Option<Record>, Error> {
    let path = dir.join("record");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", &path)(error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| Error::Record { path, source })
}

/// Whether what lies in `dir` was left by a command that was killed. To be asked under the lock for all.
fn is_leftover(dir: &Path) -> bool {
    let complete = match read_record(dir) {
        Ok(record) => record.is_some_and(|record| record.is_complete()),
        Err(error) => matches!(error, Error::Record { .. }),
    };
    !complete && !is_locked(&dir.join("lock"))
}

/// Ends and removes what a killed `create` has made.
fn remove_leftover(id: &str, dir: &Path) -> Result<(), Error> {
    let record = read_record(dir).ok().flatten();
    let (path, systemd) = record.as_ref().map_or_else(
        || (super::shadow::default_cgroup(id, false), false),
        |record| (record.cgroup.clone(), record.systemd_cgroup),
    );
    tracing::debug!(id, "removing what a killed command left");
    let failed_to =
        |error: super::Error| failed("clean up after", dir)(io::Error::other(error.to_string()));
    let cgroup = cgroup::Cgroup::new(id, &path, systemd).map_err(failed_to)?;
    // Its children may be on their way into the cgroup. All of them hold the report pipe open.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let has_children = report::has_writers(&dir.join("report"));
        cgroup.destroy().map_err(failed_to)?;
        if !has_children {
            return remove_tree(dir);
        }
        if Instant::now() > deadline {
            let error = io::Error::other("a process that was to become the container lives on");
            return Err(failed("clean up after", dir)(error));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How long the children of a killed command may take to notice.
const PATIENCE: Duration = Duration::from_secs(10);

fn remove_tree(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", dir)(error)),
        _ => Ok(()),
    }
}

/// What `/proc/PID/stat` says: state and start time.
fn process_stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything; the fields behind it begin after the last parenthesis.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // starttime is field 22, state was field 3.
    let started = fields.nth(18)?.parse().ok()?;
    Some((state, started))
}

/// The wait status of a process that has ended and whose parent has not asked yet.
pub(super) fn exit_code(init: &Init) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{}/stat", init.pid)).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let has_ended = "ZXx".contains(fields.next()?);
    // starttime is field 22, exit_code field 52; state was field 3.
    let started: u64 = fields.nth(18)?.parse().ok()?;
    let code = fields.nth(29)?.parse().ok()?;
    (has_ended && started == init.started).then_some(code)
}

impl Init {
    /// The living process `pid`.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        process_stat(pid).map(|(_, started)| Self { pid, started })
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        process_stat(self.pid)
            .is_some_and(|(state, started)| started == self.started && !"ZXx".contains(state))
    }

    /// Whether the VMM has taken over from libcontainer's setup: it executes itself under its own name.
    fn is_vmm(&self) -> bool {
        fs::read(format!("/proc/{}/cmdline", self.pid)).is_ok_and(|line| {
            line.split(|byte| *byte == 0).next() == Some(executor::PROCESS_NAME.as_bytes())
        })
    }
}

/// The status of a container, by its process.
#[must_use]
pub fn status(record: &Record) -> Status {
    match &record.init {
        None => Status::Creating,
        Some(init) if !init.is_alive() => Status::Stopped,
        Some(_) if cgroup::is_frozen(&record.cgroup) => Status::Paused,
        Some(init) if !init.is_vmm() => Status::Created,
        Some(_) => Status::Running,
    }
}

impl Record {
    /// Whether its VMM runs, paused or not: before `start` there is none.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.init.is_some_and(|init| init.is_vmm())
    }
}

impl Container {
    /// Its status now.
    #[must_use]
    pub fn status(&self) -> Status {
        status(&self.record)
    }

    /// Lets others work on it.
    pub fn unlock(&mut self) {
        self.lock = None;
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path in its directory.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Replaces its record.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self) -> Result<(), Error> {
        let (path, next) = (self.file("record"), self.file("record.next"));
        let bytes = serde_json::to_vec(&self.record).map_err(|source| Error::Record {
            path: path.clone(),
            source,
        })?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&next)
            .map_err(failed("write", &next))?;
        file.write_all(&bytes).map_err(failed("write", &next))?;
        fs::rename(&next, &path).map_err(failed("write", &path))
    }

    /// Its cgroup.
    ///
    /// # Errors
    /// When this host has no cgroups.
    pub fn cgroup(&self) -> Result<cgroup::Cgroup, super::Error> {
        cgroup::Cgroup::new(&self.id, &self.record.cgroup, self.record.systemd_cgroup)
    }

    /// Removes the directory; the last step of a container's life.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(self) -> Result<(), Error> {
        // The record first: what a command killed in here leaves is a leftover to others.
        let record = self.file("record");
        match fs::remove_file(&record) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &record)(error));
            }
            _ => {}
        }
        remove_tree(&self.dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(init: Option<Init>) -> Record {
        Record {
            oci_version: "1.0.2".to_owned(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "t".to_owned(),
            annotations: BTreeMap::new(),
            cgroup: "/husk-unit-test".into(),
            systemd_cgroup: false,
            owner: 0,
            poststart: Vec::new(),
            poststop: Vec::new(),
            runner: None,
            trace: None,
            init,
        }
    }

    fn directory(name: &str) -> (PathBuf, Directory) {
        let path = std::env::temp_dir().join(format!("husk-state-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        (path.clone(), Directory::new(&path))
    }

    #[test]
    fn ids() {
        for good in ["a", "A-b_c+d.e", "0"] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "ä", &"x".repeat(256)] {
            assert!(matches!(check_id(bad), Err(Error::Id(_))), "{bad}");
        }
    }

    #[test]
    fn this_process_lives_and_its_like_does_not() {
        let me = Init::of(std::process::id().cast_signed()).unwrap();
        assert!(me.is_alive() && !me.is_vmm());
        let other = Init {
            started: me.started + 1,
            ..me
        };
        assert!(!other.is_alive());
        assert_eq!(status(&record(Some(other))), Status::Stopped);
        assert_eq!(status(&record(Some(me))), Status::Created);
        assert_eq!(status(&record(None)), Status::Creating);
    }

    #[test]
    fn an_id_is_there_once() {
        let (path, all) = directory("once");
        let me = Init::of(std::process::id().cast_signed());
        let container = all.create("c", record(me)).unwrap();
        assert!(matches!(all.create("c", record(me)), Err(Error::Exists(_))));
        assert_eq!(all.list().unwrap().len(), 1);
        assert!(matches!(all.look("d"), Err(Error::NotFound)));
        container.remove().unwrap();
        assert!(all.list().unwrap().is_empty());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_damaged_record_is_told() {
        let (path, all) = directory("damaged");
        let container = all.create("c", record(Init::of(1))).unwrap();
        fs::write(container.file("record"), "{").unwrap();
        drop(container);
        assert!(matches!(all.look("c"), Err(Error::Record { .. })));
        fs::remove_dir_all(path).unwrap();
    }
}
