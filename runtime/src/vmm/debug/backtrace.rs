//! Walking the libOS's stacks by their frame pointers.

use husk_abi::boundary::layout::{DIRECT_MAP, IMAGE_BASE, IMAGE_SPAN};

use super::space::GuestSpace;

/// The most frames of a backtrace.
const LIMIT: usize = 64;

/// Whether `address` is the libOS's code.
#[must_use]
pub fn in_image(address: u64) -> bool {
    (IMAGE_BASE..IMAGE_BASE + IMAGE_SPAN).contains(&address)
}

/// Instruction addresses from `rip` outwards, with the chain of frame records that starts at `rbp`. Ends where the
/// libOS was entered. A return address names the instruction after its call.
pub fn walk(space: &GuestSpace, root: u64, rip: u64, rbp: u64) -> Vec<u64> {
    let mut addresses = Vec::new();
    if !in_image(rip) {
        return addresses;
    }
    addresses.push(rip);
    let mut frame = rbp;
    while addresses.len() < LIMIT && frame >= DIRECT_MAP && frame.is_multiple_of(8) {
        let Some([next, rip]) = space.words(root, frame) else {
            break;
        };
        if !in_image(rip) {
            break;
        }
        addresses.push(rip);
        if next == frame {
            break;
        }
        frame = next;
    }
    addresses
}
