//! `husk create`, and what `husk run` on a bundle shares with it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use husk_abi::boundary::config::StreamKind;
use oci_spec::runtime::LinuxMemory;

use super::args::{Cli, CreateArgs, LogFormat, RecordArgs, Rootless, SetupArgs};
use super::filter::LogFilter;
use super::preserved::Preserved;
use super::{Error, logging};
use crate::oci::cgroup::Cgroup;
use crate::oci::launch::{Launch, Log, RootSource, Trace};
use crate::oci::lifecycle::{self, Identity, Options};
use crate::oci::spec::Bundle;
use crate::oci::state::{Container, Directory, check_id};
use crate::oci::{self, idmap, process, shadow, systemd, userns};
use crate::plan::{Host, MemorySize};
use crate::record::{self, Format, Policy};
use crate::vmm;

/// Makes a container.
pub fn run(cli: &Cli, args: &CreateArgs, log: &LogFilter) -> Result<ExitCode, Error> {
    container(cli, &args.id, &args.setup, &args.record, log, false)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the container `id` from its bundle.
pub fn container(
    cli: &Cli,
    id: &str,
    setup: &SetupArgs,
    record: &RecordArgs,
    filter: &LogFilter,
    foreground: bool,
) -> Result<Container, Error> {
    check_id(id).map_err(oci::Error::from)?;
    if cli.rootless == Rootless::Yes || !nix::unistd::geteuid().is_root() {
        return Err(oci::Error::NotRoot.into());
    }
    let preserved = Preserved::take_activated(setup.preserve_fds)?;
    let pid_file = setup.pid_file.as_deref().map(std::path::absolute);
    let console_socket = setup.console_socket.as_deref().map(std::path::absolute);
    let trace_path = record.trace.as_deref().map(std::path::absolute);
    let bundle = Bundle::load(setup.bundle()).map_err(oci::Error::from)?;
    let root = std::path::absolute(cli.state()).map_err(Error::Directory)?;
    // As runc: relative paths in the bundle start there.
    std::env::set_current_dir(&bundle.path).map_err(Error::Directory)?;
    let has_terminal = bundle
        .spec
        .process()
        .as_ref()
        .and_then(|process| process.terminal())
        .unwrap_or(false);
    match (has_terminal, &setup.console_socket) {
        (true, None) if !foreground => return Err(Error::NoConsoleSocket),
        (false, Some(_)) => return Err(Error::NoTerminal),
        _ => {}
    }
    let host = Host::look()?;
    let streams = if has_terminal {
        [StreamKind::Terminal; 3]
    } else {
        host.streams
    };
    let mut guest =
        process::guest(&bundle, streams, filter.guest_levels()).map_err(oci::Error::from)?;
    let user_namespace = userns::of_bundle(&bundle)?;
    guest.user_namespace = user_namespace.as_ref().map(|own| own.guest.clone());
    guest.process.env.extend(preserved.environment());
    guest.process.handed = preserved.described;
    let memory = memory(&bundle, &host)?;
    let identity = Identity::of(
        id,
        &bundle.spec,
        &bundle.path,
        &bundle.rootfs,
        cli.systemd_cgroup,
    );
    if cli.systemd_cgroup {
        systemd::check(&identity.cgroup)?;
    }
    let parts = shadow::Parts {
        rootfs: &bundle.rootfs,
        cgroup: &identity.cgroup,
    };
    let trace = trace(
        &bundle,
        record,
        trace_path.transpose().map_err(Error::Directory)?,
    )?;
    let cgroup = Cgroup::new(id, &identity.cgroup, cli.systemd_cgroup)?;
    let launch = Launch {
        bundle: bundle.raw.clone(),
        shadow: shadow::of_bundle(&bundle, &parts).map_err(oci::Error::from)?,
        guest,
        handed: preserved.descriptors,
        memory_bytes: memory.bytes,
        cgroup_limit: cgroup_limit(&bundle, &cgroup),
        root: RootSource::Directory(idmap::make(&bundle.spec, user_namespace.as_ref())?),
        user_namespace,
        // Whatever namespace the bundle names, the VMM is in it.
        has_sockets: true,
        libos: None,
        gdb: None,
        log: log(cli, filter)?,
        trace,
        timeout: None,
        stats: None,
    };
    let options = Options {
        pid_file: pid_file.transpose().map_err(Error::Directory)?,
        console_socket: console_socket.transpose().map_err(Error::Directory)?,
        no_pivot: setup.no_pivot,
        systemd_cgroup: cli.systemd_cgroup,
        takes_terminal: has_terminal && setup.console_socket.is_none(),
        attached: false,
    };
    Ok(lifecycle::create(
        &Directory::new(&root),
        identity,
        launch,
        &options,
    )?)
}

/// Annotations that ask for a recording, as the options of the same names do, which win.
const TRACE: &str = "husk.trace";
const TRACE_FILTER: &str = "husk.trace.filter";
const TRACE_POLICY: &str = "husk.trace.policy";
const TRACE_FORMAT: &str = "husk.trace.format";
const TENANT: &str = "husk.tenant";
/// Digest of the image, for the records.
const IMAGE: &str = "husk.image";

/// The recording that `args` or the bundle's annotations ask for.
fn trace(
    bundle: &Bundle,
    args: &RecordArgs,
    path: Option<PathBuf>,
) -> Result<Option<Trace>, Error> {
    let annotations = bundle.spec.annotations().as_ref();
    let get = |name: &str| {
        annotations
            .and_then(|all| all.get(name))
            .map(String::as_str)
    };
    let annotated = get(TRACE).map(PathBuf::from);
    if path.is_none() && annotated.is_none() {
        return Ok(None);
    }
    let value = |name| Error::from(annotation(name, "is not a value it can have"));
    let defaults = record::Options {
        filters: get(TRACE_FILTER)
            .map(|text| text.lines().map(str::to_owned).collect())
            .unwrap_or_default(),
        policy: match get(TRACE_POLICY) {
            None => Policy::default(),
            Some(text) => Policy::from_str(text, false).map_err(|_| value(TRACE_POLICY))?,
        },
        format: match get(TRACE_FORMAT) {
            None => Format::default(),
            Some(text) => Format::from_str(text, false).map_err(|_| value(TRACE_FORMAT))?,
        },
        tenant: get(TENANT).unwrap_or_default().to_owned(),
    };
    let options = args.options(defaults)?;
    let (file, path) = match (path, annotated) {
        (Some(path), _) => (record::create(&path)?, path),
        (None, Some(path)) if path.is_absolute() => (record::create_new(&path)?, path),
        (None, _) => return Err(annotation(TRACE, "is no absolute path").into()),
    };
    Ok(Some(Trace {
        file,
        path,
        image: get(IMAGE).unwrap_or_default().to_owned(),
        options,
    }))
}

fn annotation(name: &str, what: &str) -> oci::Error {
    oci::spec::Error::Field {
        field: format!("annotations[{name:?}]"),
        what: what.to_owned(),
    }
    .into()
}

/// The VMM's log: the caller's.
pub fn log(cli: &Cli, filter: &LogFilter) -> Result<Option<Log>, Error> {
    if cli.log.is_none() && !cli.is_verbose() {
        return Ok(None);
    }
    let file = cli.log.as_deref().map(logging::open).transpose()?;
    Ok(Some(Log {
        file,
        json: cli.log_format == LogFormat::Json,
        targets: filter.targets().to_string(),
        is_verbose: cli.is_verbose(),
    }))
}

/// `linux.resources.memory`.
fn memory_of(bundle: &Bundle) -> Option<&LinuxMemory> {
    let linux = bundle.spec.linux().as_ref()?;
    linux.resources().as_ref()?.memory().as_ref()
}

/// The limit of memory of the bundle, if it has one.
fn memory_limit(bundle: &Bundle) -> Option<u64> {
    let limit = memory_of(bundle)?.limit()?;
    u64::try_from(limit).ok().filter(|limit| *limit > 0)
}

/// The limit that the cgroup gets, if nobody but the container can come to it, and who does is killed, not stopped.
fn cgroup_limit(bundle: &Bundle, cgroup: &Cgroup) -> Option<u64> {
    let stops = memory_of(bundle)?.disable_oom_killer().unwrap_or(false);
    let limit = memory_limit(bundle).filter(|_| !stops && !cgroup.shares_memory_limit())?;
    Some(limit.saturating_add(shadow::VMM_OVERHEAD_BYTES.unsigned_abs()))
}

/// The container's memory: the cgroup's limit, else the host's.
fn memory(bundle: &Bundle, host: &Host) -> Result<MemorySize, Error> {
    let limit = memory_limit(bundle);
    let memory = MemorySize {
        bytes: limit.unwrap_or(u64::MAX).min(host.memory.bytes),
    };
    let minimum = MemorySize {
        bytes: vmm::MINIMUM_BYTES,
    };
    if memory < minimum {
        let error = oci::spec::Error::Field {
            field: "linux.resources.memory.limit".to_owned(),
            what: format!("{memory} is too little: a container needs at least {minimum}"),
        };
        return Err(oci::Error::from(error).into());
    }
    Ok(memory)
}
