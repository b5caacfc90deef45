//! The code of thunks and of the jumps to them.
//!
//! A thunk does what the replaced instructions did, enters the libOS as `syscall` would (rcx = return
//! address, r11 free, nothing on the user's stack, red zone untouched), and, for pattern 2, goes on with the
//! instructions it displaced:
//!
//! ```text
//! pattern 1                 pattern 2                          pattern 3
//!   mov  $nr, %eax            lea  1f(%rip), %rcx                displaced instructions
//!   lea  ret(%rip), %rcx      jmp  *slot                         lea  ret(%rip), %rcx
//!   jmp  *slot              1: lea  ret(%rip), %rcx              jmp  *slot
//!                             displaced instructions
//!                             jmp  behind them
//! ```
//!
//! # Jumps between displaced instructions (pattern 2)
//! The five bytes of the jump at a site cover the boundaries between the instructions it replaces, and no scan can tell
//! that nobody jumps there: tables and computed addresses do, too. So whoever does must find there an instruction that
//! always faults and is not what the program has: then the exception's handler goes on in the thunk, where the
//! instruction is now. The boundary behind the `syscall` is the second byte of the jump's distance: the thunk is placed so
//! that this byte is one of [`is_trapping`]. Where such a place cannot be had (a boundary in the fourth or fifth byte) the
//! site is not patched. What the jump does not need is filled with such bytes.
//!
//! `slot` is 8 bytes in the libOS image that hold the entry's address: an absolute address that fits 32 bits,
//! sign-extended. All else is distances, so the bytes are right wherever the file is mapped. Places are given as
//! *positions*: bytes from where offset 0 of the file would lie in the mapping.

use iced_x86::{Decoder, DecoderOptions};

use super::decode::{Lengths, MAX_DISPLACED, SYSCALL_LEN, branch_opcode};

/// Length of the jump to a thunk.
pub const JUMP_LEN: usize = 5;
/// Thunks begin at multiples of this.
pub const THUNK_ALIGN: u64 = 32;
/// No thunk is longer.
pub const THUNK_MAX: usize = 64;

/// What a site executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `syscall`: rcx holds the return address.
    Syscall,
    /// `cpuid`, where that faults: rdx, which it overwrites, holds the return address on the way in.
    Cpuid,
}

impl Call {
    /// The instruction.
    #[must_use]
    pub fn bytes(self) -> [u8; SYSCALL_LEN] {
        match self {
            Self::Syscall => [0x0f, 0x05],
            Self::Cpuid => [0x0f, 0xa2],
        }
    }

    /// `lea distance(%rip)` into the register for the return address.
    fn lea(self) -> [u8; 3] {
        match self {
            Self::Syscall => [0x48, 0x8d, 0x0d],
            Self::Cpuid => [0x48, 0x8d, 0x15],
        }
    }
}

/// A thunk's code.
#[derive(Clone, Copy, Debug)]
pub struct Thunk {
    bytes: [u8; THUNK_MAX],
    len: usize,
    /// Offset of the first instruction that belongs to the call: before it run those of patterns 1 and 3.
    pub call_at: usize,
    /// Offset behind the jump to the libOS.
    pub call_end: usize,
    /// Where the instructions taken over from the file run; 0 where there is none.
    pub displaced: [u8; MAX_DISPLACED],
}

/// Whether code that begins with `byte` is an invalid opcode in 64-bit mode, whatever follows.
///
/// The segment register pushes, decimal adjusts, `pusha`, `popa`, far calls and jumps, `into`, `aam` and `salc` of the
/// 8086. Not `aad` (0xd5), `bound`, `les` and `lds`: prefixes of newer instructions.
#[must_use]
pub fn is_trapping(byte: u8) -> bool {
    matches!(
        byte,
        0x06 | 0x07
            | 0x0e
            | 0x16
            | 0x17
            | 0x1e
            | 0x1f
            | 0x27
            | 0x2f
            | 0x37
            | 0x3f
            | 0x60
            | 0x61
            | 0x82
            | 0x9a
            | 0xce
            | 0xd4
            | 0xd6
            | 0xea
    )
}

/// Fills what a jump leaves over.
const FILLER: u8 = 0x06;

impl Thunk {
    const EMPTY: Self = Self {
        bytes: [0xcc; THUNK_MAX],
        len: 0,
        call_at: 0,
        call_end: 0,
        displaced: [0; MAX_DISPLACED],
    };

