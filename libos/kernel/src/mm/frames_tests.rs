use super::*;
use crate::mm::testing;

fn block_of(frame: Frame) -> u64 {
    frame.number() / LARGE_FRAMES
}

#[test]
fn counts_and_limit() {
    let frames = testing::frames(8);
    let a = frames.alloc().unwrap();
    let b = frames.alloc_zeroed().unwrap();
    assert_ne!(a, b);
    frames.get(a);
    assert_eq!(frames.count(a), 2);
    frames.put(a);
    frames.put(a);
    frames.put(b);
    assert_eq!(frames.usage().used_bytes, 0);

    frames.set_limit(3 * 4096);
    let three: Vec<_> = (0..3).map(|_| frames.alloc().unwrap()).collect();
    assert_eq!(frames.alloc(), Err(Errno::ENOMEM));
    assert_eq!(frames.alloc_large(), Err(Errno::ENOMEM));
    three.into_iter().for_each(|frame| frames.put(frame));
    assert_eq!(frames.usage().free_bytes(), 3 * 4096);
}

#[test]
fn recycled_frames_are_zeroed_again() {
    let frames = testing::frames(4);
    let dirty = frames.alloc().unwrap();
    phys::write(dirty, 0, b"dirt");
    frames.put(dirty);
    let seen: Vec<_> = (0..100)
        .map(|_| {
            let frame = frames.alloc_zeroed().unwrap();
            let mut bytes = [1; 4];
            phys::read(frame, 0, &mut bytes);
            assert_eq!(bytes, [0; 4]);
            frame
        })
        .collect();
    assert!(seen.contains(&dirty));
}

#[test]
fn all_of_ram_can_be_used_and_comes_back() {
    let frames = testing::frames(8);
    for _ in 0..2 {
        let mut taken = Vec::new();
        while let Ok(frame) = frames.alloc() {
            taken.push(frame);
        }
        // Four blocks less the bookkeeping (two pages and a half).
        assert_eq!(taken.len() as u64, 4 * LARGE_FRAMES - 3);
        let mut sorted = taken.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), taken.len());
        taken.into_iter().for_each(|frame| frames.put(frame));
    }
    let large: Vec<_> = (0..3).map(|_| frames.alloc_large().unwrap()).collect();
    assert!(
        large
            .iter()
            .all(|f| f.number().is_multiple_of(LARGE_FRAMES))
    );
    assert!(frames.alloc_large().is_err());
    large.into_iter().for_each(|frame| frames.put_large(frame));
    assert_eq!(frames.usage().used_bytes, 0);
}

#[test]
fn shared_large_frames_split_and_rejoin() {
    let frames = testing::frames(8);
    let large = frames.alloc_large_zeroed().unwrap();
    assert!(frames.is_large_unshared(large));
    frames.get_large(large);
    assert_eq!(frames.count(large.offset(7)), 2);
    frames.split_large(large);
    frames.put(large.offset(7));
    assert_eq!(frames.count(large.offset(7)), 1);
    assert_eq!(frames.count(large.offset(8)), 2);
    // The one that still maps it as one.
    frames.put_large(large);
    assert_eq!(frames.count(large.offset(8)), 1);
    for at in 0..LARGE_FRAMES {
        if at != 7 {
            frames.put(large.offset(at));
        }
    }
    assert_eq!(frames.usage().used_bytes, 0);
    assert_eq!(block_of(frames.alloc_large().unwrap()), block_of(large));
}

#[test]
fn runs() {
    let frames = testing::frames(16);
    let one = frames.alloc_contiguous(1).unwrap();
    let eight = frames.alloc_contiguous(8).unwrap();
    let two_blocks = frames.alloc_contiguous(600).unwrap();
    assert!(two_blocks.number().is_multiple_of(LARGE_FRAMES));
    assert_eq!(frames.usage().used_bytes, (1 + 8 + 1024) * 4096);
    frames.free_contiguous(two_blocks, 600);
    let again = frames.alloc_contiguous(1024).unwrap();
    assert_eq!(again, two_blocks);
    frames.free_contiguous(again, 1024);
    frames.free_contiguous(eight, 8);
    frames.free_contiguous(one, 1);
    assert_eq!(frames.usage().used_bytes, 0);
    assert_eq!(frames.alloc_contiguous(0), Err(Errno::EINVAL));
    assert_eq!(frames.alloc_contiguous(1 << 40), Err(Errno::ENOMEM));
}

