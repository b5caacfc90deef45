//! The guest's virtual memory, read and written from outside by walking its page tables.

use std::fs::File;
use std::os::unix::fs::FileExt;

use husk_abi::boundary::boot::GuestRange;
use vm_memory::{Bytes, GuestAddress};

use crate::vmm::GuestMemory;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Table entries looked at in one listing: tables a guest has knotted into each other end here.
const LISTING_ENTRIES: usize = 1 << 22;

/// A virtual address's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    /// Where the address itself lies.
    gpa: u64,
    /// Bytes from there to the end of the page.
    bytes: u64,
}

/// Consecutive pages that are present with the same rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedRange {
    /// First address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// Whether it can be written.
    pub is_writable: bool,
    /// Whether it can be executed.
    pub is_executable: bool,
}

/// Guest memory as the guest's own addresses see it.
#[derive(Debug)]
pub struct GuestSpace {
    memory: GuestMemory,
    rom: GuestRange,
    archive: Option<File>,
}

impl GuestSpace {
    /// RAM is `memory`; the root archive lies at `rom`.
    pub(in crate::vmm) fn new(memory: GuestMemory, rom: GuestRange, archive: Option<File>) -> Self {
        Self {
            memory,
            rom,
            archive,
        }
    }

    /// Guest RAM.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn entry(&self, table: u64, index: u64) -> Option<u64> {
        self.memory
            .read_obj::<u64>(GuestAddress((table & ADDRESS) + index * 8))
            .ok()
            .filter(|entry| entry & PRESENT != 0)
    }

    fn translate(&self, root: u64, address: u64) -> Option<Page> {
        // Canonical addresses only.
        if (address.cast_signed() << 16 >> 16).cast_unsigned() != address {
            return None;
        }
        let mut table = root;
        for level in (0..4).rev() {
            let shift = 12 + 9 * level;
            let entry = self.entry(table, address >> shift & 511)?;
            if level == 0 || entry & LARGE != 0 {
                if level == 3 {
                    return None;
                }
                let size = 1 << shift;
                let offset = address & (size - 1);
                return Some(Page {
                    gpa: (entry & ADDRESS & !(size - 1)) + offset,
                    bytes: size - offset,
                });
            }
            table = entry;
        }
        None
    }

    /// Reads at `address` of the address space with PML4 `root`; how many bytes there were before the first that
    /// cannot be read.
    pub fn read(&self, root: u64, address: u64, buffer: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buffer.len() {
            let Some(page) = self.translate(root, address.wrapping_add(done as u64)) else {
                break;
            };
            let left = (buffer.len() - done).min(usize::try_from(page.bytes).unwrap_or(usize::MAX));
            let part = &mut buffer[done..done + left];
            let end = self.rom.gpa.saturating_add(self.rom.len);
            let is_read = if (self.rom.gpa..end).contains(&page.gpa) {
                // Behind the archive's end its last page is zeros.
                part.fill(0);
                self.archive
                    .as_ref()
                    .is_some_and(|archive| archive.read_at(part, page.gpa - self.rom.gpa).is_ok())
            } else {
                self.memory.read_slice(part, GuestAddress(page.gpa)).is_ok()
            };
            if !is_read {
                break;
            }
            done += left;
        }
        done
    }

    /// Writes at `address` of the address space with PML4 `root`, whatever its rights say; false if not all of it is
    /// in RAM. Nothing is written then.
    pub fn write(&self, root: u64, address: u64, bytes: &[u8]) -> bool {
        let mut pieces = Vec::new();
        let mut done = 0;
        while done < bytes.len() {
            let Some(page) = self.translate(root, address.wrapping_add(done as u64)) else {
                return false;
            };
            let left = (bytes.len() - done).min(usize::try_from(page.bytes).unwrap_or(usize::MAX));
            let mut before = vec![0; left];
            if self
                .memory
                .read_slice(&mut before, GuestAddress(page.gpa))
                .is_err()
            {
                return false;
            }
            pieces.push((page.gpa, done..done + left));
            done += left;
        }
        pieces.into_iter().all(|(gpa, range)| {
            self.memory
                .write_slice(&bytes[range], GuestAddress(gpa))
                .is_ok()
        })
    }

    /// Reads `N` words.
    #[must_use]
    pub fn words<const N: usize>(&self, root: u64, address: u64) -> Option<[u64; N]> {
        let mut bytes = vec![0; N * 8];
        if self.read(root, address, &mut bytes) != bytes.len() {
            return None;
        }
        let (words, _) = bytes.as_chunks::<8>();
        Some(std::array::from_fn(|index| {
            u64::from_le_bytes(words[index])
        }))
    }

    /// What is mapped in the lower half, the process's, of the address space with PML4 `root`.
    #[must_use]
    pub fn mappings(&self, root: u64) -> Vec<MappedRange> {
        let mut listing = Listing {
            space: self,
            ranges: Vec::new(),
            entries: 0,
        };
        listing.table(root, 3, 0, WRITABLE);
        listing.ranges
    }
}

struct Listing<'a> {
    space: &'a GuestSpace,
    ranges: Vec<MappedRange>,
    entries: usize,
}

