//! What the host tells the guest unasked, and the guest the host.

use core::sync::atomic::AtomicU64;

use super::{fuse, inspect, report, start};

/// Set by the VMM, which then interrupts the guest; taken by the libOS.
#[repr(C)]
#[derive(Debug)]
pub struct HostEvents {
    /// Bit `n - 1`: signal `n` is for the container's init, sent from outside.
    pub signals: AtomicU64,
    /// Bit `n - 1`: signal `n` is for the foreground processes of the container's terminal.
    pub terminal_signals: AtomicU64,
    /// The size the container's terminal has now ([`super::config::WindowSize::to_bits`]), or 0 if nobody said.
    pub window: AtomicU64,
}
super::assert_size!(HostEvents, 24);

/// Offset of [`GuestEvents`] in the page of [`HostEvents`].
pub const GUEST_EVENTS_OFFSET: u64 = 160;

/// What the libOS counts for the VMM, which may look at any time and believes none of it.
#[repr(C)]
#[derive(Debug)]
pub struct GuestEvents {
    /// Processes killed because the container's memory ran out.
    pub oom_kills: AtomicU64,
}
super::assert_size!(GuestEvents, 8);

/// What lies in the page, in order: where, and how many bytes.
const PAGE: [(u64, usize); 7] = [
    (0, size_of::<HostEvents>()),
    (start::OFFSET, size_of::<start::StartReport>()),
    (report::OFFSET, size_of::<report::ReportPlace>()),
    (GUEST_EVENTS_OFFSET, size_of::<GuestEvents>()),
    (inspect::OFFSET, size_of::<inspect::InspectPlace>()),
    (fuse::TRUNCATED_OFFSET, size_of::<AtomicU64>()),
    (fuse::CHANNELS_OFFSET, fuse::MAX_CHANNELS / 8),
];

const _: () = {
    let mut next = 1;
    while next < PAGE.len() {
        let (offset, bytes) = PAGE[next - 1];
        assert!(
            offset + bytes as u64 <= PAGE[next].0,
            "two things in one place"
        );
        next += 1;
    }
};
