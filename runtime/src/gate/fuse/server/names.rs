//! Operations on names: looking up, making, removing, moving.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use husk_abi::boundary::fuse::{Attr, EntryOut, LinkIn, MkdirIn, MknodIn, Rename2In, decode_dev};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Statx, Uid};
use rustix::io::Errno;

use super::{Answer, Server};
use crate::gate::fuse::nodes::TreeId;
use crate::gate::fuse::tree;
use crate::gate::requests::message::{self, Reply, Request};

/// What a request's new file is to look like.
struct Looks {
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Looks {
    fn of(request: &Request, mode: u32) -> Self {
        Self {
            mode: mode & 0o7777,
            uid: request.header.uid,
            gid: request.header.gid,
        }
    }

    /// The mode to make a file with: what only the owner may have is given once it is the owner's.
    fn first_mode(&self) -> Mode {
        Mode::from_raw_mode(self.mode & 0o777)
    }

    /// Gives the new file, held by `file`, its owner and mode; links have no mode. Gives its attributes.
    fn apply(&self, file: impl AsFd + Copy, is_link: bool) -> Result<Statx, Errno> {
        let stat = tree::stat(file)?;
        let mut changed = false;
        if (stat.stx_uid, stat.stx_gid) != (self.uid, self.gid) {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            rustix::fs::chownat(file, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
            changed = true;
        }
        if !is_link && u32::from(stat.stx_mode) & 0o7777 != self.mode {
            set_mode(file, self.mode)?;
            changed = true;
        }
        if changed { tree::stat(file) } else { Ok(stat) }
    }
}

/// `chmod(2)` of a file that is held.
pub(super) fn set_mode(file: impl AsFd, mode: u32) -> Result<(), Errno> {
    let path = tree::magic_path(file);
    rustix::fs::chmodat(
        CWD,
        &*path,
        Mode::from_raw_mode(mode & 0o7777),
        AtFlags::empty(),
    )
}

/// What was made: held, and its contents if they are open already.
struct Made {
    path: OwnedFd,
    contents: Option<OwnedFd>,
}

impl Server {
    pub(super) fn lookup(&self, request: &Request) -> Answer {
        let parent = request.header.nodeid;
        let (name, _) = message::name(&request.body)?;
        let (directory, tree) = self.held(parent)?;
        let stat = tree::stat_at(&*directory, name)?;
        let key = self.trees[tree].key(&stat);
        let node = self.nodes().enter(parent, name, key, None)?;
        let attr = self.trees[tree].attr(&stat, || tree::open_path(&*directory, name));
        let mut data = Vec::with_capacity(EntryOut::BYTES);
        self.entry_out(tree, node, attr).put(&mut data);
        Ok(Reply::Data(data))
    }

    /// Makes `name`, gives it its looks and tells the guest of it and of its directory. What cannot be completed is
    /// removed again.
    fn make(
        &self,
        request: &Request,
        name: &CStr,
        looks: &Looks,
        kind: FileType,
        make: impl FnOnce(&OwnedFd) -> Result<Option<OwnedFd>, Errno>,
    ) -> Answer {
        let parent = request.header.nodeid;
        let (directory, tree) = self.held_to_change(parent)?;
        let contents = make(&directory)?;
        let finish = || -> Result<(Made, Statx), Errno> {
            // Of a file that is open already not by its name, which somebody on the host may have taken away.
            let path = match &contents {
                Some(contents) => tree::held_again(contents)?,
                None => tree::open_path(&*directory, name)?,
            };
            let stat = looks.apply(&path, kind == FileType::Symlink)?;
            if tree::kind(&stat) != kind {
                // Somebody on the host was there in between.
                return Err(Errno::STALE);
            }
            Ok((Made { path, contents }, stat))
        };
        let (made, stat) = finish().inspect_err(|_| {
            let flags = if kind == FileType::Directory {
                AtFlags::REMOVEDIR
            } else {
                AtFlags::empty()
            };
            let _ = rustix::fs::unlinkat(&*directory, name, flags);
        })?;
        let key = self.trees[tree].key(&stat);
        let node = {
            let mut nodes = self.nodes();
            let node = nodes.enter(parent, name, key, Some(made.path))?;
            if let Some(contents) = made.contents {
                nodes.set_contents(node, contents);
            }
            node
        };
        let attr = self.trees[tree].attr(&stat, || tree::open_path(&*directory, name));
        self.reply_entry(tree, node, attr, &directory)
    }

    /// The answer of a new name: the entry and the directory's attributes.
    fn reply_entry(&self, tree: TreeId, node: u64, attr: Attr, directory: &OwnedFd) -> Answer {
        let mut data = Vec::with_capacity(256);
        self.entry_out(tree, node, attr).put(&mut data);
        self.attr_out(tree, directory)?.put(&mut data);
        Ok(Reply::Data(data))
    }

    pub(super) fn mknod(&self, request: &Request) -> Answer {
        let (args, rest) = MknodIn::take(&request.body).ok_or(Errno::INVAL)?;
        let (name, _) = message::name(rest)?;
        let looks = Looks::of(request, args.mode);
        let kind = FileType::from_raw_mode(args.mode);
        self.make(request, name, &looks, kind, |directory| {
            if kind == FileType::RegularFile {
                let flags = OFlags::RDWR
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::NOATIME
                    | OFlags::CLOEXEC;
                return rustix::fs::openat(directory, name, flags, looks.first_mode()).map(Some);
            }
            match kind {
                FileType::Fifo
                | FileType::Socket
                | FileType::CharacterDevice
                | FileType::BlockDevice => {}
                _ => return Err(Errno::INVAL),
            }
            let (major, minor) = decode_dev(args.rdev);
            let device = rustix::fs::makedev(major, minor);
            rustix::fs::mknodat(directory, name, kind, looks.first_mode(), device)?;
            Ok(None)
        })
    }

    pub(super) fn mkdir(&self, request: &Request) -> Answer {
        let (args, rest) = MkdirIn::take(&request.body).ok_or(Errno::INVAL)?;
        let (name, _) = message::name(rest)?;
        let looks = Looks::of(request, args.mode);
        self.make(request, name, &looks, FileType::Directory, |directory| {
            rustix::fs::mkdirat(directory, name, looks.first_mode())?;
            Ok(None)
        })
    }

    pub(super) fn symlink(&self, request: &Request) -> Answer {
        let (name, rest) = message::name(&request.body)?;
        let (target, _) = message::string(rest)?;
        let looks = Looks::of(request, 0);
        self.make(request, name, &looks, FileType::Symlink, |directory| {
            rustix::fs::symlinkat(target, directory, name)?;
            Ok(None)
        })
    }

    pub(super) fn tmpfile(&self, request: &Request) -> Answer {
        let (args, _) = MknodIn::take(&request.body).ok_or(Errno::INVAL)?;
        let looks = Looks::of(request, args.mode);
        let parent = request.header.nodeid;
        let (directory, tree) = self.held_to_change(parent)?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let contents = rustix::fs::openat(&*directory, c".", flags, looks.first_mode())?;
        let stat = looks.apply(&contents, false)?;
        let path = tree::held_again(&contents)?;
        let key = self.trees[tree].key(&stat);
        let attr = self.trees[tree].attr(&stat, || tree::held_again(&contents));
        let node = self.nodes().enter_unnamed(parent, key, path, contents)?;
        self.reply_entry(tree, node, attr, &directory)
    }

    pub(super) fn unlink(&self, request: &Request, is_directory: bool) -> Answer {
        let parent = request.header.nodeid;
        let (name, _) = message::name(&request.body)?;
        let (directory, tree) = self.held_to_change(parent)?;
        let stat = tree::stat_at(&*directory, name)?;
        let key = self.trees[tree].key(&stat);
        if u64::from(stat.stx_nlink) > 0 {
            self.nodes().will_lose(parent, name, key)?;
        }
        let flags = if is_directory {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        rustix::fs::unlinkat(&*directory, name, flags)?;
        self.reply_attr(tree, &directory)
    }

    pub(super) fn link(&self, request: &Request) -> Answer {
        let (args, rest) = LinkIn::take(&request.body).ok_or(Errno::INVAL)?;
        let (name, _) = message::name(rest)?;
        let parent = request.header.nodeid;
        let (directory, tree) = self.held_to_change(parent)?;
        let (file, of) = self.held(args.oldnodeid)?;
        if of != tree {
            return Err(Errno::XDEV);
        }
        // By way of /proc: linking an O_PATH descriptor itself takes a privilege the VMM does not need otherwise.
        let magic = tree::magic_path(&*file);
        rustix::fs::linkat(CWD, &*magic, &*directory, name, AtFlags::SYMLINK_FOLLOW)?;
        let stat = tree::stat(&*file)?;
        let key = self.trees[tree].key(&stat);
        let attr = self.trees[tree].attr(&stat, || tree::held_again(&*file));
        let node = self.nodes().enter(parent, name, key, None)?;
        self.reply_entry(tree, node, attr, &directory)
    }

    pub(super) fn rename(&self, request: &Request) -> Answer {
        let (args, rest) = Rename2In::take(&request.body).ok_or(Errno::INVAL)?;
        let (from, rest) = message::name(rest)?;
        let (to, _) = message::name(rest)?;
        let known = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE;
        let flags = RenameFlags::from_bits(args.flags)
            .filter(|flags| known.contains(*flags))
            .ok_or(Errno::INVAL)?;
        let (source, target) = (request.header.nodeid, args.newdir);
        let (from_directory, tree) = self.held_to_change(source)?;
        let (to_directory, of) = self.held_to_change(target)?;
        if of != tree {
            return Err(Errno::XDEV);
        }
        let moved = tree::stat_at(&*from_directory, from)?;
        let replaced = tree::stat_at(&*to_directory, to);
        if let Ok(replaced) = &replaced {
            let key = self.trees[tree].key(replaced);
            self.nodes().will_lose(target, to, key)?;
        }
        rustix::fs::renameat_with(&*from_directory, from, &*to_directory, to, flags)?;
        {
            let mut nodes = self.nodes();
            nodes.moved(target, to, self.trees[tree].key(&moved));
            if flags.contains(RenameFlags::EXCHANGE)
                && let Ok(replaced) = &replaced
            {
                nodes.moved(source, from, self.trees[tree].key(replaced));
            }
        }
        let mut data = Vec::with_capacity(256);
        self.attr_out(tree, &from_directory)?.put(&mut data);
        self.attr_out(tree, &to_directory)?.put(&mut data);
        Ok(Reply::Data(data))
    }
}
