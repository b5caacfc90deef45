//! The libOS's hardware layer: entry paths, page tables, context switch, user copies.
#![cfg_attr(not(test), no_std)]
