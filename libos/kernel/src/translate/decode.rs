//! Which instructions surround a `syscall`: the decision whether a site may be patched.
//!
//! # What has to be shown
//! Pattern 1 replaces one instruction M (`mov $nr, %eax` or `mov $nr, %rax`) that ends where the `syscall` at
//! address S begins, by a jump to a thunk that does the same and does not come back to S. That is the same
//! program if and only if no execution ever begins an instruction strictly inside M, nor executes an
//! instruction that begins before M and contains bytes of it. In one sentence: **M is really an
//! instruction of the program, not the tail of a longer one.** The bytes alone do not say so:
//! `c7 45 b8 27 00 00 00 0f 05` ends like `mov $39, %eax; syscall` and is `movl $39, -0x48(%rbp); syscall`.
//!
//! # Proof
//! S is known to begin an instruction: it was executed. Decode the text before S from *every* offset (each
//! needs no guess) and follow each chain of instructions until it runs into S. A chain is *good* if it passes
//! through M's first byte and so comes to S, *bad* if it comes to S otherwise, and *void* if it hits bytes that
//! are no instruction or jumps over S.
//!
//! **Rule**: accept if among the 15 offsets of some run of 15 consecutive ones before S there is a good one
//! and no bad one.
//!
//! Assume that the text from the run's first offset to S is code without gaps (A). No instruction is longer than
//! 15 bytes, so one of the 15 offsets begins an instruction of the program, and the chain from there *is* the
//! program's instructions, up to S. It is not void: the program's instructions decode, and one of them
//! begins at S. It is not bad, by the rule. So it is good: M is an instruction of the program. ∎
//!
//! Runs further from S are as valid as near ones, and chains tend to merge the longer they are, so all
//! runs in the window are tried; if A holds for the window, each accepting run is a proof of its own.
//!
//! # When (A) fails
//! Compilers for x86-64 put no data into code; padding between functions is made of instructions. Assembly
//! may. Therefore these also veto, each only able to reject more:
//! - a run has fewer than [`MIN_GOOD`] good chains: from the middle of code's instructions most chains find their way
//!   back, in data most are void;
//! - the register the instruction would have loaded does not hold the number at the trap, or `r8` does and
//!   the byte before is a REX prefix that would make it `mov $nr, %r8d`;
//! - a chain from a place where a function is likely to begin (`endbr64`; a 16-byte boundary behind
//!   padding or `ret`) is bad;
//! - a direct branch seen on a good chain, or in the text after S, leads into M behind its first byte, or to
//!   where a bad chain begins (code that jumps over data).
//!
//! What is left is code written to deceive: it changes its own process, and no other than those
//! that run the same file, which could as well have been written differently.
//!
//! # Patterns 2 and 3
//! Pattern 3 is pattern 1 with any instruction M of at least five bytes that means the same elsewhere and is followed
//! by no more than a few such instructions up to S ([`before`]); the proof is the same. Only M is replaced; the thunk runs
//! copies of the others, and who jumps to them finds them. Pattern 2 replaces S itself and the instructions behind it ([`behind`]). That these are instructions needs
//! no proof: the call at S returns to them. That nobody jumps between them needs none either: see
//! [`super::thunk::is_trapping`].

use core::cmp::Ordering;

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

/// Bytes before a `syscall` that are looked at.
pub const BEFORE: usize = 64;
/// Bytes after a `syscall` that are looked at.
pub const AFTER: usize = 32;
/// Length of `syscall`.
pub const SYSCALL_LEN: usize = 2;
/// The longest instruction, by the architecture.
const MAX_INSTRUCTION: usize = 15;
/// Good chains a run must have: in code most are, in data few (see "When (A) fails").
const MIN_GOOD: usize = 5;
/// How far before the `syscall` pattern 3 looks.
const BEFORE_MAX: usize = 30;
/// Bytes a near jump takes.
const JUMP_LEN: usize = 5;
const RT_SIGRETURN: u64 = 15;
const SYSCALL: [u8; SYSCALL_LEN] = [0x0f, 0x05];
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// The text around a `syscall` that was executed.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// At most [`BEFORE`] bytes before the `syscall`, itself, at most [`AFTER`] bytes after it. More is
    /// better, as far as the mapping goes.
    pub bytes: &'a [u8],
    /// Where in `bytes` the `syscall` begins.
    pub syscall: usize,
    /// Address of `bytes[0]`.
    pub address: u64,
}

