//! Small file systems that show what does not change: sysfs, cgroup.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use husk_abi::linux::general;

use super::{
    Attributes, Create, DirEntry, DirFile, File, FileKind, FileOps, FileSystem, FsStatistics,
    Inode, SetAttributes, devfs,
};
use crate::user::IoBuf;
use crate::{Errno, Kernel, Result, Thread};

/// A tree that is made once and never changes.
#[derive(Debug)]
pub struct Fixed {
    kind: &'static str,
    magic: u32,
    options: String,
    read_only: bool,
    root: Arc<Node>,
}

/// A file of a [`Fixed`].
#[derive(Debug)]
pub struct Node {
    what: What,
    mode: u32,
    gid: u32,
    dev: u64,
    ino: u64,
    made_ns: i64,
}

/// A name, and what it names.
pub type Entry = (Cow<'static, str>, Arc<Node>);

/// Entries whose names are always the same, for [`Maker::machine_directory`].
#[must_use]
pub fn named(entries: Vec<(&'static str, Arc<Node>)>) -> Vec<Entry> {
    let entries = entries.into_iter();
    entries.map(|(name, node)| (name.into(), node)).collect()
}

#[derive(Debug)]
enum What {
    Directory(Vec<Entry>),
    Text(Vec<u8>),
    Char(u64),
}

/// Makes the nodes of one file system.
#[derive(Debug)]
pub struct Maker {
    dev: u64,
    next_ino: AtomicU64,
    made_ns: i64,
}

impl Maker {
    /// For a new file system.
    #[must_use]
    pub fn new(kernel: &'static Kernel) -> Self {
        Self {
            dev: kernel.fs.new_device(),
            next_ino: AtomicU64::new(1),
            made_ns: super::anon::wall_ns(),
        }
    }

    fn node(&self, what: What, mode: u32, gid: u32) -> Arc<Node> {
        Arc::new(Node {
            what,
            mode,
            gid,
            dev: self.dev,
            ino: self.next_ino.fetch_add(1, Ordering::Relaxed),
            made_ns: self.made_ns,
        })
    }

    /// A directory of mode 0755.
    #[must_use]
    pub fn directory(&self, entries: Vec<(&'static str, Arc<Node>)>) -> Arc<Node> {
        self.node(What::Directory(named(entries)), 0o755, 0)
    }

    /// A directory of mode 0755, some of whose names depend on the machine.
    #[must_use]
    pub fn machine_directory(&self, entries: Vec<Entry>) -> Arc<Node> {
        self.node(What::Directory(entries), 0o755, 0)
    }

    /// A root directory as sysfs and procfs have it, of mode 0555.
    #[must_use]
    pub fn closed_directory(&self, entries: Vec<(&'static str, Arc<Node>)>) -> Arc<Node> {
        self.node(What::Directory(named(entries)), 0o555, 0)
    }

    /// A file that reads as `text`.
    #[must_use]
    pub fn text(&self, text: &str) -> Arc<Node> {
        self.node(What::Text(text.as_bytes().to_vec()), 0o444, 0)
    }

    /// A character device.
    #[must_use]
    pub fn char_device(&self, rdev: u64, mode: u32, gid: u32) -> Arc<Node> {
        self.node(What::Char(rdev), mode, gid)
    }

    /// The file system with this root, `options` as `/proc/mounts` shows them, each with a leading comma.
    #[must_use]
    pub fn finish(
        self,
        kind: &'static str,
        magic: u32,
        options: String,
        root: Arc<Node>,
    ) -> Arc<Fixed> {
        Arc::new(Fixed {
            kind,
            magic,
            options,
            read_only: kind == "sysfs",
            root,
        })
    }
}

impl FileSystem for Fixed {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statistics(&self) -> FsStatistics {
        FsStatistics {
            magic: self.magic,
            block_size: 4096,
            ..FsStatistics::default()
        }
    }

    fn options(&self) -> Vec<u8> {
        self.options.as_bytes().to_vec()
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }
}

impl Node {
    fn entries(&self) -> Result<&[Entry]> {
        match &self.what {
            What::Directory(entries) => Ok(entries),
            _ => Err(Errno::ENOTDIR),
        }
    }
}

impl Inode for Node {
    fn attributes(&self) -> Attributes {
        let subdirectories = self.entries().unwrap_or_default().iter();
        let nlink = match &self.what {
            What::Directory(_) => {
                2 + subdirectories
                    .filter(|(_, node)| node.kind() == FileKind::Directory)
                    .count() as u32
            }
            _ => 1,
        };
        Attributes {
            is_foreign: false,
            dev: self.dev,
            ino: self.ino,
            kind: self.kind(),
            mode: self.mode,
            nlink,
            uid: 0,
            gid: self.gid,
            rdev: match &self.what {
                What::Char(rdev) => *rdev,
                _ => 0,
            },
            // As sysfs has it: whatever a file's contents, it is a page.
            size: match &self.what {
                What::Text(_) => 4096,
                _ => 0,
            },
            block_size: 4096,
            blocks: 0,
            atime_ns: self.made_ns,
            mtime_ns: self.made_ns,
            ctime_ns: self.made_ns,
        }
    }

    fn kind(&self) -> FileKind {
        match &self.what {
            What::Directory(_) => FileKind::Directory,
            What::Text(_) => FileKind::Regular,
            What::Char(_) => FileKind::CharDevice,
        }
    }

    fn set_attributes(&self, _change: &SetAttributes) -> Result<()> {
        Err(Errno::EPERM)
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let found = self
            .entries()?
            .iter()
            .find(|(known, _)| known.as_bytes() == name);
        Ok(found.ok_or(Errno::ENOENT)?.1.clone())
    }

    fn create(&self, _name: &[u8], _what: &Create<'_>) -> Result<Arc<dyn Inode>> {
        self.entries().and(Err(Errno::EPERM))
    }

    fn unlink(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }

    fn rmdir(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }

    fn read_dir(&self, position: u64, sink: &mut dyn FnMut(DirEntry) -> bool) -> Result<()> {
        let dots =
            [(".", self.ino), ("..", self.ino)].map(|(name, ino)| (name, ino, FileKind::Directory));
        let entries = self.entries()?.iter();
        let entries = entries.map(|(name, node)| (&**name, node.ino, node.kind()));
        for (at, (name, ino, kind)) in (0..).zip(dots.into_iter().chain(entries)) {
            let entry = DirEntry {
                next: at + 1,
                ino,
                kind,
                name: name.as_bytes().to_vec(),
            };
            if at >= position && !sink(entry) {
                break;
            }
        }
        Ok(())
    }

    fn open(self: Arc<Self>, thread: &Thread, flags: u32) -> Result<Arc<dyn FileOps>> {
        match &self.what {
            What::Directory(_) => Ok(DirFile::new(self)),
            What::Text(_) if flags & general::O_ACCMODE != general::O_RDONLY => Err(Errno::EACCES),
            What::Text(_) => Ok(Arc::new(OpenText(self))),
            What::Char(rdev) => devfs::open_char(thread, *rdev),
        }
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// An open text.
#[derive(Debug)]
struct OpenText(Arc<Node>);

impl FileOps for OpenText {
    fn read(&self, _t: &Thread, _file: &File, buf: &mut IoBuf<'_>, offset: u64) -> Result<usize> {
        let What::Text(text) = &self.0.what else {
            return Err(Errno::EINVAL);
        };
        let start = usize::try_from(offset).map_or(text.len(), |at| at.min(text.len()));
        buf.put(&text[start..])
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_fixed_tree() {
        let kernel = crate::process::testing::test_thread().kernel;
        let maker = Maker::new(kernel);
        let file = maker.text("max\n");
        let below = maker.directory(Vec::new());
        let root = maker.directory(vec![("memory.max", file), ("below", below)]);
        let fs = maker.finish("cgroup2", 0x6367_7270, String::new(), root);
        let root = fs.root();
        assert_eq!(root.attributes().nlink, 3);
        assert_eq!(
            root.lookup(b"memory.max").unwrap().kind(),
            FileKind::Regular
        );
        assert_eq!(root.lookup(b"nope").err(), Some(Errno::ENOENT));
        let mut names = Vec::new();
        root.read_dir(0, &mut |entry| {
            names.push(entry.name);
            true
        })
        .unwrap();
        assert_eq!(names, [&b"."[..], b"..", b"memory.max", b"below"]);
        let what = Create {
            kind: FileKind::Regular,
            mode: 0,
            uid: 0,
            gid: 0,
            rdev: 0,
            target: b"",
        };
        assert_eq!(root.create(b"x", &what).err(), Some(Errno::EPERM));
        assert_eq!(
            root.set_attributes(&SetAttributes::default()),
            Err(Errno::EPERM)
        );
    }
}
