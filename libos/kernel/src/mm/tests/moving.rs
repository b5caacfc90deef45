use husk_abi::linux::general;

use super::*;
use crate::mm::{Flags, Remap, testing};

const AT: u64 = 0x5000_0000;

fn resize(old_len: u64, new_len: u64) -> Remap {
    Remap {
        old: AT,
        old_len,
        new_len,
        may_move: false,
        fixed: None,
        keep_old: false,
    }
}

#[test]
fn placement() {
    let frames = testing::frames(16);
    let space = space(frames);
    let any = |len| {
        space
            .map(
                Placement::Hint(0),
                len,
                Mapping::anonymous(RW),
                &Limits::DEFAULT,
            )
            .unwrap()
    };
    let base = space.places().mmap_base;
    assert_eq!(any(PAGE), base - PAGE);
    assert_eq!(any(PAGE), base - 2 * PAGE);
    // One area: neighbours that are alike are joined.
    assert_eq!(space.maps(false).len(), 1);
    assert!(any(LARGE).is_multiple_of(LARGE));
    let hint = |at| {
        space.map(
            Placement::Hint(at),
            PAGE,
            Mapping::anonymous(RW),
            &Limits::DEFAULT,
        )
    };
    assert_eq!(hint(AT + 5), Ok(AT + PAGE));
    assert_ne!(hint(AT + PAGE), Ok(AT + PAGE));
    assert_eq!(hint(1), Ok(0x1_0000));
    let fixed = |place, len| space.map(place, len, Mapping::anonymous(RW), &Limits::DEFAULT);
    assert_eq!(
        fixed(Placement::FixedNoReplace(AT), 2 * PAGE),
        Err(Errno::EEXIST)
    );
    assert_eq!(fixed(Placement::Fixed(AT + 1), PAGE), Err(Errno::EINVAL));
    assert_eq!(fixed(Placement::Fixed(0), PAGE), Err(Errno::EPERM));
    assert_eq!(fixed(Placement::Fixed(AT), 0), Err(Errno::EINVAL));
    assert_eq!(fixed(Placement::Fixed(AT), u64::MAX), Err(Errno::ENOMEM));
    assert_eq!(fixed(Placement::Fixed(1 << 47), PAGE), Err(Errno::ENOMEM));
    assert!(fixed(Placement::Low, PAGE).unwrap() < 1 << 31);
}

#[test]
fn limits() {
    let frames = testing::frames(16);
    let space = space(frames);
    let limits = Limits {
        address_space: 8 * PAGE,
        data: 4 * PAGE,
        stack: 8 << 20,
    };
    let map = |len, prot| space.map(Placement::Fixed(AT), len, Mapping::anonymous(prot), &limits);
    assert_eq!(map(9 * PAGE, Prot::READ), Err(Errno::ENOMEM));
    assert_eq!(map(5 * PAGE, RW), Err(Errno::ENOMEM));
    assert_eq!(map(8 * PAGE, Prot::READ), Ok(AT));
    // Replacing counts only what is added.
    assert_eq!(map(4 * PAGE, RW), Ok(AT));
    assert_eq!(
        space.protect(AT, 8 * PAGE, RW, false, &limits),
        Err(Errno::ENOMEM)
    );
    // More than the container may ever have.
    let huge = space.map(
        Placement::Hint(0),
        1 << 30,
        Mapping::anonymous(RW),
        &Limits::DEFAULT,
    );
    assert_eq!(huge, Err(Errno::ENOMEM));
    let mut reserve = Mapping::anonymous(RW);
    reserve.flags = Flags::NORESERVE;
    assert!(
        space
            .map(Placement::Hint(0), 1 << 40, reserve, &Limits::DEFAULT)
            .is_ok()
    );
}

#[test]
fn the_break_moves() {
    let frames = testing::frames(16);
    let space = space(frames);
    space.update_places(|places| {
        places.start_brk = AT;
        places.brk = AT;
    });
    let brk = |to| space.brk(to, &Limits::DEFAULT);
    assert_eq!(brk(0), AT);
    assert_eq!(brk(AT + 10), AT + 10);
    store(&space, AT, 3).unwrap();
    assert_eq!(brk(AT + 3 * PAGE), AT + 3 * PAGE);
    let names: Vec<_> = space.maps(false).into_iter().map(|l| l.name).collect();
    assert_eq!(names, [crate::mm::MapName::Special("[heap]")]);
    assert_eq!(load(&space, AT), Ok(3));
    assert_eq!(brk(AT + PAGE), AT + PAGE);
    assert!(load(&space, AT + PAGE).is_err());
    // Something in the way.
    map_at(&space, AT + 16 * PAGE, PAGE, Mapping::anonymous(RW));
    assert_eq!(brk(AT + 20 * PAGE), AT + PAGE);
    assert_eq!(brk(AT - 1), AT + PAGE);
    let tight = Limits {
        data: PAGE,
        ..Limits::DEFAULT
    };
    assert_eq!(space.brk(AT + 2 * PAGE, &tight), AT + PAGE);
    assert_eq!(brk(AT), AT);
    assert_eq!(space.maps(false).len(), 1);
}

