//! Files of the host: FUSE messages on one virtqueue, and the window their contents are mapped into.
//!
//! A chain is a device-readable part, [`InHeader`] and the operation's arguments, and a device-writable part
//! that takes [`OutHeader`] and the answer. Numbers and structs are Linux's FUSE protocol
//! (`include/uapi/linux/fuse.h`), with these differences:
//!
//! - There is no `INIT`: [`super::version`] covers the messages. Trees are numbered by
//!   [`super::config::GuestConfig::trees`]; the root of tree `n` is node `n + 1`.
//! - There are no file handles: reads and writes name the node, and the `fh` fields are 0. `OPEN` tells whether a
//!   file can be opened for writing; nothing is to be released.
//! - What changes a file is answered with its new attributes, so that no `GETATTR` follows: operations on names by the
//!   [`AttrOut`] of the directories involved, those on contents by the file's.
//! - A listing ends with an entry without a name, or an answer without entries.
//! - `MKNOD` makes regular files, too. `LOOKUP` of a name that is not there is `ENOENT`.
//! - [`Attr::flags`] tells devices of one tree apart, see [`Attr::device`].
//!
//! A request that cannot take long is answered when the doorbell returns; any other later, with an interrupt.
//!
//! - *Channels* are FIFOs that were opened and sockets that were connected to, numbered by the VMM. No operation on one
//!   waits: it is `EAGAIN`. `CHANNEL_POLL` asks what would not be; whatever is not ready then is announced once, when it is, by
//!   the channel's bit at [`CHANNELS_OFFSET`] and an interrupt. What a process was handed from outside
//!   ([`super::config::Handed`]) becomes a channel by `CHANNEL_TAKE`, files with positions among it: these are moved on the
//!   host, where others may share them.
//! - `LOCK` sets what the whole guest holds of a file's locks, as one holder, and never waits either.
//!
//! *Window*: [`super::boot::BootInfo::window`], cut into chunks of [`CHUNK_BYTES`]. `SETUPMAPPING` maps a chunk of a file
//! there; the libOS decides where. Touching a byte past the file's last page is told to the VMM, not to the program.

use alloc::vec::Vec;

/// Bytes mapped by one `SETUPMAPPING`, and their alignment in file and window.
pub const CHUNK_BYTES: u64 = super::layout::LARGE_PAGE_SIZE;
/// Most bytes of one request's or one answer's data, headers not counted.
pub const MAX_DATA: usize = 1 << 20;
/// Most bytes of a request without the data of `WRITE`: two names, or a name and an attribute's value.
pub const MAX_REQUEST: usize = 68 << 10;
/// Most trees.
pub const MAX_TREES: usize = 64;

/// Opcodes.
#[allow(missing_docs, reason = "Linux's FUSE protocol")]
pub mod op {
    pub const LOOKUP: u32 = 1;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SETUPMAPPING: u32 = 48;
    pub const REMOVEMAPPING: u32 = 49;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
    // Not Linux's.
    pub const CHANNEL_TAKE: u32 = 52;
    pub const CHANNEL_ACCEPT: u32 = 53;
    pub const CHANNEL_FILE: u32 = 54;
    pub const CHANNEL_TERMINAL: u32 = 55;
    pub const CHANNEL_OPEN: u32 = 56;
    pub const CHANNEL_READ: u32 = 57;
    pub const CHANNEL_WRITE: u32 = 58;
    pub const CHANNEL_POLL: u32 = 59;
    pub const CHANNEL_SHUT: u32 = 60;
    pub const CHANNEL_CLOSE: u32 = 61;
    pub const LOCK: u32 = 62;
}

