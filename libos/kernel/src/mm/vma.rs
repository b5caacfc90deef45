//! Virtual memory areas: what a process has mapped where.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::ops::Range;

use husk_abi::boundary::layout::PAGE_SIZE;
use husk_abi::linux::general;

use super::Mappable;

bitflags::bitflags! {
    /// Access rights; bit values as `PROT_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Prot: u8 {
        /// Readable.
        const READ = general::PROT_READ as u8;
        /// Writable.
        const WRITE = general::PROT_WRITE as u8;
        /// Executable.
        const EXEC = general::PROT_EXEC as u8;
    }
}

bitflags::bitflags! {
    /// What else is true of an area.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: u16 {
        /// `MAP_SHARED`.
        const SHARED = 1;
        /// `MAP_GROWSDOWN`: a fault below its start extends it.
        const GROWSDOWN = 1 << 1;
        /// `MAP_NORESERVE`.
        const NORESERVE = 1 << 2;
        /// `MADV_DONTFORK`.
        const DONTFORK = 1 << 3;
        /// `MADV_WIPEONFORK`.
        const WIPEONFORK = 1 << 4;
        /// `MADV_DONTDUMP`.
        const DONTDUMP = 1 << 5;
        /// `MADV_NOHUGEPAGE`, or a thread's stack.
        const SMALL_PAGES = 1 << 6;
        /// `MADV_RANDOM`: no mapping around a fault.
        const RANDOM = 1 << 7;
        /// Thunks: not the process's, not shown, not in its way.
        const HIDDEN = 1 << 8;
        /// `mlock(2)`: counted, otherwise without effect, because nothing is ever paged out.
        const LOCKED = 1 << 9;
    }
}

/// What an area shows.
#[derive(Clone, Debug)]
pub enum Backing {
    /// Zeros until written.
    Anonymous,
    /// An object's contents.
    Object(Object),
    /// The thunks of a code mapping, see [`super::code`].
    Thunks(Arc<dyn Mappable>),
}

/// An object as an area shows it.
#[derive(Clone, Debug)]
pub struct Object {
    /// The contents.
    pub mappable: Arc<dyn Mappable>,
    /// Offset in bytes of the area's first byte.
    pub offset: u64,
    /// What `/proc/*/maps` calls it.
    pub path: Arc<[u8]>,
    /// Where its thunks are, if it has an area for them.
    pub thunk_base: Option<u64>,
}

/// An area `start..end`; page aligned.
#[derive(Clone, Debug)]
pub struct Vma {
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// Rights now.
    pub prot: Prot,
    /// Rights `mprotect(2)` may give.
    pub max_prot: Prot,
    /// Flags.
    pub flags: Flags,
    /// Contents.
    pub backing: Backing,
}

