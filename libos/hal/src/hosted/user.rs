//! User memory in host-side tests: an address is a host pointer, the first page faults.

use core::sync::atomic::{AtomicU32, Ordering};

use husk_abi::linux::Pod;

use crate::phys::Frame;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

pub fn range_ok(address: u64, len: usize) -> bool {
    (0x1000..husk_abi::boundary::layout::USER_END).contains(&address) && len < 1 << 40
}

pub fn copy_in(bytes: &mut [u8], address: u64) -> usize {
    if !range_ok(address, bytes.len()) {
        return 0;
    }
    // SAFETY: tests pass addresses of live buffers.
    unsafe {
        core::ptr::copy_nonoverlapping(address as *const u8, bytes.as_mut_ptr(), bytes.len())
    };
    bytes.len()
}

pub fn copy_out(address: u64, bytes: &[u8]) -> usize {
    if !range_ok(address, bytes.len()) {
        return 0;
    }
    // SAFETY: tests pass addresses of live buffers.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
    bytes.len()
}

pub fn copy_frame_out(address: u64, frame: Frame, offset: usize, len: usize) -> usize {
    let mut bytes = vec![0; len];
    crate::phys::read(frame, offset, &mut bytes);
    copy_out(address, &bytes)
}

pub fn copy_frame_in(frame: Frame, offset: usize, address: u64, len: usize) -> usize {
    let mut bytes = vec![0; len];
    let done = copy_in(&mut bytes, address);
    crate::phys::write_shared(frame, offset, &bytes[..done]);
    done
}

pub fn read<T: Pod>(address: u64) -> Result<T, Fault> {
    if !range_ok(address, size_of::<T>()) {
        return Err(Fault);
    }
    // SAFETY: tests pass addresses of live values; `Pod` has no invalid bit patterns.
    Ok(unsafe { (address as *const T).read_unaligned() })
}

pub fn write<T: Pod>(address: u64, value: &T) -> Result<(), Fault> {
    if !range_ok(address, size_of::<T>()) {
        return Err(Fault);
    }
    // SAFETY: tests pass addresses of live values.
    unsafe { (address as *mut T).write_unaligned(*value) };
    Ok(())
}

pub fn load_u32(address: u64) -> Result<u32, Fault> {
    read(address)
}
pub fn load_u64(address: u64) -> Result<u64, Fault> {
    read(address)
}
pub fn store_u32(address: u64, value: u32) -> Result<(), Fault> {
    write(address, &value)
}
pub fn store_u64(address: u64, value: u64) -> Result<(), Fault> {
    write(address, &value)
}
pub fn compare_exchange_u32(address: u64, expected: u32, new: u32) -> Result<u32, Fault> {
    if !range_ok(address, 4) {
        return Err(Fault);
    }
    // SAFETY: tests pass addresses of live, aligned words.
    let word = unsafe { AtomicU32::from_ptr(address as *mut u32) };
    Ok(word
        .compare_exchange(expected, new, Ordering::SeqCst, Ordering::SeqCst)
        .unwrap_or_else(|old| old))
}
