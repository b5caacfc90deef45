//! What a container is made of, ready for libcontainer: descriptors opened on the host, the handover that names
//! them, the shadow bundle.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use husk_abi::boundary::config::GuestConfig;
use serde_json::Value;

use super::Error;
use super::executor::VmmExecutor;
use super::idmap::IdMapped;
use super::network;
use super::program::Program;
use super::state::Container;
use super::userns::UserNamespace;
use crate::gate::fuse::TreeSource;
use crate::gdb;
use crate::record::Options;
use crate::sandbox::MemoryEvents;
use crate::sandbox::handover::{self, Before, Handover};
use crate::sandbox::report::Reporter;
use crate::vmm;

/// Where the root comes from.
#[derive(Debug)]
pub enum RootSource {
    /// The directory libcontainer makes the VMM's own root, with what it mounts there, and mounts that are not there.
    Directory(Vec<IdMapped>),
    /// What is held open here, the first tree unless there is an archive; libcontainer gives the VMM a root with
    /// nothing in it.
    Held {
        /// A cpio archive.
        archive: Option<File>,
        /// One for each of the guest's trees.
        trees: Vec<TreeSource>,
    },
}

/// A log for the VMM process.
#[derive(Debug)]
pub struct Log {
    /// The file; without one lines go to standard error.
    pub file: Option<File>,
    /// In JSON.
    pub json: bool,
    /// Which lines, as `tracing_subscriber` writes its filters.
    pub targets: String,
    /// Whether more than warnings is asked for.
    pub is_verbose: bool,
}

/// A recording.
#[derive(Debug)]
pub struct Trace {
    /// Where records go.
    pub file: File,
    /// What it is called.
    pub path: PathBuf,
    /// Digest of the image.
    pub image: String,
    /// What is recorded and how.
    pub options: Options,
}

/// A container about to be made.
#[derive(Debug)]
pub struct Launch {
    /// The bundle's specification.
    pub bundle: Value,
    /// What libcontainer sees.
    pub shadow: Value,
    /// What the libOS is to run.
    pub guest: GuestConfig,
    /// What its first process is handed besides its streams, as `guest` describes it.
    pub handed: Vec<OwnedFd>,
    /// Its memory.
    pub memory_bytes: u64,
    /// The limit of memory of its cgroup, where the host's kernel enforces one by killing, and that one first.
    pub cgroup_limit: Option<u64>,
    /// Its root.
    pub root: RootSource,
    /// Its user namespace, unless that is the host's.
    pub user_namespace: Option<UserNamespace>,
    /// Whether it has sockets of the host, in the network namespace its VMM is in.
    pub has_sockets: bool,
    /// Another libOS than the built-in one, for its developers.
    pub libos: Option<File>,
    /// Wait for gdb here.
    pub gdb: Option<gdb::Listener>,
    /// The VMM's log.
    pub log: Option<Log>,
    /// A recording.
    pub trace: Option<Trace>,
    /// When to give up.
    pub timeout: Option<Duration>,
    /// Print a table of where time went.
    pub stats: Option<Before>,
}

/// The executor, and the descriptors that must stay open until libcontainer has forked.
#[derive(Debug)]
pub struct Prepared {
    pub(super) executor: VmmExecutor,
    /// The shadow bundle.
    pub(super) bundle: PathBuf,
    _open: Vec<OwnedFd>,
}

