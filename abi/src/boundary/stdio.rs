//! Standard streams: two virtqueues for each set of them, init's and those of the other sessions ([`super::control`]).
//!
//! *Output* (`BootInfo::stdio_out`): a chain is one device-readable buffer, [`OutHeader`] and the bytes.
//! With [`OUT_WRITE`] the VMM writes the bytes to the stream in queue order, then puts the chain on the used ring with a
//! used length of 0, or with the errno of the write (a stream that failed stays failed: later chains
//! come back with the same errno). The libOS does not wait for that unless the queue is full or it closes.
//! With [`OUT_SETTINGS`] the bytes are a `struct termios` (`ioctl_tty(2)`), which the VMM gives the stream, a terminal, in
//! its turn. With [`OUT_CONTROL`] they are an `ioctl(2)` request and its argument, 4 bytes each, likewise: `TCFLSH` or `TCSBRK`.
//!
//! *Input* (`BootInfo::stdio_in`): a chain is a device-readable [`InRequest`] followed by a
//! device-writable buffer that starts with [`InReply`]. `READ` answers when at least one byte, end of file or
//! an error is there and never takes more from the host than `len`; `WAIT` answers when a read would not block.

/// Streams by their number: 0, 1, 2.
pub const STREAMS: usize = 3;

/// Starts an output buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct OutHeader {
    /// 1 or 2.
    pub stream: u32,
    /// [`OUT_WRITE`], [`OUT_SETTINGS`] or [`OUT_CONTROL`].
    pub op: u32,
}
super::assert_size!(OutHeader, 8);

/// `OutHeader::op`: write the bytes.
pub const OUT_WRITE: u32 = 0;
/// `OutHeader::op`: change the terminal's settings.
pub const OUT_SETTINGS: u32 = 1;
/// `OutHeader::op`: have the terminal throw away what it holds, or wait until it holds nothing.
pub const OUT_CONTROL: u32 = 2;
/// Bytes of what follows then.
pub const CONTROL_BYTES: usize = 8;
/// Bytes of a `struct termios`.
pub const SETTINGS_BYTES: usize = 36;

/// `InRequest::op`: read at most `len` bytes.
pub const IN_READ: u32 = 1;
/// `InRequest::op`: wait until a read would not block.
pub const IN_WAIT: u32 = 2;

/// A request for standard input.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct InRequest {
    /// [`IN_READ`] or [`IN_WAIT`].
    pub op: u32,
    /// Bytes wanted.
    pub len: u32,
}
super::assert_size!(InRequest, 8);

/// The answer, at the start of the device-writable buffer; data follow it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct InReply {
    /// 0, or a positive errno.
    pub error: u32,
    /// Bytes that follow; 0 with `error` 0 is end of file (for `WAIT`: readable).
    pub len: u32,
}
super::assert_size!(InReply, 8);

/// The largest payload of one buffer, in bytes.
pub const MAX_PAYLOAD: usize = 64 << 10;
