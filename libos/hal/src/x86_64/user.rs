//! Copies between the libOS and the current process's memory.
//!
//! Both live in one address space at one privilege level, so a copy is a plain access. If it faults, the
//! kernel first tries to make the page present (demand paging, copy-on-write); if it cannot, the copy
//! stops and says how far it came.

use core::arch::global_asm;

use husk_abi::boundary::layout::USER_END;
use husk_abi::linux::Pod;

/// A user address that cannot be accessed (`EFAULT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

global_asm!(
    r#"
    .section .text.user_copy, "ax"
    .globl hal_user_copy_start
hal_user_copy_start:
    // rdi = to, rsi = from, rdx = bytes; returns the bytes not copied.
    .globl hal_user_copy
hal_user_copy:
    cmp $128, %rdx
    jae 3f
1:  cmp $8, %rdx
    jb 2f
    mov (%rsi), %rax
    mov %rax, (%rdi)
    add $8, %rsi
    add $8, %rdi
    sub $8, %rdx
    jmp 1b
2:  test %rdx, %rdx
    jz 4f
    movzbl (%rsi), %eax
    mov %al, (%rdi)
    inc %rsi
    inc %rdi
    dec %rdx
    jmp 2b
4:  xor %eax, %eax
    ret
3:  mov %rdx, %rcx
    rep movsb
    xor %eax, %eax
    ret
    .globl hal_user_copy_end
hal_user_copy_end:
hal_user_copy_fixup_short:
    mov %rdx, %rax
    ret
    .globl hal_user_copy_fixup
hal_user_copy_fixup:
    // rep movsb counts in rcx, the loops in rdx; rcx is rdx at most in the long form and 0-extended dead
    // otherwise, so the long form marks itself by rdx >= 128.
    cmp $128, %rdx
    jb hal_user_copy_fixup_short
    mov %rcx, %rax
    ret

    // Single accesses: rdi = address, esi/rsi = value. rax = value, edx = 1 on success.
    .globl hal_user_access_start
hal_user_access_start:
    .globl hal_user_load32
hal_user_load32:
    mov (%rdi), %eax
    mov $1, %edx
    ret
    .globl hal_user_load64
hal_user_load64:
    mov (%rdi), %rax
    mov $1, %edx
    ret
    .globl hal_user_store64
hal_user_store64:
    mov %rsi, (%rdi)
    mov $1, %edx
    ret
    .globl hal_user_store32
hal_user_store32:
    mov %esi, (%rdi)
    mov $1, %edx
    ret
    // esi = expected, ecx (moved from edx) = new; rax = old value.
    .globl hal_user_cmpxchg32
hal_user_cmpxchg32:
    mov %edx, %ecx
    mov %esi, %eax
    lock cmpxchg %ecx, (%rdi)
    mov $1, %edx
    ret
    .globl hal_user_access_end
hal_user_access_end:
    .globl hal_user_access_fixup
hal_user_access_fixup:
    xor %edx, %edx
    ret
    "#,
    options(att_syntax)
);

/// Two registers: `rax` and `rdx`.
#[repr(C)]
struct Loaded {
    value: u64,
    ok: u64,
}

unsafe extern "C" {
    fn hal_user_copy(to: *mut u8, from: *const u8, len: usize) -> usize;
    fn hal_user_load32(address: u64) -> Loaded;
    fn hal_user_load64(address: u64) -> Loaded;
    fn hal_user_store32(address: u64, value: u32) -> Loaded;
    fn hal_user_store64(address: u64, value: u64) -> Loaded;
    fn hal_user_cmpxchg32(address: u64, expected: u32, new: u32) -> Loaded;
    fn hal_user_copy_start();
    fn hal_user_copy_end();
    fn hal_user_copy_fixup();
    fn hal_user_access_start();
    fn hal_user_access_end();
    fn hal_user_access_fixup();
}

/// Where a faulting instruction of a copy goes on when the fault cannot be resolved.
pub(super) fn fixup(rip: u64) -> Option<u64> {
    let at = |symbol: unsafe extern "C" fn()| symbol as *const () as u64;
    if (at(hal_user_copy_start)..at(hal_user_copy_end)).contains(&rip) {
        Some(at(hal_user_copy_fixup))
    } else if (at(hal_user_access_start)..at(hal_user_access_end)).contains(&rip) {
        Some(at(hal_user_access_fixup))
    } else {
        None
    }
}

/// Whether `address..address + len` can be user memory at all.
#[must_use]
pub fn range_ok(address: u64, len: usize) -> bool {
    address < USER_END && len as u64 <= USER_END - address
}

/// Copies user memory into `bytes`; returns how many bytes were copied, fewer if a page is not accessible.
pub fn copy_in(bytes: &mut [u8], address: u64) -> usize {
    if !range_ok(address, bytes.len()) {
        return 0;
    }
    // SAFETY: the destination is an exclusive borrow; the source is user memory, where a fault ends the copy.
    let left = unsafe { hal_user_copy(bytes.as_mut_ptr(), address as *const u8, bytes.len()) };
    bytes.len() - left
}

