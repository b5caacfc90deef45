//! Page-table entries.

use husk_hal::phys::Frame;

use super::vma::Prot;

/// A page-table entry of x86-64; 0 is empty.
///
/// Every page carries the user bit. Accessed and dirty are set from the start: nothing reads them, and the CPU
/// (or KVM's shadow paging) would otherwise write or trap to set them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(pub u64);

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
/// Without PRESENT: the page is there but may not be accessed (`PROT_NONE`).
const NO_ACCESS: u64 = 1 << 8;
/// Software: the frame belongs to someone else and is not counted (patched code, thunks).
const BORROWED: u64 = 1 << 9;
/// Software: the page is private to its address spaces, not a page of a file or shared object.
const ANONYMOUS: u64 = 1 << 10;
/// Software: a private page that was written after it had been shared by a fork; the next fork copies it.
const HOT: u64 = 1 << 11;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Whose a mapped page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The address spaces that share it copy on write; counted.
    Anonymous,
    /// An object's (file, shared memory); counted.
    Object,
    /// Someone else's; not counted.
    Borrowed,
}

impl Entry {
    /// Nothing there.
    pub const EMPTY: Self = Self(0);

    /// A link to a table of the next level: all rights, the leaves decide.
    #[must_use]
    pub fn table(frame: Frame) -> Self {
        Self(frame.gpa() | PRESENT | WRITABLE | USER | ACCESSED)
    }

    /// A page.
    #[must_use]
    pub fn page(frame: Frame, owner: Owner, prot: Prot, writable: bool) -> Self {
        let owner = match owner {
            Owner::Anonymous => ANONYMOUS,
            Owner::Object => 0,
            Owner::Borrowed => BORROWED,
        };
        Self(frame.gpa() | owner).with_access(prot, writable)
    }

    /// The same page as a 2 MiB one.
    #[must_use]
    pub fn large(self) -> Self {
        Self(self.0 | LARGE)
    }

    /// The same page with the rights of `prot`, and writable only if `writable`.
    #[must_use]
    pub fn with_access(self, prot: Prot, writable: bool) -> Self {
        let kept = self.0 & (ADDRESS | LARGE | BORROWED | ANONYMOUS | HOT);
        if prot.is_empty() {
            return Self(kept | NO_ACCESS);
        }
        let mut bits = kept | PRESENT | USER | ACCESSED | DIRTY;
        if writable {
            bits |= WRITABLE;
        }
        if !prot.contains(Prot::EXEC) {
            bits |= NO_EXECUTE;
        }
        Self(bits)
    }

    /// The same page, not writable.
    #[must_use]
    pub fn write_protected(self) -> Self {
        Self(self.0 & !(WRITABLE | HOT))
    }

    /// The same rights to another frame.
    #[must_use]
    pub fn with_frame(self, frame: Frame) -> Self {
        Self(self.0 & !ADDRESS | frame.gpa())
    }

    /// The same page, marked as written after a fork.
    #[must_use]
    pub fn hot(self) -> Self {
        Self(self.0 | HOT)
    }

    /// Whether it is marked so.
    #[must_use]
    pub fn is_hot(self) -> bool {
        self.0 & HOT != 0
    }

    /// The 4 KiB page `index` of a 2 MiB page.
    #[must_use]
    pub fn small(self, index: u64) -> Self {
        Self((self.0 & !LARGE) + index * 4096)
    }

    /// Whether nothing is there.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the CPU may use it.
    #[must_use]
    pub fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// Whether the CPU may write through it.
    #[must_use]
    pub fn is_writable(self) -> bool {
        self.0 & WRITABLE != 0
    }

    /// Whether the CPU may execute from it.
    #[must_use]
    pub fn is_executable(self) -> bool {
        self.is_present() && self.0 & NO_EXECUTE == 0
    }

    /// Whether it maps 2 MiB.
    #[must_use]
    pub fn is_large(self) -> bool {
        self.0 & LARGE != 0
    }

    /// Whose the page is.
    #[must_use]
    pub fn owner(self) -> Owner {
        if self.0 & BORROWED != 0 {
            Owner::Borrowed
        } else if self.0 & ANONYMOUS != 0 {
            Owner::Anonymous
        } else {
            Owner::Object
        }
    }

    /// Whether the page is private to its address spaces.
    #[must_use]
    pub fn is_anonymous(self) -> bool {
        self.0 & ANONYMOUS != 0
    }

    /// The (first) frame.
    #[must_use]
    pub fn frame(self) -> Frame {
        Frame::containing(self.0 & ADDRESS)
    }
}
