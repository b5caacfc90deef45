//! The signal frame: what a handler finds on its stack, and what `rt_sigreturn(2)` takes from it.
//!
//! The layout is Linux's `struct rt_sigframe` (`arch/x86/include/asm/sigframe.h`) followed by the vector state
//! in XSAVE format; programs that unwind stacks, switch contexts or look at faults know it byte by byte.

use alloc::vec::Vec;
use core::mem::offset_of;

use husk_hal::trap::{EXIT_FULL, TrapFrame};

use super::action::{Action, ActionFlags};
use super::altstack::AltStack;
use super::info::{Info, SIGINFO_BYTES};
use super::set::SigSet;
use super::state::LastFault;

/// `struct sigcontext`.
#[repr(C)]
struct SigContext {
    r8: u64,
    r9: u64,
    r10: u64,
    r11: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rax: u64,
    rcx: u64,
    rsp: u64,
    rip: u64,
    rflags: u64,
    cs: u16,
    gs: u16,
    fs: u16,
    ss: u16,
    error: u64,
    vector: u64,
    old_mask: u64,
    cr2: u64,
    fpstate: u64,
    reserved: [u64; 8],
}

/// The kernel's `struct ucontext`.
#[repr(C)]
struct UContext {
    flags: u64,
    link: u64,
    stack: [u64; 3],
    mcontext: SigContext,
    mask: u64,
}

/// `struct rt_sigframe`.
#[repr(C)]
struct RtSigFrame {
    restorer: u64,
    context: UContext,
    info: [u8; SIGINFO_BYTES],
}

/// Bytes of the frame without vector state.
pub const FRAME_BYTES: usize = size_of::<RtSigFrame>();
const _: () = assert!(FRAME_BYTES == 440, "struct rt_sigframe");

/// Offset of `ucontext_t` in the frame.
const CONTEXT: usize = offset_of!(RtSigFrame, context);
/// Offset of `siginfo_t` in the frame.
const INFO: usize = offset_of!(RtSigFrame, info);

/// Bytes below the stack pointer that belong to the interrupted function.
const RED_ZONE: u64 = 128;
/// `UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS`.
const UC_FLAGS: u64 = 7;
/// Flags `rt_sigreturn` takes from the frame: AC, OF, DF, TF, SF, ZF, AF, PF, CF, RF.
const CHANGEABLE_FLAGS: u64 = 0x5_0dd5;
/// IF and the bit that is always set.
const FIXED_FLAGS: u64 = 0x202;
/// Flags a handler starts without: TF, DF, RF.
const ENTRY_CLEARED_FLAGS: u64 = 0x1_0500;
/// One past the highest address user code can run at.
const CODE_END: u64 = 1 << 47;

/// Bytes of an FXSAVE image, the start of an XSAVE area.
pub const FXSAVE_BYTES: usize = 512;
/// Offset of `struct _fpx_sw_bytes` in it.
const SOFTWARE: usize = 464;
const HEADER_BYTES: usize = 64;
const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
/// `FP_XSTATE_MAGIC1`.
const MAGIC1: u32 = 0x4650_5853;
/// `FP_XSTATE_MAGIC2`, behind the area.
pub const MAGIC2: u32 = 0x4650_5845;
/// x87 and SSE in XCR0.
const FEATURES_LEGACY: u64 = 3;

/// All that a frame shows.
#[derive(Debug)]
pub struct Contents<'a> {
    /// The interrupted program's registers, with its own addresses.
    pub registers: &'a TrapFrame,
    /// The signal.
    pub info: &'a Info,
    /// Its handler.
    pub action: &'a Action,
    /// What `rt_sigreturn` makes the mask.
    pub mask: SigSet,
    /// The alternate stack as set.
    pub altstack: AltStack,
    /// The thread's last exception.
    pub last_fault: LastFault,
    /// The vector state, an XSAVE area in the standard format.
    pub vector_state: &'a [u8],
    /// XCR0.
    pub features: u64,
}

/// Where the parts of a frame lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Start of the frame, the handler's stack pointer.
    pub frame: u64,
    /// The vector state.
    pub vector_state: u64,
}

