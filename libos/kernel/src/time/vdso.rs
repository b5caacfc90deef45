//! The vDSO (`vdso(7)`): the ELF image every process maps, so that reading the clock needs no system call.

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::boundary::clock::VDSO_WALL_CLOCK_SLOT;
use husk_abi::boundary::layout::PAGE_SIZE;
use husk_hal::phys::{self, Frame};

use crate::mm::{Frames, Mappable};
use crate::translate::TextImage;
use crate::{Errno, Result};

/// The image: as the kernel was given it, and once loaded as processes map it.
#[derive(Debug)]
pub(super) struct Image {
    elf: &'static [u8],
    pages: spin::Once<Arc<Pages>>,
}

/// The image's pages, shared by all processes and never freed.
#[derive(Debug)]
struct Pages {
    frames: &'static Frames,
    pages: Vec<Frame>,
}

impl Image {
    pub fn new(elf: &'static [u8]) -> Self {
        Self {
            elf,
            pages: spin::Once::new(),
        }
    }

    /// Copies the image into frames, with the wall clock's address in its slot.
    pub fn load(&self, frames: &'static Frames) {
        let elf = patched(self.elf, husk_hal::clock::wall_clock_address());
        let pages = elf
            .chunks(PAGE_SIZE as usize)
            .map(|page| {
                let frame = frames.alloc_zeroed()?;
                phys::write(frame, 0, page);
                Ok(frame)
            })
            .collect::<Result<Vec<_>>>();
        match pages {
            Ok(pages) if !pages.is_empty() => {
                self.pages.call_once(|| Arc::new(Pages { frames, pages }));
            }
            _ => crate::log!(Warn, "time", "no vDSO: clocks are read by system call"),
        }
    }

    pub fn mappable(&self) -> Option<Arc<dyn Mappable>> {
        let pages = self.pages.get()?.clone();
        Some(pages)
    }
}

/// The image with `address` in the slot for the wall clock's; without a slot it asks the kernel for wall-clock time.
fn patched(elf: &[u8], address: u64) -> Vec<u8> {
    let mut elf = elf.to_vec();
    let slot = elf
        .chunks_exact_mut(8)
        .find(|word| **word == VDSO_WALL_CLOCK_SLOT.to_le_bytes());
    if let Some(slot) = slot {
        slot.copy_from_slice(&address.to_le_bytes());
    }
    elf
}

impl Mappable for Pages {
    fn page(&self, index: u64, shared_write: bool) -> Result<Frame> {
        // Nobody can have it open for writing.
        if shared_write {
            return Err(Errno::EACCES);
        }
        let index = usize::try_from(index).map_err(|_| Errno::ENXIO)?;
        let frame = *self.pages.get(index).ok_or(Errno::ENXIO)?;
        self.frames.get(frame);
        Ok(frame)
    }

    fn size_bytes(&self) -> u64 {
        self.pages.len() as u64 * PAGE_SIZE
    }

    fn identity(&self) -> (u64, u64) {
        (0, 0)
    }

    fn text(&self) -> Option<&TextImage> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Image, patched};
    use husk_abi::boundary::clock::VDSO_WALL_CLOCK_SLOT;

    fn elf() -> &'static [u8] {
        let mut elf = vec![7u8; 5000];
        elf[16..24].copy_from_slice(&VDSO_WALL_CLOCK_SLOT.to_le_bytes());
        Box::leak(elf.into_boxed_slice())
    }

    #[test]
    fn the_slot_is_filled() {
        let image = patched(elf(), 0xffff_8080_0000_1000);
        assert_eq!(image[16..24], 0xffff_8080_0000_1000u64.to_le_bytes());
        assert_eq!((image[15], image[24]), (7, 7));
        assert_eq!(patched(&[1, 2, 3], 5), [1, 2, 3]);
    }

    #[test]
    fn pages_are_shared() {
        let frames = crate::mm::testing::frames(4);
        let image = Image::new(elf());
        assert!(image.mappable().is_none());
        image.load(frames);
        let (first, second) = (image.mappable().unwrap(), image.mappable().unwrap());
        assert_eq!(first.size_bytes(), 8192);
        assert_eq!(first.page(1, false), second.page(1, false));
        assert!(first.page(2, false).is_err() && first.page(0, true).is_err());
        let frame = first.page(0, false).unwrap();
        let mut byte = [0];
        husk_hal::phys::read(frame, 0, &mut byte);
        assert_eq!((byte, frames.count(frame)), ([7], 2));
    }
}
