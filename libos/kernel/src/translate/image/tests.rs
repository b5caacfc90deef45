use std::sync::atomic::Ordering;
use std::vec::Vec;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};

use super::*;
use crate::translate::testing::{CodeFile, SLOT, Scarce, read_pages};
use crate::translate::thunk::THUNK_ALIGN;

const DELTA: i64 = -0x10_0000;
const AREA: u64 = 64 << 10;
const MOV: [u8; 5] = [0xb8, 0x27, 0, 0, 0];
const MOV_LONG: [u8; 7] = [0x48, 0xc7, 0xc0, 0x27, 0, 0, 0];

/// A file of `int3` with `load; syscall` at each offset.
fn file(sites: &[(u64, &[u8])], delta: i64) -> CodeFile {
    let mut bytes = std::vec![0xcc; 3 * 4096];
    for (start, load) in sites {
        let at = *start as usize;
        bytes[at..at + load.len()].copy_from_slice(load);
        bytes[at + load.len()..at + load.len() + 2].copy_from_slice(&[0x0f, 0x05]);
    }
    let file = CodeFile::new(&bytes);
    file.text.delta.call_once(|| delta);
    file
}

fn patch(file: &CodeFile, start: u64, load: &[u8], alone: bool) -> Result<u64, TrapReason> {
    let source = Scarce::new(file.frames, usize::MAX);
    patch_from(file, start, load, alone, AREA, source)
}

fn patch_from(
    file: &CodeFile,
    start: u64,
    load: &[u8],
    alone: bool,
    area: u64,
    source: &'static Scarce,
) -> Result<u64, TrapReason> {
    let site = Site {
        kind: Kind::Load { nr: 39 },
        call: Call::Syscall,
        start,
        code: load,
        slot: SLOT,
        page: file.pages[(start / 4096) as usize],
        alone,
    };
    file.text
        .patch(&site, area, source)
        .map(|patched| patched.thunk)
}

fn fill(file: &CodeFile, index: u64, frame: Frame) {
    phys::copy_frames(file.pages[index as usize], frame, 1);
}

fn changed(file: &CodeFile, pages: Range<u64>) {
    file.text
        .file_changed(pages, |index, frame| fill(file, index, frame));
}

/// The file as a process sees it.
fn seen(file: &CodeFile) -> Vec<u8> {
    let pages: Vec<_> = (0..file.pages.len())
        .map(|index| {
            file.text
                .patched_page(index as u64)
                .unwrap_or(file.pages[index])
        })
        .collect();
    read_pages(&pages)
}

fn decode_at(bytes: &[u8], at: u64) -> Instruction {
    Decoder::with_ip(64, bytes, at, DecoderOptions::NONE).decode()
}

/// The site jumps to its thunk, the thunk loads the number and returns behind the `syscall`, nothing else changed.
fn check(file: &CodeFile, start: u64, load: &[u8], thunk: u64) {
    let (original, seen) = (file.bytes(), seen(file));
    let jump = decode_at(&seen[start as usize..], start);
    let thunk_position = file.text.delta.get().expect("set") + thunk as i64;
    assert_eq!(jump.mnemonic(), Mnemonic::Jmp);
    assert_eq!(jump.near_branch_target(), thunk_position as u64);
    let end = start as usize + load.len();
    assert_eq!(&seen[end..end + 2], &[0x0f, 0x05]);
    assert_eq!(
        &original[start as usize..end],
        load,
        "the file is as it was"
    );

    let frame = file.text.thunk_page(thunk / 4096).expect("there");
    let mut code = [0; 19];
    phys::read(frame, (thunk % 4096) as usize, &mut code);
    let mov = decode_at(&code, 0);
    assert_eq!((mov.mnemonic(), mov.immediate32()), (Mnemonic::Mov, 39));
    let lea = decode_at(&code[5..], thunk_position as u64 + 5);
    assert_eq!(lea.ip_rel_memory_address(), end as u64 + 2);
    assert_eq!(decode_at(&code[12..], 0).memory_displacement64(), SLOT);
    for at in 0..5 {
        assert_eq!(file.text.place(thunk + at), Some(Place::At(start)));
    }
    assert_eq!(file.text.place(thunk + 5), Some(Place::At(end as u64)));
    for at in 6..19 {
        let entering = Some(Place::Entering(end as u64));
        assert_eq!(file.text.place(thunk + at), entering);
    }
    assert_eq!(
        file.text.known(start + load.len() as u64),
        Some(Known::Patched { start, thunk })
    );
}

