//! The libOS's kernel proper: Linux semantics in safe Rust.
#![cfg_attr(not(test), no_std)]
