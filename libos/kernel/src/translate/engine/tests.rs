use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec::Vec;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};

use super::*;
use crate::mm::Frames;
use crate::translate::testing::{CodeFile, SLOT, Scarce};

const DELTA: u64 = 0x20_0000;

/// A function of `int3` padding, a few instructions, `mov $nr, %eax; syscall; ret`, and where the `syscall` is.
fn functions(count: usize) -> (Vec<u8>, Vec<(u64, u32)>) {
    let mut bytes = std::vec![0xcc; 64];
    let mut sites = Vec::new();
    for index in 0..count {
        bytes.resize(bytes.len().next_multiple_of(16), 0xcc);
        bytes.extend([0x55, 0x48, 0x89, 0xe5, 0x48, 0x8b, 0x7d, 0xf0]);
        bytes.extend(std::iter::repeat_n(0x90, index % 9));
        bytes.extend([0x48, 0x85, 0xff, 0x31, 0xd2, 0x4d, 0x89, 0xc2]);
        let nr = 20 + index as u32 % 300;
        if index % 3 == 0 {
            bytes.extend([0x48, 0xc7, 0xc0]);
        } else {
            bytes.push(0xb8);
        }
        bytes.extend(nr.to_le_bytes());
        sites.push((bytes.len() as u64, nr));
        bytes.extend([0x0f, 0x05, 0x5d, 0xc3]);
    }
    bytes.resize(bytes.len().next_multiple_of(4096), 0xcc);
    (bytes, sites)
}

/// A process that maps a file at `base`, its thunks [`DELTA`] further up.
struct FakeSpace {
    file: Arc<CodeFile>,
    base: u64,
    /// Pages that are not the file's own, by address.
    shown: Mutex<BTreeMap<u64, Frame>>,
    refreshes: AtomicUsize,
    has_thunks: bool,
    alone: bool,
    source: &'static Scarce,
}

impl FakeSpace {
    fn new(file: &Arc<CodeFile>, base: u64, alone: bool) -> Self {
        Self {
            file: file.clone(),
            base,
            shown: Mutex::default(),
            refreshes: AtomicUsize::new(0),
            has_thunks: true,
            alone,
            source: Scarce::new(file.frames, usize::MAX),
        }
    }

    fn frame_at(&self, page: u64) -> Option<Frame> {
        let shown = self.shown.lock().expect("no panics");
        shown.get(&page).copied().or_else(|| {
            let offset = page.checked_sub(self.base)?;
            match offset.checked_sub(DELTA) {
                // As a fault in the thunk area.
                Some(thunk) => self.file.text.thunk_page(thunk / PAGE_SIZE),
                None => self.file.pages.get((offset / PAGE_SIZE) as usize).copied(),
            }
        })
    }

    fn trap(&self, syscall: u64, nr: u32) -> Verdict {
        self.trap_of(syscall, nr, true)
    }

    fn trap_of(&self, syscall: u64, nr: u32, returns: bool) -> Verdict {
        consider(
            self,
            &Trap {
                call: Call::Syscall,
                syscall: self.base.wrapping_add(syscall),
                registers: Registers {
                    rax: u64::from(nr),
                    r8: 0,
                },
                returns,
                slot: SLOT,
            },
        )
    }

    fn instruction(&self, address: u64) -> Instruction {
        let mut bytes = [0; 16];
        for (at, byte) in bytes.iter_mut().enumerate() {
            let mut one = [0];
            if self.read(address + at as u64, &mut one) {
                *byte = one[0];
            }
        }
        Decoder::with_ip(64, &bytes, address, DecoderOptions::NONE).decode()
    }

