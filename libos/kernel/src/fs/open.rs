//! `open(2)`, `openat2(2)` and opening for the kernel's own use.

use alloc::sync::Arc;

use husk_abi::linux::general::{self, open_how};

use super::create::{self, New};
use super::inotify::{Events, notify};
use super::path::{Last, Lookup, Tail, Walker, lookup_at, lookup_with};
use super::permission::{self, Access};
use super::{Attributes, File, FileKind, FileOps, FileRef, Location, SetAttributes};
use crate::process::Credentials;
use crate::signal;
use crate::syscall::{AtFlags, DirFd, Fd, Len, Mode, OpenFlags, Path, Ptr};
use crate::user::PathRoom;
use crate::{Errno, Result, SysResult, Thread};

/// Kernel-internal: the file is opened to be executed (`__FMODE_EXEC`).
pub const FMODE_EXEC: u32 = 0x20;
/// `O_TMPFILE` without the `O_DIRECTORY` it includes.
const O_TMPFILE_BIT: u32 = general::O_TMPFILE & !general::O_DIRECTORY;
/// `FASYNC`, the header's `O_ASYNC`.
pub const O_ASYNC: u32 = 0o20000;

/// What `open(2)` knows; it ignores the rest.
const VALID_FLAGS: u32 = general::O_ACCMODE
    | general::O_CREAT
    | general::O_EXCL
    | general::O_NOCTTY
    | general::O_TRUNC
    | general::O_APPEND
    | general::O_NONBLOCK
    | general::O_SYNC
    | general::O_DSYNC
    | O_ASYNC
    | general::O_DIRECT
    | general::O_LARGEFILE
    | general::O_DIRECTORY
    | general::O_NOFOLLOW
    | general::O_NOATIME
    | general::O_CLOEXEC
    | general::O_PATH
    | O_TMPFILE_BIT;

/// What counts beside `O_PATH`.
const PATH_FLAGS: u32 =
    general::O_PATH | general::O_DIRECTORY | general::O_NOFOLLOW | general::O_CLOEXEC;

/// How to open: `openat2(2)`'s struct, checked.
#[derive(Clone, Copy, Debug)]
pub struct OpenHow {
    flags: u32,
    mode: u32,
    resolve: u32,
}

impl OpenHow {
    /// Checks combinations as `openat2(2)` does.
    ///
    /// # Errors
    /// `EINVAL`; `EAGAIN` for `RESOLVE_CACHED` with what can never be cached.
    pub fn new(flags: u32, mode: u32, resolve: u32) -> Result<Self> {
        let writes = flags & general::O_ACCMODE != general::O_RDONLY;
        if flags & O_TMPFILE_BIT != 0 {
            if flags & general::O_DIRECTORY == 0 || flags & general::O_CREAT != 0 || !writes {
                return Err(Errno::EINVAL);
            }
        } else if flags & general::O_CREAT != 0 && flags & general::O_DIRECTORY != 0 {
            return Err(Errno::EINVAL);
        }
        const CHANGES: u32 = general::O_TRUNC | general::O_CREAT | O_TMPFILE_BIT;
        if resolve & general::RESOLVE_CACHED != 0 && flags & CHANGES != 0 {
            return Err(Errno::EAGAIN);
        }
        Ok(Self {
            flags,
            mode,
            resolve,
        })
    }

    fn creates(self) -> bool {
        self.flags & (general::O_CREAT | O_TMPFILE_BIT) != 0
    }

    fn lookup(self) -> Lookup {
        let mut lookup = Lookup::empty();
        lookup.set(Lookup::FOLLOW, self.flags & general::O_NOFOLLOW == 0);
        lookup.set(Lookup::DIRECTORY, self.flags & general::O_DIRECTORY != 0);
        lookup
    }

    /// What the file's permissions must allow.
    fn access(self) -> Access {
        let mut access = match self.flags & general::O_ACCMODE {
            general::O_RDONLY => Access::READ,
            general::O_WRONLY => Access::WRITE,
            _ => Access::READ | Access::WRITE,
        };
        if self.flags & general::O_TRUNC != 0 {
            access |= Access::WRITE;
        }
        if self.flags & FMODE_EXEC != 0 {
            access = Access::EXECUTE;
        }
        access
    }
}

