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

/// What a mount shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// `proc`.
    Proc,
    /// `sysfs`.
    Sysfs,
    /// `tmpfs`; with the flag its first contents are those of the directory it covers.
    Tmpfs(bool),
    /// `devpts`.
    Devpts,
    /// `mqueue`.
    Mqueue,
    /// `cgroup` or `cgroup2`.
    Cgroup,
    /// What the host has mounted there: the root shows it at the same path.
    Host,
}

/// One mount the libOS makes before the first process runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What it shows.
    pub kind: MountKind,
    /// Absolute path in the container; made if it is missing.
    pub target: Vec<u8>,
    /// Its source, as `/proc/self/mountinfo` shows it.
    pub source: Vec<u8>,
    /// `MS_*` (`mount(2)`).
    pub flags: u32,
    /// Options of the file system's own, separated by commas.
    pub data: Vec<u8>,
}

/// A device node beyond the ones every container has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute path.
    pub path: Vec<u8>,
    /// Type and permissions (`S_IFCHR | 0666`).
    pub mode: u32,
    /// Device number as `makedev(3)` packs it.
    pub rdev: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a seccomp rule does with a call (`seccomp(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeccompAction {
    /// Served.
    Allow,
    /// Served, and logged.
    Log,
    /// Fails with this errno.
    Errno(u16),
    /// As with a tracer that is not there: `ENOSYS`.
    Trace,
    /// `SIGSYS` with what it was about.
    Trap,
    /// The thread ends by `SIGSYS`.
    KillThread,
    /// The process ends by `SIGSYS`.
    KillProcess,
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "libseccomp's terms")]
pub enum SeccompOp {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    /// `argument & mask == value`.
    MaskedEqual,
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompArg {
    /// Which of the six.
    pub index: u8,
    /// The comparison.
    pub op: SeccompOp,
    /// Its right-hand side.
    pub value: u64,
    /// The mask of [`SeccompOp::MaskedEqual`].
    pub mask: u64,
}

/// A rule: for these calls, if all conditions hold, this action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompRule {
    /// Numbers.
    pub syscalls: Vec<u32>,
    /// Conditions, all of which must hold.
    pub args: Vec<SeccompArg>,
    /// Action.
    pub action: SeccompAction,
}

/// A seccomp profile; of a call's rules the first that holds decides, one without conditions before all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seccomp {
    /// For calls without a rule that holds.
    pub default_action: SeccompAction,
    /// Calls above this number are newer than the profile: `ENOSYS`, so that programs fall back.
    pub newest: u32,
    /// The rules.
    pub rules: Vec<SeccompRule>,
}

/// How the libOS logs to the log ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LogLevel {
    /// Only what makes the libOS stop.
    Error,
    /// Also what is odd.
    Warn,
    /// Also milestones.
    Info,
    /// Also what happened, event by event.
    Debug,
    /// Also each step.
    Trace,
}

/// A directory (or file) of the host that the VMM serves, see [`super::fuse`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Where it is mounted: an absolute path in the container; `/` for the root.
    pub target: Vec<u8>,
    /// What `/proc/mounts` shows as its source.
    pub source: Vec<u8>,
    /// What it is in its file system, as `/proc/PID/mountinfo` shows it: an absolute path.
    pub root: Vec<u8>,
    /// Nothing may be changed.
    pub read_only: bool,
}

/// Size of a terminal (`ioctl_tty(2)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
    /// Width in pixels, or 0.
    pub x_pixels: u16,
    /// Height in pixels, or 0.
    pub y_pixels: u16,
}

impl WindowSize {
    /// As one word.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        [self.y_pixels, self.x_pixels, self.columns, self.rows]
            .into_iter()
            .fold(0, |bits, field| bits << 16 | u64::from(field))
    }

    /// What [`WindowSize::to_bits`] made.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        let field = |at: u32| (bits >> (16 * at)) as u16;
        Self {
            rows: field(0),
            columns: field(1),
            x_pixels: field(2),
            y_pixels: field(3),
        }
    }
}

