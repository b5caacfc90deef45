//! The OCI lifecycle: `create`, `start`, `state`, `kill`, `delete`, `list` on bundles, through libcontainer.
//!
//! | module | idea |
//! | --- | --- |
//! | [`spec`] | `config.json`, read and checked; every complaint names the field |
//! | [`checks`] | what of it the specification or runc refuses beyond its form |
//! | `process` `mounts` `seccomp` | the parts of it that are the guest's, as the libOS takes them |
//! | `shadow` | the rest of it: the bundle that libcontainer sees |
//! | `launch` | what the VMM process is handed, and the descriptors it comes with |
//! | [`complaints`] | why libcontainer's processes fail |
//! | `executor` | libcontainer's callback: executes the VMM |
//! | [`state`] | the state directory: records, locks, status |
//! | [`control`] [`update`] | what is asked of a running container: its processes, its limits |
//! | [`exec`] [`described`] | what `exec` runs; the process of a container without a bundle in the specification's words |
//! | [`figures`] | what a container uses, as `events` prints it |
//! | `labels` | labels of AppArmor and SELinux |
//! | `userns` [`idmap`] | the container's user namespace; mounts whose ids are mapped |
//! | `network` | the loopback of a new network namespace |
//! | [`mountinfo`] | what part of its file system a mount shows |
//! | `program` | whether the program is there, for `create` |
//! | [`death`] | how the VMM ended, where that is nobody's plan |
//! | `cgroup` | finding, killing and removing what a container left |
//! | [`systemd`] | cgroups that systemd makes |
//! | `hooks` | the hooks husk runs itself, and the relay for those libcontainer runs |
//! | [`lifecycle`] | the verbs |
//!
//! # Why a shadow bundle
//! libcontainer's container is the **VMM**, which needs other things than the workload: it runs as user 0 with
//! few capabilities, without the workload's limits and seccomp profile. What the specification says about the
//! workload is taken out and carried to the guest, where the libOS enforces it (docs/lifecycle.md).
//!
//! # What is true when
//! A container's directory appears before anything else and goes last, so whatever a killed command leaves is
//! found. While a container is made its maker holds a lock; a directory without a complete record whose lock
//! is free is a leftover, and whoever meets it removes it with its cgroup and processes. Status is never
//! stored: it is read from the process.

pub mod cgroup;
pub mod checks;
pub mod complaints;
pub mod console;
pub mod control;
pub mod death;
pub mod described;
pub mod exec;
pub mod executor;
pub mod figures;
pub mod hooks;
pub mod idmap;
mod labels;
pub mod launch;
pub mod lifecycle;
pub mod mountinfo;
pub mod mounts;
mod network;
mod pidfd;
pub mod process;
mod program;
mod seccomp;
pub mod shadow;
pub mod socket;
pub mod spec;
pub mod state;
pub mod systemd;
pub mod update;
pub mod userns;

/// What can go wrong with a container.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("{0}")]
    Spec(#[from] spec::Error),
    #[error("{0}")]
    State(#[from] state::Error),
    #[error("{0}")]
    Hook(#[from] hooks::Error),
    #[error("{0}")]
    Vmm(#[from] crate::vmm::Error),
    #[error("{0}")]
    Plan(#[from] crate::plan::Error),
    #[error("cannot make the container: {0}")]
    Libcontainer(String),
    #[error("cannot start container {id}: {message}")]
    Start {
        id: String,
        message: String,
        status: u8,
        /// The message stands on standard error already.
        told: bool,
    },
    #[error("cannot {what}: {source}")]
    Host {
        what: String,
        source: std::io::Error,
    },
    #[error("the container's cgroup cannot be {what}: {message}")]
    Cgroup { what: &'static str, message: String },
    #[error("unknown signal {0:?}: give a name such as TERM or a number from 0 to 64")]
    Signal(String),
    #[error(
        "this needs namespaces and a cgroup, which root alone can make, and not with --rootless=true"
    )]
    NotRoot,
    #[error("container not running")]
    NotRunning,
    #[error("container not paused")]
    NotPaused,
    #[error("cannot exec in a stopped container")]
    ExecStopped,
    #[error("cannot exec in a container that has not started")]
    ExecCreated,
    #[error("cannot exec in a paused container (use --ignore-paused to override)")]
    ExecPaused,
    #[error("the container's VMM does not answer: {0}")]
    Control(std::io::Error),
    #[error("{0}")]
    Refused(String),
    #[error("cannot start an already running container")]
    AlreadyRunning,
    #[error("cannot start a container that has stopped")]
    AlreadyStopped,
    #[error("cannot start a container in the paused state")]
    StartPaused,
    #[error("container with id {0} is not running")]
    NoEvents(String),
    #[error(
        "the processes inside are not to be had while the container is paused: resume it, or use --format json for those outside"
    )]
    PsPaused,
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped { id: String, status: state::Status },
}

impl Error {
    pub(crate) fn host(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Host { what, source }
    }
}
