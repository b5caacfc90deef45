//! The verbs, as the runtime-spec (runtime.md) and runc have them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::sys::signal::Signal;
use oci_spec::runtime::{Hook, Spec};
use serde_json::{Value, json};

use super::death::{self, Watched};
use super::launch::Launch;
use super::state::{Container, Directory, Init, Record, Seen, Status};
use super::{Error, complaints, hooks, network};
use crate::sandbox::report::{Listener, Report};
use crate::sandbox::signals;

/// How a container is set up, beyond what its bundle says.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where the process id is written.
    pub pid_file: Option<PathBuf>,
    /// The socket that gets the terminal.
    pub console_socket: Option<PathBuf>,
    /// Move the root instead of `pivot_root(2)`.
    pub no_pivot: bool,
    /// Let systemd make the cgroup.
    pub systemd_cgroup: bool,
    /// The caller takes the container's terminal itself: it is left in [`Container::terminal`].
    pub takes_terminal: bool,
    /// The container ends with the caller, and its record is nobody's then.
    pub attached: bool,
}

/// What the record says besides the process.
#[derive(Debug)]
pub struct Identity {
    /// Container id.
    pub id: String,
    /// `ociVersion`.
    pub oci_version: String,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// Its root file system.
    pub rootfs: PathBuf,
    /// `annotations`.
    pub annotations: BTreeMap<String, String>,
    /// The cgroup, as the specification writes it.
    pub cgroup: PathBuf,
    /// `hooks.poststart`.
    pub poststart: Vec<Hook>,
    /// `hooks.poststop`.
    pub poststop: Vec<Hook>,
}

impl Identity {
    /// That of a bundle.
    #[must_use]
    pub fn of(id: &str, spec: &Spec, bundle: &Path, rootfs: &Path, systemd: bool) -> Self {
        let hooks = spec.hooks().as_ref();
        let cgroup = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.cgroups_path().clone())
            .filter(|path| !path.as_os_str().is_empty())
            // As runc: never above the root. systemd's words are no path.
            .map(|path| match systemd {
                true => path,
                false => super::mounts::destination(&path),
            })
            .unwrap_or_else(|| super::shadow::default_cgroup(id, systemd));
        Self {
            id: id.to_owned(),
            oci_version: spec.version().clone(),
            bundle: bundle.to_owned(),
            rootfs: rootfs.to_owned(),
            annotations: spec
                .annotations()
                .clone()
                .unwrap_or_default()
                .into_iter()
                .collect(),
            cgroup,
            poststart: hooks
                .and_then(|hooks| hooks.poststart().clone())
                .unwrap_or_default(),
            poststop: hooks
                .and_then(|hooks| hooks.poststop().clone())
                .unwrap_or_default(),
        }
    }
}

impl Identity {
    /// That of a container without a bundle: its directory stands for one.
    #[must_use]
    pub fn plain(id: &str, directory: &Path) -> Self {
        Self {
            id: id.to_owned(),
            oci_version: super::shadow::VERSION.to_owned(),
            bundle: directory.to_owned(),
            rootfs: directory.join(super::launch::EMPTY_ROOT),
            annotations: BTreeMap::new(),
            cgroup: super::shadow::default_cgroup(id, false),
            poststart: Vec::new(),
            poststop: Vec::new(),
        }
    }
}

/// Makes a container; its process then waits for [`start`].
///
/// # Errors
/// [`Error`]; nothing is left behind then.
pub fn create(
    all: &Directory,
    identity: Identity,
    launch: Launch,
    options: &Options,
) -> Result<Container, Error> {
    let id = identity.id.clone();
    let mut container = all.create(
        &id,
        Record {
            oci_version: identity.oci_version,
            bundle: identity.bundle,
            rootfs: identity.rootfs,
            created: humantime(SystemTime::now()),
            annotations: identity.annotations,
            cgroup: identity.cgroup,
            systemd_cgroup: options.systemd_cgroup,
            owner: nix::unistd::getuid().as_raw(),
            poststart: identity.poststart,
            poststop: identity.poststop,
            runner: options
                .attached
                .then(|| Init::of(std::process::id().cast_signed()))
                .flatten(),
            trace: launch.trace.as_ref().map(|trace| trace.path.clone()),
            init: None,
        },
    )?;
    match build(&container, launch, options) {
        Ok((init, terminal)) => {
            container.record.init = Some(init);
            container.terminal = terminal;
        }
        Err(error) => return Err(undo(container, error)),
    }
    if let Err(error) = container.save() {
        return Err(undo(container, error.into()));
    }
    if let Some(path) = &options.pid_file
        && let Err(error) = write_pid_file(path, container.record.init.map_or(0, |init| init.pid))
    {
        return Err(undo(container, error));
    }
    Ok(container)
}

