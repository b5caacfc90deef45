//! What is known of a directory.

use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::HashMap;

use super::node::Node;
use crate::fs::{DirEntry, known};

/// A name.
#[derive(Debug)]
struct Known {
    /// The file; `None` if there is none.
    node: Option<Arc<Node>>,
    /// Good until then, in nanoseconds of the monotonic clock.
    until: u64,
}

/// What a name is known to be.
#[derive(Debug)]
pub(super) enum Answer {
    /// This file.
    File(Arc<Node>),
    /// Nothing.
    Nothing,
    /// It must be asked for.
    Unknown,
}

/// A listing as the server gave it, from its start to its end.
#[derive(Debug)]
pub(super) struct Listing {
    /// The entries.
    pub entries: Arc<Vec<DirEntry>>,
    until: u64,
}

/// Names in a directory, and its own place in its parent.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<Arc<[u8]>, Known>,
    listing: Option<Listing>,
    /// All names there are, are known.
    complete: bool,
    /// The directory it is in; `None` for the root.
    pub parent: Option<Arc<Node>>,
    /// Its name there.
    pub name: Vec<u8>,
    /// It was removed.
    pub removed: bool,
}

fn is_good(until: u64) -> bool {
    until == u64::MAX || until > husk_hal::clock::now_ns()
}

impl Names {
    pub(super) fn get(&self, name: &[u8]) -> Answer {
        match self.known.get(name) {
            Some(known) if is_good(known.until) => match &known.node {
                Some(node) => Answer::File(node.clone()),
                None => Answer::Nothing,
            },
            Some(_) => Answer::Unknown,
            None if self.complete => Answer::Nothing,
            None => Answer::Unknown,
        }
    }

    /// The file `name` is known as, good or not.
    pub(super) fn last_known(&self, name: &[u8]) -> Option<&Arc<Node>> {
        self.known.get(name)?.node.as_ref()
    }

    /// A name is this file now, or nothing. Gives the name if it is new here.
    pub(super) fn set(
        &mut self,
        name: &[u8],
        node: Option<Arc<Node>>,
        until: u64,
    ) -> (Option<Arc<[u8]>>, Option<Arc<Node>>) {
        if let Some(known) = self.known.get_mut(name) {
            known.until = until;
            let moved = match (&known.node, &node) {
                (Some(old), Some(new)) => !Arc::ptr_eq(old, new),
                (old, _) => old.is_some(),
            };
            let old = core::mem::replace(&mut known.node, node);
            if moved {
                known::outdate();
            }
            return (None, old);
        }
        let key: Arc<[u8]> = name.into();
        self.known.insert(key.clone(), Known { node, until });
        (Some(key), None)
    }

    /// Names have changed: a listing made before is not right any more.
    pub(super) fn changed(&mut self) {
        self.listing = None;
    }

    /// It is new, and so empty.
    pub(super) fn nothing_is_there(&mut self) {
        self.complete = true;
    }

    /// The listing is this, and names all there is if `complete`.
    pub(super) fn set_listing(&mut self, entries: Arc<Vec<DirEntry>>, until: u64, complete: bool) {
        self.listing = Some(Listing { entries, until });
        self.complete = complete;
    }

    pub(super) fn listing(&self) -> Option<Arc<Vec<DirEntry>>> {
        let listing = self.listing.as_ref()?;
        is_good(listing.until).then(|| listing.entries.clone())
    }

    /// Forgets a name unless its file is in use; gives the file. `None` if it is.
    pub(super) fn forget(&mut self, name: &[u8]) -> Option<Option<Arc<Node>>> {
        let Some(known) = self.known.get(name) else {
            return Some(None);
        };
        if known
            .node
            .as_ref()
            .is_some_and(|node| Arc::strong_count(node) > 1)
        {
            return None;
        }
        self.complete = false;
        self.known.remove(name).map(|known| known.node)
    }

    /// Everything is to be asked for again.
    pub(super) fn distrust(&mut self) {
        self.complete = false;
        self.listing = None;
        for known in self.known.values_mut() {
            known.until = 0;
        }
    }

    /// Takes out everything it refers to.
    pub(super) fn take_all(&mut self) -> Vec<Arc<Node>> {
        self.complete = false;
        self.listing = None;
        let names = core::mem::take(&mut self.known);
        known::outdate();
        names
            .into_values()
            .filter_map(|known| known.node)
            .chain(self.parent.take())
            .collect()
    }
}
