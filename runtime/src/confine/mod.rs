//! Confinement of the VMM process, its first layer: what it keeps is what it needs.

mod descriptors;

pub use descriptors::close_all_but;