/// Takes back what was made of a container that cannot be completed.
fn undo(container: Container, error: Error) -> Error {
    let cleaned = container
        .cgroup()
        .and_then(|cgroup| cgroup.destroy())
        .and_then(|()| Ok(container.remove()?));
    if let Err(trouble) = cleaned {
        tracing::warn!("after a failed create: {trouble}");
    }
    error
}

fn build(
    container: &Container,
    mut launch: Launch,
    options: &Options,
) -> Result<(Init, Option<OwnedFd>), Error> {
    let console = if options.takes_terminal {
        let listener = super::console::Listener::bind(&container.file("console"))
            .map_err(Error::host("make the console socket"))?;
        Some(listener)
    } else {
        None
    };
    let socket = match &console {
        Some(listener) => Some(listener.path().to_owned()),
        None => options.console_socket.clone(),
    };
    super::exec::keep(container, &launch.bundle)?;
    if launch.has_sockets && !network::is_new(&launch.shadow) {
        network::add_settings(&launch.shadow, &mut launch.guest.sysctl);
    }
    let stops_when_full = launch
        .bundle
        .pointer("/linux/resources/memory/disableOOMKiller")
        == Some(&Value::Bool(true));
    let prepared = launch.prepare(container, options.attached)?;
    let libcontainer =
        |error: libcontainer::error::LibcontainerError| Error::Libcontainer(why(container, &error));
    complaints::listen();
    let state = container.file("run");
    fs::create_dir(&state).map_err(Error::host("make the state directory"))?;
    let builder = ContainerBuilder::new(container.id.clone(), SyscallType::default())
        .with_root_path(&state)
        .map_err(libcontainer)?
        .with_console_socket(socket.as_ref())
        .with_executor(prepared.executor.clone());
    let built = builder
        .as_init(&prepared.bundle)
        .with_systemd(options.systemd_cgroup)
        .with_no_pivot(options.no_pivot)
        .build()
        .map_err(libcontainer)?;
    let init = built
        .pid()
        .and_then(|pid| Init::of(pid.as_raw()))
        .ok_or_else(|| Error::Libcontainer("its process died at once".to_owned()))?;
    if stops_when_full {
        // Of version 1; libcontainer does not pass it on.
        container.cgroup()?.set("memory.oom_control", "1")?;
    }
    let terminal = console
        .map(|listener| listener.receive())
        .transpose()
        .map_err(Error::host("receive the terminal"))?;
    Ok((init, terminal))
}

/// An error with what caused it, in one line, each text once.
fn causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = cause.source();
    }
    line
}

/// An error of libcontainer, with what its processes complained of.
fn why(container: &Container, error: &dyn std::error::Error) -> String {
    let mut line = causes(error);
    // The error of its last process is all that this has; what comes before are names of processes.
    if let Some((_, of_process)) = line.split_once("error in executing process : ") {
        line = match complaints::first() {
            Some(complaint) if !complaint.contains(of_process) => {
                format!("{of_process}: {complaint}")
            }
            _ => of_process.to_owned(),
        };
    }
    hooks::explain(&line, &container.file(super::launch::HOOK_NOTE)).unwrap_or(line)
}

