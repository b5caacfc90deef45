//! The window: guest physical addresses that host files are mapped at, one memory slot reserved at the start.
//!
//! Memory slots must not change while the guest runs (KVM drops all its shadows), so the slot covers a reservation without
//! access, and files are mapped over parts of it. Nothing in the VMM ever reads or writes through the window: only KVM maps
//! it into the guest. A file mapped for reading is mapped without write access here, so that a guest that writes there all
//! the same gets no further than an error of `KVM_RUN`.
#![allow(unsafe_code, reason = "the VMM's room for mapping guest memory")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use husk_abi::boundary::fuse::CHUNK_BYTES;

use super::memory::Mapping;

/// The window. It is never unmapped.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    address: usize,
    bytes: u64,
}

/// What a part of the window shows.
#[derive(Clone, Copy, Debug)]
pub enum Shows<'a> {
    /// A file from an offset on; writable or not.
    File(BorrowedFd<'a>, u64, bool),
    /// Zeros of its own.
    Zeros,
    /// Nothing: an access is an error of `KVM_RUN`.
    Nothing,
}

impl Window {
    /// Reserves `bytes` of address space, aligned to a chunk.
    pub(super) fn reserve(bytes: u64) -> io::Result<Self> {
        // SAFETY: a new mapping without access at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                (bytes + CHUNK_BYTES) as usize,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            address: (base as usize).next_multiple_of(CHUNK_BYTES as usize),
            bytes,
        })
    }

    pub(super) fn mapping(&self) -> Mapping {
        Mapping {
            address: self.address as *mut u8,
            bytes: self.bytes,
        }
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes `len` bytes from `offset` on, whole pages, show something else, at once.
    ///
    /// # Errors
    /// `EINVAL` outside the window; what `mmap(2)` gives.
    pub fn set(&self, offset: u64, len: u64, shows: Shows<'_>) -> io::Result<()> {
        let fits = offset.is_multiple_of(4096)
            && len.is_multiple_of(4096)
            && len > 0
            && offset.checked_add(len).is_some_and(|end| end <= self.bytes);
        if !fits {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let (protection, flags, fd, from) = match shows {
            Shows::File(file, from, writable) => {
                let write = if writable { libc::PROT_WRITE } else { 0 };
                let protection = libc::PROT_READ | write;
                (protection, libc::MAP_SHARED, file.as_raw_fd(), from)
            }
            Shows::Zeros => (libc::PROT_READ | libc::PROT_WRITE, ANONYMOUS, -1, 0),
            Shows::Nothing => (libc::PROT_NONE, ANONYMOUS, -1, 0),
        };
        let from = libc::off_t::try_from(from)
            .map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
        // SAFETY: the range lies in the reservation, into which the VMM holds no references.
        let mapped = unsafe {
            libc::mmap(
                (self.address + offset as usize) as *mut libc::c_void,
                len as usize,
                protection,
                flags | libc::MAP_FIXED,
                fd,
                from,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Reads in the file's pages from `offset` on, so that the guest's first access does not have to. False if there is a page
    /// whose access would fail: because it cannot be read, or because the file has it no longer.
    pub fn populate(&self, offset: u64, len: u64) -> bool {
        if len == 0 || offset.checked_add(len).is_none_or(|end| end > self.bytes) {
            return true;
        }
        // SAFETY: the range lies in the reservation; the advice changes no contents.
        let advised = unsafe {
            libc::madvise(
                (self.address + offset as usize) as *mut libc::c_void,
                len as usize,
                libc::MADV_POPULATE_READ,
            )
        };
        // Other errors are about memory or signals: then the guest's accesses find out.
        advised == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn only_whole_pages_inside() {
        let window = Window::reserve(2 * CHUNK_BYTES).unwrap();
        let file = rustix::fs::memfd_create("file", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 5000).unwrap();
        let shows = Shows::File(file.as_fd(), 0, false);
        for (offset, len) in [
            (0, 0),
            (1, 4096),
            (0, 4095),
            (2 * CHUNK_BYTES, 4096),
            (4096, 2 * CHUNK_BYTES),
            (u64::MAX - 4095, 4096),
        ] {
            assert!(window.set(offset, len, shows).is_err(), "{offset} {len}");
        }
        window.set(CHUNK_BYTES, CHUNK_BYTES, shows).unwrap();
        assert!(window.populate(CHUNK_BYTES, 4096));
        assert!(
            !window.populate(CHUNK_BYTES, CHUNK_BYTES),
            "the file is shorter"
        );
        window.set(CHUNK_BYTES, 4096, Shows::Zeros).unwrap();
        window.set(0, 2 * CHUNK_BYTES, Shows::Nothing).unwrap();
    }
}
