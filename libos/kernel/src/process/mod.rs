//! Processes and threads: their lives, families, groups and credentials.

pub mod capabilities;
pub mod clone;
pub mod cpuid;
mod credentials;
pub mod exec;
pub mod exit;
pub mod ids;
pub mod limits;
pub mod login;
pub mod namespaces;
pub mod outside;
pub mod peer;
pub mod prctl;
pub mod ptrace;
pub mod reboot;
pub mod sysinfo;
mod tasks;
#[cfg(test)]
pub(crate) mod testing;
mod thread;
pub(crate) mod user_namespace;
pub mod users;
pub mod uts;
pub mod wait;

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::boundary::config::Rlimit;

pub use clone::thread_started;
pub use credentials::Credentials;
pub use exit::{begin_group_exit, exit_group_signal, exit_killed, job_event};
pub use namespaces::Namespaces;
pub use outside::Outside;
pub use peer::may_trace;
pub use tasks::{PID_MAX, Tasks};
pub use thread::{Life, Process, Thread};
pub use uts::Uts;

use crate::fs::{FdTable, FsContext};
use crate::mm::AddressSpace;

/// What a process without a parent is made of.
#[derive(Debug)]
pub(crate) struct InitParts {
    pub mm: Arc<AddressSpace>,
    pub files: Arc<FdTable>,
    pub fs: Arc<FsContext>,
    pub credentials: Credentials,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: i32,
    pub outside: Option<Outside>,
}
