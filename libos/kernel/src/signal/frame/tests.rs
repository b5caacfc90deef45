use core::mem::offset_of;

use super::super::set::*;
use super::*;

/// Bytes of an area with x87, SSE and AVX.
const STATE_BYTES: usize = 832;

fn registers() -> TrapFrame {
    TrapFrame {
        r15: 15,
        r14: 14,
        r13: 13,
        r12: 12,
        rbp: 105,
        rbx: 103,
        r11: 11,
        r10: 10,
        r9: 9,
        r8: 8,
        rax: 100,
        rcx: 101,
        rdx: 102,
        rsi: 106,
        rdi: 107,
        orig_rax: 35,
        code: 0,
        rip: 0x40_1000,
        cs: 0x33,
        rflags: 0x1_0746,
        rsp: 0x7fff_0000_1238,
        ss: 0x2b,
    }
}

const STACK: AltStack = AltStack {
    base: 0x10_0000,
    size: 0x4000,
    flags: 0,
};

fn built(registers: &TrapFrame) -> (Place, Vec<u8>) {
    let state: Vec<u8> = (0..STATE_BYTES).map(|at| (at % 251) as u8).collect();
    let at = place(
        registers.rsp,
        ActionFlags::empty(),
        &AltStack::DISABLED,
        STATE_BYTES,
    )
    .unwrap();
    let bytes = build(
        &Contents {
            registers,
            info: &Info::kill(SIGUSR1, 5, 6),
            action: &Action {
                handler: 0x40_2000,
                restorer: 0x40_3000,
                ..Action::default()
            },
            mask: SigSet(0x1234),
            altstack: STACK,
            last_fault: LastFault {
                vector: 14,
                error: 6,
                address: 0xdead,
            },
            vector_state: &state,
            features: 7,
        },
        &at,
    );
    (at, bytes)
}

#[test]
fn layout_is_libcs() {
    use libc::{mcontext_t, siginfo_t, ucontext_t};
    assert_eq!(INFO + size_of::<siginfo_t>(), FRAME_BYTES);
    assert_eq!(
        offset_of!(UContext, stack),
        offset_of!(ucontext_t, uc_stack)
    );
    assert_eq!(
        offset_of!(UContext, mcontext),
        offset_of!(ucontext_t, uc_mcontext)
    );
    assert_eq!(
        offset_of!(UContext, mask),
        offset_of!(ucontext_t, uc_sigmask)
    );
    assert_eq!(
        offset_of!(SigContext, fpstate),
        offset_of!(mcontext_t, fpregs)
    );
    assert_eq!(size_of::<SigContext>(), size_of::<mcontext_t>());
    for (ours, libcs) in [
        (offset_of!(SigContext, r8), libc::REG_R8),
        (offset_of!(SigContext, r15), libc::REG_R15),
        (offset_of!(SigContext, rdi), libc::REG_RDI),
        (offset_of!(SigContext, rsi), libc::REG_RSI),
        (offset_of!(SigContext, rbp), libc::REG_RBP),
        (offset_of!(SigContext, rbx), libc::REG_RBX),
        (offset_of!(SigContext, rdx), libc::REG_RDX),
        (offset_of!(SigContext, rax), libc::REG_RAX),
        (offset_of!(SigContext, rcx), libc::REG_RCX),
        (offset_of!(SigContext, rsp), libc::REG_RSP),
        (offset_of!(SigContext, rip), libc::REG_RIP),
        (offset_of!(SigContext, rflags), libc::REG_EFL),
        (offset_of!(SigContext, cs), libc::REG_CSGSFS),
        (offset_of!(SigContext, error), libc::REG_ERR),
        (offset_of!(SigContext, vector), libc::REG_TRAPNO),
        (offset_of!(SigContext, old_mask), libc::REG_OLDMASK),
        (offset_of!(SigContext, cr2), libc::REG_CR2),
    ] {
        assert_eq!(ours, libcs as usize * 8);
    }
}

#[test]
fn placement() {
    let rsp = 0x7fff_0000_1238;
    let at = place(rsp, ActionFlags::ONSTACK, &AltStack::DISABLED, STATE_BYTES).unwrap();
    assert!(at.vector_state + STATE_BYTES as u64 + 4 <= rsp - 128);
    assert_eq!(at.vector_state % 64, 0);
    assert_eq!(at.frame % 16, 8);
    assert!(at.frame + FRAME_BYTES as u64 <= at.vector_state);

    // On the alternate stack only if asked; at its top without a red zone.
    let off = place(rsp, ActionFlags::empty(), &STACK, STATE_BYTES).unwrap();
    assert_eq!(off, at);
    let on = place(rsp, ActionFlags::ONSTACK, &STACK, STATE_BYTES).unwrap();
    assert_eq!(on.vector_state, (0x10_4000 - 836) & !63);

    // Already there: below what is in use, and not below its end.
    let inside = 0x10_2000;
    let nested = place(inside, ActionFlags::ONSTACK, &STACK, STATE_BYTES).unwrap();
    assert!(nested.frame < inside - 128 && nested.frame > STACK.base);
    for flags in [ActionFlags::ONSTACK, ActionFlags::empty()] {
        assert_eq!(place(0x10_0400, flags, &STACK, STATE_BYTES), None);
    }
    let tiny = AltStack {
        size: 1000,
        ..STACK
    };
    assert_eq!(place(rsp, ActionFlags::ONSTACK, &tiny, STATE_BYTES), None);
}