#[test]
fn remapping() {
    let frames = testing::frames(64);
    let space = space(frames);
    let remap = |what: &Remap| space.remap(what, &Limits::DEFAULT);
    map_at(&space, AT, 2 * PAGE, Mapping::anonymous(RW));
    store(&space, AT, 1).unwrap();
    store(&space, AT + PAGE, 2).unwrap();
    assert_eq!(remap(&resize(2 * PAGE, 4 * PAGE)), Ok(AT));
    map_at(&space, AT + 4 * PAGE, PAGE, Mapping::anonymous(Prot::READ));
    assert_eq!(remap(&resize(4 * PAGE, 5 * PAGE)), Err(Errno::ENOMEM));
    assert_eq!(remap(&resize(5 * PAGE, 6 * PAGE)), Err(Errno::EFAULT));
    assert_eq!(remap(&resize(0, PAGE)), Err(Errno::EINVAL));
    assert_eq!(remap(&resize(PAGE, 0)), Err(Errno::EINVAL));
    let moved = remap(&Remap {
        may_move: true,
        ..resize(4 * PAGE, 600 * PAGE)
    })
    .unwrap();
    assert_ne!(moved, AT);
    assert_eq!(load(&space, moved), Ok(1));
    assert_eq!(load(&space, moved + PAGE), Ok(2));
    assert!(load(&space, AT).is_err());
    // Shrinking in place.
    let shrink = Remap {
        old: moved,
        ..resize(600 * PAGE, PAGE)
    };
    assert_eq!(remap(&shrink), Ok(moved));
    assert!(load(&space, moved + PAGE).is_err());
    // Keeping the old range, which then reads as zero.
    let copy = remap(&Remap {
        old: moved,
        may_move: true,
        keep_old: true,
        ..resize(PAGE, PAGE)
    })
    .unwrap();
    assert_eq!((load(&space, copy), load(&space, moved)), (Ok(1), Ok(0)));

    // Large pages move as they are when the distance allows.
    map_at(&space, 4 * LARGE, 2 * LARGE, Mapping::anonymous(RW));
    store(&space, 4 * LARGE, 9).unwrap();
    let what = Remap {
        old: 4 * LARGE,
        fixed: Some(32 * LARGE),
        may_move: true,
        ..resize(2 * LARGE, 2 * LARGE)
    };
    assert_eq!(remap(&what), Ok(32 * LARGE));
    assert_eq!(load(&space, 32 * LARGE), Ok(9));
    let what = Remap {
        old: 32 * LARGE,
        fixed: Some(40 * LARGE + PAGE),
        may_move: true,
        ..resize(2 * LARGE, LARGE)
    };
    assert_eq!(remap(&what), Ok(40 * LARGE + PAGE));
    assert_eq!(load(&space, 40 * LARGE + PAGE), Ok(9));
    assert!(load(&space, 32 * LARGE + LARGE).is_err());
    drop(space);
    assert_eq!(used(frames), 0);
}

#[test]
fn a_shared_mapping_can_be_doubled() {
    let frames = testing::frames(16);
    let space = space(frames);
    let mut mapping = Mapping::anonymous(RW);
    mapping.flags = Flags::SHARED;
    mapping.backing = crate::mm::shared_anonymous(&space, 2 * PAGE).unwrap();
    map_at(&space, AT, 2 * PAGE, mapping);
    store(&space, AT, 4).unwrap();
    let what = Remap {
        may_move: true,
        ..resize(0, 2 * PAGE)
    };
    let twin = space.remap(&what, &Limits::DEFAULT).unwrap();
    assert_eq!(load(&space, twin), Ok(4));
    store(&space, twin, 5).unwrap();
    assert_eq!(load(&space, AT), Ok(5));
}

#[test]
fn protection() {
    let frames = testing::frames(16);
    let space = space(frames);
    let protect = |at, len, prot| space.protect(at, len, prot, false, &Limits::DEFAULT);
    map_at(&space, AT, 4 * PAGE, Mapping::anonymous(RW));
    store(&space, AT + PAGE, 8).unwrap();
    protect(AT + PAGE, PAGE, Prot::empty()).unwrap();
    assert_eq!(space.maps(false).len(), 3);
    assert!(load(&space, AT + PAGE).is_err());
    protect(AT + PAGE, PAGE, RW).unwrap();
    assert_eq!(space.maps(false).len(), 1);
    assert_eq!(load(&space, AT + PAGE), Ok(8));
    assert_eq!(protect(AT + 1, PAGE, RW), Err(Errno::EINVAL));
    assert_eq!(protect(AT, 5 * PAGE, Prot::READ), Err(Errno::ENOMEM));
    assert!(store(&space, AT, 1).is_err(), "what is mapped has changed");
    let mut sealed = Mapping::anonymous(Prot::READ);
    sealed.max_prot = Prot::READ;
    map_at(&space, AT, PAGE, sealed);
    assert_eq!(protect(AT, PAGE, RW), Err(Errno::EACCES));
}

#[test]
fn advice_errors() {
    let frames = testing::frames(16);
    let space = space(frames);
    map_at(&space, AT, PAGE, Mapping::anonymous(RW));
    let advise = |at, len, what| space.advise(at, len, what);
    assert_eq!(
        advise(AT + 1, PAGE, general::MADV_NORMAL),
        Err(Errno::EINVAL)
    );
    assert_eq!(advise(AT, PAGE, 4711), Err(Errno::EINVAL));
    assert_eq!(
        advise(AT, PAGE, general::MADV_MERGEABLE),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        advise(AT, 2 * PAGE, general::MADV_DONTNEED),
        Err(Errno::ENOMEM)
    );
    assert_eq!(advise(AT, 0, general::MADV_DONTNEED), Ok(()));
    assert_eq!(advise(AT, PAGE, general::MADV_POPULATE_WRITE), Ok(()));
    assert_eq!(space.resident(AT..AT + PAGE), Ok(vec![1]));
    assert_eq!(space.resident(AT..AT + 2 * PAGE), Err(Errno::ENOMEM));
    space.set_locked(AT..AT + PAGE, true).unwrap();
    assert_eq!(advise(AT, PAGE, general::MADV_DONTNEED), Err(Errno::EINVAL));
    assert_eq!(space.totals().locked, PAGE);
}
