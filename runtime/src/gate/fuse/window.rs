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
    /// From this byte of the chunk on there are zeros of its own, because the file became shorter or cannot be read.
    pub patched_from: Option<u64>,
}

impl Chunk {
    /// The file's size now; one that cannot be looked at any more has lost everything.
    fn size(&self) -> u64 {
        tree::stat(&*self.file).map_or(0, |stat| stat.stx_size)
    }

    /// Bytes of the chunk with pages of a file of `size` bytes.
    fn present(&self, size: u64) -> u64 {
        size.saturating_sub(self.offset)
            .next_multiple_of(4096)
            .min(CHUNK_BYTES)
    }

    /// Whether the file still has the first `present` bytes of the chunk.
    fn still_has(&self, present: u64) -> bool {
        self.present(self.size()) >= present
    }

    /// From where on the file has lost pages that the chunk shows, if it has.
    fn truncated(_index: u32, chunk: &Self) -> Option<u64> {
        let present = chunk.present(chunk.size());
        let known =
            present == CHUNK_BYTES || chunk.patched_from.is_some_and(|from| from <= present);
        (!known).then_some(present)
    }
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
    /// `EINVAL` outside the window; what mapping gives; `EIO` if some page of it cannot be read: nothing is shown then.
    pub fn show(&mut self, index: u32, chunk: Chunk, size: u64) -> io::Result<Option<u64>> {
        let slot = self
            .chunks
            .get_mut(index as usize)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        let shows = Shows::File(chunk.file.as_fd(), chunk.offset, chunk.writable);
        self.window.set(Self::at(index), CHUNK_BYTES, shows)?;
        let present = chunk.present(size);
        // What the guest has in page tables already stays: it finds out when it touches the page.
        let is_new = slot
            .as_ref()
            .is_none_or(|old| (old.node, old.offset) != (chunk.node, chunk.offset));
        let whole = self.window.populate(Self::at(index), present);
        if !whole && is_new && chunk.still_has(present) {
            *slot = None;
            let _ = self
                .window
                .set(Self::at(index), CHUNK_BYTES, Shows::Nothing);
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
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

    /// Puts zeros where chunks reach beyond the pages their files have, and where pages cannot be read; gives the chunks, and
    /// their nodes, where that was news.
    pub fn repair(&mut self) -> Vec<(u32, u64)> {
        let repaired = self.repair_where(Chunk::truncated);
        if !repaired.is_empty() {
            return repaired;
        }
        // Reading all of them in is slow, and rarely wanted: the host's disk has failed, or the guest touches what is not there.
        let window = self.window;
        self.repair_where(|index, chunk| {
            let present = chunk.present(chunk.size());
            let failed = chunk.patched_from.is_none() && !window.populate(Self::at(index), present);
            failed.then_some(0)
        })
    }

    /// Puts zeros into each chunk from the byte on that `from` says.
    fn repair_where(&mut self, from: impl Fn(u32, &Chunk) -> Option<u64>) -> Vec<(u32, u64)> {
        let mut repaired = Vec::new();
        for (index, chunk) in (0u32..).zip(&mut self.chunks) {
            let Some(chunk) = chunk else { continue };
            let Some(from) = from(index, chunk) else {
                continue;
            };
            let end = chunk.patched_from.unwrap_or(CHUNK_BYTES);
            let at = Self::at(index) + from;
            if self.window.set(at, end - from, Shows::Zeros).is_ok() {
                chunk.patched_from = Some(from);
                repaired.push((index, chunk.node));
            }
        }
        repaired
    }
}
