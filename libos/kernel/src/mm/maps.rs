//! What `/proc/*/maps` shows.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::space::{AddressSpace, Places};
use super::vma::{Backing, Flags, Prot, Vma};

/// How a mapping is called in `/proc/*/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapName {
    /// Nothing.
    None,
    /// A file's path.
    Path(Arc<[u8]>),
    /// `[heap]`, `[stack]` or `[vdso]`, with brackets.
    Special(&'static str),
}

/// One line of `/proc/*/maps`.
#[derive(Clone, Debug)]
pub struct MapLine {
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// Rights.
    pub prot: Prot,
    /// `s` rather than `p`.
    pub shared: bool,
    /// Offset in the file in bytes.
    pub offset: u64,
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Name.
    pub name: MapName,
    /// Resident 4 KiB pages (`smaps`).
    pub resident_pages: u64,
    /// Those of them that are private (`smaps`: `Anonymous`).
    pub anonymous_pages: u64,
}

impl MapLine {
    /// `rwxp`.
    #[must_use]
    pub fn perms(&self) -> [u8; 4] {
        let bit = |prot, letter| {
            if self.prot.contains(prot) {
                letter
            } else {
                b'-'
            }
        };
        [
            bit(Prot::READ, b'r'),
            bit(Prot::WRITE, b'w'),
            bit(Prot::EXEC, b'x'),
            if self.shared { b's' } else { b'p' },
        ]
    }
}

impl AddressSpace {
    /// The process's mappings in order. `resident` also counts resident pages, which takes longer.
    #[must_use]
    pub fn maps(&self, resident: bool) -> Vec<MapLine> {
        self.with(|state| {
            let places = state.places;
            state
                .vmas
                .iter()
                .filter(|vma| !vma.is_hidden())
                .map(|vma| {
                    let mut line = line(vma, &places);
                    if resident {
                        state.table.visit(vma.range(), |_, entry| {
                            let pages = if entry.is_large() {
                                super::frames::LARGE_FRAMES
                            } else {
                                1
                            };
                            line.resident_pages += pages;
                            if entry.is_anonymous() {
                                line.anonymous_pages += pages;
                            }
                        });
                    }
                    line
                })
                .collect()
        })
    }
}

fn line(vma: &Vma, places: &Places) -> MapLine {
    let (offset, (dev, ino), name) = match &vma.backing {
        Backing::Object(object) if places.vdso != 0 && vma.start == places.vdso => {
            (object.offset, (0, 0), MapName::Special("[vdso]"))
        }
        Backing::Object(object) => (
            object.offset,
            object.mappable.identity(),
            MapName::Path(object.path.clone()),
        ),
        _ => (0, (0, 0), special(vma, places)),
    };
    MapLine {
        start: vma.start,
        end: vma.end,
        prot: vma.prot,
        shared: vma.flags.contains(Flags::SHARED),
        offset,
        dev,
        ino,
        name,
        resident_pages: 0,
        anonymous_pages: 0,
    }
}

fn special(vma: &Vma, places: &Places) -> MapName {
    if vma.start <= places.brk && vma.end > places.start_brk && places.brk > places.start_brk {
        MapName::Special("[heap]")
    } else if vma.range().contains(&places.start_stack) {
        MapName::Special("[stack]")
    } else {
        MapName::None
    }
}