fn loads() -> [&'static [u8]; 2] {
    [&MOV, &MOV_LONG]
}

#[test]
fn a_first_patch_makes_a_copy_at_every_alignment() {
    for load in loads() {
        for low in 0..8 {
            for alone in [true, false] {
                let start = 0x1100 + low;
                let file = file(&[(start, load)], DELTA);
                assert_eq!(file.text.patched_page(1), None);
                assert_eq!(file.text.known(start + load.len() as u64), None);
                let thunk = patch(&file, start, load, alone).expect("patched");
                check(&file, start, load, thunk);
                let (original, seen) = (file.bytes(), seen(&file));
                for at in 0..original.len() {
                    let inside = (start..start + load.len() as u64).contains(&(at as u64));
                    assert!(inside || original[at] == seen[at], "{at:#x} changed");
                }
                assert_eq!(file.text.patched_page(0), None);
                assert_eq!(file.text.patched_page(2), None);
            }
        }
    }
}

#[test]
fn a_mapped_copy_changes_by_one_store_or_while_alone_or_is_replaced() {
    for load in loads() {
        for low in 0..8 {
            for alone in [true, false] {
                let sites = [(0x1100, load), (0x1200 + low, load)];
                let file = file(&sites, DELTA);
                let first = patch(&file, 0x1100, load, alone).expect("patched");
                let copy = file.text.patched_page(1).expect("a copy");
                let second = patch(&file, 0x1200 + low, load, alone).expect("patched");
                check(&file, 0x1100, load, first);
                check(&file, 0x1200 + low, load, second);
                // Only the bytes that differ count, and some may be equal by chance.
                let (old, new) = (file.bytes(), seen(&file));
                let from = (0x1200 + low) as usize;
                let differ = |at: &usize| old[*at] != new[*at];
                let first = (from..from + load.len()).find(differ).expect("changed");
                let last = (from..from + load.len()).rfind(differ).expect("changed");
                let one_store = first / 8 == last / 8;
                let in_place = file.text.patched_page(1) == Some(copy);
                assert_eq!(in_place, alone || one_store, "low {low}");
                if !in_place {
                    // Who still has the old copy has the first site patched and the second not.
                    let mut page = [0; 4096];
                    phys::read(copy, 0, &mut page);
                    assert_eq!(page[0x100], 0xe9);
                    assert_eq!(&page[0x200 + low as usize..][..load.len()], load);
                }
            }
        }
    }
}

#[test]
fn bytes_on_two_pages_are_refused_unless_those_of_the_second_stay() {
    for delta in [DELTA, 0x2_0000] {
        for load in loads() {
            for before in 1..load.len() as u64 {
                let start = 0x2000 - before;
                let file = file(&[(start, load)], delta);
                let result = patch(&file, start, load, true);
                // A distance of less than 16 MiB upwards ends in 0, as the number does.
                if load.len() == 5 && before == 4 && delta > 0 {
                    check(&file, start, load, result.expect("patched"));
                    assert_eq!(file.text.patched_page(2), None);
                } else {
                    assert_eq!(result, Err(TrapReason::TwoPages), "{before} of {load:x?}");
                    assert_eq!(seen(&file), file.bytes());
                    assert_eq!(file.text.patched_sites(), 0);
                }
            }
            // The load ends with its page, the `syscall` lies on the next: no such case.
            let start = 0x2000 - load.len() as u64;
            let file = file(&[(start, load)], delta);
            let thunk = patch(&file, start, load, true).expect("patched");
            check(&file, start, load, thunk);
        }
    }
}