    /// What the site with its `syscall` at this offset does now.
    fn check_translated(&self, syscall: u64, nr: u32) {
        let len = if self.file.bytes()[syscall as usize - 7] == 0x48 {
            7
        } else {
            5
        };
        let start = self.base + syscall - len;
        let jump = self.instruction(start);
        assert_eq!(jump.mnemonic(), Mnemonic::Jmp);
        let thunk = jump.near_branch_target();
        let mov = self.instruction(thunk);
        assert_eq!(
            (mov.op0_register(), mov.immediate32()),
            (iced_x86::Register::EAX, nr)
        );
        let lea = self.instruction(mov.next_ip());
        assert_eq!(lea.ip_rel_memory_address(), self.base + syscall + 2);
        let call = self.instruction(lea.next_ip());
        assert_eq!(call.memory_displacement64(), SLOT);
        let region = self.region(start).expect("code");
        for rip in thunk..call.next_ip() {
            let expected = match rip {
                _ if rip < lea.ip() => Place::At(start),
                _ if rip == lea.ip() => Place::At(self.base + syscall),
                _ => Place::Entering(self.base + syscall),
            };
            assert_eq!(place(&region, rip), Some(expected));
        }
    }
}

impl CodeSpace for FakeSpace {
    fn region(&self, address: u64) -> Option<Region> {
        let end = self.base + self.file.size_bytes();
        (self.base..end).contains(&address).then(|| Region {
            file: self.file.clone(),
            start: self.base,
            end,
            file_offset: 0,
            thunk_base: self.has_thunks.then_some(self.base + DELTA),
        })
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        for (at, byte) in bytes.iter_mut().enumerate() {
            let address = address + at as u64;
            let page = address & !(PAGE_SIZE - 1);
            let Some(frame) = self.frame_at(page) else {
                return false;
            };
            let mut one = [0];
            phys::read(frame, (address - page) as usize, &mut one);
            *byte = one[0];
        }
        true
    }

    fn refresh(&self, address: u64) {
        self.refreshes.fetch_add(1, Ordering::Relaxed);
        let page = address & !(PAGE_SIZE - 1);
        if let Some(frame) = self.file.text.patched_page((page - self.base) / PAGE_SIZE) {
            self.shown.lock().expect("no panics").insert(page, frame);
        }
    }

    fn map_thunk(&self, address: u64) {
        let page = address & !(PAGE_SIZE - 1);
        let index = (page - self.base - DELTA) / PAGE_SIZE;
        let frame = self.file.text.thunk_page(index).expect("written before");
        self.shown.lock().expect("no panics").insert(page, frame);
    }

    fn put(&self, frame: Frame) {
        self.file.frames.put(frame);
    }

    fn frames(&self) -> &'static dyn FrameSource {
        self.source
    }

    fn alone(&self) -> bool {
        self.alone
    }
}

#[test]
fn the_first_trap_patches_and_other_processes_find_it() {
    let (bytes, sites) = functions(40);
    let file = Arc::new(CodeFile::new(&bytes));
    let one = FakeSpace::new(&file, 0x5555_0000_0000, true);
    let two = FakeSpace::new(&file, 0x40_0000, true);
    for (syscall, nr) in &sites {
        let verdict = one.trap(*syscall, *nr);
        assert_eq!(verdict.reason, TrapReason::FirstUse, "{syscall:#x}");
        one.check_translated(*syscall, *nr);
        // The other process still has the file's page, or an earlier copy.
        assert_eq!(two.trap(*syscall, *nr).reason, TrapReason::Patched);
        two.check_translated(*syscall, *nr);
    }
    assert_eq!(file.bytes(), bytes, "the file is as it was");
    assert_eq!(file.text.patched_sites(), 40);
}

#[test]
fn a_restart_at_a_patched_site_changes_nothing() {
    let (bytes, sites) = functions(1);
    let file = Arc::new(CodeFile::new(&bytes));
    let space = FakeSpace::new(&file, 0x40_0000, true);
    let (syscall, nr) = sites[0];
    assert_eq!(space.trap(syscall, nr).reason, TrapReason::FirstUse);
    let refreshes = space.refreshes.load(Ordering::Relaxed);
    let asked = file.asked.load(Ordering::Relaxed);
    for _ in 0..10 {
        assert_eq!(space.trap(syscall, nr).reason, TrapReason::Patched);
    }
    assert_eq!(space.refreshes.load(Ordering::Relaxed), refreshes);
    assert_eq!(file.asked.load(Ordering::Relaxed), asked);
}

