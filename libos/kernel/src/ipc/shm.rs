//! Shared memory segments: `shmget(2)`, `shmat(2)`, `shmdt(2)`, `shmctl(2)`.
//!
//! A segment is an object in memory like any other shared one; a mapping holds it by an [`Attachment`], of which each call to
//! `shmat(2)` makes one and which forks and splits share. Once removed, a segment lives as long as it is attached.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;

use husk_abi::boundary::layout::PAGE_SIZE;
use husk_abi::linux::general;
use husk_hal::phys::Frame;

use super::objects::{Common, Object, READ, WRITE};
use super::wire::{self, IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, SHMID_BYTES, Struct};
use super::{Namespace, now};
use crate::mm::{
    Backing, Flags, Limits, Mappable, Mapping, Object as Shown, Placement, Prot, SharedMemory,
};
use crate::sync::SpinLock;
use crate::syscall::{Addr, Hex, Int, Len, Ptr};
use crate::translate::TextImage;
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

/// Bytes of a segment (`kernel.shmmax`).
pub const MAX_BYTES: u64 = u64::MAX - (1 << 24);
/// Pages of all segments (`kernel.shmall`).
pub const MAX_PAGES: u64 = u64::MAX - (1 << 24);
/// Segments (`kernel.shmmni`).
pub const MAX_SEGMENTS: usize = 4096;

const SHM_HUGETLB: u64 = 0o4000;
const SHM_RDONLY: u64 = 0o10000;
const SHM_RND: u64 = 0o20000;
const SHM_REMAP: u64 = 0o40000;
const SHM_EXEC: u64 = 0o100_000;
/// Mode bits that `shmctl(2)` shows: it goes with its last attachment; it is locked in memory.
pub const SHM_DEST: u32 = 0o1000;
const SHM_LOCKED: u32 = 0o2000;
const SHM_LOCK: i32 = 11;
const SHM_UNLOCK: i32 = 12;
const SHM_STAT: i32 = 13;
const SHM_INFO: i32 = 14;
const SHM_STAT_ANY: i32 = 15;
/// Execute permission, for owner, group and others.
const EXECUTE: u32 = 0o111;

#[derive(Debug, Default)]
pub(super) struct State {
    pub attached: i64,
    pub detached: i64,
    pub last: u32,
    attachments: Vec<Weak<Attachment>>,
}

/// A segment.
#[derive(Debug)]
pub struct Segment {
    common: Common,
    namespace: Weak<Namespace>,
    memory: SharedMemory,
    /// What `/proc/PID/maps` has as inode number; other than any segment's of another namespace.
    ino: u64,
    /// As it was asked for.
    pub size_bytes: u64,
    /// The process that made it.
    pub creator: u32,
    pub(super) state: SpinLock<State>,
}

impl Object for Segment {
    fn common(&self) -> &Common {
        &self.common
    }
}

impl Segment {
    /// How often it is attached.
    pub(super) fn attachments(&self) -> usize {
        let attached = |attachment: &Weak<Attachment>| attachment.strong_count();
        self.state.lock().attachments.iter().map(attached).sum()
    }

    /// Pages of it that there are.
    pub(super) fn resident(&self) -> u64 {
        self.memory.resident_pages()
    }

    fn pages(&self) -> u64 {
        self.size_bytes.div_ceil(PAGE_SIZE)
    }

    /// Whether it goes with its last attachment.
    fn is_condemned(&self) -> bool {
        self.common.perm.lock().mode & SHM_DEST != 0
    }
}

/// What a `shmat(2)` maps.
#[derive(Debug)]
struct Attachment {
    segment: Arc<Segment>,
    pid: u32,
}

impl Mappable for Attachment {
    fn page(&self, index: u64, shared_write: bool) -> Result<Frame> {
        self.segment.memory.page(index, shared_write)
    }

    fn size_bytes(&self) -> u64 {
        self.segment.memory.size_bytes()
    }

    fn identity(&self) -> (u64, u64) {
        (self.segment.memory.identity().0, self.segment.ino)
    }

    fn remove(&self, range: Range<u64>) -> Result<()> {
        self.segment.memory.remove(range)
    }

    fn text(&self) -> Option<&TextImage> {
        None
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let segment = &self.segment;
        {
            let mut state = segment.state.lock();
            state.detached = now();
            state.last = self.pid;
            state.attachments.retain(|one| one.strong_count() > 0);
            if !state.attachments.is_empty() {
                return;
            }
        }
        if segment.is_condemned()
            && let Some(namespace) = segment.namespace.upgrade()
        {
            let removed = namespace.segments.lock().remove(segment);
            drop(removed);
        }
    }
}

