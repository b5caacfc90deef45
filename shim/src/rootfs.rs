//! The root file system: mounted for the container, unmounted with it.

use std::fs;
use std::io;
use std::path::Path;

use containerd_shim::mount::mount_rootfs;
use containerd_shim::protos::types::mount::Mount;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::error::{Error, Result};
use crate::reaper::Reaper;

/// Where it is in a bundle.
const NAME: &str = "rootfs";

/// Mounts what containerd prepared; without mounts, the bundle's directory is taken as it is.
///
/// # Errors
/// What mounting gives; nothing stays mounted then.
pub fn mount(bundle: &Path, mounts: &[Mount], reaper: &Reaper) -> Result<()> {
    let target = bundle.join(NAME);
    if mounts.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(&target).map_err(Error::host("make the root's directory"))?;
    for mount in mounts {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let (kind, source) = (text(&mount.type_), text(&mount.source));
        let done = reaper
            .forking(|| mount_rootfs(kind.as_deref(), source.as_deref(), &mount.options, &target));
        if let Err(error) = done {
            let _ = unmount(bundle);
            return Err(error.into());
        }
    }
    Ok(())
}

/// Unmounts it, however many mounts lie on each other; it is no error if there are none.
///
/// # Errors
/// What unmounting gives.
pub fn unmount(bundle: &Path) -> io::Result<()> {
    loop {
        match umount2(
            &bundle.join(NAME),
            MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW,
        ) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}
