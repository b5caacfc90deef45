//! Files that only memory holds (`memfd_create(2)`).

use husk_abi::linux::general;

use super::tmpfs::{Options, Tmpfs};
use super::{Create, File, FileKind, Inode};
use crate::syscall::{Hex, Path};
use crate::{Errno, SysResult, Thread};

/// The longest name, without its NUL (`NAME_MAX` less the `memfd:` before it).
const NAME_LEN: usize = 249;

/// What the call accepts. Huge pages (`MFD_HUGETLB`) are refused as a kernel without hugetlbfs refuses them.
const KNOWN: u32 = general::MFD_CLOEXEC
    | general::MFD_ALLOW_SEALING
    | general::MFD_NOEXEC_SEAL
    | general::MFD_EXEC;

/// The file system the files lie in; it is mounted nowhere.
static FILES: spin::Once<alloc::sync::Arc<Tmpfs>> = spin::Once::new();

/// `memfd_create(2)`.
///
/// # Errors
/// `EINVAL` for unknown flags or too long a name, `EFAULT`, `ENOSYS` for huge pages, `EMFILE`, `ENOSPC`.
pub fn memfd_create(t: &Thread, name: Path, flags: Hex) -> SysResult {
    const EXECUTABLE: u32 = general::MFD_EXEC;
    const SEALED: u32 = general::MFD_NOEXEC_SEAL;
    let flags = flags as u32;
    if flags & general::MFD_HUGETLB != 0 {
        return Err(Errno::ENOSYS);
    }
    if flags & !KNOWN != 0 || flags & (EXECUTABLE | SEALED) == EXECUTABLE | SEALED {
        return Err(Errno::EINVAL);
    }
    let name = name.read_cstr(NAME_LEN + 1).map_err(|error| match error {
        Errno::ENAMETOOLONG => Errno::EINVAL,
        error => error,
    })?;
    let credentials = t.credentials();
    let never_executable = flags & SEALED != 0;
    let files = FILES.call_once(|| Tmpfs::new(t.kernel, Options::default(), 0o777, 0, 0));
    let node = files.unnamed(&Create {
        kind: FileKind::Regular,
        mode: if never_executable { 0o666 } else { 0o777 },
        uid: credentials.fsuid,
        gid: credentials.fsgid,
        rdev: 0,
        target: b"",
    })?;
    if never_executable {
        node.set_seals(general::F_SEAL_EXEC)?;
    } else if flags & general::MFD_ALLOW_SEALING != 0 {
        node.set_seals(0)?;
    }
    let access = general::O_RDWR | general::O_LARGEFILE;
    let mut path = b"/memfd:".to_vec();
    path.extend_from_slice(&name);
    let file = File::new(node.clone().open(t, access)?, node, path, access);
    let fd = t
        .files()
        .alloc(t, file, flags & general::MFD_CLOEXEC != 0)?;
    Ok(fd as usize)
}