impl Launch {
    /// Opens what the VMM needs and writes the shadow bundle into the container's directory.
    ///
    /// # Errors
    /// Without `/dev/kvm`, memory or disk.
    pub fn prepare(self, container: &Container, attached: bool) -> Result<Prepared, Error> {
        if matches!(self.root, RootSource::Held { .. }) {
            fs::create_dir(container.file(EMPTY_ROOT))
                .map_err(Error::host("make an empty root"))?;
        }
        let report = Reporter::create(&container.file("report"))
            .map_err(Error::host("make the report pipe"))?;
        let program = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open("/proc/self/exe")
            .map_err(Error::host("open husk itself"))?;
        let mut shadow = self.shadow;
        let relay = super::hooks::Relay {
            bundle: &container.record.bundle,
            husk: &std::env::current_exe().map_err(Error::host("find husk itself"))?,
            husk_inside: program.as_raw_fd(),
            note: &container.file(HOOK_NOTE),
        };
        relay.put_into(&mut shadow);
        let mut user_namespace = self.user_namespace;
        let network = match user_namespace.as_mut().and_then(|own| own.network.take()) {
            None if self.has_sockets && network::is_new(&shadow) => {
                Some(network::make().map_err(Error::host("make a network namespace"))?)
            }
            of_users => of_users,
        };
        if let Some(network) = &network {
            super::shadow::join_network(&mut shadow, network.as_raw_fd());
        }
        let bundle = container.file("shadow");
        write_bundle(&bundle, &shadow).map_err(Error::host("write the shadow bundle"))?;
        let kvm =
            vmm::kvm_descriptor(&vmm::open_kvm()?).map_err(Error::host("keep /dev/kvm open"))?;
        let mut open: Vec<OwnedFd> = Vec::new();
        let mut keep = |file: OwnedFd| {
            let number = handover::Inherited::from(&file);
            open.push(file);
            number
        };
        network.map(&mut keep);
        let user_namespace = user_namespace.map(|own| keep(own.file));
        let report = keep(report.into_file().into());
        let control = super::socket::bind(&container.file(super::socket::CONTROL))
            .map_err(Error::host("make the control socket"))?;
        let control = keep(control.into());
        let memory_events = File::create_new(container.file(MEMORY_EVENTS))
            .and_then(|file| MemoryEvents::init(&file).map(|()| file))
            .map_err(Error::host("make the file of memory events"))?;
        let memory_events = keep(memory_events.into());
        let looked_for =
            matches!(self.root, RootSource::Directory(_)).then(|| Program::of(&self.guest));
        let handover = Handover {
            id: container.id.clone(),
            memory_bytes: self.memory_bytes,
            is_short_of_cpus: super::shadow::cpus(&shadow).is_some_and(|cpus| cpus < 2.0),
            root: match self.root {
                RootSource::Directory(mapped) => handover::Root::Own {
                    mapped: mapped
                        .into_iter()
                        .map(|mount| (mount.index, keep(mount.tree)))
                        .collect(),
                },
                RootSource::Held { archive, trees } => handover::Root::Held {
                    archive: archive.map(|file| keep(file.into())),
                    trees: trees
                        .iter()
                        .map(|tree| held(tree, &mut keep))
                        .collect::<Result<_, _>>()?,
                },
            },
            guest: self.guest,
            has_sockets: self.has_sockets,
            kvm: keep(kvm),
            report,
            control: Some(control),
            handed: self.handed.into_iter().map(&mut keep).collect(),
            memory_events,
            cgroup_limit: self.cgroup_limit,
            libos: self.libos.map(|file| keep(file.into())),
            gdb: self.gdb.map(|listener| keep(listener.into_socket())),
            trace: self.trace.map(|trace| handover::Trace {
                file: keep(trace.file.into()),
                path: trace.path,
                image: trace.image,
                options: trace.options,
            }),
            log: self.log.map(|log| handover::Log {
                file: log.file.map(|file| keep(file.into())),
                json: log.json,
                targets: log.targets,
                is_verbose: log.is_verbose,
            }),
            timeout: self.timeout,
            stats: self.stats,
        };
        let sealed = handover
            .seal()
            .map_err(Error::host("hand over to the VMM"))?;
        let executor = VmmExecutor {
            program: program.as_raw_fd(),
            handover: sealed.as_raw_fd(),
            kept: handover.descriptors(),
            report: report.number(),
            user_namespace: user_namespace.map(handover::Inherited::number),
            looked_for,
            id: container.id.clone(),
            attached,
        };
        open.push(sealed.into());
        open.push(program.into());
        Ok(Prepared {
            executor,
            bundle,
            _open: open,
        })
    }
}

/// What was killed inside for want of memory, in the container's directory: see [`MemoryEvents`].
pub const MEMORY_EVENTS: &str = "memory.events";

/// The name of the hook that runs, or ran last, in the container's directory.
pub const HOOK_NOTE: &str = "hook";

/// The VMM's root where everything it serves is held open, in the container's directory.
pub const EMPTY_ROOT: &str = "root";

/// A tree by a descriptor that is kept.
fn held(
    tree: &TreeSource,
    keep: &mut impl FnMut(OwnedFd) -> handover::Inherited,
) -> Result<handover::HeldTree, Error> {
    let file = match &tree.held {
        Some(held) => held.try_clone(),
        None => OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(&tree.path)
            .map(OwnedFd::from),
    };
    let file = file.map_err(Error::host(format!("open {}", tree.path.display())))?;
    Ok(handover::HeldTree {
        file: keep(file),
        path: tree.path.clone(),
        read_only: tree.read_only,
        exclusive: tree.exclusive,
    })
}

fn write_bundle(bundle: &Path, shadow: &Value) -> io::Result<()> {
    fs::create_dir(bundle)?;
    fs::write(bundle.join("config.json"), shadow.to_string())
}