impl Listing<'_> {
    /// `rights` are those of the tables above: [`WRITABLE`] if all allow it, [`NO_EXECUTE`] if one forbids it.
    fn table(&mut self, table: u64, level: u32, base: u64, rights: u64) {
        let slots = if level == 3 { 256 } else { 512 };
        for slot in 0..slots {
            if self.entries >= LISTING_ENTRIES {
                return;
            }
            self.entries += 1;
            let Some(entry) = self.space.entry(table, slot) else {
                continue;
            };
            let start = base + (slot << (12 + 9 * level));
            let rights = rights & entry & WRITABLE | (rights | entry) & NO_EXECUTE;
            if level == 0 || level < 3 && entry & LARGE != 0 {
                self.add(start, 1 << (12 + 9 * level), rights);
            } else {
                self.table(entry, level - 1, start, rights);
            }
        }
    }

    fn add(&mut self, start: u64, bytes: u64, rights: u64) {
        let range = MappedRange {
            start,
            end: start + bytes,
            is_writable: rights & WRITABLE != 0,
            is_executable: rights & NO_EXECUTE == 0,
        };
        match self.ranges.last_mut() {
            Some(last)
                if last.end == start
                    && last.is_writable == range.is_writable
                    && last.is_executable == range.is_executable =>
            {
                last.end = range.end;
            }
            _ => self.ranges.push(range),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::sync::Arc;

    use nix::sys::memfd::{MFdFlags, memfd_create};
    use vm_memory::GuestMemoryMmap;

    use super::*;

    /// PML4 at 0x1000, PDPT 0x2000, directory 0x3000, table 0x4000.
    fn space() -> GuestSpace {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap();
        let set = |table: u64, index: u64, entry: u64| {
            memory
                .write_obj(entry, GuestAddress(table + index * 8))
                .unwrap();
        };
        for slot in [0, 511] {
            set(0x1000, slot, 0x2000 | 7);
        }
        set(0x2000, 0, 0x3000 | 7);
        set(0x2000, 511, 0x3000 | 7);
        set(0x3000, 0, 0x4000 | 7);
        set(0x3000, 1, 0x20_0000 | 0x87 | NO_EXECUTE);
        set(0x4000, 1, 0x5000 | 7);
        set(0x4000, 2, 0x7000 | 7);
        set(0x4000, 3, 0x4000_0000 | 5);
        let fd: OwnedFd = memfd_create("archive", MFdFlags::MFD_CLOEXEC).unwrap();
        let mut archive = File::from(fd);
        archive.write_all(b"in the archive").unwrap();
        let rom = GuestRange {
            gpa: 0x4000_0000,
            len: 4096,
        };
        GuestSpace::new(Arc::new(memory), rom, Some(archive))
    }

    #[test]
    fn reads_and_writes_across_pages() {
        let space = space();
        let text: Vec<u8> = (0..64).collect();
        assert!(space.write(0x1000, 0x1fe0, &text));
        let mut back = [0; 64];
        assert_eq!(space.read(0x1000, 0x1fe0, &mut back), 64);
        assert_eq!(&back[..], &text[..]);
        let mut there = [0; 32];
        space
            .memory()
            .read_slice(&mut there, GuestAddress(0x7000))
            .unwrap();
        assert_eq!(&there[..], &text[32..]);
        // Page 4 is not there: what is before it is read, nothing is written.
        let mut long = [0; 0x2000];
        assert_eq!(space.read(0x1000, 0x3800, &mut long), 0x800);
        assert!(!space.write(0x1000, 0x3ff0, &text));
        assert_eq!(space.words::<1>(0x1000, 0x20_0000), Some([0]));
    }

    #[test]
    fn the_archive_is_read_only() {
        let space = space();
        let mut text = [0xff; 16];
        assert_eq!(space.read(0x1000, 0x3000, &mut text), 16);
        assert_eq!(&text, b"in the archive\0\0");
        assert!(!space.write(0x1000, 0x3000, b"x"));
    }

    #[test]
    fn listing() {
        let space = space();
        let range = |start, end, is_writable, is_executable| MappedRange {
            start,
            end,
            is_writable,
            is_executable,
        };
        assert_eq!(
            space.mappings(0x1000)[..4],
            [
                range(0x1000, 0x3000, true, true),
                range(0x3000, 0x4000, false, true),
                range(0x20_0000, 0x40_0000, true, false),
                range(0x7f_c000_1000, 0x7f_c000_3000, true, true),
            ]
        );
    }

    #[test]
    fn knotted_tables_end() {
        let space = space();
        for slot in 0..512 {
            space
                .memory()
                .write_obj(0x1007u64, GuestAddress(0x1000 + slot * 8))
                .unwrap();
        }
        let _ = space.mappings(0x1000);
        for address in [
            0,
            0x7fff_ffff_ffff,
            u64::MAX,
            1 << 47,
            0xffff_8000_0000_0000,
        ] {
            let mut buffer = [0; 100];
            let _ = space.read(0x1000, address, &mut buffer);
            let _ = space.read(u64::MAX, address, &mut buffer);
        }
    }
}
