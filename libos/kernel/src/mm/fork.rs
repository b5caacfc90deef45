//! Copying an address space.

use alloc::sync::Arc;
use core::cell::Cell;
use core::ops::Range;

use husk_abi::boundary::layout::PAGE_SIZE;
use husk_hal::phys;

use super::code;
use super::counts::{self, Event};
use super::pagetable::PageTable;
use super::pte::{Entry, Owner};
use super::space::{AddressSpace, State};
use super::vma::{Flags, Vma};
use crate::{Errno, Result};

/// Private pages up to this many are copied outright: cheaper than the faults that copy them later.
const COPY_ALL_PAGES: u64 = 256;
/// Of a larger process, pages that were written after an earlier fork, up to this many.
const COPY_HOT_PAGES: u64 = 1024;
/// What is copied in any case, below and above the stack pointer, in bytes.
const HOT_BELOW: u64 = 4 * PAGE_SIZE;
const HOT_ABOVE: u64 = 12 * PAGE_SIZE;

/// Which private pages a fork copies.
struct Policy {
    all: bool,
    hot: Range<u64>,
    /// How many more are copied because they were written after an earlier fork.
    left: Cell<u64>,
}

impl Policy {
    /// Whether the parent's page `entry` at `address` is copied; else it is shared, write-protected.
    fn copies(&self, address: u64, entry: Entry) -> bool {
        // A page that may not be written now is never worth a copy.
        entry.is_anonymous()
            && !entry.is_large()
            && entry.is_writable()
            && (self.all || entry.is_hot() || self.hot.contains(&address))
    }

    /// The same, for the copying itself: counts what is copied.
    fn takes(&self, address: u64, entry: Entry) -> bool {
        let left = self.left.get();
        if !self.copies(address, entry) || left == 0 {
            return false;
        }
        self.left.set(left - 1);
        true
    }
}

impl AddressSpace {
    /// A copy for a child process (`fork(2)`). `stack_pointer` is the calling thread's: the pages around it are the
    /// ones both will write first.
    ///
    /// Private writable pages are copied if they are few, or were written after an earlier fork, else shared
    /// write-protected; everything else that is resident is mapped in the child as well, so that it does not fault for
    /// it. Page tables kept from an earlier process are used if there are any.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn fork(&self, stack_pointer: u64) -> Result<Arc<Self>> {
        match self.try_fork(stack_pointer) {
            Err(Errno::ENOMEM) if self.shelf.clear() => self.try_fork(stack_pointer),
            result => result,
        }
    }

    fn try_fork(&self, stack_pointer: u64) -> Result<Arc<Self>> {
        let layout = self.with(|state| state.layout.clone());
        let kept = layout.and_then(|layout| self.shelf.take_for_fork(&layout));
        counts::count(if kept.is_some() {
            Event::ForkKept
        } else {
            Event::ForkNew
        });
        let child = Self::beside(self.frames, self.cpus, self.shelf.clone(), kept)?;
        self.with(|parent| child.with(|child| parent.fork_into(child, stack_pointer)))?;
        Ok(child)
    }
}

impl State {
    fn fork_into(&mut self, child: &mut State, stack_pointer: u64) -> Result<()> {
        child.places = self.places;
        child.untranslated = self.untranslated;
        child.layout.clone_from(&self.layout);
        child.executable.clone_from(&self.executable);
        let few = self.table.resident().anonymous <= COPY_ALL_PAGES;
        let policy = Policy {
            all: few && !self.table.frames().is_short(),
            hot: stack_pointer.saturating_sub(HOT_BELOW)..stack_pointer.saturating_add(HOT_ABOVE),
            left: Cell::new(COPY_HOT_PAGES),
        };
        self.sift_for_child(child, |address, entry| policy.copies(address, entry));
        for vma in self.vmas.iter() {
            if vma.flags.contains(Flags::DONTFORK) {
                continue;
            }
            let mut copy = vma.clone();
            copy.flags -= Flags::LOCKED;
            child.vmas.insert(copy);
            if !vma.flags.contains(Flags::WIPEONFORK) {
                fork_pages(&mut self.table, &mut child.table, vma, &policy)?;
            }
        }
        Ok(())
    }
}

fn fork_pages(
    parent: &mut PageTable,
    child: &mut PageTable,
    vma: &Vma,
    policy: &Policy,
) -> Result<()> {
    let frames = parent.frames();
    let mut result = Ok(());
    parent.update(vma.range(), |address, entry| {
        if result.is_err() {
            return entry;
        }
        if policy.takes(address, entry) {
            result = copy_page(child, address, entry);
            return entry;
        }
        let shared = match entry.owner() {
            Owner::Anonymous => entry.write_protected(),
            // Patched meanwhile by another process: not every child should have to find out.
            Owner::Object => patched(vma, address).unwrap_or(entry),
            Owner::Borrowed => entry,
        };
        result = if entry.is_large() {
            frames.get_large(entry.frame());
            child
                .set_large(address, shared)
                .inspect_err(|_| frames.put_large(entry.frame()))
        } else if child.get(address) == shared {
            // In the kept tables already.
            Ok(())
        } else if shared.owner() == Owner::Borrowed {
            child.set(address, shared)
        } else {
            frames.get(entry.frame());
            child
                .set(address, shared)
                .inspect_err(|_| frames.put(entry.frame()))
        };
        shared
    })?;
    result
}

/// The patched copy of the code page at `address`, if there is one.
fn patched(vma: &Vma, address: u64) -> Option<Entry> {
    let object = vma.object().filter(|_| vma.is_code())?;
    let frame = code::code_page(object, vma.page_index(address))?;
    Some(Entry::page(frame, Owner::Borrowed, vma.prot, false))
}

/// Copies the parent's page `entry`, into the frame the child's kept tables have there if they have one.
fn copy_page(child: &mut PageTable, address: u64, entry: Entry) -> Result<()> {
    counts::count(Event::ForkCopy);
    let there = child.get(address);
    if there.is_anonymous() {
        phys::copy_frames(entry.frame(), there.frame(), 1);
        return child.set(address, entry.with_frame(there.frame()));
    }
    let frames = child.frames();
    let copy = frames.alloc()?;
    phys::copy_frames(entry.frame(), copy, 1);
    child
        .set(address, entry.with_frame(copy))
        .inspect_err(|_| frames.put(copy))
}
