//! Guest memory: private anonymous RAM on huge pages, and the root archive as read-only memory.
#![allow(unsafe_code, reason = "the VMM's room for mapping guest memory")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use husk_abi::boundary::layout::LARGE_PAGE_SIZE;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use super::Error;

/// Guest RAM as boundary services see it. Accesses copy; nothing hands out references.
pub type GuestMemory = Arc<GuestMemoryMmap>;

/// A mapping that is never unmapped while the process lives: KVM and the services use it to the end.
#[derive(Debug)]
pub struct Mapping {
    pub address: *mut u8,
    pub bytes: u64,
}

/// Bytes of RAM this host has; 0 if it does not tell.
pub fn of_host() -> u64 {
    nix::sys::sysinfo::sysinfo().map_or(0, |info| info.ram_total())
}

// SAFETY: an address range of the process, which any thread may hand to KVM; nobody reads or writes through it.
unsafe impl Send for Mapping {}
// SAFETY: as above; it has no interior that changes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `bytes` of it from `offset` on.
    pub fn part(&self, offset: u64, bytes: u64) -> Self {
        assert!(
            offset
                .checked_add(bytes)
                .is_some_and(|end| end <= self.bytes)
        );
        Self {
            address: self.address.wrapping_add(offset as usize),
            bytes,
        }
    }
}

/// Reserves RAM: aligned to 2 MiB, on huge pages, not counted until touched.
///
/// Anonymous and private rather than a memfd: transparent huge pages are refused for shared memory on many
/// hosts (kvm-facts.md).
pub fn reserve_ram(bytes: u64) -> Result<(GuestRegionMmap, Mapping), Error> {
    let fail = |source| Error::Reserve { bytes, source };
    let length = usize::try_from(bytes + LARGE_PAGE_SIZE)
        .map_err(|_| fail(io::Error::from_raw_os_error(libc::ENOMEM)))?;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), length, prot, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(fail(io::Error::last_os_error()));
    }
    let address = (base as usize).next_multiple_of(LARGE_PAGE_SIZE as usize) as *mut u8;
    // SAFETY: the range lies in the mapping just made. A refusal only costs speed.
    unsafe { libc::madvise(address.cast(), bytes as usize, libc::MADV_HUGEPAGE) };
    // SAFETY: `address..address + bytes` lies in a mapping that is never unmapped.
    let region = unsafe { MmapRegion::build_raw(address, bytes as usize, prot, flags) }
        .map_err(|_| fail(io::Error::from_raw_os_error(libc::EINVAL)))?;
    let region = GuestRegionMmap::new(region, GuestAddress(0))
        .ok_or_else(|| fail(io::Error::from_raw_os_error(libc::EINVAL)))?;
    Ok((region, Mapping { address, bytes }))
}

/// Gives the RAM of `bytes` at `gpa` back to the host; it reads as zeros when it is next used. Nothing if that is not all
/// RAM: the guest named it.
pub fn give_back(memory: &GuestMemory, gpa: u64, bytes: u64) {
    let length = usize::try_from(bytes).unwrap_or(0);
    let Ok(slice) = memory.get_slice(GuestAddress(gpa), length) else {
        return;
    };
    let range = slice.ptr_guard_mut();
    // SAFETY: the range lies in the guest's RAM, private anonymous memory of which nobody holds references: it changes
    // under accesses that copy, as the guest could change it itself.
    unsafe { libc::madvise(range.as_ptr().cast(), range.len(), libc::MADV_DONTNEED) };
}

/// Maps the root archive read-only; its pages are the host page cache's.
pub fn map_archive(file: &File) -> Result<Mapping, Error> {
    let bytes = file
        .metadata()
        .map_err(Error::RootArchive)?
        .len()
        .next_multiple_of(4096);
    if bytes == 0 {
        return Err(Error::RootArchive(io::Error::from_raw_os_error(
            libc::ENODATA,
        )));
    }
    // SAFETY: a new mapping of a file at an address of the kernel's choice; the VMM never makes references
    // into it, only KVM maps it into the guest.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes as usize,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(Error::RootArchive(io::Error::last_os_error()));
    }
    Ok(Mapping {
        address: address.cast(),
        bytes,
    })
}

/// What is done with a file, and from which byte on.
#[derive(Clone, Copy)]
enum Transfer {
    Read(u64),
    Write(u64),
    /// At its end, wherever that is by then.
    Append,
}

