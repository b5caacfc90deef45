//! What the guest has been told of: nodes, by number.
//!
//! A node is described by its tree, its parent and its name there, and by what identifies the file; descriptors for it are
//! opened when needed and closed again when there are too many. So a guest that looks at a million files costs their
//! descriptions, not a million descriptors, and the table could be written down and opened elsewhere. If a name leads to
//! another file meanwhile, the node is stale (`ESTALE`) and the guest looks the name up again. Files that have lost the name they
//! are known by keep a descriptor as long as the guest knows them.

use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use super::tree::{self, FileKey, Tree};

/// The most nodes a guest may know at once.
const MAX_NODES: usize = 1 << 20;

/// The deepest file, in directories.
const MAX_DEPTH: usize = 4096;

/// Number of a tree.
pub type TreeId = usize;

/// A file's contents, opened.
#[derive(Clone, Debug)]
pub struct Contents {
    /// The descriptor.
    pub fd: Arc<OwnedFd>,
    /// It was opened for writing, too.
    pub writable: bool,
}

#[derive(Debug)]
struct Node {
    tree: TreeId,
    key: FileKey,
    /// Where it was seen last; the roots have no name.
    parent: u64,
    name: CString,
    /// How often the guest was told of it.
    lookups: u64,
    /// Nodes that have it as parent.
    children: u32,
    path: Option<Arc<OwnedFd>>,
    contents: Option<Contents>,
    /// It cannot be opened by its name any more.
    pinned: bool,
    /// Used since the eviction last came by.
    used: bool,
    /// It is in the list of those with descriptors.
    listed: bool,
    /// Chunks of the window that show it.
    chunks: Vec<u32>,
}

/// The table.
#[derive(Debug)]
pub struct Nodes {
    trees: Arc<Vec<Tree>>,
    nodes: HashMap<u64, Node>,
    by_key: HashMap<(TreeId, FileKey), u64>,
    next: u64,
    /// Nodes with descriptors, in the order they are looked at for eviction.
    holders: VecDeque<u64>,
    max_holders: usize,
}

/// What is left of a node that the guest forgot.
#[derive(Debug)]
pub struct Forgotten {
    /// The node.
    pub node: u64,
    /// Chunks of the window that showed it.
    pub chunks: Vec<u32>,
}

impl Nodes {
    /// A table that knows the roots of `trees`; it holds descriptors for about `max_holders` nodes.
    ///
    /// # Errors
    /// What looking at the roots gives.
    pub fn new(trees: Arc<Vec<Tree>>, max_holders: usize) -> Result<Self, Errno> {
        let mut table = Self {
            trees: trees.clone(),
            nodes: HashMap::new(),
            by_key: HashMap::new(),
            next: 1,
            holders: VecDeque::new(),
            max_holders: max_holders.max(16),
        };
        for (id, tree) in trees.iter().enumerate() {
            let stat = tree::stat(&tree.root)?;
            let fd = rustix::io::fcntl_dupfd_cloexec(&tree.root, 0)?;
            let node = table.insert(id, tree.key(&stat), 0, CString::default());
            if let Some(root) = table.nodes.get_mut(&node) {
                root.lookups = u64::MAX;
                root.pinned = true;
                root.path = Some(Arc::new(fd));
            }
        }
        Ok(table)
    }

