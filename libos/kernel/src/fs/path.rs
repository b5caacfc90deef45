//! Walking a path to a file (`path_resolution(7)`, `openat2(2)`'s restrictions).
//!
//! A [`Walker`] stands at a directory and goes one component at a time. It stops before the last one
//! ([`Walker::walk_to_last`]), because what the last one means depends on the call: looked up, created,
//! removed, followed if it is a symbolic link or not.

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::linux::general;

use super::known::{self, Key, Known};
use super::permission::{self, Access};
use super::vfs::join;
use super::{FileKind, Inode, Location};
use crate::process::Credentials;
use crate::{Errno, Result, Thread};

/// Symbolic links followed in one walk before `ELOOP` (`MAXSYMLINKS`).
const MAX_LINKS: u32 = 40;

bitflags::bitflags! {
    /// How the last component is taken.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Lookup: u32 {
        /// Follow it if it is a symbolic link.
        const FOLLOW = 1;
        /// It must be a directory.
        const DIRECTORY = 2;
        /// An empty path is the descriptor itself (`AT_EMPTY_PATH`).
        const EMPTY = 4;
    }
}

/// The last component of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Last {
    /// A name.
    Name(Vec<u8>),
    /// `.`.
    Dot,
    /// `..`.
    DotDot,
    /// There is none: the path is slashes only.
    Root,
}

/// Where a walk stopped.
#[derive(Clone, Debug)]
pub struct Tail {
    /// What is left.
    pub last: Last,
    /// Slashes follow it, so it must be a directory.
    pub trailing_slash: bool,
}

/// The directory a name is, or will be, in.
#[derive(Debug)]
pub struct Parent {
    /// The directory; it may be searched.
    pub directory: Location,
    /// The name in it.
    pub last: Last,
    /// Slashes follow the name.
    pub trailing_slash: bool,
}

/// What following a symbolic link led to.
enum Followed {
    /// A path to walk from here.
    Path(Vec<u8>),
    /// The walker stands at the target.
    Jumped,
}

/// A walk in progress.
#[derive(Debug)]
pub struct Walker<'t> {
    t: &'t Thread,
    credentials: Arc<Credentials>,
    /// Where `/` and the end of `..` are; read when first needed.
    root: Option<Location>,
    /// Where the walk stands.
    pub at: Location,
    links: u32,
    /// `RESOLVE_*`.
    resolve: u32,
    /// It stands at the root because the path starts with a slash.
    at_root: bool,
    /// All names so far are of directories with [`Inode::names_are_ours`].
    is_ours: bool,
}

impl<'t> Walker<'t> {
    /// A walk of `path` from `dirfd`, with `RESOLVE_*` restrictions; it has not made a step yet.
    ///
    /// # Errors
    /// `EBADF`; `EXDEV` for an absolute path with `RESOLVE_BENEATH`.
    pub fn new(t: &'t Thread, dirfd: i32, path: &[u8], resolve: u32) -> Result<Self> {
        let absolute = path.first() == Some(&b'/');
        if absolute && resolve & general::RESOLVE_BENEATH != 0 {
            return Err(Errno::EXDEV);
        }
        let scoped = resolve & (general::RESOLVE_BENEATH | general::RESOLVE_IN_ROOT) != 0;
        let at = if absolute && !scoped {
            t.fs().root()
        } else if dirfd == general::AT_FDCWD {
            t.fs().cwd()
        } else {
            t.any_file(dirfd)?.location(t.kernel)
        };
        Ok(Self {
            t,
            credentials: t.credentials(),
            root: scoped.then(|| at.clone()),
            at,
            links: 0,
            resolve,
            at_root: absolute,
            is_ours: true,
        })
    }

    /// As [`Walker::new`] for another set of credentials (`access(2)` uses the real ids).
    #[must_use]
    pub fn with_credentials(mut self, credentials: Arc<Credentials>) -> Self {
        self.credentials = credentials;
        self
    }

    fn root(&mut self) -> Location {
        self.root.get_or_insert_with(|| self.t.fs().root()).clone()
    }

    /// Checks that the walk stands at a directory that may be searched.
    fn search(&self) -> Result<()> {
        if self.at.inode.kind() != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        // Attributes cost more than a lookup: most containers' processes may search everything.
        let has_strangers = self.t.kernel.config.user_namespace.is_some();
        if !has_strangers && self.credentials.has(general::CAP_DAC_OVERRIDE) {
            return Ok(());
        }
        permission::check(&self.credentials, &self.at.inode.rights(), Access::EXECUTE)
    }

    /// Looks `name` up in the directory the walk stands at.
    fn step(&mut self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        self.is_ours &= self.at.inode.names_are_ours();
        self.at.inode.lookup(name)
    }

    /// Goes to the parent directory.
    fn up(&mut self) -> Result<()> {
        self.is_ours &= self.at.inode.names_are_ours();
        let root = self.root();
        if self.at.is_same(&root) {
            return if self.resolve & general::RESOLVE_BENEATH != 0 {
                Err(Errno::EXDEV)
            } else {
                Ok(())
            };
        }
        let parent = self.at.parent()?;
        self.check_same_mount(&parent)?;
        self.at = parent;
        Ok(())
    }

