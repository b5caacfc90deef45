//! devpts: the pseudo-terminals of the container's processes, and the multiplexer that makes them (`pts(4)`).
//!
//! The terminals of the host that processes were started with are in the first instance too, for as long as anybody has
//! them open.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::anon::AnonInode;
use super::pseudo::{self, Maker};
use super::{
    Attributes, Create, DirEntry, DirFile, File, FileKind, FileOps, FileSystem, FsStatistics,
    Inode, Location, SetAttributes, devfs, stdio,
};
use crate::sync::SpinLock;
use crate::tty::pty::{self, MasterFile, Pair, SlaveInode};
use crate::{Errno, Kernel, Result, Thread};

/// Magic number (`statfs(2)`).
const MAGIC: u32 = 0x1cd1;
/// The multiplexer's inode number.
const PTMX_INO: u64 = 2;
/// Inode numbers of terminals start here, as Linux's do: the root and the multiplexer come first.
const FIRST_INO: u64 = 3;

/// What a terminal's device takes from the devpts it is in.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    dev: u64,
    gid: Option<u32>,
    mode: u32,
}

impl Place {
    /// Attributes of terminal `number`, of user `uid`, on `attributes` that are a device's.
    pub fn fill(self, attributes: &mut Attributes, number: u32) {
        attributes.dev = self.dev;
        attributes.ino = FIRST_INO + u64::from(number);
        attributes.mode = self.mode;
        attributes.gid = self.gid.unwrap_or(attributes.gid);
        attributes.block_size = 1024;
    }
}

/// Mount options (`mount(8)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Options {
    uid: Option<u32>,
    gid: Option<u32>,
    mode: u32,
    ptmx_mode: u32,
    max: u32,
}

impl Options {
    /// # Errors
    /// `EINVAL` for one that is unknown or out of range.
    fn parse(data: &str) -> Result<Self> {
        const MOST: u32 = 1 << 20;
        let mut options = Self {
            uid: None,
            gid: None,
            mode: 0o600,
            ptmx_mode: 0,
            max: MOST,
        };
        for option in data.split(',').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let number = |radix| u32::from_str_radix(value, radix).map_err(|_| Errno::EINVAL);
            match key {
                "uid" => options.uid = Some(number(10)?),
                "gid" => options.gid = Some(number(10)?),
                "mode" => options.mode = number(8)? & 0o7777,
                "ptmxmode" => options.ptmx_mode = number(8)? & 0o7777,
                "max" => {
                    options.max = number(10)?;
                    if options.max > MOST {
                        return Err(Errno::EINVAL);
                    }
                }
                // Every mount is an instance of its own.
                "newinstance" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(options)
    }

    /// As `/proc/mounts` shows them.
    fn show(&self) -> String {
        let mut shown = String::new();
        for (name, id) in [("uid", self.uid), ("gid", self.gid)] {
            if let Some(id) = id {
                shown += &alloc::format!(",{name}={id}");
            }
        }
        shown += &alloc::format!(",mode={:03o},ptmxmode={:03o}", self.mode, self.ptmx_mode);
        if self.max < 1 << 20 {
            shown += &alloc::format!(",max={}", self.max);
        }
        shown
    }
}

/// The file system.
#[derive(Debug)]
pub struct Devpts {
    kernel: &'static Kernel,
    options: Options,
    place: Place,
    root: Arc<Root>,
}

#[derive(Debug)]
struct Root {
    kernel: &'static Kernel,
    node: Arc<pseudo::Node>,
    ptmx: AnonInode,
    devpts: alloc::sync::Weak<Devpts>,
    pairs: SpinLock<Pairs>,
}

#[derive(Debug, Default)]
struct Pairs {
    /// Those whose masters are open.
    shown: BTreeMap<u32, Arc<SlaveInode>>,
    /// Numbers of these, and of those whose slaves are still open.
    taken: BTreeSet<u32>,
}

/// The multiplexer.
#[derive(Debug)]
struct Ptmx(Arc<Devpts>);

impl Devpts {
    /// A new one; `data` are its mount options (`mount(8)`). Terminals of the host are in the first one that was made.
    ///
    /// # Errors
    /// `EINVAL` for options it does not know.
    pub fn new(kernel: &'static Kernel, data: &str) -> Result<Arc<Self>> {
        let options = Options::parse(data)?;
        let node = Maker::new(kernel).directory(Vec::new());
        let dev = node.attributes().dev;
        let ptmx = AnonInode::owned_by(0, 0, FileKind::CharDevice, options.ptmx_mode);
        ptmx.edit(|attributes| {
            attributes.rdev = devfs::makedev(5, 2);
            attributes.dev = dev;
            attributes.ino = PTMX_INO;
            attributes.block_size = 1024;
        });
        let place = Place {
            dev,
            gid: options.gid,
            mode: options.mode,
        };
        kernel.host.place_terminals(place);
        let devpts = Arc::new_cyclic(|devpts| Self {
            kernel,
            options,
            place,
            root: Arc::new(Root {
                kernel,
                node,
                ptmx,
                devpts: devpts.clone(),
                pairs: SpinLock::default(),
            }),
        });
        kernel.ttys.add(&devpts);
        Ok(devpts)
    }