/// Names of the opcodes, for records and statistics.
#[must_use]
pub fn op_name(opcode: u32) -> Option<&'static str> {
    Some(match opcode {
        op::LOOKUP => "lookup",
        op::GETATTR => "getattr",
        op::SETATTR => "setattr",
        op::READLINK => "readlink",
        op::SYMLINK => "symlink",
        op::MKNOD => "mknod",
        op::MKDIR => "mkdir",
        op::UNLINK => "unlink",
        op::RMDIR => "rmdir",
        op::LINK => "link",
        op::OPEN => "open",
        op::READ => "read",
        op::WRITE => "write",
        op::STATFS => "statfs",
        op::FSYNC => "fsync",
        op::SETXATTR => "setxattr",
        op::GETXATTR => "getxattr",
        op::LISTXATTR => "listxattr",
        op::REMOVEXATTR => "removexattr",
        op::BATCH_FORGET => "forget",
        op::FALLOCATE => "fallocate",
        op::READDIRPLUS => "readdirplus",
        op::RENAME2 => "rename",
        op::LSEEK => "lseek",
        op::COPY_FILE_RANGE => "copy_file_range",
        op::SETUPMAPPING => "setupmapping",
        op::REMOVEMAPPING => "removemapping",
        op::SYNCFS => "syncfs",
        op::TMPFILE => "tmpfile",
        op::CHANNEL_TAKE => "channel_take",
        op::CHANNEL_ACCEPT => "channel_accept",
        op::CHANNEL_FILE => "channel_file",
        op::CHANNEL_TERMINAL => "channel_terminal",
        op::CHANNEL_OPEN => "channel_open",
        op::CHANNEL_READ => "channel_read",
        op::CHANNEL_WRITE => "channel_write",
        op::CHANNEL_POLL => "channel_poll",
        op::CHANNEL_SHUT => "channel_shut",
        op::CHANNEL_CLOSE => "channel_close",
        op::LOCK => "lock",
        _ => return None,
    })
}

/// `SetattrIn::valid`: what to change.
#[allow(missing_docs, reason = "Linux's FUSE protocol")]
pub mod fattr {
    pub const MODE: u32 = 1;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
}

/// `FsyncIn::fsync_flags`: the data only.
pub const FSYNC_DATA: u32 = 1;
/// `FsyncIn::fsync_flags`: begin to write the data, and do not wait.
pub const FSYNC_START: u32 = 1 << 1;

/// `SetupmappingIn::flags`: the guest may read what is mapped.
pub const MAP_READ: u64 = 1;
/// `SetupmappingIn::flags`: the guest may write what is mapped.
pub const MAP_WRITE: u64 = 2;

