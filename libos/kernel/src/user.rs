//! User memory: addresses are claims, checked by using them.

use alloc::vec::Vec;

use husk_abi::linux::{Errno, Pod, general};
use husk_hal::{phys::Frame, user};

use crate::mm::{Access, Held};
use crate::{Result, Thread};

/// An address a program passed; nothing is known about it until it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserAddr(pub u64);

impl UserAddr {
    /// Whether the program passed NULL.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.0 == 0
    }

    /// The address `bytes` further on.
    #[expect(
        clippy::should_implement_trait,
        reason = "an offset, not a sum of addresses"
    )]
    #[must_use]
    pub fn add(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// Reads a value of the current process.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn read<T: Pod>(self) -> Result<T> {
        user::read(self.0).map_err(|_| Errno::EFAULT)
    }

    /// Reads a value, or `None` for NULL.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn read_opt<T: Pod>(self) -> Result<Option<T>> {
        if self.is_null() {
            Ok(None)
        } else {
            self.read().map(Some)
        }
    }

    /// Writes a value to the current process.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn write<T: Pod>(self, value: &T) -> Result<()> {
        user::write(self.0, value).map_err(|_| Errno::EFAULT)
    }

    /// Writes a value unless the address is NULL.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn write_opt<T: Pod>(self, value: &T) -> Result<()> {
        if self.is_null() {
            Ok(())
        } else {
            self.write(value)
        }
    }

    /// Loads an aligned 32-bit word in one access.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn load_u32(self) -> Result<u32> {
        user::load_u32(self.0).map_err(|_| Errno::EFAULT)
    }

    /// Atomically replaces an aligned 32-bit word if it is `expected`; returns the old value.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn compare_exchange_u32(self, expected: u32, new: u32) -> Result<u32> {
        user::compare_exchange_u32(self.0, expected, new).map_err(|_| Errno::EFAULT)
    }

    /// Atomically replaces an aligned 32-bit word by what `change` makes of it, or leaves it when that is
    /// `None`; returns the old value.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn fetch_update_u32(self, mut change: impl FnMut(u32) -> Option<u32>) -> Result<u32> {
        let mut old = self.load_u32()?;
        while let Some(new) = change(old) {
            let found = self.compare_exchange_u32(old, new)?;
            if found == old {
                break;
            }
            old = found;
        }
        Ok(old)
    }

    /// Fills `bytes` from the current process.
    ///
    /// # Errors
    /// `EFAULT` if any byte is not readable.
    pub fn read_bytes(self, bytes: &mut [u8]) -> Result<()> {
        if user::copy_in(bytes, self.0) == bytes.len() {
            Ok(())
        } else {
            Err(Errno::EFAULT)
        }
    }

    /// Writes `bytes` to the current process.
    ///
    /// # Errors
    /// `EFAULT` if any byte is not writable.
    pub fn write_bytes(self, bytes: &[u8]) -> Result<()> {
        if user::copy_out(self.0, bytes) == bytes.len() {
            Ok(())
        } else {
            Err(Errno::EFAULT)
        }
    }

    /// Reads an array.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn read_array<T: Pod>(self, count: usize) -> Result<Vec<T>> {
        (0..count as u64)
            .map(|index| self.add(index * size_of::<T>() as u64).read())
            .collect()
    }

    /// Reads a NUL-terminated string of at most `limit` bytes, NUL included; the result has no NUL.
    ///
    /// # Errors
    /// `EFAULT`; `ENAMETOOLONG` if there is no NUL within `limit` bytes.
    pub fn read_cstr(self, limit: usize) -> Result<Vec<u8>> {
        let mut string = Vec::new();
        let mut chunk = [0u8; 256];
        loop {
            // Never read past the page that ends the string: the next may not exist.
            let at = self.add(string.len() as u64);
            let page_left = 4096 - (at.0 as usize & 4095);
            let len = chunk.len().min(page_left).min(limit - string.len());
            if len == 0 {
                return Err(Errno::ENAMETOOLONG);
            }
            at.read_bytes(&mut chunk[..len])?;
            if let Some(end) = chunk[..len].iter().position(|byte| *byte == 0) {
                string.extend_from_slice(&chunk[..end]);
                return Ok(string);
            }
            string.extend_from_slice(&chunk[..len]);
        }
    }

    /// Reads a path (`PATH_MAX` bytes with its NUL).
    ///
    /// # Errors
    /// `EFAULT`, `ENAMETOOLONG`.
    pub fn read_path(self) -> Result<Vec<u8>> {
        self.read_cstr(general::PATH_MAX as usize)
    }

    /// As [`UserAddr::read_path`], without memory from the heap if the path is short, as most are.
    ///
    /// # Errors
    /// As [`UserAddr::read_path`].
    pub fn path_in(self, room: &mut PathRoom) -> Result<&[u8]> {
        let len = room.short.len().min(4096 - (self.0 as usize & 4095));
        self.read_bytes(&mut room.short[..len])?;
        if let Some(end) = room.short[..len].iter().position(|byte| *byte == 0) {
            return Ok(&room.short[..end]);
        }
        room.long = self.read_path()?;
        Ok(&room.long)
    }
}

