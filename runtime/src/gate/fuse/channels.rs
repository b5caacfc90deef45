//! FIFOs and sockets of the host's trees that the guest has open.
//!
//! No operation waits. A thread sleeps for what was not ready when it was asked for, and tells the guest once it is.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use husk_abi::boundary::fuse::{
    CHANNEL_AT, CHANNEL_PARTNER, ChannelIn, ChannelOpenIn, ChannelPollOut, MAX_CHANNEL_DATA,
    MAX_CHANNELS,
};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
};

use super::{handed, tree};
use crate::gate::requests::message::{Reply, Request};

/// `ChannelIn::flags` of `CHANNEL_READ`: what is read stays.
const PEEK: u32 = 1;
/// What is asked of a channel.
const EVENTS: PollFlags = PollFlags::IN
    .union(PollFlags::OUT)
    .union(PollFlags::PRI)
    .union(PollFlags::RDHUP);

/// What a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes without a position.
    Stream,
    /// A socket.
    Socket,
    /// A file with a position. It is always ready.
    File,
}

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) fd: OwnedFd,
    pub(super) kind: Kind,
    /// Its operations would wait: whether they do is looked at before.
    pub(super) blocks: bool,
    /// Whether it can become ready; else it always is.
    is_watched: bool,
}

/// All channels of a guest.
#[derive(Debug)]
pub struct Channels {
    epoll: OwnedFd,
    table: Mutex<Vec<Option<Arc<Channel>>>>,
}

