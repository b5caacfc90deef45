//! The libOS's log: lines for the host, kept in a ring the VMM reads when it wants to or has to.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU8, Ordering};

use husk_abi::boundary::config::LogLevel;
use husk_abi::boundary::log::{LOG_BYTES, LogRing};
use husk_hal::phys::{self, Frame};

use crate::sync::SpinLock;

struct Ring {
    gpa: u64,
    written: u64,
}

static RING: SpinLock<Option<Ring>> = SpinLock::new(None);
static THRESHOLD: AtomicU8 = AtomicU8::new(LogLevel::Warn as u8);

/// Starts logging into the ring at `gpa`.
pub fn init(gpa: u64) {
    *RING.lock() = Some(Ring { gpa, written: 0 });
}

/// Sets which lines are kept.
pub fn set_level(level: LogLevel) {
    THRESHOLD.store(level as u8, Ordering::Relaxed);
}

/// Whether lines of `level` are kept.
#[must_use]
pub fn enabled(level: LogLevel) -> bool {
    level as u8 <= THRESHOLD.load(Ordering::Relaxed)
}

impl Write for Ring {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let at = self.gpa + size_of::<LogRing>() as u64 + self.written % LOG_BYTES as u64;
            phys::write(Frame::containing(at), (at % 4096) as usize, &[byte]);
            self.written += 1;
        }
        Ok(())
    }
}

/// Writes one line; use the [`log!`](crate::log!) macro.
pub fn write_line(level: LogLevel, room: &str, message: fmt::Arguments<'_>) {
    let Some(mut guard) = RING.try_lock() else {
        return;
    };
    let Some(ring) = guard.as_mut() else { return };
    let ms = husk_hal::clock::now_ns() / 1_000_000;
    let _ = writeln!(
        ring,
        "[{:5}.{:03}] {level:?} {room}: {message}",
        ms / 1000,
        ms % 1000
    );
    phys::store_u64(
        Frame::containing(ring.gpa),
        (ring.gpa % 4096) as usize,
        ring.written,
    );
}

/// `log!(Warn, "mm", "message {}", value)`: one line of the libOS's log, if its level is kept.
#[macro_export]
macro_rules! log {
    ($level:ident, $room:literal, $($message:tt)*) => {
        if $crate::log::enabled(husk_abi::boundary::config::LogLevel::$level) {
            $crate::log::write_line(
                husk_abi::boundary::config::LogLevel::$level,
                $room,
                format_args!($($message)*),
            );
        }
    };
}
