//! Classic BPF as seccomp filters use it (`bpf(4)`, `seccomp(2)`): checked once, then run for each call.

use alloc::vec::Vec;

use crate::{Errno, Result};

/// Bytes of `struct seccomp_data`, which a program looks at.
pub const DATA_BYTES: usize = 64;
/// Instructions of a program (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;
/// Words of scratch memory.
const MEMORY: usize = 16;

/// Instruction classes and modes, as in `linux/bpf_common.h`.
mod code {
    pub const LD_ABS: u16 = 0x20;
    pub const LD_LEN: u16 = 0x80;
    pub const LD_IMM: u16 = 0x00;
    pub const LD_MEM: u16 = 0x60;
    pub const LDX_LEN: u16 = 0x81;
    pub const LDX_IMM: u16 = 0x01;
    pub const LDX_MEM: u16 = 0x61;
    pub const ST: u16 = 0x02;
    pub const STX: u16 = 0x03;
    pub const RET_K: u16 = 0x06;
    pub const RET_A: u16 = 0x16;
    pub const TAX: u16 = 0x07;
    pub const TXA: u16 = 0x87;
    pub const NEG: u16 = 0x84;
    pub const JA: u16 = 0x05;
    /// Classes whose operand is `k`, or with [`X`] the index register.
    pub const ALU: u16 = 0x04;
    pub const JUMP: u16 = 0x05;
    pub const X: u16 = 0x08;
    pub const CLASS: u16 = 0x07;
    pub const OPERATION: u16 = 0xf0;
    pub const ADD: u16 = 0x00;
    pub const SUB: u16 = 0x10;
    pub const MUL: u16 = 0x20;
    pub const DIV: u16 = 0x30;
    pub const OR: u16 = 0x40;
    pub const AND: u16 = 0x50;
    pub const LSH: u16 = 0x60;
    pub const RSH: u16 = 0x70;
    pub const XOR: u16 = 0xa0;
    pub const JEQ: u16 = 0x10;
    pub const JGT: u16 = 0x20;
    pub const JGE: u16 = 0x30;
    pub const JSET: u16 = 0x40;
}

/// An instruction (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    code: u16,
    /// Where to go on, counted from the next instruction, if a condition holds, and if it does not.
    jump: [u8; 2],
    k: u32,
}

impl Instruction {
    /// From its eight bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        let [c0, c1, jt, jf, k0, k1, k2, k3] = bytes;
        Self {
            code: u16::from_ne_bytes([c0, c1]),
            jump: [jt, jf],
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        }
    }

    fn operation(self) -> u16 {
        self.code & code::OPERATION
    }

    fn is_conditional(self) -> bool {
        self.code & code::CLASS == code::JUMP
            && self.code & !(code::CLASS | code::X | code::OPERATION) == 0
            && matches!(
                self.operation(),
                code::JEQ | code::JGT | code::JGE | code::JSET
            )
    }

    fn is_arithmetic(self) -> bool {
        self.code & code::CLASS == code::ALU
            && self.code & !(code::CLASS | code::X | code::OPERATION) == 0
            && matches!(
                self.operation(),
                code::ADD
                    | code::SUB
                    | code::MUL
                    | code::DIV
                    | code::OR
                    | code::AND
                    | code::LSH
                    | code::RSH
                    | code::XOR
            )
    }

    /// Whether it is one that filters may have, at `at` of `len` instructions.
    fn is_valid(self, at: usize, len: usize) -> bool {
        let k = self.k as usize;
        let behind = len - at - 1;
        match self.code {
            code::LD_ABS => k < DATA_BYTES && k.is_multiple_of(4),
            code::LD_MEM | code::LDX_MEM | code::ST | code::STX => k < MEMORY,
            code::JA => k < behind,
            code::LD_LEN
            | code::LD_IMM
            | code::LDX_LEN
            | code::LDX_IMM
            | code::RET_K
            | code::RET_A
            | code::TAX
            | code::TXA
            | code::NEG => true,
            _ if self.is_conditional() => self.jump.iter().all(|to| usize::from(*to) < behind),
            _ if self.is_arithmetic() => {
                let by_number = self.code & code::X == 0;
                match self.operation() {
                    code::DIV => !by_number || k != 0,
                    code::LSH | code::RSH => !by_number || k < 32,
                    _ => true,
                }
            }
            _ => false,
        }
    }
}

