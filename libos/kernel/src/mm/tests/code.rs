use super::*;
use crate::mm::{Access, testing};
use crate::translate::{FrameSource, Kind, Site};

const AT: u64 = 0x40_0000;
/// `mov $39, %eax; syscall`: getpid.
const CODE: [u8; 7] = [0xb8, 39, 0, 0, 0, 0x0f, 0x05];
const SITE: u64 = PAGE + 16;

fn program(frames: &'static Frames) -> Arc<TestFile> {
    let mut contents = vec![0x90; 3 * PAGE as usize];
    contents[SITE as usize..][..CODE.len()].copy_from_slice(&CODE);
    let mut file = TestFile::new(frames, &contents);
    file.text = Some(TextImage::default());
    Arc::new(file)
}

/// Maps the file as a linker lays it out: headers, then code.
fn map_program(space: &AddressSpace, file: &Arc<TestFile>) {
    map_at(space, AT, PAGE, file_mapping(file, 0, Prot::READ));
    map_at(space, AT + PAGE, 2 * PAGE, file_mapping(file, PAGE, RX));
}

fn patch(file: &TestFile, frames: &'static Frames) -> u64 {
    let text = file.text.as_ref().unwrap();
    let source: &'static dyn FrameSource = frames;
    let site = Site {
        kind: Kind::Load { nr: 39 },
        call: crate::translate::thunk::Call::Syscall,
        start: SITE,
        code: &CODE[..5],
        slot: 0xffff_ffff_8000_0000,
        page: file.pages[1],
        alone: true,
    };
    text.patch(&site, text.area_bytes(file.size), source)
        .unwrap()
        .thunk
}

fn bytes(space: &AddressSpace, at: u64) -> [u8; 7] {
    let mut bytes = [0; 7];
    space.seen_bytes(at, &mut bytes).unwrap();
    bytes
}

#[test]
fn who_asks_for_memory_gets_the_program_s_own_text() {
    let frames = testing::frames(16);
    let file = program(frames);
    let space = space(frames);
    map_program(&space, &file);
    patch(&file, frames);
    assert_eq!(bytes(&space, AT + SITE)[0], 0xe9);
    let mut own = [0; 7];
    assert_eq!(space.read_bytes(AT + SITE, &mut own), Ok(7));
    assert_eq!(own, CODE);
    let mut around = vec![0; 3 * PAGE as usize];
    assert_eq!(space.read_bytes(AT, &mut around), Ok(around.len()));
    assert_eq!(around[SITE as usize..][..7], CODE);
    let thunks = space.code_region(AT + SITE).unwrap().thunk_base.unwrap();
    assert_eq!(space.read_bytes(thunks, &mut own), Err(Errno::EFAULT));
}

#[test]
fn an_untranslated_process_runs_its_files_text() {
    let frames = testing::frames(16);
    let file = program(frames);
    let traced = space(frames);
    let other = space(frames);
    for space in [&traced, &other] {
        map_program(space, &file);
    }
    patch(&file, frames);
    assert_eq!(bytes(&traced, AT + SITE)[0], 0xe9);
    let thunks = traced.code_region(AT + SITE).unwrap().thunk_base.unwrap();
    traced.access(thunks, Access::Execute).unwrap();
    traced.untranslate().unwrap();
    assert_eq!(bytes(&traced, AT + SITE), CODE);
    assert!(traced.access(thunks, Access::Execute).is_err());
    assert_eq!(traced.code_region(AT + SITE).unwrap().thunk_base, None);
    traced.refresh_code_page(AT + SITE);
    assert_eq!(bytes(&traced, AT + SITE), CODE);
    // What it maps later is not patched either, nor what its children have.
    const HIGHER: u64 = AT + (1 << 20);
    let again = map_at(&traced, HIGHER, 2 * PAGE, file_mapping(&file, PAGE, RX));
    assert_eq!(bytes(&traced, again + SITE - PAGE), CODE);
    let child = traced.fork(0).unwrap();
    map_at(&child, HIGHER, 2 * PAGE, file_mapping(&file, PAGE, RX));
    assert_eq!(bytes(&child, HIGHER + SITE - PAGE), CODE);
    // A breakpoint goes into its own copy.
    traced
        .protect(AT + PAGE, PAGE, Prot::all(), false, &Limits::DEFAULT)
        .unwrap();
    traced.write_bytes(AT + SITE, &[0xcc]).unwrap();
    assert_eq!(bytes(&traced, AT + SITE)[0], 0xcc);
    assert_eq!(bytes(&other, AT + SITE)[0], 0xe9);
}

#[test]
fn code_gets_a_hidden_area_at_a_distance_that_traps() {
    let frames = testing::frames(16);
    let file = program(frames);
    let space = space(frames);
    map_program(&space, &file);
    let region = space.code_region(AT + SITE).unwrap();
    assert_eq!((region.start, region.end), (AT + PAGE, AT + 3 * PAGE));
    assert_eq!(region.file_offset, PAGE);
    let thunks = region.thunk_base.unwrap();
    for (thunk, site) in [(thunks, AT + 3 * PAGE), (thunks + (64 << 10), AT)] {
        let distance = thunk.wrapping_sub(site + 5) as u32;
        assert!(crate::translate::thunk::is_trapping((distance >> 24) as u8));
    }
    assert!(space.code_region(AT).is_none(), "not executable");
    assert_eq!(space.thunk_region(thunks + 9).unwrap().start, AT + PAGE);
    assert!(space.thunk_region(AT + SITE).is_none());
    // Not shown, not counted, not in the way of what may go anywhere.
    assert_eq!(space.maps(false).len(), 2);
    assert_eq!(space.totals().size, 3 * PAGE);
    let hint = space
        .map(
            Placement::Hint(thunks),
            PAGE,
            Mapping::anonymous(RW),
            &Limits::DEFAULT,
        )
        .unwrap();
    assert_ne!(hint, thunks);
    // It goes with its last mapping.
    space.unmap(AT + PAGE, PAGE).unwrap();
    assert!(space.thunk_region(thunks).is_some());
    space.unmap(AT + 2 * PAGE, PAGE).unwrap();
    assert!(space.thunk_region(thunks).is_none());
}

