//! Advisory locks on the host's files: what the guest holds of each, as one holder.
//!
//! The libOS arbitrates between its processes; here the guest meets the others, who lock the same file on the host or in another
//! container. The locks are those of one open file description for each file (`F_OFD_SETLK`, `flock(2)`).

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};

use husk_abi::boundary::fuse::{LOCK_ASK, LOCK_END, LOCK_WHOLE, LockIn, LockOut};
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// Most files with locks.
const MAX_FILES: usize = 4096;

/// The files with locks, by node.
#[derive(Debug, Default)]
pub struct Locks {
    files: HashMap<u64, OwnedFd>,
}

fn errno(error: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(error as i32)
}

/// A `struct flock`; 0, 1 and 2 are nothing, shared and exclusive.
fn flock(args: &LockIn) -> Result<libc::flock, Errno> {
    let kind = match args.kind {
        0 => libc::F_UNLCK,
        1 => libc::F_RDLCK,
        2 => libc::F_WRLCK,
        _ => return Err(Errno::INVAL),
    };
    let start = i64::try_from(args.start).map_err(|_| Errno::INVAL)?;
    let end = i64::try_from(args.end).map_err(|_| Errno::INVAL)?;
    let len = match end {
        i64::MAX => 0,
        end if end >= start => end - start + 1,
        _ => return Err(Errno::INVAL),
    };
    Ok(libc::flock {
        l_type: i16::try_from(kind).map_err(|_| Errno::INVAL)?,
        l_whence: libc::SEEK_SET as i16,
        l_start: start,
        l_len: len,
        l_pid: 0,
    })
}

impl Locks {
    /// Carries out `args` on the file of `node`, which `open` opens if it has no lock yet.
    ///
    /// # Errors
    /// `EAGAIN` if somebody else's lock is in the way; `ENOLCK` if too many files have locks; what opening and locking give.
    pub fn set(
        &mut self,
        node: u64,
        args: &LockIn,
        open: impl FnOnce() -> Result<OwnedFd, Errno>,
    ) -> Result<Option<LockOut>, Errno> {
        if args.flags & LOCK_END != 0 {
            self.files.remove(&node);
            return Ok(None);
        }
        if args.kind == 0 && !self.files.contains_key(&node) {
            return Ok(None);
        }
        if self.files.len() >= MAX_FILES && !self.files.contains_key(&node) {
            return Err(Errno::NOLCK);
        }
        let file = match self.files.entry(node) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(open()?),
        };
        if args.flags & LOCK_WHOLE != 0 {
            let operation = match args.kind {
                0 => FlockOperation::Unlock,
                1 => FlockOperation::NonBlockingLockShared,
                2 => FlockOperation::NonBlockingLockExclusive,
                _ => return Err(Errno::INVAL),
            };
            rustix::fs::flock(&*file, operation)?;
            return Ok(None);
        }
        let mut lock = flock(args)?;
        if args.flags & LOCK_ASK == 0 {
            fcntl(&*file, FcntlArg::F_OFD_SETLK(&lock)).map_err(errno)?;
            return Ok(None);
        }
        fcntl(&*file, FcntlArg::F_OFD_GETLK(&mut lock)).map_err(errno)?;
        let start = u64::try_from(lock.l_start).unwrap_or(0);
        let len = u64::try_from(lock.l_len).unwrap_or(0);
        Ok(Some(LockOut {
            start,
            end: match len {
                0 => i64::MAX as u64,
                len => start.saturating_add(len - 1),
            },
            kind: match i32::from(lock.l_type) {
                libc::F_UNLCK => 0,
                libc::F_RDLCK => 1,
                _ => 2,
            },
            // The number of a process of the host says nothing in the container.
            pid: if lock.l_pid < 0 { u32::MAX } else { 0 },
        }))
    }

    /// The guest has forgotten the node.
    pub fn forget(&mut self, node: u64) {
        if let Some(file) = self.files.remove(&node) {
            tracing::trace!(
                node,
                descriptor = file.as_raw_fd(),
                "locks of a forgotten file"
            );
        }
    }
}
