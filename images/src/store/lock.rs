//! Locks between processes, which the kernel frees when their holder dies.
//!
//! Lock files are never removed: a second process could otherwise lock one that has just lost its
//! name while a third makes a new one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::progress::Progress;

/// An exclusive lock, held until dropped.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock unless it is held.
    pub(super) fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Takes the lock, waiting for it where needed.
    pub(super) fn wait(path: &Path, progress: &mut dyn Progress) -> io::Result<Self> {
        if let Some(lock) = Self::try_take(path)? {
            return Ok(lock);
        }
        progress.begin("waiting for another process that unpacks this image", None);
        let file = open(path)?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                result => {
                    result?;
                    break;
                }
            }
        }
        progress.end();
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}
