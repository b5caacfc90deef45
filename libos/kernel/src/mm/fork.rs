//! Copying an address space.

use alloc::sync::Arc;
use core::ops::Range;

use husk_abi::boundary::layout::PAGE_SIZE;
use husk_hal::phys;

use super::pagetable::PageTable;
use super::pte::{Entry, Owner};
use super::space::{AddressSpace, State};
use super::vma::{Flags, Vma};
use crate::Result;

/// Private pages up to this many are copied outright: cheaper than the faults that copy them later.
const COPY_ALL_PAGES: u64 = 256;
/// What is copied in any case, below and above the stack pointer, in bytes.
const HOT_BELOW: u64 = 4 * PAGE_SIZE;
const HOT_ABOVE: u64 = 12 * PAGE_SIZE;

impl AddressSpace {
    /// A copy for a child process (`fork(2)`). `stack_pointer` is the calling thread's: the pages around it are the
    /// ones both will write first.
    ///
    /// Private writable pages are copied if they are few, else shared write-protected; everything else that is
    /// resident is mapped in the child as well, so that it does not fault for it.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn fork(&self, stack_pointer: u64) -> Result<Arc<Self>> {
        let child = Self::with_frames(self.frames, self.cpus)?;
        self.with(|parent| child.with(|child| parent.fork_into(child, stack_pointer)))?;
        Ok(child)
    }
}

impl State {
    fn fork_into(&mut self, child: &mut State, stack_pointer: u64) -> Result<()> {
        child.places = self.places;
        child.executable.clone_from(&self.executable);
        let copy_all = self.table.resident().anonymous <= COPY_ALL_PAGES;
        let hot = stack_pointer.saturating_sub(HOT_BELOW)..stack_pointer.saturating_add(HOT_ABOVE);
        for vma in self.vmas.iter() {
            if vma.flags.contains(Flags::DONTFORK) {
                continue;
            }
            let mut copy = vma.clone();
            copy.flags -= Flags::LOCKED;
            child.vmas.insert(copy);
            if !vma.flags.contains(Flags::WIPEONFORK) {
                fork_pages(&mut self.table, &mut child.table, vma, copy_all, &hot)?;
            }
        }
        Ok(())
    }
}

fn fork_pages(
    parent: &mut PageTable,
    child: &mut PageTable,
    vma: &Vma,
    copy_all: bool,
    hot: &Range<u64>,
) -> Result<()> {
    let frames = parent.frames();
    let mut result = Ok(());
    parent.update(vma.range(), |address, entry| {
        if result.is_err() {
            return entry;
        }
        let copy = copy_all || hot.contains(&address);
        let done = match entry.owner() {
            Owner::Borrowed => child.set(address, entry),
            Owner::Object => {
                frames.get(entry.frame());
                child
                    .set(address, entry)
                    .inspect_err(|_| frames.put(entry.frame()))
            }
            Owner::Anonymous if entry.is_large() => {
                frames.get_large(entry.frame());
                child
                    .set_large(address, entry.write_protected())
                    .inspect_err(|_| frames.put_large(entry.frame()))
            }
            // A page that may not be written now is never worth a copy.
            Owner::Anonymous if copy && entry.is_writable() => {
                copy_page(child, address, entry, vma)
            }
            Owner::Anonymous => {
                frames.get(entry.frame());
                child
                    .set(address, entry.write_protected())
                    .inspect_err(|_| frames.put(entry.frame()))
            }
        };
        result = done;
        let shared = !copy || entry.is_large();
        if entry.is_anonymous() && entry.is_writable() && shared {
            entry.write_protected()
        } else {
            entry
        }
    })?;
    result
}

fn copy_page(child: &mut PageTable, address: u64, entry: Entry, vma: &Vma) -> Result<()> {
    let frames = child.frames();
    let copy = frames.alloc()?;
    phys::copy_frames(entry.frame(), copy, 1);
    let entry = Entry::page(copy, Owner::Anonymous, vma.prot, true);
    child.set(address, entry).inspect_err(|_| frames.put(copy))
}