#[test]
fn growing_over_thunks_stops_at_what_lies_behind_them() {
    let frames = testing::frames(16);
    let file = program(frames);
    let space = space(frames);
    map_program(&space, &file);
    let thunks = space.code_region(AT + SITE).unwrap().thunk_base.unwrap();
    let below = thunks - PAGE;
    map_at(&space, below, PAGE, Mapping::anonymous(RW));
    let grow = |from: u64, to: u64| {
        let what = crate::mm::Remap {
            old: below,
            old_len: from - below,
            new_len: to - below,
            may_move: false,
            fixed: None,
            keep_old: false,
        };
        space.remap(&what, &Limits::DEFAULT)
    };
    let behind = thunks + (64 << 10);
    map_at(&space, behind, PAGE, Mapping::anonymous(RW));
    assert_eq!(grow(thunks, behind + PAGE), Err(Errno::ENOMEM));
    assert_eq!(grow(thunks, behind), Ok(below));
    assert!(space.thunk_region(thunks).is_none());
}

#[test]
fn patched_pages_and_thunks_are_shown() {
    let frames = testing::frames(16);
    let file = program(frames);
    let parent = space(frames);
    map_program(&parent, &file);
    assert_eq!(bytes(&parent, AT + SITE), CODE);
    let thunks = parent.code_region(AT + SITE).unwrap().thunk_base.unwrap();
    assert!(parent.access(thunks, Access::Execute).is_err(), "none yet");
    let thunk = patch(&file, frames);
    assert_eq!(
        bytes(&parent, AT + SITE),
        CODE,
        "not before it is refreshed"
    );
    parent.refresh_code_page(AT + SITE);
    let patched = bytes(&parent, AT + SITE);
    assert_eq!(patched[0], 0xe9);
    let displacement = i32::from_le_bytes([patched[1], patched[2], patched[3], patched[4]]);
    assert_eq!(
        (AT + SITE + 5).wrapping_add_signed(i64::from(displacement)),
        thunks + thunk
    );
    parent.map_thunk_page(thunks);
    parent.access(thunks, Access::Execute).unwrap();
    assert!(parent.access(thunks, Access::Write).is_err());

    // Another process finds them by faulting, a child by inheriting.
    let other = space(frames);
    map_program(&other, &file);
    assert_eq!(bytes(&other, AT + SITE), patched);
    other.access(thunks, Access::Execute).unwrap();
    let child = parent.fork(0).unwrap();
    assert_eq!(bytes(&child, AT + SITE), patched);
    assert!(child.thunk_region(thunks).is_some());
    let before = used(frames);
    drop((parent, other, child));
    assert!(used(frames) < before);
    assert_eq!(frames.count(file.pages[1]), 1);
}

#[test]
fn code_made_writable_has_the_files_bytes() {
    let frames = testing::frames(16);
    let file = program(frames);
    let space = space(frames);
    map_program(&space, &file);
    patch(&file, frames);
    assert_eq!(bytes(&space, AT + SITE)[0], 0xe9);
    let protect = |prot| {
        space
            .protect(AT + PAGE, PAGE, prot, false, &Limits::DEFAULT)
            .unwrap()
    };
    protect(Prot::all());
    assert!(space.code_region(AT + SITE).is_none());
    assert_eq!(bytes(&space, AT + SITE), CODE);
    // Read-only again and untouched: patched again. Once written to: the process's own.
    protect(RX);
    space.refresh_code_page(AT + SITE);
    assert_eq!(bytes(&space, AT + SITE)[0], 0xe9);
    protect(Prot::all());
    space.write_bytes(AT + PAGE, &[0xcc]).unwrap();
    protect(RX);
    assert!(space.code_region(AT + SITE).is_none());
    space.refresh_code_page(AT + SITE);
    assert_eq!(bytes(&space, AT + SITE), CODE);
    assert_eq!(bytes(&space, AT + PAGE)[0], 0xcc);
}

#[test]
fn a_taken_range_leaves_code_untranslated() {
    let frames = testing::frames(16);
    let file = program(frames);
    let first = space(frames);
    map_program(&first, &file);
    patch(&file, frames);
    let thunks = first.code_region(AT + SITE).unwrap().thunk_base.unwrap();
    assert_eq!(bytes(&first, AT + SITE)[0], 0xe9);

    let second = space(frames);
    map_at(&second, thunks, PAGE, Mapping::anonymous(RW));
    map_program(&second, &file);
    assert_eq!(second.code_region(AT + SITE).unwrap().thunk_base, None);
    assert_eq!(bytes(&second, AT + SITE), CODE);

    // The process takes the range later.
    let taken = first.map(
        Placement::FixedNoReplace(thunks + PAGE),
        PAGE,
        Mapping::anonymous(RW),
        &Limits::DEFAULT,
    );
    assert_eq!(taken, Ok(thunks + PAGE));
    assert_eq!(bytes(&first, AT + SITE), CODE);
    assert_eq!(first.code_region(AT + SITE).unwrap().thunk_base, None);
    store(&first, thunks + PAGE, 1).unwrap();
}
