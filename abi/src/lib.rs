//! Linux's x86-64 contract and the definition of husk's isolation boundary.
#![cfg_attr(not(test), no_std)]
