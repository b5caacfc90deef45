//! Socket addresses as programs pass them: a family and up to 126 bytes more.

use alloc::vec::Vec;

use crate::user::UserAddr;
use crate::{Errno, Result};

/// Largest socket address (`sizeof(struct sockaddr_storage)`).
pub const MAX_BYTES: usize = 128;

/// Reads an address of `len` bytes; a length of 0 is an empty address.
///
/// # Errors
/// `EINVAL` for a length no address has, `EFAULT`.
pub fn read(at: UserAddr, len: i32) -> Result<Vec<u8>> {
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    if len > MAX_BYTES {
        return Err(Errno::EINVAL);
    }
    let mut bytes = alloc::vec![0; len];
    at.read_bytes(&mut bytes)?;
    Ok(bytes)
}

/// Writes `address` to the program's buffer at `to`, as much as fits, and its full length to `len_at`, where
/// the size of the buffer stands.
///
/// # Errors
/// `EINVAL` for a negative size, `EFAULT`.
pub fn write(address: &[u8], to: UserAddr, len_at: UserAddr) -> Result<()> {
    let room = usize::try_from(len_at.read::<i32>()?).map_err(|_| Errno::EINVAL)?;
    let copied = &address[..room.min(address.len())];
    if !copied.is_empty() {
        to.write_bytes(copied)?;
    }
    len_at.write(&(address.len() as i32))
}

/// The family an address names; `None` if it is too short for one.
#[must_use]
pub fn family(address: &[u8]) -> Option<u16> {
    let bytes = address.first_chunk::<2>()?;
    Some(u16::from_ne_bytes(*bytes))
}
