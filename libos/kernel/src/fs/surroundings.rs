//! What the specification puts around the first process: mounts, devices, masked and read-only paths.
//!
//! In runc's order: mounts, devices, links in `/dev`; then, when nothing needs to be made any more, what makes
//! places read-only or takes them out of sight.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;

use husk_abi::boundary::config::{Mount as Wanted, MountKind, Tree};
use husk_abi::linux::general::{self, AT_FDCWD};

use super::devpts::Devpts;
use super::fuse::FuseFs;
use super::init::tree_flags;
use super::mount_calls::{kept_flags, new_tmpfs};
use super::procfs::ProcFs;
use super::pseudo::{Fixed, Maker};
use super::{Create, FileKind, FileSystem, Location, Lookup, copy_tree, devfs, lookup_at, sysfs};
use crate::{Errno, Kernel, Result, Thread, log};

const CGROUP2_MAGIC: u32 = 0x6367_7270;

/// Makes everything, with all rights; on the first thread, before its program.
///
/// # Errors
/// What making and mounting gives; the log says where.
pub fn set_up(t: &Thread) -> Result<()> {
    let config = &t.kernel.config;
    let told = |what: &str, path: &[u8]| {
        let path = String::from_utf8_lossy(path).into_owned();
        let what = String::from(what);
        move |errno: Errno| {
            log!(Error, "fs", "cannot {what} {path}: {errno}");
            errno
        }
    };
    // What the host has mounted is found in the root, before anything covers it.
    let mut shown = BTreeMap::new();
    for (index, wanted) in config.mounts.iter().enumerate() {
        if wanted.kind == MountKind::Host
            && let Ok(location) = find(t, &wanted.target)
        {
            shown.insert(index, location);
        }
    }
    for (index, wanted) in config.mounts.iter().enumerate() {
        mount(t, wanted, shown.get(&index)).map_err(told("mount", &wanted.target))?;
    }
    for (index, tree) in config.trees.iter().enumerate() {
        let is_mount = |wanted: &Wanted| is_of(wanted, tree);
        if tree.target != b"/" && !config.mounts.iter().any(is_mount) {
            volume(t, index, tree, tree_flags(tree)).map_err(told("mount", &tree.target))?;
        }
    }
    devices(t).map_err(told("make devices in", b"/dev"))?;
    // What cannot be written to comes last. Masks hide what read-only paths show, as runc orders them.
    for path in &config.readonly_paths {
        read_only(t, path).map_err(told("make read-only", path))?;
    }
    for path in &config.masked_paths {
        mask(t, path).map_err(told("mask", path))?;
    }
    Ok(())
}

/// Makes the root read-only, if the configuration says so; after the working directory was made.
///
/// # Errors
/// `ENOENT` without a root.
pub fn seal_root(kernel: &Kernel) -> Result<()> {
    if kernel.config.root_readonly {
        let mount = kernel.fs.root()?.mount;
        mount.set_flags(mount.flags() | general::MS_RDONLY);
    }
    Ok(())
}

fn find(t: &Thread, path: &[u8]) -> Result<Location> {
    lookup_at(t, AT_FDCWD, path, Lookup::FOLLOW)
}

/// Finds `path`, making it with its parents if it is missing: a directory, or with `file` a file.
fn find_or_make(t: &Thread, path: &[u8], file: bool) -> Result<Location> {
    match find(t, path) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let cut = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let (parent, name) = (&path[..cut.max(1)], &path[cut + 1..]);
    if name.is_empty() {
        return Err(Errno::ENOENT);
    }
    let parent = find_or_make(t, parent, false)?;
    let (kind, mode) = if file {
        (FileKind::Regular, 0o644)
    } else {
        (FileKind::Directory, 0o755)
    };
    let what = Create {
        kind,
        mode,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: b"",
    };
    match parent.inode.create(name, &what) {
        Ok(_) | Err(Errno::EEXIST) => find(t, path),
        Err(errno) => Err(errno),
    }
}

/// Whether the mount shows that tree of the host.
fn is_of(wanted: &Wanted, tree: &Tree) -> bool {
    wanted.kind == MountKind::Host && wanted.target == tree.target
}

/// Mounts a tree of the host; what it is mounted on is made if it is missing.
fn volume(t: &Thread, index: usize, tree: &Tree, flags: u32) -> Result<()> {
    let volume = FuseFs::new(t.kernel, index, tree)?;
    let root = volume.root();
    let point = find_or_make(t, &tree.target, root.kind() != FileKind::Directory)?;
    t.kernel
        .fs
        .mount_part(point, volume, root, &tree.root, &tree.source, flags)
        .map(drop)
}

