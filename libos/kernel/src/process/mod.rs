//! Processes and threads: their lives, families, groups and credentials.

mod credentials;
mod tasks;
mod thread;
mod uts;

pub use credentials::Credentials;
pub use tasks::Tasks;
pub use thread::{Process, Thread};
pub use uts::Uts;
