use std::vec::Vec;

use super::*;

/// What precedes a case: code in which any chain finds the program's instructions.
const COMPILED: &[u8] = &[
    0x55, // push %rbp
    0x48, 0x89, 0xe5, // mov %rsp, %rbp
    0x48, 0x83, 0xec, 0x20, // sub $0x20, %rsp
    0x89, 0x7d, 0xec, // mov %edi, -0x14(%rbp)
    0x48, 0x8b, 0x45, 0xf0, // mov -0x10(%rbp), %rax
    0x48, 0x85, 0xc0, // test %rax, %rax
    0x74, 0x0c, // je
    0xe8, 0x10, 0x20, 0x00, 0x00, // call
    0x48, 0x8d, 0x35, 0x00, 0x10, 0x00, 0x00, // lea 0x1000(%rip), %rsi
    0x31, 0xd2, // xor %edx, %edx
    0x41, 0x89, 0xc4, // mov %eax, %r12d
    0x48, 0x8b, 0x7d, 0xe0, // mov -0x20(%rbp), %rdi
    0x4c, 0x8d, 0x44, 0x24, 0x10, // lea 0x10(%rsp), %r8
    0x48, 0x01, 0xd6, // add %rdx, %rsi
    0x48, 0x39, 0xf7, // cmp %rsi, %rdi
    0x0f, 0x97, 0xc2, // seta %dl
    0x4d, 0x89, 0xc2, // mov %r8, %r10
    0x5b, // pop %rbx
];
/// A function that ends, and padding as GNU as makes it.
const FUNCTION_END: &[u8] = &[
    0x48, 0x8b, 0x45, 0xf0, 0x48, 0x85, 0xc0, 0x74, 0x05, 0xe8, 0x10, 0x20, 0x00, 0x00, 0x48, 0x83,
    0xc4, 0x18, 0x5b, 0x5d, 0x41, 0x5c, 0x41, 0x5d, 0x41, 0x5e, 0x41, 0x5f, 0xc3, 0x66, 0x2e, 0x0f,
    0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00, 0x48, 0x83, 0xec, 0x08, 0xe8, 0x10, 0x20, 0x00, 0x00,
    0x48, 0x83, 0xc4, 0x08, 0xc3, 0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00,
];
/// What follows a case unless it says itself: `ret`.
const RET: &[u8] = &[0xc3, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90];

/// What stands before a hostile case.
fn fillers() -> Vec<Vec<u8>> {
    let mut fillers: Vec<Vec<u8>> = [0x90u8, 0x00, 0xcc, 0xc3, 0x48, 0x66, 0x0f, 0xff, 0xb8]
        .iter()
        .map(|byte| std::vec![*byte; BEFORE])
        .collect();
    fillers.push(COMPILED.to_vec());
    fillers.push(FUNCTION_END.to_vec());
    fillers.push([0x0f, 0x1f, 0x44, 0x00, 0x00].repeat(13));
    fillers.push([0xb8, 0x27, 0x00, 0x00, 0x00].repeat(13));
    fillers.push([0xb8, 0x27, 0x00, 0x00, 0x00, 0x0f, 0x05].repeat(10));
    fillers
}

/// `before`, then `code` up to its end, then a `syscall` and `after`, at an address whose last bits are `low`.
fn site_at(before: &[u8], code: &[u8], after: &[u8], registers: Registers, low: u64) -> Site {
    let mut bytes = before.to_vec();
    bytes.extend(code);
    let from = bytes.len().saturating_sub(BEFORE);
    let mut bytes = bytes.split_off(from);
    let syscall = bytes.len();
    bytes.extend([0x0f, 0x05]);
    bytes.extend(after);
    let text = Text {
        bytes: &bytes,
        syscall,
        address: 0x55_5555_4000 + low,
    };
    classify(&text, &registers)
}

fn site(before: &[u8], code: &[u8], registers: Registers) -> Site {
    site_at(before, code, RET, registers, 0)
}

fn rax(rax: u64) -> Registers {
    Registers { rax, r8: 0x1234 }
}

