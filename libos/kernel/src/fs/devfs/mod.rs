//! Character devices and the tree under `/dev`.
//!
//! Device nodes may lie in any file system: whoever opens one asks [`open_char`] by device number. The tree a
//! container gets is described by [`NODES`]; it is laid into a tmpfs by [`populate`].

mod memory;
mod tree;

use alloc::sync::Arc;

use super::FileOps;
use crate::tty::pty;
use crate::{Errno, Result, Thread};

pub use memory::{ENTROPY_BITS, MemoryDevice};
pub use tree::{NODES, Node, NodeKind, populate};

/// The device number of `major` and `minor`, as `makedev(3)` packs it.
#[must_use]
pub const fn makedev(major: u64, minor: u64) -> u64 {
    (minor & 0xff)
        | (major & 0xfff) << 8
        | (minor & 0xffff_ff00) << 12
        | (major & 0xffff_f000) << 32
}

/// Major and minor number of a device.
#[must_use]
pub const fn split(rdev: u64) -> (u64, u64) {
    (
        rdev >> 8 & 0xfff | rdev >> 32 & 0xffff_f000,
        rdev & 0xff | rdev >> 12 & 0xffff_ff00,
    )
}

/// Opens character device `rdev`.
///
/// # Errors
/// `ENXIO` if there is no such device, or no controlling terminal behind `/dev/tty`.
pub fn open_char(t: &Thread, rdev: u64) -> Result<Arc<dyn FileOps>> {
    match split(rdev) {
        (1, minor) => memory::open(minor),
        (5, 0) => super::stdio::open_controlling(t),
        (5, 1) => super::stdio::open_console(t),
        (5, 2) => {
            let devpts = t.kernel.ttys.first().ok_or(Errno::ENODEV)?;
            devpts.open_master(t)
        }
        // They are in devpts only.
        (pty::MAJOR, _) => Err(Errno::EIO),
        _ => Err(Errno::ENXIO),
    }
}

#[cfg(test)]
mod tests {
    use super::{makedev, split};

    #[test]
    fn device_numbers() {
        assert_eq!(makedev(1, 3), 0x103);
        assert_eq!(makedev(136, 0), 0x8800);
        for (major, minor) in [(1, 3), (5, 1), (0x1234, 0x56789), (0xfff, 0xff)] {
            assert_eq!(split(makedev(major, minor)), (major, minor));
        }
    }
}
