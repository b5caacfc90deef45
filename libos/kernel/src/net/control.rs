//! Ancillary data (`cmsg(3)`).

use alloc::vec::Vec;

use husk_abi::linux::{general, net};

use crate::fs::FileRef;
use crate::user::UserAddr;
use crate::{Errno, Result, Thread};

/// The most descriptors one message carries.
pub const MAX_RIGHTS: usize = 253;
/// The most ancillary data a message may bring, in bytes (`net.core.optmem_max`).
const MAX_BYTES: usize = 131_072;
const HEADER: usize = size_of::<net::cmsghdr>();

/// Who sent a message (`unix(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "struct ucred's terms")]
pub struct Ucred {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Ucred {
    /// The calling thread's.
    #[must_use]
    pub fn current(t: &Thread) -> Self {
        let credentials = t.credentials();
        Self {
            pid: t.process.pid,
            uid: credentials.uid,
            gid: credentials.gid,
        }
    }

    /// As the C struct.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        for (field, value) in bytes
            .chunks_exact_mut(4)
            .zip([self.pid, self.uid, self.gid])
        {
            field.copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }
}

/// Ancillary data that goes with a message.
#[derive(Debug, Default)]
pub struct Sent {
    /// `SCM_RIGHTS`.
    pub rights: Vec<FileRef>,
    /// `SCM_CREDENTIALS`, checked.
    pub credentials: Option<Ucred>,
    /// Control messages of other levels: level, type, data.
    pub other: Vec<(i32, i32, Vec<u8>)>,
}

/// A control message for the receiver.
#[derive(Debug)]
pub enum Item {
    /// Descriptors to install.
    Rights(Vec<FileRef>),
    /// Anything else, as it is written.
    Plain {
        /// `SOL_SOCKET` and its like.
        level: u32,
        /// `SCM_*` and its like.
        kind: u32,
        /// Contents.
        data: Vec<u8>,
    },
}

fn word(bytes: &[u8], at: usize) -> Option<i32> {
    let word = bytes.get(at..at + 4)?;
    Some(i32::from_ne_bytes(word.try_into().ok()?))
}

/// Checks credentials a program claims to have.
fn check_credentials(t: &Thread, data: &[u8]) -> Result<Ucred> {
    let field = |at| word(data, at).ok_or(Errno::EINVAL);
    let (pid, uid, gid) = (field(0)?, field(4)?, field(8)?);
    let claimed = Ucred {
        pid: pid.cast_unsigned(),
        uid: uid.cast_unsigned(),
        gid: gid.cast_unsigned(),
    };
    let own = t.credentials();
    let is_pid = claimed.pid == t.process.pid || own.has(general::CAP_SYS_ADMIN);
    let is_uid =
        [own.uid, own.euid, own.suid].contains(&claimed.uid) || own.has(general::CAP_SETUID);
    let is_gid =
        [own.gid, own.egid, own.sgid].contains(&claimed.gid) || own.has(general::CAP_SETGID);
    if uid == -1 || gid == -1 {
        return Err(Errno::EINVAL);
    }
    if !(is_pid && is_uid && is_gid) {
        return Err(Errno::EPERM);
    }
    if t.kernel.tasks.process(claimed.pid).is_none() {
        return Err(Errno::ESRCH);
    }
    Ok(claimed)
}

fn take_rights(t: &Thread, data: &[u8], rights: &mut Vec<FileRef>) -> Result<()> {
    let files = t.files();
    let count = data.len() / 4;
    if rights.len() + count > MAX_RIGHTS {
        return Err(Errno::EINVAL);
    }
    for index in 0..count {
        let fd = word(data, index * 4).ok_or(Errno::EINVAL)?;
        rights.push(files.get_any(fd)?);
    }
    Ok(())
}

/// Reads the control messages of a `msghdr`. `takes_rights`: the family passes descriptors and credentials.
///
/// # Errors
/// `EINVAL` for malformed or unknown messages, `EBADF`, `EPERM`, `ESRCH`, `ENOBUFS`, `EFAULT`.
pub fn read(t: &Thread, at: UserAddr, len: usize, takes_rights: bool) -> Result<Sent> {
    let mut sent = Sent::default();
    if len == 0 {
        return Ok(sent);
    }
    if len > MAX_BYTES {
        return Err(Errno::ENOBUFS);
    }
    let mut bytes = alloc::vec![0; len];
    at.read_bytes(&mut bytes)?;
    let mut rest = &bytes[..];
    while rest.len() >= HEADER {
        let (Some(len), Some(level), Some(kind)) = (
            rest.first_chunk::<8>()
                .map(|len| usize::from_ne_bytes(*len)),
            word(rest, 8),
            word(rest, 12),
        ) else {
            break;
        };
        if len < HEADER || len > rest.len() {
            return Err(Errno::EINVAL);
        }
        let data = &rest[HEADER..len];
        if level == net::SOL_SOCKET as i32 {
            match kind.cast_unsigned() {
                net::SCM_RIGHTS if takes_rights => take_rights(t, data, &mut sent.rights)?,
                net::SCM_CREDENTIALS if takes_rights && data.len() == 12 => {
                    sent.credentials = Some(check_credentials(t, data)?);
                }
                _ => return Err(Errno::EINVAL),
            }
        } else {
            sent.other.push((level, kind, data.to_vec()));
        }
        rest = rest.get(len.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(sent)
}

/// Writes control messages into a receiver's buffer.
#[derive(Debug)]
pub struct Writer {
    at: UserAddr,
    left: usize,
    used: usize,
    truncated: bool,
}

impl Writer {
    /// Into `len` bytes at `at`; NULL takes nothing.
    #[must_use]
    pub fn new(at: UserAddr, len: usize) -> Self {
        Self {
            left: if at.is_null() { 0 } else { len },
            at,
            used: 0,
            truncated: false,
        }
    }

    /// Bytes written, padding included, and whether something did not fit (`MSG_CTRUNC`).
    #[must_use]
    pub fn finish(self) -> (usize, bool) {
        (self.used, self.truncated)
    }

    /// Writes `items`; descriptors become the calling thread's.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn put(&mut self, t: &Thread, items: Vec<Item>, close_on_exec: bool) -> Result<()> {
        for item in items {
            match item {
                Item::Plain { level, kind, data } => self.put_plain(level, kind, &data)?,
                Item::Rights(files) => self.put_rights(t, &files, close_on_exec)?,
            }
        }
        Ok(())
    }

    fn header(&self, len: usize, level: u32, kind: u32) -> Result<()> {
        self.at.write(&net::cmsghdr {
            cmsg_len: len,
            cmsg_level: level.cast_signed(),
            cmsg_type: kind.cast_signed(),
        })
    }

    fn advance(&mut self, len: usize) {
        let len = len.next_multiple_of(8).min(self.left);
        self.at = self.at.add(len as u64);
        self.left -= len;
        self.used += len;
    }

    fn put_plain(&mut self, level: u32, kind: u32, data: &[u8]) -> Result<()> {
        if self.left < HEADER {
            self.truncated = true;
            return Ok(());
        }
        let len = (HEADER + data.len()).min(self.left);
        self.truncated |= len < HEADER + data.len();
        self.header(len, level, kind)?;
        self.at
            .add(HEADER as u64)
            .write_bytes(&data[..len - HEADER])?;
        self.advance(HEADER + data.len());
        Ok(())
    }

    fn put_rights(&mut self, t: &Thread, files: &[FileRef], close_on_exec: bool) -> Result<()> {
        let room = self.left.saturating_sub(HEADER) / 4;
        let table = t.files();
        let mut installed = 0;
        for file in files.iter().take(room) {
            let at = self.at.add((HEADER + installed * 4) as u64);
            let Ok(fd) = table.alloc(t, file.clone(), close_on_exec) else {
                break;
            };
            if at.write(&fd).is_err() {
                let _ = table.close(fd);
                break;
            }
            installed += 1;
        }
        if installed > 0 {
            let len = HEADER + installed * 4;
            self.header(len, net::SOL_SOCKET, net::SCM_RIGHTS)?;
            self.advance(len);
        }
        self.truncated |= installed < files.len();
        Ok(())
    }
}