    /// Opens the multiplexer: a new pseudo-terminal's master.
    ///
    /// # Errors
    /// `ENOSPC` if there are too many.
    pub fn open_master(self: &Arc<Self>, t: &Thread) -> Result<Arc<dyn FileOps>> {
        let kernel = self.kernel;
        let take = |number| self.root.pairs.lock().taken.insert(number);
        let number = kernel.ttys.choose(kernel, self, self.options.max, take)?;
        let credentials = t.credentials();
        let device = AnonInode::owned_by(
            self.options.uid.unwrap_or(credentials.fsuid),
            credentials.fsgid,
            FileKind::CharDevice,
            self.options.mode,
        );
        device.edit(|attributes| {
            attributes.rdev = devfs::makedev(pty::MAJOR, number.into());
            self.place.fill(attributes, number);
        });
        let pair = Pair::new(kernel, self.clone(), number, device);
        let inode = Arc::new(SlaveInode(pair.clone()));
        self.root.pairs.lock().shown.insert(number, inode);
        Ok(Arc::new(MasterFile::new(pair)))
    }

    /// Whether `number` is taken by a pseudo-terminal.
    #[must_use]
    pub fn has(&self, number: u32) -> bool {
        self.root.pairs.lock().taken.contains(&number)
    }

    /// The master of pseudo-terminal `number` is closed: it has no name any more.
    pub fn forget(&self, number: u32) {
        let inode = self.root.pairs.lock().shown.remove(&number);
        drop(inode);
    }

    /// Nobody has pseudo-terminal `number` open.
    pub fn release(&self, number: u32) {
        self.root.pairs.lock().taken.remove(&number);
        self.kernel.ttys.release();
    }

    /// Where pseudo-terminal `number` is: below where its `master` was opened, or wherever this is mounted.
    ///
    /// # Errors
    /// `EIO` if it is gone, `ENODEV` if this is not mounted.
    pub fn locate(&self, kernel: &Kernel, number: u32, master: &File) -> Result<Location> {
        let inode = self.root.pairs.lock().shown.get(&number).cloned();
        let inode = inode.ok_or(Errno::EIO)?;
        let is_this = |mount: &Arc<super::Mount>| {
            let fs: *const () = Arc::as_ptr(&mount.fs).cast();
            core::ptr::eq(fs, core::ptr::from_ref(self).cast())
        };
        let mount = master
            .mount
            .clone()
            .filter(is_this)
            .or_else(|| kernel.fs.mounts().into_iter().find(is_this))
            .ok_or(Errno::ENODEV)?;
        let mut path = mount.path().to_vec();
        super::vfs::join(&mut path, number.to_string().as_bytes());
        Ok(Location { mount, inode, path })
    }
}

impl Inode for Ptmx {
    fn attributes(&self) -> Attributes {
        self.0.root.ptmx.attributes()
    }

    fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        // Opening it with O_TRUNC must work.
        let change = SetAttributes {
            size: None,
            ..*change
        };
        self.0.root.ptmx.set_attributes(&change)
    }

