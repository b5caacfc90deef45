//! What CPU the guest is told it has.

use core::arch::x86_64::__cpuid;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::Kvm;

/// Leaves with the CPU's name.
const BRAND: std::ops::RangeInclusive<u32> = 0x8000_0002..=0x8000_0004;

/// All features that KVM offers, and the host's CPU's name, which KVM leaves to us.
///
/// # Errors
/// What `KVM_GET_SUPPORTED_CPUID` gives.
pub fn supported(kvm: &Kvm) -> Result<CpuId, kvm_ioctls::Error> {
    let mut cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    for entry in cpuid.as_mut_slice() {
        if BRAND.contains(&entry.function) {
            let host = __cpuid(entry.function);
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (host.eax, host.ebx, host.ecx, host.edx);
        }
    }
    Ok(cpuid)
}
