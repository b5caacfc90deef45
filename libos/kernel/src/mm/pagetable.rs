//! Four-level page tables.
//!
//! There is one PML4 for each vCPU (each maps that vCPU's own region in the upper half); all lower tables are
//! shared between them. A resident leaf owns one reference to its frame unless it is borrowed. Removed
//! references wait in the [`Gather`] until the TLB is flushed: whoever changes a table calls
//! [`PageTable::finish`] before anything else can run.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use husk_abi::boundary::layout::{LARGE_PAGE_SIZE, PAGE_SIZE};
use husk_hal::{mmu, phys, phys::Frame};

use super::counts::{self, Event};
use super::frames::{Frames, LARGE_FRAMES};
use super::gather::Gather;
use super::pte::{Entry, Owner};
use super::tlb::Roots;
use crate::Result;

/// Entries of a table.
const ENTRIES: usize = 512;
/// Entries of a root that are the process's.
const USER_ENTRIES: usize = 256;
/// Leaf tables that have become empty stay, because making one is dear, unless there are more tables than this.
const MAX_EMPTY_TABLES: u64 = 64;
/// Tables are kept for another address space if they are at most so many, with so many private frames.
const MAX_KEPT_TABLES: u64 = 48;
const MAX_KEPT_FRAMES: u64 = 128;

/// Resident pages (4 KiB).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// Private to the process (and its relatives after fork).
    pub anonymous: u64,
    /// Pages of files and shared memory.
    pub object: u64,
}

/// The page tables of one address space.
#[derive(Debug)]
pub struct PageTable {
    frames: &'static Frames,
    roots: Arc<Roots>,
    resident: Resident,
    /// Table frames, roots included.
    tables: u64,
    gather: Gather,
}

fn index(address: u64, level: u32) -> usize {
    (address >> (12 + 9 * (level - 1))) as usize & (ENTRIES - 1)
}

/// Bytes an entry of a table of `level` spans.
fn span(level: u32) -> u64 {
    PAGE_SIZE << (9 * (level - 1))
}

fn load(table: Frame, at: usize) -> Entry {
    Entry(phys::load_u64(table, at * 8))
}

fn store(table: Frame, at: usize, entry: Entry) {
    phys::store_u64(table, at * 8, entry.0);
}

/// The entry for `address` in the leaf table that covers it.
#[must_use]
pub fn entry_in(table: Frame, address: u64) -> Entry {
    load(table, index(address, 1))
}

