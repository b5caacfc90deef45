//! The root a container starts with, and its first thread's place in it.

use alloc::sync::Arc;

use husk_abi::boundary::config::{Mount, MountKind, Tree};
use husk_abi::linux::general;

use super::fuse::FuseFs;
use super::tmpfs::{Options, Tmpfs};
use super::{Create, FileKind, FileSystem, Vfs, cpio, dir};
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

/// Makes an empty file `path` in the root if nothing is there, with the directories above it.
fn ensure_file(vfs: &Vfs, path: &[u8]) -> Result<()> {
    let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let (directory, name) = (&path[..end], &path[end + 1..]);
    ensure_directory(vfs, directory)?;
    let what = Create {
        kind: FileKind::Regular,
        mode: 0o644,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: &[],
    };
    match vfs.find(directory)?.inode.create(name, &what) {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Mounts the root, from its archive or from the host. To be called once.
///
/// # Errors
/// `EINVAL` if the archive is malformed (the log says where); what making the mount points gives.
pub fn mount_initial(kernel: &'static Kernel) -> Result<()> {
    let vfs = &kernel.fs;
    match kernel.config.trees.first() {
        Some(tree) if tree.target == b"/" => {
            let root = FuseFs::new(kernel, 0, tree)?;
            vfs.mount_root(root, &tree.source, tree_flags(tree));
        }
        _ => mount_archive(kernel)?,
    }
    Ok(())
}

/// The tree that is to be mounted on `target`, with its number.
pub(super) fn tree_at(kernel: &'static Kernel, target: &[u8]) -> Option<(usize, &'static Tree)> {
    let mut trees = kernel.config.trees.iter().enumerate();
    trees.find(|(_, tree)| tree.target == target && target != b"/")
}

/// The file system of that tree.
///
/// # Errors
/// `ENOENT` if there is none; what asking the host gives.
pub(super) fn open_tree(kernel: &'static Kernel, target: &[u8]) -> Result<Arc<FuseFs>> {
    let (index, tree) = tree_at(kernel, target).ok_or(Errno::ENOENT)?;
    FuseFs::new(kernel, index, tree)
}

/// Mounts the host's trees other than the root and those that are mounts of the configuration.
///
/// # Errors
/// What making the mount points and mounting gives; the log says where.
pub(super) fn mount_volumes(kernel: &'static Kernel) -> Result<()> {
    let trees = kernel.config.trees.iter().enumerate();
    let has_place = |tree: &Tree| {
        let mounts = &kernel.config.mounts;
        let is_this = |mount: &Mount| mount.kind == MountKind::Host && mount.target == tree.target;
        tree.target == b"/" || mounts.iter().any(is_this)
    };
    for (index, tree) in trees.filter(|(_, tree)| !has_place(tree)) {
        if let Err(errno) = mount_volume(kernel, index, tree) {
            log!(
                Error,
                "fs",
                "cannot mount {}: {errno}",
                tree.target.escape_ascii()
            );
            return Err(errno);
        }
    }
    Ok(())
}

/// `MS_*` bits of a tree of the host.
fn tree_flags(tree: &Tree) -> u32 {
    if tree.read_only {
        general::MS_RDONLY | general::MS_RELATIME
    } else {
        general::MS_RELATIME
    }
}

/// Mounts a volume; what it is mounted on is made if it is missing.
fn mount_volume(kernel: &'static Kernel, index: usize, tree: &Tree) -> Result<()> {
    let vfs = &kernel.fs;
    let volume = FuseFs::new(kernel, index, tree)?;
    if volume.root().kind() == FileKind::Directory {
        ensure_directory(vfs, &tree.target)?;
    } else {
        ensure_file(vfs, &tree.target)?;
    }
    vfs.mount(&tree.target, volume, &tree.source, tree_flags(tree))?;
    Ok(())
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

/// Gives the first thread its standard streams; a stream that is closed on the host leaves its descriptor free.
///
/// # Errors
/// `EBADF` if `RLIMIT_NOFILE` leaves no room.
pub fn open_streams(t: &Thread) -> Result<()> {
    for (fd, file) in (0..).zip(super::stdio::open_streams(t.kernel)) {
        if let Some(file) = file {
            t.files().replace(t, fd, file, false)?;
        }
    }
    Ok(())
}

/// Makes `path` the first thread's working directory; what the image lacks of it is made, as runc does.
///
/// # Errors
/// `ENOTDIR`, `EACCES`, `ENOSPC`.
pub fn enter_directory(t: &Thread, path: &[u8]) -> Result<()> {
    match dir::set_cwd(t, path) {
        Err(Errno::ENOENT) => {
            ensure_directory(&t.kernel.fs, path)?;
            dir::set_cwd(t, path)
        }
        other => other,
    }
}
