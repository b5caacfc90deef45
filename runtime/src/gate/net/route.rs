//! Questions about interfaces, addresses and routes: `rtnetlink(7)`.

use std::os::fd::OwnedFd;

use husk_abi::boundary::net::MAX_VALUE;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// The most bytes of one datagram of answers: the host makes them of at most 32 KiB.
const DATAGRAM: usize = 64 << 10;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The first type of rtnetlink's own, a `RTM_NEW*`; every fourth is another.
const RTM_BASE: u16 = 16;
/// Of each four, the question.
const GET: u16 = 2;

/// What may be asked.
const QUESTIONS: &[u16] = &[
    18,  // RTM_GETLINK
    22,  // RTM_GETADDR
    26,  // RTM_GETROUTE
    30,  // RTM_GETNEIGH
    34,  // RTM_GETRULE
    38,  // RTM_GETQDISC
    42,  // RTM_GETTCLASS
    46,  // RTM_GETTFILTER
    58,  // RTM_GETMULTICAST
    62,  // RTM_GETANYCAST
    66,  // RTM_GETNEIGHTBL
    74,  // RTM_GETADDRLABEL
    82,  // RTM_GETNETCONF
    94,  // RTM_GETSTATS
    106, // RTM_GETNEXTHOP
];

/// A message's header.
#[derive(Clone, Copy, Debug)]
struct Header {
    len: usize,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (header, _) = bytes.split_first_chunk::<HEADER>()?;
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        Some(Self {
            len: word(0) as usize,
            kind: half(4),
            flags: half(6),
            sequence: word(8),
            port: word(12),
        })
    }

    /// Puts its sequence number and port into the message in `bytes`.
    fn put_origin(&self, bytes: &mut [u8]) {
        if let Some(origin) = bytes.get_mut(8..HEADER) {
            origin[..4].copy_from_slice(&self.sequence.to_ne_bytes());
            origin[4..].copy_from_slice(&self.port.to_ne_bytes());
        }
    }
}

/// The VMM's own end of the conversation.
#[derive(Debug, Default)]
pub struct Route {
    /// Made when it is first used, and again after an answer that was not read to its end.
    socket: Option<OwnedFd>,
    /// Of the last question.
    sequence: u32,
}

impl Route {
    /// Asks what `question` says; gives the answers' messages, at most `room` bytes, as sent to the question's own port.
    ///
    /// # Errors
    /// `EINVAL` for what is no message, `EPERM` for one that is no question, `EOPNOTSUPP` for a question that may not be
    /// asked, `ENOBUFS` if the answer is too long.
    pub fn ask(&mut self, question: &[u8], room: usize) -> Result<Vec<u8>, Errno> {
        let asked = check(question)?;
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => socket_with(
                AddressFamily::NETLINK,
                SocketType::RAW,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                None, // NETLINK_ROUTE
            )?,
        };
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = question[..asked.len].to_vec();
        let own = Header {
            sequence: self.sequence,
            // The kernel's word for whoever sends.
            port: 0,
            ..asked
        };
        own.put_origin(&mut message);
        send(&socket, &message, SendFlags::DONTWAIT)?;
        let answers = gather(&socket, &asked, self.sequence, room)?;
        // Kept only if nothing of this answer is left in it.
        self.socket = Some(socket);
        Ok(answers)
    }
}

/// The question's header, if it is one that may be asked.
fn check(question: &[u8]) -> Result<Header, Errno> {
    let header = Header::read(question).ok_or(Errno::INVAL)?;
    if header.len < HEADER || header.len > question.len() || question.len() > MAX_VALUE {
        return Err(Errno::INVAL);
    }
    if header.flags & NLM_F_REQUEST == 0 || header.kind < RTM_BASE {
        return Err(Errno::INVAL);
    }
    if header.kind % 4 != GET {
        return Err(Errno::PERM);
    }
    if !QUESTIONS.contains(&header.kind) {
        return Err(Errno::OPNOTSUPP);
    }
    Ok(header)
}

/// Reads what answers `asked`, all of it: the host has it ready, or makes the next part as the one before is read.
fn gather(socket: &OwnedFd, asked: &Header, sequence: u32, room: usize) -> Result<Vec<u8>, Errno> {
    let mut all = Vec::new();
    let mut datagram = vec![0; DATAGRAM];
    loop {
        let (bytes, whole) = match recv(
            socket,
            datagram.as_mut_slice(),
            RecvFlags::DONTWAIT | RecvFlags::TRUNC,
        ) {
            Ok(sizes) => sizes,
            // One answer alone has no end to tell.
            Err(Errno::AGAIN) if asked.flags & NLM_F_DUMP != NLM_F_DUMP => return Ok(all),
            Err(Errno::AGAIN) => return Err(Errno::IO),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        if whole > bytes || all.len() + bytes > room {
            return Err(Errno::NOBUFS);
        }
        if take(&mut datagram[..bytes], asked, sequence, &mut all) {
            return Ok(all);
        }
    }
}

/// Appends the messages in `datagram` that answer `asked` to `all`; true if one of them is the last.
fn take(mut datagram: &mut [u8], asked: &Header, sequence: u32, all: &mut Vec<u8>) -> bool {
    while let Some(header) = Header::read(datagram) {
        if header.len < HEADER || header.len > datagram.len() {
            return false;
        }
        let end = header.len.next_multiple_of(4).min(datagram.len());
        let (message, rest) = datagram.split_at_mut(end);
        datagram = rest;
        if header.sequence != sequence {
            continue;
        }
        asked.put_origin(message);
        if header.kind == NLMSG_ERROR {
            // It repeats the question's header.
            if let Some(repeated) = message.get_mut(HEADER + 4..) {
                asked.put_origin(repeated);
            }
        }
        all.extend_from_slice(message);
        all.resize(all.len().next_multiple_of(4), 0);
        if header.kind == NLMSG_ERROR || header.kind == NLMSG_DONE {
            return true;
        }
    }
    false
}