impl PageTable {
    /// Empty tables for `cpus` vCPUs.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(frames: &'static Frames, cpus: usize) -> Result<Self> {
        let mut roots = Vec::with_capacity(cpus);
        for cpu in 0..cpus {
            match frames.alloc_table() {
                Ok(root) => {
                    counts::count(Event::Table);
                    mmu::init_root(root, cpu);
                    roots.push(root);
                }
                Err(error) => {
                    roots.into_iter().for_each(|root| frames.put(root));
                    return Err(error);
                }
            }
        }
        Ok(Self {
            frames,
            tables: cpus as u64,
            roots: Arc::new(Roots::new(roots)),
            resident: Resident::default(),
            gather: Gather::new(),
        })
    }

    /// No tables at all: what is left when they have been taken out.
    pub fn hollow(frames: &'static Frames) -> Self {
        Self {
            frames,
            tables: 0,
            roots: Arc::new(Roots::new(Vec::new())),
            resident: Resident::default(),
            gather: Gather::default(),
        }
    }

    /// The roots.
    #[must_use]
    pub fn roots(&self) -> &Arc<Roots> {
        &self.roots
    }

    /// Where frames come from.
    #[must_use]
    pub fn frames(&self) -> &'static Frames {
        self.frames
    }

    /// Resident pages by kind.
    #[must_use]
    pub fn resident(&self) -> Resident {
        self.resident
    }

    /// Resident pages.
    #[must_use]
    pub fn resident_pages(&self) -> u64 {
        self.resident.anonymous + self.resident.object
    }

    /// Bytes of the tables themselves.
    #[must_use]
    pub fn table_bytes(&self) -> u64 {
        self.tables * PAGE_SIZE
    }

    /// Flushes what changed and releases what was removed.
    pub fn finish(&mut self) {
        self.gather.finish(&self.roots, self.frames);
    }

    /// Drops what the TLB may hold of the page at `address`.
    pub fn forget(&mut self, address: u64) {
        self.gather.stale(address);
    }

    fn root(&self) -> Frame {
        self.roots.frames()[0]
    }

    fn account(&mut self, entry: Entry, add: bool) {
        if entry.is_empty() {
            return;
        }
        let pages = if entry.is_large() { LARGE_FRAMES } else { 1 };
        let counter = match entry.owner() {
            Owner::Anonymous => &mut self.resident.anonymous,
            Owner::Object => &mut self.resident.object,
            Owner::Borrowed => return,
        };
        if add {
            *counter += pages;
        } else {
            *counter -= pages;
        }
    }

    /// The page directory that covers `address`, or how far the hole around it reaches.
    fn directory(&self, address: u64) -> Result<Frame, u64> {
        let mut table = self.root();
        for level in [4, 3] {
            let entry = load(table, index(address, level));
            if entry.is_empty() {
                return Err((address | (span(level) - 1)).saturating_add(1));
            }
            table = entry.frame();
        }
        Ok(table)
    }

    fn new_table(&mut self) -> Result<Frame> {
        let table = self.frames.alloc_table()?;
        counts::count(Event::Table);
        self.tables += 1;
        Ok(table)
    }

    /// The page directory that covers `address`, made if need be; a new third-level table goes into all roots.
    fn make_directory(&mut self, address: u64) -> Result<Frame> {
        let at = index(address, 4);
        let entry = load(self.root(), at);
        let third = if entry.is_empty() {
            let table = self.new_table()?;
            for root in self.roots.frames() {
                store(*root, at, Entry::table(table));
            }
            table
        } else {
            entry.frame()
        };
        let at = index(address, 3);
        let entry = load(third, at);
        if !entry.is_empty() {
            return Ok(entry.frame());
        }
        let table = self.new_table()?;
        store(third, at, Entry::table(table));
        Ok(table)
    }

    /// What maps `address`; empty if nothing does.
    #[must_use]
    pub fn get(&self, address: u64) -> Entry {
        let Ok(directory) = self.directory(address) else {
            return Entry::EMPTY;
        };
        let entry = load(directory, index(address, 2));
        if entry.is_empty() || entry.is_large() {
            return entry;
        }
        entry_in(entry.frame(), address)
    }

    /// The frame `address` lies in, whatever maps it.
    #[must_use]
    pub fn frame_of(&self, address: u64) -> Option<Frame> {
        let entry = self.get(address);
        if entry.is_empty() {
            None
        } else if entry.is_large() {
            Some(entry.frame().offset(address % LARGE_PAGE_SIZE / PAGE_SIZE))
        } else {
            Some(entry.frame())
        }
    }

    /// Whether nothing is mapped in the 2 MiB around `address`.
    #[must_use]
    pub fn is_large_free(&self, address: u64) -> bool {
        let Ok(directory) = self.directory(address) else {
            return true;
        };
        let entry = load(directory, index(address, 2));
        if entry.is_empty() || entry.is_large() {
            return entry.is_empty();
        }
        let mut words = [0; ENTRIES];
        phys::load_words(entry.frame(), 0, &mut words);
        words.iter().all(|word| *word == 0)
    }

    /// The leaf table that covers `address`, made if need be; a 2 MiB page there is split.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn leaf_table(&mut self, address: u64) -> Result<Frame> {
        let directory = self.make_directory(address)?;
        let at = index(address, 2);
        let entry = load(directory, at);
        if !entry.is_empty() && !entry.is_large() {
            return Ok(entry.frame());
        }
        let table = self.new_table()?;
        if entry.is_large() {
            for small in 0..ENTRIES {
                store(table, small, entry.small(small as u64));
            }
            if entry.owner() != Owner::Borrowed {
                self.frames.split_large(entry.frame());
            }
            if entry.is_present() {
                self.gather.stale(address);
            }
        }
        store(directory, at, Entry::table(table));
        Ok(table)
    }

    /// Replaces the entry for `address` in its leaf table `table`, which then owns the reference that came with
    /// `entry`. A replaced entry for the same frame hands its reference on.
    pub fn replace_in(&mut self, table: Frame, address: u64, entry: Entry) {
        let at = index(address, 1);
        let old = load(table, at);
        if old == entry {
            return;
        }
        store(table, at, entry);
        self.replaced(address, old, entry);
    }

    fn replaced(&mut self, address: u64, old: Entry, new: Entry) {
        self.account(old, false);
        self.account(new, true);
        if new.is_present() && !old.is_present() {
            counts::count(Event::Entry);
        }
        if old.is_empty() {
            return;
        }
        let same = !new.is_empty() && old.frame() == new.frame() && old.owner() == new.owner();
        if !same {
            self.gather.removed(&self.roots, self.frames, address, old);
        } else if old.is_present() && narrows(old, new) {
            self.gather.stale(address);
        }
    }

    /// Maps a 4 KiB page, replacing what was there.
    ///
    /// # Errors
    /// `ENOMEM`; the reference that came with `entry` is still the caller's then.
    pub fn set(&mut self, address: u64, entry: Entry) -> Result<()> {
        let table = self.leaf_table(address)?;
        self.replace_in(table, address, entry);
        Ok(())
    }

    /// Maps a 2 MiB page where nothing is mapped ([`PageTable::is_large_free`]) or one is mapped already.
    ///
    /// # Errors
    /// `ENOMEM`; the reference that came with `entry` is still the caller's then.
    pub fn set_large(&mut self, address: u64, entry: Entry) -> Result<()> {
        let directory = self.make_directory(address)?;
        let at = index(address, 2);
        let old = load(directory, at);
        store(directory, at, entry.large());
        if old.is_empty() || old.is_large() {
            self.replaced(address, old, entry.large());
        } else {
            self.account(entry.large(), true);
            self.tables -= 1;
            self.gather
                .removed_table(&self.roots, self.frames, old.frame());
        }
        Ok(())
    }

    /// Splits 2 MiB pages that lie in `range` only in part; after that no change of it can fail.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn split_edges(&mut self, range: &Range<u64>) -> Result<()> {
        for edge in [range.start, range.end] {
            if !edge.is_multiple_of(LARGE_PAGE_SIZE) && self.get(edge).is_large() {
                self.leaf_table(edge)?;
            }
        }
        Ok(())
    }

    /// Calls `change` for each resident page of `range` with its address and entry and stores what it returns.
    ///
    /// # Errors
    /// `ENOMEM` if a 2 MiB page had to be split and could not; nothing has changed then.
    pub fn update(
        &mut self,
        range: Range<u64>,
        mut change: impl FnMut(u64, Entry) -> Entry,
    ) -> Result<()> {
        self.split_edges(&range)?;
        let mut address = range.start;
        while address < range.end {
            let directory = match self.directory(address) {
                Ok(directory) => directory,
                Err(next) => {
                    address = next;
                    continue;
                }
            };
            let next = (address | (LARGE_PAGE_SIZE - 1)) + 1;
            let at = index(address, 2);
            let entry = load(directory, at);
            if entry.is_large() {
                let new = change(address, entry);
                if new != entry {
                    store(directory, at, new);
                    self.replaced(address, entry, new);
                }
            } else if !entry.is_empty() {
                let end = next.min(range.end);
                let first = index(address, 1);
                let mut words = [0; ENTRIES];
                let words = &mut words[..((end - address) / PAGE_SIZE) as usize];
                phys::load_words(entry.frame(), first, words);
                for (page, word) in words.iter().enumerate() {
                    if *word != 0 {
                        let old = Entry(*word);
                        let page = address + page as u64 * PAGE_SIZE;
                        let new = change(page, old);
                        if new != old {
                            store(entry.frame(), index(page, 1), new);
                            self.replaced(page, old, new);
                        }
                    }
                }
            }
            address = next;
        }
        Ok(())
    }

    /// The page directories with the address each starts at, in order.
    fn directories(&self) -> Vec<(u64, Frame)> {
        let mut found = Vec::new();
        let mut words = [0; USER_ENTRIES];
        phys::load_words(self.root(), 0, &mut words);
        for (third, link) in present(&words) {
            let mut words = [0; ENTRIES];
            phys::load_words(link.frame(), 0, &mut words);
            let base = third as u64 * span(4);
            found.extend(
                present(&words).map(|(at, link)| (base + at as u64 * span(3), link.frame())),
            );
        }
        found
    }

    /// [`PageTable::update`] for all there is; a 2 MiB page is one, so nothing has to be split.
    pub fn update_all(&mut self, mut change: impl FnMut(u64, Entry) -> Entry) {
        for (base, directory) in self.directories() {
            let mut links = [0; ENTRIES];
            phys::load_words(directory, 0, &mut links);
            for (at, link) in present(&links) {
                let start = base + at as u64 * LARGE_PAGE_SIZE;
                if link.is_large() {
                    let new = change(start, link);
                    if new != link {
                        store(directory, at, new);
                        self.replaced(start, link, new);
                    }
                    continue;
                }
                let mut words = [0; ENTRIES];
                phys::load_words(link.frame(), 0, &mut words);
                for (small, old) in present(&words) {
                    let page = start + small as u64 * PAGE_SIZE;
                    let new = change(page, old);
                    if new != old {
                        store(link.frame(), small, new);
                        self.replaced(page, old, new);
                    }
                }
            }
        }
    }

    /// Its address space has ended: reduces it to what another one with the same layout can use, the pages of objects and
    /// a few private frames. Those that are shared are only kept where `is_fixed` says that nobody will write to them.
    /// `None` if that is not worth keeping, else how many pages are kept.
    pub fn retire(&mut self, is_fixed: impl Fn(u64) -> bool) -> Option<u64> {
        if self.tables > MAX_KEPT_TABLES || self.roots.frames().is_empty() {
            return None;
        }
        let frames = self.frames;
        let mut kept = 0;
        self.update_all(|address, entry| {
            if !entry.is_anonymous() {
                return if entry.is_present() {
                    entry
                } else {
                    Entry::EMPTY
                };
            }
            let keep = !entry.is_large()
                && if entry.is_writable() {
                    frames.count(entry.frame()) == 1
                } else {
                    entry.is_present() && is_fixed(address)
                };
            if keep && kept < MAX_KEPT_FRAMES {
                kept += 1;
                entry
            } else {
                Entry::EMPTY
            }
        });
        self.finish();
        Some(self.tables + kept)
    }

    /// Calls `see` for each resident page of `range`; a 2 MiB page that overlaps it is seen once.
    pub fn visit(&self, range: Range<u64>, mut see: impl FnMut(u64, Entry)) {
        let mut address = range.start;
        while address < range.end {
            let directory = match self.directory(address) {
                Ok(directory) => directory,
                Err(next) => {
                    address = next;
                    continue;
                }
            };
            let next = (address | (LARGE_PAGE_SIZE - 1)) + 1;
            let entry = load(directory, index(address, 2));
            if entry.is_large() {
                see(address & !(LARGE_PAGE_SIZE - 1), entry);
            } else if !entry.is_empty() {
                let end = next.min(range.end);
                let mut words = [0; ENTRIES];
                let words = &mut words[..((end - address) / PAGE_SIZE) as usize];
                phys::load_words(entry.frame(), index(address, 1), words);
                for (page, word) in words.iter().enumerate() {
                    if *word != 0 {
                        see(address + page as u64 * PAGE_SIZE, Entry(*word));
                    }
                }
            }
            address = next;
        }
    }

    /// Unmaps all of `range`. Leaf tables it covers whole are given back if there are many.
    ///
    /// # Errors
    /// `ENOMEM` if a 2 MiB page had to be split and could not; nothing has changed then.
    pub fn unmap(&mut self, range: Range<u64>) -> Result<()> {
        self.split_edges(&range)?;
        let mut address = range.start;
        while address < range.end {
            let directory = match self.directory(address) {
                Ok(directory) => directory,
                Err(next) => {
                    address = next;
                    continue;
                }
            };
            let next = (address | (LARGE_PAGE_SIZE - 1)) + 1;
            let at = index(address, 2);
            let entry = load(directory, at);
            if entry.is_large() {
                store(directory, at, Entry::EMPTY);
                self.replaced(address, entry, Entry::EMPTY);
            } else if !entry.is_empty() {
                let whole = address.is_multiple_of(LARGE_PAGE_SIZE)
                    && next <= range.end
                    && self.tables > MAX_EMPTY_TABLES;
                if whole {
                    store(directory, at, Entry::EMPTY);
                }
                let end = next.min(range.end);
                self.clear_leaves(entry.frame(), address..end, !whole);
                if whole {
                    self.tables -= 1;
                    self.gather
                        .removed_table(&self.roots, self.frames, entry.frame());
                }
            }
            address = next;
        }
        Ok(())
    }

    /// Gives up the leaves for `range` in one leaf table; `clear` if the table stays.
    fn clear_leaves(&mut self, table: Frame, range: Range<u64>, clear: bool) {
        let mut words = [0; ENTRIES];
        let words = &mut words[..((range.end - range.start) / PAGE_SIZE) as usize];
        phys::load_words(table, index(range.start, 1), words);
        for (page, word) in words.iter().enumerate() {
            if *word != 0 {
                let page = range.start + page as u64 * PAGE_SIZE;
                if clear {
                    store(table, index(page, 1), Entry::EMPTY);
                }
                self.replaced(page, Entry(*word), Entry::EMPTY);
            }
        }
    }

    /// The first resident page in `range`.
    #[must_use]
    pub fn next_resident(&self, range: Range<u64>) -> Option<(u64, Entry)> {
        let mut address = range.start;
        while address < range.end {
            let directory = match self.directory(address) {
                Ok(directory) => directory,
                Err(next) => {
                    address = next;
                    continue;
                }
            };
            let entry = load(directory, index(address, 2));
            if entry.is_large() {
                return Some((address & !(LARGE_PAGE_SIZE - 1), entry));
            }
            let next = (address | (LARGE_PAGE_SIZE - 1)) + 1;
            if !entry.is_empty() {
                while address < next.min(range.end) {
                    let leaf = entry_in(entry.frame(), address);
                    if !leaf.is_empty() {
                        return Some((address, leaf));
                    }
                    address += PAGE_SIZE;
                }
            }
            address = next;
        }
        None
    }

    /// Makes the tables above a 2 MiB page at `address`, so that [`PageTable::set_large`] cannot fail.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(super) fn prepare_large(&mut self, address: u64) -> Result<()> {
        self.make_directory(address).map(drop)
    }

    /// Takes the page at `address` out without dropping its reference, to put it elsewhere (`mremap(2)`).
    pub(super) fn take(&mut self, address: u64) -> Entry {
        let Ok(directory) = self.directory(address) else {
            return Entry::EMPTY;
        };
        let at = index(address, 2);
        let entry = load(directory, at);
        let (table, at, entry) = if entry.is_empty() || entry.is_large() {
            (directory, at, entry)
        } else {
            let at = index(address, 1);
            (entry.frame(), at, load(entry.frame(), at))
        };
        if !entry.is_empty() {
            store(table, at, Entry::EMPTY);
            self.account(entry, false);
            self.gather.stale(address);
        }
        entry
    }
}