/// Finds room for a frame of a program with stack pointer `rsp`; `None` if it would not fit on the alternate
/// stack.
pub fn place(
    rsp: u64,
    flags: ActionFlags,
    altstack: &AltStack,
    state_bytes: usize,
) -> Option<Place> {
    let nested = altstack.is_active(rsp);
    let entering = flags.contains(ActionFlags::ONSTACK) && altstack.size > 0 && !nested;
    let top = if entering {
        altstack.base.wrapping_add(altstack.size)
    } else {
        rsp.wrapping_sub(RED_ZONE)
    };
    let area = state_bytes as u64 + size_of_val(&MAGIC2) as u64;
    let vector_state = top.wrapping_sub(area) & !63;
    // As if called: the return address lies where `call` would have left it.
    let frame = (vector_state.wrapping_sub(FRAME_BYTES as u64) & !15).wrapping_sub(8);
    ((!nested && !entering) || altstack.covers(frame)).then_some(Place {
        frame,
        vector_state,
    })
}

fn put<const N: usize>(bytes: &mut [u8], offset: usize, value: [u8; N]) {
    bytes[offset..offset + N].copy_from_slice(&value);
}

fn get_u64(bytes: &[u8], offset: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(word)
}

fn get_u32(bytes: &[u8], offset: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(word)
}

/// Calls `$with(offset in the frame, register)` for each register the frame holds in full.
macro_rules! for_each_register {
    ($frame:expr, $with:expr) => {
        for_each_register!(@each $frame, $with,
            r8 r9 r10 r11 r12 r13 r14 r15 rdi rsi rbp rbx rdx rax rcx rsp rip)
    };
    (@each $frame:expr, $with:expr, $($name:ident)*) => {
        $($with(offset_of!(RtSigFrame, context.mcontext.$name), &mut $frame.$name);)*
    };
}

/// The bytes of the frame at `at`, from its start to the end of the vector state.
#[expect(
    clippy::cast_possible_truncation,
    reason = "selectors are 16 bits wide, sizes of vector state a few KiB"
)]
pub fn build(contents: &Contents<'_>, at: &Place) -> Vec<u8> {
    let state = (at.vector_state - at.frame) as usize;
    let state_bytes = contents.vector_state.len();
    let mut bytes = alloc::vec![0; state + state_bytes + size_of_val(&MAGIC2)];

    let mut word = |offset, value: u64| put(&mut bytes, offset, value.to_le_bytes());
    word(offset_of!(RtSigFrame, restorer), contents.action.restorer);
    word(offset_of!(RtSigFrame, context.flags), UC_FLAGS);
    for (index, value) in contents.altstack.to_words().into_iter().enumerate() {
        word(offset_of!(RtSigFrame, context.stack) + index * 8, value);
    }
    let mut registers = *contents.registers;
    for_each_register!(registers, |offset, value: &mut u64| word(offset, *value));
    for (offset, value) in [
        (
            offset_of!(RtSigFrame, context.mcontext.rflags),
            registers.rflags,
        ),
        (
            offset_of!(RtSigFrame, context.mcontext.error),
            contents.last_fault.error,
        ),
        (
            offset_of!(RtSigFrame, context.mcontext.vector),
            contents.last_fault.vector,
        ),
        (
            offset_of!(RtSigFrame, context.mcontext.old_mask),
            contents.mask.0,
        ),
        (
            offset_of!(RtSigFrame, context.mcontext.cr2),
            contents.last_fault.address,
        ),
        (
            offset_of!(RtSigFrame, context.mcontext.fpstate),
            at.vector_state,
        ),
        (offset_of!(RtSigFrame, context.mask), contents.mask.0),
    ] {
        word(offset, value);
    }
    for (offset, selector) in [
        (offset_of!(RtSigFrame, context.mcontext.cs), registers.cs),
        (offset_of!(RtSigFrame, context.mcontext.ss), registers.ss),
    ] {
        put(&mut bytes, offset, (selector as u16).to_le_bytes());
    }
    put(&mut bytes, INFO, contents.info.to_bytes());

    let (area, magic2) = bytes[state..].split_at_mut(state_bytes);
    area.copy_from_slice(contents.vector_state);
    area[SOFTWARE..FXSAVE_BYTES].fill(0);
    put(area, SOFTWARE, MAGIC1.to_le_bytes());
    let extended = (state_bytes + size_of_val(&MAGIC2)) as u32;
    put(area, SOFTWARE + 4, extended.to_le_bytes());
    put(area, SOFTWARE + 8, contents.features.to_le_bytes());
    put(area, SOFTWARE + 16, (state_bytes as u32).to_le_bytes());
    // x87 and SSE state are always there for programs that know only the FXSAVE part.
    let present = get_u64(area, FXSAVE_BYTES) | FEATURES_LEGACY;
    put(area, FXSAVE_BYTES, present.to_le_bytes());
    put(magic2, 0, MAGIC2.to_le_bytes());
    bytes
}

