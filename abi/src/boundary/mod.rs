//! The isolation boundary: everything that passes between guest and VMM.
//!
//! Wire types are `#[repr(C)]`, of fixed-width integers, with their size asserted beside them. Numbers on
//! the wire are open (any bit pattern may arrive); each side decodes them once, at its door. The VMM
//! trusts nothing it reads here. Changing anything in this module changes [`version::BOUNDARY_VERSION`].

pub mod boot;
pub mod clock;
pub mod config;
pub mod control;
pub mod doorbell;
pub mod events;
pub mod frame;
pub mod fuse;
pub mod inspect;
pub mod layout;
pub mod log;
pub mod net;
pub mod record;
pub mod record_filter;
pub mod report;
pub mod start;
pub mod stats;
pub mod stdio;
pub mod vcpu;
pub mod version;

/// Asserts a wire type's size at compile time.
macro_rules! assert_size {
    ($ty:ty, $bytes:expr) => {
        const _: () = assert!(
            core::mem::size_of::<$ty>() == $bytes,
            concat!(
                stringify!($ty),
                ": changed on the wire? bump BOUNDARY_VERSION (docs/architecture.md)"
            )
        );
    };
}
pub(crate) use assert_size;