/// Written beside and renamed, so that nobody reads half of it.
///
/// # Errors
/// What writing gives.
pub fn write_pid_file(path: &Path, pid: i32) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let next = path.with_file_name(format!(".{name}"));
    fs::write(&next, pid.to_string())
        .and_then(|()| fs::rename(&next, path))
        .map_err(Error::host(format!(
            "write the pid file {}",
            path.display()
        )))
}

/// Starts the container's program and returns when it runs.
///
/// # Errors
/// [`Error::Start`] if it cannot run; the container has stopped then.
pub fn start(container: &Container) -> Result<(), Error> {
    match container.status() {
        Status::Created => {}
        Status::Stopped => return Err(Error::AlreadyStopped),
        Status::Paused => return Err(Error::StartPaused),
        _ => return Err(Error::AlreadyRunning),
    }
    let failed = |message: String, status, told| Error::Start {
        id: container.id.clone(),
        message,
        status,
        told,
    };
    let listener =
        Listener::open(&container.file("report")).map_err(Error::host("open the report pipe"))?;
    let watched = container.record.init.map(Watched::new);
    notify(container).map_err(Error::host("wake the container's process"))?;
    match listener.wait() {
        Some(Report::Started) => {}
        Some(Report::Failed {
            message,
            status,
            told,
        }) => return Err(failed(message, status, told)),
        None => {
            let status = watched.and_then(|watched| watched.end());
            let cgroup = container.cgroup().ok();
            // libcontainer's process, whose end that is before it becomes the VMM.
            let is_setup = status.and_then(|status| status.code()) == Some(SETUP_FAILED);
            let message = if is_setup && has_start_hooks(container) {
                "a startContainer hook failed".to_owned()
            } else {
                death::before_the_program(status, cgroup.as_ref())
            };
            return Err(failed(message, 125, false));
        }
    }
    let state = state(&container.id, &container.record, container.status());
    if let Err(error) = hooks::run("poststart", &container.record.poststart, &state) {
        // As runc: the program is stopped again.
        let _ = signal(container, Signal::SIGKILL);
        return Err(error.into());
    }
    Ok(())
}

/// Exit status of libcontainer's process when it cannot become the VMM.
const SETUP_FAILED: i32 = 255;

/// Whether libcontainer's process has `startContainer` hooks to run, whose failure ends it.
fn has_start_hooks(container: &Container) -> bool {
    let shadow = fs::read(container.file("shadow").join("config.json")).unwrap_or_default();
    let shadow: Value = serde_json::from_slice(&shadow).unwrap_or_default();
    let hooks = shadow.pointer("/hooks/startContainer");
    hooks
        .and_then(Value::as_array)
        .is_some_and(|list| !list.is_empty())
}

/// libcontainer's process waits for a connection.
fn notify(container: &Container) -> io::Result<()> {
    let path = container
        .file("run")
        .join(&container.id)
        .join("notify.sock");
    let mut stream = super::socket::connect(&path)?;
    io::Write::write_all(&mut stream, b"start container")
}

/// Sends `signal` to the container's process, if that still lives.
fn signal(container: &Container, signal: Signal) -> Result<(), Error> {
    send(container, signal as i32)
}

fn send(container: &Container, number: i32) -> Result<(), Error> {
    queue(container, number, None)
}

/// Sends signal `number` to the container's processes in the foreground of the terminal it shares with the caller.
///
/// # Errors
/// [`Error::NotRunning`].
pub fn signal_foreground(container: &Container, number: i32) -> Result<(), Error> {
    queue(container, number, Some(signals::OF_SHARED_TERMINAL))
}

fn queue(container: &Container, number: i32, value: Option<u64>) -> Result<(), Error> {
    let Some(init) = container.record.init.filter(Init::is_alive) else {
        return Err(Error::NotRunning);
    };
    match super::pidfd::send(&init, number, value) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::NotRunning),
        Err(error) => Err(Error::host(format!("signal process {}", init.pid))(error)),
    }
}

