//! `struct timex` (`adjtimex(2)`), which linux-raw-sys leaves out.

use linux_raw_sys::general::__kernel_old_timeval;

/// `struct timex`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "adjtimex(2)'s terms")]
pub struct Timex {
    pub modes: u32,
    pub pad0: u32,
    pub offset: i64,
    pub freq: i64,
    pub maxerror: i64,
    pub esterror: i64,
    pub status: i32,
    pub pad1: u32,
    pub constant: i64,
    pub precision: i64,
    pub tolerance: i64,
    pub time: __kernel_old_timeval,
    pub tick: i64,
    pub ppsfreq: i64,
    pub jitter: i64,
    pub shift: i32,
    pub pad2: u32,
    pub stabil: i64,
    pub jitcnt: i64,
    pub calcnt: i64,
    pub errcnt: i64,
    pub stbcnt: i64,
    pub tai: i32,
    pub reserved: [u32; 11],
}
const _: () = assert!(size_of::<Timex>() == 208, "include/uapi/linux/timex.h");

/// `status`: the clock is not synchronized.
pub const STA_UNSYNC: i32 = 0x40;
/// Result of `adjtimex(2)`: the clock is not synchronized.
pub const TIME_ERROR: usize = 5;

impl Timex {
    /// All fields 0.
    #[must_use]
    pub const fn zero() -> Self {
        Self {
            modes: 0,
            pad0: 0,
            offset: 0,
            freq: 0,
            maxerror: 0,
            esterror: 0,
            status: 0,
            pad1: 0,
            constant: 0,
            precision: 0,
            tolerance: 0,
            time: __kernel_old_timeval {
                tv_sec: 0,
                tv_usec: 0,
            },
            tick: 0,
            ppsfreq: 0,
            jitter: 0,
            shift: 0,
            pad2: 0,
            stabil: 0,
            jitcnt: 0,
            calcnt: 0,
            errcnt: 0,
            stbcnt: 0,
            tai: 0,
            reserved: [0; 11],
        }
    }
}
