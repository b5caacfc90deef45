use husk_abi::linux::general;

use super::*;
use crate::mm::{Access, FaultSignal, Flags, testing};

const AT: u64 = 0x7f00_0000_0000;

fn signal(space: &AddressSpace, at: u64, access: Access) -> FaultSignal {
    space.access(at, access).unwrap_err()
}

#[test]
fn large_pages_where_an_area_covers_them() {
    let frames = testing::frames(32);
    let space = space(frames);
    map_at(&space, AT + PAGE, 3 * LARGE, Mapping::anonymous(RW));
    store(&space, AT + LARGE + 5 * PAGE, 7).unwrap();
    assert_eq!(space.totals().resident, LARGE);
    store(&space, AT + PAGE, 7).unwrap();
    // The first 2 MiB are not covered: a neighbourhood of 32 pages less the one below the area.
    assert_eq!(space.totals().resident, LARGE + 31 * PAGE);
    assert_eq!(load(&space, AT + LARGE + 5 * PAGE), Ok(7));
    // A hole in a large page keeps the rest.
    space.unmap(AT + LARGE + 4 * PAGE, PAGE).unwrap();
    assert_eq!(load(&space, AT + LARGE + 5 * PAGE), Ok(7));
    assert_eq!(space.totals().resident, LARGE + 30 * PAGE);
    drop(space);
    assert_eq!(used(frames), 0);
}

#[test]
fn thread_stacks_and_advice_keep_pages_small() {
    let frames = testing::frames(32);
    let space = space(frames);
    let mut stack = Mapping::anonymous(RW);
    stack.flags = Flags::SMALL_PAGES;
    map_at(&space, AT, LARGE, stack);
    store(&space, AT + LARGE - 8, 1).unwrap();
    assert_eq!(space.totals().resident, 32 * PAGE);
    map_at(&space, AT, LARGE, Mapping::anonymous(RW));
    space.advise(AT, LARGE, general::MADV_RANDOM).unwrap();
    space.advise(AT, LARGE, general::MADV_NOHUGEPAGE).unwrap();
    store(&space, AT, 1).unwrap();
    assert_eq!(space.totals().resident, PAGE);
}

#[test]
fn signals() {
    let frames = testing::frames(16);
    let space = space(frames);
    map_at(&space, AT, PAGE, Mapping::anonymous(Prot::READ));
    let file = Arc::new(TestFile::numbered(frames, 2));
    map_at(&space, AT + 16 * PAGE, 4 * PAGE, file_mapping(&file, 0, RW));
    let segv = |code: u32| FaultSignal {
        signo: general::SIGSEGV as i32,
        code: code as i32,
    };
    let maperr = segv(general::SEGV_MAPERR);
    let accerr = segv(general::SEGV_ACCERR);
    assert_eq!(signal(&space, AT + PAGE, Access::Read), maperr);
    assert_eq!(signal(&space, 0, Access::Write), maperr);
    assert_eq!(signal(&space, u64::MAX, Access::Read), maperr);
    assert_eq!(signal(&space, AT, Access::Write), accerr);
    assert_eq!(signal(&space, AT, Access::Execute), accerr);
    assert_eq!(space.access(AT, Access::Read), Ok(()));
    assert_eq!(space.fault(AT, 0b110), Err(accerr));
    let bus = signal(&space, AT + 18 * PAGE, Access::Read);
    assert_eq!(
        (bus.signo as u32, bus.code as u32),
        (general::SIGBUS, general::BUS_ADRERR)
    );
    assert_eq!(load(&space, AT + 17 * PAGE), Ok(1001));
}

#[test]
fn out_of_memory_kills() {
    let frames = testing::frames(16);
    let space = space(frames);
    map_at(&space, AT, 8 * LARGE, Mapping::anonymous(RW));
    let mut at = AT;
    let signal = loop {
        match space.access(at, Access::Write) {
            Ok(()) => at += PAGE,
            Err(signal) => break signal,
        }
    };
    assert_eq!(signal.signo as u32, general::SIGKILL);
    // Almost all of it was given out before.
    assert!(frames.usage().free_bytes() < 8 * PAGE);
    drop(space);
    assert_eq!(used(frames), 0);
}

#[test]
fn private_file_pages_are_copied_on_write() {
    let frames = testing::frames(16);
    let file = Arc::new(TestFile::numbered(frames, 40));
    let before = used(frames);
    let space = space(frames);
    map_at(&space, AT, 40 * PAGE, file_mapping(&file, 0, RW));
    assert_eq!(load(&space, AT + 3 * PAGE), Ok(1003));
    store(&space, AT + 3 * PAGE, 5).unwrap();
    store(&space, AT + 20 * PAGE, 6).unwrap();
    assert_eq!(load(&space, AT + 3 * PAGE), Ok(5));
    assert_eq!(load(&space, AT + 4 * PAGE), Ok(1004));
    let mut word = [0; 8];
    phys::read(file.pages[3], 0, &mut word);
    assert_eq!(u64::from_le_bytes(word), 1003);
    space.advise(AT, 40 * PAGE, general::MADV_DONTNEED).unwrap();
    assert_eq!(load(&space, AT + 3 * PAGE), Ok(1003));
    drop(space);
    assert_eq!(used(frames), before);
}

