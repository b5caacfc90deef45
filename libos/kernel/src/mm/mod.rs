//! Memory: frames, page tables, address spaces, program loading.
//!
//! | module | what |
//! | --- | --- |
//! | `frames` | guest RAM: allocation, reference counts, the container's limit |
//! | `pte`, `pagetable` | page-table entries; the four-level tables of an address space |
//! | `gather`, `tlb` | what was unmapped until the TLB has forgotten it; which vCPU has what loaded |
//! | `vma` | areas: what is mapped where, and finding room |
//! | `space` | [`AddressSpace`]: the lock, limits, totals |
//! | `map`, `protect`, `remap`, `advise` | what the system calls of those names do |
//! | `fault` | page faults: demand zero, objects' pages, copy on write |
//! | `fork` | copying an address space |
//! | `shelf`, `adopt`, `layout` | page tables kept for the next process; where a program's parts go |
//! | `counts` | what `--stats` shows |
//! | `invalidate` | taking pages away that an object has lost |
//! | `access` | reading and writing another address space |
//! | `hold` | memory the VMM reads and writes directly |
//! | `code` | code mappings and thunks, for `crate::translate` |
//! | `oom` | running out of memory |
//! | `rmap` | from an object to those who map it |
//! | `sharing` | what a shared address shows, for futexes |
//! | `shmem` | anonymous shared memory |
//! | `maps` | `/proc/*/maps` |
//! | `load`, `elf`, `stack` | loading a program |
//! | `mappable` | the file side's contract |
//! | `syscalls` | the handlers |

mod access;
mod adopt;
mod advise;
mod code;
pub(crate) mod counts;
mod elf;
mod fault;
mod fork;
mod frames;
mod gather;
mod hold;
mod invalidate;
mod layout;
pub mod load;
mod map;
mod mappable;
mod maps;
pub mod oom;
mod pagetable;
mod protect;
mod pte;
mod remap;
pub mod rmap;
mod sharing;
mod shelf;
mod shmem;
mod space;
mod stack;
pub mod syscalls;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tlb;
mod vma;
mod window_counts;

pub use code::CodeRegion;
pub use fault::{Access, FaultSignal};
pub use frames::{Frames, Usage};
pub use hold::{Held, Span};
pub use load::{Loaded, Program};
pub use map::{Mapping, Placement, shared_anonymous};
pub use mappable::Mappable;
pub use maps::{MapLine, MapName};
pub use remap::Remap;
pub use sharing::SharedPlace;
pub use shmem::SharedMemory;
pub use space::{AddressSpace, Limits, Places, Totals};
pub use vma::{Backing, Flags, Object, Prot};
pub use window_counts::WindowCounts;

use husk_abi::boundary::layout::PAGE_SIZE;
