//! Taking an object's pages out of address spaces: the object has lost them.

use alloc::vec::Vec;

use husk_abi::boundary::layout::PAGE_SIZE;

use super::space::AddressSpace;
use super::vma::Vma;

impl AddressSpace {
    /// Unmaps `count` pages from `first` on of the object `identity` names, wherever they are mapped here; private copies
    /// stay. The next access asks the object again.
    pub fn forget_object_pages(&self, identity: (u64, u64), first: u64, count: u64) {
        self.with(|state| {
            let shows = |vma: &&Vma| {
                vma.object()
                    .is_some_and(|object| object.mappable.identity() == identity)
            };
            let mut ranges = Vec::new();
            for vma in state.vmas.iter().filter(shows) {
                let object_start = vma.page_index(vma.start);
                let from = first.max(object_start);
                let to = first
                    .saturating_add(count)
                    .min(object_start + vma.len_bytes() / PAGE_SIZE);
                if from < to {
                    let address = |page: u64| vma.start + (page - object_start) * PAGE_SIZE;
                    ranges.push(address(from)..address(to));
                }
            }
            let mut pages = Vec::new();
            for range in ranges {
                state.table.visit(range, |address, entry| {
                    if !entry.is_anonymous() {
                        pages.push(address);
                    }
                });
            }
            for page in pages {
                // The table exists, so nothing is allocated that could be missing.
                let _ = state.table.unmap(page..page + PAGE_SIZE);
            }
        });
    }
}
