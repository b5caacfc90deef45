//! The operations: what each message does to the host's files.
//!
//! Who may do what is the guest's business: its processes are one tenant, and its libOS checks permissions with its own
//! ids. The server keeps the guest inside its trees, keeps read-only ones unchanged, and gives what is made the owner
//! the request names.

mod attributes;
mod contents;
mod directory;
mod names;
mod xattr;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use husk_abi::boundary::fuse::{
    Attr, AttrOut, ChannelTakeIn, CountIn, EntryOut, ForgetOne, LockIn, LockOut, op,
};
use rustix::io::Errno;

use super::channels::Channels;
use super::locks::Locks;
use super::nodes::{Nodes, TreeId};
use super::tree::{self, Tree};
use super::window::Chunks;
use crate::gate::handed::Handed;
use crate::gate::requests::{
    Answer,
    message::{Reply, Request},
};
use crate::vmm::{GuestMemory, Window};

/// Serves requests; may be used by several threads at once.
#[derive(Debug)]
pub struct Server {
    trees: Arc<Vec<Tree>>,
    /// Taken before `chunks`.
    nodes: Mutex<Nodes>,
    chunks: Mutex<Chunks>,
    /// Held over a listing, which moves a directory's one position.
    listing: Mutex<()>,
    memory: GuestMemory,
    /// FIFOs and sockets that are open.
    pub channels: Channels,
    /// What was handed over and not taken yet.
    handed: Arc<Handed>,
    locks: Mutex<Locks>,
}