#[test]
fn there_and_back() {
    let before = registers();
    let (at, bytes) = built(&before);
    let head: &[u8; FRAME_BYTES] = bytes[..FRAME_BYTES].try_into().unwrap();
    let saved = parse(head);
    assert_eq!(
        saved.registers,
        TrapFrame {
            orig_rax: u64::MAX,
            code: EXIT_FULL,
            ..before
        }
    );
    assert_eq!(saved.mask, SigSet(0x1234).without(SigSet::UNBLOCKABLE));
    assert_eq!(saved.altstack, STACK);
    assert_eq!(saved.vector_state, at.vector_state);
    assert_eq!(get_u64(&bytes, 0), 0x40_3000);
    assert_eq!(
        bytes[INFO..][..SIGINFO_BYTES],
        Info::kill(SIGUSR1, 5, 6).to_bytes()
    );
}

#[test]
fn programs_cannot_change_what_is_not_theirs() {
    let (_, bytes) = built(&registers());
    let mut head: [u8; FRAME_BYTES] = bytes[..FRAME_BYTES].try_into().unwrap();
    let context = CONTEXT + offset_of!(UContext, mcontext);
    put(
        &mut head,
        context + offset_of!(SigContext, rflags),
        u64::MAX.to_le_bytes(),
    );
    put(
        &mut head,
        context + offset_of!(SigContext, cs),
        [0x10, 0, 0, 0, 0, 0, 0x18, 0],
    );
    put(
        &mut head,
        CONTEXT + offset_of!(UContext, mask),
        u64::MAX.to_le_bytes(),
    );
    let saved = parse(&head);
    assert_eq!((saved.registers.cs, saved.registers.ss), (0x33, 0x2b));
    // No IOPL, NT, VM, VIF, VIP, ID.
    assert_eq!(saved.registers.rflags, 0x5_0fd7);
    assert_eq!(saved.mask, !SigSet::UNBLOCKABLE);
}

#[test]
fn handler_entry() {
    let mut frame = registers();
    let (at, _) = built(&frame);
    enter_handler(&mut frame, SIGUSR1, 0x40_2000, &at);
    assert_eq!((frame.rdi, frame.rax), (10, 0));
    assert_eq!(frame.rsi, at.frame + 312);
    assert_eq!(frame.rdx, at.frame + 8);
    assert_eq!((frame.rip, frame.rsp), (0x40_2000, at.frame));
    assert_eq!(frame.rflags, 0x246, "TF, DF and RF are down");
    assert!(!frame.is_syscall());
    assert_eq!(frame.r15, 15);
}

#[test]
fn vector_state_marks() {
    let (at, bytes) = built(&registers());
    let area = &bytes[(at.vector_state - at.frame) as usize..];
    assert_eq!(area.len(), STATE_BYTES + 4);
    let image: [u8; FXSAVE_BYTES] = area[..FXSAVE_BYTES].try_into().unwrap();
    assert_eq!(
        vector_state(&image, STATE_BYTES),
        VectorState::Extended {
            bytes: STATE_BYTES,
            features: 7
        }
    );
    assert_eq!(get_u32(area, STATE_BYTES), MAGIC2);
    assert_eq!(get_u64(area, FXSAVE_BYTES) & 3, 3);
    // Larger than the vCPU's, too small, or without magic: only the FXSAVE part counts.
    assert_eq!(vector_state(&image, STATE_BYTES - 1), VectorState::Legacy);
    for (offset, value) in [(0, 1u32), (4, 831), (16, 575)] {
        let mut bad = image;
        put(&mut bad, SOFTWARE + offset, value.to_le_bytes());
        assert_eq!(vector_state(&bad, STATE_BYTES), VectorState::Legacy);
    }
}

#[test]
fn unloadable_state_is_refused() {
    let template = vec![0; STATE_BYTES];
    let good = || {
        let mut area = vec![0u8; STATE_BYTES];
        area[MXCSR..MXCSR + 4].copy_from_slice(&0x1f80u32.to_le_bytes());
        area[FXSAVE_BYTES] = 7;
        area
    };
    let mut area = good();
    assert!(is_loadable(&mut area, 3, 7, &template));
    assert_eq!(area[FXSAVE_BYTES], 3);
    for (offset, value) in [
        (MXCSR, 0x40),
        (MXCSR + 2, 1),
        (FXSAVE_BYTES, 8),
        (FXSAVE_BYTES + 15, 0x80),
        (FXSAVE_BYTES + 16, 1),
    ] {
        let mut area = good();
        area[offset] = value;
        assert!(!is_loadable(&mut area, 7, 7, &template), "offset {offset}");
    }
    assert!(is_loadable(&mut good()[..FXSAVE_BYTES], 3, 7, &template));
}
