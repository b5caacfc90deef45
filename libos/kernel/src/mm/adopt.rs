//! Making kept page tables (see [`super::shelf`]) agree with a new address space: what is right stays.

use alloc::vec::Vec;

use husk_abi::boundary::layout::PAGE_SIZE;
use husk_hal::phys::{self, Frame};

use super::code;
use super::pte::{Entry, Owner};
use super::space::{AddressSpace, State};
use super::vma::{Backing, Flags, Prot, Vma};

/// What was mapped at an address, and the area that is there now.
struct Found {
    vma: Vma,
    pages: Vec<(u64, Entry)>,
}

impl AddressSpace {
    /// Gives each page its tables map what its area says at the start of a program, and takes out the rest. To be
    /// called when all areas are there and nothing has been written.
    pub(super) fn adopt(&self) {
        let found: Vec<Found> = self.with(|state| {
            let mut found = Vec::new();
            for vma in state.vmas.iter() {
                let mut pages = Vec::new();
                state
                    .table
                    .visit(vma.range(), |address, entry| pages.push((address, entry)));
                if !pages.is_empty() {
                    found.push(Found {
                        vma: vma.clone(),
                        pages,
                    });
                }
            }
            found
        });
        // Objects are asked without the lock.
        let mut right: Vec<(u64, Entry)> = Vec::new();
        for area in &found {
            for (address, entry) in &area.pages {
                right.push((*address, self.renewed(&area.vma, *address, *entry)));
            }
        }
        let mut next = right.into_iter().peekable();
        self.with(|state| {
            state.table.update_all(|address, _| {
                while next.next_if(|(at, _)| *at < address).is_some() {}
                next.next_if(|(at, _)| *at == address)
                    .map_or(Entry::EMPTY, |(_, entry)| entry)
            });
        });
    }

    /// What a program finds at `address`, if possible in the frame `entry` has. A frame other than `entry`'s comes with
    /// a reference.
    fn renewed(&self, vma: &Vma, address: u64, entry: Entry) -> Entry {
        // Writable or not: a program makes part of its data read-only once it is relocated.
        let own =
            entry.is_anonymous() && !entry.is_large() && self.frames.count(entry.frame()) == 1;
        let may_write = vma.prot.contains(Prot::WRITE);
        if vma.prot.is_empty() || vma.is_shared() {
            return Entry::EMPTY;
        }
        match &vma.backing {
            Backing::Anonymous if own => {
                phys::zero_frames(entry.frame(), 1);
                entry.with_access(vma.prot, may_write)
            }
            Backing::Anonymous => Entry::EMPTY,
            Backing::Thunks(mappable) => {
                let index = (address - vma.start) / PAGE_SIZE;
                let thunks = mappable.text().and_then(|text| text.thunk_page(index));
                thunks.map_or(Entry::EMPTY, |frame| {
                    Entry::page(frame, Owner::Borrowed, vma.prot, false)
                })
            }
            Backing::Object(object) => {
                let index = vma.page_index(address);
                let patched = if vma.is_code() {
                    code::code_page(object, index)
                } else {
                    None
                };
                let (frame, owner) = match patched {
                    Some(frame) => (frame, Owner::Borrowed),
                    None => match object.mappable.page(index, false) {
                        Ok(frame) => (frame, Owner::Object),
                        Err(_) => return Entry::EMPTY,
                    },
                };
                let drop_spare = |frame: Frame| {
                    if owner == Owner::Object {
                        self.frames.put(frame);
                    }
                };
                if own && may_write {
                    phys::copy_frames(frame, entry.frame(), 1);
                    drop_spare(frame);
                    return entry.with_access(vma.prot, true);
                }
                let page = Entry::page(frame, owner, vma.prot, false);
                if !entry.is_large() && entry.frame() == frame && entry.owner() == owner {
                    drop_spare(frame);
                }
                page
            }
        }
    }
}

impl State {
    /// Takes out of a child's kept tables what is not the same in the parent, whose state this is. `is_copied` tells
    /// whether fork copies a page rather than sharing it: its frame is then kept, to be overwritten.
    pub(super) fn sift_for_child(&self, child: &mut State, is_copied: impl Fn(u64, Entry) -> bool) {
        child.table.update_all(|address, entry| {
            let inherited = self
                .vmas
                .find(address)
                .is_some_and(|vma| !vma.flags.intersects(Flags::DONTFORK | Flags::WIPEONFORK));
            let theirs = self.table.get(address);
            let keep = inherited
                && if entry.is_anonymous() && entry.is_writable() {
                    is_copied(address, theirs)
                } else {
                    entry == theirs
                };
            if keep { entry } else { Entry::EMPTY }
        });
    }
}