#[test]
fn loads_of_the_number_are_accepted() {
    let cases: [(&[u8], u64, u8); 12] = [
        (&[0xb8, 0x27, 0, 0, 0], 39, 5),
        (&[0xb8, 0, 0, 0, 0], 0, 5),
        (&[0xb8, 1, 0, 0, 0], 1, 5),
        (&[0xb8, 0xe7, 0, 0, 0], 231, 5),
        (&[0xb8, 0x10, 1, 0, 0], 272, 5),
        (&[0xb8, 0xb8, 1, 0, 0], 440, 5),
        (&[0x48, 0xc7, 0xc0, 0x27, 0, 0, 0], 39, 7),
        (&[0x48, 0xc7, 0xc0, 0xe7, 0, 0, 0], 231, 7),
        // xor %edi, %edi; mov
        (&[0x31, 0xff, 0xb8, 0x3c, 0, 0, 0], 60, 5),
        // mov %rcx, %r10; mov
        (&[0x49, 0x89, 0xca, 0xb8, 0x09, 0, 0, 0], 9, 5),
        // mov $0x27, %r8d; mov: the former is no part of it
        (&[0x41, 0xb8, 0x27, 0, 0, 0, 0xb8, 0x0e, 0, 0, 0], 14, 5),
        // endbr64; mov
        (&[0xf3, 0x0f, 0x1e, 0xfa, 0xb8, 0x27, 0, 0, 0], 39, 5),
    ];
    for (code, nr, len) in cases {
        for before in [COMPILED, FUNCTION_END] {
            for low in 0..16 {
                assert_eq!(
                    site_at(before, code, RET, rax(nr), low),
                    Site::Pattern1 { nr: nr as u32, len },
                    "{code:02x?} at {low}"
                );
            }
        }
    }
}

#[test]
fn glibc_s_forms_are_accepted() {
    // getpid after padding; what follows is the next function.
    let next = [0xc3, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00, 0x90];
    let found = site_at(FUNCTION_END, &[0xb8, 0x27, 0, 0, 0], &next, rax(39), 0);
    assert_eq!(found, Site::Pattern1 { nr: 39, len: 5 });
    // close: cmp $-4096, %rax; ja; ret
    let next = [0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0x77, 0x3e, 0xc3, 0x90];
    let found = site_at(COMPILED, &[0xb8, 0x03, 0, 0, 0], &next, rax(3), 0);
    assert_eq!(found, Site::Pattern1 { nr: 3, len: 5 });
    // A retry loop back to the load.
    let next = [0x48, 0x83, 0xf8, 0xfc, 0x74, 0xf3, 0xc3];
    let found = site_at(COMPILED, &[0xb8, 0x3d, 0, 0, 0], &next, rax(61), 0);
    assert_eq!(found, Site::Pattern1 { nr: 61, len: 5 });
    // A retry loop straight to the syscall: it goes on to trap there.
    let next = [0x48, 0x83, 0xf8, 0xfc, 0x74, 0xf8, 0xc3];
    let found = site_at(COMPILED, &[0xb8, 0x3d, 0, 0, 0], &next, rax(61), 0);
    assert_eq!(found, Site::Pattern1 { nr: 61, len: 5 });
}

