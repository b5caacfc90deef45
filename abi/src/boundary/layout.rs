//! Where things lie in guest virtual and guest physical memory. Also compiled into the vDSO (`libos/vdso`).
//!
//! | virtual | what |
//! | --- | --- |
//! | `0x1_0000 ..= 0x7fff_ffff_efff` | the process |
//! | slots 257, 258 | direct map of guest physical memory, 2 MiB pages |
//! | slot 511, `0xffff_ffff_8000_0000` | the libOS image, shared by all address spaces |
//! | slot 511, `0xffff_ffff_c000_0000` | the vCPU's own region (same address, other frames on each vCPU) |
//!
//! PML4 slot 256 does not work at CPL 3 on PVM (kvm-facts.md, quirk 6).

/// Size of a page in bytes.
pub const PAGE_SIZE: u64 = 4096;
/// Size of a large page in bytes.
pub const LARGE_PAGE_SIZE: u64 = 2 << 20;

/// One past the last address a process may map.
pub const USER_END: u64 = 0x7fff_ffff_f000;
/// Lowest address a process may map (`vm.mmap_min_addr`).
pub const USER_START: u64 = 0x1_0000;

/// Start of the direct map.
pub const DIRECT_MAP: u64 = 0xffff_8080_0000_0000;
/// One past the highest guest physical address the direct map covers.
pub const DIRECT_MAP_SIZE: u64 = 1 << 40;
/// Virtual address of guest physical address 0 in the libOS's own mapping; image paddr = vaddr - this.
pub const IMAGE_BASE: u64 = 0xffff_ffff_8000_0000;
/// How much of low guest physical memory is mapped at [`IMAGE_BASE`], in bytes.
pub const IMAGE_SPAN: u64 = 64 << 20;
/// Guest physical address the image is linked to load at.
pub const IMAGE_LOAD: u64 = LARGE_PAGE_SIZE;

/// Start of the vCPU's own region.
pub const PERCPU: u64 = 0xffff_ffff_c000_0000;
/// The libOS's per-CPU block.
pub const PERCPU_BLOCK: u64 = PERCPU;
/// Index of the vCPU in its block, 8 bytes; the vDSO's `getcpu` reads it.
pub const PERCPU_INDEX: u64 = PERCPU_BLOCK + 56;
/// The page shared with the VMM ([`super::vcpu::VcpuShared`]).
pub const PERCPU_SHARED: u64 = PERCPU + 0x1000;
/// kvmclock's page (`pvclock_vcpu_time_info` at its start).
pub const PERCPU_PVCLOCK: u64 = PERCPU + 0x2000;
/// The 64-bit TSS, followed by its I/O permission bitmap.
pub const PERCPU_TSS: u64 = PERCPU + 0x3000;
/// Offset of the I/O permission bitmap in the TSS.
pub const TSS_IO_BITMAP: u16 = 0x68;
/// TSS segment limit: the bitmap covers ports below 0x800 and ends with its byte of ones.
pub const TSS_LIMIT: u16 = TSS_IO_BITMAP + 0x100;
/// The GDT.
pub const PERCPU_GDT: u64 = PERCPU + 0x4000;
/// The IDT.
pub const PERCPU_IDT: u64 = PERCPU + 0x5000;
/// Top of the IST stack for exceptions (grows down through 16 KiB).
pub const PERCPU_EXCEPTION_STACK_TOP: u64 = PERCPU + 0xa000;
/// Top of the IST stack for interrupts (grows down through 16 KiB).
pub const PERCPU_INTERRUPT_STACK_TOP: u64 = PERCPU + 0xe000;
/// Top of the stack the vCPU starts and idles on (grows down through 64 KiB).
pub const PERCPU_IDLE_STACK_TOP: u64 = PERCPU + 0x1e000;
/// Pages of the vCPU's own region.
pub const PERCPU_PAGES: u64 = 0x1e;

/// Selectors: the Linux ones, which on PVM are the host's own (kvm-facts.md, quirk 8).
pub mod selector {
    /// CPL 0 code.
    pub const KERNEL_CODE: u16 = 0x10;
    /// CPL 0 data.
    pub const KERNEL_DATA: u16 = 0x18;
    /// 32-bit CPL 3 code; `sysretq` adds 16.
    pub const USER_CODE32: u16 = 0x23;
    /// CPL 3 data and stack.
    pub const USER_DATA: u16 = 0x2b;
    /// 64-bit CPL 3 code.
    pub const USER_CODE: u16 = 0x33;
    /// The TSS.
    pub const TSS: u16 = 0x40;
}

/// Interrupt vector the VMM injects for every reason; the libOS finds out which.
pub const INTERRUPT_VECTOR: u8 = 0x20;
