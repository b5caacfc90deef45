//! Locks between processes, which the kernel frees when their holder dies.
//!
//! A lock file is removed by its holder when it is of no more use ([`Lock::remove`]). Whoever has locked a file
//! therefore makes sure that it still bears the name; if not, another has it, and it tries again.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::progress::Progress;

/// An exclusive lock, held until dropped.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock unless it is held.
    pub(super) fn try_take(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = open(path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_named(&file, path)? => return Ok(Some(Self::held(file, path))),
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Takes the lock, waiting for it where needed; `what` tells the user for what.
    pub(super) fn wait(path: &Path, what: &str, progress: &mut dyn Progress) -> io::Result<Self> {
        if let Some(lock) = Self::try_take(path)? {
            return Ok(lock);
        }
        progress.begin(what, None);
        loop {
            let file = open(path)?;
            match flock(&file, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
                Ok(()) if is_named(&file, path)? => {
                    progress.end();
                    return Ok(Self::held(file, path));
                }
                Ok(()) => {}
            }
        }
    }

    /// Gives the lock up and removes its file.
    pub(super) fn remove(self) {
        // While it is still locked: who waits for it sees that the name is gone.
        let _ = std::fs::remove_file(&self.path);
        drop(self.file);
    }

    fn held(file: File, path: &Path) -> Self {
        Self {
            file,
            path: path.to_owned(),
        }
    }
}

/// Whether `path` still names the file that was locked.
pub(super) fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let locked = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((locked.dev(), locked.ino()) == (named.dev(), named.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}