/// Room for a path.
#[derive(Debug)]
pub struct PathRoom {
    short: [u8; 64],
    long: Vec<u8>,
}

impl Default for PathRoom {
    fn default() -> Self {
        Self {
            short: [0; 64],
            long: Vec::new(),
        }
    }
}

/// One `iovec`: memory of the current process, or (for the kernel's own reads and writes) of the kernel.
#[derive(Debug)]
enum Segment<'a> {
    User { addr: UserAddr, len: usize },
    Kernel(&'a mut [u8]),
    KernelConst(&'a [u8]),
}

impl Segment<'_> {
    fn len(&self) -> usize {
        match self {
            Segment::User { len, .. } => *len,
            Segment::Kernel(bytes) => bytes.len(),
            Segment::KernelConst(bytes) => bytes.len(),
        }
    }
}

/// The segments of a buffer; one, as almost always, needs no allocation.
#[derive(Debug)]
enum Segments<'a> {
    One(Segment<'a>),
    Many(Vec<Segment<'a>>),
}

impl<'a> Segments<'a> {
    #[inline]
    fn as_slice(&self) -> &[Segment<'a>] {
        match self {
            Segments::One(segment) => core::slice::from_ref(segment),
            Segments::Many(segments) => segments,
        }
    }

    #[inline]
    fn as_mut_slice(&mut self) -> &mut [Segment<'a>] {
        match self {
            Segments::One(segment) => core::slice::from_mut(segment),
            Segments::Many(segments) => segments,
        }
    }
}

/// Memory a read fills or a write takes from, in order; knows how far it is.
#[derive(Debug)]
pub struct IoBuf<'a> {
    segments: Segments<'a>,
    current: usize,
    offset: usize,
    done: usize,
    total: usize,
}

/// How far an [`IoBuf`] was.
#[derive(Clone, Copy, Debug)]
pub struct BufPlace(usize, usize, usize);

/// The largest count of one read or write (`MAX_RW_COUNT`).
pub const MAX_RW_COUNT: usize = 0x7fff_f000;

impl<'a> IoBuf<'a> {
    fn from_segments(segments: Segments<'a>) -> Self {
        let total = segments.as_slice().iter().map(Segment::len).sum();
        Self {
            segments,
            current: 0,
            offset: 0,
            done: 0,
            total,
        }
    }

    /// `len` bytes of the current process, cut to [`MAX_RW_COUNT`].
    ///
    /// # Errors
    /// `EFAULT` if the range cannot be user memory.
    pub fn user(addr: UserAddr, len: usize) -> Result<Self> {
        let len = len.min(MAX_RW_COUNT);
        if len > 0 && !user::range_ok(addr.0, len) {
            return Err(Errno::EFAULT);
        }
        Ok(Self::from_segments(Segments::One(Segment::User {
            addr,
            len,
        })))
    }