/// A struct on the wire: little-endian integers without padding between them.
macro_rules! wire {
    ($(#[$meta:meta])* $name:ident, $bytes:literal { $($field:ident: $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[allow(missing_docs, reason = "Linux's names")]
        pub struct $name { $(pub $field: $ty),* }
        crate::boundary::assert_size!($name, $bytes);

        impl $name {
            /// Bytes on the wire.
            pub const BYTES: usize = $bytes;

            /// Appends it to `out`.
            pub fn put(&self, out: &mut Vec<u8>) {
                $($crate::boundary::fuse::Field::append(&self.$field, out);)*
            }

            /// Takes one from the start of `bytes`; also gives what follows.
            #[must_use]
            pub fn take(bytes: &[u8]) -> Option<(Self, &[u8])> {
                #[allow(unused_mut, reason = "a struct of one field")]
                let mut rest = bytes;
                let value = Self { $($field: <$ty as $crate::boundary::fuse::Field>::cut(&mut rest)?),* };
                Some((value, rest))
            }
        }
    };
}

pub(super) use wire;

/// A field of a struct on the wire.
pub(super) trait Field: Sized {
    fn append(&self, out: &mut Vec<u8>);
    fn cut(bytes: &mut &[u8]) -> Option<Self>;
}

macro_rules! integer_field {
    ($($ty:ty),*) => {$(
        impl Field for $ty {
            fn append(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn cut(bytes: &mut &[u8]) -> Option<Self> {
                let (head, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(Self::from_le_bytes(*head))
            }
        }
    )*};
}
integer_field!(u16, u32, u64, i32, i64);

impl Field for Attr {
    fn append(&self, out: &mut Vec<u8>) {
        self.put(out);
    }
    fn cut(bytes: &mut &[u8]) -> Option<Self> {
        let (attr, rest) = Attr::take(bytes)?;
        *bytes = rest;
        Some(attr)
    }
}

wire! {
    /// Starts a request. `uid` and `gid` own what it makes; `nodeid` is what it is about.
    InHeader, 40 {
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32, total_extlen: u16, padding: u16,
    }
}
wire! {
    /// Starts an answer. `error` is 0 or a negative errno.
    OutHeader, 16 { len: u32, error: i32, unique: u64 }
}
wire! {
    /// Attributes of a file.
    Attr, 88 {
        ino: u64, size: u64, blocks: u64, atime: i64, mtime: i64, ctime: i64, atimensec: u32, mtimensec: u32,
        ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    }
}
wire! {
    /// Answers `GETATTR` and what changes one file. The times tell how long the attributes are good.
    AttrOut, 104 { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr }
}
wire! {
    /// A file found or made. `generation` is always 0.
    EntryOut, 128 {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32, attr_valid_nsec: u32,
        attr: Attr,
    }
}
wire! {
    /// `SETATTR`.
    SetattrIn, 88 {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: i64, mtime: i64, ctime: i64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
}
wire! {
    /// `MKNOD` and `TMPFILE`; the name follows. The umask was applied by the guest.
    MknodIn, 16 { mode: u32, rdev: u32, umask: u32, padding: u32 }
}
wire! {
    /// `MKDIR`; the name follows.
    MkdirIn, 8 { mode: u32, umask: u32 }
}
wire! {
    /// `RENAME2`; the old and the new name follow.
    Rename2In, 16 { newdir: u64, flags: u32, padding: u32 }
}
wire! {
    /// `LINK`; the new name follows.
    LinkIn, 8 { oldnodeid: u64 }
}
wire! {
    /// `OPEN`; `flags` are `O_*`.
    OpenIn, 8 { flags: u32, open_flags: u32 }
}
wire! {
    /// `READ` and `READDIRPLUS`.
    ReadIn, 40 { fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
}
wire! {
    /// `WRITE`; the data follow. With `O_APPEND` among the flags they go to the file's end, whatever the offset.
    WriteIn, 40 { fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
}
wire! {
    /// Answers `WRITE` and `COPY_FILE_RANGE`; an [`AttrOut`] follows.
    WriteOut, 8 { size: u32, padding: u32 }
}
wire! {
    /// Answers `STATFS`; `magic` is `f_type`.
    StatfsOut, 80 {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32, frsize: u32, padding: u32,
        magic: u32, spare0: u32, spare1: u64, spare2: u64,
    }
}
wire! {
    /// `FSYNC`; bit 0 of the flags: the data only.
    FsyncIn, 16 { fh: u64, fsync_flags: u32, padding: u32 }
}
wire! {
    /// `SETXATTR`; name and value follow.
    SetxattrIn, 8 { size: u32, flags: u32 }
}
wire! {
    /// `FALLOCATE`.
    FallocateIn, 32 { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }
}
wire! {
    /// `LSEEK`: `SEEK_DATA` and `SEEK_HOLE`.
    LseekIn, 24 { fh: u64, offset: u64, whence: u32, padding: u32 }
}
wire! {
    /// Answers `LSEEK`.
    LseekOut, 8 { offset: u64 }
}
wire! {
    /// `COPY_FILE_RANGE`, from the request's node.
    CopyIn, 56 { fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64 }
}
wire! {
    /// `SETUPMAPPING`; answered by the file's [`AttrOut`].
    SetupmappingIn, 40 { fh: u64, foffset: u64, len: u64, flags: u64, moffset: u64 }
}
wire! {
    /// `REMOVEMAPPING` and `BATCH_FORGET`: how many records follow.
    CountIn, 8 { count: u32, dummy: u32 }
}
wire! {
    /// A part of the window to be unmapped.
    RemovemappingOne, 16 { moffset: u64, len: u64 }
}
wire! {
    /// `nlookup` answers that named the node are forgotten.
    ForgetOne, 16 { nodeid: u64, nlookup: u64 }
}
wire! {
    /// An entry of a listing, behind its [`EntryOut`]; the name follows, padded to 8 bytes. `off` is where the listing
    /// goes on.
    Dirent, 24 { ino: u64, off: u64, namelen: u32, kind: u32 }
}

wire! {
    /// `CHANNEL_OPEN`: `flags` are `O_*` for a FIFO; `kind` is a socket's type, 0 for a FIFO.
    ChannelOpenIn, 8 { flags: u32, kind: u32 }
}
wire! {
    /// Answers `CHANNEL_OPEN`; the ids are those of who listens at a socket, as the VMM sees them.
    ChannelOpenOut, 16 { channel: u32, uid: u32, gid: u32, padding: u32 }
}
wire! {
    /// The other operations on channels. `flags`: for `READ` bit 0 leaves what is read, for `READ` and `WRITE` of a file
    /// [`CHANNEL_AT`], for `SHUT` `SHUT_*`, for `POLL` [`CHANNEL_PARTNER`], for `TERMINAL` the `ioctl(2)` request. `size`: what
    /// `READ` gives at most. What is to be written, or the request's argument, follows. `ACCEPT` is answered as `CHANNEL_OPEN`.
    ChannelIn, 16 { channel: u32, flags: u32, size: u32, padding: u32 }
}
wire! {
    /// `CHANNEL_TAKE`: the descriptor number `index` of those session `session` was handed; answered as `CHANNEL_OPEN`. Each
    /// can be taken once.
    ChannelTakeIn, 8 { session: u32, index: u32 }
}
wire! {
    /// `CHANNEL_FILE`: `what` is `SEEK_*` (`lseek(2)`), [`FILE_RESIZE`], [`FILE_SYNC`] or [`FILE_STAT`]. Answered by
    /// [`ChannelFileOut`], or for the last by [`AttrOut`].
    ChannelFileIn, 16 { channel: u32, what: u32, argument: u64 }
}
wire! {
    /// Answers `CHANNEL_FILE`: the position.
    ChannelFileOut, 8 { value: u64 }
}
wire! {
    /// Answers `CHANNEL_POLL`: `POLL*`, and 1 if somebody has the FIFO open for writing.
    ChannelPollOut, 8 { events: u32, partner: u32 }
}
wire! {
    /// `LOCK`: bytes `start..=end`, or with [`LOCK_WHOLE`] the lock of `flock(2)`. `kind`: nothing, shared or exclusive
    /// (0, 1, 2).
    LockIn, 24 { start: u64, end: u64, kind: u32, flags: u32 }
}
wire! {
    /// Answers `LOCK` with [`LOCK_ASK`]: the lock in the way, `kind` 0 if there is none; `pid` is -1 for an open file's.
    LockOut, 24 { start: u64, end: u64, kind: u32, pid: u32 }
}

/// `ChannelIn::flags` of `CHANNEL_POLL`: whether somebody has it open for writing is asked, too.
pub const CHANNEL_PARTNER: u32 = 1;
/// `ChannelIn::flags` of `READ` and `WRITE`: at the offset whose 8 bytes follow before all else; the position stays.
pub const CHANNEL_AT: u32 = 2;
/// `ChannelFileIn::what`: the file gets `argument` bytes (`ftruncate(2)`).
pub const FILE_RESIZE: u32 = 16;
/// `ChannelFileIn::what`: its contents are written to the disk; only those if `argument` is 1 (`fdatasync(2)`).
pub const FILE_SYNC: u32 = 17;
/// `ChannelFileIn::what`: its attributes.
pub const FILE_STAT: u32 = 18;
/// Most channels of a guest.
pub const MAX_CHANNELS: usize = 256;
/// Most bytes one `CHANNEL_WRITE` takes, or `CHANNEL_READ` gives.
pub const MAX_CHANNEL_DATA: usize = 64 << 10;
/// Offset in the host-events page of the words with a bit for each channel that became ready; the libOS takes them.
pub const CHANNELS_OFFSET: u64 = 328;

/// `LockIn::flags`: the lock of `flock(2)`.
pub const LOCK_WHOLE: u32 = 1;
/// `LockIn::flags`: nothing is set; what would be in the way is asked.
pub const LOCK_ASK: u32 = 2;
/// `LockIn::flags`: nothing of this file is locked any more.
pub const LOCK_END: u32 = 4;

/// Bits of [`Attr::flags`] below the device's number.
const DEVICE_SHIFT: u32 = 8;

impl Attr {
    /// Bit of [`Attr::flags`]: its owner or group has no id in the container's user namespace, so that none of the container's
    /// capabilities is about it (user_namespaces(7)).
    pub const FOREIGN: u32 = 1 << 2;

    /// Number of the device the file is on, counted from 0 among those of its tree.
    #[must_use]
    pub fn device(&self) -> u32 {
        self.flags >> DEVICE_SHIFT
    }

    /// [`Attr::flags`] for a file on `device`.
    #[must_use]
    pub fn device_flags(device: u32) -> u32 {
        device << DEVICE_SHIFT
    }
}

/// How long something is good, as the messages have it: `u64::MAX` seconds is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Until somebody says otherwise.
    Forever,
    /// For so many nanoseconds.
    Nanoseconds(u64),
}

impl Validity {
    /// From seconds and nanoseconds.
    #[must_use]
    pub fn from_wire(seconds: u64, nanoseconds: u32) -> Self {
        if seconds == u64::MAX {
            Validity::Forever
        } else {
            let seconds = seconds.saturating_mul(1_000_000_000);
            Validity::Nanoseconds(seconds.saturating_add(u64::from(nanoseconds)))
        }
    }

    /// As seconds and nanoseconds.
    #[must_use]
    pub fn to_wire(self) -> (u64, u32) {
        match self {
            Validity::Forever => (u64::MAX, 0),
            Validity::Nanoseconds(all) => (all / 1_000_000_000, (all % 1_000_000_000) as u32),
        }
    }
}

/// `dev_t` in 32 bits, as `mknod(2)`'s kernel side and FUSE have it.
#[must_use]
pub fn encode_dev(major: u32, minor: u32) -> u32 {
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

/// Major and minor number of a [`encode_dev`] number.
#[must_use]
pub fn decode_dev(dev: u32) -> (u32, u32) {
    (dev >> 8 & 0xfff, dev & 0xff | dev >> 12 & 0xf_ff00)
}

/// Chunks whose file became shorter than what was mapped, told by the VMM: see [`TRUNCATED_OFFSET`].
pub const MAX_TRUNCATED: usize = 8192;
/// Offset in the host-events page of a counter the VMM raises, before it interrupts, whenever it has put zeros in place of
/// pages that a file lost under a mapping. The bitmap of the chunks it did that to is the guest's to take: bit `n` of the words
/// from [`super::boot::BootInfo::truncated_gpa`] on.
pub const TRUNCATED_OFFSET: u64 = 320;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_round_trip() {
        let entry = EntryOut {
            nodeid: 7,
            attr: Attr {
                ino: 1,
                mtime: -3,
                flags: Attr::device_flags(5),
                ..Attr::default()
            },
            ..EntryOut::default()
        };
        let mut bytes = Vec::new();
        entry.put(&mut bytes);
        assert_eq!(bytes.len(), EntryOut::BYTES);
        bytes.push(9);
        let (back, rest) = EntryOut::take(&bytes).unwrap();
        assert_eq!((back, rest), (entry, [9].as_slice()));
        assert_eq!(back.attr.device(), 5);
        assert_eq!(EntryOut::take(&bytes[..127]), None);
    }

    #[test]
    fn device_numbers() {
        for (major, minor) in [(1, 3), (136, 1_048_575), (4095, 256)] {
            assert_eq!(decode_dev(encode_dev(major, minor)), (major, minor));
        }
    }

    #[test]
    fn validity() {
        for validity in [
            Validity::Forever,
            Validity::Nanoseconds(0),
            Validity::Nanoseconds(1_500_000_000),
        ] {
            let (seconds, nanoseconds) = validity.to_wire();
            assert_eq!(Validity::from_wire(seconds, nanoseconds), validity);
        }
    }
}