/// `xor %eax, %eax; syscall; cmp $-4096, %rax; ja; ret`, as glibc's read.
const READ: [u8; 14] = [
    0x31, 0xc0, 0x0f, 0x05, 0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0x77, 0x01, 0xc3, 0xc3,
];

fn file_with(at: usize, code: &[u8]) -> Arc<CodeFile> {
    let mut bytes = std::vec![0x90; 3 * 4096];
    bytes[at..at + code.len()].copy_from_slice(code);
    Arc::new(CodeFile::new(&bytes))
}

#[test]
fn a_syscall_and_what_follows_move_into_a_thunk() {
    for alone in [true, false] {
        for low in [0, 3, 5, 6, 29] {
            let start = 0x1100 + low;
            let file = file_with(start as usize, &READ);
            let space = FakeSpace::new(&file, 0x40_0000, alone);
            let syscall = start + 2;
            let verdict = space.trap(syscall, 0);
            assert_eq!(verdict.reason, TrapReason::FirstUse);
            let region = verdict.region.expect("code");

            let site = space.base + syscall;
            let jump = space.instruction(site);
            assert_eq!(jump.mnemonic(), Mnemonic::Jmp);
            let lea = space.instruction(jump.near_branch_target());
            let call = space.instruction(lea.next_ip());
            assert_eq!(call.memory_displacement64(), SLOT);
            let rcx = space.instruction(call.next_ip());
            assert_eq!(rcx.ip(), lea.ip_rel_memory_address());
            assert_eq!(rcx.ip_rel_memory_address(), site + 2);
            let cmp = space.instruction(rcx.next_ip());
            assert_eq!(cmp.mnemonic(), Mnemonic::Cmp);
            let back = space.instruction(cmp.next_ip());
            assert_eq!(back.near_branch_target(), site + 8);

            // The trap itself goes on at the displaced instruction; so does whoever jumps there.
            assert_eq!(verdict.resume, Some(cmp.ip()));
            let middle = space.instruction(site + 2);
            assert_eq!(middle.mnemonic(), Mnemonic::INVALID);
            assert_eq!(resume(&region, site + 2), Some(cmp.ip()));
            for other in [site, site + 1, site + 3, site + 4, site + 5, site + 8] {
                assert_eq!(resume(&region, other), None);
            }
            for (rip, expected) in [
                (lea.ip(), Place::At(site)),
                (call.ip(), Place::Entering(site)),
                (rcx.ip(), Place::Returned(site + 2)),
                (cmp.ip(), Place::At(site + 2)),
                (back.ip(), Place::At(site + 8)),
            ] {
                assert_eq!(place(&region, rip), Some(expected));
            }
            for (rip, extra) in [
                (lea.ip(), true),
                (call.ip(), true),
                (cmp.ip(), true),
                (back.ip(), false),
            ] {
                assert_eq!(is_extra_step(&region, rip), extra);
            }
            // Another process traps, sees it, and goes on in its own thunk.
            let other = FakeSpace::new(&file, 0x80_0000, alone);
            let verdict = other.trap(syscall, 0);
            assert_eq!(verdict.reason, TrapReason::Patched);
            assert_eq!(verdict.resume, Some(cmp.ip() + 0x40_0000));
        }
    }
}