/// What a signal does to libcontainer's process, which waits as PID 1 of its namespace and so is spared by
/// default actions that end others: those end it here too, as they end runc's.
const SPARED: [i32; 7] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGABRT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// Sends signal `number` to the container's first process, or to `all` its processes.
///
/// # Errors
/// [`Error::NotRunning`].
pub fn kill(container: &Container, number: i32, all: bool) -> Result<(), Error> {
    match container.status() {
        Status::Stopped | Status::Creating => {
            // With --all, runc takes a stopped container whose processes may live on; a guest's cannot.
            if all && container.status() == Status::Stopped {
                return Ok(());
            }
            Err(Error::NotRunning)
        }
        Status::Created | Status::Paused
            if !container.record.has_started() && SPARED.contains(&number) =>
        {
            signal(container, Signal::SIGKILL)
        }
        Status::Paused if number == libc::SIGKILL => {
            send(container, number)?;
            // The frozen do not die.
            container.cgroup()?.freeze(false).map(drop)
        }
        _ if !container.record.has_started() => send(container, number),
        // With the VMM all ends.
        _ if matches!(number, 0 | libc::SIGKILL) => send(container, number),
        _ if !all && signals::is_forwarded(number) => send(container, number),
        // A paused one takes it when it goes on.
        status => super::control::kill(container.dir(), number, all, status == Status::Running),
    }
}

/// Sends signal `number` to the VMM itself.
///
/// # Errors
/// [`Error::NotRunning`].
pub fn signal_vmm(container: &Container, number: Signal) -> Result<(), Error> {
    signal(container, number)
}

/// Freezes all that runs in a container.
///
/// # Errors
/// [`Error::NotRunning`]; without a freezer.
pub fn pause(container: &Container) -> Result<(), Error> {
    // Who looks at its files while it is paused sees all it has written.
    let standing = match container.status() {
        Status::Created => None,
        Status::Running => Some(super::control::settle(container.dir(), SETTLE_PATIENCE)),
        // As runc.
        Status::Paused | Status::Creating | Status::Stopped => return Err(Error::NotRunning),
    };
    if let Some(Err(error)) = &standing {
        // A guest that does not answer is paused all the same.
        tracing::warn!("what it has written to files last may be missing: {error}");
    }
    // It goes on where it stands, after it was thawed.
    freeze(container, true)
}

/// Lets a paused container go on.
///
/// # Errors
/// [`Error::NotPaused`].
pub fn resume(container: &Container) -> Result<(), Error> {
    if container.status() != Status::Paused {
        return Err(Error::NotPaused);
    }
    freeze(container, false)
}

