//! `husk run` of an image: what `create`, `start` and `delete` are to a bundle, in one go.
//!
//! The image's files are held open by this command, the volumes too, and handed to the VMM, whose own root has nothing in
//! it. Who may not make namespaces and cgroups runs the VMM in this very process.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use husk_images::{Algorithm, ContainerRoot, Digest, Image, ImageConfig, Stack, Store};
use serde_json::json;

use super::args::{Cli, Rootless, RunArgs, Target, stored};
use super::filter::LogFilter;
use super::foreground::{self, Foreground};
use super::progress::Meter;
use super::run::{remove, status_of};
use super::{Error, create, report, stats};
use crate::confine;
use crate::gate::fuse::TreeSource;
use crate::gdb;
use crate::oci::launch::{self, EMPTY_ROOT, Launch, RootSource};
use crate::oci::lifecycle::{self, Identity, Options};
use crate::oci::state::Directory;
use crate::oci::{self, cgroup, described, shadow};
use crate::plan::{self, Cpus, Host, ImageAtHand, Request, RootFiles};
use crate::record;
use crate::sandbox::handover::{Before, monotonic};
use crate::sandbox::{self, Debugging, Plan, Trace};
use crate::vmm;

/// Runs a container to its end.
pub fn run(cli: &Cli, args: &RunArgs, log: &LogFilter) -> Result<ExitCode, Error> {
    let began = monotonic();
    let host = Host::look()?;
    check_cpus(args.cpus, &host)?;
    let request = Request {
        env: args.env.clone(),
        workdir: args.workdir.clone(),
        memory: args.memory.unwrap_or(host.memory),
        hostname: args.hostname.clone(),
        entrypoint: args.entrypoint.clone(),
        user: args.user.clone(),
        command: args.command.clone(),
        trace: args.record.trace.clone(),
        volumes: args.volume.clone(),
        timeout: args.timeout,
        stats: args.stats,
        network: args.network,
        log_levels: log.guest_levels(),
    };
    request.check(&host)?;
    let libos = libos(args)?;
    // Unpacking may take a while: first see that there is something to run it with.
    let kvm = vmm::open_kvm().map_err(sandbox::Error::from)?;

    let is_contained = match cli.rootless {
        Rootless::Auto => is_privileged(),
        Rootless::No if !is_privileged() => return Err(oci::Error::NotRoot.into()),
        Rootless::No => true,
        Rootless::Yes => false,
    };
    if !is_contained && args.cpus.is_some() {
        return Err(plan::Error::CpusWithoutCgroup.into());
    }
    // Held to the end: so long nobody removes it.
    let (stored, at_hand) = match (&args.rootfs, &args.target) {
        (Some(directory), _) => (None, directory_at_hand(directory)?),
        (None, Some(target)) => {
            let (stored, at_hand) = prepare(&cli.store(), target, args.in_memory)?;
            (Some(stored), at_hand)
        }
        (None, None) => unreachable!("the command line's own rule"),
    };
    let before = Before {
        began,
        image: monotonic().saturating_sub(began),
    };
    tracing::debug!(digest = %at_hand.digest, "image ready");
    let id = container_id()?;
    let plan = request.plan(&id, at_hand, &host)?;
    let trace = match &plan.trace {
        Some(path) => Some(launch::Trace {
            file: record::create(path)?,
            path: std::path::absolute(path).map_err(Error::Directory)?,
            image: plan.image.clone(),
            options: args.record.options(record::Options::default())?,
        }),
        None => None,
    };
    let gdb = args.gdb.as_ref().map(gdb::Listener::bind).transpose();
    let parts = Parts {
        id,
        plan,
        trace,
        libos,
        gdb: gdb?,
        before,
        is_verbose: cli.is_verbose(),
    };
    let result = if is_contained {
        contained(cli, args, log, &host, parts)
    } else {
        tracing::info!(rootless = ?cli.rootless, "no rights to make namespaces and a cgroup: the VMM runs in this process");
        // Once confined, this process cannot clean up: what the container has written goes with the next use of the store.
        std::mem::forget(stored);
        embedded(parts, kvm, args)
    };
    if let Some(address) = &args.gdb {
        address.remove();
    }
    result
}