#[test]
fn frames_go_back_with_the_image() {
    let sites: Vec<_> = (0..40).map(|at| (0x40 + at * 0x103, &MOV[..])).collect();
    let file = file(&sites, DELTA);
    let source = Scarce::new(file.frames, usize::MAX);
    for (start, load) in &sites {
        let result = patch_from(&file, *start, load, false, AREA, source);
        assert!(matches!(result, Ok(_) | Err(TrapReason::TwoPages)));
    }
    assert!(source.out.load(Ordering::Relaxed) >= 4);
    drop(file);
    assert_eq!(source.out.load(Ordering::Relaxed), 0);
}

#[test]
fn without_memory_nothing_changes() {
    for left in 0..2 {
        let file = file(&[(0x1100, &MOV)], DELTA);
        let source = Scarce::new(file.frames, left);
        let result = patch_from(&file, 0x1100, &MOV, true, AREA, source);
        assert_eq!(result, Err(TrapReason::NoMemory));
        assert_eq!(source.out.load(Ordering::Relaxed), 0, "given back");
        assert_eq!(file.text.patched_page(1), None);
        assert_eq!(file.text.thunk_page(0), None);
        assert_eq!(file.text.known(0x1105), None);
        // And later it works.
        let thunk = patch(&file, 0x1100, &MOV, true).expect("patched");
        check(&file, 0x1100, &MOV, thunk);
    }
}

#[test]
fn a_full_thunk_area_is_refused() {
    let sites: Vec<_> = (0..200).map(|at| (0x10 + at * 0x20, &MOV[..])).collect();
    let file = file(&sites, DELTA);
    let source = Scarce::new(file.frames, usize::MAX);
    let mut full = 0;
    for (index, (start, load)) in sites.iter().enumerate() {
        match patch_from(&file, *start, load, true, 4096, source) {
            Ok(thunk) => {
                assert_eq!(thunk, index as u64 * THUNK_ALIGN);
                assert!(thunk + 19 <= 4096);
            }
            Err(reason) => {
                assert_eq!(reason, TrapReason::ThunksFull);
                full += 1;
            }
        }
    }
    assert_eq!(full, 200 - 128);
}

#[test]
fn what_is_too_far_or_has_no_place_is_refused() {
    for delta in [(1 << 31) + 0x2000, -(1 << 31) - 0x1000, 1 << 40] {
        let file = file(&[(0x1100, &MOV)], delta);
        let result = patch(&file, 0x1100, &MOV, true);
        assert_eq!(result, Err(TrapReason::NoThunkArea));
    }
    let file = CodeFile::new(&[0xcc; 4096]);
    assert_eq!(
        patch(&file, 0x100, &MOV, true),
        Err(TrapReason::NoThunkArea),
        "no mapping has said where"
    );
}

#[test]
fn a_patched_site_is_not_patched_again() {
    let file = file(&[(0x1100, &MOV)], DELTA);
    let thunk = patch(&file, 0x1100, &MOV, true).expect("patched");
    let copy = file.text.patched_page(1);
    assert_eq!(patch(&file, 0x1100, &MOV, true), Ok(thunk));
    assert_eq!(file.text.patched_page(1), copy);
    assert_eq!(file.text.patched_sites(), 1);
}

