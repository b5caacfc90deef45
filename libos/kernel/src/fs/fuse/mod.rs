//! Directories of the host, served by the VMM (`abi::boundary::fuse`).
//!
//! | module | what |
//! | --- | --- |
//! | `buffer` | what is read ahead, and what waits to be written back |
//! | `calls` | the messages, typed |
//! | `channel` | FIFOs and sockets of trees that others use, too |
//! | `node` | a file: its attributes as last told, and the [`Inode`] operations |
//! | `names` | what is known of a directory: names, and names that are not there |
//! | `data` | contents of a regular file: by the window where they are mapped, else by messages |
//! | `file` | an open regular file |
//! | `handed` | channels of what processes were handed from outside |
//! | `window` | which chunk of the window shows what |
//!
//! What the server says is good for ever (a root nobody else can reach) is kept until the cache is full; what is good for a
//! while (a root that engines copy files into) is not trusted after that ([`super::Vfs::distrust`]), nor when a process is
//! started from outside; what is good for no time (a volume, which others change) is asked for at each use. A file is one [`Node`] whatever its names, found
//! again by the server's number.
//!
//! Locks: a directory's `changing`, held over requests about its names (two of them in the order of the nodes' numbers, under the
//! VFS's tree lock); a file's `writing`; a file's `mapping`; then the short ones of names, attributes, chunks, the table
//! of nodes, the window. No short lock is held over a request.

mod buffer;
mod calls;
mod channel;
mod data;
mod file;
mod handed;
mod names;
mod node;
mod window;

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use hashbrown::HashMap;
use husk_abi::boundary::config::Tree;
use husk_abi::boundary::fuse::{Attr, Validity};

use super::{Attributes, FileKind, FileSystem, FsStatistics, Inode, devfs};
use crate::sync::SpinLock;
use crate::{Kernel, Result};
pub use buffer::WriteBehind;
pub(super) use channel::Fifo;
pub(crate) use channel::Pauses;
pub use channel::{Channel, Channels, connect, write_all};
use node::Node;
pub use window::Window;

const PAGE: u64 = 4096;
/// Pages of a chunk of the window.
const CHUNK_PAGES: u64 = husk_abi::boundary::fuse::CHUNK_BYTES / PAGE;

/// Names kept; beyond that those go that were kept longest and that nobody uses.
const MAX_NAMES: usize = 32_768;

/// A name, and the directory it is in.
type Kept = (Weak<Node>, Arc<[u8]>);

/// What all nodes of a tree share.
#[derive(Debug)]
struct Shared {
    kernel: &'static Kernel,
    /// Guest numbers of the devices the server told apart.
    devices: SpinLock<Vec<u64>>,
    /// The nodes in use, by the server's number.
    nodes: SpinLock<HashMap<u64, Weak<Node>>>,
    /// Names kept, oldest first.
    kept: SpinLock<VecDeque<Kept>>,
    /// How long the server's word is good.
    validity: Validity,
    read_only: bool,
    room: Room,
}

/// What may be written later, in bytes, because the host's disk had room for it when that was last looked at.
#[derive(Debug, Default)]
struct Room {
    bytes: AtomicI64,
    /// When to look again, in nanoseconds of the monotonic clock.
    look_at: AtomicU64,
}

/// Room on the host's disk from which on writing may wait; how much then, until it is looked at again.
const ROOM_NEEDED: u64 = 256 << 20;
const ROOM_GIVEN: i64 = 16 << 20;
/// How long a disk with less is not looked at again.
const LOOK_AGAIN_NS: u64 = 100_000_000;

impl Shared {
    fn device(&self, index: u32) -> u64 {
        let mut devices = self.devices.lock();
        while devices.len() <= index as usize {
            devices.push(self.kernel.fs.new_device());
        }
        devices[index as usize]
    }

    /// Attributes as the server told them.
    fn attributes(&self, attr: &Attr) -> Attributes {
        attributes_of(attr, self.device(attr.device()))
    }

    /// Whether the tree is this guest's, so that what it does there may wait, and what it was told stays true: for ever, or for
    /// a while where somebody may visit it.
    fn is_exclusive(&self) -> bool {
        self.validity != Validity::Nanoseconds(0)
    }

    /// When something told now is to be asked for again, in nanoseconds of the monotonic clock.
    fn good_until(&self) -> u64 {
        match self.validity {
            Validity::Nanoseconds(0) => 0,
            // Until it is not trusted any more, as a whole.
            Validity::Forever | Validity::Nanoseconds(_) => u64::MAX,
        }
    }