/// Instructions whose last bytes are those of `mov $39, %eax` (or `%rax`); `rax` is 39 at each.
const HOSTILE: &[&[u8]] = &[
    // movl $39, -0x48(%rbp), (%rsp), (%r12), (%rax), (%r8)
    &[0xc7, 0x45, 0xb8, 0x27, 0, 0, 0],
    &[0xc7, 0x44, 0x24, 0xb8, 0x27, 0, 0, 0],
    &[0x41, 0xc7, 0x44, 0x24, 0xb8, 0x27, 0, 0, 0],
    &[0xc7, 0x40, 0xb8, 0x27, 0, 0, 0],
    &[0x41, 0xc7, 0x40, 0xb8, 0x27, 0, 0, 0],
    // movq
    &[0x48, 0xc7, 0x45, 0xb8, 0x27, 0, 0, 0],
    &[0x48, 0xc7, 0x44, 0x24, 0xb8, 0x27, 0, 0, 0],
    // addl, orl, andl, cmpl, testl, imul with an immediate
    &[0x81, 0x45, 0xb8, 0x27, 0, 0, 0],
    &[0x81, 0x4d, 0xb8, 0x27, 0, 0, 0],
    &[0x81, 0x65, 0xb8, 0x27, 0, 0, 0],
    &[0x81, 0x7d, 0xb8, 0x27, 0, 0, 0],
    &[0xf7, 0x45, 0xb8, 0x27, 0, 0, 0],
    &[0x69, 0x45, 0xb8, 0x27, 0, 0, 0],
    // movl $39, (%rax,%rdi,4)
    &[0xc7, 0x04, 0xb8, 0x27, 0, 0, 0],
    // movl $39, far(%rip), far(%rbx)
    &[0xc7, 0x05, 0x11, 0x22, 0x33, 0xb8, 0x27, 0, 0, 0],
    &[0xc7, 0x83, 0x11, 0x22, 0x33, 0xb8, 0x27, 0, 0, 0],
    // mov, lea, add, cmp 39(%rax), %edi, with a 32-bit displacement
    &[0x8b, 0xb8, 0x27, 0, 0, 0],
    &[0x8d, 0xb8, 0x27, 0, 0, 0],
    &[0x03, 0xb8, 0x27, 0, 0, 0],
    &[0x3b, 0xb8, 0x27, 0, 0, 0],
    &[0x48, 0x8d, 0xb8, 0x27, 0, 0, 0],
    // mov 39(%rax,%rdi,4), %eax
    &[0x8b, 0x84, 0xb8, 0x27, 0, 0, 0],
    // movaps, vmovaps, EVEX vmovaps, pshufb
    &[0x0f, 0x28, 0xb8, 0x27, 0, 0, 0],
    &[0xc5, 0xf8, 0x28, 0xb8, 0x27, 0, 0, 0],
    &[0x62, 0xf1, 0x7c, 0x48, 0x28, 0xb8, 0x27, 0, 0, 0],
    &[0x66, 0x0f, 0x38, 0x00, 0xb8, 0x27, 0, 0, 0],
    // movabs to rax, rbx, r8
    &[0x48, 0xb8, 1, 2, 3, 0xb8, 0x27, 0, 0, 0],
    &[0x48, 0xbb, 1, 2, 3, 0xb8, 0x27, 0, 0, 0],
    &[0x49, 0xb8, 1, 2, 3, 0xb8, 0x27, 0, 0, 0],
    &[0x49, 0xb8, 1, 0x48, 0xc7, 0xc0, 0x27, 0, 0, 0],
    // movabs from memory to rax: its address
    &[0x48, 0xa1, 0, 0, 0, 0xb8, 0x27, 0, 0, 0],
    // Prefixed forms: the instruction begins earlier.
    &[0x2e, 0xb8, 0x27, 0, 0, 0],
    &[0x3e, 0xb8, 0x27, 0, 0, 0],
    &[0x65, 0xb8, 0x27, 0, 0, 0],
    &[0xf2, 0xb8, 0x27, 0, 0, 0],
    &[0xf3, 0xb8, 0x27, 0, 0, 0],
    &[0x67, 0xb8, 0x27, 0, 0, 0],
    &[0x40, 0xb8, 0x27, 0, 0, 0],
    &[0x66, 0x48, 0xc7, 0xc0, 0x27, 0, 0, 0],
    &[0x2e, 0x48, 0xc7, 0xc0, 0x27, 0, 0, 0],
    // r8d by every REX that says so
    &[0x41, 0xb8, 0x27, 0, 0, 0],
    &[0x43, 0xb8, 0x27, 0, 0, 0],
    &[0x45, 0xb8, 0x27, 0, 0, 0],
    &[0x47, 0xb8, 0x27, 0, 0, 0],
    // mov $39, %r8 and %r8d: not even alike
    &[0x49, 0xc7, 0xc0, 0x27, 0, 0, 0],
    &[0x41, 0xc7, 0xc0, 0x27, 0, 0, 0],
    // The right bytes in pieces: ...b8; daa is no instruction; a 16-bit load
    &[0x66, 0xb8, 0x27, 0x00],
    // cmpl $39, (%rax,%rdi,4) and a push that ends in b8
    &[0x81, 0x3c, 0xb8, 0x27, 0, 0, 0],
];

