//! Page tables that outlive their address spaces.

use super::*;
use crate::mm::layout::{Kind, Layout};
use crate::mm::{Flags, testing};

const AT: u64 = 0x4000_0000;

fn kind(randomize: bool) -> Kind {
    Kind {
        program: (9, 77),
        interpreter: None,
        is_dyn: true,
        align: PAGE,
        start: 0,
        stack_limit: 8 << 20,
        randomize,
    }
}

/// An address space whose tables are kept.
pub(super) fn laid_out(frames: &'static Frames) -> Arc<AddressSpace> {
    let space = space(frames);
    space.with(|state| state.layout = Some(Arc::new(Layout::new(kind(true)))));
    space
}

#[test]
fn a_fork_after_a_fork_has_nothing_of_the_first() {
    let frames = testing::frames(32);
    let file = Arc::new(TestFile::numbered(frames, 8));
    let parent = laid_out(frames);
    map_at(&parent, AT, 16 * PAGE, Mapping::anonymous(RW));
    map_at(
        &parent,
        AT + LARGE,
        8 * PAGE,
        file_mapping(&file, 0, Prot::READ),
    );
    for page in 0..16 {
        store(&parent, AT + page * PAGE, page + 1).unwrap();
    }
    assert_eq!(load(&parent, AT + LARGE + PAGE), Ok(1001));

    let first = parent.fork(AT).unwrap();
    for page in 0..16 {
        store(&first, AT + page * PAGE, 500 + page).unwrap();
    }
    // Only the first has this.
    map_at(&first, AT + 4 * LARGE, 4 * PAGE, Mapping::anonymous(RW));
    store(&first, AT + 4 * LARGE, 99).unwrap();
    drop(first);

    parent.unmap(AT + 8 * PAGE, PAGE).unwrap();
    parent
        .protect(AT + 9 * PAGE, PAGE, Prot::READ, false, &Limits::DEFAULT)
        .unwrap();
    parent
        .advise(
            AT + 10 * PAGE,
            PAGE,
            husk_abi::linux::general::MADV_DONTFORK,
        )
        .unwrap();
    store(&parent, AT, 77).unwrap();
    let second = parent.fork(AT).unwrap();
    assert_eq!(load(&second, AT), Ok(77));
    assert_eq!(load(&second, AT + 15 * PAGE), Ok(16));
    assert_eq!(load(&second, AT + LARGE + PAGE), Ok(1001));
    assert!(load(&second, AT + 8 * PAGE).is_err());
    assert!(load(&second, AT + 10 * PAGE).is_err());
    assert!(load(&second, AT + 4 * LARGE).is_err());
    assert_eq!(load(&second, AT + 9 * PAGE), Ok(10));
    assert!(store(&second, AT + 9 * PAGE, 1).is_err());
    store(&second, AT + PAGE, 5).unwrap();
    assert_eq!(load(&parent, AT + PAGE), Ok(2));
    assert_eq!(second.totals().resident, parent.totals().resident - PAGE);
    drop((parent, second));
    assert_eq!(used(frames), 8, "the file's");
}

#[test]
fn what_is_kept_goes_when_memory_is_short() {
    let frames = testing::frames(32);
    let parent = laid_out(frames);
    map_at(&parent, AT, 64 * PAGE, Mapping::anonymous(RW));
    for page in 0..64 {
        store(&parent, AT + page * PAGE, 1).unwrap();
    }
    let own = used(frames);
    drop(parent.fork(AT).unwrap());
    assert!(used(frames) > own, "kept");
    assert!(parent.shelf.clear());
    assert_eq!(used(frames), own);
    assert!(!parent.shelf.clear(), "once");
}

#[test]
fn large_address_spaces_are_not_kept() {
    let frames = testing::frames(64);
    let parent = laid_out(frames);
    for large in 0..60 {
        let at = AT + large * LARGE;
        map_at(&parent, at, PAGE, Mapping::anonymous(RW));
        store(&parent, at, 1).unwrap();
    }
    let own = used(frames);
    drop(parent.fork(AT).unwrap());
    assert_eq!(used(frames), own);
}