/// What a container is made of.
struct Parts {
    id: String,
    plan: plan::Plan,
    trace: Option<launch::Trace>,
    libos: Option<File>,
    gdb: Option<gdb::Listener>,
    before: Before,
    is_verbose: bool,
}

/// Whether this process may make namespaces and a cgroup, and there are cgroups.
fn is_privileged() -> bool {
    let may = caps::has_cap(
        None,
        caps::CapSet::Effective,
        caps::Capability::CAP_SYS_ADMIN,
    );
    nix::unistd::geteuid().is_root() && may.unwrap_or(false) && cgroup::exists()
}

/// Through libcontainer, as a bundle.
fn contained(
    cli: &Cli,
    args: &RunArgs,
    log: &LogFilter,
    host: &Host,
    parts: Parts,
) -> Result<ExitCode, Error> {
    let id = parts.id.clone();
    let root = std::path::absolute(cli.state()).map_err(Error::Directory)?;
    let all = Directory::new(&root);
    let directory = all.path(&id);
    let identity = Identity::plain(&id, &directory);
    let plan = parts.plan;
    let launch = Launch {
        handed: Vec::new(),
        bundle: json!({ "process": described::process(&plan.guest.process) }),
        shadow: shadow::plain(
            &plan.guest.hostname,
            args.memory.map(|memory| memory.bytes),
            args.cpus,
            &identity.cgroup,
            &directory.join(EMPTY_ROOT),
            args.network,
        ),
        guest: plan.guest,
        memory_bytes: plan.memory_bytes,
        // Its end is told to nobody but the caller.
        cgroup_limit: None,
        user_namespace: None,
        root: RootSource::Held {
            archive: plan.root_archive,
            trees: plan.trees,
        },
        has_sockets: plan.has_sockets,
        libos: parts.libos,
        gdb: parts.gdb,
        log: create::log(cli, log)?,
        trace: parts.trace,
        timeout: plan.timeout,
        stats: args.stats.then_some(parts.before),
    };
    let options = Options {
        attached: true,
        ..Options::default()
    };
    let mut container = lifecycle::create(&all, identity, launch, &options)?;
    tracing::debug!(id, "starting");
    let started = lifecycle::start(&container);
    container.unlock();
    let status = match started {
        Ok(()) => {
            let terminal = if host.has_terminal() {
                Foreground::Shared
            } else {
                Foreground::None
            };
            foreground::wait(&container, &terminal)
        }
        // What kept the program from running, as a shell says it.
        Err(oci::Error::Start {
            message,
            status,
            told,
            ..
        }) => {
            if !told {
                report(&message);
            }
            Ok(status)
        }
        Err(error) => Err(error),
    };
    remove(cli, &id)?;
    Ok(ExitCode::from(status?))
}

/// In this process, confined as far as that goes.
fn embedded(parts: Parts, kvm: kvm_ioctls::Kvm, args: &RunArgs) -> Result<ExitCode, Error> {
    let plan = parts.plan;
    let program = plan.guest.process.args.first().cloned().unwrap_or_default();
    confine::enter_command()?;
    tracing::debug!(id = parts.id, "starting");
    let outcome = sandbox::run(Plan {
        handed: Vec::new(),
        id: parts.id,
        memory_bytes: plan.memory_bytes,
        // Without a cgroup nothing is limited.
        is_short_of_cpus: false,
        root_archive: plan.root_archive,
        trees: plan.trees,
        has_sockets: plan.has_sockets,
        kvm,
        reporter: None,
        control: None,
        memory_events: None,
        guest: plan.guest,
        trace: parts.trace.map(|trace| Trace {
            file: trace.file,
            path: trace.path,
            image: trace.image,
            options: trace.options,
        }),
        timeout: plan.timeout,
        debugging: Debugging {
            is_verbose: parts.is_verbose,
            libos: parts.libos,
            gdb: parts.gdb,
        },
    })?;
    let problem = outcome
        .recorded
        .as_ref()
        .and_then(|recorded| recorded.problem.as_ref());
    if let Some(problem) = problem {
        report(&format!("the recording is not complete: {problem}"));
    }
    let status = status_of(&outcome.ended, &program, args.timeout);
    if args.stats {
        let spent = stats::Spent {
            image: parts.before.image,
            container: None,
            total: monotonic().saturating_sub(parts.before.began),
        };
        let text = stats::table(&spent, &outcome);
        let _ = io::stderr().write_all(text.as_bytes());
    }
    Ok(ExitCode::from(status))
}

