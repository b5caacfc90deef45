//! Which chunk of the window shows what.
//!
//! A chunk is pinned while its pages are in a page table or being copied ([`WindowCounts`]); one that is not may be given to
//! another file when all are taken. The nodes know their chunks; this table knows whose each is.

use alloc::sync::Weak;
use alloc::vec::Vec;

use husk_abi::boundary::boot::{BootInfo, GuestRange};
use husk_abi::boundary::fuse::{CHUNK_BYTES, TRUNCATED_OFFSET};
use husk_hal::phys::{self, Frame};

use super::node::Node;
use crate::mm::{Frames, WindowCounts};
use crate::sync::SpinLock;
use crate::{Errno, Kernel, Result};

/// Whose a chunk is.
#[derive(Debug, Clone, Default)]
enum Owner {
    /// Nobody's.
    #[default]
    Nobody,
    /// Chunk `index` of a node.
    Node(Weak<Node>, u64),
    /// Of a node that is gone, while page tables still have its pages: the server's number, and what to forget then.
    Gone(u64, u64),
}

#[derive(Debug, Default)]
struct Slots {
    owners: Vec<Owner>,
    /// Where the search for a chunk to take away goes on.
    hand: usize,
    free: Vec<usize>,
}

/// The window; empty if there is none.
#[derive(Debug)]
pub struct Window {
    range: GuestRange,
    truncated_gpa: u64,
    events_gpa: u64,
    slots: SpinLock<Slots>,
}

impl Window {
    /// The window the boot info describes; its chunks are counted in `frames`.
    #[must_use]
    pub fn new(boot: &BootInfo, frames: &Frames) -> Self {
        let chunks = (boot.window.len / CHUNK_BYTES) as usize;
        if chunks > 0 {
            frames.count_window(Frame::containing(boot.window.gpa), chunks);
        }
        Self {
            range: boot.window,
            truncated_gpa: boot.truncated_gpa,
            events_gpa: boot.host_events_gpa,
            slots: SpinLock::new(Slots {
                owners: alloc::vec![Owner::Nobody; chunks],
                hand: 0,
                free: (0..chunks).rev().collect(),
            }),
        }
    }

    /// The frame of page `page` of a chunk.
    #[must_use]
    pub fn frame(&self, slot: usize, page: u64) -> Frame {
        Frame::containing(self.range.gpa + slot as u64 * CHUNK_BYTES).offset(page)
    }

    /// Takes a chunk for chunk `index` of a node, from another if need be. It is claimed: nobody can pin it until it is
    /// released.
    ///
    /// # Errors
    /// `ENOMEM` if all are in use.
    pub(super) fn take(
        &self,
        kernel: &Kernel,
        counts: &WindowCounts,
        node: Weak<Node>,
        index: u64,
    ) -> Result<usize> {
        let mut slots = self.slots.lock();
        let free = slots.free.pop().filter(|slot| counts.claim(*slot));
        let slot = match free {
            Some(slot) => slot,
            None => Self::find_unused(&mut slots, counts).ok_or(Errno::ENOMEM)?,
        };
        let before = core::mem::replace(&mut slots.owners[slot], Owner::Node(node, index));
        drop(slots);
        match before {
            Owner::Nobody => {}
            Owner::Node(node, index) => {
                if let Some(node) = node.upgrade() {
                    node.lost_chunk(index, slot);
                }
            }
            Owner::Gone(id, lookups) => kernel.host.files.forget(id, lookups),
        }
        Ok(slot)
    }

    fn find_unused(slots: &mut Slots, counts: &WindowCounts) -> Option<usize> {
        for _ in 0..slots.owners.len() {
            let slot = slots.hand;
            slots.hand = (slot + 1) % slots.owners.len();
            if counts.claim(slot) {
                return Some(slot);
            }
        }
        None
    }

    /// A claimed chunk could not be filled.
    pub(super) fn give_back(&self, counts: &WindowCounts, slot: usize) {
        let mut slots = self.slots.lock();
        slots.owners[slot] = Owner::Nobody;
        slots.free.push(slot);
        counts.release(slot, 0);
    }

    /// A node is gone, with these chunks. The server may forget it, `lookups` times, at once or when the last of its pages
    /// is in no page table any more.
    pub(super) fn node_gone(
        &self,
        kernel: &Kernel,
        id: u64,
        lookups: u64,
        chunks: impl Iterator<Item = usize>,
    ) {
        let mut pinned = None;
        if let Some(counts) = kernel.frames.window() {
            let mut slots = self.slots.lock();
            for slot in chunks {
                if counts.claim(slot) {
                    slots.owners[slot] = Owner::Nobody;
                    slots.free.push(slot);
                    counts.release(slot, 0);
                } else {
                    // The last one forgets; the others are then forgotten 0 times.
                    slots.owners[slot] = Owner::Gone(id, 0);
                    pinned = Some(slot);
                }
            }
            if let Some(slot) = pinned {
                slots.owners[slot] = Owner::Gone(id, lookups);
            }
        }
        if pinned.is_none() {
            kernel.host.files.forget(id, lookups);
        }
    }

    /// Whether the VMM has put zeros somewhere that [`Window::poll_truncated`] has not seen.
    #[must_use]
    pub fn has_lost_pages(&self) -> bool {
        let at = self.events_gpa + TRUNCATED_OFFSET;
        phys::load_u64(Frame::containing(at), (at % 4096) as usize) != 0
    }

    /// Looks whether the VMM has put zeros where files became shorter under their chunks: those are then no longer the
    /// files', and leave all page tables, so that the next access finds out that there is nothing.
    pub fn poll_truncated(&self) {
        if self.range.len == 0 {
            return;
        }
        let at = self.events_gpa + TRUNCATED_OFFSET;
        if phys::swap_u64(Frame::containing(at), (at % 4096) as usize, 0) == 0 {
            return;
        }
        let chunks = (self.range.len / CHUNK_BYTES) as usize;
        for word in 0..chunks.div_ceil(64) {
            let at = self.truncated_gpa + word as u64 * 8;
            let bits = phys::swap_u64(Frame::containing(at), (at % 4096) as usize, 0);
            for bit in (0..64).filter(|bit| bits >> bit & 1 == 1) {
                self.truncated(word * 64 + bit);
            }
        }
    }

    fn truncated(&self, slot: usize) {
        let owner = self.slots.lock().owners.get(slot).cloned();
        if let Some(Owner::Node(node, index)) = owner
            && let Some(node) = node.upgrade()
        {
            node.chunk_truncated(index, slot);
        }
    }
}
