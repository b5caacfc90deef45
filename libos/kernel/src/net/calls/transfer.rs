//! `send(2)`, `recv(2)` and their relatives.

use husk_abi::linux::{general::__kernel_timespec, net};

use super::Open;
use crate::fs::deadline::Deadline;
use crate::net::control::{self, Writer};
use crate::net::message::Header;
use crate::net::socket::file_flags;
use crate::net::{Incoming, Outgoing, address};
use crate::syscall::{BufIn, BufOut, Fd, Hex, Int, Len, Ptr, Uint};
use crate::user::{IoBuf, UserAddr};
use crate::{Errno, Result, SysResult, Thread};

/// The most messages one call moves (`UIO_MAXIOV`).
const MAX_MESSAGES: u32 = 1024;
/// `MSG_WAITFORONE`.
const WAIT_FOR_ONE: u32 = 0x10000;

/// `sendto(2)`.
///
/// # Errors
/// `EFAULT`, `EBADF`, `ENOTSOCK`, `EINVAL`, and the family's.
pub fn sendto(
    t: &Thread,
    fd: Fd,
    buf: BufIn,
    len: Len,
    flags: Hex,
    addr: Ptr,
    addrlen: Int,
) -> SysResult {
    let mut buf = IoBuf::user(buf, len)?;
    let open = Open::get(t, fd)?;
    let address = if addr.is_null() {
        None
    } else {
        Some(address::read(addr, addrlen)?)
    };
    let mut message = Outgoing::new(&mut buf, flags as u32 | file_flags(&open.0));
    message.address = address.as_deref();
    open.socket()?.send(t, &mut message)
}

/// `recvfrom(2)`.
///
/// # Errors
/// `EFAULT`, `EBADF`, `ENOTSOCK`, and the family's.
pub fn recvfrom(
    t: &Thread,
    fd: Fd,
    buf: BufOut,
    len: Len,
    flags: Hex,
    addr: Ptr,
    addrlen: Ptr,
) -> SysResult {
    let mut buf = IoBuf::user(buf, len)?;
    let open = Open::get(t, fd)?;
    let mut message = Incoming::new(&mut buf, flags as u32 | file_flags(&open.0));
    message.wants_address = !addr.is_null();
    let received = open.socket()?.receive(t, &mut message)?;
    if !addr.is_null() {
        address::write(&message.address, addr, addrlen)?;
    }
    Ok(received)
}

fn send_message(t: &Thread, open: &Open, msg: UserAddr, flags: u32) -> SysResult {
    let header = Header::read(msg)?;
    let address = if header.name_len > 0 {
        Some(address::read(header.name, header.name_len as i32)?)
    } else {
        None
    };
    let mut buf = header.buffers()?;
    let socket = open.socket()?;
    let control = control::read(
        t,
        header.control,
        header.control_len,
        socket.passes_rights(),
    )?;
    let mut message = Outgoing::new(&mut buf, flags | file_flags(&open.0));
    message.address = address.as_deref();
    message.control = control;
    socket.send(t, &mut message)
}

/// `sendmsg(2)`.
///
/// # Errors
/// As [`sendto`]; `EMSGSIZE`, and those of ancillary data.
pub fn sendmsg(t: &Thread, fd: Fd, msg: Ptr, flags: Hex) -> SysResult {
    let open = Open::get(t, fd)?;
    send_message(t, &open, msg, flags as u32)
}

/// `sendmmsg(2)`.
///
/// # Errors
/// As [`sendmsg`], if not even the first message could be sent.
pub fn sendmmsg(t: &Thread, fd: Fd, msgvec: Ptr, vlen: Uint, flags: Hex) -> SysResult {
    let open = Open::get(t, fd)?;
    each(msgvec, vlen, |at, _| {
        send_message(t, &open, at, flags as u32).map(Some)
    })
}

