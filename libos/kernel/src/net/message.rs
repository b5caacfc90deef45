//! Messages on their way between a program and a socket (`send(2)`, `recv(2)`).

use alloc::vec::Vec;

use husk_abi::linux::net;

use super::options::{Options, Switches};
use super::{address, control};
use crate::fs::anon::wall_ns;
use crate::user::{IoBuf, UserAddr};
use crate::{Errno, Result};

/// A message a program sends.
#[derive(Debug)]
pub struct Outgoing<'a, 'b> {
    /// The bytes.
    pub buf: &'a mut IoBuf<'b>,
    /// `MSG_*`.
    pub flags: u32,
    /// Where to; `None` or empty: to the peer.
    pub address: Option<&'a [u8]>,
    /// Ancillary data.
    pub control: control::Sent,
}

impl<'a, 'b> Outgoing<'a, 'b> {
    /// Bytes to the peer.
    pub fn new(buf: &'a mut IoBuf<'b>, flags: u32) -> Self {
        Self {
            buf,
            flags,
            address: None,
            control: control::Sent::default(),
        }
    }

    /// Whether the call must not wait.
    #[must_use]
    pub fn is_nonblocking(&self) -> bool {
        self.flags & net::MSG_DONTWAIT != 0
    }

    /// Where to, if the program said.
    #[must_use]
    pub fn destination(&self) -> Option<&'a [u8]> {
        self.address.filter(|address| !address.is_empty())
    }
}

/// A message a program receives.
#[derive(Debug)]
pub struct Incoming<'a, 'b> {
    /// Where the bytes go.
    pub buf: &'a mut IoBuf<'b>,
    /// `MSG_*` the program gave.
    pub flags: u32,
    /// The program wants the sender's address.
    pub wants_address: bool,
    /// The sender's address, filled in by the socket; empty if it has none.
    pub address: Vec<u8>,
    /// `MSG_*` for the program, filled in by the socket.
    pub result_flags: u32,
    /// Ancillary data, filled in by the socket.
    pub control: Vec<control::Item>,
}

impl<'a, 'b> Incoming<'a, 'b> {
    /// Bytes for `buf`.
    pub fn new(buf: &'a mut IoBuf<'b>, flags: u32) -> Self {
        Self {
            buf,
            flags,
            wants_address: false,
            address: Vec::new(),
            result_flags: 0,
            control: Vec::new(),
        }
    }

    /// Whether the call must not wait.
    #[must_use]
    pub fn is_nonblocking(&self) -> bool {
        self.flags & net::MSG_DONTWAIT != 0
    }

    /// Adds when the message came (`SO_TIMESTAMP`), which is now: nobody looked at it before.
    pub fn stamp(&mut self, options: &Options) {
        const NS_PER_SEC: i64 = 1_000_000_000;
        let (kind, unit_ns) = if options.has(Switches::TIMESTAMP) {
            (net::SCM_TIMESTAMP, 1000)
        } else if options.has(Switches::TIMESTAMP_NS) {
            (net::SCM_TIMESTAMPNS, 1)
        } else {
            return;
        };
        let now = wall_ns();
        let mut data = (now / NS_PER_SEC).to_ne_bytes().to_vec();
        data.extend_from_slice(&(now % NS_PER_SEC / unit_ns).to_ne_bytes());
        self.control.push(control::Item::Plain {
            level: net::SOL_SOCKET,
            kind,
            data,
        });
    }

    /// Whether what is read stays in the socket.
    #[must_use]
    pub fn is_peek(&self) -> bool {
        self.flags & net::MSG_PEEK != 0
    }
}

/// A program's `struct msghdr`, checked.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    at: UserAddr,
    /// Address buffer; NULL for none.
    pub name: UserAddr,
    /// Its size in bytes.
    pub name_len: usize,
    /// Control buffer.
    pub control: UserAddr,
    /// Its size in bytes.
    pub control_len: usize,
    iov: UserAddr,
    iov_len: usize,
}

const fn offset(field: usize) -> u64 {
    field as u64
}

impl Header {
    /// Reads the header at `at`.
    ///
    /// # Errors
    /// `EFAULT`, `EINVAL` (negative address length), `EMSGSIZE` (too many buffers).
    pub fn read(at: UserAddr) -> Result<Self> {
        let raw: net::msghdr = at.read()?;
        let name = UserAddr(raw.msg_name as u64);
        let name_len = usize::try_from(raw.msg_namelen).map_err(|_| Errno::EINVAL)?;
        if raw.msg_iovlen > 1024 {
            return Err(Errno::EMSGSIZE);
        }
        Ok(Self {
            at,
            name,
            name_len: if name.is_null() {
                0
            } else {
                name_len.min(address::MAX_BYTES)
            },
            control: UserAddr(raw.msg_control as u64),
            control_len: raw.msg_controllen,
            iov: UserAddr(raw.msg_iov as u64),
            iov_len: raw.msg_iovlen,
        })
    }

    /// The bytes' buffers.
    ///
    /// # Errors
    /// `EFAULT`, `EINVAL`.
    pub fn buffers(&self) -> Result<IoBuf<'static>> {
        IoBuf::iovec(self.iov, self.iov_len)
    }

    /// Tells the program the sender's address.
    ///
    /// # Errors
    /// `EFAULT`, `EINVAL`.
    pub fn write_name(&self, address: &[u8]) -> Result<()> {
        if self.name.is_null() {
            return Ok(());
        }
        let len_at = offset(core::mem::offset_of!(net::msghdr, msg_namelen));
        address::write(address, self.name, self.at.add(len_at))
    }

    /// Tells the program the flags of what it received and how much ancillary data there is.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn write_result(&self, flags: u32, control_len: usize) -> Result<()> {
        let flags_at = offset(core::mem::offset_of!(net::msghdr, msg_flags));
        let control_at = offset(core::mem::offset_of!(net::msghdr, msg_controllen));
        self.at.add(flags_at).write(&flags)?;
        self.at.add(control_at).write(&control_len)
    }
}