/// An image in use, and what a container of it writes.
struct Stored {
    _root: Option<ContainerRoot>,
    _image: Image,
}

/// Finds the image, stores it where it is an archive's, and gets it ready.
fn prepare(root: &Path, target: &Target, in_memory: bool) -> Result<(Stored, ImageAtHand), Error> {
    let mut meter = Meter::new();
    let store = Store::open(root)?;
    let image = match target {
        Target::Source(source) => store.add(source, |_| Vec::new(), &mut meter)?,
        Target::Word(name) => {
            let name = stored(name).map_err(Error::Wanted)?;
            store.find(&name, &mut meter)?
        }
    };
    let (files, own_root) = if in_memory {
        let archive = store.root_archive(&image, &mut meter)?;
        (RootFiles::Archive(archive), None)
    } else {
        let root = store.container_root(&image, &mut meter)?;
        let held = root.directory().try_clone_to_owned();
        let held = held.map_err(oci::Error::host("keep the root open"))?;
        tracing::debug!(is_copy = root.is_copy(), "root ready");
        let tree = root_tree(PathBuf::from("the image"), Some(held));
        (RootFiles::Tree(tree), Some(root))
    };
    let at_hand = ImageAtHand {
        digest: image.digest.clone(),
        config: image.config.clone(),
        root: store.root(&image)?,
        files,
    };
    let stored = Stored {
        _root: own_root,
        _image: image,
    };
    Ok((stored, at_hand))
}

/// What stands for an image where the root is a plain directory: nothing is known of it but its files.
fn directory_at_hand(directory: &Path) -> Result<ImageAtHand, Error> {
    let open = || Stack::open(&[directory.canonicalize()?]);
    Ok(ImageAtHand {
        digest: Digest::of(Algorithm::Sha256, b""),
        config: ImageConfig::default(),
        root: open().map_err(|source| plan::Error::Volume {
            path: directory.to_path_buf(),
            source,
        })?,
        files: RootFiles::Tree(root_tree(directory.to_path_buf(), None)),
    })
}

/// A root that is this container's alone.
fn root_tree(path: PathBuf, held: Option<OwnedFd>) -> TreeSource {
    TreeSource {
        path,
        held: held.map(Arc::new),
        read_only: false,
        exclusive: true,
    }
}

/// The image `--libos` names.
fn libos(args: &RunArgs) -> Result<Option<File>, sandbox::Error> {
    args.libos
        .as_ref()
        .map(File::open)
        .transpose()
        .map_err(|source| sandbox::Error::Host {
            what: "read the libOS image --libos names",
            source,
        })
}

fn check_cpus(cpus: Option<Cpus>, host: &Host) -> Result<(), plan::Error> {
    match cpus {
        Some(asked) if asked.hundredths > u64::from(host.cpus) * 100 => {
            Err(plan::Error::TooManyCpus {
                asked,
                host: host.cpus,
            })
        }
        _ => Ok(()),
    }
}

/// 64 random hexadecimal digits.
fn container_id() -> Result<String, Error> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(Error::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_long_and_differ() {
        let (one, two) = (container_id().unwrap(), container_id().unwrap());
        assert!(one.len() == 64 && one != two);
        assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
