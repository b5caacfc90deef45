//! The structs programs see, as bytes (`asm-generic/ipcbuf.h`, `msgbuf.h`, `sembuf.h`, `shmbuf.h`).

use alloc::vec::Vec;

use super::objects::Perm;
use crate::user::UserAddr;
use crate::{Errno, Result};

/// Commands all three kinds have.
pub const IPC_RMID: i32 = 0;
pub const IPC_SET: i32 = 1;
pub const IPC_STAT: i32 = 2;
pub const IPC_INFO: i32 = 3;

/// Bytes of `struct ipc64_perm`, `msqid64_ds`, `semid64_ds`, `shmid64_ds`.
const PERM_BYTES: usize = 48;
pub const MSQID_BYTES: usize = 120;
pub const SEMID_BYTES: usize = 104;
pub const SHMID_BYTES: usize = 112;

/// A struct being put together.
#[derive(Debug, Default)]
pub struct Struct(Vec<u8>);

impl Struct {
    /// With `perm` at its start.
    pub fn of(perm: &Perm, id: i32) -> Self {
        let mut bytes = Self::default();
        bytes.int(perm.key);
        for id in [perm.uid, perm.gid, perm.cuid, perm.cgid, perm.mode] {
            bytes.int(id.cast_signed());
        }
        bytes.0.extend(((id >> 15) as u16).to_ne_bytes());
        bytes.0.resize(PERM_BYTES, 0);
        bytes
    }

    /// An `int`.
    pub fn int(&mut self, value: i32) {
        self.0.extend(value.to_ne_bytes());
    }

    /// A `long`, aligned.
    pub fn long(&mut self, value: u64) {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self.0.extend(value.to_ne_bytes());
    }

    /// Writes it out, zeros up to `len` behind it.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn write(mut self, to: UserAddr, len: usize) -> Result<()> {
        self.0.resize(len, 0);
        to.write_bytes(&self.0)
    }
}

/// What `IPC_SET` takes of `struct ipc64_perm`.
#[derive(Clone, Copy, Debug)]
pub struct NewPerm {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

/// A struct of `N` bytes a program passes, and the permissions at its start.
///
/// # Errors
/// `EFAULT`.
pub fn read<const N: usize>(from: UserAddr) -> Result<([u8; N], NewPerm)> {
    let mut bytes = [0; N];
    from.read_bytes(&mut bytes)?;
    let word = |at: usize| {
        let word = bytes[at..].first_chunk().copied();
        word.map(u32::from_ne_bytes).ok_or(Errno::EFAULT)
    };
    let perm = NewPerm {
        uid: word(4)?,
        gid: word(8)?,
        mode: word(20)?,
    };
    Ok((bytes, perm))
}
