//! The libOS's log: lines for the host, kept in a ring the VMM reads when it wants to or has to.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use husk_abi::boundary::config::LogLevel;
use husk_abi::boundary::doorbell;
use husk_abi::boundary::log::{LOG_BYTES, LogRing, ROOMS};
use husk_hal::phys::{self, Frame};

use crate::sync::SpinLock;

struct Ring {
    gpa: u64,
    written: u64,
    /// What was written when the host last read.
    read: u64,
}

static RING: SpinLock<Option<Ring>> = SpinLock::new(None);
static THRESHOLDS: [AtomicU8; ROOMS.len()] =
    [const { AtomicU8::new(LogLevel::Warn as u8) }; ROOMS.len()];
/// Whether somebody reads the lines as they come.
static IS_STREAM: AtomicBool = AtomicBool::new(false);
/// Bytes of the ring filled before the host is told to read them.
const STREAM_BYTES: u64 = LOG_BYTES as u64 / 2;

/// Starts logging into the ring at `gpa`.
pub fn init(gpa: u64) {
    *RING.lock() = Some(Ring {
        gpa,
        written: 0,
        read: 0,
    });
}

/// Sets which lines are kept, by room.
pub fn set_levels(levels: &[LogLevel; ROOMS.len()]) {
    for (threshold, level) in THRESHOLDS.iter().zip(levels) {
        threshold.store(*level as u8, Ordering::Relaxed);
    }
    let is_stream = levels.iter().any(|level| *level > LogLevel::Warn);
    IS_STREAM.store(is_stream, Ordering::Relaxed);
}

/// Whether lines of `level` of the room with this index in [`ROOMS`] are kept.
#[inline]
#[must_use]
pub fn enabled(level: LogLevel, room: usize) -> bool {
    level as u8 <= THRESHOLDS[room].load(Ordering::Relaxed)
}

/// Has the host read what it has not read yet, if it reads along.
pub fn flush() {
    if !IS_STREAM.load(Ordering::Relaxed) {
        return;
    }
    if let Some(mut guard) = RING.try_lock()
        && let Some(ring) = guard.as_mut()
        && ring.read != ring.written
    {
        ring.read = ring.written;
        husk_hal::doorbell::ring(doorbell::LOG, 0);
    }
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
    if ring.written - ring.read >= STREAM_BYTES && IS_STREAM.load(Ordering::Relaxed) {
        // Before it is overwritten. Answered when it has been read.
        ring.read = ring.written;
        husk_hal::doorbell::ring(doorbell::LOG, 0);
    }
}

/// `log!(Warn, "mm", "message {}", value)`: one line of the libOS's log, if its room keeps its level. Rooms are those of
/// `husk_abi::boundary::log::ROOMS`.
#[macro_export]
macro_rules! log {
    ($level:ident, $room:literal, $($message:tt)*) => {
        if $crate::log::enabled(
            husk_abi::boundary::config::LogLevel::$level,
            const { husk_abi::boundary::log::room($room).expect("a room of the libOS") },
        ) {
            $crate::log::write_line(
                husk_abi::boundary::config::LogLevel::$level,
                $room,
                format_args!($($message)*),
            );
        }
    };
}
