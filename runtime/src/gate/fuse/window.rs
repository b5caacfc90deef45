//! What the chunks of the window show.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use husk_abi::boundary::fuse::CHUNK_BYTES;

use super::tree;
use crate::vmm::{Shows, Window};

/// A chunk that shows a file.
#[derive(Debug)]
pub struct Chunk {
    /// The node it shows.
    pub node: u64,
    /// From this byte of it on.
    pub offset: u64,
    /// It may be written.
    pub writable: bool,
    /// What is mapped.
    pub file: Arc<OwnedFd>,
    /// From this byte of the chunk on there are zeros of its own, because the file became shorter.
    pub patched_from: Option<u64>,
}

/// All chunks.
#[derive(Debug)]
pub struct Chunks {
    window: Window,
    chunks: Vec<Option<Chunk>>,
}

impl Chunks {
    /// A window that shows nothing.
    pub fn new(window: Window) -> Self {
        let count = window.bytes() / CHUNK_BYTES;
        Self {
            window,
            chunks: (0..count).map(|_| None).collect(),
        }
    }

    fn at(index: u32) -> u64 {
        u64::from(index) * CHUNK_BYTES
    }

    /// Shows `chunk`, of a file of `size` bytes, at `index`; gives the node that was shown there.
    ///
    /// # Errors
    /// `EINVAL` outside the window; what mapping gives.
    pub fn show(&mut self, index: u32, chunk: Chunk, size: u64) -> io::Result<Option<u64>> {
        let slot = self
            .chunks
            .get_mut(index as usize)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        let shows = Shows::File(chunk.file.as_fd(), chunk.offset, chunk.writable);
        self.window.set(Self::at(index), CHUNK_BYTES, shows)?;
        let present = size.saturating_sub(chunk.offset).min(CHUNK_BYTES);
        self.window
            .populate(Self::at(index), present.next_multiple_of(4096));
        Ok(slot.replace(chunk).map(|before| before.node))
    }

    /// Maps what a chunk shows of `node` again, from `file`, which has taken its file's place.
    ///
    /// # Errors
    /// What mapping gives.
    pub fn show_again(&mut self, index: u32, node: u64, file: &Arc<OwnedFd>) -> io::Result<()> {
        let Some(Some(chunk)) = self.chunks.get_mut(index as usize) else {
            return Ok(());
        };
        if chunk.node != node {
            return Ok(());
        }
        let shows = Shows::File(file.as_fd(), chunk.offset, chunk.writable);
        self.window.set(Self::at(index), CHUNK_BYTES, shows)?;
        chunk.file = file.clone();
        chunk.patched_from = None;
        Ok(())
    }

    /// Shows nothing at `index` any more; gives the node that was shown.
    pub fn clear(&mut self, index: u32) -> Option<u64> {
        let chunk = self.chunks.get_mut(index as usize)?.take()?;
        let _ = self
            .window
            .set(Self::at(index), CHUNK_BYTES, Shows::Nothing);
        Some(chunk.node)
    }

    /// [`Chunks::clear`] if it shows `node`.
    pub fn clear_if(&mut self, index: u32, node: u64) {
        let shows = self.chunks.get(index as usize);
        if shows.is_some_and(|chunk| chunk.as_ref().is_some_and(|chunk| chunk.node == node)) {
            self.clear(index);
        }
    }

    /// Puts zeros where chunks reach beyond the pages their files have; gives the chunks, and their nodes, where that
    /// was news.
    pub fn repair(&mut self) -> Vec<(u32, u64)> {
        let mut repaired = Vec::new();
        for (index, chunk) in (0u32..).zip(&mut self.chunks) {
            let Some(chunk) = chunk else { continue };
            // A file that cannot be looked at any more has lost everything.
            let size = tree::stat(&*chunk.file).map_or(0, |stat| stat.stx_size);
            let present = size
                .saturating_sub(chunk.offset)
                .next_multiple_of(4096)
                .min(CHUNK_BYTES);
            if present == CHUNK_BYTES || chunk.patched_from.is_some_and(|from| from <= present) {
                continue;
            }
            let end = chunk.patched_from.unwrap_or(CHUNK_BYTES);
            let at = Self::at(index) + present;
            if self.window.set(at, end - present, Shows::Zeros).is_ok() {
                chunk.patched_from = Some(present);
                repaired.push((index, chunk.node));
            }
        }
        repaired
    }
}
