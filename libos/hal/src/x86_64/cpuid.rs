//! What CPU this is (`/proc/cpuinfo`).

use alloc::string::String;
use alloc::vec::Vec;

use super::clock::tsc_khz;
use super::cpu::cpuid;

/// A CPU as `/proc/cpuinfo` describes it.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "cpuinfo's terms")]
pub struct CpuInfo {
    pub vendor: String,
    pub family: u32,
    pub model: u32,
    pub stepping: u32,
    pub name: String,
    /// Highest basic leaf.
    pub level: u32,
    /// Frequency of the time stamp counter in kHz, 0 if the CPU does not tell.
    pub khz: u32,
    pub flags: Vec<&'static str>,
    /// Bytes `clflush` writes back.
    pub line_bytes: u32,
    pub physical_bits: u32,
    pub virtual_bits: u32,
}

#[derive(Clone, Copy)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// The registers of a leaf; zeros if the CPU does not have it.
fn leaf(number: u32, subleaf: u32) -> [u32; 4] {
    let [highest, ..] = cpuid(number & 0x8000_0000, 0);
    if number > highest {
        return [0; 4];
    }
    cpuid(number, subleaf)
}

/// Linux's names of feature bits, from bit 0 up; `-` for bits it does not show.
const FEATURES: &[(u32, u32, Register, &str)] = &[
    (
        1,
        0,
        Register::Edx,
        "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx fxsr \
         sse sse2 ss ht tm ia64 pbe",
    ),
    (
        0x8000_0001,
        0,
        Register::Edx,
        "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow",
    ),
    (
        1,
        0,
        Register::Ecx,
        "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca sse4_1 sse4_2 \
         x2apic movbe popcnt tsc_deadline_timer aes xsave - avx f16c rdrand hypervisor",
    ),
    (
        0x8000_0001,
        0,
        Register::Ecx,
        "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp \
         fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc mwaitx",
    ),
    (
        7,
        0,
        Register::Ebx,
        "fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm cqm - mpx rdt_a avx512f avx512dq rdseed adx \
         smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl",
    ),
    (13, 1, Register::Eax, "xsaveopt xsavec xgetbv1 xsaves xfd"),
    (
        7,
        1,
        Register::Eax,
        "- - - - avx_vnni avx512_bf16 - - - - fzrm fsrs fsrc - - - - - - - - amx_fp16 - avx_ifma - - lam",
    ),
    (
        7,
        0,
        Register::Ecx,
        "- avx512vbmi umip pku ospke waitpkg avx512_vbmi2 - gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme \
         avx512_vpopcntdq - la57 - - - - - rdpid - bus_lock_detect cldemote - movdiri movdir64b enqcmd sgx_lc",
    ),
    (
        7,
        0,
        Register::Edx,
        "- - avx512_4vnniw avx512_4fmaps fsrm uintr - - avx512_vp2intersect - md_clear - - - serialize - tsxldtrk - \
         pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 - - flush_l1d arch_capabilities",
    ),
];

fn flags() -> Vec<&'static str> {
    let mut flags = Vec::new();
    for (number, subleaf, register, names) in FEATURES {
        let [eax, ebx, ecx, edx] = leaf(*number, *subleaf);
        let bits = match register {
            Register::Eax => eax,
            Register::Ebx => ebx,
            Register::Ecx => ecx,
            Register::Edx => edx,
        };
        flags.extend(
            names
                .split_whitespace()
                .enumerate()
                .filter(|(bit, name)| bits >> bit & 1 == 1 && *name != "-")
                .map(|(_, name)| name),
        );
    }
    flags
}

fn text(registers: &[u32]) -> String {
    let bytes: Vec<u8> = registers.iter().flat_map(|r| r.to_le_bytes()).collect();
    let text = String::from_utf8_lossy(&bytes);
    String::from(text.trim_matches(|c: char| c == '\0' || c == ' '))
}

/// Asks the CPU. Takes a while in a guest: each question may leave it.
#[must_use]
pub fn identify() -> CpuInfo {
    let [level, vendor_0, vendor_2, vendor_1] = leaf(0, 0);
    let [signature, misc, ..] = leaf(1, 0);
    let base_family = signature >> 8 & 0xf;
    let base_model = signature >> 4 & 0xf;
    let family = if base_family == 0xf {
        base_family + (signature >> 20 & 0xff)
    } else {
        base_family
    };
    let model = if matches!(base_family, 6 | 0xf) {
        base_model | signature >> 12 & 0xf0
    } else {
        base_model
    };
    let brand: Vec<u32> = (0x8000_0002..0x8000_0005)
        .flat_map(|number| leaf(number, 0))
        .collect();
    let [denominator, numerator, crystal_hz, _] = leaf(0x15, 0);
    let [base_mhz, ..] = leaf(0x16, 0);
    let khz = if denominator > 0 && crystal_hz > 0 {
        (u64::from(crystal_hz) * u64::from(numerator) / u64::from(denominator) / 1000) as u32
    } else if base_mhz & 0xffff > 0 {
        (base_mhz & 0xffff) * 1000
    } else {
        tsc_khz() as u32
    };
    let [sizes, ..] = leaf(0x8000_0008, 0);
    CpuInfo {
        vendor: text(&[vendor_0, vendor_1, vendor_2]),
        family,
        model,
        stepping: signature & 0xf,
        name: text(&brand),
        level,
        khz,
        flags: flags(),
        line_bytes: (misc >> 8 & 0xff) * 8,
        physical_bits: sizes & 0xff,
        virtual_bits: sizes >> 8 & 0xff,
    }
}
