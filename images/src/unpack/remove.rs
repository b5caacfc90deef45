//! Removing trees below a handle, however deep they are: containers write them.

use std::io;

use rustix::fs::{AtFlags, Mode, RenameFlags, chmodat, renameat_with, unlinkat};
use rustix::io::Errno;

use super::walk::Dir;

/// Directories walked into below one another, with a handle each; what lies deeper is moved up first.
const LEVELS: usize = 64;

/// Removes `base` and all below it.
pub(super) fn all(dir: &Dir, base: &[u8]) -> io::Result<()> {
    let Some(top) = open(dir, base)? else {
        return Ok(());
    };
    let mut moved = 0;
    loop {
        let names = top.names()?;
        if names.is_empty() {
            return Ok(unlinkat(&dir.fd, base, AtFlags::REMOVEDIR)?);
        }
        for name in names {
            below(&top, &top, &name, LEVELS, &mut moved)?;
        }
    }
}

/// Removes `base` of `dir`, or moves it up to `top` where `levels` are used up; `moved` counts those.
fn below(top: &Dir, dir: &Dir, base: &[u8], levels: usize, moved: &mut u64) -> io::Result<()> {
    let Some(child) = open(dir, base)? else {
        return Ok(());
    };
    if levels == 0 {
        drop(child);
        return move_up(top, dir, base, moved);
    }
    for name in child.names()? {
        below(top, &child, &name, levels - 1, moved)?;
    }
    Ok(unlinkat(&dir.fd, base, AtFlags::REMOVEDIR)?)
}

/// The directory `base`; anything else is removed, which gives `None`.
fn open(dir: &Dir, base: &[u8]) -> io::Result<Option<Dir>> {
    match unlinkat(&dir.fd, base, AtFlags::empty()) {
        // Linux says EISDIR, POSIX EPERM.
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return Ok(other.map(|()| None)?),
    }
    let child = dir.open_child(base)?;
    // A finished image has directories closed even to their owner; root needs no leave. `base` has just been seen to
    // be no link, and nobody else writes here.
    if child.is_some() && !rustix::process::geteuid().is_root() {
        chmodat(&dir.fd, base, Mode::RWXU, AtFlags::empty())?;
    }
    Ok(child)
}

fn move_up(top: &Dir, dir: &Dir, base: &[u8], moved: &mut u64) -> io::Result<()> {
    loop {
        let name = format!("moved-{moved}");
        *moved += 1;
        match renameat_with(&dir.fd, base, &top.fd, name, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;
    use rustix::fs::{OFlags, mkdirat, openat};

    #[test]
    fn deeper_than_any_path() {
        let scratch = Scratch::new();
        let dir = Dir::root(scratch.path()).unwrap();
        let mut here = dir.clone();
        for _ in 0..5000 {
            mkdirat(&here.fd, "d", Mode::RWXU).unwrap();
            let flags = OFlags::CREATE | OFlags::WRONLY;
            openat(&here.fd, "moved-0", flags, Mode::RUSR).unwrap();
            here = here.open_child(b"d").unwrap().unwrap();
            here.path.clear();
        }
        drop(here);
        all(&dir, b"d").unwrap();
        all(&dir, b"moved-0").unwrap();
        assert!(dir.names().unwrap().is_empty());
    }
}
