//! The side of commands that ask something of a running container.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::wire::{Answer, Ask, Inbox, send};
use crate::oci::socket;

/// A connection to a container's VMM.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    inbox: Inbox,
}

impl Client {
    /// Connects to the VMM of the container whose directory is `dir`.
    ///
    /// # Errors
    /// What connecting gives: nobody may listen any more.
    pub fn connect(dir: &Path) -> io::Result<Self> {
        Ok(Self {
            socket: socket::connect(&dir.join(socket::CONTROL))?,
            inbox: Inbox::default(),
        })
    }

    /// Asks; `descriptors` go along.
    ///
    /// # Errors
    /// What sending gives.
    pub fn ask(&self, ask: &Ask, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(&self.socket, ask, descriptors)
    }

    /// Waits for the next answer; `None` when the VMM has ended.
    ///
    /// # Errors
    /// What receiving gives; what is no answer.
    pub fn answer(&mut self) -> io::Result<Option<Answer>> {
        loop {
            if let Some(answer) = self.received()? {
                return Ok(Some(answer));
            }
            if !self.receive()? {
                return Ok(None);
            }
        }
    }

    /// Takes what has come, waiting for something; false when the VMM has ended.
    ///
    /// # Errors
    /// What receiving gives.
    pub fn receive(&mut self) -> io::Result<bool> {
        match self.inbox.receive(&self.socket) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(false),
            received => received,
        }
    }

    /// The next answer, if it has come with the one before.
    ///
    /// # Errors
    /// What is no answer.
    pub fn received(&mut self) -> io::Result<Option<Answer>> {
        Ok(self.inbox.take()?.map(|(answer, _)| answer))
    }

    /// Waits until the VMM tells something, or has ended, at most for `left`; whether it has. For when nothing was
    /// [`Client::received`].
    ///
    /// # Errors
    /// What poll(2) gives.
    pub fn is_told(&self, left: Duration) -> io::Result<bool> {
        // Rounded up: a timeout of 0 would be a busy wait.
        let left = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(left)) {
            Ok(count) => Ok(count > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What to wait for, if nothing was [`Client::received`].
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