#[test]
fn a_site_that_is_often_entered_in_the_middle_is_given_up() {
    let file = file_with(0x1102, &READ[2..]);
    let mut before = std::vec![0xcc; 64];
    before.extend([0x55, 0x48, 0x89, 0xe5, 0x4c, 0x8b, 0x4c, 0x24, 0x08]);
    for from_further in [false, true] {
        let file = if from_further {
            let mut bytes = std::vec![0x90; 3 * 4096];
            bytes[0x1102 - before.len()..0x1102].copy_from_slice(&before);
            bytes[0x1102..][..12].copy_from_slice(&READ[2..]);
            Arc::new(CodeFile::new(&bytes))
        } else {
            file.clone()
        };
        let space = FakeSpace::new(&file, 0x40_0000, true);
        let verdict = space.trap(0x1102, 0);
        assert_eq!(verdict.reason, TrapReason::FirstUse);
        let region = verdict.region.expect("code");
        for _ in 0..7 {
            assert_eq!(enter(&space, &region, 0x40_1104), verdict.resume);
        }
        assert_eq!(space.instruction(0x40_1102).mnemonic(), Mnemonic::Jmp);
        assert_eq!(
            enter(&space, &region, 0x40_1104),
            verdict.resume,
            "once more"
        );
        let mut bytes = [0; 10];
        assert!(space.read(0x40_1102, &mut bytes));
        assert_eq!(bytes, READ[2..12], "as it was");
        assert_eq!(enter(&space, &region, 0x40_1104), None, "a genuine fault");
        // Threads may still be in the thunk.
        let resumed = verdict.resume.expect("displaced");
        assert_eq!(place(&region, resumed), Some(Place::At(0x40_1104)));
        // It traps, and another pattern takes it if there is one.
        let again = space.trap(0x1102, 0);
        if from_further {
            assert_eq!(again.reason, TrapReason::FirstUse);
            assert_eq!(space.instruction(0x40_1102 - 5).mnemonic(), Mnemonic::Jmp);
        } else {
            assert_eq!(again.reason, TrapReason::Enterable);
        }
        assert_eq!(again.resume, None);
    }
}

#[test]
fn what_follows_a_call_that_does_not_come_back_stays_where_it_is() {
    // syscall; mov %rax, %rdi; ret: perhaps data.
    let file = file_with(0x1100, &[0x0f, 0x05, 0x48, 0x89, 0xc7, 0xc3]);
    let space = FakeSpace::new(&file, 0x40_0000, true);
    let exit = space.trap_of(0x1100, 60, false);
    assert_eq!(exit.reason, TrapReason::NoPattern);
    assert_eq!(file.text.patched_sites(), 0);
    // Another call from there comes back.
    assert_eq!(space.trap(0x1100, 39).reason, TrapReason::FirstUse);

    let file = file_with(0x1100, &READ[2..]);
    let space = FakeSpace::new(&file, 0x40_0000, true);
    let exit = space.trap_of(0x1100, 231, false);
    assert_eq!(exit.reason, TrapReason::FirstUse, "the usual test follows");
}

#[test]
fn many_sites_of_one_file_find_places_for_their_thunks() {
    let mut bytes = std::vec![0x90; 0x4000];
    let sites: Vec<u64> = (0..200).map(|index| 0x40 + index * 0x48).collect();
    for site in &sites {
        bytes[*site as usize..][..READ.len()].copy_from_slice(&READ);
    }
    let file = Arc::new(CodeFile::new(&bytes));
    let space = FakeSpace::new(&file, 0x40_0000, true);
    let mut patched = 0;
    for site in &sites {
        match space.trap(site + 2, 0).reason {
            TrapReason::FirstUse => patched += 1,
            TrapReason::TwoPages => {}
            other => panic!("{other:?}"),
        }
        let middle = space.instruction(space.base + site + 4);
        assert_ne!(middle.mnemonic(), Mnemonic::Jmp);
    }
    assert!(patched >= 190, "{patched}");
    assert!(file.text.thunk_pages().len() <= 4, "close together");
}

#[test]
fn an_instruction_before_the_syscall_will_do() {
    // mov 8(%rsp), %r9; syscall; ret
    let code = [0x4c, 0x8b, 0x4c, 0x24, 0x08, 0x0f, 0x05, 0xc3];
    let file = file_with(0x1100, &code);
    let space = FakeSpace::new(&file, 0x40_0000, true);
    let verdict = space.trap(0x1105, 39);
    assert_eq!(verdict.reason, TrapReason::FirstUse);
    assert_eq!(verdict.resume, None, "nothing behind it has changed");
    let jump = space.instruction(0x40_1100);
    let mov = space.instruction(jump.near_branch_target());
    assert_eq!(mov.op0_register(), iced_x86::Register::R9);
    let lea = space.instruction(mov.next_ip());
    assert_eq!(lea.ip_rel_memory_address(), 0x40_1107);
    let mut bytes = [0; 2];
    assert!(space.read(0x40_1105, &mut bytes));
    assert_eq!(bytes, [0x0f, 0x05]);
    let region = verdict.region.expect("code");
    assert_eq!(place(&region, mov.ip()), Some(Place::At(0x40_1100)));
    assert_eq!(place(&region, lea.ip()), Some(Place::At(0x40_1105)));
}