    /// The `count` buffers of an `iovec` array (`readv(2)`).
    ///
    /// # Errors
    /// `EFAULT`, `EINVAL`.
    pub fn iovec(iov: UserAddr, count: usize) -> Result<Self> {
        if count > 1024 {
            return Err(Errno::EINVAL);
        }
        let mut segments = Vec::with_capacity(count);
        let mut total = 0usize;
        for entry in iov.read_array::<general::iovec>(count)? {
            let (addr, len) = (UserAddr(entry.iov_base as u64), entry.iov_len as usize);
            if isize::try_from(len).is_err() {
                return Err(Errno::EINVAL);
            }
            if len > 0 && !user::range_ok(addr.0, len) {
                return Err(Errno::EFAULT);
            }
            let len = len.min(MAX_RW_COUNT - total);
            total += len;
            segments.push(Segment::User { addr, len });
        }
        Ok(Self::from_segments(Segments::Many(segments)))
    }

    /// Kernel memory to be filled.
    pub fn kernel(bytes: &'a mut [u8]) -> Self {
        Self::from_segments(Segments::One(Segment::Kernel(bytes)))
    }

    /// Kernel memory to take from.
    #[must_use]
    pub fn kernel_const(bytes: &'a [u8]) -> Self {
        Self::from_segments(Segments::One(Segment::KernelConst(bytes)))
    }

    /// Bytes moved so far.
    #[must_use]
    pub fn done(&self) -> usize {
        self.done
    }

