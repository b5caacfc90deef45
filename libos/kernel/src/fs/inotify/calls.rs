//! `inotify_init(2)`, `inotify_add_watch(2)`, `inotify_rm_watch(2)`.

use husk_abi::linux::general;

use super::watches::{Watch, id};
use super::{Events, Inotify};
use crate::fs::anon::PlainAnonInode;
use crate::fs::permission::{self, Access};
use crate::fs::{File, Lookup, lookup_at};
use crate::syscall::{Fd, Hex, Int, Path};
use crate::{Errno, Result, SysResult, Thread};

/// What may stand in a watch's mask (`ALL_INOTIFY_BITS`).
const KNOWN: Events = Events::ALL
    .union(Events::UNMOUNT)
    .union(Events::Q_OVERFLOW)
    .union(Events::IGNORED)
    .union(Events::ONLYDIR)
    .union(Events::DONT_FOLLOW)
    .union(Events::EXCL_UNLINK)
    .union(Events::MASK_ADD)
    .union(Events::MASK_CREATE)
    .union(Events::ISDIR)
    .union(Events::ONESHOT);

/// What of it a watch keeps.
const KEPT: Events = Events::ALL
    .union(Events::EXCL_UNLINK)
    .union(Events::ONESHOT);

/// `inotify_init(2)`.
///
/// # Errors
/// As [`inotify_init1`].
pub fn inotify_init(t: &Thread) -> SysResult {
    inotify_init1(t, 0)
}

/// `inotify_init1(2)`.
///
/// # Errors
/// `EINVAL` for unknown flags; `EMFILE` for too many instances or descriptors.
pub fn inotify_init1(t: &Thread, flags: Hex) -> SysResult {
    let flags = flags as u32;
    if flags & !(general::IN_CLOEXEC | general::IN_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let files = t.files();
    files.check_room(t)?;
    let uid = t.credentials().uid;
    let registry = t.kernel.fs.watches.clone();
    registry.instance(uid)?;
    let file = File::new(
        Inotify::new(uid, registry),
        PlainAnonInode::new(t),
        b"anon_inode:inotify".to_vec(),
        general::O_RDONLY | flags & general::IN_NONBLOCK,
    );
    let fd = files.alloc(t, file, flags & general::IN_CLOEXEC != 0)?;
    Ok(fd as usize)
}

/// The instance behind `file`.
fn instance(file: &File) -> Result<&Inotify> {
    let ops = file.ops.as_any();
    ops.downcast_ref::<Inotify>().ok_or(Errno::EINVAL)
}

/// `inotify_add_watch(2)`.
///
/// # Errors
/// `EINVAL`, `EBADF`, `ENOENT` and the like for the path, `EACCES` without permission to read the file, `EEXIST`
/// (`IN_MASK_CREATE`), `ENOTDIR` (`IN_ONLYDIR`), `ENOSPC` for too many watches.
pub fn inotify_add_watch(t: &Thread, fd: Fd, pathname: Path, mask: Hex) -> SysResult {
    let mask = Events::from_bits_retain(mask as u32);
    if !mask.intersects(KNOWN) || mask.contains(Events::MASK_ADD | Events::MASK_CREATE) {
        return Err(Errno::EINVAL);
    }
    let file = t.file(fd)?;
    let instance = instance(&file)?;
    let mut lookup = Lookup::empty();
    lookup.set(Lookup::FOLLOW, !mask.contains(Events::DONT_FOLLOW));
    lookup.set(Lookup::DIRECTORY, mask.contains(Events::ONLYDIR));
    let at = lookup_at(t, general::AT_FDCWD, &pathname.read_path()?, lookup)?;
    permission::check(&t.credentials(), &at.inode.attributes(), Access::READ)?;

    let mut descriptors = instance.watches.lock();
    let wanted = id(&*at.inode);
    if let Some(watch) = descriptors.map.values().find(|watch| watch.id == wanted) {
        if mask.contains(Events::MASK_CREATE) {
            return Err(Errno::EEXIST);
        }
        let before = if mask.contains(Events::MASK_ADD) {
            watch.mask()
        } else {
            Events::empty()
        };
        instance.registry.change(watch, before | (mask & KEPT));
        return Ok(watch.wd as usize);
    }
    let wd = descriptors.next();
    let watch = Watch::new(wd, mask & KEPT, instance.weak.clone(), at.inode);
    instance.registry.add(watch.clone())?;
    descriptors.map.insert(wd, watch);
    Ok(wd as usize)
}

/// `inotify_rm_watch(2)`.
///
/// # Errors
/// `EBADF`; `EINVAL` if the descriptor is of another kind or `wd` is not one of its watches.
pub fn inotify_rm_watch(t: &Thread, fd: Fd, wd: Int) -> SysResult {
    let file = t.file(fd)?;
    let instance = instance(&file)?;
    let watch = instance.watches.lock().map.remove(&wd);
    let watch = watch.ok_or(Errno::EINVAL)?;
    instance.registry.remove(&watch);
    instance.ignored(wd);
    Ok(0)
}
