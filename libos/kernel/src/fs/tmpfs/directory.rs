//! Names in a directory, found by hash and listed in an order that survives changes.
//!
//! Each entry has a cookie, given in increasing order and never again: a listing goes on after the last
//! cookie it saw, so that entries present throughout are seen once, whatever is added or removed.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};

use hashbrown::HashMap;

use super::node::Node;
use crate::fs::{DirEntry, FileKind, known};
use crate::{Errno, Result};

/// First cookie of an entry: 0 and 1 are `.` and `..`.
const FIRST_COOKIE: u64 = 2;

#[derive(Debug)]
struct Entry {
    cookie: u64,
    node: Arc<Node>,
}

/// The names of one directory, and its own place in its parent.
#[derive(Debug)]
pub(super) struct Directory {
    entries: HashMap<Arc<[u8]>, Entry>,
    order: BTreeMap<u64, Arc<[u8]>>,
    next_cookie: u64,
    /// The directory it is in, or was in last; nothing for the root.
    pub parent: Weak<Node>,
    /// Its name there.
    pub name: Arc<[u8]>,
    /// It was removed: nothing can be created in it.
    pub removed: bool,
}

impl Directory {
    pub(super) fn new(parent: Weak<Node>, name: &[u8]) -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            next_cookie: FIRST_COOKIE,
            parent,
            name: name.into(),
            removed: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&Arc<Node>> {
        self.entries.get(name).map(|entry| &entry.node)
    }

    /// Adds a name.
    pub(super) fn insert(&mut self, name: &[u8], node: Arc<Node>) -> Result<()> {
        if self.removed {
            return Err(Errno::ENOENT);
        }
        if self.entries.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let name: Arc<[u8]> = name.into();
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        self.order.insert(cookie, name.clone());
        self.entries.insert(name, Entry { cookie, node });
        Ok(())
    }

    /// Removes a name.
    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Arc<Node>> {
        let entry = self.entries.remove(name)?;
        known::outdate();
        self.order.remove(&entry.cookie);
        Some(entry.node)
    }

    /// Makes an existing name another file's; its place in the order stays.
    pub(super) fn replace(&mut self, name: &[u8], node: Arc<Node>) -> Option<Arc<Node>> {
        let entry = self.entries.get_mut(name)?;
        let old = core::mem::replace(&mut entry.node, node);
        known::outdate();
        Some(old)
    }

    /// Lists from `position` on, `self_ino` being its own number.
    pub(super) fn list(
        &self,
        position: u64,
        self_ino: u64,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) {
        let parent_ino = self.parent.upgrade().map_or(self_ino, |node| node.ino());
        let dots = [(b".".as_slice(), self_ino), (b"..", parent_ino)];
        for (index, (name, ino)) in (0u64..).zip(dots) {
            if position <= index {
                let entry = DirEntry {
                    next: index + 1,
                    ino,
                    kind: FileKind::Directory,
                    name: name.to_vec(),
                };
                if !sink(entry) {
                    return;
                }
            }
        }
        for (cookie, name) in self.order.range(position.max(FIRST_COOKIE)..) {
            let Some(entry) = self.entries.get(name) else {
                continue;
            };
            let entry = DirEntry {
                next: cookie + 1,
                ino: entry.node.ino(),
                kind: entry.node.file_kind(),
                name: name.to_vec(),
            };
            if !sink(entry) {
                return;
            }
        }
    }

    /// Takes all names out, for dropping a deep tree without deep recursion.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Arc<Node>> {
        self.order.clear();
        core::mem::take(&mut self.entries)
            .into_values()
            .map(|entry| entry.node)
    }
}
