//! Socket calls with addresses, options and messages as the guest has them: bytes.
#![allow(
    unsafe_code,
    reason = "socket calls on untyped addresses and values, messages into guest memory"
)]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use husk_abi::boundary::net::{MAX_ADDRESS, MAX_CONTROL, ReceiveOut};
use libc::{c_int, c_void, socklen_t};
use rustix::io::Errno;
use vm_memory::GuestMemoryMmap;

use crate::gate::requests::message::Ranges;
use crate::vmm::with_vectors;

/// A `struct sockaddr`, or none.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    bytes: [u8; MAX_ADDRESS],
    len: usize,
}

impl Default for Address {
    fn default() -> Self {
        Self {
            bytes: [0; MAX_ADDRESS],
            len: 0,
        }
    }
}

impl Address {
    /// The address in `bytes`.
    ///
    /// # Errors
    /// `EINVAL` if they are too many.
    pub fn new(bytes: &[u8]) -> Result<Self, Errno> {
        let mut address = Self::default();
        address
            .bytes
            .get_mut(..bytes.len())
            .ok_or(Errno::INVAL)?
            .copy_from_slice(bytes);
        address.len = bytes.len();
        Ok(address)
    }

    /// Its bytes; empty if it is none.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Has `call` write one.
    fn take(
        call: impl FnOnce(*mut libc::sockaddr, *mut socklen_t) -> c_int,
    ) -> Result<(Self, c_int), Errno> {
        let mut address = Self::default();
        let mut len = MAX_ADDRESS as socklen_t;
        let result = check(call(address.bytes.as_mut_ptr().cast(), &raw mut len))?;
        address.len = (len as usize).min(MAX_ADDRESS);
        Ok((address, result))
    }

    fn as_ptr(&self) -> *const libc::sockaddr {
        self.bytes.as_ptr().cast()
    }

    fn len(&self) -> socklen_t {
        self.len as socklen_t
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn check(result: c_int) -> Result<c_int, Errno> {
    if result < 0 {
        Err(last_error())
    } else {
        Ok(result)
    }
}

fn check_bytes(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| last_error())
}

/// `bind(2)`.
///
/// # Errors
/// Its own.
pub fn bind(socket: impl AsFd, address: &Address) -> Result<(), Errno> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: reads so many bytes of the address, which has them.
    check(unsafe { libc::bind(fd, address.as_ptr(), address.len()) }).map(drop)
}

/// `connect(2)`.
///
/// # Errors
/// Its own.
pub fn connect(socket: impl AsFd, address: &Address) -> Result<(), Errno> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: reads so many bytes of the address, which has them.
    check(unsafe { libc::connect(fd, address.as_ptr(), address.len()) }).map(drop)
}

/// `accept4(2)`, without waiting for what is done with the new socket; also gives the peer.
///
/// # Errors
/// Its own.
pub fn accept(socket: impl AsFd) -> Result<(OwnedFd, Address), Errno> {
    let fd = socket.as_fd().as_raw_fd();
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: writes at most as many bytes as it is told there are.
    let (peer, accepted) =
        Address::take(|address, len| unsafe { libc::accept4(fd, address, len, flags) })?;
    // SAFETY: the descriptor is new.
    Ok((unsafe { OwnedFd::from_raw_fd(accepted) }, peer))
}

/// `getsockname(2)`.
///
/// # Errors
/// Its own.
pub fn own_name(socket: impl AsFd) -> Result<Address, Errno> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: writes at most as many bytes as it is told there are.
    Ok(Address::take(|address, len| unsafe { libc::getsockname(fd, address, len) })?.0)
}

/// `getpeername(2)`.
///
/// # Errors
/// Its own.
pub fn peer_name(socket: impl AsFd) -> Result<Address, Errno> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: writes at most as many bytes as it is told there are.
    Ok(Address::take(|address, len| unsafe { libc::getpeername(fd, address, len) })?.0)
}

/// `setsockopt(2)`, of an option whose value holds no pointers.
///
/// # Errors
/// Its own.
pub fn set_option(socket: impl AsFd, level: c_int, name: c_int, value: &[u8]) -> Result<(), Errno> {
    let fd = socket.as_fd().as_raw_fd();
    let bytes = value.as_ptr().cast::<c_void>();
    // SAFETY: reads at most the value's bytes: options whose values point elsewhere are in no list.
    check(unsafe { libc::setsockopt(fd, level, name, bytes, value.len() as socklen_t) }).map(drop)
}

/// `getsockopt(2)` into `value`; gives how many bytes it has.
///
/// # Errors
/// Its own.
pub fn get_option(
    socket: impl AsFd,
    level: c_int,
    name: c_int,
    value: &mut [u8],
) -> Result<usize, Errno> {
    let fd = socket.as_fd().as_raw_fd();
    let mut len = value.len() as socklen_t;
    let bytes = value.as_mut_ptr().cast::<c_void>();
    // SAFETY: writes at most the value's bytes: options whose values point elsewhere are in no list.
    check(unsafe { libc::getsockopt(fd, level, name, bytes, &raw mut len) })?;
    Ok((len as usize).min(value.len()))
}

/// So many bytes a send buffer has room for, whatever is added to them there: half of what is free (`SO_MEMINFO`).
///
/// # Errors
/// What `getsockopt(2)` gives.
pub fn send_room(socket: impl AsFd, is_stream: bool) -> Result<u32, Errno> {
    // linux/sock_diag.h
    const WRITE_ALLOCATED: usize = 2;
    const SENDBUF: usize = 3;
    const WRITE_QUEUED: usize = 5;
    let mut words = [[0; 4]; 9];
    let value = words.as_flattened_mut();
    get_option(socket, libc::SOL_SOCKET, libc::SO_MEMINFO, value)?;
    let word = |index: usize| u32::from_ne_bytes(words[index]);
    let used = word(if is_stream {
        WRITE_QUEUED
    } else {
        WRITE_ALLOCATED
    });
    Ok(word(SENDBUF).saturating_sub(used) / 2)
}