/// What the registers held when the `syscall` trapped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registers {
    /// The number.
    pub rax: u64,
    /// The fifth argument.
    pub r8: u64,
}

/// What a site is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// `mov $nr, %eax` (`len` 5) or `mov $nr, %rax` (`len` 7), proven to be executed right before.
    Pattern1 {
        /// The number; fits 31 bits.
        nr: u32,
        /// Length of the `mov`.
        len: u8,
    },
    /// `rt_sigreturn`: unwinders know its trampoline by its bytes.
    Restorer,
    /// Looks like pattern 1, but is not proven.
    Ambiguous,
    /// A `syscall`, but the number comes from elsewhere.
    Unloaded,
    /// No `syscall`.
    Other,
}

/// The most instructions a thunk takes over.
pub const MAX_DISPLACED: usize = 6;

/// Instructions that are to run in a thunk: their lengths, 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lengths([u8; MAX_DISPLACED]);

impl Lengths {
    /// Of one instruction.
    #[must_use]
    pub fn one(len: u8) -> Self {
        let mut lengths = Self::default();
        lengths.0[0] = len;
        lengths
    }

    /// The first one's.
    #[must_use]
    pub fn first(&self) -> usize {
        usize::from(self.0[0])
    }

    /// Each, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.0
            .into_iter()
            .map(usize::from)
            .take_while(|len| *len > 0)
    }

    /// Bytes of all.
    #[must_use]
    pub fn sum(&self) -> usize {
        self.iter().sum()
    }
}

/// Fate of the chain of instructions that begins at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chain {
    Good,
    Bad,
    Void,
}

/// One decoded offset.
#[derive(Clone, Copy)]
struct Step {
    len: u8,
    /// Target of a direct near branch, relative to the window; `None` for all else.
    branch: Option<i64>,
    /// Control does not go on to the next instruction.
    ends: bool,
}

/// Decides what the site is.
#[must_use]
pub fn classify(text: &Text<'_>, registers: &Registers) -> Site {
    if is_restorer(registers.rax) {
        return Site::Restorer;
    }
    let Some(rest) = text.bytes.get(text.syscall..) else {
        return Site::Other;
    };
    if !rest.starts_with(&SYSCALL) {
        return Site::Other;
    }
    match load_of_number(&text.bytes[..text.syscall], registers) {
        Load::Found { nr, len } if proven(text, len, len) => Site::Pattern1 {
            nr,
            len: u8::try_from(len).unwrap_or(0),
        },
        Load::Found { .. } | Load::Contradicted => Site::Ambiguous,
        Load::None => Site::Unloaded,
    }
}

/// Whether the call is `rt_sigreturn`.
#[must_use]
pub fn is_restorer(nr: u64) -> bool {
    nr == RT_SIGRETURN
}

enum Load {
    Found { nr: u32, len: usize },
    Contradicted,
    None,
}

/// Whether `before` ends like a load of the number, and whether the registers agree.
fn load_of_number(before: &[u8], registers: &Registers) -> Load {
    let Some((head, immediate)) = before.split_last_chunk::<4>() else {
        return Load::None;
    };
    let nr = u32::from_le_bytes(*immediate);
    let len = match head {
        [.., 0x48, 0xc7, 0xc0] => 7,
        [.., 0xb8] => 5,
        _ => return Load::None,
    };
    // Zero-extended in one form and sign-extended in the other: the same below 2^31.
    if i32::try_from(nr).is_err() || registers.rax != u64::from(nr) {
        return Load::Contradicted;
    }
    let is_rex_b = matches!(head, [.., rex, 0xb8] if rex & 0xf1 == 0x41);
    if len == 5 && is_rex_b && registers.r8 == u64::from(nr) {
        return Load::Contradicted;
    }
    Load::Found { nr, len }
}

/// Decodes a text here and there, without looking at anything twice as far as chains go.
struct Chains<'a> {
    text: &'a Text<'a>,
    decoder: Decoder<'a>,
    /// The first offset that is looked at; the tables below begin there.
    first: usize,
    /// Where the instruction to be replaced begins and ends.
    start: usize,
    end: usize,
    steps: [Option<Step>; BEFORE],
    fates: [Option<Chain>; BEFORE],
}

