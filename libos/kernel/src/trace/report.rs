//! The report for `--stats` that the libOS leaves when it ends.

use core::mem::offset_of;

use husk_abi::boundary::report::{self, GuestReport, MAX_BYTES, OFFSET, ReportPlace};
use husk_hal::phys::{self, Frame};

use crate::Kernel;

/// Bytes of a frame.
const FRAME: usize = 4096;

/// Leaves the report in RAM and its place in the host-events page at `events_gpa`, if it was asked for.
pub fn leave(kernel: &Kernel, events_gpa: u64) {
    if !kernel.config.count_sites {
        return;
    }
    let report = GuestReport {
        translation: crate::translate::report(kernel),
        missing: kernel.trace.missing().collect(),
        memory: crate::mm::counts::report(),
    };
    let Ok(bytes) = report::encode(&report) else {
        return;
    };
    let count = bytes.len().div_ceil(FRAME) as u64;
    if bytes.len() as u64 > MAX_BYTES {
        crate::log!(
            Warn,
            "trace",
            "the report is too long: {} bytes",
            bytes.len()
        );
        return;
    }
    let Ok(first) = kernel.frames.alloc_contiguous(count) else {
        crate::log!(Warn, "trace", "no memory for the report");
        return;
    };
    for (frame, chunk) in (0..).zip(bytes.chunks(FRAME)) {
        phys::write(first.offset(frame), 0, chunk);
    }
    let store = |field: usize, value: u64| {
        let at = events_gpa + OFFSET + field as u64;
        phys::store_u64(Frame::containing(at), (at % 4096) as usize, value);
    };
    store(offset_of!(ReportPlace, bytes), bytes.len() as u64);
    store(offset_of!(ReportPlace, gpa), first.gpa());
}
