//! Files full of code, for this room's tests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec::Vec;

use husk_hal::phys::{self, Frame};

use super::image::{FrameSource, TextImage};
use crate::mm::{Frames, Mappable};
use crate::{Errno, Result};

/// An address for the entry's slot.
pub const SLOT: u64 = 0xffff_ffff_8030_0000;

/// A file in test memory.
#[derive(Debug)]
pub struct CodeFile {
    pub frames: &'static Frames,
    pub pages: Vec<Frame>,
    pub text: TextImage,
    /// How often a page was asked for.
    pub asked: AtomicUsize,
}

impl CodeFile {
    pub fn new(bytes: &[u8]) -> Self {
        let frames = crate::mm::testing::frames(4);
        let pages = bytes
            .chunks(4096)
            .map(|chunk| {
                let frame = frames.alloc_zeroed().expect("memory");
                phys::write(frame, 0, chunk);
                frame
            })
            .collect();
        Self {
            frames,
            pages,
            text: TextImage::default(),
            asked: AtomicUsize::new(0),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        read_pages(&self.pages)
    }
}

impl Mappable for CodeFile {
    fn page(&self, index: u64, _shared_write: bool) -> Result<Frame> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let frame = *self.pages.get(index as usize).ok_or(Errno::ENXIO)?;
        self.frames.get(frame);
        Ok(frame)
    }

    fn size_bytes(&self) -> u64 {
        self.pages.len() as u64 * 4096
    }

    fn identity(&self) -> (u64, u64) {
        (7, 42)
    }

    fn text(&self) -> Option<&TextImage> {
        Some(&self.text)
    }
}

pub fn read_pages(pages: &[Frame]) -> Vec<u8> {
    let mut bytes = std::vec![0; pages.len() * 4096];
    for (page, frame) in bytes.chunks_mut(4096).zip(pages) {
        phys::read(*frame, 0, page);
    }
    bytes
}

/// Memory that runs out after `left` frames.
#[derive(Debug)]
pub struct Scarce {
    pub frames: &'static Frames,
    pub left: AtomicUsize,
    pub out: AtomicUsize,
}

impl Scarce {
    pub fn new(frames: &'static Frames, left: usize) -> &'static Self {
        std::boxed::Box::leak(std::boxed::Box::new(Self {
            frames,
            left: AtomicUsize::new(left),
            out: AtomicUsize::new(0),
        }))
    }
}

impl FrameSource for Scarce {
    fn take(&self) -> Option<Frame> {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .ok()?;
        self.out.fetch_add(1, Ordering::Relaxed);
        self.frames.alloc_zeroed().ok()
    }

    fn give_back(&self, frame: Frame) {
        self.out.fetch_sub(1, Ordering::Relaxed);
        self.frames.put(frame);
    }
}
