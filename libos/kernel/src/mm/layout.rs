//! Where the parts of a program go: the random choices of `execve(2)`, made once for several runs.
//!
//! A page table that KVM has shadowed is worth keeping (see [`super::shelf`]), but only fits a program that has its
//! parts at the same places. So a layout is used again: of each program a few layouts are in use in turn, and each is
//! given up after [`MAX_USES`] runs. Two runs in a row never have the same one.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use husk_abi::boundary::layout::{PAGE_SIZE, USER_END};

use super::space::{STACK_GAP_BYTES, page_down};
use crate::fs::random;

/// Where position-independent programs are loaded, before randomization (two thirds of the address range).
const DYN_BASE: u64 = USER_END / 3 * 2;
/// Bits of randomness, in pages: mappings and programs, the stack, the heap.
const MAP_RANDOM_PAGES: u64 = 1 << 28;
const STACK_RANDOM_PAGES: u64 = 1 << 22;
const BRK_RANDOM_PAGES: u64 = (32 << 20) / PAGE_SIZE;
/// How much less than a page the initial stack pointer is lower than it could be.
const STACK_SHIFT_BYTES: u64 = 8192;
/// Runs with one layout.
const MAX_USES: u32 = 32;

/// What must be the same for a layout to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// Device and inode of the program.
    pub program: (u64, u64),
    /// Device and inode of its interpreter.
    pub interpreter: Option<(u64, u64)>,
    /// Whether it is position-independent.
    pub is_dyn: bool,
    /// Alignment its addresses must keep, and its lowest address before the bias.
    pub align: u64,
    pub start: u64,
    /// `RLIMIT_STACK` in bytes: mappings keep that far from the stack.
    pub stack_limit: u64,
    /// Whether addresses are random (`ADDR_NO_RANDOMIZE` of `personality(2)` is not set).
    pub randomize: bool,
}

/// The choices. All are bytes.
#[derive(Debug)]
pub(super) struct Layout {
    pub kind: Kind,
    /// One past the stack.
    pub stack_top: u64,
    /// Mappings are placed below this.
    pub mmap_base: u64,
    /// Added to the program's addresses.
    pub bias: u64,
    /// The heap starts so far behind the program.
    pub brk_gap: u64,
    /// The stack pointer is so much lower than it could be.
    pub stack_shift: u64,
    uses: AtomicU32,
    /// Orders layouts by their last run.
    last: AtomicU64,
}

/// Counts runs, to order them.
static RUNS: AtomicU64 = AtomicU64::new(0);

impl Layout {
    /// A new layout for a program of `kind`.
    pub fn new(kind: Kind) -> Self {
        let random = |limit: u64| {
            if kind.randomize {
                random::u64() % limit
            } else {
                0
            }
        };
        let pages = |limit: u64| random(limit) * PAGE_SIZE;
        let random_room = if kind.randomize {
            STACK_RANDOM_PAGES * PAGE_SIZE
        } else {
            0
        };
        // As Linux does it: debuggers switch randomization off and expect the addresses they know.
        let reserved = kind
            .stack_limit
            .saturating_add(random_room + STACK_GAP_BYTES)
            .clamp(128 << 20, USER_END / 6 * 5);
        let base = (DYN_BASE + pages(MAP_RANDOM_PAGES)) & !(kind.align - 1);
        Self {
            kind,
            stack_top: USER_END - pages(STACK_RANDOM_PAGES),
            mmap_base: page_down(USER_END.saturating_sub(reserved + pages(MAP_RANDOM_PAGES))),
            bias: if kind.is_dyn {
                base.wrapping_sub(kind.start & !(kind.align - 1))
            } else {
                0
            },
            brk_gap: pages(BRK_RANDOM_PAGES),
            stack_shift: random(STACK_SHIFT_BYTES),
            uses: AtomicU32::new(0),
            last: AtomicU64::new(0),
        }
    }

    /// A program starts with it.
    pub fn begin_run(&self) {
        self.uses.fetch_add(1, Ordering::Relaxed);
        let run = RUNS.fetch_add(1, Ordering::Relaxed) + 1;
        self.last.store(run, Ordering::Relaxed);
    }

    /// Whether it has been used often enough.
    pub fn is_worn(&self) -> bool {
        self.kind.randomize && self.uses.load(Ordering::Relaxed) >= MAX_USES
    }

    /// Larger for the layout that was used later.
    pub fn last_run(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }
}
