//! Restartable sequences (`rseq(2)`).
//!
//! A thread registers an area in which the kernel keeps the number of its vCPU and from which it learns of critical
//! sections. A section that was interrupted, because the thread lost its vCPU or a signal handler comes, goes on at its
//! abort address.

use husk_abi::boundary::layout::USER_END;
use husk_hal::cpu;

use crate::signal::{self, Info, set::SIGSEGV};
use crate::syscall::{Hex, Ptr, Uint};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread, translate};

/// `RSEQ_FLAG_UNREGISTER`.
const UNREGISTER: u64 = 1;
/// `RSEQ_CPU_ID_UNINITIALIZED`.
const UNINITIALIZED: u32 = u32::MAX;
/// Bytes of the first `struct rseq`, and its alignment.
const ORIGINAL_BYTES: u32 = 32;
const ALIGNMENT: u64 = 32;

// Offsets in `struct rseq`.
const CPU_ID_START: u64 = 0;
const CPU_ID: u64 = 4;
const RSEQ_CS: u64 = 8;
const NODE_ID: u64 = 20;
const MM_CID: u64 = 24;

/// A thread's registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    area: UserAddr,
    bytes: u32,
    /// Stands before every abort address, so that nothing else is jumped to.
    signature: u32,
    /// What the area's fields say; `None` until they were written.
    shown: Option<u32>,
}

/// `struct ptrace_rseq_configuration` of a thread: address; size and signature; flags.
#[must_use]
pub fn configuration(thread: &Thread) -> [u64; 3] {
    match *thread.rseq.lock() {
        Some(own) => [
            own.area.0,
            u64::from(own.bytes) | u64::from(own.signature) << 32,
            0,
        ],
        None => [0; 3],
    }
}

/// `struct rseq_cs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Section {
    version: u32,
    flags: u32,
    start: u64,
    bytes: u64,
    abort: u64,
}

impl Section {
    fn read(at: u64) -> Result<Self> {
        let [head, start, bytes, abort] = UserAddr(at).read::<[u64; 4]>()?;
        Ok(Self {
            version: head as u32,
            flags: (head >> 32) as u32,
            start,
            bytes,
            abort,
        })
    }

    fn contains(&self, rip: u64) -> bool {
        rip.wrapping_sub(self.start) < self.bytes
    }

    /// Whether it is one a program may have.
    fn is_valid(&self) -> bool {
        self.version == 0
            && self.flags == 0
            && self.start < USER_END
            && self.abort < USER_END
            && self
                .start
                .checked_add(self.bytes)
                .is_some_and(|end| end < USER_END)
            && !self.contains(self.abort)
    }
}

/// `rseq(2)`.
///
/// # Errors
/// `EINVAL` for bad flags, lengths, alignment, or another area than the registered; `EBUSY` if this one is registered;
/// `EPERM` for another signature; `EFAULT`.
pub fn rseq(t: &Thread, area: Ptr, bytes: Uint, flags: Hex, signature: Hex) -> SysResult {
    let flags = u64::from(flags as u32);
    let signature = signature as u32;
    let mut slot = t.rseq.lock();
    if flags & UNREGISTER != 0 {
        let registered = *slot;
        let known = registered.filter(|known| known.area == area && known.bytes == bytes);
        let known = known.ok_or(Errno::EINVAL)?;
        if flags != UNREGISTER {
            return Err(Errno::EINVAL);
        }
        if known.signature != signature {
            return Err(Errno::EPERM);
        }
        *slot = None;
        drop(slot);
        show(area, 0, UNINITIALIZED)?;
        return Ok(0);
    }
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    if let Some(known) = *slot {
        return Err(if known.area != area || known.bytes != bytes {
            Errno::EINVAL
        } else if known.signature != signature {
            Errno::EPERM
        } else {
            Errno::EBUSY
        });
    }
    if bytes < ORIGINAL_BYTES || !area.0.is_multiple_of(ALIGNMENT) {
        return Err(Errno::EINVAL);
    }
    if area
        .0
        .checked_add(u64::from(bytes))
        .is_none_or(|end| end > USER_END)
    {
        return Err(Errno::EFAULT);
    }
    *slot = Some(Registration {
        area,
        bytes,
        signature,
        shown: None,
    });
    drop(slot);
    // The fields are right before the call returns.
    cpu::raise(cpu::WORK_THREAD);
    Ok(0)
}

fn show(area: UserAddr, cpu_id_start: u32, cpu_id: u32) -> Result<()> {
    area.add(CPU_ID_START).write(&cpu_id_start)?;
    area.add(CPU_ID).write(&cpu_id)?;
    area.add(NODE_ID).write(&0u32)?;
    area.add(MM_CID).write(&0u32)
}

/// On the way back to user code after the thread was switched to, or before a signal is delivered: ends an interrupted
/// section, and brings the area up to date. An area that cannot be accessed is `SIGSEGV`.
pub fn on_return(t: &Thread) {
    let registered = *t.rseq.lock();
    let Some(registration) = registered else {
        return;
    };
    if t.signals.is_killed() {
        return;
    }
    let done = abort_section(t, &registration).and_then(|()| {
        let cpu = cpu::index() as u32;
        if registration.shown == Some(cpu) {
            return Ok(());
        }
        show(registration.area, cpu, cpu)?;
        if let Some(registration) = &mut *t.rseq.lock() {
            registration.shown = Some(cpu);
        }
        Ok(())
    });
    if done.is_err() {
        // Not again on the way to the handler.
        *t.rseq.lock() = None;
        signal::force(t, &Info::kernel(SIGSEGV));
    }
}

fn abort_section(t: &Thread, registration: &Registration) -> Result<()> {
    let pointer = registration.area.add(RSEQ_CS);
    let section: u64 = pointer.read()?;
    if section == 0 {
        return Ok(());
    }
    if section >= USER_END {
        return Err(Errno::EINVAL);
    }
    let section = Section::read(section)?;
    if !section.is_valid()
        || UserAddr(section.abort.wrapping_sub(4)).load_u32()? != registration.signature
    {
        return Err(Errno::EINVAL);
    }
    let live = t.frame();
    let mut frame = live.get();
    let rip = translate::original_rip(t, frame.rip);
    // Either it has left the section, or leaves it now.
    pointer.write(&0u64)?;
    if section.contains(rip) {
        frame.rip = section.abort;
        frame.code |= husk_hal::trap::EXIT_FULL;
        live.set(&frame);
        translate::resume(t);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Section;

    const GOOD: Section = Section {
        version: 0,
        flags: 0,
        start: 0x1000,
        bytes: 0x20,
        abort: 0x2000,
    };

    #[test]
    fn sections() {
        assert!(GOOD.is_valid());
        assert!(GOOD.contains(0x1000) && GOOD.contains(0x101f));
        assert!(!GOOD.contains(0xfff) && !GOOD.contains(0x1020));
        let bad = |change: fn(&mut Section)| {
            let mut section = GOOD;
            change(&mut section);
            !section.is_valid()
        };
        assert!(bad(|section| section.version = 1));
        assert!(bad(|section| section.flags = 1));
        assert!(bad(|section| section.abort = 0x1010));
        assert!(bad(|section| section.start = u64::MAX - 8));
        assert!(bad(|section| section.abort = u64::MAX));
    }
}
