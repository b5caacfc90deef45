//! Walking inside the root, one component at a time.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Mode, OFlags, mkdirat, openat, readlinkat};
use rustix::io::Errno;

use super::UnpackError;
use super::name::Name;
use crate::text::shown;

/// Deepest nesting of directories accepted: trees are removed and archived recursively, one handle
/// per level. Package trees reach some forty.
pub(super) const MAX_DEPTH: usize = 256;
/// Most symbolic links followed for one name, as in Linux.
const MAX_LINKS: usize = 40;

/// `O_PATH` handles cannot be read or changed through, only walked from.
const HANDLE: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The directory nothing leaves.
pub(crate) struct Root {
    fd: Rc<OwnedFd>,
}

/// A directory inside the root.
#[derive(Clone)]
pub(crate) struct Dir {
    pub(crate) fd: Rc<OwnedFd>,
    /// From the root, free of symbolic links.
    pub(crate) path: PathBuf,
}

/// Why a walk stopped.
pub(super) enum WalkError {
    NotADirectory(Vec<u8>),
    TooManyLinks,
    TooDeep,
    Io(io::Error),
}

impl WalkError {
    pub(super) fn of(self, name: &Name<'_>) -> UnpackError {
        let entry = name.shown();
        match self {
            Self::NotADirectory(part) => UnpackError::NotADirectory {
                entry,
                obstacle: shown(part),
            },
            Self::TooManyLinks => UnpackError::TooManyLinks {
                entry,
                limit: MAX_LINKS,
            },
            Self::TooDeep => UnpackError::TooDeep {
                entry,
                limit: MAX_DEPTH,
            },
            Self::Io(cause) => name.failed("reach", cause),
        }
    }
}

impl From<Errno> for WalkError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl Root {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        // The target itself may be reached through links: it is the caller's choice.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { fd: Rc::new(fd) })
    }

    pub(crate) fn dir(&self) -> Dir {
        Dir {
            fd: Rc::clone(&self.fd),
            path: PathBuf::new(),
        }
    }

    /// The directory `parts` leads to, symbolic links resolved inside the root. With `on_made`
    /// missing ones are created and told; without it they give `None`.
    pub(super) fn walk(
        &self,
        parts: &[&[u8]],
        mut on_made: Option<&mut dyn FnMut(&Path)>,
    ) -> Result<Option<Dir>, WalkError> {
        let mut here = self.dir();
        let mut todo: Vec<Vec<u8>> = parts.iter().rev().map(|p| p.to_vec()).collect();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == b".." {
                // Only links bring these; the parent of the root is the root.
                here = self.reopen(here.path.parent().unwrap_or(Path::new("")))?;
                continue;
            }
            if let Some(child) = here.open_child_strict(&part)? {
                if child.path.components().count() > MAX_DEPTH {
                    return Err(WalkError::TooDeep);
                }
                here = child;
                continue;
            }
            match readlinkat(&here.fd, part.as_slice(), Vec::new()) {
                Ok(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(WalkError::TooManyLinks);
                    }
                    let target = target.as_bytes();
                    if target.starts_with(b"/") {
                        here = self.dir();
                    }
                    let steps = target.split(|b| *b == b'/').rev();
                    let steps = steps.filter(|s| !s.is_empty() && *s != b".");
                    todo.extend(steps.map(<[u8]>::to_vec));
                }
                Err(Errno::INVAL) => return Err(WalkError::NotADirectory(part)),
                Err(Errno::NOENT) => {
                    let Some(on_made) = on_made.as_deref_mut() else {
                        return Ok(None);
                    };
                    here.make_dir(&part).map_err(WalkError::Io)?;
                    on_made(&here.child(&part));
                    todo.push(part);
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(Some(here))
    }

    /// Walks a path known to be free of links again.
    pub(super) fn reopen(&self, path: &Path) -> Result<Dir, WalkError> {
        let mut here = self.dir();
        for part in path {
            here = match here.open_child_strict(part.as_bytes())? {
                Some(child) => child,
                None => return Err(WalkError::NotADirectory(part.as_bytes().to_vec())),
            };
        }
        Ok(here)
    }
}

impl Dir {
    /// The path of `base` in here.
    pub(crate) fn child(&self, base: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(base))
    }

    /// Creates `base`, open to ourselves only until the end.
    pub(crate) fn make_dir(&self, base: &[u8]) -> io::Result<()> {
        Ok(mkdirat(&self.fd, base, Mode::RWXU)?)
    }

    /// Opens the directory `base`; `None` when it is absent or something else.
    pub(crate) fn open_child(&self, base: &[u8]) -> io::Result<Option<Dir>> {
        match openat(&self.fd, base, HANDLE, Mode::empty()) {
            Ok(fd) => Ok(Some(Dir {
                fd: Rc::new(fd),
                path: self.child(base),
            })),
            // ELOOP or ENOTDIR for a symbolic link, by kernel version.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn open_child_strict(&self, base: &[u8]) -> Result<Option<Dir>, WalkError> {
        self.open_child(base).map_err(WalkError::Io)
    }

    /// A handle that can be read and changed through.
    pub(crate) fn readable(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.fd, c".", flags, Mode::empty())?)
    }

    /// The names in here.
    pub(crate) fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(self.readable()?)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        Ok(names)
    }
}