    /// Bytes still to move.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.total - self.done
    }

    /// Where it is, for [`IoBuf::return_to`].
    #[must_use]
    pub fn place(&self) -> BufPlace {
        BufPlace(self.current, self.offset, self.done)
    }

    /// Goes back to where it was: what was moved since is moved again.
    pub fn return_to(&mut self, place: BufPlace) {
        (self.current, self.offset, self.done) = (place.0, place.1, place.2);
    }

    fn advance(&mut self, by: usize) {
        self.done += by;
        self.offset += by;
        while let Some(segment) = self.segments.as_slice().get(self.current)
            && self.offset >= segment.len()
        {
            self.offset -= segment.len();
            self.current += 1;
        }
    }

    /// Moves up to `want` bytes piece by piece: `step` is given the segment, the offset in it, the offset in
    /// this call and the length, and says how many it moved.
    fn run(
        &mut self,
        want: usize,
        mut step: impl FnMut(&mut Segment<'a>, usize, usize, usize) -> usize,
    ) -> Result<usize> {
        let want = want.min(self.remaining());
        let mut moved = 0;
        self.advance(0);
        while moved < want {
            let segment = &mut self.segments.as_mut_slice()[self.current];
            let len = (segment.len() - self.offset).min(want - moved);
            let got = step(segment, self.offset, moved, len);
            self.advance(got);
            moved += got;
            if got < len {
                return if moved == 0 {
                    Err(Errno::EFAULT)
                } else {
                    Ok(moved)
                };
            }
        }
        Ok(moved)
    }

    /// Moves bytes out of the kernel into the buffer (a read); returns how many fitted.
    ///
    /// # Errors
    /// `EFAULT` if not even the first byte could be written.
    pub fn put(&mut self, bytes: &[u8]) -> Result<usize> {
        self.run(bytes.len(), |segment, offset, at, len| match segment {
            Segment::User { addr, .. } => {
                user::copy_out(addr.add(offset as u64).0, &bytes[at..at + len])
            }
            Segment::Kernel(to) => {
                to[offset..offset + len].copy_from_slice(&bytes[at..at + len]);
                len
            }
            Segment::KernelConst(_) => 0,
        })
    }

    /// Moves `len` bytes of a frame into the buffer, from `offset` of the frame on.
    ///
    /// # Errors
    /// As [`IoBuf::put`].
    pub fn put_frame(&mut self, frame: Frame, offset: usize, len: usize) -> Result<usize> {
        self.run(len, |segment, segment_offset, at, len| match segment {
            Segment::User { addr, .. } => {
                user::copy_frame_out(addr.add(segment_offset as u64).0, frame, offset + at, len)
            }
            Segment::Kernel(to) => {
                let to = &mut to[segment_offset..segment_offset + len];
                husk_hal::phys::read(frame, offset + at, to);
                len
            }
            Segment::KernelConst(_) => 0,
        })
    }

    /// Fills up to `len` bytes of the buffer with zeros.
    ///
    /// # Errors
    /// As [`IoBuf::put`].
    pub fn put_zeros(&mut self, len: usize) -> Result<usize> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let len = len.min(self.remaining());
        let mut moved = 0;
        while moved < len {
            let want = (len - moved).min(ZEROS.len());
            match self.put(&ZEROS[..want]) {
                Ok(got) if got == want => moved += got,
                Ok(got) => return Ok(moved + got),
                Err(_) if moved > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(moved)
    }

    /// Takes bytes out of the buffer into the kernel (a write); returns how many there were.
    ///
    /// # Errors
    /// `EFAULT` if not even the first byte could be read.
    pub fn take(&mut self, bytes: &mut [u8]) -> Result<usize> {
        self.run(bytes.len(), |segment, offset, at, len| match segment {
            Segment::User { addr, .. } => {
                user::copy_in(&mut bytes[at..at + len], addr.add(offset as u64).0)
            }
            Segment::Kernel(from) => {
                bytes[at..at + len].copy_from_slice(&from[offset..offset + len]);
                len
            }
            Segment::KernelConst(from) => {
                bytes[at..at + len].copy_from_slice(&from[offset..offset + len]);
                len
            }
        })
    }

    /// Takes `len` bytes of the buffer into a frame, at `offset` of the frame.
    ///
    /// # Errors
    /// As [`IoBuf::take`].
    pub fn take_frame(&mut self, frame: Frame, offset: usize, len: usize) -> Result<usize> {
        self.run(len, |segment, segment_offset, at, len| match segment {
            Segment::User { addr, .. } => {
                user::copy_frame_in(frame, offset + at, addr.add(segment_offset as u64).0, len)
            }
            Segment::Kernel(from) => {
                let from = &from[segment_offset..segment_offset + len];
                husk_hal::phys::write_shared(frame, offset + at, from);
                len
            }
            Segment::KernelConst(from) => {
                let from = &from[segment_offset..segment_offset + len];
                husk_hal::phys::write_shared(frame, offset + at, from);
                len
            }
        })
    }

    /// The memory of the next `len` bytes, or of as many as are RAM, held for the VMM to fill (`to_fill`) or to read; nothing
    /// for memory of the kernel.
    ///
    /// What was moved there is then told by [`IoBuf::skip`].
    #[must_use]
    pub fn hold(&self, t: &Thread, len: usize, to_fill: bool) -> Held {
        let mut held = Held::new(&t.kernel.frames);
        let access = if to_fill { Access::Write } else { Access::Read };
        let mut offset = self.offset;
        let mut left = len.min(self.remaining());
        let segments = self.segments.as_slice();
        for segment in segments.get(self.current..).unwrap_or_default() {
            let Segment::User { addr, len } = segment else {
                break;
            };
            let want = len.saturating_sub(offset).min(left);
            let got = t
                .mm()
                .hold(&mut held, addr.add(offset as u64).0, want, access);
            left -= got;
            if got < want || left == 0 {
                break;
            }
            offset = 0;
        }
        held
    }

    /// Skips `len` bytes as if moved (`/dev/null`).
    pub fn skip(&mut self, len: usize) -> usize {
        let len = len.min(self.remaining());
        self.advance(len);
        len
    }
}
