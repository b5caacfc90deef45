//! husk's host side: the OCI lifecycle, the VMM, the boundary's services.

pub mod cli;
pub mod confine;
pub mod control;
pub mod gate;
pub mod gdb;
pub mod oci;
pub mod plan;
pub mod record;
pub mod sandbox;
pub mod vmm;

/// The libOS image, built by this crate's build script.
pub static LIBOS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libos.elf"));
