//! Everything that can be learnt about a machine from outside, in one place.

use std::sync::{Arc, OnceLock};

use husk_abi::boundary::frame::TrapFrame;
use husk_abi::boundary::layout::{PERCPU_BLOCK, PERCPU_IDLE_STACK_TOP, PERCPU_INTERRUPT_STACK_TOP};

use super::backtrace;
use super::control::Debug;
use super::registers::Registers;
use super::space::GuestSpace;
use super::symbols::{Place, Symbols};
use super::threads::{self, Thread};

/// Looks into one machine.
#[derive(Debug)]
pub struct Inspector {
    /// Its memory.
    pub space: GuestSpace,
    /// Its vCPUs.
    pub debug: Arc<Debug>,
    image: &'static [u8],
    symbols: OnceLock<Symbols>,
    /// A PML4 that maps the libOS and that no process has.
    boot_root: u64,
    /// The host-events page, guest physical.
    page_gpa: u64,
    /// The pages vCPUs share with their VMM threads, guest physical.
    shared_pages: Vec<u64>,
}

impl Inspector {
    pub(in crate::vmm) fn new(
        space: GuestSpace,
        debug: Arc<Debug>,
        image: &'static [u8],
        boot_root: u64,
        page_gpa: u64,
        shared_pages: Vec<u64>,
    ) -> Self {
        Self {
            space,
            debug,
            image,
            symbols: OnceLock::new(),
            boot_root,
            page_gpa,
            shared_pages,
        }
    }

    /// The pages vCPUs share with their VMM threads, guest physical.
    #[must_use]
    pub fn shared_pages(&self) -> &[u64] {
        &self.shared_pages
    }

    /// The libOS's symbols; read on first use, which takes some ten milliseconds.
    #[must_use]
    pub fn symbols(&self) -> &Symbols {
        self.symbols.get_or_init(|| Symbols::of(self.image))
    }

    /// A PML4 that maps the libOS.
    #[must_use]
    pub fn boot_root(&self) -> u64 {
        self.boot_root
    }

    /// All threads of the guest.
    #[must_use]
    pub fn threads(&self) -> Vec<Thread> {
        threads::all(&self.space, self.page_gpa, self.boot_root)
    }

    /// The thread a vCPU with these registers runs; `None` while it idles or boots.
    #[must_use]
    pub fn current(&self, registers: &Registers, threads: &[Thread]) -> Option<usize> {
        let idle_stack = PERCPU_INTERRUPT_STACK_TOP + 1..=PERCPU_IDLE_STACK_TOP;
        if idle_stack.contains(&registers.rsp()) {
            return None;
        }
        let [stack_top] = self.space.words(registers.root, PERCPU_BLOCK)?;
        threads
            .iter()
            .position(|thread| stack_top != 0 && thread.stack_top == stack_top)
    }

    /// The libOS's frames under these registers, innermost first.
    #[must_use]
    pub fn backtrace(&self, registers: &Registers) -> Vec<Place> {
        let addresses =
            backtrace::walk(&self.space, registers.root, registers.rip, registers.rbp());
        let lookup = |(index, address): (usize, &u64)| {
            // A return address may lie behind its function's end.
            let at = if index == 0 { *address } else { address - 1 };
            self.symbols().places(at)
        };
        addresses.iter().enumerate().flat_map(lookup).collect()
    }

    /// What a thread entered the libOS with.
    #[must_use]
    pub fn user_frame(&self, thread: &Thread) -> Option<TrapFrame> {
        thread.user_frame(&self.space, self.boot_root)
    }

    /// A waiting thread's registers in the libOS.
    #[must_use]
    pub fn saved_registers(&self, thread: &Thread) -> Option<Registers> {
        thread.saved_registers(&self.space, self.boot_root)
    }
}