/// Calls `step` for each `mmsghdr` and stores the lengths it gives, until it gives `None` or fails. Returns
/// how many it did; an error counts only for the first.
fn each(
    msgvec: Ptr,
    vlen: Uint,
    mut step: impl FnMut(UserAddr, usize) -> Result<Option<usize>>,
) -> SysResult {
    const LEN: usize = core::mem::offset_of!(net::mmsghdr, msg_len);
    let count = vlen.min(MAX_MESSAGES) as usize;
    for index in 0..count {
        let at = msgvec.add((index * size_of::<net::mmsghdr>()) as u64);
        let done = step(at, index).and_then(|len| match len {
            Some(len) => at.add(LEN as u64).write(&(len as u32)).map(|()| true),
            None => Ok(false),
        });
        match done {
            Ok(true) => {}
            Err(error) if index == 0 => return Err(error),
            _ => return Ok(index),
        }
    }
    Ok(count)
}

fn receive_message(t: &Thread, open: &Open, msg: UserAddr, flags: u32) -> SysResult {
    let header = Header::read(msg)?;
    let mut buf = header.buffers()?;
    let mut message = Incoming::new(&mut buf, flags | file_flags(&open.0));
    message.wants_address = !header.name.is_null();
    let received = open.socket()?.receive(t, &mut message)?;
    let Incoming {
        address,
        result_flags,
        control,
        ..
    } = message;
    let mut writer = Writer::new(header.control, header.control_len);
    writer.put(t, control, flags & net::MSG_CMSG_CLOEXEC != 0)?;
    let (control_len, truncated) = writer.finish();
    let mut result_flags = result_flags | flags & net::MSG_CMSG_CLOEXEC;
    if truncated {
        result_flags |= net::MSG_CTRUNC;
    }
    header.write_name(&address)?;
    header.write_result(result_flags, control_len)?;
    Ok(received)
}

/// `recvmsg(2)`.
///
/// # Errors
/// As [`recvfrom`]; `EMSGSIZE`.
pub fn recvmsg(t: &Thread, fd: Fd, msg: Ptr, flags: Hex) -> SysResult {
    let open = Open::get(t, fd)?;
    receive_message(t, &open, msg, flags as u32)
}

/// `recvmmsg(2)`. As on Linux the timeout is looked at between messages only.
///
/// # Errors
/// As [`recvmsg`], if not even the first message was received; `EINVAL` for a bad timeout.
pub fn recvmmsg(
    t: &Thread,
    fd: Fd,
    msgvec: Ptr,
    vlen: Uint,
    flags: Hex,
    timeout: Ptr,
) -> SysResult {
    let deadline = Deadline::from_timespec(timeout)?;
    let flags = flags as u32;
    let open = Open::get(t, fd)?;
    if let Some(error) = open.socket()?.base().take_error() {
        return Err(error);
    }
    let is_over = || match deadline {
        Deadline::Never => false,
        Deadline::Now => true,
        Deadline::At(at) => husk_hal::clock::now_ns() >= at,
    };
    let mut failed = None;
    let received = each(msgvec, vlen, |at, index| {
        if index > 0 && is_over() {
            return Ok(None);
        }
        let nonblocking = index > 0 && flags & WAIT_FOR_ONE != 0;
        let flags = flags & !WAIT_FOR_ONE | if nonblocking { net::MSG_DONTWAIT } else { 0 };
        receive_message(t, &open, at, flags)
            .map(Some)
            .inspect_err(|error| failed = Some(*error))
    });
    if let (Ok(1..), Some(error)) = (received, failed)
        && error != Errno::EAGAIN
        && error.code() < 512
    {
        // The next call tells what ended this one.
        open.socket()?.base().set_error(error);
    }
    if deadline == Deadline::Now {
        timeout.write(&__kernel_timespec {
            tv_sec: 0,
            tv_nsec: 0,
        })?;
    } else {
        deadline.write_timespec(timeout)?;
    }
    received
}