    /// The code.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push(&mut self, code: &[u8]) -> Option<()> {
        self.bytes
            .get_mut(self.len..self.len + code.len())?
            .copy_from_slice(code);
        self.len += code.len();
        Some(())
    }

    /// `opcode` followed by the distance from behind it to `target`; the thunk lies at `at`.
    fn push_relative(&mut self, opcode: &[u8], at: i64, target: i64) -> Option<()> {
        let behind = at + (self.len + opcode.len() + 4) as i64;
        let distance = i32::try_from(target - behind).ok()?;
        self.push(opcode)?;
        self.push(&distance.to_le_bytes())
    }

    /// Enters the libOS through `slot`, to come back at position `return_to`.
    fn push_call(&mut self, call: Call, at: i64, return_to: i64, slot: u64) -> Option<()> {
        let address = i32::try_from(slot.cast_signed()).ok()?;
        self.call_at = self.len;
        self.push_relative(&call.lea(), at, return_to)?;
        // jmp *disp32, without base or index.
        self.push(&[0xff, 0x24, 0x25])?;
        self.push(&address.to_le_bytes())?;
        self.call_end = self.len;
        Some(())
    }

    /// One instruction, which the file has at position `from`.
    fn push_displaced(&mut self, at: i64, code: &[u8], from: i64) -> Option<()> {
        let mut decoder = Decoder::with_ip(64, code, from.cast_unsigned(), DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.len() != code.len() {
            return None;
        }
        if let Some(opcode) = branch_opcode(&instruction) {
            let target = instruction.near_branch_target().cast_signed();
            let opcode = if opcode[1] == 0 {
                &opcode[..1]
            } else {
                &opcode
            };
            return self.push_relative(opcode, at, target);
        }
        if !instruction.is_ip_rel_memory_operand() {
            return self.push(code);
        }
        let place = decoder.get_constant_offsets(&instruction);
        if place.displacement_size() != 4 {
            return None;
        }
        let target = instruction.ip_rel_memory_address().cast_signed();
        let behind = at + (self.len + code.len()) as i64;
        let distance = i32::try_from(target.checked_sub(behind)?).ok()?;
        let here = self.len;
        self.push(code)?;
        self.bytes[here + place.displacement_offset()..][..4]
            .copy_from_slice(&distance.to_le_bytes());
        Some(())
    }

    /// The instructions `code`, which the file has at position `from`; the position behind them.
    fn push_all(&mut self, at: i64, code: &[u8], lengths: Lengths, from: i64) -> Option<i64> {
        let mut from = from;
        let mut rest = code;
        for (index, len) in lengths.iter().enumerate() {
            let (instruction, others) = rest.split_at_checked(len)?;
            self.displaced[index] = u8::try_from(self.len).ok()?;
            self.push_displaced(at, instruction, from)?;
            from += len as i64;
            rest = others;
        }
        Some(from)
    }

    /// Pattern 1: the thunk at position `at` that returns to position `return_to`.
    ///
    /// `None` if a distance does not fit, or `slot` does not lie within 2 GiB of the address space's end.
    #[must_use]
    pub fn load_and_call(at: i64, nr: u32, return_to: i64, slot: u64) -> Option<Self> {
        let mut thunk = Self::EMPTY;
        thunk.push(&[0xb8])?;
        thunk.push(&nr.to_le_bytes())?;
        thunk.push_call(Call::Syscall, at, return_to, slot)?;
        Some(thunk)
    }

    /// Pattern 3: the thunk at position `at` that runs the instructions `code`, which the file has at position `from`, in
    /// front of the `syscall`. `None` as above, or if there are too many.
    #[must_use]
    pub fn run_and_call(
        at: i64,
        code: &[u8],
        lengths: Lengths,
        from: i64,
        slot: u64,
    ) -> Option<Self> {
        Self::run_and_enter(Call::Syscall, at, code, lengths, from, slot)
    }

    /// [`Thunk::run_and_call`] for either instruction.
    #[must_use]
    pub fn run_and_enter(
        call: Call,
        at: i64,
        code: &[u8],
        lengths: Lengths,
        from: i64,
        slot: u64,
    ) -> Option<Self> {
        let mut thunk = Self::EMPTY;
        let behind = thunk.push_all(at, code, lengths, from)?;
        thunk.push_call(call, at, behind + SYSCALL_LEN as i64, slot)?;
        Some(thunk)
    }

    /// Pattern 2: the thunk at position `at` for the `syscall` at position `from` that runs the instructions behind it as
    /// well, `code`, and goes on behind these. `None` as above, or if there are too many.
    #[must_use]
    pub fn call_and_continue(
        at: i64,
        code: &[u8],
        lengths: Lengths,
        from: i64,
        slot: u64,
    ) -> Option<Self> {
        Self::enter_and_continue(Call::Syscall, at, code, lengths, from, slot)
    }

    /// [`Thunk::call_and_continue`] for either instruction.
    #[must_use]
    pub fn enter_and_continue(
        call: Call,
        at: i64,
        code: &[u8],
        lengths: Lengths,
        from: i64,
        slot: u64,
    ) -> Option<Self> {
        const LEA_AND_JUMP: i64 = 7 + 7;
        let mut thunk = Self::EMPTY;
        let from = from + SYSCALL_LEN as i64;
        thunk.push_call(call, at, at + LEA_AND_JUMP, slot)?;
        if call == Call::Syscall {
            // What `syscall` leaves in rcx.
            thunk.push_relative(&call.lea(), at, from)?;
        }
        let behind = thunk.push_all(at, code, lengths, from)?;
        thunk.push_relative(&[0xe9], at, behind)?;
        Some(thunk)
    }
}

