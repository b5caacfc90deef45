//! From what was asked for to what will be done: the process, its limits and surroundings.
//!
//! | stage | type |
//! | --- | --- |
//! | typed | [`crate::cli::args::RunArgs`] |
//! | meaning | [`Request`] |
//! | plan | [`Plan`], made by [`Request::plan`] with the image at hand |
//!
//! What Docker does with the same words is the rule where there is one.

mod command;
mod env;
mod host;
mod limits;
mod users;
mod volumes;

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use husk_abi::boundary::config::{GuestConfig, LogLevel, ProcessConfig, Rlimit};
use husk_abi::boundary::log::ROOMS;
use husk_images::{Digest, ImageConfig, Stack};

use crate::gate::fuse::TreeSource;
use crate::oci::mounts::default_mounts;
pub use host::{Host, stream_kind};
pub use limits::{Cpus, MemorySize};
pub use volumes::Volume;

/// What can be wrong with a request that is well-formed word by word.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("the image names no command to run: give one after --")]
    NoCommand,
    #[error("--env {0:?} has no name before the =")]
    EnvWithoutName(String),
    #[error("{what} {text:?} holds a NUL byte")]
    Nul { what: &'static str, text: String },
    #[error("the working directory {0:?} is not an absolute path")]
    RelativeWorkdir(String),
    #[error("{0:?} is no host name: give 1 to 64 letters, digits, dots, dashes or underscores")]
    Hostname(String),
    #[error("{0:?} is no user: give USER or USER:GROUP, names or numbers")]
    UserForm(String),
    #[error("user {0:?} is not in the image's /etc/passwd")]
    UnknownUser(String),
    #[error("group {0:?} is not in the image's /etc/group")]
    UnknownGroup(String),
    #[error("cannot read {path} of the image: {source}")]
    ImageFile {
        path: &'static str,
        source: std::io::Error,
    },
    #[error("--memory {asked} is too little: a container needs at least {minimum}")]
    MemoryTooSmall {
        asked: MemorySize,
        minimum: MemorySize,
    },
    #[error("--memory {asked} is more than this host has ({host})")]
    MemoryTooLarge { asked: MemorySize, host: MemorySize },
    #[error(
        "--cpus {asked}: range of CPUs is from 0.01 to {host}.00, as there are only {host} CPUs available"
    )]
    TooManyCpus { asked: Cpus, host: u32 },
    #[error(
        "--cpus cannot be kept to: nobody but root, and with cgroups, can have the host limit CPU time; leave it out or run husk as root"
    )]
    CpusWithoutCgroup,
    #[error("cannot use {} as a volume: {source}", path.display())]
    Volume {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("two volumes are for {0:?}")]
    TwoVolumes(String),
    #[error("cannot learn about this host: {what}: {source}")]
    Host {
        what: &'static str,
        source: std::io::Error,
    },
}

/// What is to run: an image with everything ready.
#[derive(Debug)]
pub struct ImageAtHand {
    /// Its id.
    pub digest: Digest,
    /// What it says about running it.
    pub config: ImageConfig,
    /// Its files.
    pub root: Stack,
    /// The same for the guest.
    pub files: RootFiles,
}

/// How the guest gets its root file system.
#[derive(Debug)]
pub enum RootFiles {
    /// In its memory, from a cpio archive.
    Archive(File),
    /// By the file service.
    Tree(TreeSource),
}

/// A run as the user means it; checked against the host, not yet against the image.
#[derive(Debug)]
pub struct Request {
    /// `NAME=VALUE` sets, `NAME` passes on or removes.
    pub env: Vec<OsString>,
    /// Instead of the image's.
    pub workdir: Option<OsString>,
    /// Bytes of memory the container may use.
    pub memory: MemorySize,
    /// Instead of one made of the container's id.
    pub hostname: Option<String>,
    /// Instead of the image's; empty: none.
    pub entrypoint: Option<OsString>,
    /// Instead of the image's.
    pub user: Option<String>,
    /// Instead of the image's; empty: the image's.
    pub command: Vec<OsString>,
    /// Where records go.
    pub trace: Option<PathBuf>,
    /// Directories of the host in the container.
    pub volumes: Vec<Volume>,
    /// When to give up.
    pub timeout: Option<Duration>,
    /// Count what happens in the guest for a report.
    pub stats: bool,
    /// What it reaches outside itself.
    pub network: Network,
    /// How much the libOS logs, by room.
    pub log_levels: [LogLevel; ROOMS.len()],
}

/// What a container reaches outside itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Network {
    /// Nothing: its processes reach each other only
    #[default]
    None,
    /// What the host reaches, and its loopback addresses
    Host,
}

