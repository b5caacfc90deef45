//! System V inter-process communication (`sysvipc(7)`), and POSIX message queues (`mq_overview(7)`).
//!
//! | module | what |
//! | --- | --- |
//! | `objects` | what message queues, semaphore sets and memory segments have in common: keys, numbers, permissions |
//! | `msg` | message queues |
//! | `sem`, `undo` | semaphores, and what a process's end undoes |
//! | `shm` | shared memory segments |
//! | [`limits`] | how much there may be of these |
//! | `mqueue` | POSIX message queues and the file system they are seen in |
//! | `wire` | the structs programs see |
//! | `show` | `/proc/sysvipc` |
//!
//! Everything belongs to a [`Namespace`]. Locks: a table of objects, then an object; neither is held over user memory.

pub mod limits;
pub mod mqueue;
pub mod msg;
mod objects;
pub mod sem;
pub mod shm;
pub mod show;
mod undo;
mod wire;

use alloc::sync::Arc;

pub use undo::Undo;

use self::limits::Limits;
use self::objects::Table;
use crate::process::namespaces::next_number;
use crate::sync::SpinLock;

/// What Linux calls its first namespace (`PROC_IPC_INIT_INO`).
const FIRST: u32 = 0xefff_ffff;

/// An IPC namespace (`ipc_namespaces(7)`).
#[derive(Debug)]
pub struct Namespace {
    number: u32,
    queues: SpinLock<Table<msg::Queue>>,
    sets: SpinLock<Table<sem::Set>>,
    segments: SpinLock<Table<shm::Segment>>,
    /// How much it may hold.
    pub limits: Limits,
    /// POSIX message queues.
    pub mqueue: Arc<mqueue::MqueueFs>,
}

impl Namespace {
    /// The container's first. `device` is the number of the file system of its POSIX message queues.
    #[must_use]
    pub fn first(device: u64, limits: Limits) -> Arc<Self> {
        Self::numbered(FIRST, device, limits)
    }

    /// Another, without any object.
    #[must_use]
    pub fn new(device: u64) -> Arc<Self> {
        Self::numbered(next_number(), device, Limits::default())
    }

    /// What it is called in `/proc/PID/ns`.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    fn numbered(number: u32, device: u64, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            number,
            queues: SpinLock::default(),
            sets: SpinLock::default(),
            segments: SpinLock::default(),
            limits,
            mqueue: mqueue::MqueueFs::new(device),
        })
    }
}

/// Seconds since the epoch.
fn now() -> i64 {
    crate::fs::anon::wall_ns() / 1_000_000_000
}
