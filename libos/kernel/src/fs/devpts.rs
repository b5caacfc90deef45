//! devpts: the terminals of the container's processes, by number, as `ttyname(3)` looks for them.
//!
//! A terminal is one of the host; it is here for as long as anybody has it open.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::pseudo::{self, Maker};
use super::{
    Attributes, Create, DirEntry, DirFile, FileKind, FileOps, FileSystem, FsStatistics, Inode,
    SetAttributes, devfs, stdio,
};
use crate::{Errno, Kernel, Result, Thread};

/// Magic number (`statfs(2)`).
const MAGIC: u32 = 0x1cd1;
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
    }
}

/// The file system.
#[derive(Debug)]
pub struct Devpts {
    options: String,
    root: Arc<Root>,
}

#[derive(Debug)]
struct Root {
    kernel: &'static Kernel,
    node: Arc<pseudo::Node>,
    ptmx: Arc<pseudo::Node>,
}

impl Devpts {
    /// A new one; `data` are its mount options (`mount(8)`). Terminals that are opened from now on are in the first one
    /// that was made.
    #[must_use]
    pub fn new(kernel: &'static Kernel, data: &str) -> Arc<Self> {
        let option = |key: &str| {
            data.split(',')
                .filter_map(|option| option.split_once('='))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value)
        };
        let octal = |key: &str, default: u32| {
            option(key)
                .and_then(|value| u32::from_str_radix(value, 8).ok())
                .unwrap_or(default)
        };
        let gid = option("gid").and_then(|value| value.parse::<u32>().ok());
        let (mode, ptmx_mode) = (octal("mode", 0o600), octal("ptmxmode", 0));
        let gid_shown = gid.map_or_else(String::new, |gid| alloc::format!(",gid={gid}"));
        let maker = Maker::new(kernel);
        let node = maker.directory(Vec::new());
        let ptmx = maker.char_device(devfs::makedev(5, 2), ptmx_mode, 0);
        kernel.host.place_terminals(Place {
            dev: node.attributes().dev,
            gid,
            mode,
        });
        Arc::new(Self {
            options: alloc::format!("{gid_shown},mode={mode:03o},ptmxmode={ptmx_mode:03o}"),
            root: Arc::new(Root { kernel, node, ptmx }),
        })
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
        self.options.as_bytes().to_vec()
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
            return Ok(self.ptmx.clone());
        }
        let wanted = number(name).ok_or(Errno::ENOENT)?;
        let is_it = |console: &crate::host::Console| console.terminal.number() == Some(wanted);
        let streams = self.kernel.host.streams(is_it).ok_or(Errno::ENOENT)?;
        Ok(stdio::terminal(streams))
    }

    fn create(&self, _name: &[u8], _what: &Create<'_>) -> Result<Arc<dyn Inode>> {
        Err(Errno::EPERM)
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
            (
                "ptmx".to_string(),
                self.ptmx.attributes().ino,
                FileKind::CharDevice,
            ),
        ];
        let terminals = self.kernel.host.terminals().into_iter();
        let terminals = terminals.map(|number| {
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
        let fs = Devpts::new(kernel, "newinstance,ptmxmode=0666,mode=0620,gid=5");
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