/// What a descriptor that a process is handed from outside is on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HandedKind {
    /// Bytes without a position: a pipe, a FIFO, a terminal, another character device, an event descriptor. A channel
    /// ([`super::fuse`]).
    Stream {
        /// `st_mode`; 0 for what has no type.
        mode: u32,
        /// `st_rdev`, as `makedev(3)` packs it.
        rdev: u64,
        /// What `/proc/*/fd` shows, without the number in brackets.
        name: Vec<u8>,
        /// A terminal.
        is_terminal: bool,
    },
    /// A regular file, whose position is the host's. A channel.
    File {
        /// What it is called on the host.
        name: Vec<u8>,
    },
    /// An `AF_UNIX` socket. A channel.
    Unix {
        /// `SOCK_*`.
        kind: u32,
        /// It listens.
        listens: bool,
        /// Its address and its peer's (`struct sockaddr_un`); the peer's is empty if it is not connected.
        names: [Vec<u8>; 2],
        /// User and group of its peer, or of who listens.
        peer: [u32; 2],
    },
    /// An internet socket: one of the socket service ([`super::net`]).
    Inet {
        /// `AF_INET` or `AF_INET6`.
        family: u32,
        /// `SOCK_STREAM` or `SOCK_DGRAM`.
        kind: u32,
        /// It listens.
        listens: bool,
        /// It is connected.
        connected: bool,
    },
}

/// A descriptor that a process is handed from outside, beyond its standard streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// What it is.
    pub kind: HandedKind,
    /// `O_*` flags, as `F_GETFL` gives them.
    pub flags: u32,
}

/// The descriptor that the first of [`ProcessConfig::handed`] becomes; the others follow it.
pub const FIRST_HANDED: u32 = 3;
/// The most there may be.
pub const MAX_HANDED: usize = 240;

/// A process that is started from outside: the first, or one that `exec` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessConfig {
    /// `argv`; the first is looked up in `PATH` as execvpe(3) does. Not UTF-8 by necessity.
    pub args: Vec<Vec<u8>>,
    /// `KEY=VALUE` strings.
    pub env: Vec<Vec<u8>>,
    /// Absolute working directory; for the first process created if the image lacks it.
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
    /// Its `oom_score_adj`.
    pub oom_score_adj: i32,
    /// Kinds of standard input, output and error.
    pub streams: [StreamKind; 3],
    /// What else it is handed.
    pub handed: Vec<Handed>,
    /// Size of the terminal its streams are, if they are one.
    pub window: Option<WindowSize>,
}

/// A range of ids of a user namespace and what they are outside it (`uid_map` in user_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first one inside.
    pub inside: u32,
    /// What that is outside.
    pub outside: u32,
    /// How many there are.
    pub count: u32,
}

/// The user namespace that all of a container's processes are in. The host's kernel keeps files to it, as the VMM is in it,
/// too; the libOS keeps everything else to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespace {
    /// User ids.
    pub uids: Vec<IdRange>,
    /// Group ids.
    pub gids: Vec<IdRange>,
    /// Whether `setgroups(2)` is allowed.
    pub may_setgroups: bool,
}

impl UserNamespace {
    /// Whether `id` is one of `map`.
    #[must_use]
    pub fn has(map: &[IdRange], id: u32) -> bool {
        map.iter()
            .any(|range| id >= range.inside && id - range.inside < range.count)
    }
}

/// Everything about the first process and its surroundings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestConfig {
    /// The first process.
    pub process: ProcessConfig,
    /// `uname` nodename.
    pub hostname: String,
    /// `uname` domainname; `None` leaves Linux's `(none)`.
    pub domainname: Option<String>,
    /// The most processes and threads at a time (`pids.max`).
    pub pids_limit: Option<u64>,
    /// Mounts, in order; `/dev` and its contents among them.
    pub mounts: Vec<Mount>,
    /// Device nodes beyond the ones every container has.
    pub devices: Vec<Device>,
    /// Whether nothing may be written to the root.
    pub root_readonly: bool,
    /// Paths that show nothing.
    pub masked_paths: Vec<Vec<u8>>,
    /// Paths that cannot be written to.
    pub readonly_paths: Vec<Vec<u8>>,
    /// `/proc/sys` settings, names with dots.
    pub sysctl: Vec<(String, String)>,
    /// Its user namespace, unless that is the host's.
    pub user_namespace: Option<UserNamespace>,
    /// Filter of system calls.
    pub seccomp: Option<Seccomp>,
    /// Whether there is a terminal (`/dev/console`).
    pub terminal: bool,
    /// Log thresholds, in the order of [`super::log::ROOMS`].
    pub log_levels: [LogLevel; super::log::ROOMS.len()],
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
