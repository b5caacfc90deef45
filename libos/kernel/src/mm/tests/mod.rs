//! Host-side tests of address spaces. Loads and stores of the process are `read_bytes` and `write_bytes`, which
//! go through the page tables and fault as the CPU would.

mod code;
mod faults;
mod holding;
mod loading;
mod model;
mod moving;
mod shelf;

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_hal::phys::{self, Frame};

use super::frames::Frames;
use super::vma::{Backing, Object};
use super::{AddressSpace, Limits, Mappable, Mapping, Placement, Prot};
use crate::translate::TextImage;
use crate::{Errno, Result};

const PAGE: u64 = 4096;
const LARGE: u64 = 2 << 20;
const RW: Prot = Prot::READ.union(Prot::WRITE);
const RX: Prot = Prot::READ.union(Prot::EXEC);

/// A file in RAM.
#[derive(Debug)]
struct TestFile {
    frames: &'static Frames,
    pages: Vec<Frame>,
    size: u64,
    text: Option<TextImage>,
}

impl TestFile {
    fn new(frames: &'static Frames, contents: &[u8]) -> Self {
        let pages = contents
            .chunks(PAGE as usize)
            .map(|bytes| {
                let frame = frames.alloc_zeroed().unwrap();
                phys::write(frame, 0, bytes);
                frame
            })
            .collect();
        Self {
            frames,
            pages,
            size: contents.len() as u64,
            text: None,
        }
    }

    /// `pages` pages; each starts with its index + 1000 as a 64-bit word.
    fn numbered(frames: &'static Frames, pages: u64) -> Self {
        let mut contents = vec![0; (pages * PAGE) as usize];
        for (index, page) in contents.chunks_mut(PAGE as usize).enumerate() {
            page[..8].copy_from_slice(&(index as u64 + 1000).to_le_bytes());
        }
        Self::new(frames, &contents)
    }
}

impl Mappable for TestFile {
    fn page(&self, index: u64, _shared_write: bool) -> Result<Frame> {
        let frame = self.pages.get(index as usize).ok_or(Errno::ENXIO)?;
        self.frames.get(*frame);
        Ok(*frame)
    }

    fn size_bytes(&self) -> u64 {
        self.size
    }

    fn identity(&self) -> (u64, u64) {
        (9, 77)
    }

    fn text(&self) -> Option<&TextImage> {
        self.text.as_ref()
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        for frame in &self.pages {
            self.frames.put(*frame);
        }
    }
}

fn file_mapping(file: &Arc<TestFile>, offset: u64, prot: Prot) -> Mapping {
    Mapping {
        backing: Backing::Object(Object {
            mappable: file.clone(),
            offset,
            path: Arc::from(&b"/test/file"[..]),
            thunk_base: None,
        }),
        ..Mapping::anonymous(prot)
    }
}

fn space(frames: &'static Frames) -> Arc<AddressSpace> {
    AddressSpace::with_frames(frames, 2).unwrap()
}

fn map_at(space: &AddressSpace, at: u64, len: u64, mapping: Mapping) -> u64 {
    space
        .map(Placement::Fixed(at), len, mapping, &Limits::DEFAULT)
        .unwrap()
}

fn load(space: &AddressSpace, at: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    space
        .read_bytes(at, &mut bytes)
        .map(|_| u64::from_le_bytes(bytes))
}

fn store(space: &AddressSpace, at: u64, value: u64) -> Result<()> {
    space.write_bytes(at, &value.to_le_bytes()).map(drop)
}

fn used(frames: &Frames) -> u64 {
    frames.usage().used_bytes / PAGE
}