    fn check_same_mount(&self, to: &Location) -> Result<()> {
        if self.resolve & general::RESOLVE_NO_XDEV != 0 && !Arc::ptr_eq(&self.at.mount, &to.mount) {
            Err(Errno::EXDEV)
        } else {
            Ok(())
        }
    }

    /// Goes down to `inode`, which `name` is in the directory the walk stands at.
    fn down(&mut self, name: &[u8], inode: Arc<dyn Inode>) -> Result<()> {
        if let Some(mount) = self.at.mount.mounted_at(name, &inode) {
            if self.resolve & general::RESOLVE_NO_XDEV != 0 {
                return Err(Errno::EXDEV);
            }
            self.at.inode = mount.root.clone();
            self.at.mount = mount;
        } else {
            self.at.inode = inode;
        }
        join(&mut self.at.path, name);
        Ok(())
    }

    /// Follows the symbolic link `link` in the directory the walk stands at.
    fn follow(&mut self, link: &Arc<dyn Inode>) -> Result<Followed> {
        self.links += 1;
        let forbidden = self.resolve & general::RESOLVE_NO_SYMLINKS != 0
            || self.at.mount.flags() & general::MS_NOSYMFOLLOW != 0;
        if self.links > MAX_LINKS || forbidden {
            return Err(Errno::ELOOP);
        }
        self.check_protected_link(link)?;
        if let Some(target) = link.follow(self.t) {
            if self.resolve & general::RESOLVE_NO_MAGICLINKS != 0 {
                return Err(Errno::ELOOP);
            }
            if self.resolve & (general::RESOLVE_BENEATH | general::RESOLVE_IN_ROOT) != 0 {
                return Err(Errno::EXDEV);
            }
            let target = target?;
            self.check_same_mount(&target)?;
            self.at = target;
            return Ok(Followed::Jumped);
        }
        let target = link.read_link(self.t)?;
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        Ok(Followed::Path(target))
    }

