//! Who may do what to a file: mode bits and the capabilities that override them (`path_resolution(7)`).

use husk_abi::linux::general;

use super::{Attributes, FileKind};
use crate::process::Credentials;
use crate::{Errno, Result};

bitflags::bitflags! {
    /// What is to be done, in the order of the mode's `rwx` bits.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Access: u32 {
        /// Read the contents, or list the directory.
        const READ = 4;
        /// Change the contents, or the directory's names.
        const WRITE = 2;
        /// Execute the file, or search the directory.
        const EXECUTE = 1;
    }
}

/// Checks `wanted` on a file with `attributes`.
///
/// # Errors
/// `EACCES`.
pub fn check(credentials: &Credentials, attributes: &Attributes, wanted: Access) -> Result<()> {
    let shift = if attributes.is_of(credentials.fsuid) {
        6
    } else if attributes.is_in_group(credentials) {
        3
    } else {
        0
    };
    if wanted.bits() & !(attributes.mode >> shift) & 7 == 0 {
        return Ok(());
    }
    let is_directory = attributes.kind == FileKind::Directory;
    let read_search = if is_directory {
        !wanted.contains(Access::WRITE)
    } else {
        wanted == Access::READ
    };
    if read_search && attributes.is_under(credentials, general::CAP_DAC_READ_SEARCH) {
        return Ok(());
    }
    // Not even root executes a file nobody may execute.
    let executable = is_directory || attributes.mode & 0o111 != 0;
    if (!wanted.contains(Access::EXECUTE) || executable)
        && attributes.is_under(credentials, general::CAP_DAC_OVERRIDE)
    {
        return Ok(());
    }
    Err(Errno::EACCES)
}

/// Whether the caller may do what only the file's owner may.
#[must_use]
pub fn is_owner_or_capable(credentials: &Credentials, attributes: &Attributes) -> bool {
    attributes.is_of(credentials.fsuid) || attributes.is_under(credentials, general::CAP_FOWNER)
}

/// The bits of `mode` that go when somebody without `CAP_FSETID` changes the contents or the owner.
#[must_use]
pub fn set_id_bits(mode: u32) -> u32 {
    let mut bits = mode & general::S_ISUID;
    // Without group execute permission the set-group-ID bit means mandatory locking.
    if mode & general::S_IXGRP != 0 {
        bits |= mode & general::S_ISGID;
    }
    bits
}

/// Checks the sticky bit: in such a directory only the owners of the file and of the directory remove names.
///
/// # Errors
/// `EPERM`.
pub fn check_sticky(
    credentials: &Credentials,
    directory: &Attributes,
    file: &Attributes,
) -> Result<()> {
    if directory.mode & general::S_ISVTX == 0
        || file.is_of(credentials.fsuid)
        || directory.is_of(credentials.fsuid)
        || file.is_under(credentials, general::CAP_FOWNER)
    {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    fn who(fsuid: u32, groups: Vec<u32>, caps: u64) -> Credentials {
        Credentials {
            uid: fsuid,
            euid: fsuid,
            suid: fsuid,
            fsuid,
            gid: 100,
            egid: 100,
            sgid: 100,
            fsgid: 100,
            groups,
            cap_bounding: 0,
            cap_effective: caps,
            cap_inheritable: 0,
            cap_permitted: caps,
            cap_ambient: 0,
            no_new_privileges: false,
            securebits: 0,
        }
    }

    fn file(kind: FileKind, mode: u32) -> Attributes {
        Attributes {
            is_foreign: false,
            dev: 1,
            ino: 1,
            kind,
            mode,
            nlink: 1,
            uid: 1,
            gid: 50,
            rdev: 0,
            size: 0,
            block_size: 4096,
            blocks: 0,
            atime_ns: 0,
            mtime_ns: 0,
            ctime_ns: 0,
        }
    }

    /// Every mode, class and wish against the rule written another way.
    #[test]
    fn mode_bits_matrix() {
        let classes = [
            (who(1, vec![50], 0), 6),
            (who(2, vec![50], 0), 3),
            (who(2, vec![], 0), 0),
        ];
        for mode in 0..0o1000 {
            for (credentials, shift) in &classes {
                for wish in 1..8 {
                    let granted = (mode >> shift & 7) & wish == wish;
                    let result = check(
                        credentials,
                        &file(FileKind::Regular, mode),
                        Access::from_bits_retain(wish),
                    );
                    assert_eq!(result.is_ok(), granted, "{mode:o} {wish} {shift}");
                }
            }
        }
    }

    #[test]
    fn capabilities() {
        let overrider = who(9, vec![], 1 << general::CAP_DAC_OVERRIDE);
        let searcher = who(9, vec![], 1 << general::CAP_DAC_READ_SEARCH);
        let (plain, dir) = (file(FileKind::Regular, 0), file(FileKind::Directory, 0));
        let (r, w, x) = (Access::READ, Access::WRITE, Access::EXECUTE);
        assert!(check(&overrider, &plain, r | w).is_ok());
        assert_eq!(check(&overrider, &plain, x), Err(Errno::EACCES));
        assert!(check(&overrider, &file(FileKind::Regular, 0o010), x).is_ok());
        assert!(check(&overrider, &dir, r | w | x).is_ok());
        assert!(check(&searcher, &plain, r).is_ok());
        assert!(check(&searcher, &plain, r | w).is_err());
        assert!(check(&searcher, &dir, r | x).is_ok());
        assert!(check(&searcher, &dir, w).is_err());
    }
}
