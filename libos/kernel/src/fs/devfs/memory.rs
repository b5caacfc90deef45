//! The memory devices, major number 1 (`null(4)`, `full(4)`, `random(4)`).

use alloc::sync::Arc;

use husk_abi::linux::ioctl;

use crate::fs::poll::PollTable;
use crate::fs::{File, FileOps, PollEvents, random};
use crate::user::{IoBuf, UserAddr};
use crate::{Errno, Result, SysResult, Thread};

/// A memory device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryDevice {
    /// `/dev/null`: swallows everything, is always at its end.
    Null,
    /// `/dev/zero`: endless zeros.
    Zero,
    /// `/dev/full`: zeros to read, no space to write.
    Full,
    /// `/dev/random` and `/dev/urandom`, the same since Linux 5.6 once the generator is seeded.
    Random,
}

/// Bits of entropy the pool claims to hold (`/proc/sys/kernel/random/entropy_avail`).
pub const ENTROPY_BITS: i32 = 256;

pub(super) fn open(minor: u64) -> Result<Arc<dyn FileOps>> {
    let device = match minor {
        3 => MemoryDevice::Null,
        5 => MemoryDevice::Zero,
        7 => MemoryDevice::Full,
        8 | 9 => MemoryDevice::Random,
        _ => return Err(Errno::ENXIO),
    };
    Ok(Arc::new(device))
}

impl MemoryDevice {
    /// Whether it can be waited for; epoll refuses the others with `EPERM`, as Linux does.
    #[must_use]
    pub fn is_pollable(self) -> bool {
        self == MemoryDevice::Random
    }
}

/// Fills `buf` with zeros in steps, so that a signal can end a read of gigabytes.
fn read_zeros(t: &Thread, buf: &mut IoBuf<'_>) -> Result<usize> {
    const STEP: usize = 1 << 20;
    let mut moved = 0;
    while buf.remaining() > 0 {
        let want = buf.remaining().min(STEP);
        match buf.put_zeros(want) {
            Ok(got) => {
                moved += got;
                if got < want || t.signals.is_pending() {
                    break;
                }
            }
            Err(_) if moved > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(moved)
}

impl FileOps for MemoryDevice {
    fn read(&self, t: &Thread, _file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        match self {
            MemoryDevice::Null => Ok(0),
            MemoryDevice::Zero | MemoryDevice::Full => read_zeros(t, buf),
            MemoryDevice::Random => random::fill_user(t, buf),
        }
    }

    fn write(&self, _t: &Thread, _file: &File, buf: &mut IoBuf<'_>, _offset: u64) -> Result<usize> {
        match self {
            MemoryDevice::Full => Err(Errno::ENOSPC),
            // Bytes written to the generator are not needed: the CPU seeds it.
            MemoryDevice::Null | MemoryDevice::Zero | MemoryDevice::Random => {
                Ok(buf.skip(buf.remaining()))
            }
        }
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn is_zeros(&self) -> bool {
        *self == MemoryDevice::Zero
    }

    fn has_position(&self) -> bool {
        false
    }

    fn poll(&self, _t: &Thread, _file: &File, _table: Option<&mut PollTable<'_>>) -> PollEvents {
        PollEvents::IN | PollEvents::OUT | PollEvents::RDNORM | PollEvents::WRNORM
    }

    fn ioctl(&self, _t: &Thread, _file: &File, request: u32, arg: u64) -> SysResult {
        match request {
            ioctl::RNDGETENTCNT if *self == MemoryDevice::Random => {
                UserAddr(arg).write(&ENTROPY_BITS)?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
