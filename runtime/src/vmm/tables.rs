//! The page tables a vCPU starts with: direct map, libOS image, its own region.
//!
//! All pages carry the user bit: libOS and processes run at CPL 3 alike. 2 MiB pages throughout but for the
//! vCPU's own region; PVM has no 1 GiB pages.

use husk_abi::boundary::boot::{GuestRange, VcpuBoot};
use husk_abi::boundary::layout::{
    DIRECT_MAP, IMAGE_BASE, IMAGE_SPAN, LARGE_PAGE_SIZE, PAGE_SIZE, PERCPU, PERCPU_PAGES,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::Error;
use super::layout::Bump;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const USER: u64 = 4;
const LARGE: u64 = 0x80;
const TABLE: u64 = PRESENT | WRITABLE | USER;

fn index(address: u64, level: u32) -> u64 {
    (address >> (12 + 9 * level)) & 511
}

/// Writes page tables into guest memory.
struct Writer<'a> {
    memory: &'a GuestMemoryMmap,
    bump: &'a mut Bump,
}

impl Writer<'_> {
    fn set(&self, table: u64, index: u64, entry: u64) -> Result<(), Error> {
        let address = table + index * 8;
        self.memory
            .write_obj(entry, GuestAddress(address))
            .map_err(|_| Error::GuestMemory { address })
    }

    /// A page directory that maps `LARGE_PAGE_SIZE` pages from `gpa` on, up to `end` or its own end.
    fn directory(&mut self, mut gpa: u64, end: u64, first: u64, flags: u64) -> Result<u64, Error> {
        let table = self.bump.page();
        for slot in first..512 {
            if gpa >= end {
                break;
            }
            self.set(table, slot, gpa | LARGE | flags)?;
            gpa += LARGE_PAGE_SIZE;
        }
        Ok(table)
    }
}

/// Builds the tables of all vCPUs.
pub fn build(
    memory: &GuestMemoryMmap,
    bump: &mut Bump,
    ram_bytes: u64,
    rom: GuestRange,
    window: GuestRange,
    vcpus: &[VcpuBoot],
) -> Result<(), Error> {
    const GIB: u64 = 1 << 30;
    let mut writer = Writer { memory, bump };

    // The direct map, shared by all vCPUs: RAM, then the root archive's GiB-aligned range, read-only, and
    // the window's.
    let mut pdpts = Vec::new();
    let rom_end = rom.gpa + rom.len;
    let end = if window.len > 0 {
        window.gpa + window.len
    } else {
        rom_end
    };
    for base in (0..end).step_by(512 * GIB as usize) {
        let pdpt = writer.bump.page();
        for slot in 0..512 {
            let gpa = base + slot * GIB;
            if gpa < ram_bytes {
                let directory = writer.directory(gpa, ram_bytes, 0, TABLE)?;
                writer.set(pdpt, slot, directory | TABLE)?;
            } else if gpa >= rom.gpa && gpa < rom_end {
                let directory = writer.directory(gpa, rom_end, 0, PRESENT | USER)?;
                writer.set(pdpt, slot, directory | TABLE)?;
            } else if gpa >= window.gpa && gpa < end {
                let directory = writer.directory(gpa, end, 0, TABLE)?;
                writer.set(pdpt, slot, directory | TABLE)?;
            }
        }
        pdpts.push(pdpt);
    }
    let image = writer.directory(0, IMAGE_SPAN.min(ram_bytes), 0, TABLE)?;

    for vcpu in vcpus {
        for (number, pdpt) in pdpts.iter().enumerate() {
            writer.set(
                vcpu.pml4_gpa,
                index(DIRECT_MAP, 3) + number as u64,
                pdpt | TABLE,
            )?;
        }
        let (pdpt, directory, table) = (writer.bump.page(), writer.bump.page(), writer.bump.page());
        writer.set(vcpu.pml4_gpa, index(IMAGE_BASE, 3), pdpt | TABLE)?;
        writer.set(pdpt, index(IMAGE_BASE, 2), image | TABLE)?;
        writer.set(pdpt, index(PERCPU, 2), directory | TABLE)?;
        writer.set(directory, index(PERCPU, 1), table | TABLE)?;
        for page in 0..PERCPU_PAGES {
            writer.set(table, page, (vcpu.percpu_gpa + page * PAGE_SIZE) | TABLE)?;
        }
    }
    Ok(())
}
