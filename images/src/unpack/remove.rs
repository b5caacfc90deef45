//! Removing trees below a handle.

use std::io;

use rustix::fs::{AtFlags, Mode, chmodat, unlinkat};
use rustix::io::Errno;

use super::walk::Dir;

/// Removes `base` and all below it. Depth is bounded by the walk that made it.
pub(super) fn all(dir: &Dir, base: &[u8]) -> io::Result<()> {
    match unlinkat(&dir.fd, base, AtFlags::empty()) {
        // Linux says EISDIR, POSIX EPERM.
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return Ok(other?),
    }
    if let Some(child) = dir.open_child(base)? {
        let names = match child.names() {
            // A finished image has directories that only root can read. `base` is no link.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                chmodat(&dir.fd, base, Mode::RWXU, AtFlags::empty())?;
                child.names()
            }
            names => names,
        };
        for name in names? {
            all(&child, &name)?;
        }
    }
    Ok(unlinkat(&dir.fd, base, AtFlags::REMOVEDIR)?)
}
