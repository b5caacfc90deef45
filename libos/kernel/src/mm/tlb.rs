//! Which address space a vCPU has loaded, and what its TLB may still hold.
//!
//! A flush of a page or a CR3 load costs 5 to 6 us on PVM, so it is only done when this vCPU has the address
//! space loaded, once for a batch of changes. Another vCPU that has it loaded notices by the generation when it next
//! activates it. Address spaces are told apart by ids that are never given out twice.

use core::sync::atomic::{AtomicU64, Ordering};

use alloc::vec::Vec;
use husk_abi::boundary::boot::MAX_VCPUS;
use husk_hal::{cpu, mmu, phys::Frame};

use super::counts::{self, Event};

/// Id of the address space each vCPU has loaded; 0 is none of ours.
static LOADED: [AtomicU64; MAX_VCPUS] = [const { AtomicU64::new(0) }; MAX_VCPUS];
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The roots of one address space, one a vCPU, and who has seen which state of it.
#[derive(Debug)]
pub struct Roots {
    id: u64,
    roots: Vec<Frame>,
    /// Counts flushes; a vCPU that saw an earlier one may hold stale translations.
    generation: AtomicU64,
    seen: Vec<AtomicU64>,
}

impl Roots {
    /// Roots (one frame a vCPU) of a new address space.
    #[must_use]
    pub fn new(roots: Vec<Frame>) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            seen: roots.iter().map(|_| AtomicU64::new(0)).collect(),
            roots,
            generation: AtomicU64::new(0),
        }
    }

    /// The PML4 frames.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        &self.roots
    }

    /// Whether this vCPU has the address space loaded.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        LOADED[cpu::index()].load(Ordering::Relaxed) == self.id
    }

    /// Loads the address space on this vCPU unless it is loaded and nothing stale can be left.
    pub fn activate(&self) {
        let cpu = cpu::index();
        let generation = self.generation.load(Ordering::Acquire);
        if LOADED[cpu].load(Ordering::Relaxed) == self.id
            && self.seen[cpu].load(Ordering::Relaxed) == generation
        {
            return;
        }
        self.load(cpu, generation);
    }

    /// Makes sure that this vCPU does not have the address space loaded: it is about to be freed. The scheduler
    /// keeps what is loaded alive, so this is for those who loaded it themselves.
    pub fn leave(&self) {
        if self.is_loaded() {
            let cpu = cpu::index();
            mmu::activate(mmu::boot_root(cpu));
            LOADED[cpu].store(0, Ordering::Relaxed);
        }
    }

    fn load(&self, cpu: usize, generation: u64) {
        counts::count(Event::Load);
        mmu::activate(self.roots[cpu]);
        LOADED[cpu].store(self.id, Ordering::Relaxed);
        self.seen[cpu].store(generation, Ordering::Relaxed);
    }

    /// Drops translations that were removed or narrowed: one page, or all.
    pub fn flush(&self, page: Option<u64>) {
        let cpu = cpu::index();
        let before = self.generation.fetch_add(1, Ordering::AcqRel);
        if !self.is_loaded() {
            return;
        }
        match page {
            Some(page) if self.seen[cpu].load(Ordering::Relaxed) == before => {
                counts::count(Event::PageFlush);
                mmu::flush_page(page);
                self.seen[cpu].store(before + 1, Ordering::Relaxed);
            }
            _ => self.load(cpu, before + 1),
        }
    }
}
