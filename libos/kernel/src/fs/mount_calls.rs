//! `mount(2)` and `umount2(2)`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::linux::general;

use super::devpts::Devpts;
use super::procfs::ProcFs;
use super::tmpfs::{Options, Tmpfs};
use super::vfs::join;
use super::{FileSystem, Location, Lookup, lookup_at};
use crate::syscall::{Hex, Path, Ptr};
use crate::{Errno, Result, SysResult, Thread};

/// Bits that stay with a mount.
const KEPT: u32 = general::MS_RDONLY
    | general::MS_NOSUID
    | general::MS_NODEV
    | general::MS_NOEXEC
    | general::MS_NOSYMFOLLOW
    | general::MS_NOATIME
    | general::MS_NODIRATIME
    | general::MS_RELATIME
    | general::MS_STRICTATIME;

/// How mounts hand on changes to mounts of other namespaces, of which there are none.
const PROPAGATION: u32 =
    general::MS_SHARED | general::MS_PRIVATE | general::MS_SLAVE | general::MS_UNBINDABLE;

fn check_capable(t: &Thread) -> Result<()> {
    if t.credentials().has(general::CAP_SYS_ADMIN) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// The mount's bits from the call's: `relatime` unless something else is asked for.
pub(super) fn kept_flags(flags: u32) -> u32 {
    let kept = flags & KEPT;
    if kept & (general::MS_NOATIME | general::MS_STRICTATIME) == 0 {
        kept | general::MS_RELATIME
    } else {
        kept
    }
}

/// `mount(2)`: tmpfs, proc, devpts, mqueue, bind mounts, remounting; changes of propagation have nothing to change.
pub fn mount(
    t: &Thread,
    source: Path,
    target: Path,
    fstype: Path,
    flags: Hex,
    data: Ptr,
) -> SysResult {
    let mut flags = flags as u32;
    if flags & general::MS_MGC_MSK == general::MS_MGC_VAL {
        flags &= !general::MS_MGC_MSK;
    }
    let optional = |at: Path| -> Result<Vec<u8>> {
        if at.is_null() {
            Ok(Vec::new())
        } else {
            at.read_path()
        }
    };
    let kind = optional(fstype)?;
    let source = optional(source)?;
    let options = optional(data)?;
    let path = target.read_path()?;
    let target = lookup_at(t, general::AT_FDCWD, &path, Lookup::FOLLOW)?;
    check_capable(t)?;
    if flags & general::MS_REMOUNT != 0 {
        return remount(&target, flags);
    }
    if flags & general::MS_BIND != 0 {
        return bind(t, &source, target, flags & general::MS_REC != 0);
    }
    if flags & PROPAGATION != 0 {
        let one = (flags & PROPAGATION).is_power_of_two();
        if !one || !target.is_mount_root() {
            return Err(Errno::EINVAL);
        }
        return Ok(0);
    }
    if flags & general::MS_MOVE != 0 || kind.is_empty() {
        return Err(Errno::EINVAL);
    }
    let fs: Arc<dyn FileSystem> = match kind.as_slice() {
        b"tmpfs" => new_tmpfs(t, &options, flags)?,
        b"proc" => ProcFs::new(t.kernel),
        b"devpts" => {
            let options = core::str::from_utf8(&options).map_err(|_| Errno::EINVAL)?;
            Devpts::new(t.kernel, options)?
        }
        b"mqueue" => t.namespaces().ipc.mqueue.clone(),
        _ => return Err(Errno::ENODEV),
    };
    let root = fs.root();
    t.kernel
        .fs
        .mount_at(target, fs, root, &source, kept_flags(flags))?;
    Ok(0)
}

fn remount(target: &Location, flags: u32) -> SysResult {
    if !target.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    target.mount.set_flags(kept_flags(flags));
    Ok(0)
}

fn bind(t: &Thread, source: &[u8], target: Location, recursive: bool) -> SysResult {
    let source = lookup_at(t, general::AT_FDCWD, source, Lookup::FOLLOW)?;
    let vfs = &t.kernel.fs;
    let submounts = if recursive { vfs.mounts() } else { Vec::new() };
    let top = target.path.clone();
    vfs.bind_at(target, &source, &source.mount.source, source.mount.flags())?;
    for mount in submounts {
        let Some(rest) = below(mount.path(), &source.path) else {
            continue;
        };
        if mount.path() == top || below(mount.path(), &top).is_some() {
            // The bind mount itself, or what was under it before.
            continue;
        }
        let mut path = top.clone();
        join(&mut path, rest);
        // What another mount covers is not to be found.
        let Ok(point) = vfs.find(&path) else {
            continue;
        };
        vfs.mount_part(
            point,
            mount.fs.clone(),
            mount.root.clone(),
            &mount.root_path,
            &mount.source,
            mount.flags(),
        )?;
    }
    Ok(0)
}

/// What follows `top` in `path`, without the slash; `None` unless it is below.
fn below<'a>(path: &'a [u8], top: &[u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(top)?;
    let rest = if top == b"/" {
        rest
    } else {
        rest.strip_prefix(b"/")?
    };
    (!rest.is_empty()).then_some(rest)
}

/// A size in bytes, with `k`, `m`, `g`, or `%` of the container's memory.
fn parse_size(t: &Thread, text: &str) -> Result<u64> {
    let (digits, scale) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 1 << 30),
        Some(b'%') => {
            let limit = t.kernel.frames.usage().limit_bytes;
            (&text[..text.len() - 1], limit / 100)
        }
        _ => (text, 1),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|value| value.checked_mul(scale))
        .ok_or(Errno::EINVAL)
}