#[test]
fn runs_in_a_row_have_different_layouts() {
    let frames = testing::frames(32);
    let maker = space(frames);
    let mut last = 0;
    let mut kept = 0;
    for run in 0..20 {
        let taken = maker.shelf.take_for_exec(&kind(true));
        kept += u64::from(taken.is_some());
        let (table, layout) = match taken {
            Some((table, layout)) => (Some(table), layout),
            None => (None, Arc::new(Layout::new(kind(true)))),
        };
        layout.begin_run();
        assert_ne!(layout.stack_top, last, "run {run}");
        last = layout.stack_top;
        let shelf = maker.shelf.clone();
        let mm = AddressSpace::beside(frames, maker.cpus, shelf, table).unwrap();
        mm.with(|state| state.layout = Some(layout));
    }
    assert!(kept >= 16, "{kept}");
    let fixed = Layout::new(kind(false));
    assert_eq!(fixed.stack_top, Layout::new(kind(false)).stack_top);
}

#[test]
fn a_worn_layout_is_not_used_again() {
    let layout = Layout::new(kind(true));
    assert!(!layout.is_worn());
    (0..40).for_each(|_| layout.begin_run());
    assert!(layout.is_worn());
}

#[test]
fn tables_are_adopted_by_what_the_areas_say() {
    let frames = testing::frames(32);
    let file = Arc::new(TestFile::numbered(frames, 8));
    let maker = space(frames);
    let layout = Arc::new(Layout::new(kind(false)));
    let make = |table| {
        let mm = AddressSpace::beside(frames, 2, maker.shelf.clone(), table).unwrap();
        mm.with(|state| state.layout = Some(layout.clone()));
        map_at(&mm, AT, 4 * PAGE, file_mapping(&file, 0, RW));
        map_at(&mm, AT + LARGE, 4 * PAGE, Mapping::anonymous(RW));
        mm
    };
    let first = make(None);
    store(&first, AT + PAGE, 1).unwrap();
    store(&first, AT + LARGE, 2).unwrap();
    map_at(&first, AT + 2 * LARGE, PAGE, Mapping::anonymous(RW));
    store(&first, AT + 2 * LARGE, 3).unwrap();
    assert_eq!(load(&first, AT + 2 * PAGE), Ok(1002));
    drop(first);

    let (table, _) = maker.shelf.take_for_exec(&kind(false)).expect("kept");
    let second = make(Some(table));
    second.adopt();
    let before = second.totals().resident;
    assert!(before >= 3 * PAGE, "what was used is there");
    assert_eq!(load(&second, AT + PAGE), Ok(1001));
    assert_eq!(load(&second, AT + 2 * PAGE), Ok(1002));
    assert_eq!(load(&second, AT + LARGE), Ok(0));
    assert!(load(&second, AT + 2 * LARGE).is_err());
    store(&second, AT + 2 * PAGE, 5).unwrap();
    let mut word = [0; 8];
    phys::read(file.pages[2], 0, &mut word);
    assert_eq!(u64::from_le_bytes(word), 1002, "the file has its own");
    drop((second, maker));
    assert_eq!(used(frames), 8);
}

#[test]
fn an_objects_pages_are_taken_out_everywhere() {
    let frames = testing::frames(16);
    let file = Arc::new(TestFile::numbered(frames, 8));
    let space = space(frames);
    let mut mapping = file_mapping(&file, 2 * PAGE, RW);
    mapping.flags = Flags::SHARED;
    map_at(&space, AT, 4 * PAGE, mapping);
    map_at(&space, AT + LARGE, 8 * PAGE, file_mapping(&file, 0, RW));
    for page in 0..4 {
        assert_eq!(load(&space, AT + page * PAGE), Ok(1002 + page));
    }
    for page in 0..8 {
        assert_eq!(load(&space, AT + LARGE + page * PAGE), Ok(1000 + page));
    }
    store(&space, AT + LARGE + 4 * PAGE, 4).unwrap();
    let is_there = |at| space.with(|state| !state.table.get(at).is_empty());
    space.unmap_object((9, 77), &(3..5), false);
    assert!(is_there(AT) && !is_there(AT + PAGE) && !is_there(AT + 2 * PAGE));
    assert!(!is_there(AT + LARGE + 3 * PAGE));
    assert!(is_there(AT + LARGE + 4 * PAGE), "its own copy");
    space.unmap_object((9, 78), &(0..8), true);
    assert!(is_there(AT));
    space.unmap_object((9, 77), &(4..u64::MAX), true);
    assert!(!is_there(AT + LARGE + 4 * PAGE) && is_there(AT));
}