/// The registers with which the handler of `signo` starts on the frame at `at`.
pub fn enter_handler(registers: &mut TrapFrame, signo: i32, handler: u64, at: &Place) {
    registers.rdi = i64::from(signo).cast_unsigned();
    registers.rsi = at.frame + INFO as u64;
    registers.rdx = at.frame + CONTEXT as u64;
    registers.rax = 0;
    registers.rip = handler;
    registers.rsp = at.frame;
    registers.rflags &= !ENTRY_CLEARED_FLAGS;
    to_user(registers);
}

/// Selectors and marks of a frame that is restored in full.
fn to_user(registers: &mut TrapFrame) {
    use husk_abi::boundary::layout::selector;
    registers.cs = u64::from(selector::USER_CODE);
    registers.ss = u64::from(selector::USER_DATA);
    registers.orig_rax = u64::MAX;
    registers.code = EXIT_FULL;
}

/// Whether user code can run at `rip`.
pub fn is_code_address(rip: u64) -> bool {
    rip < CODE_END
}

/// What `rt_sigreturn` finds in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The interrupted program's registers.
    pub registers: TrapFrame,
    /// The mask to come back.
    pub mask: SigSet,
    /// The alternate stack to come back.
    pub altstack: AltStack,
    /// Address of the vector state; 0 for the initial one.
    pub vector_state: u64,
}

/// Reads a frame. What a program must not change is not taken from it.
pub fn parse(bytes: &[u8; FRAME_BYTES]) -> Saved {
    let mut registers = TrapFrame::default();
    for_each_register!(registers, |offset, value: &mut u64| *value =
        get_u64(bytes, offset));
    let rflags = get_u64(bytes, offset_of!(RtSigFrame, context.mcontext.rflags));
    registers.rflags = FIXED_FLAGS | rflags & CHANGEABLE_FLAGS;
    to_user(&mut registers);
    let stack = offset_of!(RtSigFrame, context.stack);
    Saved {
        registers,
        mask: SigSet(get_u64(bytes, offset_of!(RtSigFrame, context.mask)))
            .without(SigSet::UNBLOCKABLE),
        altstack: AltStack::from_words([0, 8, 16].map(|offset| get_u64(bytes, stack + offset))),
        vector_state: get_u64(bytes, offset_of!(RtSigFrame, context.mcontext.fpstate)),
    }
}

/// What a frame says its vector state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorState {
    /// An FXSAVE image, nothing else.
    Legacy,
    /// An XSAVE area of `bytes` with [`MAGIC2`] behind it, of which `features` count.
    Extended {
        /// Size of the area.
        bytes: usize,
        /// The parts of it that count, as in XCR0.
        features: u64,
    },
}

/// Reads the software bytes of an FXSAVE image; `max_bytes` is the size of the vCPU's own areas.
pub fn vector_state(image: &[u8; FXSAVE_BYTES], max_bytes: usize) -> VectorState {
    let bytes = get_u32(image, SOFTWARE + 16) as usize;
    let extended = get_u32(image, SOFTWARE + 4) as usize;
    if get_u32(image, SOFTWARE) != MAGIC1
        || bytes < FXSAVE_BYTES + HEADER_BYTES
        || bytes > max_bytes
        || bytes > extended
    {
        return VectorState::Legacy;
    }
    VectorState::Extended {
        bytes,
        features: get_u64(image, SOFTWARE + 8),
    }
}

/// Checks what the CPU would refuse to load: reserved bits of MXCSR and, in an XSAVE area, unknown features or a
/// bad header. `template` is an area the CPU wrote. Then drops the parts that `features` leaves out.
pub fn is_loadable(area: &mut [u8], features: u64, enabled: u64, template: &[u8]) -> bool {
    let mxcsr_mask = match get_u32(template, MXCSR_MASK) {
        0 => 0xffbf,
        mask => mask,
    };
    if get_u32(area, MXCSR) & !mxcsr_mask != 0 {
        return false;
    }
    if area.len() < FXSAVE_BYTES + HEADER_BYTES {
        return true;
    }
    let present = get_u64(area, FXSAVE_BYTES);
    let reserved = &area[FXSAVE_BYTES + 8..FXSAVE_BYTES + 24];
    if present & !enabled != 0 || reserved.iter().any(|byte| *byte != 0) {
        return false;
    }
    put(area, FXSAVE_BYTES, (present & features).to_le_bytes());
    true
}

#[cfg(test)]
mod tests;
