//! Address-space roots and the TLB.

use super::{boot, entry};
use crate::phys::{self, Frame};

/// Fills a zeroed frame as the PML4 of a new address space for vCPU `cpu`: the upper half is the libOS's
/// and that vCPU's own region; the lower half is empty.
pub fn init_root(root: Frame, cpu: usize) {
    let model = Frame::containing(boot::info().vcpus[cpu].pml4_gpa);
    for slot in 256..512 {
        phys::store_u64(root, slot * 8, phys::load_u64(model, slot * 8));
    }
}

/// The boot PML4 of vCPU `cpu`: no process.
#[must_use]
pub fn boot_root(cpu: usize) -> Frame {
    Frame::containing(boot::info().vcpus[cpu].pml4_gpa)
}

/// Makes `root` this vCPU's address space and drops its non-global translations.
pub fn activate(root: Frame) {
    // SAFETY: roots come from `init_root` and so map the libOS; the gate keeps all registers.
    unsafe { entry::hal_load_root(root.gpa()) }
}

/// Drops this vCPU's translation of one page.
pub fn flush_page(address: u64) {
    // SAFETY: INVLPG has no effect but on the TLB.
    unsafe { entry::hal_flush_page(address) }
}