#[test]
fn refusals_are_looked_at_once() {
    // syscall; ret with the number from elsewhere.
    let mut bytes = std::vec![0x90; 4096];
    bytes[0x100..0x103].copy_from_slice(&[0x0f, 0x05, 0xc3]);
    // jmp 1f; .byte 0x83; 1: movl $39, -0x48(%rbp); syscall; ret
    bytes[0x200..0x20d].copy_from_slice(&[
        0xeb, 0x01, 0x83, 0xc7, 0x45, 0xb8, 0x27, 0, 0, 0, 0x0f, 0x05, 0xc3,
    ]);
    // syscall; test %eax, %eax; js
    bytes[0x300..0x306].copy_from_slice(&[0x0f, 0x05, 0x85, 0xc0, 0x78, 0x05]);
    bytes[0x400..0x407].copy_from_slice(&[0xb8, 15, 0, 0, 0, 0x0f, 0x05]);
    let file = Arc::new(CodeFile::new(&bytes));
    let space = FakeSpace::new(&file, 0x40_0000, true);
    for (syscall, nr, reason) in [
        (0x100, 39, TrapReason::NoPattern),
        (0x20a, 39, TrapReason::Ambiguous),
        (0x300, 39, TrapReason::Enterable),
        (0x405, 15, TrapReason::Restorer),
    ] {
        assert_eq!(space.trap(syscall, nr).reason, reason);
        let asked = file.asked.load(Ordering::Relaxed);
        for _ in 0..5 {
            assert_eq!(space.trap(syscall, nr).reason, reason);
        }
        assert_eq!(file.asked.load(Ordering::Relaxed), asked);
    }
    assert_eq!(file.text.patched_sites(), 0);
}

#[test]
fn a_mapping_without_thunks_is_left_alone_and_says_nothing_of_others() {
    let (bytes, sites) = functions(1);
    let file = Arc::new(CodeFile::new(&bytes));
    let mut without = FakeSpace::new(&file, 0x40_0000, true);
    without.has_thunks = false;
    let (syscall, nr) = sites[0];
    assert_eq!(without.trap(syscall, nr).reason, TrapReason::NoThunkArea);
    let with = FakeSpace::new(&file, 0x80_0000, true);
    assert_eq!(with.trap(syscall, nr).reason, TrapReason::FirstUse);
    assert_eq!(without.trap(syscall, nr).reason, TrapReason::NoThunkArea);
    assert_eq!(without.refreshes.load(Ordering::Relaxed), 0);

    // Thunks at another distance than the file's first mapping had.
    let elsewhere = CodeFile::new(&bytes);
    elsewhere.text.delta.call_once(|| 0x30_0000);
    let space = FakeSpace::new(&Arc::new(elsewhere), 0x40_0000, true);
    assert_eq!(space.trap(syscall, nr).reason, TrapReason::NoThunkArea);
}

#[test]
fn code_outside_files_is_not_touched() {
    let (bytes, _) = functions(1);
    let space = FakeSpace::new(&Arc::new(CodeFile::new(&bytes)), 0x40_0000, true);
    for address in [0u64, 1, 0x3f_ffff, 0x1000_0000, u64::MAX - 1] {
        let verdict = space.trap(address.wrapping_sub(0x40_0000), 39);
        assert_eq!(verdict.reason, TrapReason::NotFileText);
        assert!(verdict.region.is_none());
    }
}

