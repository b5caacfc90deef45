//! Channels of what a process was handed from outside: made from descriptors that are open already, whose positions and
//! settings others may share.
#![allow(unsafe_code, reason = "requests about terminals")]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use husk_abi::boundary::fuse::{
    AttrOut, ChannelFileIn, ChannelFileOut, ChannelIn, ChannelOpenOut, FILE_RESIZE, FILE_STAT,
    FILE_SYNC, Validity,
};
use husk_abi::boundary::stdio::SETTINGS_BYTES;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::channels::{Channel, Channels, Kind};
use super::tree;
use crate::gate::requests::message::{Reply, Request};

/// What a write to a pipe that has room takes without waiting (`PIPE_BUF`).
const PIPE_PAGE: usize = 4096;
/// Bytes of a `struct winsize`.
const WINDOW_BYTES: usize = 8;

impl Channel {
    /// Waits for nothing: `EAGAIN` if an operation that needs `events` would, on a descriptor that itself would wait.
    ///
    /// # Errors
    /// `EAGAIN`.
    pub(super) fn check_ready(&self, events: PollFlags) -> Result<(), Errno> {
        if !self.blocks {
            return Ok(());
        }
        let mut fds = [PollFd::new(&self.fd, events)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&at_once))?;
        if fds[0].revents().is_empty() {
            return Err(Errno::AGAIN);
        }
        Ok(())
    }

    /// As much of `data` as can be written without waiting once there is room.
    pub(super) fn part<'d>(&self, data: &'d [u8]) -> &'d [u8] {
        if self.blocks {
            &data[..data.len().min(PIPE_PAGE)]
        } else {
            data
        }
    }
}

impl Channels {
    /// Makes a channel of a descriptor that was handed over.
    ///
    /// # Errors
    /// `ENFILE` if there are too many.
    pub fn adopt(&self, fd: OwnedFd) -> Result<Reply, Errno> {
        let kind = match FileType::from_raw_mode(u32::from(tree::stat(&fd)?.stx_mode)) {
            FileType::Socket => Kind::Socket,
            FileType::RegularFile => Kind::File,
            FileType::Directory => return Err(Errno::ISDIR),
            _ => Kind::Stream,
        };
        let mut flags = rustix::fs::fcntl_getfl(&fd)?;
        if kind == Kind::Socket && !flags.contains(OFlags::NONBLOCK) {
            // `accept(2)` has no flag for it.
            flags |= OFlags::NONBLOCK;
            rustix::fs::fcntl_setfl(&fd, flags)?;
        }
        let blocks = kind == Kind::Stream && !flags.contains(OFlags::NONBLOCK);
        opened(self.enter(fd, kind, blocks)?, 0, 0)
    }

    /// `accept(2)`: the next connection of a socket that listens.
    ///
    /// # Errors
    /// `EAGAIN`; `ENFILE`; what accepting gives.
    pub fn accept(&self, request: &Request) -> Result<Reply, Errno> {
        let (args, _) = ChannelIn::take(&request.body).ok_or(Errno::INVAL)?;
        let channel = self.get(args.channel)?;
        if channel.kind != Kind::Socket {
            return Err(Errno::NOTSOCK);
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::accept_with(&channel.fd, flags)?;
        let (uid, gid) = super::channels::peer(&socket);
        opened(self.enter(socket, Kind::Socket, false)?, uid, gid)
    }

    /// Whether `request` may take long.
    pub fn may_block(request: &Request) -> bool {
        ChannelFileIn::take(&request.body).is_some_and(|(args, _)| args.what == FILE_SYNC)
    }

    /// Moves a file's position, changes its size, writes it out, or tells of it.
    ///
    /// # Errors
    /// What the call gives; `EINVAL` for what is no file.
    pub fn file(&self, request: &Request) -> Result<Reply, Errno> {
        use rustix::fs::SeekFrom;
        let (args, _) = ChannelFileIn::take(&request.body).ok_or(Errno::INVAL)?;
        let channel = self.get(args.channel)?;
        if channel.kind != Kind::File {
            return Err(Errno::INVAL);
        }
        let signed = args.argument.cast_signed();
        let from = match args.what.cast_signed() {
            libc::SEEK_SET => SeekFrom::Start(args.argument),
            libc::SEEK_CUR => SeekFrom::Current(signed),
            libc::SEEK_END => SeekFrom::End(signed),
            libc::SEEK_DATA => SeekFrom::Data(args.argument),
            libc::SEEK_HOLE => SeekFrom::Hole(args.argument),
            _ => return self.file_itself(&channel, &args),
        };
        position(rustix::fs::seek(&channel.fd, from)?)
    }

    fn file_itself(&self, channel: &Channel, args: &ChannelFileIn) -> Result<Reply, Errno> {
        match args.what {
            FILE_RESIZE => rustix::fs::ftruncate(&channel.fd, args.argument)?,
            FILE_SYNC if args.argument == 1 => rustix::fs::fdatasync(&channel.fd)?,
            FILE_SYNC => rustix::fs::fsync(&channel.fd)?,
            FILE_STAT => {
                let stat = tree::stat(&channel.fd)?;
                let (attr_valid, attr_valid_nsec) = Validity::Nanoseconds(0).to_wire();
                let mut data = Vec::with_capacity(AttrOut::BYTES);
                AttrOut {
                    attr_valid,
                    attr_valid_nsec,
                    dummy: 0,
                    attr: tree::attr_of(&stat, 0),
                }
                .put(&mut data);
                return Ok(Reply::Data(data));
            }
            _ => return Err(Errno::INVAL),
        }
        position(0)
    }

    /// An `ioctl(2)` about a terminal; answered by its argument, changed.
    ///
    /// # Errors
    /// `ENOTTY` for what may not be asked, or is no terminal.
    pub fn terminal(&self, request: &Request) -> Result<Reply, Errno> {
        let (args, argument) = ChannelIn::take(&request.body).ok_or(Errno::INVAL)?;
        let channel = self.get(args.channel)?;
        let number = libc::Ioctl::from(args.flags);
        let bytes = match number {
            libc::TCGETS | libc::TCSETS => SETTINGS_BYTES,
            libc::TIOCGWINSZ => WINDOW_BYTES,
            libc::FIONREAD => 4,
            _ => return Err(Errno::NOTTY),
        };
        let mut buffer = [0; SETTINGS_BYTES];
        if number == libc::TCSETS {
            buffer.copy_from_slice(argument.get(..bytes).ok_or(Errno::INVAL)?);
        }
        // SAFETY: each of these requests reads or writes as many bytes as the table says at most.
        if unsafe { libc::ioctl(channel.fd.as_fd().as_raw_fd(), number, buffer.as_mut_ptr()) } < 0 {
            let error = std::io::Error::last_os_error();
            return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        }
        Ok(Reply::Data(buffer[..bytes].to_vec()))
    }
}

/// Answers that channel `channel` is open.
pub(super) fn opened(channel: u32, uid: u32, gid: u32) -> Result<Reply, Errno> {
    let mut out = Vec::with_capacity(ChannelOpenOut::BYTES);
    ChannelOpenOut {
        channel,
        uid,
        gid,
        padding: 0,
    }
    .put(&mut out);
    Ok(Reply::Data(out))
}

fn position(value: u64) -> Result<Reply, Errno> {
    let mut out = Vec::with_capacity(ChannelFileOut::BYTES);
    ChannelFileOut { value }.put(&mut out);
    Ok(Reply::Data(out))
}
