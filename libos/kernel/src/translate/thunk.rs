//! The code of thunks and of the jumps to them.
//!
//! A thunk does what the replaced instructions did, enters the libOS as `syscall` would (rcx = return
//! address, r11 free, nothing on the user's stack, red zone untouched), and, for pattern 2, goes on with the
//! instructions it displaced:
//!
//! ```text
//! pattern 1                          pattern 2
//!   mov  $nr, %eax                     lea  1f(%rip), %rcx
//!   lea  ret(%rip), %rcx               jmp  *slot
//!   jmp  *slot                       1: displaced instructions
//!                                      jmp  behind them
//! ```
//!
//! `slot` is 8 bytes in the libOS image that hold the entry's address: an absolute address that fits 32 bits,
//! sign-extended. All else is distances, so the bytes are right wherever the file is mapped. Places are given as
//! *positions*: bytes from where offset 0 of the file would lie in the mapping.

/// Length of the jump to a thunk.
pub const JUMP_LEN: usize = 5;
/// Thunks begin at multiples of this.
pub const THUNK_ALIGN: u64 = 32;
/// No thunk is longer.
pub const THUNK_MAX: usize = 64;

/// A thunk's code.
#[derive(Clone, Copy, Debug)]
pub struct Thunk {
    bytes: [u8; THUNK_MAX],
    len: usize,
    /// Offset in the thunk behind the jump to the libOS: before it, nothing has happened yet.
    pub call_end: usize,
}

impl Thunk {
    const EMPTY: Self = Self {
        bytes: [0xcc; THUNK_MAX],
        len: 0,
        call_end: 0,
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

    /// Enters the libOS through `slot`.
    fn push_call(&mut self, slot: u64) -> Option<()> {
        let address = i32::try_from(slot.cast_signed()).ok()?;
        // jmp *disp32, without base or index.
        self.push(&[0xff, 0x24, 0x25])?;
        self.push(&address.to_le_bytes())?;
        self.call_end = self.len;
        Some(())
    }

    /// Pattern 1: the thunk at position `at` that returns to position `return_to`.
    ///
    /// `None` if a distance does not fit, or `slot` does not lie within 2 GiB of the address space's end.
    #[must_use]
    pub fn load_and_call(at: i64, nr: u32, return_to: i64, slot: u64) -> Option<Self> {
        let mut thunk = Self::EMPTY;
        thunk.push(&[0xb8])?;
        thunk.push(&nr.to_le_bytes())?;
        thunk.push_relative(&[0x48, 0x8d, 0x0d], at, return_to)?;
        thunk.push_call(slot)?;
        Some(thunk)
    }

    /// Pattern 2: the thunk at position `at` that runs the `displaced` instructions and goes on at position
    /// `continue_at`. `None` as above, or if there are too many.
    #[must_use]
    pub fn call_and_continue(
        at: i64,
        displaced: &[u8],
        continue_at: i64,
        slot: u64,
    ) -> Option<Self> {
        const LEA_AND_JUMP: i64 = 7 + 7;
        let mut thunk = Self::EMPTY;
        thunk.push_relative(&[0x48, 0x8d, 0x0d], at, at + LEA_AND_JUMP)?;
        thunk.push_call(slot)?;
        thunk.push(displaced)?;
        thunk.push_relative(&[0xe9], at, continue_at)?;
        Some(thunk)
    }
}

/// The bytes that replace the `len` bytes at position `from`: a jump to position `to`, padded with `nop`s that
/// are never reached. `None` if it is too far.
#[must_use]
pub fn jump(from: i64, to: i64, len: usize) -> Option<([u8; 16], usize)> {
    const NOPS: [&[u8]; 4] = [&[], &[0x90], &[0x66, 0x90], &[0x0f, 0x1f, 0x00]];
    let distance = i32::try_from(to - (from + JUMP_LEN as i64)).ok()?;
    let padding = len.checked_sub(JUMP_LEN)?;
    let mut code = [0x90; 16];
    code[0] = 0xe9;
    code[1..JUMP_LEN].copy_from_slice(&distance.to_le_bytes());
    code.get_mut(JUMP_LEN..len)?;
    if let Some(nop) = NOPS.get(padding) {
        code[JUMP_LEN..len].copy_from_slice(nop);
    }
    Some((code, len))
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
        let (at, continue_at) = (-0x4000_i64, 0x1008_i64);
        let thunk = Thunk::call_and_continue(at, &displaced, continue_at, SLOT).expect("fits");
        for base in BASES.into_iter().skip(1) {
            let place = base.wrapping_add_signed(at);
            let code = decode(thunk.bytes(), place);
            let [lea, jmp, cmp, back] = code[..] else {
                panic!("{code:?}")
            };
            assert_eq!(lea.ip_rel_memory_address(), place + thunk.call_end as u64);
            assert_eq!(jmp.memory_displacement64(), SLOT);
            assert_eq!(cmp.mnemonic(), Mnemonic::Cmp);
            assert_eq!(cmp.ip(), place + thunk.call_end as u64);
            assert_eq!(back.near_branch_target(), base + continue_at as u64);
        }
    }

    #[test]
    fn jumps_replace_whole_instructions() {
        for len in [5, 6, 7, 8, 9] {
            let (code, filled) = jump(0x1000, 0x9000, len).expect("near");
            assert_eq!(filled, len);
            let code = decode(&code[..len], 0x1000);
            assert_eq!(code[0].near_branch_target(), 0x9000);
            assert!(code[1..].iter().all(|nop| nop.mnemonic() == Mnemonic::Nop));
        }
        assert!(jump(0, 0x9000, 4).is_none(), "no room");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(jump(0, (1 << 31) + 5, 5).is_none());
        assert!(jump(0, (1 << 31) + 4, 5).is_some());
        assert!(Thunk::load_and_call(0, 1, 1 << 32, SLOT).is_none());
        assert!(Thunk::load_and_call(0, 1, 0, 0x8000_0000).is_none());
        assert!(Thunk::call_and_continue(0, &[0x90; 60], 0, SLOT).is_none());
    }
}
