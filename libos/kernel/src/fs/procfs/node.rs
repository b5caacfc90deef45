//! Rows as inodes.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::linux::general;

use super::file::ProcFile;
use super::mem::MemFile;
use super::row::{Names, Row, What};
use super::subject::Subject;
use super::{descriptors, process, system};
use crate::fs::anon::wall_ns;
use crate::fs::{Attributes, DirEntry, DirFile, FileKind, FileOps, Inode, Location, SetAttributes};
use crate::{Errno, Kernel, Result, Thread};

/// `getdents` cookie of the first name that is in no table; the name's number is added to it.
const FIRST_DYNAMIC: u64 = 256;
/// Inode number of the root.
const ROOT_INO: u64 = 1;

/// A file, link or directory of `/proc`.
#[derive(Debug)]
pub(super) struct Node {
    row: &'static Row,
    subject: Subject,
    dev: u64,
    ino: u64,
    parent_ino: u64,
    mode: u32,
    /// When it was looked up: what its times show.
    made_ns: i64,
}

/// FNV-1a over what identifies a node; never [`ROOT_INO`] or 0.
fn ino_of(parent: u64, name: &[u8], identity: [u64; 4]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut mix = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    identity
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .for_each(&mut mix);
    parent.to_le_bytes().into_iter().for_each(&mut mix);
    name.iter().copied().for_each(&mut mix);
    // Programs that keep inode numbers in 32 bits exist; the file system is small.
    (hash >> 32 ^ hash) & 0xffff_ffff | 1 << 31
}

/// The number a name stands for: decimal without sign or leading zeros.
fn number(name: &[u8]) -> Option<u32> {
    let digits = core::str::from_utf8(name).ok()?;
    let plain = digits == "0" || !digits.starts_with(['0', '+']);
    digits.parse().ok().filter(|_| plain)
}

impl Node {
    /// The root directory.
    pub fn root(kernel: &'static Kernel, dev: u64) -> Arc<Self> {
        Arc::new(Self {
            row: &system::ROOT,
            subject: Subject::system(kernel),
            dev,
            ino: ROOT_INO,
            parent_ino: ROOT_INO,
            mode: system::ROOT.mode,
            made_ns: wall_ns(),
        })
    }