/// A run, complete.
#[derive(Debug)]
pub struct Plan {
    /// Bytes of memory the container may use.
    pub memory_bytes: u64,
    /// The root file system as a cpio archive, unless the first tree is the root.
    pub root_archive: Option<File>,
    /// What of the host is served to the guest: one for each of the guest's trees.
    pub trees: Vec<TreeSource>,
    /// Whether it has sockets of the host.
    pub has_sockets: bool,
    /// What the libOS is to run.
    pub guest: GuestConfig,
    /// Where records go.
    pub trace: Option<PathBuf>,
    /// Digest of the image.
    pub image: String,
    /// When to give up.
    pub timeout: Option<Duration>,
}

/// The least memory a container is given.
const MINIMUM_MEMORY: MemorySize = MemorySize {
    bytes: crate::vmm::MINIMUM_BYTES,
};

/// Docker's default capabilities (moby, oci/caps/defaults.go): CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL,
/// SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
const DEFAULT_CAPABILITIES: u64 = {
    let numbers = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31];
    let (mut mask, mut index) = (0, 0);
    while index < numbers.len() {
        mask |= 1 << numbers[index];
        index += 1;
    }
    mask
};

/// Soft limit of open files.
const DEFAULT_OPEN_FILES: u64 = 1024;

impl Request {
    /// Checks what can be known without the image.
    ///
    /// # Errors
    /// Memory the host does not have and names that cannot be.
    pub fn check(&self, host: &Host) -> Result<(), Error> {
        if self.memory < MINIMUM_MEMORY {
            return Err(Error::MemoryTooSmall {
                asked: self.memory,
                minimum: MINIMUM_MEMORY,
            });
        }
        if self.memory.bytes > host.memory.bytes {
            return Err(Error::MemoryTooLarge {
                asked: self.memory,
                host: host.memory,
            });
        }
        if let Some(name) = &self.hostname {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if !(1..=64).contains(&name.len()) || !name.bytes().all(fits) || name.starts_with('-') {
                return Err(Error::Hostname(name.clone()));
            }
        }
        if let Some(workdir) = &self.workdir {
            absolute(workdir.as_bytes())?;
        }
        env::check(&self.env)
    }

    /// Completes the request with what the image says.
    ///
    /// # Errors
    /// [`Error`].
    pub fn plan(self, id: &str, image: ImageAtHand, host: &Host) -> Result<Plan, Error> {
        let config = &image.config;
        let args = command::arguments(
            &config.entrypoint,
            &config.cmd,
            self.entrypoint.as_deref(),
            &self.command,
        )?;
        let user = users::resolve(self.user.as_deref().unwrap_or(&config.user), &image.root)?;
        let hostname = self.hostname.unwrap_or_else(|| id[..12].to_owned());
        let env = env::compose(&env::Sources {
            image: &config.env,
            typed: &self.env,
            hostname: &hostname,
            home: &user.home,
            has_terminal: host.has_terminal(),
        });
        let cwd = match (&self.workdir, config.working_dir.as_str()) {
            (Some(typed), _) => typed.clone().into_vec(),
            (None, "") => b"/".to_vec(),
            (None, from_image) => from_image.as_bytes().to_vec(),
        };
        absolute(&cwd)?;
        let (soft, hard) = host.open_files;
        let (root_archive, root) = match image.files {
            RootFiles::Archive(file) => (Some(file), None),
            RootFiles::Tree(tree) => (None, Some(tree)),
        };
        let mut volumes = self.volumes;
        if self.network == Network::Host {
            volumes.extend(Volume::names_of_hosts(&volumes));
        }
        let (sources, trees) = volumes::trees(root, &volumes)?;
        // As Docker: a user other than root keeps the bounding set only.
        let held = if user.uid == 0 {
            DEFAULT_CAPABILITIES
        } else {
            0
        };
        Ok(Plan {
            memory_bytes: self.memory.bytes,
            root_archive,
            trees: sources,
            has_sockets: self.network == Network::Host,
            guest: GuestConfig {
                process: ProcessConfig {
                    args,
                    env,
                    cwd,
                    uid: user.uid,
                    gid: user.gid,
                    additional_gids: user.additional_gids,
                    umask: 0o022,
                    capabilities: [DEFAULT_CAPABILITIES, held, 0, held, 0],
                    no_new_privileges: false,
                    rlimits: vec![Rlimit {
                        resource: husk_abi::linux::general::RLIMIT_NOFILE,
                        // As `runc spec` has it: select(2) users break above.
                        soft: soft.min(DEFAULT_OPEN_FILES),
                        hard,
                    }],
                    oom_score_adj: 0,
                    streams: host.streams,
                    handed: Vec::new(),
                    window: None,
                },
                trees,
                hostname,
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
                terminal: host.has_terminal(),
                log_levels: self.log_levels,
                count_sites: self.stats,
            },
            trace: self.trace,
            image: image.digest.to_string(),
            timeout: self.timeout,
        })
    }
}

fn absolute(path: &[u8]) -> Result<(), Error> {
    let text = || String::from_utf8_lossy(path).into_owned();
    if path.contains(&0) {
        return Err(Error::Nul {
            what: "the working directory",
            text: text(),
        });
    }
    if path.first() != Some(&b'/') {
        return Err(Error::RelativeWorkdir(text()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