#[test]
fn code_the_process_changed_is_not_patched_for_it() {
    let (bytes, sites) = functions(2);
    let file = Arc::new(CodeFile::new(&bytes));
    let space = FakeSpace::new(&file, 0x40_0000, true);
    let (syscall, nr) = sites[1];
    let own = Frames::alloc_zeroed(file.frames).expect("memory");
    phys::copy_frames(file.pages[0], own, 1);
    phys::write(own, syscall as usize - 4, &[0x28, 0, 0, 0]);
    let page = 0x40_0000;
    space.shown.lock().expect("no panics").insert(page, own);
    assert_eq!(space.trap(syscall, nr).reason, TrapReason::ModifiedCode);
    assert_eq!(space.trap(syscall, 40).reason, TrapReason::Ambiguous);
    let other = FakeSpace::new(&file, 0x80_0000, true);
    assert_eq!(file.text.patched_sites(), 0);
    let (syscall, nr) = sites[0];
    assert_eq!(other.trap(syscall, nr).reason, TrapReason::FirstUse);
}

#[test]
fn frames_of_the_file_are_given_back() {
    let (bytes, sites) = functions(60);
    let file = Arc::new(CodeFile::new(&bytes));
    let space = FakeSpace::new(&file, 0x40_0000, true);
    for (syscall, nr) in &sites {
        space.trap(*syscall, *nr);
    }
    for frame in &file.pages {
        assert_eq!(file.frames.count(*frame), 1);
    }
}

#[test]
fn many_processes_on_many_cpus_patch_one_file() {
    let (bytes, sites) = functions(400);
    let file = Arc::new(CodeFile::new(&bytes));
    let spaces: Vec<_> = (0..6)
        .map(|index| FakeSpace::new(&file, 0x5555_0000_0000 + index * 0x1000_0000, false))
        .collect();
    let first_uses = AtomicUsize::new(0);
    let refused = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = spaces
            .iter()
            .enumerate()
            .map(|(index, space)| {
                let (sites, first_uses, refused) = (&sites, &first_uses, &refused);
                scope.spawn(move || {
                    for step in 0..sites.len() {
                        let (syscall, nr) = sites[(step * 7 + index * 61) % sites.len()];
                        match space.trap(syscall, nr).reason {
                            TrapReason::FirstUse => {
                                first_uses.fetch_add(1, Ordering::Relaxed);
                                space.check_translated(syscall, nr);
                            }
                            TrapReason::Patched => space.check_translated(syscall, nr),
                            TrapReason::TwoPages | TrapReason::NotAtomic => {
                                refused.fetch_add(1, Ordering::Relaxed);
                            }
                            reason => panic!("{reason:?} at {syscall:#x}"),
                        }
                    }
                })
            })
            .collect();
        // Whatever copy a process may have: each word of it is wholly old or wholly new.
        while !workers.iter().all(|worker| worker.is_finished()) {
            for index in 0..file.pages.len() {
                let Some(copy) = file.text.patched_page(index as u64) else {
                    continue;
                };
                for (syscall, _) in &sites {
                    check_not_torn(&file, copy, index as u64, *syscall);
                }
            }
        }
    });
    let patched = file.text.patched_sites();
    assert_eq!(first_uses.load(Ordering::Relaxed), patched);
    assert_eq!(
        refused.load(Ordering::Relaxed),
        (400 - patched) * spaces.len()
    );
    assert!(patched > 250, "{patched}");
    assert_eq!(file.bytes(), bytes);
}

/// A site that lies in one word of the copy is the load or a jump into the thunk area.
fn check_not_torn(file: &CodeFile, copy: Frame, index: u64, syscall: u64) {
    let start = syscall - 5;
    if start / PAGE_SIZE != index || start / 8 != (start + 4) / 8 {
        return;
    }
    let at = (start % PAGE_SIZE) as usize;
    let word = phys::load_u64(copy, at / 8 * 8).to_le_bytes();
    let seen = &word[at % 8..][..5];
    let mut original = [0; 5];
    phys::read(file.pages[index as usize], at, &mut original);
    if original[0] == 0xb8 && seen != original {
        let jump = Decoder::with_ip(64, seen, start, DecoderOptions::NONE).decode();
        assert_eq!(jump.mnemonic(), Mnemonic::Jmp, "{seen:02x?}");
        let target = jump.near_branch_target() - DELTA;
        assert!(target < 1 << 16 && target.is_multiple_of(32), "{seen:02x?}");
    }
}