/// A tmpfs from `mount(8)`'s options (`tmpfs(5)`).
pub(super) fn new_tmpfs(t: &Thread, options: &[u8], flags: u32) -> Result<Arc<Tmpfs>> {
    let text = core::str::from_utf8(options).map_err(|_| Errno::EINVAL)?;
    let credentials = t.credentials();
    let (mut mode, mut uid, mut gid) = (0o1777, credentials.fsuid, credentials.fsgid);
    let mut limits = Options {
        // Linux's default: half of the memory.
        size_bytes: t.kernel.frames.usage().limit_bytes / 2,
        default_size: true,
        read_only: flags & general::MS_RDONLY != 0,
        ..Options::default()
    };
    for option in text.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let number = |radix: u32| u32::from_str_radix(value, radix).map_err(|_| Errno::EINVAL);
        match key {
            "size" => {
                limits.size_bytes = parse_size(t, value)?;
                limits.default_size = false;
            }
            "nr_blocks" => limits.size_bytes = parse_size(t, value)?.saturating_mul(4096),
            "nr_inodes" => limits.files = parse_size(t, value)?,
            "mode" => mode = number(8)? & 0o7777,
            "uid" => uid = number(10)?,
            "gid" => gid = number(10)?,
            _ => return Err(Errno::EINVAL),
        }
    }
    Ok(Tmpfs::new(t.kernel, limits, mode, uid, gid))
}

/// `umount2(2)`.
pub fn umount2(t: &Thread, target: Path, flags: Hex) -> SysResult {
    const MNT_FORCE: u64 = 1;
    const MNT_DETACH: u64 = 2;
    const UMOUNT_NOFOLLOW: u64 = 8;
    // MNT_EXPIRE is for automounters.
    if flags & !(MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    check_capable(t)?;
    let mut lookup = Lookup::empty();
    lookup.set(Lookup::FOLLOW, flags & UMOUNT_NOFOLLOW == 0);
    let location = lookup_at(t, general::AT_FDCWD, &target.read_path()?, lookup)?;
    if !location.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    let mount = location.mount;
    let detach = flags & MNT_DETACH != 0;
    // Its parent and this call hold it; whoever else does has a file open or a directory in it.
    if !detach && Arc::strong_count(&mount) > 2 {
        return Err(Errno::EBUSY);
    }
    t.kernel.fs.unmount(&mount, detach)?;
    Ok(0)
}
