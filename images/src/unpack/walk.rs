//! Handles of directories of the layer that is being made, one component at a time.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

/// `O_PATH` handles cannot be read or changed through, only walked from.
const HANDLE: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A directory nothing leaves, or one inside it.
#[derive(Clone)]
pub(crate) struct Dir {
    pub(crate) fd: Rc<OwnedFd>,
    /// From the root, free of symbolic links.
    pub(crate) path: PathBuf,
}

impl Dir {
    /// The directory nothing leaves.
    pub(crate) fn root(path: &Path) -> io::Result<Self> {
        // The target itself may be reached through links: it is the caller's choice.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self {
            fd: Rc::new(fd),
            path: PathBuf::new(),
        })
    }

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

    /// Opens a directory below, whose path is known to be free of links.
    pub(crate) fn open_below(&self, path: &Path) -> io::Result<Dir> {
        let mut here = self.clone();
        for part in path {
            let child = here.open_child(part.as_bytes())?;
            here = child.ok_or(Errno::NOTDIR)?;
        }
        Ok(here)
    }

    /// A handle that can be read and changed through.
    pub(crate) fn readable(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.fd, c".", flags, Mode::empty())?)
    }

    /// The names in here.
    pub(crate) fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        crate::merged::names(&self.readable()?)
    }
}