#[test]
fn lookalikes_are_refused_whatever_stands_before() {
    assert!(HOSTILE.len() >= 40);
    for code in HOSTILE {
        for before in fillers() {
            for r8 in [39, 0] {
                for low in 0..16 {
                    let registers = Registers { rax: 39, r8 };
                    let found = site_at(&before, code, RET, registers, low);
                    assert!(
                        !matches!(found, Site::Pattern1 { .. }),
                        "{code:02x?} at {low} behind {before:02x?}: {found:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_registers_must_agree() {
    let code = [0xb8, 0x27, 0, 0, 0];
    for wrong in [0, 38, 40, 0x1_0000_0027, u64::MAX] {
        assert_eq!(site(COMPILED, &code, rax(wrong)), Site::Ambiguous);
    }
    // A negative immediate is no number.
    let code = [0xb8, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(site(COMPILED, &code, rax(0xffff_ffff)), Site::Ambiguous);
}

#[test]
fn an_instruction_s_end_that_looks_like_a_prefix_of_r8d_is_told_by_r8() {
    // mov %rax, 0x41(%rsp); mov $39, %eax
    let code = [0x48, 0x89, 0x44, 0x24, 0x41, 0xb8, 0x27, 0, 0, 0];
    let accepted = Site::Pattern1 { nr: 39, len: 5 };
    assert_eq!(
        site(COMPILED, &code, Registers { rax: 39, r8: 0 }),
        accepted
    );
    let found = site(COMPILED, &code, Registers { rax: 39, r8: 39 });
    assert_eq!(found, Site::Ambiguous);
}

#[test]
fn code_that_jumps_over_a_decoy_is_seen_through() {
    // jmp 1f; .byte 0x83; 1: movl $39, -0x48(%rbp); syscall. Linear: add $0x45, %edi; mov $39, %eax.
    let code = [0xeb, 0x01, 0x83, 0xc7, 0x45, 0xb8, 0x27, 0, 0, 0];
    assert_eq!(site(COMPILED, &code, rax(39)), Site::Ambiguous);
    // The same with the jump further up, and conditional.
    let code = [
        0x74, 0x05, 0x48, 0x89, 0xe5, 0x90, 0x83, 0xc7, 0x45, 0xb8, 0x27, 0, 0, 0,
    ];
    assert_eq!(site(COMPILED, &code, rax(39)), Site::Ambiguous);
    // And from behind the syscall: jmp back to the store.
    let code = [0x83, 0xc7, 0x45, 0xb8, 0x27, 0, 0, 0];
    let after = [0xeb, 0xf5, 0x90];
    let found = site_at(COMPILED, &code, &after, rax(39), 0);
    assert_eq!(found, Site::Ambiguous);
    // Into the middle of the load.
    for back in 0xf5..0xf9 {
        let after = [0x85, 0xc0, 0x74, back - 4 + 3, 0xc3];
        let target = i64::from((back - 4 + 3) as i8) + 6 - 2 + 2;
        let found = site_at(COMPILED, &[0xb8, 0x27, 0, 0, 0], &after, rax(39), 0);
        let into = (-4..0).contains(&target);
        assert_eq!(matches!(found, Site::Ambiguous), into, "{target}");
    }
}

#[test]
fn a_likely_function_start_that_reads_otherwise_vetoes() {
    // Data ... 66 81 c3 | aligned: movl $39, -0x48(%rbp). Linear: add $0x45c7, %bx; mov $39, %eax.
    let mut before = COMPILED.to_vec();
    before.truncate(COMPILED.len() - 3);
    before.extend([0x66, 0x81, 0xc3]);
    let code = [0xc7, 0x45, 0xb8, 0x27, 0, 0, 0];
    let from = (before.len() + code.len()) as u64 - BEFORE as u64;
    let aligned = (16 - (before.len() as u64 - from) % 16) % 16;
    let found = site_at(&before, &code, RET, rax(39), aligned);
    assert_eq!(found, Site::Ambiguous);
}

#[test]
fn too_little_text_proves_nothing() {
    let code = [0xb8, 0x27, 0, 0, 0];
    for len in 0..10 {
        let found = site(&COMPILED[COMPILED.len() - len..], &code, rax(39));
        assert_eq!(found, Site::Ambiguous, "{len} bytes before");
    }
    assert_eq!(
        classify(
            &Text {
                bytes: &[0x0f, 0x05],
                syscall: 0,
                address: 0
            },
            &rax(39)
        ),
        Site::Unloaded
    );
    for syscall in [1, 2, 3, 100] {
        let text = Text {
            bytes: &[0x0f, 0x05],
            syscall,
            address: 0,
        };
        assert_eq!(classify(&text, &rax(39)), Site::Other);
    }
}

#[test]
fn sigreturn_is_never_patched() {
    for code in [
        &[0xb8, 0x0f, 0, 0, 0][..],
        &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0],
    ] {
        assert_eq!(site(COMPILED, code, rax(15)), Site::Restorer);
    }
}

fn text_at<'a>(bytes: &'a [u8], syscall: usize) -> Text<'a> {
    Text {
        bytes,
        syscall,
        address: 0x55_5555_4000,
    }
}

#[test]
fn what_follows_is_displaced_as_far_as_a_jump_needs() {
    let cases: [(&[u8], Option<&[usize]>); 16] = [
        // cmp $-4095 / $-4096, %rax; jae
        (
            &[0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff, 0x73, 0x01],
            Some(&[6]),
        ),
        (
            &[0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0x77, 0x01],
            Some(&[6]),
        ),
        // mov %rax, %rbx
        (&[0x48, 0x89, 0xc3], Some(&[3])),
        // mov %eax, %ebx; test %eax, %eax
        (&[0x89, 0xc3, 0x85, 0xc0, 0x90], Some(&[2, 2])),
        // test; je: the end may be a branch
        (&[0x85, 0xc0, 0x74, 0x05, 0x90], Some(&[2, 2])),
        (&[0x85, 0xc0, 0x0f, 0x84, 0, 0x10, 0, 0], Some(&[2, 6])),
        // mov 0x1000(%rip), %rax: a distance that is adapted
        (&[0x48, 0x8b, 0x05, 0, 0x10, 0, 0], Some(&[7])),
        // pop; pop; ret
        (&[0x5b, 0x5d, 0xc3], Some(&[1, 1, 1])),
        // What lies behind an end is not known to be code.
        (&[0xc3, 0x90, 0x90, 0x90], None),
        (&[0xeb, 0x10, 0x90, 0x90], None),
        (&[0xe8, 0, 0, 0, 0], None),
        (&[0xff, 0xe0, 0x90, 0x90], None),
        (&[0x0f, 0x05, 0x0f, 0x05], None),
        (&[0x0f, 0x0b, 0x90], None),
        (&[0x06, 0x06, 0x06], None),
        // mov %eax, %ss
        (&[0x48, 0x8e, 0xd0], None),
    ];
    for (after, expected) in cases {
        let mut bytes = SYSCALL.to_vec();
        bytes.extend(after);
        let found = behind(&text_at(&bytes, 0), true);
        let found: Option<Vec<_>> = found.map(|lengths| lengths.iter().collect());
        assert_eq!(found.as_deref(), expected, "{after:02x?}");
    }
    // Behind a call that does not come back may be anything but the usual test.
    let moves = [0x0f, 0x05, 0x48, 0x89, 0xc3];
    assert_eq!(behind(&text_at(&moves, 0), false), None);
    let test = [0x0f, 0x05, 0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0x77, 0x01];
    assert_eq!(behind(&text_at(&test, 0), false), Some(Lengths::one(6)));
    // The text ends.
    let bytes = [0x0f, 0x05, 0x48, 0x3d, 0x01, 0xf0];
    assert_eq!(behind(&text_at(&bytes, 0), true), None);
}

#[test]
fn what_stands_before_is_taken_if_it_is_proven_and_long_enough() {
    let cases: [(&[u8], Option<&[usize]>); 9] = [
        // mov 8(%rsp), %r9
        (&[0x4c, 0x8b, 0x4c, 0x24, 0x08], Some(&[5])),
        // lea 0x1000(%rip), %rsi
        (&[0x48, 0x8d, 0x35, 0x00, 0x10, 0x00, 0x00], Some(&[7])),
        // movl $39, -0x48(%rbp), which ends like another
        (&[0xc7, 0x45, 0xb8, 0x27, 0, 0, 0], Some(&[7])),
        // mov $158, %eax; mov %rsi, (%rsi); mov %rsi, 0x10(%rsi): the first makes room
        (
            &[
                0xb8, 0x9e, 0, 0, 0, 0x48, 0x89, 0x36, 0x48, 0x89, 0x76, 0x10,
            ],
            Some(&[5, 3, 4]),
        ),
        // mov %rcx, %r10, alone too short, behind nops that are, too
        (&[0x90, 0x90, 0x90, 0x90, 0x49, 0x89, 0xca], None),
        // mov $39, %eax; jmp .+2; nop: not one after the other
        (&[0xb8, 0x27, 0, 0, 0, 0xeb, 0x00, 0x90], None),
        // musl's clone: mov 8(%rsp), %r10; mov %r11, %r9; and $-16, %rsi; sub $8, %rsi; mov %rcx, (%rsi)
        (
            &[
                0x4c, 0x8b, 0x54, 0x24, 0x08, 0x4d, 0x89, 0xd9, 0x48, 0x83, 0xe6, 0xf0, 0x48, 0x83,
                0xee, 0x08, 0x48, 0x89, 0x0e,
            ],
            Some(&[5, 3, 4, 4, 3]),
        ),
        // call
        (&[0xe8, 0x10, 0x20, 0x00, 0x00], None),
        // More than there is room for
        (
            &[0xb8, 0x27, 0, 0, 0, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90],
            None,
        ),
    ];
    let found = |code: &[u8], after: &[u8]| -> Option<Vec<usize>> {
        let mut bytes = COMPILED.to_vec();
        bytes.extend(code);
        let syscall = bytes.len();
        bytes.extend(SYSCALL);
        bytes.extend(after);
        bytes.extend(RET);
        before(&text_at(&bytes, syscall)).map(|lengths| lengths.iter().collect())
    };
    for (code, expected) in cases {
        assert_eq!(found(code, &[]).as_deref(), expected, "{code:02x?}");
    }
    // cmp $-4, %rax; je to behind the first instruction: that one is still there. Into it: it is none.
    let code = [0xb8, 0x27, 0, 0, 0, 0xff, 0xc1];
    for (back, expected) in [(0xf6, Some(&[5, 2][..])), (0xf5, None), (0xf2, None)] {
        let after = [0x48, 0x83, 0xf8, 0xfc, 0x74, back];
        assert_eq!(found(&code, &after).as_deref(), expected, "{back:x}");
    }
    // Nothing is proven by too little.
    let bytes = [0x4c, 0x8b, 0x4c, 0x24, 0x08, 0x0f, 0x05, 0xc3];
    assert_eq!(before(&text_at(&bytes, 5)), None);
}

/// Any text at all: the decision must end and, where it accepts, the bytes must be the load.
#[test]
fn random_text_never_confuses_the_decision() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..20_000 {
        let mut bytes: Vec<u8> = (0..BEFORE + 2 + AFTER).map(|_| random() as u8).collect();
        bytes[BEFORE..BEFORE + 2].copy_from_slice(&[0x0f, 0x05]);
        if random() & 1 == 0 {
            bytes[BEFORE - 5..BEFORE].copy_from_slice(&[0xb8, 0x27, 0, 0, 0]);
        }
        let text = Text {
            bytes: &bytes,
            syscall: BEFORE,
            address: random() & 0x7fff_ffff_ffff,
        };
        if let Site::Pattern1 { nr, len } = classify(&text, &rax(39)) {
            assert_eq!((nr, len), (39, 5));
            assert_eq!(bytes[BEFORE - 5], 0xb8);
        }
    }
}