/// The bytes that replace the `len` bytes at position `from`: a jump to position `to`, and what traps behind it.
/// `None` if it is too far.
#[must_use]
pub fn jump(from: i64, to: i64, len: usize) -> Option<([u8; 16], usize)> {
    let distance = i32::try_from(to - (from + JUMP_LEN as i64)).ok()?;
    let mut code = [FILLER; 16];
    code[0] = 0xe9;
    code[1..JUMP_LEN].copy_from_slice(&distance.to_le_bytes());
    (JUMP_LEN..=code.len())
        .contains(&len)
        .then_some((code, len))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, Register};

    use super::*;

    const SLOT: u64 = 0xffff_ffff_8030_0000;
    /// Where offset 0 of the file is pretended to lie.
    const BASES: [u64; 3] = [0, 0x40_0000, 0x7f12_3456_7000];

    fn decode(bytes: &[u8], address: u64) -> Vec<Instruction> {
        Decoder::with_ip(64, bytes, address, DecoderOptions::NONE)
            .into_iter()
            .collect()
    }

    #[test]
    fn pattern_1_loads_the_number_and_the_return_address() {
        let (at, return_to) = (0x1d_b000_i64, 0x1_2347_i64);
        let thunk = Thunk::load_and_call(at, 39, return_to, SLOT).expect("fits");
        for base in BASES {
            let code = decode(thunk.bytes(), base + at as u64);
            let [mov, lea, jmp] = code[..] else {
                panic!("{code:?}")
            };
            assert_eq!(mov.mnemonic(), Mnemonic::Mov);
            assert_eq!(mov.op0_register(), Register::EAX);
            assert_eq!(mov.immediate32(), 39);
            assert_eq!(lea.mnemonic(), Mnemonic::Lea);
            assert_eq!(lea.op0_register(), Register::RCX);
            assert_eq!(lea.ip_rel_memory_address(), base + return_to as u64);
            assert_eq!(jmp.mnemonic(), Mnemonic::Jmp);
            assert_eq!(jmp.memory_base(), Register::None);
            assert_eq!(jmp.memory_index(), Register::None);
            assert_eq!(jmp.memory_displacement64(), SLOT);
        }
        assert_eq!(thunk.call_end, thunk.bytes().len());
        assert!(thunk.bytes().len() as u64 <= THUNK_ALIGN);
    }

    #[test]
    fn pattern_2_returns_into_the_thunk_and_goes_on_behind() {
        // cmp $-4095, %rax
        let displaced = [0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff];
        let (at, from) = (-0x4000_i64, 0x1000_i64);
        let thunk =
            Thunk::call_and_continue(at, &displaced, Lengths::one(6), from, SLOT).expect("fits");
        for base in BASES.into_iter().skip(1) {
            let place = base.wrapping_add_signed(at);
            let code = decode(thunk.bytes(), place);
            let [lea, jmp, rcx, cmp, back] = code[..] else {
                panic!("{code:?}")
            };
            assert_eq!(lea.ip_rel_memory_address(), place + thunk.call_end as u64);
            assert_eq!(jmp.memory_displacement64(), SLOT);
            assert_eq!(rcx.ip(), place + thunk.call_end as u64);
            assert_eq!(rcx.op0_register(), Register::RCX);
            assert_eq!(rcx.ip_rel_memory_address(), base + 0x1002);
            assert_eq!(cmp.mnemonic(), Mnemonic::Cmp);
            assert_eq!(cmp.ip(), place + u64::from(thunk.displaced[0]));
            assert_eq!(back.near_branch_target(), base + 0x1008);
        }
        assert!(thunk.bytes().len() as u64 <= THUNK_ALIGN, "the usual form");
    }

    #[test]
    fn a_cpuid_keeps_what_it_reads() {
        // and $0xff00, %ecx
        let displaced = [0x81, 0xe1, 0x00, 0xff, 0x00, 0x00];
        let (at, from) = (-0x4000_i64, 0x1000_i64);
        let lengths = Lengths::one(6);
        let thunk = Thunk::enter_and_continue(Call::Cpuid, at, &displaced, lengths, from, SLOT)
            .expect("fits");
        let place = 0x40_0000u64.wrapping_add_signed(at);
        let code = decode(thunk.bytes(), place);
        let [lea, jmp, and, back] = code[..] else {
            panic!("{code:?}")
        };
        assert_eq!(lea.op0_register(), Register::RDX);
        assert_eq!(lea.ip_rel_memory_address(), and.ip());
        assert_eq!(jmp.memory_displacement64(), SLOT);
        assert_eq!(and.mnemonic(), Mnemonic::And);
        assert_eq!(back.near_branch_target(), 0x40_1008);
    }

    #[test]
    fn pattern_3_runs_what_stood_before() {
        // mov 0x1000(%rip), %r9
        let code = [0x4c, 0x8b, 0x0d, 0x00, 0x10, 0x00, 0x00];
        let (at, from) = (0x8000_i64, 0x1000_i64);
        let thunk = Thunk::run_and_call(at, &code, Lengths::one(7), from, SLOT).expect("fits");
        for base in BASES {
            let code = decode(thunk.bytes(), base + at as u64);
            let [mov, lea, jmp] = code[..] else {
                panic!("{code:?}")
            };
            assert_eq!(mov.op0_register(), Register::R9);
            assert_eq!(mov.ip_rel_memory_address(), base + 0x2007);
            assert_eq!(lea.ip(), base + at as u64 + thunk.call_at as u64);
            assert_eq!(lea.ip_rel_memory_address(), base + 0x1009);
            assert_eq!(jmp.memory_displacement64(), SLOT);
        }
    }

    #[test]
    fn distances_are_adapted() {
        // cmpl $1, 0x100(%rip); je .+2+0x10
        let code = [0x83, 0x3d, 0x00, 0x01, 0, 0, 0x01, 0x74, 0x10];
        let lengths = [7, 2];
        let (at, from) = (0x9000_i64, 0x2000_i64);
        let behind = crate::translate::decode::behind(
            &crate::translate::decode::Text {
                bytes: &[&[0x0f, 0x05][..], &code[..]].concat(),
                syscall: 0,
                address: 0,
            },
            true,
        );
        assert_eq!(behind.map(|found| found.sum()), Some(7), "room enough");
        for (code, lengths) in [(&code[..7], &lengths[..1]), (&code[7..], &lengths[1..])] {
            let lengths = Lengths::one(lengths[0]);
            let thunk = Thunk::call_and_continue(at, code, lengths, from, SLOT).expect("fits");
            let found = decode(thunk.bytes(), at as u64);
            let moved = found[3];
            let here = from as u64 + 2 + code.len() as u64;
            match moved.mnemonic() {
                Mnemonic::Cmp => {
                    assert_eq!(moved.ip_rel_memory_address(), here + 0x100);
                    assert_eq!(moved.immediate8(), 1);
                }
                Mnemonic::Je => assert_eq!(moved.near_branch_target(), here + 0x10),
                other => panic!("{other:?}"),
            }
            assert_eq!(found[4].near_branch_target(), here);
        }
    }

    #[test]
    fn jumps_replace_whole_instructions() {
        for len in [5, 6, 7, 8, 9] {
            let (code, filled) = jump(0x1000, 0x9000, len).expect("near");
            assert_eq!(filled, len);
            let jump = decode(&code[..5], 0x1000);
            assert_eq!(jump[0].near_branch_target(), 0x9000);
            assert!(code[5..len].iter().all(|byte| is_trapping(*byte)));
        }
        assert!(jump(0, 0x9000, 4).is_none(), "no room");
        assert!(jump(0, 0x9000, 17).is_none());
    }

    #[test]
    fn trapping_bytes_are_no_instructions_whatever_follows() {
        for byte in (0..=255u8).filter(|byte| is_trapping(*byte)) {
            for next in 0..=255u8 {
                let code = [byte, next, next, next, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                let mut decoder = Decoder::with_ip(64, &code, 0, DecoderOptions::NONE);
                assert!(decoder.decode().is_invalid(), "{code:x?}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(jump(0, (1 << 31) + 5, 5).is_none());
        assert!(jump(0, (1 << 31) + 4, 5).is_some());
        assert!(Thunk::load_and_call(0, 1, 1 << 32, SLOT).is_none());
        assert!(Thunk::load_and_call(0, 1, 0, 0x8000_0000).is_none());
        let long = [0x90; 60];
        assert!(Thunk::run_and_call(0, &long, Lengths::one(60), 0, SLOT).is_none());
    }
}