/// `ioctl(2)` of a request whose argument is at most as long as `argument` and holds no pointers.
///
/// # Errors
/// Its own.
pub fn ioctl(socket: impl AsFd, request: u32, argument: &mut [u8]) -> Result<(), Errno> {
    let fd = socket.as_fd().as_raw_fd();
    let bytes = argument.as_mut_ptr().cast::<c_void>();
    // SAFETY: the caller's list has the size of each request's argument, and made the argument that long.
    check(unsafe { libc::ioctl(fd, request.into(), bytes) }).map(drop)
}

/// `SIOCGIFCONF` into `entries`; gives how many bytes of them there are.
///
/// # Errors
/// Its own.
pub fn interfaces(socket: impl AsFd, entries: &mut [u8]) -> Result<usize, Errno> {
    let fd = socket.as_fd().as_raw_fd();
    let mut conf = libc::ifconf {
        ifc_len: c_int::try_from(entries.len()).map_err(|_| Errno::INVAL)?,
        ifc_ifcu: libc::__c_anonymous_ifc_ifcu {
            ifcu_buf: entries.as_mut_ptr().cast(),
        },
    };
    // SAFETY: writes at most `ifc_len` bytes to the entries, which are that long.
    check(unsafe { libc::ioctl(fd, libc::SIOCGIFCONF, &raw mut conf) })?;
    Ok(usize::try_from(conf.ifc_len)
        .unwrap_or(0)
        .min(entries.len()))
}

/// Sends the guest memory in `data`, with `flags`, as one message.
///
/// # Errors
/// `EFAULT` outside guest memory; what `sendmsg(2)` gives.
pub fn send(
    memory: &GuestMemoryMmap,
    socket: impl AsFd,
    flags: c_int,
    address: &Address,
    control: &[u8],
    data: &Ranges,
) -> Result<usize, Errno> {
    let fd = socket.as_fd().as_raw_fd();
    with_vectors(memory, data, |vectors| {
        // SAFETY: plain data, for which zeros are good.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        if address.len > 0 {
            message.msg_name = address.as_ptr().cast_mut().cast();
            message.msg_namelen = address.len();
        }
        if !control.is_empty() {
            message.msg_control = control.as_ptr().cast_mut().cast();
            message.msg_controllen = control.len();
        }
        message.msg_iov = vectors.as_ptr().cast_mut();
        message.msg_iovlen = vectors.len();
        // SAFETY: only reads what the message names, all of which outlives the call; the vectors are ranges of guest
        // memory, which is never unmapped.
        check_bytes(unsafe { libc::sendmsg(fd, &raw const message, flags) })
    })
    .map_err(|_| Errno::FAULT)?
}

/// What `recvmsg(2)` gave beside the data.
#[derive(Clone, Debug)]
pub struct Received {
    /// What it returned.
    pub bytes: usize,
    /// `MSG_*`.
    pub flags: u32,
    /// Who sent it.
    pub address: Address,
    /// Control messages.
    pub control: Vec<u8>,
}

impl Received {
    /// As the guest is told.
    pub fn out(&self) -> ReceiveOut {
        ReceiveOut {
            flags: self.flags,
            address_bytes: self.address.as_bytes().len() as u32,
            control_bytes: self.control.len() as u32,
            padding: 0,
            bytes: self.bytes as u64,
            reserved: 0,
        }
    }
}

/// Bytes of the datagram that is received next; 0 if there is none, or it has none.
///
/// # Errors
/// What `ioctl(2)` gives.
pub fn next_datagram(socket: impl AsFd) -> Result<usize, Errno> {
    let mut bytes = [0; 4];
    ioctl(socket, libc::FIONREAD as u32, &mut bytes)?;
    Ok(u32::from_ne_bytes(bytes) as usize)
}

/// Receives a message into the guest memory in `data`.
///
/// # Errors
/// `EFAULT` outside guest memory; what `recvmsg(2)` gives.
pub fn receive(
    memory: &GuestMemoryMmap,
    socket: impl AsFd,
    flags: c_int,
    data: &Ranges,
) -> Result<Received, Errno> {
    /// Room for control messages, aligned as they are.
    #[repr(C, align(8))]
    struct Control([u8; MAX_CONTROL]);

    let fd = socket.as_fd().as_raw_fd();
    with_vectors(memory, data, |vectors| {
        let mut address = Address::default();
        let mut control = Control([0; MAX_CONTROL]);
        // SAFETY: plain data, for which zeros are good.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_name = address.bytes.as_mut_ptr().cast();
        message.msg_namelen = MAX_ADDRESS as socklen_t;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = MAX_CONTROL;
        message.msg_iov = vectors.as_ptr().cast_mut();
        message.msg_iovlen = vectors.len();
        // SAFETY: writes what the message names, all of which outlives the call; the vectors are ranges of guest memory,
        // which is never unmapped and of which there are no references.
        let bytes = check_bytes(unsafe { libc::recvmsg(fd, &raw mut message, flags) })?;
        address.len = (message.msg_namelen as usize).min(MAX_ADDRESS);
        Ok(Received {
            bytes,
            flags: message.msg_flags.cast_unsigned(),
            address,
            control: control.0[..message.msg_controllen.min(MAX_CONTROL)].to_vec(),
        })
    })
    .map_err(|_| Errno::FAULT)?
}