    /// Whom it is about.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    fn child(&self, name: &[u8], row: &'static Row, mode: u32, subject: Subject) -> Arc<Node> {
        Arc::new(Node {
            row,
            ino: ino_of(self.ino, name, subject.identity()),
            subject,
            dev: self.dev,
            parent_ino: self.ino,
            mode,
            made_ns: wall_ns(),
        })
    }

    fn lookup_node(&self, name: &[u8]) -> Result<Arc<Node>> {
        if self.row.kind() != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        if !self.subject.is_alive() {
            return Err(Errno::ENOENT);
        }
        if let Some(row) = self
            .row
            .table()
            .iter()
            .find(|row| row.name.as_bytes() == name)
        {
            return Ok(self.child(name, row, row.mode, self.subject.clone()));
        }
        match (self.row.names(), number(name)) {
            (Some(names), Some(number)) => self.lookup_number(names, name, number),
            _ => Err(Errno::ENOENT),
        }
    }

    fn lookup_number(&self, names: Names, name: &[u8], number: u32) -> Result<Arc<Node>> {
        let tasks = &self.subject.kernel.tasks;
        let (row, subject, mode) = match names {
            Names::Processes => {
                // A thread's id leads to a directory too, but is not listed.
                let subject = match (tasks.process(number), tasks.thread(number)) {
                    (Some(process), _) => Subject::of_process(&process),
                    (None, Some(thread)) => Subject::of_thread(&thread),
                    (None, None) => return Err(Errno::ENOENT),
                };
                (&process::PROCESS, subject, process::PROCESS.mode)
            }
            Names::Threads => {
                let process = self.subject.process().map_err(|_| Errno::ENOENT)?;
                let thread = tasks.thread(number).ok_or(Errno::ENOENT)?;
                if !Arc::ptr_eq(&thread.process, &process) {
                    return Err(Errno::ENOENT);
                }
                let subject = Subject::of_thread(&thread);
                (&process::THREAD, subject, process::THREAD.mode)
            }
            Names::Descriptors => {
                let subject = self.descriptor(number)?;
                let mode = descriptors::link_mode(&subject)?;
                (&descriptors::LINK, subject, mode)
            }
            Names::DescriptorInfo => {
                let subject = self.descriptor(number)?;
                (&descriptors::INFO, subject, descriptors::INFO.mode)
            }
        };
        Ok(self.child(name, row, mode, subject))
    }

    fn descriptor(&self, number: u32) -> Result<Subject> {
        let fd = i32::try_from(number).map_err(|_| Errno::ENOENT)?;
        let thread = self.subject.thread().map_err(|_| Errno::ENOENT)?;
        let files = thread.files_opt().ok_or(Errno::ENOENT)?;
        files.get_any(fd).map_err(|_| Errno::ENOENT)?;
        Ok(self.subject.with_fd(fd))
    }

    /// The numbers that are names in this directory, in order.
    fn numbers(&self, names: Names) -> Vec<u32> {
        match names {
            Names::Processes => {
                let processes = self.subject.kernel.tasks.processes();
                processes.iter().map(|process| process.pid).collect()
            }
            Names::Threads => {
                let threads = self.subject.process().map(|process| process.threads());
                threads
                    .iter()
                    .flatten()
                    .map(|thread| thread.tid())
                    .collect()
            }
            Names::Descriptors | Names::DescriptorInfo => {
                let fds = self.subject.thread().map(|t| t.files().open_fds());
                fds.unwrap_or_default()
                    .into_iter()
                    .map(i32::cast_unsigned)
                    .collect()
            }
        }
    }

    /// Kind of the nodes whose names are numbers.
    fn number_kind(names: Names) -> FileKind {
        match names {
            Names::Processes | Names::Threads => FileKind::Directory,
            Names::Descriptors => FileKind::Symlink,
            Names::DescriptorInfo => FileKind::Regular,
        }
    }

    fn links(&self) -> u32 {
        if self.row.kind() != FileKind::Directory {
            return 1;
        }
        let is_directory = |row: &&Row| row.kind() == FileKind::Directory;
        let fixed = self.row.table().iter().filter(is_directory).count();
        let numbers = match self.row.names() {
            Some(names @ (Names::Processes | Names::Threads)) => self.numbers(names).len(),
            _ => 0,
        };
        (2 + fixed + numbers) as u32
    }

    fn size(&self) -> u64 {
        match (self.row.what, self.row.names()) {
            // Linux gives links to descriptors a size of 64, and the directory the number of its links.
            (What::Magic(..), _) if self.subject.fd >= 0 => 64,
            (_, Some(Names::Descriptors)) => self.numbers(Names::Descriptors).len() as u64,
            _ => 0,
        }
    }

    /// What identifies the subject of the child that `number` names.
    fn identity_of(&self, names: Names, number: u32) -> [u64; 4] {
        let number = u64::from(number);
        let [pid, tid, thread, fd] = self.subject.identity();
        match names {
            Names::Processes => [number, number, 0, fd],
            Names::Threads => [pid, number, 1, fd],
            Names::Descriptors | Names::DescriptorInfo => [pid, tid, thread, number],
        }
    }

    /// An entry as a directory lists it.
    fn entry(&self, name: Vec<u8>, kind: FileKind, next: u64, identity: [u64; 4]) -> DirEntry {
        DirEntry {
            next,
            ino: ino_of(self.ino, &name, identity),
            kind,
            name,
        }
    }
}

impl Inode for Node {
    fn attributes(&self) -> Attributes {
        let (uid, gid) = self.subject.owner();
        Attributes {
            is_foreign: false,
            dev: self.dev,
            ino: self.ino,
            kind: self.row.kind(),
            mode: self.mode,
            nlink: self.links(),
            uid,
            gid,
            rdev: 0,
            size: self.size(),
            block_size: 1024,
            blocks: 0,
            atime_ns: self.made_ns,
            mtime_ns: self.made_ns,
            ctime_ns: self.made_ns,
        }
    }