#[test]
fn shared_file_pages_are_the_files() {
    let frames = testing::frames(16);
    let file = Arc::new(TestFile::numbered(frames, 40));
    let space = space(frames);
    let mut mapping = file_mapping(&file, PAGE, RW);
    mapping.flags = Flags::SHARED;
    map_at(&space, AT, 8 * PAGE, mapping);
    assert_eq!(load(&space, AT), Ok(1001));
    store(&space, AT, 5).unwrap();
    let mut word = [0; 8];
    phys::read(file.pages[1], 0, &mut word);
    assert_eq!(u64::from_le_bytes(word), 5);
    let child = space.fork(0).unwrap();
    store(&child, AT + PAGE, 6).unwrap();
    assert_eq!(load(&space, AT + PAGE), Ok(6));
    drop((space, child));
    assert_eq!(used(frames), 40);
}

#[test]
fn stacks_grow_down_to_their_limit_and_keep_their_gap() {
    let frames = testing::frames(32);
    let space = space(frames);
    let mut stack = Mapping::anonymous(RW);
    stack.flags = Flags::GROWSDOWN;
    map_at(&space, AT, 4 * PAGE, stack);
    store(&space, AT - (1 << 20), 1).unwrap();
    assert!(space.maps(false)[0].start <= AT - (1 << 20));
    // 8 MiB in all.
    store(&space, AT + 4 * PAGE - (8 << 20), 1).unwrap();
    assert_eq!(
        signal(&space, AT + 3 * PAGE - (8 << 20), Access::Write).signo as u32,
        general::SIGSEGV
    );
    // A neighbour below stops it 1 MiB earlier.
    let mut stack = Mapping::anonymous(RW);
    stack.flags = Flags::GROWSDOWN;
    map_at(&space, AT + (1 << 30), 4 * PAGE, stack);
    let below = AT + (1 << 30) - (2 << 20);
    map_at(&space, below, PAGE, Mapping::anonymous(RW));
    assert!(store(&space, below + PAGE + (1 << 20), 1).is_ok());
    assert!(store(&space, below + (1 << 20), 1).is_err());
}

#[test]
fn fork_copies_few_and_shares_many() {
    let frames = testing::frames(64);
    let parent = space(frames);
    map_at(&parent, AT, 8 * PAGE, Mapping::anonymous(RW));
    store(&parent, AT, 1).unwrap();
    let child = parent.fork(AT).unwrap();
    // Copied: neither faults again.
    store(&child, AT, 2).unwrap();
    assert_eq!(load(&parent, AT), Ok(1));
    assert_eq!(child.totals().resident, parent.totals().resident);
    drop(child);

    map_at(&parent, AT + LARGE, 4 * LARGE, Mapping::anonymous(RW));
    for large in 0..4 {
        store(&parent, AT + (1 + large) * LARGE, 10 + large).unwrap();
    }
    let before = used(frames);
    let child = parent.fork(AT).unwrap();
    assert!(used(frames) - before < 100, "shared, not copied");
    store(&parent, AT + LARGE, 77).unwrap();
    assert_eq!(load(&child, AT + LARGE), Ok(10));
    store(&child, AT + 2 * LARGE, 78).unwrap();
    assert_eq!(load(&parent, AT + 2 * LARGE), Ok(11));
    drop(child);
    // Alone again: the rest is reused in place.
    let before = used(frames);
    store(&parent, AT + 4 * LARGE, 79).unwrap();
    assert_eq!(used(frames), before);
    drop(parent);
    assert_eq!(used(frames), 0);
}

#[test]
fn advice_about_fork() {
    let frames = testing::frames(16);
    let parent = space(frames);
    map_at(&parent, AT, 3 * PAGE, Mapping::anonymous(RW));
    for page in 0..3 {
        store(&parent, AT + page * PAGE, 1).unwrap();
    }
    parent.advise(AT, PAGE, general::MADV_DONTFORK).unwrap();
    parent
        .advise(AT + PAGE, PAGE, general::MADV_WIPEONFORK)
        .unwrap();
    let child = parent.fork(0).unwrap();
    assert!(load(&child, AT).is_err());
    assert_eq!(load(&child, AT + PAGE), Ok(0));
    assert_eq!(load(&child, AT + 2 * PAGE), Ok(1));
}