/// A checked program: it ends, and never leaves what it may look at.
#[derive(Debug)]
pub struct Program(Vec<Instruction>);

impl Program {
    /// Checks a program.
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn check(all: Vec<Instruction>) -> Result<Self> {
        let len = all.len();
        let ends = all
            .last()
            .is_some_and(|last| matches!(last.code, code::RET_K | code::RET_A));
        let are_valid = || {
            let mut each = all.iter().enumerate();
            each.all(|(at, one)| one.is_valid(at, len))
        };
        if len > MAX_INSTRUCTIONS || !ends || !are_valid() || !Self::reads_what_was_written(&all) {
            return Err(Errno::EINVAL);
        }
        Ok(Self(all))
    }

    /// Whether on every path scratch memory is written before it is read. Jumps go forward only.
    fn reads_what_was_written(all: &[Instruction]) -> bool {
        // What is written whenever an instruction is reached by a jump, a bit a word.
        let mut reached = alloc::vec![u16::MAX; all.len()];
        let mut written = 0u16;
        for (at, one) in all.iter().enumerate() {
            written &= reached[at];
            let bit = 1u16 << (one.k % MEMORY as u32);
            match one.code {
                code::ST | code::STX => written |= bit,
                code::LD_MEM | code::LDX_MEM if written & bit == 0 => return false,
                code::JA => {
                    reached[at + 1 + one.k as usize] &= written;
                    written = u16::MAX;
                }
                _ if one.is_conditional() => {
                    for to in one.jump {
                        reached[at + 1 + usize::from(to)] &= written;
                    }
                    written = u16::MAX;
                }
                _ => {}
            }
        }
        true
    }

