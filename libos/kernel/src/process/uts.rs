//! What `uname(2)` says.

use alloc::string::String;
use alloc::vec::Vec;

use super::namespaces::next_number;
use crate::sync::SpinLock;

/// `uname -s`: the interface programs expect.
pub const SYSNAME: &str = "Linux";
/// `uname -r`: the Linux version whose interface this is, and who implements it.
pub const RELEASE: &str = "6.12.0-husk";
/// `uname -v`.
pub const VERSION: &str = "#1 SMP husk";
/// `uname -m`.
pub const MACHINE: &str = "x86_64";
/// The longest host or domain name (`__NEW_UTS_LEN`).
pub const NAME_MAX: usize = 64;

/// What Linux calls its first one (`PROC_UTS_INIT_INO`).
const FIRST: u32 = 0xefff_fffe;

/// Host and domain name of the container.
#[derive(Debug)]
pub struct Uts {
    number: u32,
    /// Node name.
    pub hostname: SpinLock<Vec<u8>>,
    /// NIS domain name.
    pub domainname: SpinLock<Vec<u8>>,
}

impl Uts {
    /// What it is called in `/proc/PID/ns`.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The same names, to be changed on their own (`CLONE_NEWUTS`).
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            number: next_number(),
            hostname: SpinLock::new(self.hostname.lock().clone()),
            domainname: SpinLock::new(self.domainname.lock().clone()),
        }
    }

    /// Names a container starts with.
    #[must_use]
    pub fn new(hostname: &String, domainname: Option<&String>) -> Self {
        Self {
            number: FIRST,
            hostname: SpinLock::new(hostname.as_bytes().to_vec()),
            domainname: SpinLock::new(
                domainname.map_or_else(|| b"(none)".to_vec(), |name| name.as_bytes().to_vec()),
            ),
        }
    }
}
