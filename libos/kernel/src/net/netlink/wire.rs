//! Netlink messages as bytes: a header, a struct of the message's type, attributes.

use alloc::vec::Vec;

/// `NLMSG_ERROR`, `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLM_F_REQUEST`, `NLM_F_MULTI`, `NLM_F_ACK`, `NLM_F_DUMP`, `NLM_F_CAPPED`.
const REQUEST: u16 = 1;
const MULTI: u16 = 2;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const CAPPED: u16 = 0x100;
/// Types below are not requests.
const FIRST_TYPE: u16 = 16;
const HEADER: usize = 16;

/// A request of a program.
#[derive(Debug)]
pub struct Request<'a> {
    /// Type.
    pub kind: u16,
    flags: u16,
    sequence: u32,
    /// The whole message.
    bytes: &'a [u8],
}

impl<'a> Request<'a> {
    /// Whether it is a question of `NETLINK_ROUTE`: types come in fours, new, delete, get, set.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.kind % 4 == 2
    }

    /// The message, not to be acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> Vec<u8> {
        let mut bytes = self.bytes.to_vec();
        let flags = self.flags & !ACK;
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes
    }

    /// Whether it asks for all there is.
    #[must_use]
    pub fn is_dump(&self) -> bool {
        self.flags & DUMP == DUMP
    }

    /// Whether it is to be answered even if there is nothing to say.
    #[must_use]
    pub fn wants_acknowledgement(&self) -> bool {
        self.flags & ACK != 0 && !self.is_dump()
    }

    /// What follows the header.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }

    /// The value of attribute `kind` behind a struct of `fixed` bytes.
    #[must_use]
    pub fn attribute(&self, fixed: usize, kind: u16) -> Option<&'a [u8]> {
        let mut rest = self.body().get(fixed.next_multiple_of(4)..)?;
        while let Some(head) = rest.first_chunk::<4>() {
            let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
            let value = rest.get(4..len)?;
            if u16::from_ne_bytes([head[2], head[3]]) & 0x3fff == kind {
                return Some(value);
            }
            rest = rest.get(len.next_multiple_of(4)..)?;
        }
        None
    }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The requests in what a program sent.
#[must_use]
pub fn requests(bytes: &[u8]) -> Vec<Request<'_>> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while rest.len() >= HEADER {
        let len = word(rest, 0) as usize;
        if len < HEADER || len > rest.len() {
            break;
        }
        let (kind, flags) = (half(rest, 4), half(rest, 6));
        if flags & REQUEST != 0 && kind >= FIRST_TYPE {
            found.push(Request {
                kind,
                flags,
                sequence: word(rest, 8),
                bytes: &rest[..len],
            });
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// Answers of another kernel, as those for the socket at `port`, one by one.
#[must_use]
pub fn readdress(port: u32, mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while bytes.len() >= HEADER {
        let len = (word(bytes, 0) as usize).max(HEADER);
        let Some(message) = bytes.get(..len) else {
            break;
        };
        let mut message = message.to_vec();
        message[12..16].copy_from_slice(&port.to_ne_bytes());
        message.resize(len.next_multiple_of(4), 0);
        messages.push(message);
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

/// Whether a message is an error or an acknowledgement.
#[must_use]
pub fn is_error(message: &[u8]) -> bool {
    half(message, 4) == ERROR
}

/// A message that is being put together.
#[derive(Debug)]
pub struct Builder {
    bytes: Vec<u8>,
}

impl Builder {
    /// An answer of type `kind` to `request` for the socket at `port`.
    #[must_use]
    pub fn new(port: u32, request: &Request<'_>, kind: u16) -> Self {
        let flags = if request.is_dump() { MULTI } else { 0 };
        Self::with_flags(port, request, kind, flags)
    }

    fn with_flags(port: u32, request: &Request<'_>, kind: u16, flags: u16) -> Self {
        let mut builder = Self { bytes: Vec::new() };
        builder
            .put(&0u32.to_ne_bytes())
            .put(&kind.to_ne_bytes())
            .put(&flags.to_ne_bytes())
            .put(&request.sequence.to_ne_bytes())
            .put(&port.to_ne_bytes());
        builder
    }

    /// Appends bytes.
    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let len = (4 + value.len()) as u16;
        self.put(&len.to_ne_bytes())
            .put(&kind.to_ne_bytes())
            .put(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// The message.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let len = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.bytes
    }
}

/// An error, or for 0 the acknowledgement; it brings back the request's header, and all of it after an error.
#[must_use]
pub fn error(port: u32, request: &Request<'_>, code: i32) -> Vec<u8> {
    let flags = if code == 0 { CAPPED } else { 0 };
    let mut builder = Builder::with_flags(port, request, ERROR, flags);
    builder.put(&code.to_ne_bytes());
    builder.put(if code == 0 {
        &request.bytes[..HEADER]
    } else {
        request.bytes
    });
    builder.finish()
}

/// The end of a list.
#[must_use]
pub fn done(port: u32, request: &Request<'_>) -> Vec<u8> {
    let mut builder = Builder::new(port, request, DONE);
    builder.put(&0u32.to_ne_bytes());
    builder.finish()
}

/// Puts messages together into datagrams of up to `most` bytes. The end of a list comes alone.
#[must_use]
pub fn gather(messages: Vec<Vec<u8>>, most: usize) -> Vec<Vec<u8>> {
    let mut datagrams: Vec<Vec<u8>> = Vec::new();
    let mut may_append = false;
    for message in messages {
        let is_list = half(&message, 6) & MULTI != 0 && half(&message, 4) != DONE;
        match datagrams.last_mut() {
            Some(last) if may_append && is_list && last.len() + message.len() <= most => {
                last.extend_from_slice(&message);
            }
            _ => datagrams.push(message),
        }
        may_append = is_list;
    }
    datagrams
}