fn mount(t: &Thread, wanted: &Wanted, shown: Option<&Location>) -> Result<()> {
    let flags = kept_flags(wanted.flags);
    let data = core::str::from_utf8(&wanted.data).map_err(|_| Errno::EINVAL)?;
    let place = |fs: Arc<dyn FileSystem>| {
        let point = find_or_make(t, &wanted.target, false)?;
        let root = fs.root();
        t.kernel
            .fs
            .mount_at(point, fs, root, &wanted.source, flags)
            .map(drop)
    };
    match wanted.kind {
        MountKind::Proc => place(ProcFs::new(t.kernel)),
        MountKind::Tmpfs(copy_up) => tmpfs(t, wanted, flags, copy_up),
        MountKind::Sysfs => place(sysfs::new(t.kernel)),
        MountKind::Cgroup => place(cgroup(t.kernel)),
        MountKind::Devpts => place(Devpts::new(t.kernel, data)?),
        MountKind::Mqueue => place(t.namespaces().ipc.mqueue.clone()),
        MountKind::Host => {
            let mut trees = t.kernel.config.trees.iter().enumerate();
            if let Some((index, tree)) = trees.find(|(_, tree)| is_of(wanted, tree)) {
                return volume(t, index, tree, flags);
            }
            // Not there: the host has mounted something that the root cannot show.
            let shown = shown.ok_or(Errno::ENOENT)?;
            let is_file = shown.inode.kind() != FileKind::Directory;
            let point = find_or_make(t, &wanted.target, is_file)?;
            t.kernel
                .fs
                .bind_at(point, shown, &wanted.source, flags)
                .map(drop)
        }
    }
}

/// A tmpfs; where its options say nothing about them, its root has the attributes of what it covers (as runc
/// does it).
fn tmpfs(t: &Thread, wanted: &Wanted, flags: u32, copy_up: bool) -> Result<()> {
    let covered = find(t, &wanted.target).ok();
    let point = find_or_make(t, &wanted.target, false)?;
    // Only the mount is read-only, not the file system: runc remounts it so afterwards.
    let fs = new_tmpfs(t, &wanted.data, flags & !general::MS_RDONLY)?;
    let says = |key: &str| {
        wanted
            .data
            .split(|byte| *byte == b',')
            .any(|option| option.starts_with(key.as_bytes()))
    };
    if let Some(covered) = covered.filter(|_| !says("mode=")) {
        let change = super::SetAttributes {
            mode: Some(covered.inode.attributes().mode),
            ..super::SetAttributes::default()
        };
        fs.root().set_attributes(&change)?;
    }
    if copy_up {
        copy_tree::copy(t, &point.inode, &fs.root())?;
    }
    let root = fs.root();
    t.kernel
        .fs
        .mount_at(point, fs, root, &wanted.source, flags)
        .map(drop)
}

/// The container's own cgroup, version 2, as far as it does not change.
fn cgroup(kernel: &'static Kernel) -> Arc<Fixed> {
    let maker = Maker::new(kernel);
    let limit = kernel.frames.usage().limit_bytes;
    let pids = match kernel.config.pids_limit {
        Some(limit) => alloc::format!("{limit}\n"),
        None => String::from("max\n"),
    };
    let root = maker.directory(vec![
        ("cgroup.controllers", maker.text("cpu memory pids\n")),
        ("cgroup.subtree_control", maker.text("")),
        ("cgroup.type", maker.text("domain\n")),
        ("cpu.max", maker.text("max 100000\n")),
        ("memory.max", maker.text(&alloc::format!("{limit}\n"))),
        ("memory.swap.max", maker.text("0\n")),
        ("pids.max", maker.text(&pids)),
    ]);
    maker.finish("cgroup2", CGROUP2_MAGIC, String::new(), root)
}

/// What is in every container's `/dev`, and what the specification adds.
fn devices(t: &Thread) -> Result<()> {
    let config = &t.kernel.config;
    let dev = find_or_make(t, b"/dev", false)?;
    devfs::populate(&dev.inode, config.terminal)?;
    for device in &config.devices {
        let kind = FileKind::from_mode(device.mode).ok_or(Errno::EINVAL)?;
        let cut = device
            .path
            .iter()
            .rposition(|byte| *byte == b'/')
            .unwrap_or(0);
        let parent = find_or_make(t, &device.path[..cut.max(1)], false)?;
        let what = Create {
            kind,
            mode: device.mode & 0o7777,
            uid: device.uid,
            gid: device.gid,
            rdev: device.rdev,
            target: b"",
        };
        let name = &device.path[cut + 1..];
        match parent.inode.create(name, &what) {
            Ok(_) => {}
            // One of those every container has, or of the image.
            Err(Errno::EEXIST) => {
                parent.inode.unlink(name)?;
                parent.inode.create(name, &what)?;
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Mounts a path over itself, read-only; what is not there needs nothing.
fn read_only(t: &Thread, path: &[u8]) -> Result<()> {
    let location = match find(t, path) {
        Ok(location) => location,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let mount = location.mount.clone();
    let flags = mount.flags() | general::MS_RDONLY;
    t.kernel
        .fs
        .bind_at(location.clone(), &location, &mount.source, flags)
        .map(drop)
}

/// Covers a directory with an empty one, and a file with `/dev/null`.
fn mask(t: &Thread, path: &[u8]) -> Result<()> {
    let location = match find(t, path) {
        Ok(location) => location,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let vfs = &t.kernel.fs;
    if location.inode.kind() == FileKind::Directory {
        let fs = new_tmpfs(t, b"", general::MS_RDONLY)?;
        let root = fs.root();
        vfs.mount_at(location, fs, root, b"tmpfs", kept_flags(general::MS_RDONLY))?;
    } else {
        let null = find(t, b"/dev/null")?;
        let mount = &null.mount;
        vfs.bind_at(location, &null, &mount.source, mount.flags())?;
    }
    Ok(())
}
