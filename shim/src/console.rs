//! The terminal that husk makes and sends over a socket.

use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::{Winsize, tcsetwinsize};
use tempfile::TempDir;

/// The terminal was sent before the command ended: it is there, or never will be.
const PATIENCE: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// Where a terminal is waited for.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
    _directory: TempDir,
}

impl ConsoleSocket {
    /// Listens in a directory of its own: a bundle's path may be too long for a socket's address.
    ///
    /// # Errors
    /// What making it gives.
    pub fn new() -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("husk-tty-").tempdir()?;
        let path = directory.path().join("s");
        Ok(Self {
            listener: UnixListener::bind(&path)?,
            path,
            _directory: directory,
        })
    }

    /// What `--console-socket` names.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The terminal's master end.
    ///
    /// # Errors
    /// When none comes.
    pub fn receive(&self) -> io::Result<OwnedFd> {
        let none = || io::Error::new(io::ErrorKind::TimedOut, "no terminal was sent");
        let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
        if poll(&mut fds, Some(&PATIENCE))? == 0 {
            return Err(none());
        }
        let (stream, _) = self.listener.accept()?;
        let mut name = [0; 4096];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        recvmsg(
            &stream,
            &mut [IoSliceMut::new(&mut name)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
                && let Some(master) = descriptors.next()
            {
                return Ok(master);
            }
        }
        Err(none())
    }
}

/// Gives a terminal its size, in characters.
///
/// # Errors
/// What the ioctl gives.
pub fn resize(master: &OwnedFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(master, size)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use rustix::pty::{OpenptFlags, openpt};
    use std::io::IoSlice;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_terminal_comes_and_is_resized() {
        let socket = ConsoleSocket::new().unwrap();
        let terminal = openpt(OpenptFlags::RDWR).unwrap();
        let stream = UnixStream::connect(socket.path()).unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [terminal.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let name = [IoSlice::new(b"/dev/ptmx")];
        sendmsg(&stream, &name, &mut control, SendFlags::empty()).unwrap();
        let master = socket.receive().unwrap();
        resize(&master, 132, 43).unwrap();
        let size = rustix::termios::tcgetwinsize(&terminal).unwrap();
        assert_eq!((size.ws_col, size.ws_row), (132, 43));
    }

    #[test]
    fn a_socket_closed_without_terminal_is_an_error() {
        let socket = ConsoleSocket::new().unwrap();
        drop(UnixStream::connect(socket.path()).unwrap());
        assert!(socket.receive().is_err());
        let directory = socket.path().parent().unwrap().to_owned();
        drop(socket);
        assert!(!directory.exists());
    }
}
