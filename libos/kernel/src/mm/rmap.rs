//! From an object to the address spaces that map it.
//!
//! There is no list of mappings by object: what needs them (truncating a file that was ever mapped, sealing) is rare
//! beside making and ending mappings, so all address spaces are looked through then.
//!
//! A page that is being fetched while it is taken out would be mapped afterwards: whoever takes pages out first changes
//! the object's [`version`](super::Mappable::version), and a fault that finds another version than before starts again.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use husk_abi::boundary::layout::PAGE_SIZE;

use super::pte::Entry;
use super::space::AddressSpace;
use super::vma::{Prot, Vma};
use crate::Kernel;

/// Every address space there is, once.
fn address_spaces(kernel: &Kernel) -> Vec<Arc<AddressSpace>> {
    let mut spaces: Vec<Arc<AddressSpace>> = Vec::new();
    for thread in kernel.tasks.threads() {
        if let Some(mm) = thread.mm_opt()
            && !spaces.iter().any(|seen| Arc::ptr_eq(seen, &mm))
        {
            spaces.push(mm);
        }
    }
    spaces
}

/// Takes `pages` of the object with this identity out of every address space: the next access finds what is there by
/// then. With `copies` also the private copies processes made of them (truncation). The caller holds no address space's lock
/// and no spin lock.
pub fn unmap_object(kernel: &Kernel, identity: (u64, u64), pages: Range<u64>, copies: bool) {
    for mm in address_spaces(kernel) {
        mm.unmap_object(identity, &pages, copies);
    }
}

/// Whether any process maps the object shared and may write to it, now or after `mprotect(2)`.
#[must_use]
pub fn is_mapped_writable(kernel: &Kernel, identity: (u64, u64)) -> bool {
    address_spaces(kernel).iter().any(|mm| {
        mm.with(|state| {
            state.vmas.iter().any(|vma| {
                vma.is_shared() && vma.max_prot.contains(Prot::WRITE) && shows(vma, identity)
            })
        })
    })
}

fn shows(vma: &Vma, identity: (u64, u64)) -> bool {
    vma.object()
        .is_some_and(|object| object.mappable.identity() == identity)
}

impl AddressSpace {
    pub(super) fn unmap_object(&self, identity: (u64, u64), pages: &Range<u64>, copies: bool) {
        self.with(|state| {
            for vma in state.vmas.iter().filter(|vma| shows(vma, identity)) {
                let first = vma.page_index(vma.start);
                let last = first + vma.len_bytes() / PAGE_SIZE;
                let from = pages.start.clamp(first, last) - first;
                let to = pages.end.clamp(first, last) - first;
                let range = vma.start + from * PAGE_SIZE..vma.start + to * PAGE_SIZE;
                let taken = state.table.update(range, |_, entry| {
                    if copies || !entry.is_anonymous() {
                        Entry::EMPTY
                    } else {
                        entry
                    }
                });
                debug_assert!(taken.is_ok(), "objects are never mapped by large pages");
            }
        });
    }
}