    /// How many instructions it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Runs it over the words of a `struct seccomp_data`.
    #[must_use]
    pub fn run(&self, data: &[u32; DATA_BYTES / 4]) -> u32 {
        let (mut a, mut x) = (0u32, 0u32);
        let mut memory = [0u32; MEMORY];
        let mut at = 0;
        while let Some(one) = self.0.get(at) {
            at += 1;
            let place = one.k as usize % MEMORY;
            match one.code {
                code::RET_K => return one.k,
                code::RET_A => return a,
                code::LD_ABS => a = data[one.k as usize / 4 % data.len()],
                code::LD_LEN => a = DATA_BYTES as u32,
                code::LD_IMM => a = one.k,
                code::LD_MEM => a = memory[place],
                code::LDX_LEN => x = DATA_BYTES as u32,
                code::LDX_IMM => x = one.k,
                code::LDX_MEM => x = memory[place],
                code::ST => memory[place] = a,
                code::STX => memory[place] = x,
                code::TAX => x = a,
                code::TXA => a = x,
                code::NEG => a = a.wrapping_neg(),
                code::JA => at += one.k as usize,
                _ => {
                    let by = if one.code & code::X == 0 { one.k } else { x };
                    if one.is_conditional() {
                        let holds = match one.operation() {
                            code::JEQ => a == by,
                            code::JGT => a > by,
                            code::JGE => a >= by,
                            _ => a & by != 0,
                        };
                        at += usize::from(one.jump[usize::from(!holds)]);
                        continue;
                    }
                    a = match one.operation() {
                        code::ADD => a.wrapping_add(by),
                        code::SUB => a.wrapping_sub(by),
                        code::MUL => a.wrapping_mul(by),
                        // A division by zero ends the program with 0, as Linux has it.
                        code::DIV => match a.checked_div(by) {
                            Some(quotient) => quotient,
                            None => return 0,
                        },
                        code::OR => a | by,
                        code::AND => a & by,
                        code::LSH => a.wrapping_shl(by),
                        code::RSH => a.wrapping_shr(by),
                        _ => a ^ by,
                    };
                }
            }
        }
        // No checked program gets here.
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn one(code: u16, jump: [u8; 2], k: u32) -> Instruction {
        Instruction { code, jump, k }
    }

    fn plain(code: u16, k: u32) -> Instruction {
        one(code, [0, 0], k)
    }

    fn run(all: Vec<Instruction>, data: &[u32; 16]) -> Result<u32> {
        Program::check(all).map(|program| program.run(data))
    }

    #[test]
    fn looks_and_jumps() {
        let program = vec![
            plain(code::LD_ABS, 4),
            one(code::JUMP | code::JEQ, [1, 0], 7),
            plain(code::RET_K, 1),
            plain(code::LD_ABS, 0),
            one(code::JUMP | code::JGE, [0, 1], 100),
            plain(code::RET_K, 2),
            plain(code::RET_A, 0),
        ];
        let data = |nr, arch| core::array::from_fn(|at| [nr, arch].get(at).copied().unwrap_or(0));
        assert_eq!(run(program.clone(), &data(5, 6)), Ok(1));
        assert_eq!(run(program.clone(), &data(100, 7)), Ok(2));
        assert_eq!(run(program, &data(99, 7)), Ok(99));
    }

    #[test]
    fn arithmetic() {
        let data = [0; 16];
        for (operation, a, by, expected) in [
            (code::ADD, u32::MAX, 2, 1),
            (code::SUB, 1, 2, u32::MAX),
            (code::MUL, 1 << 31, 2, 0),
            (code::DIV, 17, 5, 3),
            (code::DIV, 17, 0, 0),
            (code::AND, 12, 10, 8),
            (code::OR, 12, 10, 14),
            (code::XOR, 12, 10, 6),
            (code::LSH, 1, 31, 1 << 31),
            (code::RSH, 1 << 31, 31, 1),
        ] {
            let program = vec![
                plain(code::LDX_IMM, by),
                plain(code::LD_IMM, a),
                plain(code::ALU | code::X | operation, 0),
                plain(code::RET_A, 0),
            ];
            assert_eq!(run(program, &data), Ok(expected), "{operation:x}");
        }
    }

    #[test]
    fn memory_is_written_before_it_is_read() {
        let data = [0; 16];
        let store = |k| plain(code::ST, k);
        let load = |k| plain(code::LD_MEM, k);
        let end = plain(code::RET_A, 0);
        let good = vec![
            plain(code::LD_IMM, 9),
            store(3),
            plain(code::LD_IMM, 0),
            load(3),
            end,
        ];
        assert_eq!(run(good, &data), Ok(9));
        assert_eq!(run(vec![load(3), end], &data), Err(Errno::EINVAL));
        // Written on one of two ways only.
        let skipped = vec![
            one(code::JUMP | code::JEQ, [0, 1], 1),
            store(2),
            load(2),
            end,
        ];
        assert_eq!(run(skipped, &data), Err(Errno::EINVAL));
    }

    #[test]
    fn what_is_refused() {
        let end = plain(code::RET_K, 0);
        let refused = [
            vec![],
            vec![plain(code::LD_IMM, 1)],
            vec![plain(code::LD_ABS, 64), end],
            vec![plain(code::LD_ABS, 2), end],
            vec![plain(code::ST, 16), end],
            vec![plain(code::JA, 1), end],
            vec![plain(code::JA, u32::MAX), end],
            vec![one(code::JUMP | code::JGT, [0, 1], 0), end],
            vec![plain(code::ALU | code::DIV, 0), end],
            vec![plain(code::ALU | code::LSH, 32), end],
            // A load by index, a remainder, half a word, an unknown class.
            vec![plain(0x40, 0), end],
            vec![plain(0x94, 3), end],
            vec![plain(0x28, 0), end],
            vec![plain(0xff, 0), end],
            vec![end; MAX_INSTRUCTIONS + 1],
        ];
        for program in refused {
            assert!(Program::check(program.clone()).is_err(), "{program:?}");
        }
        assert_eq!(
            Program::check(vec![end; MAX_INSTRUCTIONS]).map(|p| p.len()),
            Ok(4096)
        );
    }

    /// Random instructions: whatever is accepted ends and gives something.
    #[test]
    fn random_programs_end() {
        let mut state = 77u64;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) % below
        };
        let mut accepted = 0;
        for _ in 0..200_000 {
            let len = 1 + random(6) as usize;
            let mut program: Vec<_> = (0..len)
                .map(|_| {
                    let codes = [
                        0x20, 0, 0x60, 1, 0x61, 2, 3, 7, 0x87, 0x84, 5, 0x15, 0x1d, 0x25, 4, 0x3c,
                    ];
                    let code = codes[random(codes.len() as u64) as usize];
                    one(
                        code,
                        [random(4) as u8, random(4) as u8],
                        random(20) as u32 * 4,
                    )
                })
                .collect();
            program.push(plain(code::RET_A, 0));
            if let Ok(program) = Program::check(program) {
                accepted += 1;
                let _ = program.run(&core::array::from_fn(|at| at as u32));
            }
        }
        assert!(accepted > 10_000, "{accepted}");
    }
}
