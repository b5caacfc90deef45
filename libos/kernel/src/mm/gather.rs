//! What was unmapped, kept until no TLB can reach it.

use alloc::vec::Vec;

use husk_hal::phys::Frame;

use super::frames::Frames;
use super::pte::{Entry, Owner};
use super::tlb::Roots;

/// How many pages are kept before they are flushed and released.
const CAPACITY: usize = 512;

/// Frames that lose a reference once the TLB has forgotten them.
#[derive(Debug)]
pub struct Gather {
    waiting: Vec<Waiting>,
    stale: Stale,
}

#[derive(Clone, Copy, Debug)]
enum Waiting {
    Small(Frame),
    Large(Frame),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stale {
    Nothing,
    Page(u64),
    Many,
}

impl Gather {
    /// Nothing waits. Allocates once, so that unmapping needs no memory.
    #[must_use]
    pub fn new() -> Self {
        Self {
            waiting: Vec::with_capacity(CAPACITY),
            stale: Stale::Nothing,
        }
    }

    /// The translation of `page` was removed, replaced or narrowed.
    pub fn stale(&mut self, page: u64) {
        self.stale = match self.stale {
            Stale::Nothing => Stale::Page(page),
            Stale::Page(before) if before == page => self.stale,
            _ => Stale::Many,
        };
    }

    /// `entry`, which mapped `page`, was removed or replaced: its reference is dropped after the flush.
    pub fn removed(&mut self, roots: &Roots, frames: &Frames, page: u64, entry: Entry) {
        if entry.is_present() {
            self.stale(page);
        }
        if entry.owner() == Owner::Borrowed {
            return;
        }
        self.push(
            roots,
            frames,
            if entry.is_large() {
                Waiting::Large(entry.frame())
            } else {
                Waiting::Small(entry.frame())
            },
        );
    }

    /// A page table was unlinked; the CPU may have cached the link.
    pub fn removed_table(&mut self, roots: &Roots, frames: &Frames, table: Frame) {
        self.stale = Stale::Many;
        self.push(roots, frames, Waiting::Small(table));
    }

    fn push(&mut self, roots: &Roots, frames: &Frames, what: Waiting) {
        if self.waiting.len() == CAPACITY {
            self.finish(roots, frames);
        }
        self.waiting.push(what);
    }

    /// Flushes what is stale and releases what waits.
    pub fn finish(&mut self, roots: &Roots, frames: &Frames) {
        match core::mem::replace(&mut self.stale, Stale::Nothing) {
            Stale::Nothing => {}
            Stale::Page(page) => roots.flush(Some(page)),
            Stale::Many => roots.flush(None),
        }
        for what in self.waiting.drain(..) {
            match what {
                Waiting::Small(frame) => frames.put(frame),
                Waiting::Large(frame) => frames.put_large(frame),
            }
        }
    }
}

impl Default for Gather {
    /// For tables that are never changed.
    fn default() -> Self {
        Self {
            waiting: Vec::new(),
            stale: Stale::Nothing,
        }
    }
}