impl Channels {
    /// None yet.
    ///
    /// # Errors
    /// What `epoll_create(2)` gives.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            table: Mutex::new(Vec::new()),
        })
    }

    fn table(&self) -> MutexGuard<'_, Vec<Option<Arc<Channel>>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, channel: u32) -> Result<Arc<Channel>, Errno> {
        let found = self.table().get(channel as usize).cloned().flatten();
        found.ok_or(Errno::BADF)
    }

    /// Opens the FIFO, or connects to the socket, that `held` holds; `read_only` trees have FIFOs that cannot be written.
    ///
    /// # Errors
    /// What opening or connecting gives; `ENXIO` for other files; `ENFILE` if there are too many.
    pub fn open(&self, request: &Request, held: &OwnedFd, kind: FileType) -> Result<Reply, Errno> {
        let (args, _) = ChannelOpenIn::take(&request.body).ok_or(Errno::INVAL)?;
        let (fd, uid, gid) = match (kind, args.kind) {
            (FileType::Fifo, 0) => (open_fifo(held, args.flags)?, 0, 0),
            (FileType::Socket, 1..) => connect(held, args.kind)?,
            _ => return Err(Errno::NXIO),
        };
        let kind = if kind == FileType::Socket {
            Kind::Socket
        } else {
            Kind::Stream
        };
        handed::opened(self.enter(fd, kind, false)?, uid, gid)
    }

    /// Gives `fd` a number.
    ///
    /// # Errors
    /// `ENFILE` if there are too many.
    pub(super) fn enter(&self, fd: OwnedFd, kind: Kind, blocks: bool) -> Result<u32, Errno> {
        let mut table = self.table();
        let free = table.iter().position(Option::is_none);
        let index = match free {
            Some(index) => index,
            None if table.len() >= MAX_CHANNELS => return Err(Errno::NFILE),
            None => {
                table.push(None);
                table.len() - 1
            }
        };
        // Nothing is waited for until it is asked for.
        let data = epoll::EventData::new_u64(index as u64);
        let is_watched = match epoll::add(&self.epoll, &fd, data, epoll::EventFlags::ONESHOT) {
            Ok(()) => true,
            // Files, and devices that never let one wait.
            Err(Errno::PERM) => false,
            Err(errno) => return Err(errno),
        };
        table[index] = Some(Arc::new(Channel {
            fd,
            kind,
            blocks,
            is_watched,
        }));
        u32::try_from(index).map_err(|_| Errno::NFILE)
    }

    /// Reads what there is.
    ///
    /// # Errors
    /// `EAGAIN`; what reading gives.
    pub fn read(&self, request: &Request) -> Result<Reply, Errno> {
        let (args, rest) = ChannelIn::take(&request.body).ok_or(Errno::INVAL)?;
        let channel = self.get(args.channel)?;
        let len = request.room().min(args.size as usize).min(MAX_CHANNEL_DATA);
        let mut data = vec![0; len];
        let got = match channel.kind {
            Kind::Socket => {
                let mut flags = RecvFlags::DONTWAIT;
                flags.set(RecvFlags::PEEK, args.flags & PEEK != 0);
                rustix::net::recv(&channel.fd, data.as_mut_slice(), flags)?.0
            }
            Kind::File if args.flags & CHANNEL_AT != 0 => {
                let (offset, _) = offset(rest)?;
                rustix::io::pread(&channel.fd, data.as_mut_slice(), offset)?
            }
            Kind::File | Kind::Stream => {
                channel.check_ready(PollFlags::IN)?;
                rustix::io::read(&channel.fd, data.as_mut_slice())?
            }
        };
        data.truncate(got);
        Ok(Reply::Data(data))
    }

    /// Writes what there is room for; answers how much that was.
    ///
    /// # Errors
    /// `EAGAIN`; what writing gives.
    pub fn write(&self, request: &Request) -> Result<Reply, Errno> {
        let (args, data) = ChannelIn::take(&request.body).ok_or(Errno::INVAL)?;
        let channel = self.get(args.channel)?;
        if data.len() > MAX_CHANNEL_DATA + OFFSET_BYTES {
            return Err(Errno::MSGSIZE);
        }
        let written = match channel.kind {
            Kind::Socket => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                rustix::net::send(&channel.fd, data, flags)?
            }
            Kind::File if args.flags & CHANNEL_AT != 0 => {
                let (offset, data) = offset(data)?;
                rustix::io::pwrite(&channel.fd, data, offset)?
            }
            Kind::File | Kind::Stream => {
                channel.check_ready(PollFlags::OUT)?;
                rustix::io::write(&channel.fd, channel.part(data))?
            }
        };
        let written = u32::try_from(written).map_err(|_| Errno::OVERFLOW)?;
        Ok(Reply::Data(written.to_le_bytes().to_vec()))
    }

    /// What would not wait now; the rest is announced when it would not either.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn poll(&self, request: &Request) -> Result<Reply, Errno> {
        let (args, _) = ChannelIn::take(&request.body).ok_or(Errno::INVAL)?;
        let channel = self.get(args.channel)?;
        if !channel.is_watched {
            let mut out = Vec::with_capacity(ChannelPollOut::BYTES);
            let events = (PollFlags::IN | PollFlags::OUT).bits().into();
            ChannelPollOut { events, partner: 0 }.put(&mut out);
            return Ok(Reply::Data(out));
        }
        let mut fds = [PollFd::new(&channel.fd, EVENTS)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&at_once))?;
        let ready = fds[0].revents();
        // The end is told again and again: nobody waits for more.
        if !ready.intersects(PollFlags::HUP | PollFlags::ERR) {
            let missing = (EVENTS - ready).bits();
            let wanted =
                epoll::EventFlags::from_bits_truncate(missing.into()) | epoll::EventFlags::ONESHOT;
            let data = epoll::EventData::new_u64(args.channel.into());
            epoll::modify(&self.epoll, &channel.fd, data, wanted)?;
        }
        let asks_partner = args.flags & CHANNEL_PARTNER != 0 && channel.kind == Kind::Stream;
        let mut out = Vec::with_capacity(ChannelPollOut::BYTES);
        ChannelPollOut {
            events: ready.bits().into(),
            partner: u32::from(asks_partner && has_writer(&channel.fd)?),
        }
        .put(&mut out);
        Ok(Reply::Data(out))
    }

    /// `shutdown(2)`.
    ///
    /// # Errors
    /// `ENOTSOCK`, `EINVAL`.
    pub fn shut(&self, request: &Request) -> Result<Reply, Errno> {
        let (args, _) = ChannelIn::take(&request.body).ok_or(Errno::INVAL)?;
        let channel = self.get(args.channel)?;
        let how = match args.flags {
            0 => Shutdown::Read,
            1 => Shutdown::Write,
            2 => Shutdown::Both,
            _ => return Err(Errno::INVAL),
        };
        rustix::net::shutdown(&channel.fd, how)?;
        Ok(Reply::Data(Vec::new()))
    }

    /// The guest has closed it.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn close(&self, request: &Request) -> Result<Reply, Errno> {
        let (args, _) = ChannelIn::take(&request.body).ok_or(Errno::INVAL)?;
        let mut table = self.table();
        let slot = table.get_mut(args.channel as usize);
        let channel = slot.and_then(Option::take).ok_or(Errno::BADF)?;
        // Another thread may still use the descriptor: the interest must not outlive the number.
        if channel.is_watched {
            let _ = epoll::delete(&self.epoll, &channel.fd);
        }
        Ok(Reply::Data(Vec::new()))
    }

    /// Sleeps until channels become ready; gives their bits.
    ///
    /// # Errors
    /// What `epoll_wait(2)` gives.
    pub fn wait(&self) -> Result<[u64; MAX_CHANNELS / 64], Errno> {
        let mut events = Vec::with_capacity(64);
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            None,
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let mut bits = [0; MAX_CHANNELS / 64];
        for event in &events {
            let channel = event.data.u64() as usize % MAX_CHANNELS;
            bits[channel / 64] |= 1 << (channel % 64);
        }
        Ok(bits)
    }
}

