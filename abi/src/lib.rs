//! The contracts husk's two halves share.
//!
//! [`linux`] is Linux's x86-64 contract with its programs (numbers, errno, structs); it is not ours to
//! version. [`boundary`] is the one definition of everything that passes between the guest and the VMM;
//! both sides compile it, and the libOS image carries its version in a note the loader checks.
#![no_std]

extern crate alloc;

pub mod boundary;
pub mod linux;
