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
    /// `SECBIT_*`.
    pub securebits: u32,
}

/// The bits of `securebits`, each with a lock one bit above it (capabilities(7), "The securebits flags").
pub mod securebits {
    pub const NOROOT: u32 = 1;
    pub const NO_SETUID_FIXUP: u32 = 1 << 2;
    pub const KEEP_CAPS: u32 = 1 << 4;
    pub const KEEP_CAPS_LOCKED: u32 = 1 << 5;
    pub const NO_CAP_AMBIENT_RAISE: u32 = 1 << 6;
    pub const ALL_BITS: u32 = 0x55;
    pub const ALL_LOCKS: u32 = ALL_BITS << 1;
}

impl Credentials {
    /// Whether one of `SECBIT_*` is set.
    #[must_use]
    pub fn has_securebit(&self, bit: u32) -> bool {
        self.securebits & bit != 0
    }

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
