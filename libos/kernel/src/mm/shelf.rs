//! Page tables that outlive their address spaces, for the next process with the same layout.
//!
//! With shadow paging (PVM) a page table is dear before it maps anything: clearing a recycled one is emulated word by
//! word as long as KVM shadows it, each new one is fetched by a fault of its own, and each page it maks present by
//! another, at 25 us and more. So when an address space ends, its tables are put here with what the next process
//! will most likely map at the same places anyway: pages of files, and a few private frames. A fork of a process with the
//! same [`Layout`], or the next run of the program, takes them, compares each entry with what it wants to map, and
//! keeps those that are right. Private frames are overwritten with what the new process has there. Nothing of the
//! old process can be seen: an entry that is not wanted is taken out before the tables are used.
//!
//! What is here counts as used memory, up to [`MAX_PAGES`] or 1/64 of the limit, and is given up when memory is short.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::boundary::layout::PAGE_SIZE;

use super::layout::{Kind, Layout};
use super::pagetable::PageTable;
use crate::sync::SpinLock;

/// Page tables kept.
const MAX_SPARES: usize = 48;
/// Pages they may hold, tables included.
const MAX_PAGES: u64 = 2048;
/// A program is started with new tables unless so many layouts of it are at hand.
const LAYOUTS_IN_TURN: usize = 2;

/// Kept page tables.
#[derive(Debug)]
pub(crate) struct Shelf {
    spares: SpinLock<VecDeque<Spare>>,
}

#[derive(Debug)]
struct Spare {
    table: PageTable,
    layout: Arc<Layout>,
    pages: u64,
}

impl Shelf {
    /// An empty shelf.
    pub const fn new() -> Self {
        Self {
            spares: SpinLock::new(VecDeque::new()),
        }
    }

    /// Keeps the tables of an address space that has ended, if they are worth it.
    /// `is_fixed` tells of an address that its area could not be written.
    pub fn put(&self, mut table: PageTable, layout: Arc<Layout>, is_fixed: impl Fn(u64) -> bool) {
        let frames = table.frames();
        if layout.is_worn() || frames.is_short() {
            return;
        }
        let Some(pages) = table.retire(is_fixed) else {
            return;
        };
        let limit = MAX_PAGES.min(frames.usage().limit_bytes / PAGE_SIZE / 64);
        let mut given_up = Vec::new();
        {
            let mut spares = self.spares.lock();
            spares.push_back(Spare {
                table,
                layout,
                pages,
            });
            let mut held: u64 = spares.iter().map(|spare| spare.pages).sum();
            while held > limit || spares.len() > MAX_SPARES {
                let Some(oldest) = spares.pop_front() else {
                    break;
                };
                held -= oldest.pages;
                given_up.push(oldest);
            }
        }
        // Freed without the lock.
        drop(given_up);
    }

    /// Tables for a child of a process with `layout`.
    pub fn take_for_fork(&self, layout: &Arc<Layout>) -> Option<PageTable> {
        let mut spares = self.spares.lock();
        let at = spares
            .iter()
            .rposition(|spare| Arc::ptr_eq(&spare.layout, layout))?;
        spares.remove(at).map(|spare| spare.table)
    }

    /// Tables and layout for a new run of a program: of those at hand the one whose layout was used longest ago.
    pub fn take_for_exec(&self, kind: &Kind) -> Option<(PageTable, Arc<Layout>)> {
        let mut spares = self.spares.lock();
        let mut layouts: Vec<&Arc<Layout>> = Vec::new();
        let mut oldest: Option<usize> = None;
        for (at, spare) in spares.iter().enumerate() {
            let layout = &spare.layout;
            if layout.kind != *kind || layout.is_worn() {
                continue;
            }
            if !layouts.iter().any(|seen| Arc::ptr_eq(seen, layout)) {
                layouts.push(layout);
            }
            // The newest tables among those of the oldest layout.
            if oldest.is_none_or(|best| layout.last_run() <= spares[best].layout.last_run()) {
                oldest = Some(at);
            }
        }
        if kind.randomize && layouts.len() < LAYOUTS_IN_TURN {
            return None;
        }
        spares
            .remove(oldest?)
            .map(|spare| (spare.table, spare.layout))
    }

    /// Gives everything up; whether there was anything.
    pub fn clear(&self) -> bool {
        let spares = core::mem::take(&mut *self.spares.lock());
        !spares.is_empty()
    }
}
