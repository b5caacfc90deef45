//! Memory held for the VMM.

use husk_hal::phys;

use super::super::testing::frames;
use super::super::{Access, Held, Span};
use super::*;

const AT: u64 = 0x10_0000_0000;

fn held(space: &AddressSpace, at: u64, len: usize, access: Access) -> (Held, usize) {
    let mut held = Held::new(space.frames);
    let bytes = space.hold(&mut held, at, len, access);
    assert_eq!(bytes, held.bytes());
    let sum: usize = held.spans().iter().map(|span| span.len).sum();
    assert_eq!(sum, bytes);
    (held, bytes)
}

fn bytes_of(spans: &[Span]) -> Vec<u8> {
    let mut all = Vec::new();
    for span in spans {
        let mut bytes = vec![0; span.len];
        phys::read_gpa(span.gpa, &mut bytes);
        all.extend(bytes);
    }
    all
}

#[test]
fn pages_in_order_up_to_a_hole() {
    let frames = frames(16);
    let space = space(frames);
    map_at(&space, AT, 4 * PAGE, Mapping::anonymous(RW));
    // Not in the order of the addresses.
    for page in [2, 0, 3, 1] {
        store(&space, AT + page * PAGE, page + 1).unwrap();
    }
    let before = used(frames);
    let (held, bytes) = held(&space, AT + 8, 1 << 20, Access::Read);
    assert_eq!(bytes as u64, 4 * PAGE - 8);
    let seen = bytes_of(held.spans());
    for page in 1..4u64 {
        let at = (page * PAGE - 8) as usize;
        assert_eq!(seen[at..at + 8], (page + 1).to_le_bytes());
    }
    // What is unmapped meanwhile stays until it is let go of.
    space.unmap(AT, 4 * PAGE).unwrap();
    assert_eq!(bytes_of(held.spans()), seen);
    let while_held = used(frames);
    drop(held);
    assert_eq!(used(frames) + 4, while_held);
    assert!(used(frames) < before);
}

#[test]
fn to_be_filled() {
    let frames = frames(16);
    let parent = space(frames);
    map_at(&parent, AT, 2 * PAGE, Mapping::anonymous(RW));
    map_at(&parent, AT + 2 * PAGE, PAGE, Mapping::anonymous(Prot::READ));
    store(&parent, AT, 7).unwrap();
    let child = parent.fork(0).unwrap();
    // The second page has not been touched, the third may not be written.
    let (held, bytes) = held(&child, AT, 3 * PAGE as usize, Access::Write);
    assert_eq!(bytes as u64, 2 * PAGE);
    phys::write(
        husk_hal::phys::Frame::containing(held.spans()[0].gpa),
        0,
        &9u64.to_le_bytes(),
    );
    drop(held);
    assert_eq!(load(&child, AT), Ok(9));
    assert_eq!(load(&parent, AT), Ok(7));
}

#[test]
fn large_pages_stay_whole() {
    let frames = frames(16);
    let space = space(frames);
    map_at(&space, AT, 2 * LARGE, Mapping::anonymous(RW));
    store(&space, AT, 1).unwrap();
    store(&space, AT + LARGE, 2).unwrap();
    let large = space.with(|state| state.table.get(AT).is_large());
    let (held, bytes) = held(&space, AT + PAGE, LARGE as usize, Access::Write);
    assert_eq!(bytes as u64, LARGE);
    assert_eq!(space.with(|state| state.table.get(AT).is_large()), large);
    assert!(held.spans().len() <= 2);
    drop(space);
    assert_eq!(bytes_of(held.spans()).len(), LARGE as usize);
    drop(held);
    assert_eq!(used(frames), 0);
}

#[test]
fn outside() {
    let frames = frames(4);
    let space = space(frames);
    for at in [
        0,
        AT,
        husk_abi::boundary::layout::USER_END - PAGE,
        u64::MAX - 5,
    ] {
        assert_eq!(held(&space, at, 3 * PAGE as usize, Access::Read).1, 0);
    }
}