    /// Whether `len` bytes of the file `node` may be written later.
    fn has_room_for(&self, node: u64, len: usize) -> bool {
        let len = len as i64;
        let room = &self.room;
        if room.bytes.fetch_sub(len, Ordering::AcqRel) >= len {
            return true;
        }
        let now = husk_hal::clock::now_ns();
        if now < room.look_at.load(Ordering::Acquire) {
            return false;
        }
        let free = calls::statfs(self.kernel, node)
            .map_or(0, |stat| stat.bavail.saturating_mul(u64::from(stat.frsize)));
        if free >= ROOM_NEEDED {
            room.bytes.store(ROOM_GIVEN - len, Ordering::Release);
            return true;
        }
        room.look_at.store(now + LOOK_AGAIN_NS, Ordering::Release);
        false
    }

    /// A name was added to `directory`'s: forgets old ones if there are too many.
    fn keep(&self, directory: &Arc<Node>, name: &Arc<[u8]>) {
        let mut old = Vec::new();
        {
            let mut kept = self.kept.lock();
            kept.push_back((Arc::downgrade(directory), name.clone()));
            let excess = kept.len().saturating_sub(MAX_NAMES).min(4);
            old.extend((0..excess).filter_map(|_| kept.pop_front()));
        }
        for (directory, name) in old {
            let Some(node) = directory.upgrade() else {
                continue;
            };
            if !node.forget_name(&name) {
                self.kept.lock().push_back((directory, name));
            }
        }
    }
}

/// Attributes as the server told them, of a file on the device `dev`.
pub(super) fn attributes_of(attr: &Attr, dev: u64) -> Attributes {
    let time = |seconds: i64, nanoseconds: u32| {
        seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(nanoseconds))
    };
    let (major, minor) = husk_abi::boundary::fuse::decode_dev(attr.rdev);
    Attributes {
        is_foreign: attr.flags & Attr::FOREIGN != 0,
        dev,
        ino: attr.ino,
        kind: FileKind::from_mode(attr.mode).unwrap_or(FileKind::Regular),
        mode: attr.mode & 0o7777,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: devfs::makedev(major.into(), minor.into()),
        size: attr.size,
        block_size: attr.blksize,
        blocks: attr.blocks,
        atime_ns: time(attr.atime, attr.atimensec),
        mtime_ns: time(attr.mtime, attr.mtimensec),
        ctime_ns: time(attr.ctime, attr.ctimensec),
    }
}

/// A tree of the host.
#[derive(Debug)]
pub struct FuseFs {
    shared: Arc<Shared>,
    root: Arc<Node>,
}

impl FuseFs {
    /// The tree number `index` of the configuration.
    ///
    /// # Errors
    /// What looking at its root gives.
    pub fn new(kernel: &'static Kernel, index: usize, tree: &Tree) -> Result<Arc<Self>> {
        let id = index as u64 + 1;
        let (attr, validity) = calls::getattr(kernel, id)?;
        let shared = Arc::new(Shared {
            kernel,
            devices: SpinLock::new(Vec::new()),
            nodes: SpinLock::new(HashMap::new()),
            kept: SpinLock::new(VecDeque::new()),
            validity,
            read_only: tree.read_only,
            room: Room::default(),
        });
        if let Validity::Nanoseconds(good @ 1..) = validity {
            kernel.fs.is_visited(good);
        }
        let root = Node::root(&shared, id, &attr);
        Ok(Arc::new(Self { shared, root }))
    }
}

impl FileSystem for FuseFs {
    fn distrust(&self) {
        if !matches!(self.shared.validity, Validity::Nanoseconds(1..)) {
            return;
        }
        let nodes: Vec<_> = self.shared.nodes.lock().values().cloned().collect();
        for node in nodes.iter().filter_map(Weak::upgrade) {
            node.distrust();
        }
    }

    fn kind(&self) -> &'static str {
        "virtiofs"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statistics(&self) -> FsStatistics {
        calls::statfs(self.shared.kernel, self.root.id())
            .map(|stat| FsStatistics {
                magic: stat.magic,
                block_size: stat.bsize,
                blocks: stat.blocks,
                blocks_free: stat.bfree,
                blocks_available: stat.bavail,
                files: stat.files,
                files_free: stat.ffree,
            })
            .unwrap_or_default()
    }

    fn sync(&self) -> Result<()> {
        if self.shared.read_only {
            return Ok(());
        }
        self.shared.kernel.fs.behind.flush(self.shared.kernel);
        calls::syncfs(self.shared.kernel, self.root.id())
    }
}

impl Drop for FuseFs {
    fn drop(&mut self) {
        // Directories and what is cached in them refer to each other.
        let nodes: Vec<_> = self.shared.nodes.lock().values().cloned().collect();
        for node in nodes.iter().filter_map(Weak::upgrade) {
            node.forget_names();
        }
    }
}
