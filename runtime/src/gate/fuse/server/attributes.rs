//! Attributes of files and file systems.

use husk_abi::boundary::fuse::{SetattrIn, StatfsOut, fattr};
use rustix::fs::{AtFlags, FileType, Gid, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use super::names::set_mode;
use super::{Answer, Server};
use crate::gate::fuse::tree;
use crate::gate::requests::message::{Reply, Request};

impl Server {
    pub(super) fn getattr(&self, request: &Request) -> Answer {
        let (file, tree) = self.held(request.header.nodeid)?;
        self.reply_attr(tree, &file)
    }

    pub(super) fn readlink(&self, request: &Request) -> Answer {
        let (file, _) = self.held(request.header.nodeid)?;
        let target = rustix::fs::readlinkat(&*file, c"", Vec::new())?;
        Ok(Reply::Data(target.into_bytes()))
    }

    pub(super) fn setattr(&self, request: &Request) -> Answer {
        let (args, _) = SetattrIn::take(&request.body).ok_or(Errno::INVAL)?;
        let node = request.header.nodeid;
        let (file, tree) = self.held_to_change(node)?;
        let asked = |bit: u32| args.valid & bit != 0;
        if asked(fattr::SIZE) {
            let contents = self.contents_to_write(node)?;
            rustix::fs::ftruncate(&*contents, args.size)?;
        }
        if asked(fattr::UID | fattr::GID) {
            let uid = asked(fattr::UID).then(|| Uid::from_raw(args.uid));
            let gid = asked(fattr::GID).then(|| Gid::from_raw(args.gid));
            if args.uid == u32::MAX && uid.is_some() || args.gid == u32::MAX && gid.is_some() {
                return Err(Errno::INVAL);
            }
            rustix::fs::chownat(&*file, c"", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        // After the owner, whose change takes set-id bits away.
        if asked(fattr::MODE) {
            if tree::kind(&tree::stat(&*file)?) == FileType::Symlink {
                return Err(Errno::OPNOTSUPP);
            }
            set_mode(&*file, args.mode)?;
        }
        if asked(fattr::ATIME | fattr::MTIME) {
            let time = |bit, seconds, nanoseconds: u32| Timespec {
                tv_sec: seconds,
                tv_nsec: if asked(bit) {
                    i64::from(nanoseconds.min(999_999_999))
                } else {
                    UTIME_OMIT
                },
            };
            let times = Timestamps {
                last_access: time(fattr::ATIME, args.atime, args.atimensec),
                last_modification: time(fattr::MTIME, args.mtime, args.mtimensec),
            };
            rustix::fs::utimensat(&*file, c"", &times, AtFlags::EMPTY_PATH)?;
        }
        self.reply_attr(tree, &file)
    }

    pub(super) fn statfs(&self, request: &Request) -> Answer {
        let (file, _) = self.held(request.header.nodeid)?;
        let stat = rustix::fs::fstatfs(&*file)?;
        let small = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
        let mut data = Vec::with_capacity(StatfsOut::BYTES);
        #[allow(clippy::useless_conversion, reason = "types differ between targets")]
        StatfsOut {
            blocks: stat.f_blocks,
            bfree: stat.f_bfree,
            bavail: stat.f_bavail,
            files: stat.f_files,
            ffree: stat.f_ffree,
            bsize: small(stat.f_bsize),
            namelen: small(stat.f_namelen),
            frsize: small(stat.f_frsize),
            padding: 0,
            magic: small(stat.f_type),
            ..StatfsOut::default()
        }
        .put(&mut data);
        Ok(Reply::Data(data))
    }
}
