//! Reading and writing an address space that need not be the current one.

use husk_abi::boundary::layout::{PAGE_SIZE, USER_END};
use husk_hal::phys::{self, Frame};

use super::fault::Access;
use super::pte::{Entry, Owner};
use super::space::{AddressSpace, page_down};
use crate::{Errno, Result};

impl AddressSpace {
    /// Copies `bytes` to `address`, faulting pages in as a store by the process would. Returns how many bytes
    /// were copied before an address that cannot be written.
    ///
    /// # Errors
    /// `EFAULT` if not even the first byte can be written.
    pub fn write_bytes(&self, address: u64, bytes: &[u8]) -> Result<usize> {
        self.pieces(
            address,
            bytes.len(),
            Access::Write,
            |frame, offset, done, len| {
                phys::write(frame, offset, &bytes[done..done + len]);
            },
        )
    }

    /// Fills `bytes` from `address` on, faulting pages in as a load by the process would, but with the file's own bytes
    /// where the process has patched code. Returns how many bytes were copied before an address that cannot be read.
    ///
    /// # Errors
    /// `EFAULT` if not even the first byte can be read.
    pub fn read_bytes(&self, address: u64, bytes: &mut [u8]) -> Result<usize> {
        self.pieces(
            address,
            bytes.len(),
            Access::Read,
            |frame, offset, done, len| {
                phys::read(frame, offset, &mut bytes[done..done + len]);
            },
        )
    }

    /// Calls `copy` with frame, offset in it, bytes done and bytes to do, page by page.
    fn pieces(
        &self,
        address: u64,
        len: usize,
        access: Access,
        copy: impl FnMut(Frame, usize, usize, usize),
    ) -> Result<usize> {
        self.each_piece(address, len, |at| self.pin_original(at, access), copy)
    }

    /// [`AddressSpace::pieces`] with frames that `pin` gives.
    fn each_piece(
        &self,
        address: u64,
        len: usize,
        pin: impl Fn(u64) -> Result<Frame>,
        mut copy: impl FnMut(Frame, usize, usize, usize),
    ) -> Result<usize> {
        let mut done = 0;
        while done < len {
            let at = address.saturating_add(done as u64);
            let Ok(frame) = pin(at) else {
                break;
            };
            let offset = (at % PAGE_SIZE) as usize;
            let piece = (PAGE_SIZE as usize - offset).min(len - done);
            copy(frame, offset, done, piece);
            self.frames.put(frame);
            done += piece;
        }
        if done == 0 && len > 0 {
            return Err(Errno::EFAULT);
        }
        Ok(done)
    }

    /// As [`AddressSpace::pin`], but never patched code.
    fn pin_original(&self, address: u64, access: Access) -> Result<Frame> {
        let frame = self.pin(address, access)?;
        let original = self.original_page(address);
        if let Ok(None) = original {
            return Ok(frame);
        }
        self.frames.put(frame);
        original.and_then(|frame| frame.ok_or(Errno::EFAULT))
    }

    /// As [`AddressSpace::read_bytes`], but whatever rights the process has there (`PROT_NONE`): for debuggers.
    ///
    /// # Errors
    /// `EFAULT` if not even the first byte can be read.
    pub fn read_bytes_forced(&self, address: u64, bytes: &mut [u8]) -> Result<usize> {
        let pin = |at| self.pin_contents(at);
        self.each_piece(address, bytes.len(), pin, |frame, offset, done, len| {
            phys::read(frame, offset, &mut bytes[done..done + len]);
        })
    }

    /// As [`AddressSpace::pin_original`] for reading, whatever the rights there.
    fn pin_contents(&self, address: u64) -> Result<Frame> {
        if let Ok(frame) = self.pin_original(address, Access::Read) {
            return Ok(frame);
        }
        let page = page_down(address);
        let resident = self.with(|state| {
            let area = state.vmas.find(page).filter(|area| !area.is_hidden());
            let area = area.ok_or(Errno::EFAULT)?.clone();
            let entry = state.table.get(page);
            if entry.is_empty() || entry.owner() == Owner::Borrowed {
                return Ok(Err(area));
            }
            state.table.leaf_table(page)?;
            let frame = state.table.frame_of(page).ok_or(Errno::EFAULT)?;
            self.frames.get(frame);
            Ok(Ok(frame))
        })?;
        match resident {
            Ok(frame) => Ok(frame),
            Err(area) => match area.object() {
                Some(object) => object.mappable.page(area.page_index(page), false),
                None => self.frames.alloc_zeroed(),
            },
        }
    }

    /// As [`AddressSpace::write_bytes`], but private memory may be read-only: the process gets a copy of its own, which stays
    /// read-only for itself. For debuggers, who write breakpoints into code.
    ///
    /// # Errors
    /// `EFAULT` if not even the first byte can be written.
    pub fn write_bytes_forced(&self, address: u64, bytes: &[u8]) -> Result<usize> {
        let pin = |at| match self.pin(at, Access::Write) {
            Ok(frame) => Ok(frame),
            Err(_) => self.pin_own(at),
        };
        self.each_piece(address, bytes.len(), pin, |frame, offset, done, len| {
            phys::write(frame, offset, &bytes[done..done + len]);
        })
    }

    /// The frame of the private, read-only page at `address`, with a reference for the caller, made the process's own first.
    fn pin_own(&self, address: u64) -> Result<Frame> {
        let page = page_down(address);
        let original = self.pin_contents(page)?;
        let own = self.with(|state| {
            let area = state.vmas.find(page).ok_or(Errno::EFAULT)?;
            if area.is_shared() || area.is_hidden() {
                return Err(Errno::EFAULT);
            }
            let prot = area.prot;
            state.table.leaf_table(page)?;
            let entry = state.table.get(page);
            let is_own = entry.is_anonymous()
                && entry.frame() == original
                // The caller's is the other one.
                && self.frames.count(original) == 2;
            if is_own {
                self.frames.get(original);
                return Ok(original);
            }
            let copy = self.frames.alloc()?;
            phys::copy_frames(original, copy, 1);
            let entry = Entry::page(copy, Owner::Anonymous, prot, false);
            if let Err(errno) = state.table.set(page, entry) {
                self.frames.put(copy);
                return Err(errno);
            }
            self.frames.get(copy);
            Ok(copy)
        });
        self.frames.put(original);
        own
    }

    /// Fills `bytes` with what a thread that executes or loads at `address` sees.
    ///
    /// # Errors
    /// `EFAULT`.
    #[cfg(test)]
    pub fn seen_bytes(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        for (at, byte) in (address..).zip(bytes) {
            let frame = self.pin(at, Access::Read)?;
            phys::read(
                frame,
                (at % PAGE_SIZE) as usize,
                core::slice::from_mut(byte),
            );
            self.frames.put(frame);
        }
        Ok(())
    }

    /// The frame `address` lies in, with a reference for the caller, made accessible first.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn pin(&self, address: u64, access: Access) -> Result<Frame> {
        if address >= USER_END {
            return Err(Errno::EFAULT);
        }
        let page = page_down(address);
        loop {
            let frame = self.with(|state| {
                let entry = state.table.get(page);
                if !entry.is_present() || access == Access::Write && !entry.is_writable() {
                    return None;
                }
                if entry.is_large() {
                    // References are then to single pages.
                    state.table.leaf_table(page).ok()?;
                }
                let frame = state.table.frame_of(page)?;
                self.frames.get(frame);
                Some(frame)
            });
            if let Some(frame) = frame {
                return Ok(frame);
            }
            self.access(page, access).map_err(|_| Errno::EFAULT)?;
        }
    }
}