    fn open(self: Arc<Self>, t: &Thread, _flags: u32) -> Result<Arc<dyn FileOps>> {
        self.0.open_master(t)
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

impl FileSystem for Devpts {
    fn kind(&self) -> &'static str {
        "devpts"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statistics(&self) -> FsStatistics {
        FsStatistics {
            magic: MAGIC,
            block_size: 4096,
            ..FsStatistics::default()
        }
    }

    fn options(&self) -> Vec<u8> {
        self.options.show().into_bytes()
    }
}

impl Root {
    /// Whether terminals of the host are here.
    fn is_first(&self) -> bool {
        let first = self.kernel.ttys.first();
        first.is_some_and(|first| core::ptr::eq(&raw const *first.root, self))
    }
}

/// The number a name stands for, as it is written here: no signs, no zeros before it.
fn number(name: &[u8]) -> Option<u32> {
    let text = core::str::from_utf8(name).ok()?;
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl Inode for Root {
    fn attributes(&self) -> Attributes {
        self.node.attributes()
    }

    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        self.node.set_attributes(change)
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        if name == b"ptmx" {
            let devpts = self.devpts.upgrade().ok_or(Errno::ENOENT)?;
            return Ok(Arc::new(Ptmx(devpts)));
        }
        let wanted = number(name).ok_or(Errno::ENOENT)?;
        let pair = self.pairs.lock().shown.get(&wanted).cloned();
        if let Some(pair) = pair {
            return Ok(pair);
        }
        if !self.is_first() {
            return Err(Errno::ENOENT);
        }
        let is_it = |console: &crate::host::Console| console.terminal.number() == Some(wanted);
        let streams = self.kernel.host.streams(is_it).ok_or(Errno::ENOENT)?;
        Ok(stdio::terminal(streams))
    }

    fn create(&self, _name: &[u8], what: &Create<'_>) -> Result<Arc<dyn Inode>> {
        Err(if what.kind == FileKind::Regular {
            Errno::EACCES
        } else {
            Errno::EPERM
        })
    }

    fn unlink(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }

    fn rmdir(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }

    fn read_dir(&self, position: u64, sink: &mut dyn FnMut(DirEntry) -> bool) -> Result<()> {
        let own = self.node.attributes().ino;
        let fixed = [
            (".".to_string(), own, FileKind::Directory),
            ("..".to_string(), own, FileKind::Directory),
            ("ptmx".to_string(), PTMX_INO, FileKind::CharDevice),
        ];
        let mut terminals: Vec<u32> = self.pairs.lock().shown.keys().copied().collect();
        if self.is_first() {
            terminals.extend(self.kernel.host.terminals());
        }
        terminals.sort_unstable();
        let terminals = terminals.into_iter().map(|number| {
            let ino = FIRST_INO + u64::from(number);
            (number.to_string(), ino, FileKind::CharDevice)
        });
        for (at, (name, ino, kind)) in (0..).zip(fixed.into_iter().chain(terminals)) {
            let entry = DirEntry {
                next: at + 1,
                ino,
                kind,
                name: name.into_bytes(),
            };
            if at >= position && !sink(entry) {
                break;
            }
        }
        Ok(())
    }

    fn open(self: Arc<Self>, _thread: &Thread, _flags: u32) -> Result<Arc<dyn FileOps>> {
        Ok(DirFile::new(self))
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{Devpts, number};
    use crate::Errno;
    use crate::fs::{FileKind, FileSystem};

    #[test]
    fn names_are_numbers() {
        assert_eq!((number(b"0"), number(b"17")), (Some(0), Some(17)));
        for name in [&b"00"[..], b"+1", b"", b"x", b"-1", b"99999999999"] {
            assert_eq!(number(name), None);
        }
    }

    #[test]
    fn without_terminals_there_is_only_the_multiplexer() {
        let kernel = crate::process::testing::test_thread().kernel;
        let fs = Devpts::new(kernel, "newinstance,ptmxmode=0666,mode=0620,gid=5").unwrap();
        assert_eq!(fs.options(), b",gid=5,mode=620,ptmxmode=666");
        let root = fs.root();
        let ptmx = root.lookup(b"ptmx").unwrap();
        assert_eq!(
            (ptmx.kind(), ptmx.attributes().mode),
            (FileKind::CharDevice, 0o666)
        );
        assert_eq!(root.lookup(b"0").err(), Some(Errno::ENOENT));
        let mut count = 0;
        root.read_dir(0, &mut |_| {
            count += 1;
            true
        })
        .unwrap();
        assert_eq!(count, 3);
    }
}
