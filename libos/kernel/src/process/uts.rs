//! What `uname(2)` says.

use alloc::string::String;
use alloc::vec::Vec;

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

/// Host and domain name of the container.
#[derive(Debug)]
pub struct Uts {
    /// Node name.
    pub hostname: SpinLock<Vec<u8>>,
    /// NIS domain name.
    pub domainname: SpinLock<Vec<u8>>,
}

impl Uts {
    /// Names a container starts with.
    #[must_use]
    pub fn new(hostname: &String, domainname: Option<&String>) -> Self {
        Self {
            hostname: SpinLock::new(hostname.as_bytes().to_vec()),
            domainname: SpinLock::new(
                domainname.map_or_else(|| b"(none)".to_vec(), |name| name.as_bytes().to_vec()),
            ),
        }
    }
}
