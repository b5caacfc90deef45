//! Extended attributes of names below a handle, and overlayfs' own among them.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{lgetxattr, llistxattr};
use rustix::io::Errno;

/// Names and values.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What makes a directory opaque, with its value `y`: the first needs CAP_SYS_ADMIN, the second is what overlayfs
/// reads when mounted with `userxattr`.
pub(crate) const OPAQUE_KEYS: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// Largest value Linux stores (XATTR_SIZE_MAX).
const MAX_VALUE: usize = 64 << 10;

/// Whether the attribute `key` is one of overlayfs' own.
pub(crate) fn is_overlayfs(key: &[u8]) -> bool {
    [&b"trusted.overlay."[..], b"user.overlay."]
        .iter()
        .any(|prefix| key.starts_with(prefix))
}

/// There is no `getxattrat` on older kernels: the last component below the handle's /proc name is the same file, and
/// the calls used do not follow it.
pub(crate) fn proc_path(dir: &OwnedFd, base: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(base);
    path
}

/// Whether the directory `base` hides what lower layers have of it.
pub(super) fn is_opaque(dir: &OwnedFd, base: &[u8]) -> io::Result<bool> {
    let path = proc_path(dir, base);
    for key in OPAQUE_KEYS {
        let mut value = [0; 1];
        match lgetxattr(path.as_slice(), key, &mut value) {
            Ok(1) if value == *b"y" => return Ok(true),
            Ok(_)
            | Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS | Errno::RANGE) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(false)
}

/// The attributes of `base` but overlayfs' own.
pub(super) fn all(dir: &OwnedFd, base: &[u8]) -> io::Result<Xattrs> {
    let path = proc_path(dir, base);
    let mut list = vec![0; MAX_VALUE];
    let length = match llistxattr(path.as_slice(), &mut list) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(e) => return Err(e.into()),
    };
    let mut xattrs = Vec::new();
    for key in list[..length]
        .split(|b| *b == 0)
        .filter(|key| !key.is_empty())
    {
        if is_overlayfs(key) {
            continue;
        }
        let mut value = vec![0; MAX_VALUE];
        let length = lgetxattr(path.as_slice(), key, &mut value)?;
        value.truncate(length);
        xattrs.push((key.to_vec(), value));
    }
    Ok(xattrs)
}
