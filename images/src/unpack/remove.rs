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
        // A finished image has directories closed even to their owner; root needs no leave. `base`
        // has just been seen to be no link, and nobody else writes here.
        if !rustix::process::geteuid().is_root() {
            chmodat(&dir.fd, base, Mode::RWXU, AtFlags::empty())?;
        }
        for name in child.names()? {
            all(&child, &name)?;
        }
    }
    Ok(unlinkat(&dir.fd, base, AtFlags::REMOVEDIR)?)
}