    fn insert(&mut self, tree: TreeId, key: FileKey, parent: u64, name: CString) -> u64 {
        let id = self.next;
        self.next += 1;
        self.by_key.insert((tree, key), id);
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children += 1;
        }
        self.nodes.insert(
            id,
            Node {
                tree,
                key,
                parent,
                name,
                lookups: 0,
                children: 0,
                path: None,
                contents: None,
                pinned: false,
                used: false,
                listed: false,
                chunks: Vec::new(),
            },
        );
        id
    }

    /// The tree of a node.
    pub fn tree(&self, id: u64) -> Result<TreeId, Errno> {
        self.nodes
            .get(&id)
            .map(|node| node.tree)
            .ok_or(Errno::STALE)
    }

    /// The node of a file of `tree`, if the guest knows it.
    pub fn find(&self, tree: TreeId, key: FileKey) -> Option<u64> {
        self.by_key.get(&(tree, key)).copied()
    }

    /// Where a node is, for records: the names from the root of its tree on.
    pub fn describe(&self, id: u64) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = self.nodes.get(&id);
        while let Some(node) = at.filter(|node| node.parent != 0) {
            names.push(node.name.as_bytes());
            at = self.nodes.get(&node.parent);
            if names.len() > 256 {
                break;
            }
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        path
    }

    /// The guest is told of the file `key`, seen as `name` in `parent`: its node, made if need be. `fd` is a descriptor for it, if
    /// there is one already.
    ///
    /// # Errors
    /// `ENFILE` if the guest knows too many.
    pub fn enter(
        &mut self,
        parent: u64,
        name: &CStr,
        key: FileKey,
        fd: Option<OwnedFd>,
    ) -> Result<u64, Errno> {
        let tree = self.tree(parent)?;
        let id = match self.find(tree, key) {
            Some(id) => {
                self.place(id, parent, name);
                id
            }
            None if self.nodes.len() >= MAX_NODES => return Err(Errno::NFILE),
            None => self.insert(tree, key, parent, name.to_owned()),
        };
        if let Some(node) = self.nodes.get_mut(&id) {
            node.lookups = node.lookups.saturating_add(1);
            if let Some(fd) = fd
                && node.path.is_none()
            {
                node.path = Some(Arc::new(fd));
                self.hold(id);
            }
        }
        Ok(id)
    }

    /// As [`Nodes::enter`] for a file without a name: it keeps its descriptor.
    ///
    /// # Errors
    /// `ENFILE`.
    pub fn enter_unnamed(
        &mut self,
        directory: u64,
        key: FileKey,
        path: OwnedFd,
        contents: OwnedFd,
    ) -> Result<u64, Errno> {
        let id = self.enter(directory, c"", key, Some(path))?;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.pinned = true;
            node.contents = Some(Contents {
                fd: Arc::new(contents),
                writable: true,
            });
        }
        Ok(id)
    }

    /// A node is now `name` in `parent`.
    fn place(&mut self, id: u64, parent: u64, name: &CStr) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        if node.parent == 0 {
            // A root stays what it is, wherever else it can be seen.
            return;
        }
        if node.name.as_c_str() != name {
            node.name = name.to_owned();
        }
        let old = std::mem::replace(&mut node.parent, parent);
        node.pinned = false;
        if old == parent {
            return;
        }
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children += 1;
        }
        self.drop_child(old);
    }

    /// The file `key` was moved to `name` in `parent`.
    pub fn moved(&mut self, parent: u64, name: &CStr, key: FileKey) {
        if let Ok(tree) = self.tree(parent)
            && let Some(id) = self.find(tree, key)
        {
            self.place(id, parent, name);
        }
    }

    /// Before a name is taken away from the file `key`: if the guest knows it by that name, it keeps a descriptor.
    ///
    /// # Errors
    /// What opening gives.
    pub fn will_lose(&mut self, parent: u64, name: &CStr, key: FileKey) -> Result<(), Errno> {
        let tree = self.tree(parent)?;
        let Some(id) = self.find(tree, key) else {
            return Ok(());
        };
        let by_this_name = self
            .nodes
            .get(&id)
            .is_some_and(|node| node.parent == parent && node.name.as_c_str() == name);
        if by_this_name {
            self.path(id)?;
            if let Some(node) = self.nodes.get_mut(&id) {
                node.pinned = true;
            }
        }
        Ok(())
    }

    /// A descriptor that holds the node's file.
    ///
    /// # Errors
    /// `ESTALE` if the guest does not know the node, or its name leads elsewhere now; `ENOENT` on a procfs; what opening gives.
    pub fn path(&mut self, id: u64) -> Result<Arc<OwnedFd>, Errno> {
        // Ancestors without descriptors, from the node up.
        let mut missing = Vec::new();
        let mut at = id;
        let mut held = loop {
            let node = self.nodes.get_mut(&at).ok_or(Errno::STALE)?;
            node.used = true;
            if let Some(fd) = &node.path {
                break fd.clone();
            }
            missing.push(at);
            at = node.parent;
            // Names seen at different times could even form a circle.
            if missing.len() > MAX_DEPTH {
                return Err(Errno::STALE);
            }
        };
        for id in missing.into_iter().rev() {
            let node = self.nodes.get(&id).ok_or(Errno::STALE)?;
            let fd = match tree::open_path(&*held, &node.name) {
                Ok(fd) => Arc::new(fd),
                Err(Errno::NOENT | Errno::NOTDIR) => return Err(Errno::STALE),
                Err(errno) => return Err(errno),
            };
            tree::check_served(&*fd)?;
            let stat = tree::stat(&*fd)?;
            if self.trees[node.tree].key(&stat) != node.key {
                return Err(Errno::STALE);
            }
            if let Some(node) = self.nodes.get_mut(&id) {
                node.path = Some(fd.clone());
            }
            self.hold(id);
            held = fd;
        }
        Ok(held)
    }

    /// The node's contents, opened; for writing, too, if `writable`. Tells whether they were opened for writing
    /// just now.
    ///
    /// # Errors
    /// As [`Nodes::path`]; `EINVAL` if it is neither a regular file nor a directory.
    pub fn contents(&mut self, id: u64, writable: bool) -> Result<(Contents, bool), Errno> {
        if let Some(node) = self.nodes.get_mut(&id)
            && let Some(contents) = &node.contents
            && (contents.writable || !writable)
        {
            node.used = true;
            return Ok((contents.clone(), false));
        }
        let path = self.path(id)?;
        let stat = tree::stat(&*path)?;
        let contents = Contents {
            fd: Arc::new(tree::open_contents(&*path, &stat, writable)?),
            writable,
        };
        let node = self.nodes.get_mut(&id).ok_or(Errno::STALE)?;
        node.contents = Some(contents.clone());
        self.hold(id);
        Ok((contents, writable))
    }

    /// A file just made has its contents open already.
    pub fn set_contents(&mut self, id: u64, contents: OwnedFd) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.contents = Some(Contents {
                fd: Arc::new(contents),
                writable: true,
            });
            self.hold(id);
        }
    }

    /// Chunks of the window that show the node.
    pub fn chunks(&mut self, id: u64) -> Option<&mut Vec<u32>> {
        self.nodes.get_mut(&id).map(|node| &mut node.chunks)
    }

    /// A node has a descriptor now: others may have to give up theirs.
    fn hold(&mut self, id: u64) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        node.used = true;
        if !std::mem::replace(&mut node.listed, true) {
            self.holders.push_back(id);
        }
        let mut looked_at = 0;
        let limit = self.holders.len().min(64);
        while self.holders.len() > self.max_holders && looked_at < limit {
            looked_at += 1;
            let Some(other) = self.holders.pop_front() else {
                return;
            };
            let Some(node) = self.nodes.get_mut(&other) else {
                continue;
            };
            if other == id || node.pinned || std::mem::take(&mut node.used) {
                self.holders.push_back(other);
                continue;
            }
            node.listed = false;
            node.contents = None;
            node.path = None;
        }
    }

    /// The guest forgets `count` of the times it was told of a node.
    pub fn forget(&mut self, id: u64, count: u64) -> Option<Forgotten> {
        let node = self.nodes.get_mut(&id)?;
        if node.parent == 0 {
            return None;
        }
        node.lookups = node.lookups.saturating_sub(count);
        if node.lookups > 0 {
            return None;
        }
        let chunks = std::mem::take(&mut node.chunks);
        let children = node.children;
        if children == 0 {
            self.remove(id);
        }
        Some(Forgotten { node: id, chunks })
    }

    /// Removes a node nobody needs, and those of its ancestors that only it needed.
    fn remove(&mut self, id: u64) {
        let Some(node) = self.nodes.remove(&id) else {
            return;
        };
        if self.by_key.get(&(node.tree, node.key)) == Some(&id) {
            self.by_key.remove(&(node.tree, node.key));
        }
        if node.listed {
            // Found to be gone when the eviction comes by; but the list must not grow with nodes that are gone.
            if self.holders.len() > 2 * self.nodes.len() + 64 {
                let nodes = &self.nodes;
                self.holders.retain(|id| nodes.contains_key(id));
            }
        }
        self.drop_child(node.parent);
    }

    fn drop_child(&mut self, mut parent: u64) {
        while let Some(node) = self.nodes.get_mut(&parent) {
            node.children = node.children.saturating_sub(1);
            if node.children > 0 || node.lookups > 0 || node.parent == 0 {
                return;
            }
            let up = node.parent;
            if let Some(node) = self.nodes.remove(&parent)
                && self.by_key.get(&(node.tree, node.key)) == Some(&parent)
            {
                self.by_key.remove(&(node.tree, node.key));
            }
            parent = up;
        }
    }
}