/// The entries among a table's words that are not empty, with their places.
fn present(words: &[u64]) -> impl Iterator<Item = (usize, Entry)> {
    let entries = words.iter().map(|word| Entry(*word)).enumerate();
    entries.filter(|(_, entry)| !entry.is_empty())
}

/// Whether a translation cached for `old` would allow more than `new`.
fn narrows(old: Entry, new: Entry) -> bool {
    !new.is_present()
        || (old.is_writable() && !new.is_writable())
        || (old.is_executable() && !new.is_executable())
}

impl Drop for PageTable {
    fn drop(&mut self) {
        self.finish();
        if self.roots.frames().is_empty() {
            return;
        }
        for at in 0..USER_ENTRIES {
            let third = load(self.root(), at);
            if third.is_empty() {
                continue;
            }
            for at in 0..ENTRIES {
                let second = load(third.frame(), at);
                if !second.is_empty() {
                    free_directory(self.frames, second.frame());
                }
            }
            self.frames.put(third.frame());
        }
        for root in self.roots.frames() {
            self.frames.put(*root);
        }
    }
}

/// Frees a page directory and all below it.
fn free_directory(frames: &Frames, directory: Frame) {
    let release = |entry: Entry| {
        if entry.owner() == Owner::Borrowed {
        } else if entry.is_large() {
            frames.put_large(entry.frame());
        } else {
            frames.put(entry.frame());
        }
    };
    for at in 0..ENTRIES {
        let entry = load(directory, at);
        if entry.is_empty() {
            continue;
        }
        if entry.is_large() {
            release(entry);
            continue;
        }
        let mut words = [0; ENTRIES];
        phys::load_words(entry.frame(), 0, &mut words);
        let resident = words.iter().filter(|word| **word != 0);
        resident.for_each(|word| release(Entry(*word)));
        frames.put(entry.frame());
    }
    frames.put(directory);
}