    /// `fs.protected_symlinks`: in a sticky directory everybody can write to, only links of one's own or of the
    /// directory's owner are followed.
    fn check_protected_link(&self, link: &Arc<dyn Inode>) -> Result<()> {
        const STICKY_FOR_ALL: u32 = general::S_ISVTX | general::S_IWOTH;
        let directory = self.at.inode.attributes();
        if directory.mode & STICKY_FOR_ALL != STICKY_FOR_ALL {
            return Ok(());
        }
        let owner = link.attributes().uid;
        if owner == self.credentials.fsuid || owner == directory.uid {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    /// Walks `path` up to its last component; the walk then stands at the directory that is in, which may be
    /// searched.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `EACCES`, `ELOOP`, `ENAMETOOLONG`, `EXDEV`.
    pub fn walk_to_last(&mut self, path: &[u8]) -> Result<Tail> {
        // What is left after following a link: the target and the rest of the path before.
        let mut joined: Vec<u8>;
        let mut rest = path;
        let mut at_start = true;
        loop {
            if at_start && rest.first() == Some(&b'/') {
                if self.resolve & general::RESOLVE_BENEATH != 0 {
                    return Err(Errno::EXDEV);
                }
                if !core::mem::take(&mut self.at_root) {
                    let root = self.root();
                    self.check_same_mount(&root)?;
                    self.at = root;
                }
            }
            at_start = false;
            rest = trim_slashes(rest);
            let end = rest
                .iter()
                .position(|byte| *byte == b'/')
                .unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            if name.is_empty() {
                return Ok(Tail {
                    last: Last::Root,
                    trailing_slash: true,
                });
            }
            self.search()?;
            if name.len() > general::NAME_MAX as usize {
                return Err(Errno::ENAMETOOLONG);
            }
            let next = trim_slashes(after);
            if next.is_empty() {
                return Ok(Tail {
                    last: match name {
                        b"." => Last::Dot,
                        b".." => Last::DotDot,
                        name => Last::Name(name.to_vec()),
                    },
                    trailing_slash: !after.is_empty(),
                });
            }
            rest = next;
            match name {
                b"." => {}
                b".." => self.up()?,
                name => {
                    let inode = self.step(name)?;
                    match inode.kind() {
                        FileKind::Symlink => {
                            if let Followed::Path(mut target) = self.follow(&inode)? {
                                target.push(b'/');
                                target.extend_from_slice(rest);
                                joined = target;
                                rest = &joined;
                                at_start = true;
                            }
                        }
                        FileKind::Directory => self.down(name, inode)?,
                        // A file something is mounted on may show a directory only if it is one itself.
                        _ => return Err(Errno::ENOTDIR),
                    }
                }
            }
        }
    }

    /// Takes the last step, following symbolic links at the end if `flags` or a trailing slash say so.
    ///
    /// # Errors
    /// As [`Walker::walk_to_last`].
    pub fn finish(mut self, tail: Tail, flags: Lookup) -> Result<Location> {
        self.go_to_end(tail, flags)?;
        Ok(self.at)
    }

    fn go_to_end(&mut self, mut tail: Tail, flags: Lookup) -> Result<()> {
        let mut directory = flags.contains(Lookup::DIRECTORY);
        let mut follow = flags.contains(Lookup::FOLLOW);
        loop {
            // Once a slash has asked for a directory, every further link is followed, too.
            directory |= tail.trailing_slash;
            follow |= tail.trailing_slash;
            match tail.last {
                Last::Root | Last::Dot => break,
                Last::DotDot => {
                    self.up()?;
                    break;
                }
                Last::Name(name) => {
                    let inode = self.step(&name)?;
                    if inode.kind() != FileKind::Symlink || !follow {
                        self.down(&name, inode)?;
                        break;
                    }
                    match self.follow_last(&inode)? {
                        Some(next) => tail = next,
                        None => break,
                    }
                }
            }
        }
        if directory && self.at.inode.kind() != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        Ok(())
    }

    /// Follows a link that is the last component: walks to the last component of its target, or stands at the
    /// target (`None`).
    ///
    /// # Errors
    /// As [`Walker::walk_to_last`].
    pub fn follow_last(&mut self, link: &Arc<dyn Inode>) -> Result<Option<Tail>> {
        match self.follow(link)? {
            Followed::Path(target) => self.walk_to_last(&target).map(Some),
            Followed::Jumped => Ok(None),
        }
    }

    /// Goes to `name`, which was looked up to be `inode`, mounts crossed.
    ///
    /// # Errors
    /// `EXDEV` with `RESOLVE_NO_XDEV`.
    pub fn enter(mut self, name: &[u8], inode: Arc<dyn Inode>) -> Result<Location> {
        self.down(name, inode)?;
        Ok(self.at)
    }
}

fn trim_slashes(path: &[u8]) -> &[u8] {
    let start = path
        .iter()
        .position(|byte| *byte != b'/')
        .unwrap_or(path.len());
    &path[start..]
}

/// The file `path` leads to from `dirfd`.
///
/// # Errors
/// As `path_resolution(7)`; `ENOENT` for an empty path without [`Lookup::EMPTY`].
pub fn lookup_at(t: &Thread, dirfd: i32, path: &[u8], flags: Lookup) -> Result<Location> {
    lookup(t, dirfd, path, flags, Known::location, |location| location)
}

/// As [`lookup_at`], the file alone.
///
/// # Errors
/// As [`lookup_at`].
pub fn inode_at(t: &Thread, dirfd: i32, path: &[u8], flags: Lookup) -> Result<Arc<dyn Inode>> {
    lookup(t, dirfd, path, flags, Known::inode, |location| {
        location.inode
    })
}

/// What `found` gives for a walk that is known, or else `made` for a new one.
fn lookup<R>(
    t: &Thread,
    dirfd: i32,
    path: &[u8],
    flags: Lookup,
    found: impl FnOnce(&Known, &Key<'_>) -> Option<R>,
    made: impl FnOnce(Location) -> R,
) -> Result<R> {
    let can_be_known = path.first() == Some(&b'/') || dirfd == general::AT_FDCWD;
    if path.is_empty() || !can_be_known {
        return lookup_with(t, dirfd, path, flags, 0, None).map(made);
    }
    let result = t.with_fs_and_credentials(|fs, credentials| {
        let key = Key {
            path,
            flags,
            credentials,
        };
        found(&fs.known, &key)
    });
    if let Some(result) = result {
        return Ok(result);
    }
    let moment = known::moment();
    let mut walker = Walker::new(t, dirfd, path, 0)?;
    let tail = walker.walk_to_last(path)?;
    walker.go_to_end(tail, flags)?;
    if walker.is_ours {
        let key = Key {
            path,
            flags,
            credentials: &walker.credentials,
        };
        t.fs().known.add(&key, moment, &walker.at);
    }
    Ok(made(walker.at))
}

/// [`lookup_at`] with `RESOLVE_*` restrictions, and with other credentials than the thread's if given.
///
/// # Errors
/// As [`lookup_at`], and as `openat2(2)`.
pub fn lookup_with(
    t: &Thread,
    dirfd: i32,
    path: &[u8],
    flags: Lookup,
    resolve: u32,
    credentials: Option<Arc<Credentials>>,
) -> Result<Location> {
    if path.is_empty() && !flags.contains(Lookup::EMPTY) {
        return Err(Errno::ENOENT);
    }
    let mut walker = Walker::new(t, dirfd, path, resolve)?;
    if let Some(credentials) = credentials {
        walker = walker.with_credentials(credentials);
    }
    if path.is_empty() {
        return Ok(walker.at);
    }
    let tail = walker.walk_to_last(path)?;
    walker.finish(tail, flags)
}

/// The directory the last component of `path` is in.
///
/// # Errors
/// As [`lookup_at`].
pub fn parent_at(t: &Thread, dirfd: i32, path: &[u8]) -> Result<Parent> {
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    let mut walker = Walker::new(t, dirfd, path, 0)?;
    let Tail {
        last,
        trailing_slash,
    } = walker.walk_to_last(path)?;
    Ok(Parent {
        directory: walker.at,
        last,
        trailing_slash,
    })
}
