//! The process part of the container's specification, as the libOS needs it; carried as postcard.

use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// What kind of file a standard stream is on the host; `fstat` and `isatty` in the guest follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamKind {
    /// Closed on the host: the descriptor does not exist in the guest.
    Closed,
    /// A pipe or FIFO.
    Pipe,
    /// A regular file.
    File,
    /// A socket.
    Socket,
    /// A terminal.
    Terminal,
    /// `/dev/null`.
    Null,
    /// Any other character device.
    CharDevice,
}

/// A resource limit (`getrlimit(2)`); `u64::MAX` is `RLIM_INFINITY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_*`.
    pub resource: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// How the libOS logs to the log ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogLevel {
    /// Only what makes the libOS stop.
    Error,
    /// Also what is odd.
    Warn,
    /// Also milestones.
    Info,
    /// Everything, per-syscall lines included.
    Debug,
}

/// A directory (or file) of the host that the VMM serves, see [`super::fuse`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Where it is mounted: an absolute path in the container; `/` for the root.
    pub target: Vec<u8>,
    /// What `/proc/mounts` shows as its source.
    pub source: Vec<u8>,
    /// Nothing may be changed.
    pub read_only: bool,
}

/// Everything about the first process and its surroundings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestConfig {
    /// `argv`; the first is looked up in `PATH` as execvpe(3) does. Not UTF-8 by necessity.
    pub args: Vec<Vec<u8>>,
    /// `KEY=VALUE` strings.
    pub env: Vec<Vec<u8>>,
    /// Absolute working directory; created if the image lacks it.
    pub cwd: Vec<u8>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
    /// The five capability sets as bit masks: bounding, effective, inheritable, permitted, ambient.
    pub capabilities: [u64; 5],
    /// `no_new_privs`.
    pub no_new_privileges: bool,
    /// Resource limits that differ from the default.
    pub rlimits: Vec<Rlimit>,
    /// `uname` nodename.
    pub hostname: String,
    /// Kinds of standard input, output and error.
    pub streams: [StreamKind; 3],
    /// Log threshold.
    pub log_level: LogLevel,
    /// Trees of the host, in the order they are mounted. If the first is for `/` it is the root; else the root is
    /// `BootInfo::root_archive`.
    pub trees: Vec<Tree>,
    /// Collect per-site counters of system calls that trap (`--stats`).
    pub count_sites: bool,
}

/// Encodes `config` for the boot-info page's `config` range.
///
/// # Errors
/// Only if memory for the encoding runs out.
pub fn encode(config: &GuestConfig) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_allocvec(config)
}

/// Decodes what [`encode`] made.
///
/// # Errors
/// When `bytes` is not such an encoding.
pub fn decode(bytes: &[u8]) -> Result<GuestConfig, postcard::Error> {
    postcard::from_bytes(bytes)
}
