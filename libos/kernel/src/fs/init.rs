//! The root a container starts with, and its first thread's place in it.

use alloc::sync::Arc;

use husk_abi::boundary::config::{ProcessConfig, Tree};
use husk_abi::linux::general;

use super::fuse::FuseFs;
use super::tmpfs::{Options, Tmpfs};
use super::{Create, FileKind, Vfs, cpio, dir};
use crate::host::Console;
use crate::{Errno, Kernel, Result, Thread, log};

/// Makes directory `path` of the root if it is missing, with its parents.
fn ensure_directory(vfs: &Vfs, path: &[u8]) -> Result<()> {
    let mut at = vfs.root()?;
    for name in path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
    {
        let what = Create {
            kind: FileKind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            rdev: 0,
            target: &[],
        };
        match at.inode.create(name, &what) {
            Ok(_) | Err(Errno::EEXIST) => at = at.child(name)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Mounts the root, from its archive or from the host. To be called once.
///
/// # Errors
/// `EINVAL` if the archive is malformed (the log says where); what making the mount points gives.
pub fn mount_initial(kernel: &'static Kernel) -> Result<()> {
    match kernel.config.trees.first() {
        Some(tree) if tree.target == b"/" => {
            let root = FuseFs::new(kernel, 0, tree)?;
            kernel.fs.mount_root(root, &tree.source, tree_flags(tree));
            log!(Info, "fs", "root served by the VMM");
            Ok(())
        }
        _ => mount_archive(kernel),
    }
}

/// `MS_*` bits of a tree of the host.
pub(super) fn tree_flags(tree: &Tree) -> u32 {
    if tree.read_only {
        general::MS_RDONLY | general::MS_RELATIME
    } else {
        general::MS_RELATIME
    }
}

/// Fills the root from its archive.
fn mount_archive(kernel: &'static Kernel) -> Result<()> {
    let vfs = &kernel.fs;
    let looks = Options {
        like_disk: true,
        default_size: true,
        // As Linux limits a tmpfs that is given no size: half of what there is, so that processes can live on
        // when it is full.
        size_bytes: kernel.frames.usage().limit_bytes / 2,
        ..Options::default()
    };
    let root = Tmpfs::new(kernel, looks, 0o755, 0, 0);
    if vfs.root_archive.len != 0 {
        match cpio::fill(&root, vfs.root_archive) {
            Ok(count) => log!(Info, "fs", "root archive: {count} entries"),
            Err(error) => {
                log!(Error, "fs", "{error}");
                return Err(Errno::EINVAL);
            }
        }
    }
    vfs.mount_root(root, b"husk", general::MS_RELATIME);
    Ok(())
}

/// Gives a process started from outside its standard streams; a stream that is closed on the host leaves its
/// descriptor free.
///
/// # Errors
/// `EBADF` if `RLIMIT_NOFILE` leaves no room.
pub fn open_streams(t: &Thread, console: &Arc<Console>, config: &ProcessConfig) -> Result<()> {
    for (fd, file) in (0..).zip(super::stdio::open_streams(t.kernel, console, config)) {
        if let Some(file) = file {
            t.files().replace(t, fd, file, false)?;
        }
    }
    Ok(())
}

/// Makes `path` the thread's working directory; what the image lacks of it is made if `make` says so, as runc does for
/// the first process.
///
/// # Errors
/// `ENOENT`, `ENOTDIR`, `EACCES`, `ENOSPC`.
pub fn enter_directory(t: &Thread, path: &[u8], make: bool) -> Result<()> {
    match dir::set_cwd(t, path) {
        Err(Errno::ENOENT) if make => {
            ensure_directory(&t.kernel.fs, path)?;
            dir::set_cwd(t, path)
        }
        other => other,
    }
}
