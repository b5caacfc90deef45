//! The user namespace of a container (user_namespaces(7)): one for all its processes, made by the runtime. None can be made
//! inside.

use alloc::vec::Vec;
use core::fmt::Write;

use husk_abi::boundary::config::{IdRange, UserNamespace};

use crate::{Errno, Kernel, Result, Thread};

/// The map of the host's own namespace.
const ALL: [IdRange; 1] = [IdRange {
    inside: 0,
    outside: 0,
    count: u32::MAX,
}];

impl Kernel {
    fn user_namespace(&self) -> Option<&UserNamespace> {
        self.config.user_namespace.as_ref()
    }

    /// Whether `setgroups(2)` is allowed.
    pub(crate) fn may_setgroups(&self) -> bool {
        self.user_namespace().is_none_or(|own| own.may_setgroups)
    }

    /// User ids and what they are outside.
    pub(crate) fn uid_map(&self) -> &[IdRange] {
        self.user_namespace().map_or(&ALL, |own| &own.uids)
    }

    /// Group ids and what they are outside.
    pub(crate) fn gid_map(&self) -> &[IdRange] {
        self.user_namespace().map_or(&ALL, |own| &own.gids)
    }

    /// Checks that `uid` is a user.
    ///
    /// # Errors
    /// `EINVAL`.
    pub(crate) fn check_uid(&self, uid: u32) -> Result<()> {
        check(self.uid_map(), uid)
    }

    /// Checks that `gid` is a group.
    ///
    /// # Errors
    /// `EINVAL`.
    pub(crate) fn check_gid(&self, gid: u32) -> Result<()> {
        check(self.gid_map(), gid)
    }
}

fn check(map: &[IdRange], id: u32) -> Result<()> {
    if UserNamespace::has(map, id) {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

impl Thread {
    /// Whether the caller has capability `cap` in the host's own user namespace, which some privileges take: those that
    /// are about more than what a user namespace holds.
    #[must_use]
    pub fn is_capable(&self, cap: u32) -> bool {
        self.kernel.user_namespace().is_none() && self.credentials().has(cap)
    }
}

/// `/proc/PID/uid_map` and `gid_map`.
pub(crate) fn text(map: &[IdRange]) -> Vec<u8> {
    let mut text = alloc::string::String::new();
    for range in map {
        let _ = writeln!(
            text,
            "{:>10} {:>10} {:>10}",
            range.inside, range.outside, range.count
        );
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_map() {
        let map = [
            IdRange {
                inside: 0,
                outside: 100_000,
                count: 1000,
            },
            IdRange {
                inside: 65_534,
                outside: 200_000,
                count: 1,
            },
        ];
        for (id, is_there) in [
            (0, true),
            (999, true),
            (1000, false),
            (65_533, false),
            (65_534, true),
            (65_535, false),
            (u32::MAX, false),
        ] {
            assert_eq!(check(&map, id).is_ok(), is_there, "{id}");
        }
        assert_eq!(
            text(&map),
            b"         0     100000       1000\n     65534     200000          1\n"
        );
        assert_eq!(text(&ALL), b"         0          0 4294967295\n");
    }
}