impl Server {
    /// Serves `trees`, with descriptors for about `max_holders` files.
    ///
    /// # Errors
    /// What looking at the trees gives.
    pub fn new(
        trees: Vec<Tree>,
        window: Window,
        memory: GuestMemory,
        max_holders: usize,
        handed: Arc<Handed>,
    ) -> Result<Self, Errno> {
        let trees = Arc::new(trees);
        Ok(Self {
            nodes: Mutex::new(Nodes::new(trees.clone(), max_holders)?),
            chunks: Mutex::new(Chunks::new(window)),
            listing: Mutex::new(()),
            trees,
            memory,
            channels: Channels::new()?,
            handed,
            locks: Mutex::default(),
        })
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chunks(&self) -> MutexGuard<'_, Chunks> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether serving `request` may take long, so that the vCPU should not wait for it.
    pub fn may_block(&self, request: &Request) -> bool {
        match request.header.opcode {
            op::FSYNC | op::SYNCFS | op::FALLOCATE | op::COPY_FILE_RANGE => true,
            op::CHANNEL_FILE => Channels::may_block(request),
            _ => self
                .nodes()
                .tree(request.header.nodeid)
                .is_ok_and(|tree| self.trees[tree].slow),
        }
    }

    /// Serves one request.
    ///
    /// # Errors
    /// The operation's own; `ESTALE` for a node that is not known or whose name leads elsewhere now, `EINVAL` for a
    /// malformed request, `ENOSYS` for an operation that is none.
    pub fn serve(&self, request: &Request) -> Answer {
        loop {
            // A signal for the vCPU's thread may end a call of the host's early (overlayfs waits for its locks so), which
            // has done nothing then.
            match self.try_serve(request) {
                Err(Errno::INTR) => {}
                other => return other,
            }
        }
    }

    fn try_serve(&self, request: &Request) -> Answer {
        match request.header.opcode {
            op::LOOKUP => self.lookup(request),
            op::GETATTR => self.getattr(request),
            op::SETATTR => self.setattr(request),
            op::READLINK => self.readlink(request),
            op::SYMLINK => self.symlink(request),
            op::MKNOD => self.mknod(request),
            op::MKDIR => self.mkdir(request),
            op::TMPFILE => self.tmpfile(request),
            op::UNLINK => self.unlink(request, false),
            op::RMDIR => self.unlink(request, true),
            op::LINK => self.link(request),
            op::RENAME2 => self.rename(request),
            op::OPEN => self.open(request),
            op::READ => self.read(request),
            op::WRITE => self.write(request),
            op::STATFS => self.statfs(request),
            op::FSYNC => self.fsync(request),
            op::SYNCFS => self.syncfs(request),
            op::GETXATTR => self.getxattr(request),
            op::SETXATTR => self.setxattr(request),
            op::LISTXATTR => self.listxattr(request),
            op::REMOVEXATTR => self.removexattr(request),
            op::FALLOCATE => self.fallocate(request),
            op::LSEEK => self.lseek(request),
            op::COPY_FILE_RANGE => self.copy_file_range(request),
            op::READDIRPLUS => self.readdirplus(request),
            op::SETUPMAPPING => self.setupmapping(request),
            op::REMOVEMAPPING => self.removemapping(request),
            op::BATCH_FORGET => self.forget(request),
            op::CHANNEL_OPEN => self.channel_open(request),
            op::CHANNEL_TAKE => self.channel_take(request),
            op::CHANNEL_ACCEPT => self.channels.accept(request),
            op::CHANNEL_FILE => self.channels.file(request),
            op::CHANNEL_TERMINAL => self.channels.terminal(request),
            op::CHANNEL_READ => self.channels.read(request),
            op::CHANNEL_WRITE => self.channels.write(request),
            op::CHANNEL_POLL => self.channels.poll(request),
            op::CHANNEL_SHUT => self.channels.shut(request),
            op::CHANNEL_CLOSE => self.channels.close(request),
            op::LOCK => self.lock(request),
            _ => Err(Errno::NOSYS),
        }
    }

    /// What a request is about, for records.
    pub fn describe(&self, request: &Request) -> Vec<u8> {
        self.nodes().describe(request.header.nodeid)
    }

    /// The request's node, held, and its tree.
    fn held(&self, node: u64) -> Result<(Arc<OwnedFd>, TreeId), Errno> {
        let mut nodes = self.nodes();
        let tree = nodes.tree(node)?;
        Ok((nodes.path(node)?, tree))
    }

    /// As [`Server::held`], to be changed.
    fn held_to_change(&self, node: u64) -> Result<(Arc<OwnedFd>, TreeId), Errno> {
        let tree = self.nodes().tree(node)?;
        self.trees[tree].check_writable()?;
        self.held(node)
    }

    /// Attributes of a file that is held.
    fn attr_out(&self, tree: TreeId, file: &OwnedFd) -> Result<AttrOut, Errno> {
        let tree = &self.trees[tree];
        let (attr_valid, attr_valid_nsec) = tree.validity.to_wire();
        Ok(AttrOut {
            attr_valid,
            attr_valid_nsec,
            dummy: 0,
            attr: tree.attr(&tree::stat(file)?, || tree::held_again(file)),
        })
    }

    fn entry_out(&self, tree: TreeId, nodeid: u64, attr: Attr) -> EntryOut {
        let (valid, valid_nsec) = self.trees[tree].validity.to_wire();
        EntryOut {
            nodeid,
            generation: 0,
            entry_valid: valid,
            attr_valid: valid,
            entry_valid_nsec: valid_nsec,
            attr_valid_nsec: valid_nsec,
            attr,
        }
    }

    /// The answer of one file's attributes.
    fn reply_attr(&self, tree: TreeId, file: &OwnedFd) -> Answer {
        let mut data = Vec::with_capacity(AttrOut::BYTES);
        self.attr_out(tree, file)?.put(&mut data);
        Ok(Reply::Data(data))
    }

    fn channel_open(&self, request: &Request) -> Answer {
        let (file, _) = self.held(request.header.nodeid)?;
        let kind = tree::kind(&tree::stat(&*file)?);
        self.channels.open(request, &file, kind)
    }

    fn channel_take(&self, request: &Request) -> Answer {
        let (args, _) = ChannelTakeIn::take(&request.body).ok_or(Errno::INVAL)?;
        let taken = self.handed.take(args.session, args.index)?;
        self.channels.adopt(taken)
    }

    fn lock(&self, request: &Request) -> Answer {
        let (args, _) = LockIn::take(&request.body).ok_or(Errno::INVAL)?;
        let node = request.header.nodeid;
        let (file, tree) = self.held(node)?;
        let writable = !self.trees[tree].read_only;
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        let found = locks.set(node, &args, || {
            let stat = tree::stat(&*file)?;
            match tree::open_contents(&*file, &stat, writable) {
                // A file nobody may write, or one that is being executed.
                Err(Errno::ROFS | Errno::TXTBSY | Errno::ACCESS | Errno::PERM) if writable => {
                    tree::open_contents(&*file, &stat, false)
                }
                other => other,
            }
        })?;
        let mut data = Vec::with_capacity(LockOut::BYTES);
        if let Some(found) = found {
            found.put(&mut data);
        }
        Ok(Reply::Data(data))
    }

    fn forget(&self, request: &Request) -> Answer {
        let (CountIn { count, .. }, mut rest) = CountIn::take(&request.body).ok_or(Errno::INVAL)?;
        for _ in 0..count {
            let (one, more) = ForgetOne::take(rest).ok_or(Errno::INVAL)?;
            rest = more;
            let forgotten = self.nodes().forget(one.nodeid, one.nlookup);
            if let Some(forgotten) = forgotten {
                let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
                locks.forget(forgotten.node);
                drop(locks);
                let mut chunks = self.chunks();
                for chunk in forgotten.chunks {
                    chunks.clear_if(chunk, forgotten.node);
                }
            }
        }
        Ok(Reply::Data(Vec::new()))
    }
}