impl Vma {
    /// Its addresses.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.start..self.end
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.end - self.start
    }

    /// Whether it is `MAP_SHARED`.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.flags.contains(Flags::SHARED)
    }

    /// Whether it holds thunks.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.flags.contains(Flags::HIDDEN)
    }

    /// Whether it is private and without an object.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        matches!(self.backing, Backing::Anonymous)
    }

    /// Whether its memory counts as data (`RLIMIT_DATA`, `VmData`): private, writable, not a stack.
    #[must_use]
    pub fn is_data(&self) -> bool {
        self.prot.contains(Prot::WRITE)
            && !self.is_shared()
            && !self.flags.contains(Flags::GROWSDOWN)
    }

    /// The object it shows.
    #[must_use]
    pub fn object(&self) -> Option<&Object> {
        match &self.backing {
            Backing::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The object's page at `address`, which lies in the area.
    #[must_use]
    pub fn page_index(&self, address: u64) -> u64 {
        let offset = self.object().map_or(0, |object| object.offset);
        (offset + (address - self.start)) / PAGE_SIZE
    }

    /// Whether it is code the translator may patch: private, executable, not writable.
    #[must_use]
    pub fn is_code(&self) -> bool {
        self.prot.contains(Prot::EXEC)
            && !self.prot.contains(Prot::WRITE)
            && !self.is_shared()
            && self.object().is_some()
    }

    /// Where its first addresses lie from which nothing may be placed: its guard gap if it grows down.
    #[must_use]
    pub fn guarded_start(&self, gap: u64) -> u64 {
        if self.flags.contains(Flags::GROWSDOWN) {
            self.start.saturating_sub(gap)
        } else {
            self.start
        }
    }

    fn joins(&self, next: &Vma) -> bool {
        self.end == next.start
            && self.prot == next.prot
            && self.max_prot == next.max_prot
            && self.flags == next.flags
            && !self.flags.intersects(Flags::GROWSDOWN | Flags::HIDDEN)
            && match (&self.backing, &next.backing) {
                (Backing::Anonymous, Backing::Anonymous) => true,
                (Backing::Object(a), Backing::Object(b)) => {
                    Arc::ptr_eq(&a.mappable, &b.mappable)
                        && a.offset + self.len_bytes() == b.offset
                        && a.thunk_base == b.thunk_base
                        && a.path == b.path
                }
                _ => false,
            }
    }
}

/// All areas of an address space, by start; they do not overlap.
#[derive(Debug, Default)]
pub struct VmaSet {
    areas: BTreeMap<u64, Vma>,
    /// Bytes of all areas that are the process's.
    total_bytes: u64,
    /// Bytes of those that count as data.
    data_bytes: u64,
}

impl VmaSet {
    /// All areas in order, hidden ones included.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Vma> {
        self.areas.values()
    }

    /// Number of areas, hidden ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.areas.len()
    }

    /// Bytes of all areas that are the process's (`VmSize`).
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Bytes of those that count as data (`VmData`).
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// The area that contains `address`.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<&Vma> {
        let (_, vma) = self.areas.range(..=address).next_back()?;
        (address < vma.end).then_some(vma)
    }

    /// The first area that ends above `address`.
    #[must_use]
    pub fn find_from(&self, address: u64) -> Option<&Vma> {
        self.find(address)
            .or_else(|| self.areas.range(address..).next().map(|(_, vma)| vma))
    }

    /// The last area that ends at or below `address`.
    #[must_use]
    pub fn find_below(&self, address: u64) -> Option<&Vma> {
        self.areas
            .range(..address)
            .next_back()
            .map(|(_, vma)| vma)
            .filter(|vma| vma.end <= address)
    }

    /// The areas that overlap `range`, in order.
    pub fn overlapping(&self, range: Range<u64>) -> impl DoubleEndedIterator<Item = &Vma> {
        let first = self.find(range.start).map_or(range.start, |vma| vma.start);
        self.areas
            .range(first..range.end.max(first))
            .map(|(_, vma)| vma)
    }

    fn count(&mut self, vma: &Vma, add: bool) {
        if vma.is_hidden() {
            return;
        }
        let bytes = vma.len_bytes();
        let data = if vma.is_data() { bytes } else { 0 };
        if add {
            self.total_bytes += bytes;
            self.data_bytes += data;
        } else {
            self.total_bytes -= bytes;
            self.data_bytes -= data;
        }
    }

    fn put(&mut self, vma: Vma) {
        self.count(&vma, true);
        self.areas.insert(vma.start, vma);
    }

    /// Removes the area that starts at `start`.
    pub fn take(&mut self, start: u64) -> Option<Vma> {
        let vma = self.areas.remove(&start)?;
        self.count(&vma, false);
        Some(vma)
    }

    /// Adds an area where none is, joining it with its neighbours where they are alike.
    pub fn insert(&mut self, mut vma: Vma) {
        debug_assert!(self.overlapping(vma.range()).next().is_none());
        let below = self.areas.range(..vma.start).next_back();
        if let Some((&start, below)) = below
            && below.joins(&vma)
            && let Some(below) = self.take(start)
        {
            vma = Vma {
                end: vma.end,
                ..below
            };
        }
        if let Some(above) = self.areas.get(&vma.end)
            && vma.joins(above)
            && let Some(above) = self.take(vma.end)
        {
            vma.end = above.end;
        }
        self.put(vma);
    }

    /// Makes `address` a boundary between areas, if one spans it.
    pub fn split_at(&mut self, address: u64) {
        let Some(start) = self
            .find(address)
            .map(|vma| vma.start)
            .filter(|start| *start != address)
        else {
            return;
        };
        if let Some(mut low) = self.take(start) {
            let mut high = low.clone();
            high.start = address;
            if let Backing::Object(object) = &mut high.backing {
                object.offset += address - start;
            }
            low.end = address;
            self.put(low);
            self.put(high);
        }
    }

    /// Takes out the process's areas within `range`, cutting those at its edges.
    pub fn cut(&mut self, range: Range<u64>, mut taken: impl FnMut(Vma)) {
        self.cut_edges(&range);
        let mut from = range.start;
        while let Some((&start, vma)) = self.areas.range(from..range.end).next() {
            from = vma.end;
            if !vma.is_hidden()
                && let Some(vma) = self.take(start)
            {
                taken(vma);
            }
        }
    }

    fn cut_edges(&mut self, range: &Range<u64>) {
        for edge in [range.start, range.end] {
            if self.find(edge).is_some_and(|vma| !vma.is_hidden()) {
                self.split_at(edge);
            }
        }
    }

    /// Changes all areas of the process within `range`, cut at its edges and joined again where alike.
    pub fn change(&mut self, range: Range<u64>, mut change: impl FnMut(&mut Vma)) {
        self.cut_edges(&range);
        let mut from = range.start;
        while let Some((&start, vma)) = self.areas.range(from..range.end).next() {
            from = vma.end;
            if !vma.is_hidden()
                && let Some(mut vma) = self.take(start)
            {
                change(&mut vma);
                self.insert(vma);
            }
        }
        if let Some(vma) = self.areas.get(&range.end)
            && !vma.is_hidden()
            && let Some(vma) = self.take(range.end)
        {
            self.insert(vma);
        }
    }

    /// Extends the area that starts at `start` downwards to `new_start`.
    pub fn grow_down(&mut self, start: u64, new_start: u64) {
        if let Some(mut vma) = self.take(start) {
            vma.start = new_start;
            if let Backing::Object(object) = &mut vma.backing {
                object.offset = object.offset.saturating_sub(start - new_start);
            }
            self.put(vma);
        }
    }

    /// Whether the process has nothing in `range`; what is hidden does not count.
    #[must_use]
    pub fn is_free(&self, range: Range<u64>) -> bool {
        self.overlapping(range).all(Vma::is_hidden)
    }

    /// Whether areas of the process cover all of `range`.
    #[must_use]
    pub fn covers(&self, range: Range<u64>) -> bool {
        let mut reached = range.start;
        for vma in self.overlapping(range.clone()) {
            if vma.is_hidden() || vma.start > reached {
                return false;
            }
            reached = vma.end;
        }
        reached >= range.end
    }

    /// The highest free place for `len` bytes within `within`, at an address that is `phase` modulo `align`; keeps
    /// `gap` below areas that grow down.
    #[must_use]
    pub fn find_gap(
        &self,
        within: Range<u64>,
        len: u64,
        align: u64,
        phase: u64,
        gap: u64,
    ) -> Option<u64> {
        let fits = |low: u64, high: u64| {
            let top = high.checked_sub(len)?;
            let at = top - (top.wrapping_sub(phase) % align);
            (at >= low && at <= top).then_some(at)
        };
        // What starts above may still guard a gap that reaches in here.
        let mut high = match self.areas.range(within.end..).next() {
            Some((_, vma)) => within.end.min(vma.guarded_start(gap)),
            None => within.end,
        };
        for (_, vma) in self.areas.range(..within.end).rev() {
            if vma.end < high
                && let Some(at) = fits(vma.end.max(within.start), high)
            {
                return Some(at);
            }
            high = high.min(vma.guarded_start(gap));
            if high <= within.start {
                return None;
            }
        }
        fits(within.start, high)
    }
}
