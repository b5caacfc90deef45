//! What `uname(2)` says.

use alloc::string::String;
use alloc::vec::Vec;

use crate::sync::SpinLock;

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
    pub fn new(hostname: &String) -> Self {
        Self {
            hostname: SpinLock::new(hostname.as_bytes().to_vec()),
            domainname: SpinLock::new(b"(none)".to_vec()),
        }
    }
}