fn namespace(t: &Thread) -> Arc<Namespace> {
    t.namespaces().ipc.clone()
}

fn get(t: &Thread, id: i32) -> Result<Arc<Segment>> {
    namespace(t).segments.lock().get(id)
}

/// `shmget(2)`.
///
/// # Errors
/// `EINVAL`, `EACCES`, `EEXIST`, `ENOENT`, `ENOMEM`, `ENOSPC`, `EPERM`.
pub fn shmget(t: &Thread, key: Int, size: Len, flags: Hex) -> SysResult {
    let size = size as u64;
    let namespace = namespace(t);
    let credentials = t.credentials();
    let limits = &namespace.limits;
    let mut segments = namespace.segments.lock();
    let used: u64 = segments.iter().map(|segment| segment.pages()).sum();
    let fits = |segment: &Segment| {
        if segment.size_bytes < size {
            Err(Errno::EINVAL)
        } else {
            Ok(())
        }
    };
    let make = |common: Common| {
        if !(1..=limits.segment_bytes).contains(&size) {
            return Err(Errno::EINVAL);
        }
        if used.saturating_add(size.div_ceil(PAGE_SIZE)) > limits.segment_pages {
            return Err(Errno::ENOSPC);
        }
        if flags & SHM_HUGETLB != 0 {
            // As on a Linux with vm.nr_hugepages = 0.
            return Err(Errno::ENOMEM);
        }
        let id = u64::from(common.id.cast_unsigned());
        Ok(Segment {
            common,
            namespace: Arc::downgrade(&namespace),
            memory: SharedMemory::new(&t.kernel.frames, size)?,
            // Of the first namespace the id itself, as on Linux.
            ino: u64::from(namespace.number() - super::FIRST) << 31 | id,
            size_bytes: size,
            creator: t.process.pid,
            state: SpinLock::default(),
        })
    };
    let id = segments.find_or_make(&credentials, key, flags, limits.segments, fits, make)?;
    Ok(id as usize)
}

/// `shmat(2)`.
///
/// # Errors
/// `EINVAL`, `EACCES`, `EIDRM`, `ENOMEM`.
pub fn shmat(t: &Thread, id: Int, at: Addr, flags: Hex) -> SysResult {
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    let mut at = at;
    if at == 0 && flags & SHM_REMAP != 0 {
        return Err(Errno::EINVAL);
    }
    if !at.is_multiple_of(PAGE_SIZE) {
        if flags & SHM_RND == 0 {
            return Err(Errno::EINVAL);
        }
        at &= !(PAGE_SIZE - 1);
        if at == 0 && flags & SHM_REMAP != 0 {
            return Err(Errno::EINVAL);
        }
    }
    let (mut prot, mut wanted) = (Prot::READ, READ);
    if flags & SHM_RDONLY == 0 {
        prot |= Prot::WRITE;
        wanted |= WRITE;
    }
    if flags & SHM_EXEC != 0 {
        prot |= Prot::EXEC;
        wanted |= EXECUTE;
    }
    let segment = get(t, id)?;
    segment.common.check(&t.credentials(), wanted)?;
    segment.common.check_alive()?;
    let key = segment.common.perm.lock().key;
    let attachment = Arc::new(Attachment {
        segment: segment.clone(),
        pid: t.process.pid,
    });
    {
        let mut state = segment.state.lock();
        state.attachments.push(Arc::downgrade(&attachment));
        state.attached = now();
        state.last = t.process.pid;
    }
    let mut max_prot = Prot::all();
    max_prot.set(Prot::WRITE, flags & SHM_RDONLY == 0);
    let mapping = Mapping {
        prot,
        max_prot,
        flags: Flags::SHARED,
        backing: Backing::Object(Shown {
            mappable: attachment,
            offset: 0,
            path: Arc::from(alloc::format!("/SYSV{key:08x} (deleted)").as_bytes()),
            thunk_base: None,
        }),
    };
    let place = match at {
        0 => Placement::Hint(0),
        at if flags & SHM_REMAP != 0 => Placement::Fixed(at),
        at => Placement::FixedNoReplace(at),
    };
    let mapped = t
        .mm()
        .map(place, segment.size_bytes, mapping, &Limits::of(&t.process));
    let at = mapped.map_err(|errno| match errno {
        // Something is there already, or it lies too low.
        Errno::EEXIST | Errno::EPERM => Errno::EINVAL,
        other => other,
    })?;
    Ok(at as usize)
}

