//! Seals of memory files (`fcntl(2)`, `F_ADD_SEALS`).

use husk_abi::linux::general;

use super::File;
use super::tmpfs::Node;
use crate::{Errno, Result, SysResult};

fn node(file: &File) -> Result<&Node> {
    file.inode.as_any().downcast_ref().ok_or(Errno::EINVAL)
}

/// `F_GET_SEALS`.
///
/// # Errors
/// `EINVAL` if the file cannot have seals.
pub fn get(file: &File) -> SysResult {
    Ok(node(file)?.seals()? as usize)
}

/// `F_ADD_SEALS`.
///
/// # Errors
/// `EPERM` if it is not open for writing or may not be sealed further; `EINVAL`.
pub fn add(file: &File, seals: u32) -> SysResult {
    const ALL: u32 = general::F_SEAL_SEAL
        | general::F_SEAL_SHRINK
        | general::F_SEAL_GROW
        | general::F_SEAL_WRITE
        | general::F_SEAL_FUTURE_WRITE
        | general::F_SEAL_EXEC;
    if !file.is_writable() {
        return Err(Errno::EPERM);
    }
    if seals & !ALL != 0 {
        return Err(Errno::EINVAL);
    }
    let node = node(file)?;
    let old = node.seals()?;
    if old & general::F_SEAL_SEAL != 0 {
        return Err(Errno::EPERM);
    }
    node.set_seals(old | seals)?;
    Ok(0)
}