/// Calls `call` with `ranges` of guest memory as the vectors of a system call, which are good for as long as it runs. What
/// the guest changes meanwhile is its own loss.
///
/// # Errors
/// `EFAULT` outside guest memory.
pub fn with_vectors<T>(
    memory: &GuestMemoryMmap,
    ranges: &[(u64, usize)],
    call: impl FnOnce(&[libc::iovec]) -> T,
) -> io::Result<T> {
    let slices = ranges
        .iter()
        .map(|(at, len)| memory.get_slice(GuestAddress(*at), *len))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))?;
    let guards: Vec<_> = slices.iter().map(|slice| slice.ptr_guard_mut()).collect();
    let vectors: Vec<libc::iovec> = guards
        .iter()
        .map(|guard| libc::iovec {
            iov_base: guard.as_ptr().cast(),
            iov_len: guard.len(),
        })
        .collect();
    Ok(call(&vectors))
}

/// Moves up to the bytes of `ranges` between guest memory and `file`, without a copy in between.
fn transfer(
    memory: &GuestMemoryMmap,
    ranges: &[(u64, usize)],
    file: BorrowedFd<'_>,
    what: Transfer,
) -> io::Result<usize> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let at = |at: u64| i64::try_from(at).map_err(|_| invalid());
    with_vectors(memory, ranges, |vectors| {
        let count = i32::try_from(vectors.len()).map_err(|_| invalid())?;
        let (fd, vectors) = (file.as_raw_fd(), vectors.as_ptr());
        // SAFETY: the vectors are ranges of guest memory, which is never unmapped and of which there are no references.
        let moved = unsafe {
            match what {
                Transfer::Read(offset) => libc::preadv(fd, vectors, count, at(offset)?),
                Transfer::Write(offset) => libc::pwritev(fd, vectors, count, at(offset)?),
                Transfer::Append => libc::pwritev2(fd, vectors, count, 0, libc::RWF_APPEND),
            }
        };
        usize::try_from(moved).map_err(|_| io::Error::last_os_error())
    })?
}

/// Writes ranges of guest memory to `file` at `offset`, or else at its end; returns how many bytes.
///
/// # Errors
/// `EFAULT` outside guest memory; what `pwritev(2)` gives.
pub fn guest_into_file(
    memory: &GuestMemoryMmap,
    ranges: &[(u64, usize)],
    file: BorrowedFd<'_>,
    offset: Option<u64>,
) -> io::Result<usize> {
    let what = offset.map_or(Transfer::Append, Transfer::Write);
    transfer(memory, ranges, file, what)
}

/// Has the host begin to write the data of `file` to its disk.
///
/// # Errors
/// What `sync_file_range(2)` gives.
pub fn start_writing(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no memory is involved.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reads `file` at `offset` into ranges of guest memory; returns how many bytes, 0 at the end.
///
/// # Errors
/// `EFAULT` outside guest memory; what `preadv(2)` gives.
pub fn file_into_guest(
    memory: &GuestMemoryMmap,
    ranges: &[(u64, usize)],
    file: BorrowedFd<'_>,
    offset: u64,
) -> io::Result<usize> {
    transfer(memory, ranges, file, Transfer::Read(offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn what_is_given_back_reads_as_zeros() {
        let (region, _) = reserve_ram(4 * LARGE_PAGE_SIZE).unwrap();
        let memory: GuestMemory = Arc::new(GuestMemoryMmap::from_regions(vec![region]).unwrap());
        for block in 0..4 {
            memory
                .write_obj(7u64, GuestAddress(block * LARGE_PAGE_SIZE + 8))
                .unwrap();
        }
        give_back(&memory, LARGE_PAGE_SIZE, LARGE_PAGE_SIZE);
        // Not RAM, or only in part: nothing happens.
        give_back(&memory, 4 * LARGE_PAGE_SIZE, LARGE_PAGE_SIZE);
        give_back(&memory, 3 * LARGE_PAGE_SIZE, 2 * LARGE_PAGE_SIZE);
        give_back(&memory, u64::MAX - 4095, LARGE_PAGE_SIZE);
        let word = |block: u64| {
            memory
                .read_obj::<u64>(GuestAddress(block * LARGE_PAGE_SIZE + 8))
                .unwrap()
        };
        assert_eq!([word(0), word(1), word(2), word(3)], [7, 0, 7, 7]);
    }
}
