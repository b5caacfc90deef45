//! Doorbells: I/O ports the TSS bitmap opens to CPL 3. The value written is 32 bits wide.

/// First port of the doorbell range.
pub const FIRST: u16 = 0x500;
/// One past the last port of the doorbell range.
pub const END: u16 = 0x50f;

/// Buffers were queued for the standard output or error of the session the value names (bound to an ioeventfd).
pub const STDIO_OUT: u16 = 0x500;
/// A request was queued for the standard input of the session the value names (bound to an ioeventfd).
pub const STDIO_IN: u16 = 0x501;
/// The vCPU has nothing to run: sleep until an event or `VcpuShared::deadline_ns`.
pub const IDLE: u16 = 0x502;
/// `VcpuShared::deadline_ns` changed: arm the vCPU's timer.
pub const TIMER: u16 = 0x503;
/// The container's init has ended; the value is its wait status (`wait(2)`).
pub const SHUTDOWN: u16 = 0x504;
/// The libOS cannot go on; the last messages are in the log ring.
pub const PANIC: u16 = 0x505;
/// The record ring is full or to be drained now; answered when there is room.
pub const RECORDS: u16 = 0x506;
/// The log ring holds lines to be written out now.
pub const LOG: u16 = 0x507;
/// With a debugger attached: a breakpoint or single-step trap, the value is its vector. See
/// `VcpuShared::debug_frame`.
pub const DEBUG: u16 = 0x508;
/// The first program is about to run; [`super::start::StartReport`] says when.
pub const STARTED: u16 = 0x509;
/// Requests were queued for files of the host, see [`super::fuse`]; returns when those that cannot take long are answered.
pub const FUSE: u16 = 0x50a;
/// A record ring is half full: the VMM drains it beside the guest (bound to an ioeventfd while there is a recording).
pub const RECORDS_WAITING: u16 = 0x50b;
/// A control queue has changed, see [`super::control`] (bound to an ioeventfd).
pub const CONTROL: u16 = 0x50c;
/// RAM beyond [`super::boot::BootInfo::ready_bytes`] is about to be used: the value is its end in large pages. Returns when
/// all RAM up to there, or more, may be.
pub const MEMORY: u16 = 0x50d;
/// What [`super::control::Request::Settle`] asks for is done and told; returns when the guest may go on.
pub const SETTLED: u16 = 0x50e;
