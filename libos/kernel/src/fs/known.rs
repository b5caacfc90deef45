//! Walks made before: where paths that are looked up again and again lead.
//!
//! Each [`super::context::FsContext`] has a small table of its own. An entry is right as long as no name it may have passed
//! leads elsewhere and nobody's rights have changed: what removes or moves a name (file systems), mounts or unmounts, or
//! changes who may search a directory or follow a link (`fs::attr`) calls [`outdate`] when that is done, which makes all entries wrong. Only
//! walks through directories whose names change by nothing else ([`super::Inode::names_are_ours`]) are kept, and only files that are
//! there: adding a name makes no entry wrong.
//!
//! Entries keep nothing alive: neither a removed file nor a mount.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, Ordering};

use super::path::Lookup;
use super::{Inode, Location, Mount};
use crate::process::Credentials;
use crate::sync::SpinLock;

/// Entries of a table; a power of two.
const SLOTS: usize = 64;
/// Longer paths are not kept.
const MAX_PATH: usize = 128;

/// Counts what made entries wrong.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// What paths lead to, or who may walk them, has changed: what was known before is not any more.
pub fn outdate() {
    GENERATION.fetch_add(1, Ordering::SeqCst);
}

/// When a walk was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(u64);

/// Now.
#[must_use]
pub fn moment() -> Moment {
    Moment(GENERATION.load(Ordering::SeqCst))
}

/// Whose walk of which path.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// Absolute, or from the working directory.
    pub path: &'a [u8],
    /// How its last component is taken.
    pub flags: Lookup,
    /// Who walks.
    pub credentials: &'a Arc<Credentials>,
}

impl Key<'_> {
    fn hash(&self) -> u64 {
        // FxHash's step, on words.
        let step =
            |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
        let mut words = self.path.chunks_exact(8);
        let mut hash = u64::from(self.flags.bits());
        for word in &mut words {
            hash = step(
                hash,
                u64::from_ne_bytes(word.try_into().unwrap_or_default()),
            );
        }
        for byte in words.remainder() {
            hash = step(hash, u64::from(*byte));
        }
        hash
    }
}

#[derive(Debug)]
struct Walk {
    path: Box<[u8]>,
    flags: Lookup,
    credentials: Arc<Credentials>,
    moment: Moment,
    mount: Weak<Mount>,
    inode: Weak<dyn Inode>,
    /// The target's own path.
    target: Box<[u8]>,
}

impl Walk {
    fn is(&self, key: &Key<'_>) -> bool {
        *self.path == *key.path
            && self.flags == key.flags
            && Arc::ptr_eq(&self.credentials, key.credentials)
            && self.moment == moment()
    }
}

#[derive(Debug, Default)]
struct Slot {
    /// Hash of the last path that was not found here: only what is missed twice is kept.
    missed: u64,
    walk: Option<Box<Walk>>,
}

/// The table.
#[derive(Debug, Default)]
pub struct Known {
    slots: SpinLock<Option<Box<[Slot; SLOTS]>>>,
}

impl Known {
    /// The file a walk led to.
    #[must_use]
    pub fn inode(&self, key: &Key<'_>) -> Option<Arc<dyn Inode>> {
        self.find(key, |walk| walk.inode.upgrade())
    }

    /// Where a walk led.
    #[must_use]
    pub fn location(&self, key: &Key<'_>) -> Option<Location> {
        self.find(key, |walk| {
            Some(Location {
                mount: walk.mount.upgrade()?,
                inode: walk.inode.upgrade()?,
                path: walk.target.to_vec(),
            })
        })
    }

    fn find<R>(&self, key: &Key<'_>, take: impl FnOnce(&Walk) -> Option<R>) -> Option<R> {
        if key.path.len() > MAX_PATH {
            return None;
        }
        let slots = self.slots.lock();
        let slot = &slots.as_ref()?[key.hash() as usize % SLOTS];
        slot.walk
            .as_ref()
            .filter(|walk| walk.is(key))
            .and_then(|walk| take(walk))
    }

    /// A walk that was begun at `moment` led to `to`.
    pub fn add(&self, key: &Key<'_>, moment: Moment, to: &Location) {
        if key.path.len() > MAX_PATH {
            return;
        }
        let hash = key.hash();
        let mut old = None;
        {
            let mut slots = self.slots.lock();
            let slots =
                slots.get_or_insert_with(|| Box::new(core::array::from_fn(|_| Slot::default())));
            let slot = &mut slots[hash as usize % SLOTS];
            if core::mem::replace(&mut slot.missed, hash) == hash {
                old = slot.walk.replace(Box::new(Walk {
                    path: key.path.into(),
                    flags: key.flags,
                    credentials: key.credentials.clone(),
                    moment,
                    mount: Arc::downgrade(&to.mount),
                    inode: Arc::downgrade(&to.inode),
                    target: to.path.as_slice().into(),
                }));
            }
        }
        drop(old);
    }

    /// Forgets everything: paths start elsewhere now.
    pub fn clear(&self) {
        let old = self.slots.lock().take();
        drop(old);
    }
}
