//! Contents of regular files: reading, writing, mapping.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use husk_abi::boundary::fuse::{
    CHUNK_BYTES, CopyIn, CountIn, FSYNC_DATA, FSYNC_START, FallocateIn, FsyncIn, LseekIn, LseekOut,
    MAP_READ, MAP_WRITE, OpenIn, ReadIn, RemovemappingOne, SetupmappingIn, WriteIn, WriteOut,
};
use rustix::fs::{FallocateFlags, FileType, SeekFrom};
use rustix::io::Errno;

use super::{Answer, Server};
use crate::gate::fuse::nodes::TreeId;
use crate::gate::fuse::tree;
use crate::gate::fuse::window::Chunk;
use crate::gate::requests::message::{Reply, Request};
use crate::vmm::start_writing;

/// `lseek(2)`'s.
const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

impl Server {
    fn contents(&self, node: u64) -> Result<(Arc<OwnedFd>, TreeId), Errno> {
        let mut nodes = self.nodes();
        let tree = nodes.tree(node)?;
        Ok((nodes.contents(node, false)?.0.fd, tree))
    }

    /// The node's contents for writing. The first time this may copy an overlayfs's file up: what is mapped of it is
    /// then mapped again.
    pub(super) fn contents_to_write(&self, node: u64) -> Result<Arc<OwnedFd>, Errno> {
        let mut nodes = self.nodes();
        let tree = nodes.tree(node)?;
        self.trees[tree].check_writable()?;
        let (contents, is_new) = nodes.contents(node, true)?;
        if is_new && self.trees[tree].overlay {
            let shown = nodes.chunks(node).cloned().unwrap_or_default();
            let mut chunks = self.chunks();
            for chunk in shown {
                chunks
                    .show_again(chunk, node, &contents.fd)
                    .map_err(errno)?;
            }
        }
        Ok(contents.fd)
    }

    fn reply_written(&self, tree: TreeId, file: &OwnedFd, bytes: usize) -> Answer {
        let mut data = Vec::with_capacity(128);
        WriteOut {
            size: u32::try_from(bytes).map_err(|_| Errno::OVERFLOW)?,
            padding: 0,
        }
        .put(&mut data);
        self.attr_out(tree, file)?.put(&mut data);
        Ok(Reply::Data(data))
    }

    /// Tells whether the file can be opened so.
    pub(super) fn open(&self, request: &Request) -> Answer {
        let (args, _) = OpenIn::take(&request.body).ok_or(Errno::INVAL)?;
        let node = request.header.nodeid;
        let write = args.flags & libc::O_ACCMODE as u32 != libc::O_RDONLY as u32;
        let tree = self.nodes().tree(node)?;
        let file = if write {
            self.contents_to_write(node)?
        } else {
            self.contents(node)?.0
        };
        self.reply_attr(tree, &file)
    }

    pub(super) fn read(&self, request: &Request) -> Answer {
        let (args, _) = ReadIn::take(&request.body).ok_or(Errno::INVAL)?;
        let (file, _) = self.contents(request.header.nodeid)?;
        let len = request.room().min(args.size as usize);
        if len == 0 {
            return Ok(Reply::Placed(0));
        }
        request
            .read_from_file(&self.memory, file.as_fd(), args.offset, len)
            .map(Reply::Placed)
            .map_err(errno)
    }

    pub(super) fn write(&self, request: &Request) -> Answer {
        let (args, _) = WriteIn::take(&request.body).ok_or(Errno::INVAL)?;
        let node = request.header.nodeid;
        let tree = self.nodes().tree(node)?;
        let file = self.contents_to_write(node)?;
        let written = if args.size == 0 {
            0
        } else {
            let appends = args.flags & libc::O_APPEND as u32 != 0;
            let offset = (!appends).then_some(args.offset);
            request
                .write_to_file(&self.memory, file.as_fd(), offset, args.size as usize)
                .map_err(errno)?
        };
        self.reply_written(tree, &file, written)
    }

    pub(super) fn fsync(&self, request: &Request) -> Answer {
        let (args, _) = FsyncIn::take(&request.body).ok_or(Errno::INVAL)?;
        let (file, _) = self.contents(request.header.nodeid)?;
        if args.fsync_flags & FSYNC_START != 0 {
            start_writing(file.as_fd()).map_err(errno)?;
        } else if args.fsync_flags & FSYNC_DATA != 0 {
            rustix::fs::fdatasync(&*file)?;
        } else {
            rustix::fs::fsync(&*file)?;
        }
        Ok(Reply::Data(Vec::new()))
    }

    pub(super) fn syncfs(&self, request: &Request) -> Answer {
        let (file, _) = self.contents(request.header.nodeid)?;
        rustix::fs::syncfs(&*file)?;
        Ok(Reply::Data(Vec::new()))
    }