impl<'a> Chains<'a> {
    fn new(text: &'a Text<'a>, start: usize, len: usize) -> Self {
        Self {
            text,
            decoder: decoder(text),
            first: text.syscall.saturating_sub(BEFORE),
            start,
            end: start + len,
            steps: [None; BEFORE],
            fates: [None; BEFORE],
        }
    }

    /// The fate of the chain that begins at `offset`, which lies before the `syscall`.
    fn fate(&mut self, offset: usize) -> Chain {
        let mut path = [0; BEFORE];
        let mut len = 0;
        let mut at = offset;
        let fate = loop {
            if let Some(fate) = self.fates[at - self.first] {
                break fate;
            }
            path[len] = at;
            len += 1;
            let Some(step) = step(&mut self.decoder, self.text, at) else {
                break Chain::Void;
            };
            self.steps[at - self.first] = Some(step);
            if at == self.start {
                break Chain::Good;
            }
            at += usize::from(step.len);
            match at.cmp(&self.text.syscall) {
                Ordering::Less => {}
                Ordering::Equal => break Chain::Bad,
                Ordering::Greater => break Chain::Void,
            }
        };
        for at in &path[..len] {
            self.fates[at - self.first] = Some(fate);
        }
        fate
    }

    /// The farthest run that accepts: its first offset.
    fn accepting_run(&mut self) -> Option<usize> {
        let last = (self.text.syscall + 1).checked_sub(MAX_INSTRUCTION)?;
        (self.first..last).find(|from| {
            let mut good = 0;
            for offset in *from..from + MAX_INSTRUCTION {
                match self.fate(offset) {
                    Chain::Good => good += 1,
                    Chain::Bad => return false,
                    Chain::Void => {}
                }
            }
            good >= MIN_GOOD
        })
    }

    /// Whether a branch of the program to `target` agrees with the load's being an instruction.
    fn allows_branch(&mut self, target: Option<i64>) -> bool {
        let Some(target) = target.and_then(|target| usize::try_from(target).ok()) else {
            return true;
        };
        if target > self.start && target < self.end {
            return false;
        }
        // Behind it every chain misses it.
        !(self.first..self.start).contains(&target) || self.fate(target) != Chain::Bad
    }

    /// Whether all branches of the program that are in sight allow it: those of the instructions on good chains
    /// from the run at `run` on, and those behind the `syscall`.
    fn branches_allow(&mut self, run: usize) -> bool {
        let mut seen = [false; BEFORE];
        for from in run..run + MAX_INSTRUCTION {
            let mut at = from;
            while at < self.start && !seen[at - self.first] && self.fate(at) == Chain::Good {
                seen[at - self.first] = true;
                let Some(step) = self.steps[at - self.first] else {
                    break;
                };
                if !self.allows_branch(step.branch) {
                    return false;
                }
                at += usize::from(step.len);
            }
        }
        let mut at = self.text.syscall + SYSCALL_LEN;
        while let Some(step) = step(&mut self.decoder, self.text, at) {
            if !self.allows_branch(step.branch) {
                return false;
            }
            if step.ends {
                break;
            }
            at += usize::from(step.len);
        }
        true
    }
}

/// The rule of the module's documentation, with its vetoes: whether an instruction of `len` bytes begins `distance` before
/// the `syscall`.
fn proven(text: &Text<'_>, distance: usize, len: usize) -> bool {
    let mut chains = Chains::new(text, text.syscall - distance, len);
    let Some(run) = chains.accepting_run() else {
        return false;
    };
    let contradicted = (chains.first..chains.end)
        .any(|at| likely_function_start(text, at) && chains.fate(at) == Chain::Bad);
    !contradicted && chains.branches_allow(run)
}

/// Whether compilers and assemblers like to begin functions at `offset`.
fn likely_function_start(text: &Text<'_>, offset: usize) -> bool {
    if text.bytes[offset..].starts_with(&ENDBR64) {
        return true;
    }
    let aligned = (text.address + offset as u64).is_multiple_of(16);
    // ret, int3, nop, and the ends of the longer nops.
    const PADDING: [&[u8]; 6] = [
        &[0xc3],
        &[0xcc],
        &[0x90],
        &[0x0f, 0x1f, 0x00],
        &[0x0f, 0x1f, 0x40, 0x00],
        &[0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
    ];
    aligned
        && PADDING
            .iter()
            .any(|padding| text.bytes[..offset].ends_with(padding))
}

fn decoder<'a>(text: &Text<'a>) -> Decoder<'a> {
    Decoder::with_ip(64, text.bytes, text.address, DecoderOptions::NONE)
}

