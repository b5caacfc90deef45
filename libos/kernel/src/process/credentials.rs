//! User and group ids and capabilities (`credentials(7)`, `capabilities(7)`).

use alloc::vec::Vec;

/// Credentials; threads share one copy until one changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are credentials(7)'s terms")]
pub struct Credentials {
    pub uid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    pub gid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    pub groups: Vec<u32>,
    pub cap_bounding: u64,
    pub cap_effective: u64,
    pub cap_inheritable: u64,
    pub cap_permitted: u64,
    pub cap_ambient: u64,
    pub no_new_privileges: bool,
    pub keep_caps: bool,
}

impl Credentials {
    /// Whether capability `cap` (`CAP_*`) is effective.
    #[must_use]
    pub fn has(&self, cap: u32) -> bool {
        self.cap_effective >> cap & 1 == 1
    }

    /// Whether `gid` is the effective (file system) group or a supplementary one.
    #[must_use]
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.contains(&gid)
    }
}