/// What an `O_PATH` descriptor can do: nothing.
#[derive(Debug)]
struct PathOps;

impl FileOps for PathOps {
    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// Opens `path`.
///
/// # Errors
/// As `open(2)`.
pub fn open_at(t: &Thread, dirfd: i32, path: &[u8], how: OpenHow) -> Result<FileRef> {
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    if how.resolve == 0 && !how.creates() {
        return open_location(t, lookup_at(t, dirfd, path, how.lookup())?, how);
    }
    let mut walker = Walker::new(t, dirfd, path, how.resolve)?;
    let mut tail = walker.walk_to_last(path)?;
    if how.flags & O_TMPFILE_BIT != 0 {
        return open_unnamed(t, walker, tail, how);
    }
    if how.flags & general::O_CREAT == 0 {
        let location = walker.finish(tail, how.lookup())?;
        return open_location(t, location, how);
    }
    let location = loop {
        let (Last::Name(name), false) = (&tail.last, tail.trailing_slash) else {
            // `.` and `..` are there already.
            let exists = how.flags & general::O_EXCL != 0 && !matches!(tail.last, Last::Name(_));
            return Err(if exists { Errno::EEXIST } else { Errno::EISDIR });
        };
        match walker.at.inode.lookup(name) {
            Ok(_) if how.flags & general::O_EXCL != 0 => return Err(Errno::EEXIST),
            Ok(link) if link.kind() == FileKind::Symlink => {
                if how.flags & general::O_NOFOLLOW != 0 {
                    return Err(Errno::ELOOP);
                }
                match walker.follow_last(&link)? {
                    Some(next) => tail = next,
                    None => break walker.at,
                }
            }
            Ok(inode) => {
                if inode.kind() == FileKind::Directory {
                    return Err(Errno::EISDIR);
                }
                break walker.enter(name, inode)?;
            }
            Err(Errno::ENOENT) => {
                let new = New {
                    kind: FileKind::Regular,
                    mode: how.mode,
                    rdev: 0,
                    target: &[],
                };
                match create::create(t, &walker.at, name, &new) {
                    Ok(inode) => return open_created(t, walker.enter(name, inode)?, how),
                    // Another process was faster: open its file, unless it must be ours.
                    Err(Errno::EEXIST) => {}
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    };
    open_location(t, location, how)
}

fn open_unnamed(t: &Thread, walker: Walker<'_>, tail: Tail, how: OpenHow) -> Result<FileRef> {
    let directory = walker.finish(tail, how.lookup() | Lookup::DIRECTORY)?;
    let linkable = how.flags & general::O_EXCL == 0;
    let inode = create::create_unnamed(t, &directory, how.mode, linkable)?;
    let mut path = directory.path;
    super::vfs::join(
        &mut path,
        alloc::format!("#{} (deleted)", inode.attributes().ino).as_bytes(),
    );
    let location = Location {
        mount: directory.mount,
        inode,
        path,
    };
    open_created(t, location, how)
}

/// Opens a file that exists: checks kind, mount and permissions.
fn open_location(t: &Thread, location: Location, how: OpenHow) -> Result<FileRef> {
    if how.flags & general::O_PATH != 0 {
        let flags = how.flags & !general::O_CLOEXEC;
        return Ok(File::opened(Arc::new(PathOps), location, flags));
    }
    let credentials = t.credentials();
    let attributes = location.inode.attributes();
    let access = how.access();
    let mount_flags = location.mount.flags();
    match attributes.kind {
        FileKind::Symlink => return Err(Errno::ELOOP),
        FileKind::Directory if access.intersects(Access::WRITE) => return Err(Errno::EISDIR),
        FileKind::Directory if access == Access::EXECUTE => return Err(Errno::EACCES),
        FileKind::CharDevice | FileKind::BlockDevice if mount_flags & general::MS_NODEV != 0 => {
            return Err(Errno::EACCES);
        }
        FileKind::Regular if access.intersects(Access::WRITE) && location.mount.is_read_only() => {
            return Err(Errno::EROFS);
        }
        _ => {}
    }
    if access == Access::EXECUTE
        && (attributes.kind != FileKind::Regular || mount_flags & general::MS_NOEXEC != 0)
    {
        return Err(Errno::EACCES);
    }
    permission::check(&credentials, &attributes, access)?;
    if how.flags & general::O_NOATIME != 0
        && !permission::is_owner_or_capable(&credentials, &attributes)
    {
        return Err(Errno::EPERM);
    }
    let truncate = how.flags & general::O_TRUNC != 0 && attributes.kind == FileKind::Regular;
    let file = open_created(t, location, how)?;
    if truncate {
        truncate_inode(&file, &attributes, &credentials, 0)?;
        notify::file(&file, Events::MODIFY);
    }
    Ok(file)
}

/// Opens what the kernel has found itself, with `O_*` flags, without asking whether one may.
///
/// # Errors
/// What opening it gives.
pub fn open_found(t: &Thread, location: Location, flags: u32) -> Result<FileRef> {
    open_created(t, location, OpenHow::new(flags & VALID_FLAGS, 0, 0)?)
}

/// Opens without asking whether one may.
fn open_created(t: &Thread, location: Location, how: OpenHow) -> Result<FileRef> {
    let ops = location.inode.clone().open(t, how.flags)?;
    const NOT_KEPT: u32 = general::O_CREAT
        | general::O_EXCL
        | general::O_NOCTTY
        | general::O_TRUNC
        | general::O_CLOEXEC
        | FMODE_EXEC;
    // A 64-bit kernel reports O_LARGEFILE whether asked for or not.
    let flags = how.flags & !NOT_KEPT | general::O_LARGEFILE;
    let file = File::opened(ops, location, flags);
    notify::file(&file, Events::OPEN);
    Ok(file)
}

/// Resizes the file behind `file` and drops its set-id bits as writing would.
fn truncate_inode(
    file: &File,
    attributes: &Attributes,
    credentials: &Credentials,
    size: u64,
) -> Result<()> {
    file.inode.set_attributes(&SetAttributes {
        size: Some(size),
        mode: mode_after_write(attributes, credentials),
        ..SetAttributes::default()
    })
}

/// The mode a change of the contents leaves, if it differs.
#[must_use]
pub fn mode_after_write(attributes: &Attributes, credentials: &Credentials) -> Option<u32> {
    let dropped = permission::set_id_bits(attributes.mode);
    (dropped != 0 && !credentials.has(general::CAP_FSETID)).then_some(attributes.mode & !dropped)
}

/// Checks that writing at `offset` respects `RLIMIT_FSIZE`; returns how far may be written. Raises `SIGXFSZ`.
///
/// # Errors
/// `EFBIG` if `offset` is at the limit or past it.
pub fn file_size_limit(t: &Thread, offset: u64) -> Result<u64> {
    let limit = t
        .process
        .limit(general::RLIMIT_FSIZE)
        .map_or(u64::MAX, |limit| limit.rlim_cur);
    if offset >= limit {
        // A thread that is ending cannot be signalled, and need not be.
        let _ = signal::send_thread(&t.arc(), &signal::Info::kernel(general::SIGXFSZ as i32));
        return Err(Errno::EFBIG);
    }
    Ok(limit)
}

/// Opens `path` with `O_*` flags for the kernel's own use, with the thread's rights and from its directories.
///
/// # Errors
/// As `open(2)`.
pub fn open_path(t: &Thread, path: &[u8], flags: u32) -> Result<FileRef> {
    open_at(t, general::AT_FDCWD, path, OpenHow::new(flags, 0, 0)?)
}

/// Opens the program `execveat(2)` names; `at_flags` are `AT_EMPTY_PATH` and `AT_SYMLINK_NOFOLLOW`. While the
/// file is open nobody can open the program for writing.
///
/// # Errors
/// `EINVAL` for other flags, `EACCES` if it is not an executable regular file or its mount is `noexec`,
/// `ETXTBSY`, and as [`super::lookup_at`].
pub fn open_for_exec(t: &Thread, dirfd: i32, path: &[u8], at_flags: u32) -> Result<FileRef> {
    const KNOWN: u32 = general::AT_EMPTY_PATH | general::AT_SYMLINK_NOFOLLOW;
    if at_flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let mut lookup = Lookup::empty();
    lookup.set(Lookup::FOLLOW, at_flags & general::AT_SYMLINK_NOFOLLOW == 0);
    lookup.set(Lookup::EMPTY, at_flags & general::AT_EMPTY_PATH != 0);
    let location = lookup_with(t, dirfd, path, lookup, 0, None)?;
    open_location(t, location, OpenHow::new(FMODE_EXEC, 0, 0)?)
}

/// `open(2)`.
pub fn open(t: &Thread, path: Path, flags: OpenFlags, mode: Mode) -> SysResult {
    openat(t, general::AT_FDCWD, path, flags, mode)
}

/// `creat(2)`.
pub fn creat(t: &Thread, path: Path, mode: Mode) -> SysResult {
    const FLAGS: u32 = general::O_CREAT | general::O_WRONLY | general::O_TRUNC;
    openat(t, general::AT_FDCWD, path, FLAGS, mode)
}

/// `openat(2)`.
pub fn openat(t: &Thread, dirfd: DirFd, path: Path, flags: OpenFlags, mode: Mode) -> SysResult {
    let mut flags = flags & VALID_FLAGS;
    if flags & general::O_PATH != 0 {
        flags &= PATH_FLAGS;
    }
    let mut how = OpenHow::new(flags, mode & 0o7777, 0)?;
    if !how.creates() {
        how.mode = 0;
    }
    open_fd(t, dirfd, path, how)
}

/// `openat2(2)`.
pub fn openat2(t: &Thread, dirfd: DirFd, path: Path, how: Ptr, size: Len) -> SysResult {
    const SIZE: usize = size_of::<open_how>();
    const RESOLVE: u32 = general::RESOLVE_NO_XDEV
        | general::RESOLVE_NO_MAGICLINKS
        | general::RESOLVE_NO_SYMLINKS
        | general::RESOLVE_BENEATH
        | general::RESOLVE_IN_ROOT
        | general::RESOLVE_CACHED;
    if size < SIZE {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let asked: open_how = how.read()?;
    // A newer struct is fine as long as what we do not know of it is zero.
    let mut rest = alloc::vec![0u8; size - SIZE];
    how.add(SIZE as u64).read_bytes(&mut rest)?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG);
    }
    let flags = u32::try_from(asked.flags).map_err(|_| Errno::EINVAL)?;
    let resolve = u32::try_from(asked.resolve).map_err(|_| Errno::EINVAL)?;
    let mode = u32::try_from(asked.mode).map_err(|_| Errno::EINVAL)?;
    const SCOPED: u32 = general::RESOLVE_BENEATH | general::RESOLVE_IN_ROOT;
    if flags & !VALID_FLAGS != 0
        || resolve & !RESOLVE != 0
        || resolve & SCOPED == SCOPED
        || mode & !0o7777 != 0
        || (flags & general::O_PATH != 0 && flags & !PATH_FLAGS != 0)
    {
        return Err(Errno::EINVAL);
    }
    let how = OpenHow::new(flags, mode, resolve)?;
    if mode != 0 && !how.creates() {
        return Err(Errno::EINVAL);
    }
    open_fd(t, dirfd, path, how)
}

fn open_fd(t: &Thread, dirfd: i32, path: Path, how: OpenHow) -> SysResult {
    let mut room = PathRoom::default();
    let path = path.path_in(&mut room)?;
    let files = t.files();
    files.check_room(t)?;
    let file = open_at(t, dirfd, path, how)?;
    let fd = files.alloc(t, file, how.flags & general::O_CLOEXEC != 0)?;
    Ok(fd as usize)
}

/// `close(2)`.
pub fn close(t: &Thread, fd: Fd) -> SysResult {
    t.files().close(fd)?;
    Ok(0)
}

/// Flags of a call that only takes `AT_SYMLINK_NOFOLLOW` and `AT_EMPTY_PATH`, as a lookup.
///
/// # Errors
/// `EINVAL` for other flags.
pub fn at_lookup(flags: AtFlags) -> Result<Lookup> {
    const KNOWN: u32 = general::AT_SYMLINK_NOFOLLOW | general::AT_EMPTY_PATH;
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let mut lookup = Lookup::empty();
    lookup.set(Lookup::FOLLOW, flags & general::AT_SYMLINK_NOFOLLOW == 0);
    lookup.set(Lookup::EMPTY, flags & general::AT_EMPTY_PATH != 0);
    Ok(lookup)
}
