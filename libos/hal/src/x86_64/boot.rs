//! First instructions' data: descriptor tables, and what the VMM told us.

use core::sync::atomic::Ordering;

use husk_abi::boundary::boot::{BOOT_MAGIC, BootInfo};
use husk_abi::boundary::doorbell;
use husk_abi::boundary::layout::{
    DIRECT_MAP, INTERRUPT_VECTOR, PERCPU_BLOCK, PERCPU_EXCEPTION_STACK_TOP, PERCPU_GDT, PERCPU_IDT,
    PERCPU_INTERRUPT_STACK_TOP, PERCPU_TSS, TSS_IO_BITMAP, TSS_LIMIT, selector,
};
use husk_abi::boundary::version::{
    BOUNDARY_VERSION, ImageNote, NOTE_NAME, NOTE_NAME_LEN, NOTE_TYPE,
};

use super::{cpu, entry, fpu};
use crate::phys;

static INFO: spin::Once<BootInfo> = spin::Once::new();

/// The note the loader checks: version, and the addresses it puts into MSRs.
#[used]
#[unsafe(link_section = ".note.husk")]
static NOTE: NoteWithAddresses = NoteWithAddresses {
    head: [NOTE_NAME_LEN, size_of::<ImageNote>() as u32, NOTE_TYPE],
    name: NOTE_NAME,
    version: [BOUNDARY_VERSION, 0],
    lstar: entry::hal_lstar,
    cstar: entry::hal_cstar,
};

/// [`ImageNote`] behind its ELF note header; the addresses are filled in by the linker.
#[repr(C, packed(4))]
struct NoteWithAddresses {
    head: [u32; 3],
    name: [u8; 8],
    version: [u32; 2],
    lstar: unsafe extern "C" fn(),
    cstar: unsafe extern "C" fn(),
}
const _: () = assert!(size_of::<NoteWithAddresses>() == 12 + 8 + size_of::<ImageNote>());

/// What the VMM told us; valid after [`init`].
///
/// # Panics
/// Before [`init`].
#[must_use]
pub fn info() -> &'static BootInfo {
    INFO.get().expect("boot::init ran")
}

/// Readies vCPU `index`: descriptor tables, physical memory, vector state size.
///
/// # Safety
/// To be called once a vCPU, first of all, with the boot-info address the VMM passed.
///
/// # Panics
/// If the boot info is not one.
pub unsafe fn init(info_address: u64, index: usize) {
    let info = INFO.call_once(|| {
        // SAFETY: the VMM put the page there; it is copied and never read again.
        let info = unsafe { (info_address as *const BootInfo).read() };
        assert!(
            info.magic == BOOT_MAGIC && info.boundary_version == BOUNDARY_VERSION,
            "not our VMM"
        );
        info
    });
    // SAFETY: each vCPU has its own block; nothing else runs on this vCPU yet.
    unsafe {
        let block = PERCPU_BLOCK as *mut cpu::CpuBlock;
        (&raw mut (*block).index).write(index as u64);
        descriptor_tables();
    }
    load_task();
    let rom = info.root_archive;
    // SAFETY: the boot page tables map RAM, the root archive and the window at the direct map, for ever.
    unsafe {
        phys::init(
            DIRECT_MAP as usize,
            info.ram_bytes,
            rom.gpa..rom.gpa + rom.len,
            info.window.gpa..info.window.gpa + info.window.len,
        )
    };
    fpu::init();
    cpu::shared().interrupts_ready.store(1, Ordering::Release);
}