/// Copies `bytes` to user memory; returns how many bytes were copied.
pub fn copy_out(address: u64, bytes: &[u8]) -> usize {
    if !range_ok(address, bytes.len()) {
        return 0;
    }
    // SAFETY: the destination is user memory, where a fault ends the copy; no Rust object lives there.
    let left = unsafe { hal_user_copy(address as *mut u8, bytes.as_ptr(), bytes.len()) };
    bytes.len() - left
}

/// Copies a frame's bytes to user memory; returns how many bytes were copied.
pub fn copy_frame_out(address: u64, frame: crate::phys::Frame, offset: usize, len: usize) -> usize {
    assert!(offset <= 4096 && len <= 4096 - offset);
    if !range_ok(address, len) {
        return 0;
    }
    let from = (crate::phys::direct_address(frame) + offset) as *const u8;
    // SAFETY: the source is mapped memory outside Rust's objects, the destination user memory.
    len - unsafe { hal_user_copy(address as *mut u8, from, len) }
}

/// Copies user memory into a frame; returns how many bytes were copied.
pub fn copy_frame_in(frame: crate::phys::Frame, offset: usize, address: u64, len: usize) -> usize {
    assert!(frame.is_ram() || frame.is_window());
    assert!(offset <= 4096 && len <= 4096 - offset);
    if !range_ok(address, len) {
        return 0;
    }
    let to = (crate::phys::direct_address(frame) + offset) as *mut u8;
    // SAFETY: as above, the other way round.
    len - unsafe { hal_user_copy(to, address as *const u8, len) }
}

/// Reads a value.
///
/// # Errors
/// [`Fault`] if any byte is not readable.
pub fn read<T: Pod>(address: u64) -> Result<T, Fault> {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    if !range_ok(address, size_of::<T>()) {
        return Err(Fault);
    }
    // SAFETY: the destination is `value`'s own memory; `Pod` types have no invalid bit patterns, and all
    // bytes were written if none is left.
    unsafe {
        match hal_user_copy(
            value.as_mut_ptr().cast(),
            address as *const u8,
            size_of::<T>(),
        ) {
            0 => Ok(value.assume_init()),
            _ => Err(Fault),
        }
    }
}

/// Writes a value.
///
/// # Errors
/// [`Fault`] if any byte is not writable.
pub fn write<T: Pod>(address: u64, value: &T) -> Result<(), Fault> {
    if !range_ok(address, size_of::<T>()) {
        return Err(Fault);
    }
    let from = core::ptr::from_ref(value).cast();
    // SAFETY: the source is a live value, the destination user memory.
    match unsafe { hal_user_copy(address as *mut u8, from, size_of::<T>()) } {
        0 => Ok(()),
        _ => Err(Fault),
    }
}

fn checked(address: u64, len: usize, access: impl FnOnce() -> Loaded) -> Result<u64, Fault> {
    if !range_ok(address, len) {
        return Err(Fault);
    }
    let loaded = access();
    if loaded.ok & 1 == 1 {
        Ok(loaded.value)
    } else {
        Err(Fault)
    }
}

/// Loads a 32-bit word in one access.
///
/// # Errors
/// [`Fault`] if it is not readable.
pub fn load_u32(address: u64) -> Result<u32, Fault> {
    // SAFETY: user memory; a fault is reported.
    checked(address, 4, || unsafe { hal_user_load32(address) }).map(|value| value as u32)
}

/// Loads a 64-bit word in one access.
///
/// # Errors
/// [`Fault`] if it is not readable.
pub fn load_u64(address: u64) -> Result<u64, Fault> {
    // SAFETY: user memory; a fault is reported.
    checked(address, 8, || unsafe { hal_user_load64(address) })
}

/// Stores a 32-bit word in one access.
///
/// # Errors
/// [`Fault`] if it is not writable.
pub fn store_u32(address: u64, value: u32) -> Result<(), Fault> {
    // SAFETY: user memory; a fault is reported.
    checked(address, 4, || unsafe { hal_user_store32(address, value) }).map(drop)
}

/// Stores a 64-bit word in one access.
///
/// # Errors
/// [`Fault`] if it is not writable.
pub fn store_u64(address: u64, value: u64) -> Result<(), Fault> {
    // SAFETY: user memory; a fault is reported.
    checked(address, 8, || unsafe { hal_user_store64(address, value) }).map(drop)
}

/// Atomically replaces a 32-bit word if it is `expected`; returns the old value.
///
/// # Errors
/// [`Fault`] if it is not writable.
pub fn compare_exchange_u32(address: u64, expected: u32, new: u32) -> Result<u32, Fault> {
    // SAFETY: user memory; a fault is reported.
    checked(address, 4, || unsafe {
        hal_user_cmpxchg32(address, expected, new)
    })
    .map(|value| value as u32)
}
