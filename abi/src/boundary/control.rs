//! Requests of the host to the running guest, and the guest's reports: two virtqueues.
//!
//! A message is a [`Request`] or [`Report`] in postcard, cut into buffers that each start with a [`ChunkHeader`]. The guest
//! keeps device-writable buffers queued in `BootInfo::control_in`, which the VMM fills in order; reports are device-readable
//! buffers in `BootInfo::control_out`. The guest rings [`super::doorbell::CONTROL`] after changing either.
//!
//! A *session* is a process that was started from outside with its standard streams, by a number the VMM chooses: 0 is
//! init, the others come from `exec`. Its streams' queues ([`super::stdio`]) lie in a page of its own
//! ([`session_queues`]), zeroed by the VMM before it asks for the process, and its doorbells carry its number. A session is
//! over, and its number free, when its process has ended, its streams are closed and the VMM has released it.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::boot::Virtqueue;
use super::config::{ProcessConfig, WindowSize};

/// Sessions at a time, init's among them.
pub const MAX_SESSIONS: u32 = 128;
/// Bytes of one buffer, header and part of a message.
pub const CHUNK_BYTES: usize = 4096;
/// The longest message, in bytes: one with all the arguments and variables that Linux allows.
pub const MAX_MESSAGE_BYTES: usize = (2 << 20) + (64 << 10);
/// Descriptors of a session's queue.
pub const SESSION_QUEUE_SIZE: u32 = 32;

/// Starts a buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Bytes of the message that follow.
    pub len: u32,
    /// 1 if the message goes on in the next buffer, else 0.
    pub more: u32,
}
super::assert_size!(ChunkHeader, 8);

impl ChunkHeader {
    /// Its size on the wire, in bytes.
    pub const BYTES: usize = 8;

    /// As it lies in a buffer.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        (u64::from(self.more) << 32 | u64::from(self.len)).to_le_bytes()
    }

    /// What [`ChunkHeader::to_bytes`] made.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let word = u64::from_le_bytes(bytes);
        Self {
            len: word as u32,
            more: (word >> 32) as u32,
        }
    }
}

/// The output and input queue of a session whose page is at `gpa`.
#[must_use]
pub fn session_queues(gpa: u64) -> [Virtqueue; 2] {
    [gpa, gpa + 2048].map(|gpa| Virtqueue {
        desc_gpa: gpa,
        avail_gpa: gpa + 16 * u64::from(SESSION_QUEUE_SIZE),
        used_gpa: gpa + 1024,
        size: SESSION_QUEUE_SIZE,
        reserved: 0,
    })
}

/// What the host asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Start a process as this session; answered by [`Report::Started`] or [`Report::Failed`].
    Start(u32, ProcessConfig),
    /// Send this signal to the session's process.
    Signal(u32, i32),
    /// Send this signal to the foreground processes of the session's terminal.
    TerminalSignal(u32, i32),
    /// The session's terminal has another size.
    Resize(u32, WindowSize),
    /// The VMM has let go of the session's streams; answered by [`Report::Released`].
    Released(u32),
    /// Tell of all processes; answered by [`Report::Processes`] with the same number.
    List(u32),
    /// Tell what is used; answered by [`Report::Usage`] with the same number.
    Usage(u32),
    /// Change the container's limits; what is `None` stays. Answered by [`Report::Updated`] with the same number.
    Update(u32, Limits),
    /// Send this signal to init, or to all processes; answered by [`Report::Killed`] with the same number.
    Kill(u32, i32, bool),
    /// Tell the VMM of all that was written to files and waits; answered by [`Report::Settled`] with the same number, and
    /// [`super::doorbell::SETTLED`].
    Settle(u32),
}

/// Limits of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory; more than the machine has is all it has.
    pub memory_bytes: Option<u64>,
    /// Processes and threads; `u64::MAX` for no limit.
    pub pids: Option<u64>,
}

/// What a container uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes of memory handed out.
    pub memory_bytes: u64,
    /// Bytes that may be.
    pub memory_limit_bytes: u64,
    /// Processes and threads.
    pub tasks: u64,
    /// How many there may be; `u64::MAX` without a limit.
    pub tasks_limit: u64,
    /// Processes killed because memory ran out.
    pub oom_kills: u64,
}

/// What kept a process from running its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Obstacle {
    /// There are too many processes, or too little memory.
    Resources,
    /// Its working directory.
    Directory,
    /// The program.
    Program,
    /// Its user or one of its groups.
    User,
}

/// A process, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its id.
    pub pid: u32,
    /// Its parent's; 0 for one started from outside.
    pub ppid: u32,
    /// Its user.
    pub uid: u32,
    /// How long ago it was made, in nanoseconds.
    pub age_ns: u64,
    /// CPU time used, in nanoseconds.
    pub cpu_ns: u64,
    /// Its name (`comm`); empty for a zombie.
    pub name: Vec<u8>,
    /// Its program's file.
    pub executable: Vec<u8>,
    /// The arguments it was given, each ended by a NUL; cut where they are very long.
    pub arguments: Vec<u8>,
}

/// What the guest tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The session's process, with this id, is about to run its program.
    Started(u32, u32),
    /// It cannot, with this errno, because of that. [`Report::Ended`] follows.
    Failed(u32, i32, Obstacle),
    /// The session's process has ended with this wait status.
    Ended(u32, i32),
    /// Nobody has the session's streams open any more.
    Closed(u32),
    /// The guest has let go of the session, too: its number is free.
    Released(u32),
    /// All processes.
    Processes(u32, Vec<ProcessInfo>),
    /// What is used.
    Usage(u32, Usage),
    /// A process was killed because memory ran out; so many were until now.
    OutOfMemory(u64),
    /// Limits were changed, or this errno says why not.
    Updated(u32, Result<(), i32>),
    /// Answers [`Request::Kill`].
    Killed(u32),
    /// Answers [`Request::Settle`].
    Settled(u32),
}

/// Encodes a message.
///
/// # Errors
/// Only if memory for the encoding runs out.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_allocvec(message)
}

/// Decodes what [`encode`] made.
///
/// # Errors
/// When `bytes` is not such an encoding.
pub fn decode<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Result<T, postcard::Error> {
    postcard::from_bytes(bytes)
}
