//! Messages on the control socket: a header, then a value in postcard; descriptors come with the first byte.
#![allow(unsafe_code, reason = "descriptors that came in a message")]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use husk_abi::boundary::config::{MAX_HANDED, ProcessConfig, WindowSize};
use husk_abi::boundary::control::{Limits, MAX_MESSAGE_BYTES, Obstacle, ProcessInfo, Usage};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of the messages: a command may be newer than the VMM it talks to.
pub const VERSION: u16 = 2;
/// Starts a message.
const MAGIC: [u8; 2] = *b"hc";
/// Bytes of a header: magic, version, length of the value.
const HEADER_BYTES: usize = 8;
/// Descriptors with one message, at most.
const MAX_DESCRIPTORS: usize = 3 + MAX_HANDED;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Run this process; a descriptor comes with it for each of its streams that is not closed, and for each that it is handed.
    Exec(ProcessConfig),
    /// Send this signal to the process of this connection.
    Signal(i32),
    /// Send this signal to the foreground processes of its terminal.
    TerminalSignal(i32),
    /// Its terminal has another size.
    Resize(WindowSize),
    /// List all processes.
    List,
    /// Change limits.
    Update(Limits),
    /// Send this signal to the container's init, or to all its processes.
    Kill(i32, bool),
    /// Tell what is used.
    Usage,
    /// Tell of each process that is killed because memory runs out, from now on.
    Watch,
    /// Write what the container has written to files and still waits, and let it stand still from then on, while this
    /// connection lasts.
    Settle,
}

/// What the VMM answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The process, with this id in the container, is about to run its program.
    Started(u32),
    /// It cannot, with this errno, because of that.
    Failed(i32, Obstacle),
    /// It has ended with this wait status (`wait(2)`), and its output is written.
    Ended(i32),
    /// All processes.
    Processes(Vec<ProcessInfo>),
    /// Limits were changed, or this errno says why not.
    Updated(Result<(), i32>),
    /// What is used.
    Usage(Usage),
    /// A process was killed because memory ran out; so many were until now.
    OutOfMemory(u64),
    /// What was asked cannot be done.
    Refused(String),
    /// The signal was sent.
    Killed,
    /// What waited is written, and the container stands still.
    Settled,
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Sends a message with `descriptors`. On a socket that does not block, one whose buffer has no room fails.
///
/// # Errors
/// What `sendmsg(2)` gives; `InvalidData` if the message is too long.
pub fn send<T: Serialize>(
    socket: &UnixStream,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let value = postcard::to_allocvec(message).map_err(io::Error::other)?;
    let len = u32::try_from(value.len()).map_err(|_| invalid("the message is too long"))?;
    if value.len() > MAX_MESSAGE_BYTES {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&value);
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let mut rights = vec![ControlMessage::ScmRights(&numbers)];
    if numbers.is_empty() {
        rights.clear();
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let slices = [IoSlice::new(rest)];
        match sendmsg::<()>(
            socket.as_raw_fd(),
            &slices,
            &rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Ok(sent) => {
                rest = &rest[sent..];
                rights.clear();
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Bytes and descriptors that have come, until they are a message.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Inbox {
    /// Takes what is there, up to a buffer's worth. False at the end.
    ///
    /// # Errors
    /// What `recvmsg(2)` gives, `WouldBlock` among it; `InvalidData` for too many descriptors.
    pub fn receive(&mut self, socket: &UnixStream) -> io::Result<bool> {
        let mut bytes = [0; 16 << 10];
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        let mut space = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = loop {
            match recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut space), flags) {
                Ok(message) => break message,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        };
        let count = message.bytes;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                // SAFETY: the kernel has just made them for this process.
                let owned = numbers
                    .iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) });
                self.descriptors.extend(owned);
            }
        }
        if self.descriptors.len() > MAX_DESCRIPTORS {
            return Err(invalid("too many descriptors"));
        }
        self.bytes.extend_from_slice(&bytes[..count]);
        Ok(count > 0)
    }

    /// Takes the next message if it is complete, with the descriptors that have come.
    ///
    /// # Errors
    /// `InvalidData` for what is no message of this version.
    pub fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let Some(header) = self.bytes.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [m0, m1, v0, v1, length @ ..] = *header;
        if [m0, m1] != MAGIC {
            return Err(invalid("this is no message"));
        }
        if u16::from_le_bytes([v0, v1]) != VERSION {
            return Err(invalid("the other side is another version of husk"));
        }
        let len = u32::from_le_bytes(length) as usize;
        if len > MAX_MESSAGE_BYTES {
            return Err(invalid("the message is too long"));
        }
        let Some(value) = self.bytes.get(HEADER_BYTES..HEADER_BYTES + len) else {
            return Ok(None);
        };
        let message =
            postcard::from_bytes(value).map_err(|_| invalid("the message makes no sense"))?;
        self.bytes.drain(..HEADER_BYTES + len);
        Ok(Some((message, std::mem::take(&mut self.descriptors))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn messages_come_with_descriptors_and_in_pieces() {
        let (a, b) = UnixStream::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        send(&a, &Ask::Signal(15), &[null.as_fd(), null.as_fd()]).unwrap();
        send(&a, &Ask::List, &[]).unwrap();
        let mut inbox = Inbox::default();
        assert!(inbox.take::<Ask>().unwrap().is_none());
        inbox.receive(&b).unwrap();
        let (first, descriptors) = inbox.take::<Ask>().unwrap().unwrap();
        assert_eq!((first, descriptors.len()), (Ask::Signal(15), 2));
        while inbox.bytes.is_empty() {
            inbox.receive(&b).unwrap();
        }
        assert_eq!(inbox.take::<Ask>().unwrap().unwrap().0, Ask::List);
        drop(a);
        assert!(!inbox.receive(&b).unwrap());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let mut inbox = Inbox {
            bytes: b"GET / HTTP/1.1\r\n".to_vec(),
            descriptors: Vec::new(),
        };
        assert!(inbox.take::<Ask>().is_err());
        inbox.bytes = [&MAGIC[..], &[9, 9], &[0; 4]].concat();
        assert!(inbox.take::<Ask>().is_err());
        inbox.bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &[0xff; 4]].concat();
        assert!(inbox.take::<Ask>().is_err());
        inbox.bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &[1, 0, 0, 0, 0xee]].concat();
        assert!(inbox.take::<Ask>().is_err());
    }
}
