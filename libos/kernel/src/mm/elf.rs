//! ELF headers (`elf(5)`), from untrusted bytes.

use alloc::vec::Vec;

use husk_abi::boundary::layout::{PAGE_SIZE, USER_END};

use super::vma::Prot;
use crate::{Errno, Result};

/// Bytes of the file header.
pub const HEADER_BYTES: usize = 64;
/// Bytes of a program header.
pub const PHENT_BYTES: usize = 56;
/// The most program headers Linux reads.
const MAX_PHDRS: usize = 65_536 / PHENT_BYTES;

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_GNU_STACK: u32 = 0x6474_e551;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;

/// The file header's part that loading needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// `ET_DYN`: loads anywhere.
    pub is_dyn: bool,
    /// Entry point before the load bias.
    pub entry: u64,
    /// Offset of the program headers in the file.
    pub phoff: u64,
    /// Number of program headers.
    pub phnum: usize,
}

/// A loadable segment; before the load bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First address.
    pub vaddr: u64,
    /// Bytes in memory.
    pub mem_bytes: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub file_bytes: u64,
    /// Alignment, a power of two, at least a page.
    pub align: u64,
    /// Rights.
    pub prot: Prot,
}

/// The program headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Loadable segments in the file's order; never empty.
    pub segments: Vec<Segment>,
    /// Offset and length of the interpreter's path, NUL included.
    pub interpreter: Option<(u64, usize)>,
    /// Whether the stack must be executable.
    pub executable_stack: bool,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

impl Header {
    /// Reads the file header.
    ///
    /// # Errors
    /// `ENOEXEC` if it is not a 64-bit little-endian x86-64 program.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self> {
        const CLASS64_LSB: [u8; 6] = *b"\x7fELF\x02\x01";
        let kind = u16_at(bytes, 16);
        let header = Self {
            is_dyn: kind == ET_DYN,
            entry: u64_at(bytes, 24),
            phoff: u64_at(bytes, 32),
            phnum: usize::from(u16_at(bytes, 56)),
        };
        let sound = bytes[..6] == CLASS64_LSB
            && matches!(kind, ET_EXEC | ET_DYN)
            && u16_at(bytes, 18) == EM_X86_64
            && usize::from(u16_at(bytes, 54)) == PHENT_BYTES
            && (1..=MAX_PHDRS).contains(&header.phnum);
        sound.then_some(header).ok_or(Errno::ENOEXEC)
    }
}

impl Program {
    /// Reads `bytes`, the program headers.
    ///
    /// # Errors
    /// `ENOEXEC`; `EINVAL` for segments that cannot be mapped.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut program = Self::default();
        for header in bytes.chunks_exact(PHENT_BYTES) {
            match u32_at(header, 0) {
                PT_LOAD => program.segments.extend(segment(header)?),
                PT_INTERP if program.interpreter.is_none() => {
                    let len = u64_at(header, 32);
                    let len = usize::try_from(len)
                        .ok()
                        .filter(|len| (2..=4096).contains(len))
                        .ok_or(Errno::ENOEXEC)?;
                    program.interpreter = Some((u64_at(header, 8), len));
                }
                PT_GNU_STACK => program.executable_stack = u32_at(header, 4) & PF_X != 0,
                _ => {}
            }
        }
        if program.segments.is_empty() {
            return Err(Errno::EINVAL);
        }
        Ok(program)
    }

    /// The pages all segments lie in, before the load bias.
    #[must_use]
    pub fn span(&self) -> core::ops::Range<u64> {
        let pages = |s: &Segment| s.vaddr & !(PAGE_SIZE - 1)..s.end().next_multiple_of(PAGE_SIZE);
        let start = self.segments.iter().map(|s| pages(s).start).min();
        let end = self.segments.iter().map(|s| pages(s).end).max();
        start.unwrap_or(0)..end.unwrap_or(0)
    }

    /// The alignment the load bias must keep.
    #[must_use]
    pub fn align(&self) -> u64 {
        let aligns = self.segments.iter().map(|s| s.align);
        aligns.max().unwrap_or(PAGE_SIZE)
    }

    /// Where the program headers are in memory, before the load bias; 0 if no segment has them.
    #[must_use]
    pub fn phdr_address(&self, header: &Header) -> u64 {
        self.segments
            .iter()
            .find(|s| header.phoff >= s.offset && header.phoff - s.offset < s.file_bytes)
            .map_or(0, |s| header.phoff - s.offset + s.vaddr)
    }
}

impl Segment {
    /// One past its last address.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.vaddr + self.mem_bytes
    }
}

/// A `PT_LOAD` header; `None` if it is empty.
fn segment(header: &[u8]) -> Result<Option<Segment>> {
    let flags = u32_at(header, 4);
    let mut prot = Prot::empty();
    prot.set(Prot::READ, flags & PF_R != 0);
    prot.set(Prot::WRITE, flags & PF_W != 0);
    prot.set(Prot::EXEC, flags & PF_X != 0);
    let align = u64_at(header, 48);
    let segment = Segment {
        offset: u64_at(header, 8),
        vaddr: u64_at(header, 16),
        file_bytes: u64_at(header, 32),
        mem_bytes: u64_at(header, 40),
        // Linux ignores alignments that are no power of two.
        align: if align.is_power_of_two() && align < USER_END {
            align.max(PAGE_SIZE)
        } else {
            PAGE_SIZE
        },
        prot,
    };
    let fits = segment.vaddr < USER_END && segment.mem_bytes <= USER_END - segment.vaddr;
    let congruent = segment.offset % PAGE_SIZE == segment.vaddr % PAGE_SIZE;
    let in_file = segment.offset.checked_add(segment.file_bytes);
    let sound = segment.file_bytes <= segment.mem_bytes
        && fits
        && (congruent || segment.file_bytes == 0)
        && in_file.is_some_and(|end| i64::try_from(end).is_ok());
    if !sound {
        return Err(Errno::EINVAL);
    }
    Ok((segment.mem_bytes > 0).then_some(segment))
}

#[cfg(test)]
#[path = "elf_tests.rs"]
mod tests;