    fn kind(&self) -> FileKind {
        self.row.kind()
    }

    fn set_attributes(&self, change: &SetAttributes) -> Result<()> {
        // Truncating is what a shell's `>` does; the rest is not for anyone to change.
        let truncates = SetAttributes {
            size: change.size,
            ..SetAttributes::default()
        };
        if *change == truncates {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        Ok(self.lookup_node(name)?)
    }

    fn create(&self, _name: &[u8], _what: &crate::fs::Create<'_>) -> Result<Arc<dyn Inode>> {
        Err(Errno::ENOENT)
    }

    fn unlink(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }

    fn rmdir(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }

    fn read_dir(&self, position: u64, sink: &mut dyn FnMut(DirEntry) -> bool) -> Result<()> {
        if self.row.kind() != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        if !self.subject.is_alive() {
            return Err(Errno::ENOENT);
        }
        let dots = [(&b"."[..], self.ino), (b"..", self.parent_ino)];
        for (at, (name, ino)) in (0..).zip(dots) {
            let entry = DirEntry {
                next: at + 1,
                ino,
                kind: FileKind::Directory,
                name: name.to_vec(),
            };
            if at >= position && !sink(entry) {
                return Ok(());
            }
        }
        for (at, row) in (2..).zip(self.row.table()) {
            let name = row.name.as_bytes().to_vec();
            let entry = self.entry(name, row.kind(), at + 1, self.subject.identity());
            if at >= position && !sink(entry) {
                return Ok(());
            }
        }
        let Some(names) = self.row.names() else {
            return Ok(());
        };
        let kind = Self::number_kind(names);
        for number in self.numbers(names) {
            let at = FIRST_DYNAMIC + u64::from(number);
            let name = number.to_string().into_bytes();
            let entry = self.entry(name, kind, at + 1, self.identity_of(names, number));
            if at >= position && !sink(entry) {
                break;
            }
        }
        Ok(())
    }

    fn read_link(&self, thread: &Thread) -> Result<Vec<u8>> {
        match self.row.what {
            What::Link(text) | What::Magic(text, _) => text(thread, &self.subject),
            _ => Err(Errno::EINVAL),
        }
    }

    fn follow(&self, thread: &Thread) -> Option<Result<Location>> {
        match self.row.what {
            What::Magic(_, target) => Some(target(thread, &self.subject)),
            _ => None,
        }
    }

    fn open(self: Arc<Self>, thread: &Thread, flags: u32) -> Result<Arc<dyn FileOps>> {
        let writes = flags & general::O_ACCMODE != general::O_RDONLY;
        match self.row.what {
            What::Directory(_) | What::Dynamic(..) => Ok(DirFile::new(self)),
            What::Sysctl(_) if writes => Err(Errno::EROFS),
            What::File(generate) | What::Sysctl(generate) => {
                Ok(ProcFile::new(self, generate, None))
            }
            What::Writable(generate, store) => Ok(ProcFile::new(self, generate, Some(store))),
            What::Memory => Ok(MemFile::open(thread, &self.subject)?),
            What::Link(_) | What::Magic(..) => Err(Errno::ELOOP),
        }
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{ino_of, number};

    #[test]
    fn names_of_numbers() {
        assert_eq!(number(b"17"), Some(17));
        assert_eq!(number(b"0"), Some(0));
        for bad in [&b"017"[..], b"+1", b"-1", b"", b"1a", b"99999999999"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn numbers_differ() {
        let mut seen = std::collections::HashSet::new();
        for pid in 0..500 {
            for name in ["stat", "status", "maps", "fd", "exe"] {
                assert!(seen.insert(ino_of(1, name.as_bytes(), [pid, pid, 0, 0])));
            }
        }
    }
}
