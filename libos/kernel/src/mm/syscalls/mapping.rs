//! `mmap(2)`, `munmap(2)`, `mprotect(2)`, `mremap(2)`, `brk(2)`.

use alloc::sync::Arc;

use husk_abi::boundary::layout::PAGE_SIZE;
use husk_abi::linux::general as g;

use crate::fs::{File, FileRef};
use crate::mm::fault::Access;
use crate::mm::map::{Mapping, Placement, shared_anonymous};
use crate::mm::remap::Remap;
use crate::mm::space::{Limits, page_up};
use crate::mm::vma::{Backing, Flags, Object, Prot};
use crate::syscall::{Addr, Fd, Hex, Len, MapFlags, Off, Prot as ProtArg};
use crate::{Errno, Result, SysResult, Thread};

/// Flags `MAP_SHARED_VALIDATE` accepts; `MAP_SYNC` needs persistent memory, which there is none of.
const VALIDATED_FLAGS: u32 = g::MAP_TYPE
    | g::MAP_FIXED
    | g::MAP_ANONYMOUS
    | g::MAP_DENYWRITE
    | g::MAP_EXECUTABLE
    | g::MAP_UNINITIALIZED
    | g::MAP_GROWSDOWN
    | g::MAP_LOCKED
    | g::MAP_NORESERVE
    | g::MAP_POPULATE
    | g::MAP_NONBLOCK
    | g::MAP_STACK
    | g::MAP_HUGETLB
    | g::MAP_32BIT
    | g::MAP_ABOVE4G
    | g::MAP_FIXED_NOREPLACE
    | g::MAP_HUGE_MASK << g::MAP_HUGE_SHIFT;

fn rights(prot: u32) -> Prot {
    Prot::from_bits_truncate((prot & 7) as u8)
}

/// `mmap(2)`.
///
/// # Errors
/// `EINVAL`, `EBADF`, `EACCES`, `ENODEV`, `ENOMEM`, `EEXIST`, `EPERM`, `EOVERFLOW`, `EOPNOTSUPP`.
pub fn mmap(
    t: &Thread,
    addr: Addr,
    length: Len,
    prot: ProtArg,
    flags: MapFlags,
    fd: Fd,
    offset: Off,
) -> SysResult {
    let offset = offset as u64;
    if !offset.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let anonymous = flags & g::MAP_ANONYMOUS != 0;
    let file = if anonymous { None } else { Some(t.file(fd)?) };
    if length == 0 {
        return Err(Errno::EINVAL);
    }
    if flags & g::MAP_HUGETLB != 0 {
        // There is no pool of huge pages, as on a Linux with vm.nr_hugepages = 0.
        return Err(if anonymous {
            Errno::ENOMEM
        } else {
            Errno::EINVAL
        });
    }
    let len = page_up(length as u64).ok_or(Errno::ENOMEM)?;
    if (offset >> 12)
        .checked_add(len >> 12)
        .is_none_or(|end| end >> 52 != 0)
    {
        return Err(Errno::EOVERFLOW);
    }
    let shared = match flags & g::MAP_TYPE {
        g::MAP_PRIVATE => false,
        g::MAP_SHARED => true,
        g::MAP_SHARED_VALIDATE if anonymous => return Err(Errno::EINVAL),
        g::MAP_SHARED_VALIDATE if flags & !VALIDATED_FLAGS != 0 => return Err(Errno::EOPNOTSUPP),
        g::MAP_SHARED_VALIDATE => true,
        _ => return Err(Errno::EINVAL),
    };
    let mm = t.mm();
    let limits = Limits::of(&t.process);
    let mut area_flags = Flags::empty();
    area_flags.set(Flags::SHARED, shared);
    area_flags.set(Flags::NORESERVE, flags & g::MAP_NORESERVE != 0);
    area_flags.set(Flags::SMALL_PAGES, flags & g::MAP_STACK != 0);
    if flags & g::MAP_LOCKED != 0 {
        super::lock::may_lock(t, &mm, len)?;
        area_flags.insert(Flags::LOCKED);
    }
    let file = match file {
        Some(file) if file.ops.is_zeros() => {
            may_map(&file, rights(prot), shared)?;
            None
        }
        file => file,
    };
    let mut mapping = match &file {
        Some(file) => of_file(file, rights(prot), shared, offset)?,
        None => Mapping::anonymous(rights(prot)),
    };
    if flags & g::MAP_GROWSDOWN != 0 {
        if file.is_some() || shared {
            return Err(Errno::EINVAL);
        }
        area_flags.insert(Flags::GROWSDOWN);
    }
    if file.is_none() && shared {
        mapping.backing = shared_anonymous(&mm, len)?;
    }
    mapping.flags = area_flags;

    let place = if flags & g::MAP_FIXED_NOREPLACE != 0 {
        Placement::FixedNoReplace(addr)
    } else if flags & g::MAP_FIXED != 0 {
        Placement::Fixed(addr)
    } else if flags & g::MAP_32BIT != 0 && addr == 0 {
        Placement::Low
    } else {
        Placement::Hint(addr)
    };
    let at = mm.map(place, len, mapping, &limits)?;
    let populate = flags & (g::MAP_POPULATE | g::MAP_NONBLOCK) == g::MAP_POPULATE;
    if populate || flags & g::MAP_LOCKED != 0 {
        let access = if prot & g::PROT_WRITE != 0 && !shared {
            Access::Write
        } else {
            Access::Read
        };
        // As on Linux: what cannot be populated is no error of mmap.
        let _ = mm.populate(at..at + len, access);
    }
    Ok(at as usize)
}