#[test]
fn foreign_frames_are_not_counted() {
    let frames = testing::frames(4);
    frames.put(Frame::new(0));
    frames.get(Frame::new(0));
    assert_eq!(frames.count(Frame::new(0)), 0);
}

#[test]
fn no_memory_at_all() {
    let none = Frames::new(0, 0, 0);
    assert!(none.alloc().is_err());
    assert!(none.alloc_contiguous(4096).is_err());
    let nothing_free = Frames::new(1 << 30, 1 << 30, 1 << 30);
    assert!(nothing_free.alloc_large().is_err());
}

#[test]
fn page_tables_have_blocks_of_their_own() {
    let frames = testing::frames(12);
    let page = frames.alloc().unwrap();
    let table = frames.alloc_table().unwrap();
    assert_ne!(block_of(page), block_of(table));
    let tables: Vec<_> = (0..100).map(|_| frames.alloc_table().unwrap()).collect();
    assert!(
        tables
            .iter()
            .all(|frame| block_of(*frame) == block_of(table))
    );
    phys::write(table, 8, b"dirt");
    frames.put(table);
    let again = frames.alloc_table().unwrap();
    let mut bytes = [1; 4];
    phys::read(again, 8, &mut bytes);
    assert_eq!(bytes, [0; 4]);
    // Where no block is left, the other kind's frames are used up.
    let mut all = tables;
    while let Ok(frame) = frames.alloc() {
        all.push(frame);
    }
    assert_eq!(frames.usage().free_bytes(), 4 * 4096, "the bookkeeping's");
    all.extend([page, again]);
    all.into_iter().for_each(|frame| frames.put(frame));
    assert_eq!(frames.usage().used_bytes, 0);
}

#[test]
fn free_blocks_are_offered_and_come_back() {
    let frames = testing::frames(128);
    let large: Vec<_> = (0..50).map(|_| frames.alloc_large().unwrap()).collect();
    let mut blocks = [0; 32];
    assert_eq!(frames.offer(&mut blocks), 0, "all in use");
    for frame in &large {
        frames.put_large(*frame);
    }
    let count = frames.offer(&mut blocks);
    assert_eq!(count, 18, "some are kept");
    assert!(
        blocks[..count]
            .iter()
            .all(|gpa| gpa.is_multiple_of(2 << 20))
    );
    assert_eq!(frames.offer(&mut blocks[count..]), 0);
    frames.given_back(&blocks[..count]);
    assert_eq!(frames.offer(&mut blocks), 0, "once");
    // All can be had again, those last, and as zeros though they may hold anything.
    phys::write(Frame::containing(blocks[0]), 0, &[1; 8]);
    let again: Vec<_> = (0..50)
        .map(|_| frames.alloc_large_zeroed().unwrap())
        .collect();
    assert!(blocks[..count].contains(&again[49].gpa()));
    let mut word = [1; 8];
    phys::read(Frame::containing(blocks[0]), 0, &mut word);
    assert_eq!(word, [0; 8]);
    again.iter().for_each(|frame| frames.put_large(*frame));
    // In one piece, warm or cold.
    let count = frames.offer(&mut blocks);
    frames.given_back(&blocks[..count]);
    let piece = frames.alloc_contiguous(50 * 512).unwrap();
    frames.free_contiguous(piece, 50 * 512);
    assert_eq!(frames.usage().used_bytes, 0);
}

#[test]
fn ram_that_is_not_there_yet_is_asked_for() {
    let range = testing::arena(16);
    let ready_bytes = range.start + 2 * LARGE_FRAMES * 4096;
    let frames = Frames::new(range.start, range.end, range.end).ready_to(ready_bytes);
    let ready = || frames.pool.lock().ready;
    // Block 0 holds the bookkeeping and is split first.
    assert_eq!(ready(), 2);
    frames.alloc_large().unwrap();
    assert_eq!(ready(), 2);
    frames.alloc_large().unwrap();
    assert_eq!(ready(), 4, "as many again");
    frames.alloc_contiguous(3 * LARGE_FRAMES).unwrap();
    assert_eq!(ready(), 8);
    while frames.alloc_large().is_ok() {}
    assert_eq!(ready(), frames.layout.blocks);
}