    pub(super) fn fallocate(&self, request: &Request) -> Answer {
        let (args, _) = FallocateIn::take(&request.body).ok_or(Errno::INVAL)?;
        let node = request.header.nodeid;
        let flags = FallocateFlags::from_bits(args.mode).ok_or(Errno::OPNOTSUPP)?;
        let tree = self.nodes().tree(node)?;
        let file = self.contents_to_write(node)?;
        rustix::fs::fallocate(&*file, flags, args.offset, args.length)?;
        self.reply_attr(tree, &file)
    }

    pub(super) fn lseek(&self, request: &Request) -> Answer {
        let (args, _) = LseekIn::take(&request.body).ok_or(Errno::INVAL)?;
        let to = match args.whence {
            SEEK_DATA => SeekFrom::Data(args.offset),
            SEEK_HOLE => SeekFrom::Hole(args.offset),
            _ => return Err(Errno::INVAL),
        };
        // Nothing else uses the position of a regular file's descriptor.
        let (file, _) = self.contents(request.header.nodeid)?;
        if tree::kind(&tree::stat(&*file)?) != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        let offset = rustix::fs::seek(&*file, to)?;
        let mut data = Vec::with_capacity(LseekOut::BYTES);
        LseekOut { offset }.put(&mut data);
        Ok(Reply::Data(data))
    }

    pub(super) fn copy_file_range(&self, request: &Request) -> Answer {
        let (args, _) = CopyIn::take(&request.body).ok_or(Errno::INVAL)?;
        let (from, _) = self.contents(request.header.nodeid)?;
        let tree = self.nodes().tree(args.nodeid_out)?;
        let to = self.contents_to_write(args.nodeid_out)?;
        let (mut at, mut target) = (args.off_in, args.off_out);
        // Bounded, so that the answer comes in a while.
        let len = usize::try_from(args.len).unwrap_or(usize::MAX).min(1 << 30);
        let copied =
            rustix::fs::copy_file_range(&*from, Some(&mut at), &*to, Some(&mut target), len)?;
        self.reply_written(tree, &to, copied)
    }

    pub(super) fn setupmapping(&self, request: &Request) -> Answer {
        let (args, _) = SetupmappingIn::take(&request.body).ok_or(Errno::INVAL)?;
        let node = request.header.nodeid;
        let aligned = args.foffset.is_multiple_of(CHUNK_BYTES)
            && args.moffset.is_multiple_of(CHUNK_BYTES)
            && args.len == CHUNK_BYTES
            && args.foffset < 1 << 62;
        if !aligned || args.flags & MAP_READ == 0 || args.flags & !(MAP_READ | MAP_WRITE) != 0 {
            return Err(Errno::INVAL);
        }
        let writable = args.flags & MAP_WRITE != 0;
        let file = if writable {
            self.contents_to_write(node)?
        } else {
            self.contents(node)?.0
        };
        let stat = tree::stat(&*file)?;
        if tree::kind(&stat) != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        let mut nodes = self.nodes();
        let tree = nodes.tree(node)?;
        let mut chunks = self.chunks();
        let index = u32::try_from(args.moffset / CHUNK_BYTES).map_err(|_| Errno::INVAL)?;
        let chunk = Chunk {
            node,
            offset: args.foffset,
            writable,
            file: file.clone(),
            patched_from: None,
        };
        let before = chunks.show(index, chunk, stat.stx_size).map_err(errno)?;
        if let Some(before) = before
            && let Some(list) = nodes.chunks(before)
        {
            list.retain(|other| *other != index);
        }
        if let Some(list) = nodes.chunks(node) {
            list.push(index);
        }
        drop(chunks);
        drop(nodes);
        self.reply_attr(tree, &file)
    }

    pub(super) fn removemapping(&self, request: &Request) -> Answer {
        let (CountIn { count, .. }, mut rest) = CountIn::take(&request.body).ok_or(Errno::INVAL)?;
        for _ in 0..count {
            let (one, more) = RemovemappingOne::take(rest).ok_or(Errno::INVAL)?;
            rest = more;
            if !one.moffset.is_multiple_of(CHUNK_BYTES) || one.len != CHUNK_BYTES {
                return Err(Errno::INVAL);
            }
            let index = u32::try_from(one.moffset / CHUNK_BYTES).map_err(|_| Errno::INVAL)?;
            let mut nodes = self.nodes();
            let before = self.chunks().clear(index);
            if let Some(before) = before
                && let Some(list) = nodes.chunks(before)
            {
                list.retain(|other| *other != index);
            }
        }
        Ok(Reply::Data(Vec::new()))
    }

    /// An access of the guest to the window failed: puts zeros where files have lost pages under it, and says which chunks
    /// that were. Empty if there was nothing to repair.
    pub fn repair(&self) -> Vec<u32> {
        let repaired = self.chunks().repair();
        let mut nodes = self.nodes();
        for (chunk, node) in &repaired {
            if let Some(list) = nodes.chunks(*node) {
                list.retain(|other| other != chunk);
            }
        }
        repaired.into_iter().map(|(chunk, _)| chunk).collect()
    }
}