/// # Safety
/// As [`init`].
unsafe fn descriptor_tables() {
    let gdt = PERCPU_GDT as *mut u64;
    let descriptor = |selector: u16, value: u64| {
        // SAFETY: the GDT page is this vCPU's own and has 512 entries.
        unsafe { gdt.add(usize::from(selector >> 3)).write(value) }
    };
    descriptor(selector::KERNEL_CODE, 0x00af_9b00_0000_ffff);
    descriptor(selector::KERNEL_DATA, 0x00cf_9300_0000_ffff);
    descriptor(selector::USER_CODE32, 0x00cf_fb00_0000_ffff);
    descriptor(selector::USER_DATA, 0x00cf_f300_0000_ffff);
    descriptor(selector::USER_CODE, 0x00af_fb00_0000_ffff);
    // Available: `load_task` loads it, although the VMM has set TR to the same.
    let tss = PERCPU_TSS;
    descriptor(
        selector::TSS,
        u64::from(TSS_LIMIT) | (tss & 0xff_ffff) << 16 | 0x89 << 40 | (tss >> 24 & 0xff) << 56,
    );
    descriptor(selector::TSS + 8, tss >> 32);

    let ist = |number: u64, top: u64| {
        // SAFETY: IST1 is at offset 0x24 of the TSS, 8 bytes each.
        unsafe { ((tss + 0x24 + (number - 1) * 8) as *mut u64).write_unaligned(top) }
    };
    ist(1, PERCPU_EXCEPTION_STACK_TOP);
    ist(2, PERCPU_INTERRUPT_STACK_TOP);
    // SAFETY: offsets within the TSS page; the bitmap and its closing byte end at TSS_LIMIT.
    unsafe {
        // RSP0 is not used by IST gates, but a sane value costs nothing.
        ((tss + 4) as *mut u64).write_unaligned(PERCPU_EXCEPTION_STACK_TOP);
        ((tss + 0x66) as *mut u16).write(TSS_IO_BITMAP);
        let bitmap = (tss + u64::from(TSS_IO_BITMAP)) as *mut u8;
        core::ptr::write_bytes(bitmap, 0xff, usize::from(TSS_LIMIT - TSS_IO_BITMAP) + 1);
        // A 32-bit access needs the bits of four ports, so the three after the last doorbell are open too.
        bitmap.add(usize::from(doorbell::FIRST / 8)).write(0x00);
        bitmap.add(usize::from(doorbell::FIRST / 8) + 1).write(0x00);
        bitmap
            .add(usize::from(doorbell::FIRST / 8) + 2)
            .write(0xff_u16.wrapping_shl(u32::from(DOORBELL_BITS - 16)) as u8);
    }

    for vector in 0..entry::STUBS {
        // SAFETY: filled in by the assembler.
        let stub = unsafe { entry::hal_stubs[vector] };
        if stub == 0 {
            continue;
        }
        let ist = if vector == usize::from(INTERRUPT_VECTOR) {
            2
        } else {
            1
        };
        // Only int3 may be raised by software: the gate's, and the programs' breakpoints.
        let dpl: u64 = if vector == 3 { 3 } else { 0 };
        let low = stub & 0xffff
            | u64::from(selector::KERNEL_CODE) << 16
            | ist << 32
            | (0x8e | dpl << 5) << 40
            | (stub >> 16 & 0xffff) << 48;
        // SAFETY: the IDT page is this vCPU's own and has room for 256 gates.
        unsafe {
            let gate = (PERCPU_IDT as *mut u64).add(vector * 2);
            gate.write(low);
            gate.add(1).write(stub >> 32);
        }
    }
}

/// Loads TR again. The VMM has set it as a busy TSS, the only one VT-x enters with; QEMU's emulation looks at
/// the I/O bitmap of a TSS only if the CPU itself has loaded it.
fn load_task() {
    // SAFETY: the descriptor tables are in place; LTR of the TSS in use changes nothing but the busy bit.
    unsafe { entry::hal_load_task(u32::from(selector::TSS)) }
}

/// Bits of the I/O bitmap that must be clear: `out` of four bytes looks at those of four ports.
const DOORBELL_BITS: u16 = doorbell::END - doorbell::FIRST + 3;

const _: () = {
    // What `descriptor_tables` writes into the bitmap: three bytes.
    assert!(doorbell::FIRST.is_multiple_of(8) && DOORBELL_BITS >= 16 && DOORBELL_BITS <= 24);
    assert!(INTERRUPT_VECTOR as usize == entry::STUBS - 1);
};

/// Address a thunk jumps to (through memory: thunks are far away).
#[must_use]
pub fn fast_entry() -> u64 {
    entry::hal_fast_entry as *const () as u64
}

/// Holds [`fast_entry`]; in the image, so that a sign-extended 32-bit address reaches it.
static FAST_ENTRY: unsafe extern "C" fn() = entry::hal_fast_entry;

/// Holds the address a `cpuid`'s thunk jumps to.
static CPUID_ENTRY: unsafe extern "C" fn() = entry::hal_cpuid_entry;

/// As [`fast_entry_slot`], for thunks of `cpuid`.
#[must_use]
pub fn cpuid_entry_slot() -> u64 {
    &raw const CPUID_ENTRY as u64
}

/// Address of 8 bytes that hold [`fast_entry`], in the top 2 GiB: what a thunk's `jmp *[abs32]` names.
#[must_use]
pub fn fast_entry_slot() -> u64 {
    &raw const FAST_ENTRY as u64
}