/// The instruction at `offset`; `decoder` is the text's.
fn decode(decoder: &mut Decoder<'_>, text: &Text<'_>, offset: usize) -> Option<Instruction> {
    if offset >= text.bytes.len() {
        return None;
    }
    decoder.set_position(offset).ok()?;
    decoder.set_ip(text.address.wrapping_add(offset as u64));
    let instruction = decoder.decode();
    (instruction.code() != Code::INVALID).then_some(instruction)
}

fn step(decoder: &mut Decoder<'_>, text: &Text<'_>, offset: usize) -> Option<Step> {
    let instruction = decode(decoder, text, offset)?;
    let branch = (instruction.op_count() > 0
        && matches!(
            instruction.op0_kind(),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
        ))
    .then(|| {
        instruction
            .near_branch_target()
            .wrapping_sub(text.address)
            .cast_signed()
    });
    Some(Step {
        len: u8::try_from(instruction.len()).unwrap_or(0),
        branch,
        ends: matches!(
            instruction.mnemonic(),
            Mnemonic::Jmp | Mnemonic::Ret | Mnemonic::Ud2 | Mnemonic::Hlt | Mnemonic::Int3
        ),
    })
}

/// The instructions behind the `syscall` that mean the same elsewhere: as many as make, with it, room for a jump.
/// The last may be a branch, which a thunk can do as well, or a `ret`. `returns`: the call comes back. If it does not, only
/// the usual test for an error is taken for code: nothing else looks like it.
#[must_use]
pub fn behind(text: &Text<'_>, returns: bool) -> Option<Lengths> {
    const ERROR_TEST: [[u8; 6]; 2] = [
        [0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff],
        [0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff],
    ];
    let follows = text.bytes.get(text.syscall + SYSCALL_LEN..)?;
    if !returns && !ERROR_TEST.iter().any(|test| follows.starts_with(test)) {
        return None;
    }
    let mut decoder = decoder(text);
    let mut lengths = Lengths::default();
    let mut offset = text.syscall + SYSCALL_LEN;
    for len in &mut lengths.0 {
        let instruction = decode(&mut decoder, text, offset)?;
        offset += instruction.len();
        *len = u8::try_from(instruction.len()).ok()?;
        let is_room = offset - text.syscall >= JUMP_LEN;
        let is_movable =
            means_the_same_elsewhere(&instruction) || is_room && is_movable_end(&instruction);
        if !is_movable {
            return None;
        }
        if is_room {
            return Some(lengths);
        }
    }
    None
}

/// The instructions from one that makes room for a jump up to the `syscall`, if that one is proven to be one and all mean
/// the same elsewhere (pattern 3).
#[must_use]
pub fn before(text: &Text<'_>) -> Option<Lengths> {
    let mut decoder = decoder(text);
    let nearest = text.syscall.checked_sub(JUMP_LEN)?;
    (text.syscall.saturating_sub(BEFORE_MAX)..=nearest)
        .rev()
        .find_map(|from| {
            let lengths = straight(&mut decoder, text, from)?;
            let is_room = lengths.first() >= JUMP_LEN;
            (is_room && proven(text, text.syscall - from, lengths.first())).then_some(lengths)
        })
}

/// The instructions from `from` up to the `syscall`, if all mean the same elsewhere.
fn straight(decoder: &mut Decoder<'_>, text: &Text<'_>, from: usize) -> Option<Lengths> {
    let mut lengths = Lengths::default();
    let mut offset = from;
    for len in &mut lengths.0 {
        let instruction = decode(decoder, text, offset)?;
        if !means_the_same_elsewhere(&instruction) {
            return None;
        }
        *len = u8::try_from(instruction.len()).ok()?;
        offset += instruction.len();
        if offset >= text.syscall {
            break;
        }
    }
    (offset == text.syscall).then_some(lengths)
}

