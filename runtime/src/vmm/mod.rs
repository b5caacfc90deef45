//! The virtual machine: KVM, guest memory, loading the libOS, running vCPUs.
//!
//! Knows nothing of what the boundary's services do: doorbells go to a [`DoorbellHandler`], or to an
//! eventfd bound with [`Machine::bind_doorbell`].

mod cpuid;
pub mod debug;
mod error;
mod kick;
mod layout;
mod loader;
mod machine;
mod memory;
mod ram;
mod raw;
mod tables;
mod timer;
mod vcpu;
mod window;

pub use error::Error;
pub use kick::{Also, Kicker};
pub use layout::Layout;
pub use machine::{
    DoorbellHandler, Doorbells, End, MINIMUM_BYTES, Machine, MachineConfig, Served, Sleep,
    check_kvm, open_kvm,
};
pub use memory::{GuestMemory, file_into_guest, guest_into_file, start_writing, with_vectors};
pub use raw::{KvmClock, borrow_event, kvm_descriptor, kvm_of};
pub use window::{Shows, Window};