#[test]
fn a_page_that_was_written_to_is_judged_and_patched_anew() {
    let sites = [(0x1100, &MOV[..]), (0x2800, &MOV[..])];
    let file = file(&sites, DELTA);
    changed(&file, 0..3);
    let old = patch(&file, 0x1100, &MOV, true).expect("patched");
    let other = patch(&file, 0x2800, &MOV, true).expect("patched");
    file.text.refuse(0x1200, TrapReason::NoPattern);
    file.text.refuse(0x2200, TrapReason::NoPattern);

    let mapped = file.text.patched_page(1).expect("a copy");
    // The page gets other code, with a site elsewhere.
    phys::zero(file.pages[1], 0, 4096);
    phys::write(file.pages[1], 0x300, &[0xb8, 0x27, 0, 0, 0, 0x0f, 0x05]);
    changed(&file, 0..1);
    assert_eq!(file.text.patched_page(1), None, "its neighbour too");
    let mut page = [0; 4096];
    phys::read(mapped, 0, &mut page);
    assert_eq!(page[..], file.bytes()[4096..8192], "who maps it sees it");
    assert_eq!(file.text.known(0x1105), None);
    assert_eq!(file.text.known(0x1200), None);
    assert!(file.text.known(0x2200).is_some());
    check(&file, 0x2800, &MOV, other);
    assert_eq!(
        file.text.place(old),
        Some(Place::At(0x1100)),
        "threads may be in it"
    );

    assert_eq!(
        patch(&file, 0x1100, &MOV, true),
        Err(TrapReason::FileChanged),
        "these bytes are there no more"
    );
    let new = patch(&file, 0x1300, &MOV, true).expect("patched");
    assert_ne!(new, old);
    check(&file, 0x1300, &MOV, new);
    assert_eq!(file.text.resume(0x1100), None);
}

#[test]
fn a_file_that_may_change_unseen_is_left_alone() {
    let sites = [(0x1100, &MOV[..]), (0x40, &MOV[..])];
    let file = file(&sites, DELTA);
    let thunk = patch(&file, 0x1100, &MOV, true).expect("patched");
    file.text
        .file_may_change(|index, frame| fill(&file, index, frame));
    assert_eq!(file.text.patched_page(1), None);
    assert_eq!(file.text.place(thunk), Some(Place::At(0x1100)));
    for start in [0x1100, 0x40] {
        assert_eq!(
            patch(&file, start, &MOV, true),
            Err(TrapReason::FileChanged)
        );
    }
}

#[test]
fn changing_and_running_in_turns_costs_bounded_memory() {
    let file = file(&[(0x1100, &MOV)], DELTA);
    let source = Scarce::new(file.frames, usize::MAX);
    for _ in 0..4 * MAX_RETIRED {
        let _ = patch_from(&file, 0x1100, &MOV, true, AREA, source);
        changed(&file, 1..2);
    }
    let thunks = MAX_RETIRED as u64 * THUNK_ALIGN / 4096 + 1;
    assert!(source.out.load(Ordering::Relaxed) as u64 <= MAX_RETIRED as u64 + thunks);
}

#[test]
fn replaced_copies_are_bounded() {
    // Every site lies over the end of an 8-byte word.
    let sites: Vec<_> = (0..80).map(|at| (0x1006 + at * 0x18, &MOV[..])).collect();
    let file = file(&sites, DELTA);
    let mut refused = 0;
    for (start, load) in &sites {
        match patch(&file, *start, load, false) {
            Ok(thunk) => check(&file, *start, load, thunk),
            Err(reason) => {
                assert_eq!(reason, TrapReason::NotAtomic);
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 80 - MAX_RETIRED - 1);
    let (start, load) = sites[79];
    assert!(
        patch(&file, start, load, true).is_ok(),
        "alone it can be done"
    );
}

#[test]
fn refusals_are_remembered_up_to_a_bound() {
    let file = file(&[], DELTA);
    file.text.refuse(0x10, TrapReason::NoPattern);
    assert_eq!(
        file.text.known(0x10),
        Some(Known::Refused(TrapReason::NoPattern))
    );
    for offset in 0..2 * MAX_REFUSED as u64 {
        file.text.refuse(offset, TrapReason::Ambiguous);
    }
    assert_eq!(file.text.known(2 * MAX_REFUSED as u64 - 1), None);
}

#[test]
fn the_thunk_area_keeps_its_size() {
    let image = TextImage::default();
    assert_eq!(TextImage::thunk_area_bytes(0), 64 << 10);
    assert_eq!(TextImage::thunk_area_bytes(2_000_003), 126_976);
    assert_eq!(TextImage::thunk_area_bytes(u64::MAX), 4 << 20);
    assert_eq!(image.area_bytes(2_000_003), 126_976);
    assert_eq!(image.area_bytes(1 << 30), 126_976);
}
