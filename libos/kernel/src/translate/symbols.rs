//! Names of functions from a file's symbol table (`elf(5)`), for `--stats`. Untrusted bytes.

use alloc::vec::Vec;

use husk_abi::boundary::layout::PAGE_SIZE;
use husk_hal::phys::{self, Frame};

use crate::mm::Mappable;

const HEADER_BYTES: usize = 64;
const PHENT_BYTES: usize = 56;
const SHENT_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;
const PT_LOAD: u32 = 1;
const SHT_SYMTAB: u32 = 2;
const SHT_DYNSYM: u32 = 11;
const STT_NOTYPE: u8 = 0;
const STT_FUNC: u8 = 2;
const STT_GNU_IFUNC: u8 = 10;
/// The most headers of a kind, symbols, and bytes of a name that are looked at.
const MAX_HEADERS: u16 = 256;
const MAX_SYMBOLS: u64 = 1 << 20;
const MAX_NAME: usize = 96;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// A file, read page by page.
struct Reader<'a> {
    file: &'a dyn Mappable,
    put: &'a dyn Fn(Frame),
}

impl Reader<'_> {
    /// Fills `bytes` from `offset` on.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Option<()> {
        let end = offset.checked_add(bytes.len() as u64)?;
        if end > self.file.size_bytes() {
            return None;
        }
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let in_page = (at % PAGE_SIZE) as usize;
            let len = (PAGE_SIZE as usize - in_page).min(bytes.len() - done);
            let frame = self.file.page(at / PAGE_SIZE, false).ok()?;
            phys::read(frame, in_page, &mut bytes[done..done + len]);
            (self.put)(frame);
            done += len;
        }
        Some(())
    }

    fn array<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.read(offset, &mut bytes)?;
        Some(bytes)
    }

    /// Headers of `N` bytes, `count` of them from `offset` on.
    fn headers<const N: usize>(&self, offset: u64, count: u16) -> Vec<[u8; N]> {
        (0..count.min(MAX_HEADERS))
            .map_while(|index| self.array(offset.checked_add(u64::from(index) * N as u64)?))
            .collect()
    }

    /// The NUL-terminated string at `offset`.
    fn name(&self, offset: u64) -> Option<Vec<u8>> {
        let left = self.file.size_bytes().checked_sub(offset)?;
        let mut bytes = alloc::vec![0; MAX_NAME.min(usize::try_from(left).ok()?)];
        self.read(offset, &mut bytes)?;
        let len = bytes.iter().position(|byte| *byte == 0);
        bytes.truncate(len.unwrap_or(bytes.len()));
        (!bytes.is_empty()).then_some(bytes)
    }
}

/// The best symbol for an address so far.
#[derive(Clone, Copy)]
struct Candidate {
    value: u64,
    /// Offset of its name in the file.
    name: u64,
    is_public: bool,
}

/// A function's name and how far in an address is; `None` if the file does not tell.
pub type Named = Option<(Vec<u8>, u64)>;

/// For each file offset in `offsets`: the function it is in. `put` gives back what [`Mappable::page`] counted.
pub fn find(file: &dyn Mappable, put: &dyn Fn(Frame), offsets: &[u64]) -> Vec<Named> {
    let reader = Reader { file, put };
    find_in(&reader, offsets).unwrap_or_else(|| alloc::vec![None; offsets.len()])
}

fn find_in(reader: &Reader<'_>, offsets: &[u64]) -> Option<Vec<Named>> {
    let header: [u8; HEADER_BYTES] = reader.array(0)?;
    let is_elf64 = header.starts_with(b"\x7fELF\x02\x01");
    let sizes = [u16_at(&header, 54), u16_at(&header, 58)].map(usize::from);
    if !is_elf64 || sizes != [PHENT_BYTES, SHENT_BYTES] {
        return None;
    }
    let segments = reader.headers::<PHENT_BYTES>(u64_at(&header, 32), u16_at(&header, 56));
    let addresses: Vec<Option<u64>> = offsets
        .iter()
        .map(|offset| {
            segments
                .iter()
                .filter(|segment| u32_at(*segment, 0) == PT_LOAD)
                .find_map(|segment| {
                    let inside = offset.checked_sub(u64_at(segment, 8))?;
                    (inside < u64_at(segment, 32)).then(|| inside.wrapping_add(u64_at(segment, 16)))
                })
        })
        .collect();
    let sections = reader.headers::<SHENT_BYTES>(u64_at(&header, 40), u16_at(&header, 60));
    let of_kind = |kind| sections.iter().find(|section| u32_at(*section, 4) == kind);
    let table = of_kind(SHT_SYMTAB).or_else(|| of_kind(SHT_DYNSYM))?;
    let strings = u64_at(sections.get(u32_at(table, 40) as usize)?, 24);
    let (start, count) = (u64_at(table, 24), u64_at(table, 32) / SYMBOL_BYTES as u64);

    let mut best: Vec<Option<Candidate>> = alloc::vec![None; offsets.len()];
    const AT_ONCE: u64 = 128;
    let mut chunk = [0; AT_ONCE as usize * SYMBOL_BYTES];
    let count = count.min(MAX_SYMBOLS);
    for first in (0..count).step_by(AT_ONCE as usize) {
        let bytes = &mut chunk[..(count - first).min(AT_ONCE) as usize * SYMBOL_BYTES];
        reader.read(start.checked_add(first * SYMBOL_BYTES as u64)?, bytes)?;
        for symbol in bytes.chunks_exact(SYMBOL_BYTES) {
            for (address, best) in addresses.iter().zip(&mut best) {
                if let Some(address) = address {
                    consider(reader, symbol, strings, *address, best);
                }
            }
        }
    }
    let named = |(address, best): (&Option<u64>, &Option<Candidate>)| {
        let best = (*best)?;
        Some((reader.name(best.name)?, (*address)? - best.value))
    };
    Some(addresses.iter().zip(&best).map(named).collect())
}