fn freeze(container: &Container, frozen: bool) -> Result<(), Error> {
    let cgroup = container.cgroup()?;
    if !cgroup.freeze(frozen)? {
        return Err(Error::Cgroup {
            what: if frozen { "frozen" } else { "thawed" },
            message: "this host has no freezer".to_owned(),
        });
    }
    // What is frozen stops when it is scheduled next.
    let deadline = Instant::now() + FREEZE_PATIENCE;
    while super::cgroup::is_frozen(&container.record.cgroup) != frozen {
        if Instant::now() > deadline {
            let _ = cgroup.freeze(false);
            return Err(Error::Cgroup {
                what: if frozen { "frozen" } else { "thawed" },
                message: "its processes do not follow".to_owned(),
            });
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// How long the guest may take to write what waits.
const SETTLE_PATIENCE: Duration = Duration::from_secs(2);
/// How long freezing may take.
const FREEZE_PATIENCE: Duration = Duration::from_secs(5);

/// The host's processes that stand for a container.
///
/// # Errors
/// When this host has no cgroups.
pub fn processes(seen: &Seen) -> Result<Vec<i32>, Error> {
    let record = &seen.record;
    let cgroup = super::cgroup::Cgroup::new(&seen.id, &record.cgroup, record.systemd_cgroup)?;
    Ok(cgroup.processes().iter().map(|pid| pid.as_raw()).collect())
}

/// Hours and minutes of a time in UTC, as `ps` shows the start of a process.
#[must_use]
pub fn clock_time(time: SystemTime) -> String {
    humantime(time)
        .get(11..16)
        .map(str::to_owned)
        .unwrap_or_default()
}

/// Reads `text` as a signal: a number, or a name with or without `SIG`, in either case.
///
/// # Errors
/// [`Error::Signal`].
pub fn parse_signal(text: &str) -> Result<i32, Error> {
    let unknown = || Error::Signal(text.to_owned());
    if let Ok(number) = text.parse::<i32>() {
        // 0 asks whether there is a process.
        return if (0..=64).contains(&number) {
            Ok(number)
        } else {
            Err(unknown())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Ok(signal) = format!("SIG{name}").parse::<Signal>() {
        return Ok(signal as i32);
    }
    // Real-time signals count from both ends, as kill(1) names them.
    let (base, rest) = if let Some(rest) = name.strip_prefix("RTMIN") {
        (34, rest)
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        (64, rest)
    } else {
        return Err(unknown());
    };
    let offset: i32 = if rest.is_empty() {
        0
    } else {
        rest.parse().map_err(|_| unknown())?
    };
    Some(base + offset)
        .filter(|number| (34..=64).contains(number))
        .ok_or_else(unknown)
}

/// Removes a container and all that belongs to it. One that runs only by `force`.
///
/// # Errors
/// [`Error::NotStopped`]; what cannot be removed.
pub fn delete(container: Container, force: bool) -> Result<(), Error> {
    let status = container.status();
    if !force && !matches!(status, Status::Stopped | Status::Created) {
        return Err(Error::NotStopped {
            id: container.id.clone(),
            status,
        });
    }
    // What lives may be frozen; the cgroup thaws it. Its process may have left the cgroup.
    match signal(&container, Signal::SIGKILL) {
        Ok(()) | Err(Error::NotRunning) => {}
        Err(error) => return Err(error),
    }
    container.cgroup()?.destroy()?;
    let state = state(&container.id, &container.record, Status::Stopped);
    let poststop = container.record.poststop.clone();
    container.remove()?;
    // As runc: a failing hook is told and changes nothing.
    if let Err(error) = hooks::run("poststop", &poststop, &state) {
        tracing::warn!("{error}");
    }
    Ok(())
}

/// `delete --force` of what has no readable record.
///
/// # Errors
/// What cannot be removed.
pub fn delete_damaged(all: &Directory, id: &str) -> Result<(), Error> {
    Ok(all.remove_damaged(id)?)
}

/// A container's state as hooks and `husk state` have it (runtime.md, "State", and runc's additions).
#[must_use]
pub fn state(id: &str, record: &Record, status: Status) -> Value {
    let pid = match status {
        Status::Stopped => 0,
        _ => record.init.map_or(0, |init| init.pid),
    };
    let mut state = json!({
        "ociVersion": record.oci_version,
        "id": id,
        "pid": pid,
        "status": status.to_string(),
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "owner": "",
    });
    if !record.annotations.is_empty() {
        state["annotations"] = json!(record.annotations);
    }
    state
}

/// The state of one that was looked at.
#[must_use]
pub fn state_of(seen: &Seen) -> Value {
    state(&seen.id, &seen.record, seen.status)
}

/// A user's name, as lists show owners.
#[must_use]
pub fn owner(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2).and_then(|id| id.parse().ok()) == Some(uid))
        .map_or_else(|| format!("#{uid}"), |fields| fields[0].to_owned())
}

/// RFC 3339 in UTC with nanoseconds, as Go writes it.
fn humantime(time: SystemTime) -> String {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let days = since.as_secs() / 86400;
    let rest = since.as_secs() % 86400;
    // Civil date from days (the era of 400 years starts on 1 March).
    let z = i64::try_from(days).unwrap_or(0) + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
        since.subsec_nanos()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for (text, number) in [
            ("9", 9),
            ("0", 0),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("hup", 1),
            ("64", 64),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(parse_signal(text).ok(), Some(number), "{text}");
        }
        for text in ["", "65", "-1", "NOPE", "SIG", "RTMIN-1", "RTMAX+1"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dates() {
        let at = |secs| humantime(SystemTime::UNIX_EPOCH + Duration::new(secs, 5));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000005Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(at(1_795_338_000), "2026-11-22T09:00:00.000000005Z");
    }
}