/// Whether an instruction does the same at any address, once a distance in it is adapted: a short list of what
/// stands around system calls, rather than one of what does not.
fn means_the_same_elsewhere(instruction: &Instruction) -> bool {
    matches!(
        instruction.mnemonic(),
        Mnemonic::Adc
            | Mnemonic::Add
            | Mnemonic::And
            | Mnemonic::Bsf
            | Mnemonic::Bsr
            | Mnemonic::Bt
            | Mnemonic::Cdq
            | Mnemonic::Cdqe
            | Mnemonic::Cmova
            | Mnemonic::Cmovae
            | Mnemonic::Cmovb
            | Mnemonic::Cmovbe
            | Mnemonic::Cmove
            | Mnemonic::Cmovg
            | Mnemonic::Cmovge
            | Mnemonic::Cmovl
            | Mnemonic::Cmovle
            | Mnemonic::Cmovne
            | Mnemonic::Cmovns
            | Mnemonic::Cmovs
            | Mnemonic::Cmp
            | Mnemonic::Cqo
            | Mnemonic::Dec
            | Mnemonic::Imul
            | Mnemonic::Inc
            | Mnemonic::Lea
            | Mnemonic::Leave
            | Mnemonic::Mov
            | Mnemonic::Movaps
            | Mnemonic::Movd
            | Mnemonic::Movdqa
            | Mnemonic::Movdqu
            | Mnemonic::Movq
            | Mnemonic::Movsx
            | Mnemonic::Movsxd
            | Mnemonic::Movups
            | Mnemonic::Movzx
            | Mnemonic::Neg
            | Mnemonic::Nop
            | Mnemonic::Not
            | Mnemonic::Or
            | Mnemonic::Pop
            | Mnemonic::Push
            | Mnemonic::Pxor
            | Mnemonic::Rol
            | Mnemonic::Ror
            | Mnemonic::Sar
            | Mnemonic::Sbb
            | Mnemonic::Seta
            | Mnemonic::Setae
            | Mnemonic::Setb
            | Mnemonic::Setbe
            | Mnemonic::Sete
            | Mnemonic::Setg
            | Mnemonic::Setge
            | Mnemonic::Setl
            | Mnemonic::Setle
            | Mnemonic::Setne
            | Mnemonic::Setns
            | Mnemonic::Sets
            | Mnemonic::Shl
            | Mnemonic::Shr
            | Mnemonic::Sub
            | Mnemonic::Test
            | Mnemonic::Xor
    ) && instruction.memory_base() != Register::EIP
        && !loads_segment(instruction)
}

/// `mov` to a segment register holds interrupts and steps back for an instruction.
fn loads_segment(instruction: &Instruction) -> bool {
    instruction.op_count() > 0
        && instruction.op0_kind() == OpKind::Register
        && matches!(
            instruction.op0_register(),
            Register::CS | Register::DS | Register::ES | Register::FS | Register::GS | Register::SS
        )
}

/// Whether a thunk can end with it: a near branch without prefixes, or a plain `ret`.
fn is_movable_end(instruction: &Instruction) -> bool {
    instruction.code() == Code::Retnq && instruction.len() == 1
        || branch_opcode(instruction).is_some()
}

/// The opcode with a 32-bit distance of a jump or conditional jump without prefixes: `None` for all else. One byte
/// jumps have the second byte 0.
pub(super) fn branch_opcode(instruction: &Instruction) -> Option<[u8; 2]> {
    // The instruction as long as it is without prefixes.
    let condition = match instruction.mnemonic() {
        Mnemonic::Jmp => {
            let plain = match instruction.code() {
                Code::Jmp_rel8_64 => 2,
                Code::Jmp_rel32_64 => 5,
                _ => return None,
            };
            return (instruction.len() == plain).then_some([0xe9, 0]);
        }
        Mnemonic::Jo => 0,
        Mnemonic::Jno => 1,
        Mnemonic::Jb => 2,
        Mnemonic::Jae => 3,
        Mnemonic::Je => 4,
        Mnemonic::Jne => 5,
        Mnemonic::Jbe => 6,
        Mnemonic::Ja => 7,
        Mnemonic::Js => 8,
        Mnemonic::Jns => 9,
        Mnemonic::Jp => 10,
        Mnemonic::Jnp => 11,
        Mnemonic::Jl => 12,
        Mnemonic::Jge => 13,
        Mnemonic::Jle => 14,
        Mnemonic::Jg => 15,
        _ => return None,
    };
    matches!(instruction.len(), 2 | 6).then_some([0x0f, 0x80 | condition])
}

/// Builds the decoder's tables, so that the first trapped call does not pay for it on a thread's stack.
pub fn warm_up() {
    let text = Text {
        bytes: &[0x90],
        syscall: 0,
        address: 0,
    };
    let _ = decode(&mut decoder(&text), &text, 0);
}

#[cfg(test)]
mod tests;