/// Opens a FIFO that is held, never waiting for a partner.
fn open_fifo(held: &OwnedFd, flags: u32) -> Result<OwnedFd, Errno> {
    let access = OFlags::from_bits_truncate(flags & libc::O_ACCMODE as u32);
    let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::openat(CWD, &*tree::magic_path(held), flags, Mode::empty())
}

/// Connects to a socket that is held; also gives who listens there.
fn connect(held: &OwnedFd, kind: u32) -> Result<(OwnedFd, u32, u32), Errno> {
    let kind = match i32::try_from(kind) {
        Ok(libc::SOCK_STREAM) => SocketType::STREAM,
        Ok(libc::SOCK_DGRAM) => SocketType::DGRAM,
        Ok(libc::SOCK_SEQPACKET) => SocketType::SEQPACKET,
        _ => return Err(Errno::INVAL),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
    let address = SocketAddrUnix::new(&*tree::magic_path(held))?;
    rustix::net::connect(&socket, &address)?;
    let (uid, gid) = peer(&socket);
    Ok((socket, uid, gid))
}

/// User and group of a socket's peer.
pub(super) fn peer(socket: &OwnedFd) -> (u32, u32) {
    // Not rustix's: who is outside has no id in the VMM's pid namespace, for which it has no value.
    match getsockopt(socket, PeerCredentials) {
        Ok(peer) => (peer.uid(), peer.gid()),
        Err(_) => (u32::MAX, u32::MAX),
    }
}

/// Bytes of an offset before data.
const OFFSET_BYTES: usize = 8;

/// The offset that `bytes` begin with.
fn offset(bytes: &[u8]) -> Result<(u64, &[u8]), Errno> {
    let (offset, rest) = bytes.split_first_chunk().ok_or(Errno::INVAL)?;
    Ok((u64::from_le_bytes(*offset), rest))
}

/// Whether somebody has a FIFO open for writing, or had and left something. Nothing is taken out of it.
fn has_writer(fifo: impl AsFd) -> Result<bool, Errno> {
    let (_keep, scratch) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match rustix::pipe::tee(fifo, &scratch, 1, rustix::pipe::SpliceFlags::NONBLOCK) {
        Ok(0) => Ok(false),
        Ok(_) | Err(Errno::AGAIN) => Ok(true),
        // Opened for writing only, where nobody asks.
        Err(Errno::BADF | Errno::INVAL) => Ok(false),
        Err(errno) => Err(errno),
    }
}
