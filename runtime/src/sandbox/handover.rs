//! What the command that makes a container hands to the VMM process: one encoded value in a memory file, and open
//! descriptors, by number.
#![allow(unsafe_code, reason = "descriptors that were inherited by number")]

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use husk_abi::boundary::config::GuestConfig;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::record::Options;

/// A descriptor by its number, the same in the process that opened it and in the one it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inherited(RawFd);

impl Inherited {
    /// The number.
    #[must_use]
    pub fn number(self) -> RawFd {
        self.0
    }

    /// Takes the descriptor, in the process that was executed with it.
    ///
    /// Each may be taken once.
    #[must_use]
    pub fn take(self) -> OwnedFd {
        // SAFETY: the handover came from husk itself, which left the descriptor open for this process, and
        // nobody else in this process knows its number.
        unsafe { OwnedFd::from_raw_fd(self.0) }
    }
}

impl<T: AsRawFd> From<&T> for Inherited {
    fn from(file: &T) -> Self {
        Self(file.as_raw_fd())
    }
}

/// The container's root, and what else of the host is shown in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// What the VMM process sees as its own root, the host's mounts included.
    Own {
        /// Which of the guest's mounts are not there but held, because their ids are mapped.
        mapped: Vec<(usize, Inherited)>,
    },
    /// What it is handed; the first tree is the root unless there is a cpio archive.
    Held {
        /// The archive.
        archive: Option<Inherited>,
        /// One for each of the guest's trees.
        trees: Vec<HeldTree>,
    },
}

/// A tree of the host's files that is held by a descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldTree {
    /// Its top, by `O_PATH`.
    pub file: Inherited,
    /// What it is called.
    pub path: PathBuf,
    /// Nothing in it may be changed.
    pub read_only: bool,
    /// Nobody else changes it.
    pub exclusive: bool,
}

/// A recording.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trace {
    /// Where records go.
    pub file: Inherited,
    /// What it is called.
    pub path: PathBuf,
    /// Digest of the image.
    pub image: String,
    /// What is recorded and how.
    pub options: Options,
}

/// Where log lines go.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Log {
    /// The log file; without one they go to standard error.
    pub file: Option<Inherited>,
    /// In JSON.
    pub json: bool,
    /// Which lines, as `tracing_subscriber` writes its filters.
    pub targets: String,
    /// Whether more than warnings is asked for.
    pub is_verbose: bool,
}

/// Everything the VMM process needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Handover {
    /// The container's id.
    pub id: String,
    /// Bytes of memory the container may use.
    pub memory_bytes: u64,
    /// Whether it may use less than two CPUs.
    pub is_short_of_cpus: bool,
    /// Its root.
    pub root: Root,
    /// What the libOS is to run. An empty host name means that of the VMM's namespace.
    pub guest: GuestConfig,
    /// Whether it has sockets of the host.
    pub has_sockets: bool,
    /// `/dev/kvm`.
    pub kvm: Inherited,
    /// Where the start is reported.
    pub report: Inherited,
    /// The control socket, listening.
    pub control: Option<Inherited>,
    /// What the first process is handed, in the order of its description.
    pub handed: Vec<Inherited>,
    /// Where it is told that memory ran out.
    pub memory_events: Inherited,
    /// The limit of memory of the cgroup, where the host's kernel enforces one by killing.
    pub cgroup_limit: Option<u64>,
    /// Another libOS than the built-in one, for its developers.
    pub libos: Option<Inherited>,
    /// Where gdb is waited for.
    pub gdb: Option<Inherited>,
    /// A recording.
    pub trace: Option<Trace>,
    /// The log.
    pub log: Option<Log>,
    /// When to give up.
    pub timeout: Option<Duration>,
    /// Print a table of where time went.
    pub stats: Option<Before>,
}

/// What went before the VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// When the command began, as [`monotonic`] has it.
    pub began: Duration,
    /// How long it took to get the image ready.
    pub image: Duration,
}

/// Time since boot, the same for all processes.
#[must_use]
pub fn monotonic() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Into::into)
}

impl Handover {
    /// The descriptors it names.
    #[must_use]
    pub fn descriptors(&self) -> Vec<RawFd> {
        let mut all = vec![self.kvm.0, self.report.0, self.memory_events.0];
        match &self.root {
            Root::Own { mapped } => all.extend(mapped.iter().map(|(_, tree)| tree.0)),
            Root::Held { archive, trees } => {
                all.extend(archive.map(|file| file.0));
                all.extend(trees.iter().map(|tree| tree.file.0));
            }
        }
        all.extend(self.handed.iter().map(|file| file.0));
        all.extend(self.gdb.map(|socket| socket.0));
        all.extend(self.control.map(|socket| socket.0));
        all.extend(self.libos.map(|file| file.0));
        all.extend(self.trace.as_ref().map(|trace| trace.file.0));
        all.extend(
            self.log
                .as_ref()
                .and_then(|log| log.file)
                .map(|file| file.0),
        );
        all
    }

    /// Writes it into a memory file.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn seal(&self) -> io::Result<File> {
        let bytes = postcard::to_allocvec(self).map_err(io::Error::other)?;
        let mut file = File::from(memfd_create(c"husk-handover", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(&bytes)?;
        Ok(file)
    }

    /// Reads it from the descriptor `number`, and closes that.
    ///
    /// # Errors
    /// When it is none.
    pub fn open(number: RawFd) -> io::Result<Self> {
        let mut file = File::from(Inherited(number).take());
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        postcard::from_bytes(&bytes).map_err(io::Error::other)
    }
}