/// The rights a mapping of `file` can ever have.
///
/// # Errors
/// `EACCES` if the descriptor does not allow what is asked for.
fn may_map(file: &File, prot: Prot, shared: bool) -> Result<Prot> {
    if !file.is_readable() {
        return Err(Errno::EACCES);
    }
    let mut max_prot = Prot::all();
    if shared && !file.is_writable() {
        if prot.contains(Prot::WRITE) {
            return Err(Errno::EACCES);
        }
        max_prot.remove(Prot::WRITE);
    }
    Ok(max_prot)
}

/// A mapping of `file` from `offset` on.
fn of_file(file: &FileRef, prot: Prot, shared: bool, offset: u64) -> Result<Mapping> {
    let mut max_prot = may_map(file, prot, shared)?;
    if !file.allows_exec() {
        if prot.contains(Prot::EXEC) {
            return Err(Errno::EPERM);
        }
        max_prot.remove(Prot::EXEC);
    }
    let mappable = file.ops.mappable()?;
    if shared && mappable.is_sealed() {
        if prot.contains(Prot::WRITE) {
            return Err(Errno::EPERM);
        }
        max_prot.remove(Prot::WRITE);
    }
    Ok(Mapping {
        prot,
        max_prot,
        flags: Flags::empty(),
        backing: Backing::Object(Object {
            mappable,
            offset,
            path: Arc::from(file.path.as_slice()),
            thunk_base: None,
        }),
    })
}

/// `munmap(2)`.
///
/// # Errors
/// `EINVAL`, `ENOMEM`.
pub fn munmap(t: &Thread, addr: Addr, length: Len) -> SysResult {
    t.mm().unmap(addr, length as u64).map(|()| 0)
}

/// `mprotect(2)`.
///
/// # Errors
/// `EINVAL`, `ENOMEM`, `EACCES`.
pub fn mprotect(t: &Thread, addr: Addr, length: Len, prot: ProtArg) -> SysResult {
    const GROWS: u32 = g::PROT_GROWSDOWN | g::PROT_GROWSUP;
    const KNOWN: u32 = g::PROT_READ | g::PROT_WRITE | g::PROT_EXEC | g::PROT_SEM;
    let grows = prot & GROWS;
    if grows == GROWS || !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    if length == 0 {
        return Ok(0);
    }
    if page_up(length as u64)
        .and_then(|len| addr.checked_add(len))
        .is_none()
    {
        return Err(Errno::ENOMEM);
    }
    if prot & !GROWS & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    if grows == g::PROT_GROWSUP {
        // No area grows up on x86-64.
        return Err(Errno::EINVAL);
    }
    let limits = Limits::of(&t.process);
    t.mm()
        .protect(addr, length as u64, rights(prot), grows != 0, &limits)
        .map(|()| 0)
}

/// `mremap(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`, `ENOMEM`, `EPERM`.
pub fn mremap(
    t: &Thread,
    old_address: Addr,
    old_size: Len,
    new_size: Len,
    flags: Hex,
    new_address: Addr,
) -> SysResult {
    const KNOWN: u32 = g::MREMAP_MAYMOVE | g::MREMAP_FIXED | g::MREMAP_DONTUNMAP;
    let flags = u32::try_from(flags)
        .ok()
        .filter(|flags| flags & !KNOWN == 0)
        .ok_or(Errno::EINVAL)?;
    // Without MREMAP_FIXED it is only a wish, but checked all the same.
    if flags & g::MREMAP_DONTUNMAP != 0 && !new_address.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let what = Remap {
        old: old_address,
        old_len: old_size as u64,
        new_len: new_size as u64,
        may_move: flags & g::MREMAP_MAYMOVE != 0,
        fixed: (flags & g::MREMAP_FIXED != 0).then_some(new_address),
        keep_old: flags & g::MREMAP_DONTUNMAP != 0,
    };
    t.mm()
        .remap(&what, &Limits::of(&t.process))
        .map(|at| at as usize)
}

/// `brk(2)`: the new break, or the old one if it cannot be moved there.
///
/// # Errors
/// None.
pub fn brk(t: &Thread, addr: Addr) -> SysResult {
    Ok(t.mm().brk(addr, &Limits::of(&t.process)) as usize)
}