/// `shmdt(2)`.
///
/// # Errors
/// `EINVAL` if no segment is attached there.
pub fn shmdt(t: &Thread, at: Addr) -> SysResult {
    if !at.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    t.mm().unmap_object_at(at, b"/SYSV")?;
    Ok(0)
}

/// `shmctl(2)`.
///
/// # Errors
/// `EINVAL`, `EFAULT`, `EACCES`, `EPERM`, `ENOMEM`, `EIDRM`.
pub fn shmctl(t: &Thread, id: Int, command: Int, buf: Ptr) -> SysResult {
    if command < 0 || id < 0 {
        return Err(Errno::EINVAL);
    }
    let credentials = t.credentials();
    match command {
        IPC_INFO => limits(t, buf),
        SHM_INFO => usage(t, buf),
        IPC_STAT | SHM_STAT | SHM_STAT_ANY => stat(t, id, command, buf),
        IPC_SET => {
            let (_, perm) = wire::read::<SHMID_BYTES>(buf)?;
            let segment = get(t, id)?;
            segment.common.check_owner(&credentials)?;
            segment.common.change(perm)?;
            Ok(0)
        }
        IPC_RMID => {
            let segment = get(t, id)?;
            segment.common.check_owner(&credentials)?;
            if segment.attachments() > 0 {
                let mut perm = segment.common.perm.lock();
                perm.mode |= SHM_DEST;
                // Nobody finds it any more.
                perm.key = 0;
            }
            // The last attachment may have gone meanwhile.
            if segment.attachments() == 0 {
                let removed = namespace(t).segments.lock().remove(&segment);
                drop(removed);
            }
            Ok(0)
        }
        SHM_LOCK | SHM_UNLOCK => {
            let segment = get(t, id)?;
            let mut perm = segment.common.perm.lock();
            if !credentials.has(general::CAP_IPC_LOCK) {
                if credentials.euid != perm.uid && credentials.euid != perm.cuid {
                    return Err(Errno::EPERM);
                }
                let limit = t.process.limit(general::RLIMIT_MEMLOCK)?.rlim_cur;
                if command == SHM_LOCK && limit == 0 {
                    return Err(Errno::EPERM);
                }
                if command == SHM_LOCK && limit < segment.size_bytes {
                    return Err(Errno::ENOMEM);
                }
            }
            // Nothing is ever paged out.
            perm.mode &= !SHM_LOCKED;
            if command == SHM_LOCK {
                perm.mode |= SHM_LOCKED;
            }
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn limits(t: &Thread, buf: UserAddr) -> SysResult {
    const BYTES: usize = 72;
    let namespace = namespace(t);
    let limits = &namespace.limits;
    let segments = limits.segments as u64;
    let mut out = Struct::default();
    for value in [
        limits.segment_bytes,
        1,
        segments,
        segments,
        limits.segment_pages,
    ] {
        out.long(value);
    }
    out.write(buf, BYTES)?;
    Ok(namespace.segments.lock().highest())
}

fn usage(t: &Thread, buf: UserAddr) -> SysResult {
    const BYTES: usize = 48;
    let namespace = namespace(t);
    let (highest, count, pages, resident) = {
        let segments = namespace.segments.lock();
        let pages: u64 = segments.iter().map(|segment| segment.pages()).sum();
        let resident: u64 = segments.iter().map(|segment| segment.resident()).sum();
        (segments.highest(), segments.len(), pages, resident)
    };
    let mut out = Struct::default();
    out.int(count as i32);
    out.long(pages);
    out.long(resident);
    out.write(buf, BYTES)?;
    Ok(highest)
}

fn stat(t: &Thread, id: i32, command: i32, buf: UserAddr) -> SysResult {
    let namespace = namespace(t);
    let segment = if command == IPC_STAT {
        namespace.segments.lock().get(id)?
    } else {
        namespace.segments.lock().at(id)?
    };
    if command != SHM_STAT_ANY {
        segment.common.check(&t.credentials(), READ)?;
    }
    let attachments = segment.attachments() as u64;
    let perm = *segment.common.perm.lock();
    let mut out = Struct::of(&perm, segment.common.id);
    {
        let state = segment.state.lock();
        out.long(segment.size_bytes);
        for time in [state.attached, state.detached, perm.changed] {
            out.long(time.cast_unsigned());
        }
        out.int(segment.creator as i32);
        out.int(state.last as i32);
    }
    out.long(attachments);
    out.write(buf, SHMID_BYTES)?;
    Ok(if command == IPC_STAT {
        0
    } else {
        segment.common.id as usize
    })
}
