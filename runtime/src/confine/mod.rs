//! Confinement of the VMM process, its first layer: what it keeps is what it needs.
//!
//! | module | what |
//! | --- | --- |
//! | `descriptors` | all are closed but those it was handed |
//! | `privileges` | capabilities, `no_new_privs`, no core dumps |
//! | `arenas` | an allocator that asks nothing of the host |
//! | `files` | landlock: what is not below the container's root cannot be reached, nothing can be executed |
//! | [`rules`] | system calls, with a reason for each |
//! | `filter` | the rules as seccomp filters: one for the process, a narrower one for each kind of thread |
//! | [`show`] | what of this holds for a process (`husk check --jail`) |
//!
//! The outer walls (namespaces, cgroup, the root) are libcontainer's. The guest's own seccomp profile is not this
//! one: the libOS enforces it.

mod arenas;
mod descriptors;
mod files;
mod filter;
mod privileges;
pub mod rules;
pub mod show;

use std::io;

use crate::gate::fuse::TreeSource;

pub use descriptors::close_all_but;
pub use filter::enter_thread;

/// Why a process could not be confined.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("cannot {what}: {source}")]
    System {
        what: &'static str,
        source: io::Error,
    },
    #[error("cannot restrict files: {0}")]
    Landlock(#[from] landlock::RulesetError),
    #[error("cannot make the system call filter: {0}")]
    Seccomp(#[from] seccompiler::BackendError),
    #[error("cannot install the system call filter: {0}")]
    Install(#[from] seccompiler::Error),
}

/// How much of the file system the VMM serves.
#[derive(Clone, Copy, Debug)]
pub enum Files<'a> {
    /// What is below its own root, and those of these that are held.
    OwnRoot(&'a [TreeSource]),
    /// What is below these: none if the root came as an archive.
    Trees(&'a [TreeSource]),
}

impl Files<'_> {
    fn is_none(self) -> bool {
        matches!(self, Self::Trees([]))
    }
}

/// Confines the process. To be called while it has one thread, when everything it needs from outside is open.
///
/// # Errors
/// [`Error`]; the process must end then.
pub fn enter_process(serves: Files<'_>) -> Result<(), Error> {
    arenas::bound();
    privileges::enter(serves)?;
    files::enter(serves)?;
    filter::enter_process()
}

/// Confines a process that is also the command: it still removes what it made of the host's files.
///
/// # Errors
/// As [`enter_process`].
pub fn enter_command() -> Result<(), Error> {
    arenas::bound();
    privileges::enter(Files::OwnRoot(&[]))?;
    filter::enter_process()
}
