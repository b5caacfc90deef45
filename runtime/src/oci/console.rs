//! The socket over which libcontainer sends the container's terminal.
#![allow(unsafe_code, reason = "a descriptor that came in a message")]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Sends a terminal's master end to the socket at `path`, as runc does.
///
/// # Errors
/// What connecting and sending give.
pub fn send(path: &Path, master: BorrowedFd<'_>) -> io::Result<()> {
    let socket = super::socket::connect(path)?;
    let numbers = [master.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&numbers)];
    let name = [IoSlice::new(b"/dev/ptmx")];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &name,
        &rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Waits for a terminal.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`, which may be longer than a socket's address may.
    ///
    /// # Errors
    /// What making the socket gives.
    pub fn bind(path: &Path) -> io::Result<Self> {
        Ok(Self {
            listener: super::socket::bind(path)?,
            path: path.to_owned(),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The terminal's master end, which was sent already.
    ///
    /// # Errors
    /// When none came.
    pub fn receive(self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept()?;
        let mut bytes = [0; 4096];
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        let mut space = nix::cmsg_space!(std::os::fd::RawFd);
        let message = recvmsg::<()>(
            stream.as_raw_fd(),
            &mut buffers,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = control
                && let Some(descriptor) = descriptors.first()
            {
                // SAFETY: the kernel has just made it for this process.
                return Ok(unsafe { OwnedFd::from_raw_fd(*descriptor) });
            }
        }
        Err(io::Error::other("no descriptor came"))
    }
}
