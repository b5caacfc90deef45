//! Calling handlers as a program would, in host-side tests: paths and buffers are host memory.

use alloc::ffi::CString;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::linux::general;

use super::{dir, link, open, rw};
use crate::process::testing::{root_credentials, test_thread, user_credentials};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, Thread};

pub(super) const CWD: i32 = general::AT_FDCWD;

/// A process with a root file system of its own.
pub(super) struct Program {
    pub t: Arc<Thread>,
}

/// A C string and its address.
pub(super) struct Text(CString);

impl Text {
    pub(super) fn at(&self) -> UserAddr {
        UserAddr(self.0.as_ptr() as u64)
    }
}

pub(super) fn text(text: &str) -> Text {
    Text(CString::new(text).expect("no NUL in test strings"))
}

impl Program {
    pub(super) fn new() -> Self {
        Self { t: test_thread() }
    }

    pub(super) fn become_user(&self, id: u32) {
        self.t.set_credentials(user_credentials(id, 0));
    }

    pub(super) fn become_root(&self) {
        self.t.set_credentials(root_credentials());
    }

    pub(super) fn open(&self, path: &str, flags: u32, mode: u32) -> Result<i32> {
        let path = text(path);
        open::openat(&self.t, CWD, path.at(), flags, mode).map(|fd| fd as i32)
    }

    pub(super) fn create(&self, path: &str, bytes: &[u8]) {
        const FLAGS: u32 = general::O_CREAT | general::O_WRONLY | general::O_TRUNC;
        let fd = self.open(path, FLAGS, 0o644).expect("created");
        self.write(fd, bytes).expect("written");
        self.close(fd);
    }

    pub(super) fn close(&self, fd: i32) {
        open::close(&self.t, fd).expect("an open descriptor");
    }

    pub(super) fn write(&self, fd: i32, bytes: &[u8]) -> SysResult {
        rw::write(&self.t, fd, UserAddr(bytes.as_ptr() as u64), bytes.len())
    }

    pub(super) fn pwrite(&self, fd: i32, bytes: &[u8], at: u64) -> SysResult {
        let addr = UserAddr(bytes.as_ptr() as u64);
        rw::pwrite64(&self.t, fd, addr, bytes.len(), at as i64)
    }

    pub(super) fn read(&self, fd: i32, bytes: &mut [u8]) -> SysResult {
        rw::read(
            &self.t,
            fd,
            UserAddr(bytes.as_mut_ptr() as u64),
            bytes.len(),
        )
    }

    pub(super) fn pread(&self, fd: i32, bytes: &mut [u8], at: u64) -> SysResult {
        let addr = UserAddr(bytes.as_mut_ptr() as u64);
        rw::pread64(&self.t, fd, addr, bytes.len(), at as i64)
    }

    pub(super) fn contents(&self, path: &str) -> Result<Vec<u8>> {
        let fd = self.open(path, general::O_RDONLY, 0)?;
        let mut bytes = alloc::vec![0; 1 << 16];
        let len = self.read(fd, &mut bytes);
        self.close(fd);
        bytes.truncate(len?);
        Ok(bytes)
    }

    pub(super) fn mkdir(&self, path: &str) -> SysResult {
        dir::mkdirat(&self.t, CWD, text(path).at(), 0o777)
    }

    pub(super) fn symlink(&self, target: &str, path: &str) -> SysResult {
        let (target, path) = (text(target), text(path));
        link::symlinkat(&self.t, target.at(), CWD, path.at())
    }

    pub(super) fn rename(&self, from: &str, to: &str, flags: u32) -> SysResult {
        let (from, to) = (text(from), text(to));
        link::renameat2(&self.t, CWD, from.at(), CWD, to.at(), u64::from(flags))
    }

    pub(super) fn unlink(&self, path: &str) -> SysResult {
        link::unlinkat(&self.t, CWD, text(path).at(), 0)
    }

    pub(super) fn rmdir(&self, path: &str) -> SysResult {
        dir::rmdir(&self.t, text(path).at())
    }

    pub(super) fn stat(&self, path: &str, flags: u32) -> Result<general::stat> {
        let mut stat = core::mem::MaybeUninit::<[u64; 18]>::new([0; 18]);
        let path = text(path);
        let at = UserAddr(stat.as_mut_ptr() as u64);
        super::stat::newfstatat(&self.t, CWD, path.at(), at, flags)?;
        at.read()
    }

    pub(super) fn getcwd(&self) -> Result<String> {
        let mut bytes = [0u8; 4096];
        let at = UserAddr(bytes.as_mut_ptr() as u64);
        let len = dir::getcwd(&self.t, at, bytes.len())?;
        Ok(String::from_utf8_lossy(&bytes[..len - 1]).into_owned())
    }

    pub(super) fn chdir(&self, path: &str) -> SysResult {
        dir::chdir(&self.t, text(path).at())
    }

    /// One `getdents64` call: names and the position after them.
    pub(super) fn list(&self, fd: i32, room: usize) -> Result<Vec<String>> {
        let mut bytes = alloc::vec![0u8; room];
        let at = UserAddr(bytes.as_mut_ptr() as u64);
        let len = dir::getdents64(&self.t, fd, at, room)?;
        let mut rest = &bytes[..len];
        let mut names = Vec::new();
        while !rest.is_empty() {
            let len = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
            let name = rest[19..len]
                .split(|byte| *byte == 0)
                .next()
                .unwrap_or_default();
            names.push(String::from_utf8_lossy(name).into_owned());
            rest = &rest[len..];
        }
        Ok(names)
    }
}

/// A seeded generator: the same numbers every run.
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Both must fail the same way.
pub(super) fn fails(result: SysResult, errno: Errno) {
    assert_eq!(result, Err(errno));
}