/// Takes `symbol` for `address` if it is a function that contains it and a better one than `best`: public names before
/// those that begin with an underscore.
fn consider(
    reader: &Reader<'_>,
    symbol: &[u8],
    strings: u64,
    address: u64,
    best: &mut Option<Candidate>,
) {
    let kind = symbol[4] & 15;
    let (value, size) = (u64_at(symbol, 8), u64_at(symbol, 16));
    let defined = u16_at(symbol, 6) != 0;
    let contains = matches!(kind, STT_NOTYPE | STT_FUNC | STT_GNU_IFUNC)
        && address >= value
        && address - value < size;
    if !defined || !contains {
        return;
    }
    let name = strings.saturating_add(u64::from(u32_at(symbol, 0)));
    let is_public = reader.array(name).is_some_and(|first| first != *b"_");
    if best.is_none_or(|best| is_public && !best.is_public) {
        *best = Some(Candidate {
            value,
            name,
            is_public,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::translate::testing::CodeFile;

    fn find_all(file: &CodeFile, offsets: &[u64]) -> Vec<Named> {
        find(file, &|frame| file.frames.put(frame), offsets)
    }

    /// A file with one loaded segment (0x100 bytes at file offset 0x400, address 0x5400) and these symbols:
    /// info, value, size, name.
    fn file(symbols: &[(u8, u64, u64, &str)]) -> Vec<u8> {
        let mut bytes = std::vec![0; 0x600];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let mut put = |at: usize, value: u64, len: usize| {
            bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        };
        for (at, value, len) in [
            (32, 64, 8),
            (40, 0x200, 8),
            (54, 56, 2),
            (56, 1, 2),
            (58, 64, 2),
            (60, 3, 2),
        ] {
            put(at, value, len);
        }
        for (at, value, len) in [(64, 1, 4), (72, 0x400, 8), (80, 0x5400, 8), (96, 0x100, 8)] {
            put(at, value, len);
        }
        // Sections: none, symbols, strings.
        let table_bytes = symbols.len() as u64 * 24;
        for (at, value, len) in [
            (0x244, 2, 4),
            (0x258, 0x300, 8),
            (0x260, table_bytes, 8),
            (0x268, 2, 4),
            (0x284, 3, 4),
            (0x298, 0x500, 8),
        ] {
            put(at, value, len);
        }
        let mut name_at = 1;
        for (index, (info, value, size, name)) in symbols.iter().enumerate() {
            let at = 0x300 + index * 24;
            put(at, name_at as u64, 4);
            put(at + 4, u64::from(*info), 1);
            put(at + 6, 1, 2);
            put(at + 8, *value, 8);
            put(at + 16, *size, 8);
            for (index, byte) in name.bytes().enumerate() {
                put(0x500 + name_at + index, u64::from(byte), 1);
            }
            name_at += name.len() + 1;
        }
        bytes
    }

    #[test]
    fn functions_are_found_by_file_offset() {
        let symbols = [
            (0x12, 0x5400, 0x20, "__read"),
            (0x22, 0x5400, 0x20, "read"),
            (0x02, 0x5420, 0x10, "local"),
            // An object, not a function.
            (0x11, 0x5430, 0x10, "data"),
        ];
        let file = CodeFile::new(&file(&symbols));
        let found = find_all(&file, &[0x400, 0x412, 0x42f, 0x430, 0x3ff, 0x500]);
        let name = |name: &str, at| Some((name.as_bytes().to_vec(), at));
        assert_eq!(
            found,
            [
                name("read", 0),
                name("read", 0x12),
                name("local", 0xf),
                None,
                None,
                None
            ]
        );
        for frame in &file.pages {
            assert_eq!(file.frames.count(*frame), 1);
        }
    }

    #[test]
    fn broken_files_have_no_names() {
        let good = file(&[(0x12, 0x5400, 0x20, "read")]);
        for at in [
            0, 4, 32, 40, 47, 54, 58, 60, 0x258, 0x25f, 0x268, 0x298, 0x29f,
        ] {
            let mut bad = good.clone();
            bad[at] = 0xff;
            let found = find_all(&CodeFile::new(&bad), &[0x410]);
            assert!(found.len() == 1, "{at:#x}");
        }
        for len in [0, 1, 63, 64, 200, 0x240, 0x310] {
            let found = find_all(&CodeFile::new(&good[..len]), &[0x410]);
            assert_eq!(found.len(), 1);
        }
    }

    #[test]
    fn this_machine_s_libc_has_names() {
        let path = Path::new("/lib/x86_64-linux-gnu/libc.so.6");
        let Ok(bytes) = std::fs::read(path) else {
            return;
        };
        let file = CodeFile::new(&bytes);
        let site = bytes
            .windows(7)
            .position(|window| window == [0xb8, 39, 0, 0, 0, 0x0f, 0x05]);
        let Some(site) = site else { return };
        let found = find_all(&file, &[site as u64 + 5]);
        assert_eq!(
            found[0].as_ref().map(|(name, _)| &name[..]),
            Some(&b"getpid"[..])
        );
    }
}
