//! Anonymous shared memory: `MAP_SHARED | MAP_ANONYMOUS`.

use alloc::collections::BTreeMap;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use husk_abi::boundary::layout::PAGE_SIZE;
use husk_hal::phys::{self, Frame};

use super::frames::Frames;
use super::{Mappable, oom};
use crate::sync::SpinLock;
use crate::translate::TextImage;
use crate::{Errno, Result};

/// Device number shown in `/proc/*/maps`: the kernel's internal shared-memory mount.
const DEVICE: u64 = 1;
/// Above the numbers of System V segments, which have the same device.
static NEXT_INODE: AtomicU64 = AtomicU64::new(1 << 62);

/// Memory that processes share by inheriting a mapping; pages come to be when first touched.
#[derive(Debug)]
pub struct SharedMemory {
    frames: &'static Frames,
    size_bytes: u64,
    inode: u64,
    pages: SpinLock<BTreeMap<u64, Frame>>,
}

impl SharedMemory {
    /// `size_bytes` of zeros.
    ///
    /// # Errors
    /// `ENOMEM` if it is more than there is RAM.
    pub fn new(frames: &'static Frames, size_bytes: u64) -> Result<Self> {
        if size_bytes > frames.ram_bytes() {
            return Err(Errno::ENOMEM);
        }
        Ok(Self {
            frames,
            size_bytes: size_bytes.next_multiple_of(PAGE_SIZE),
            inode: NEXT_INODE.fetch_add(1, Ordering::Relaxed),
            pages: SpinLock::new(BTreeMap::new()),
        })
    }
}

impl SharedMemory {
    /// How many of its pages there are.
    #[must_use]
    pub fn resident_pages(&self) -> u64 {
        self.pages.lock().len() as u64
    }
}

impl Mappable for SharedMemory {
    fn page(&self, index: u64, _shared_write: bool) -> Result<Frame> {
        if index >= self.size_bytes / PAGE_SIZE {
            return Err(Errno::ENXIO);
        }
        if let Some(frame) = self.pages.lock().get(&index) {
            self.frames.get(*frame);
            return Ok(*frame);
        }
        let new = oom::insist(|| self.frames.alloc_zeroed())?;
        let frame = *self.pages.lock().entry(index).or_insert(new);
        if frame == new {
            self.frames.get(frame);
        } else {
            // Another thread was faster.
            self.frames.put(new);
            self.frames.get(frame);
        }
        Ok(frame)
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn remove(&self, range: Range<u64>) -> Result<()> {
        let pages = self.pages.lock();
        for (_, frame) in pages.range(range.start / PAGE_SIZE..range.end.div_ceil(PAGE_SIZE)) {
            phys::zero_frames(*frame, 1);
        }
        Ok(())
    }

    fn identity(&self) -> (u64, u64) {
        (DEVICE, self.inode)
    }

    fn text(&self) -> Option<&TextImage> {
        None
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        for frame in self.pages.get_mut().values() {
            self.frames.put(*frame);
        }
    }
}
