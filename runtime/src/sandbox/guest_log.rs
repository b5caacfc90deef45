//! Reading the libOS's log ring. Its text is the guest's: nothing in it is trusted.

use husk_abi::boundary::boot::GuestRange;
use husk_abi::boundary::log::{LOG_BYTES, LogRing};
use tracing::Level;
use vm_memory::{Bytes, GuestAddress};

use crate::vmm::GuestMemory;

/// The libOS's log.
#[derive(Debug)]
pub struct GuestLog {
    memory: GuestMemory,
    range: GuestRange,
    /// Bytes of the stream that were given out by [`GuestLog::new_lines`].
    seen: u64,
}

impl GuestLog {
    /// The log ring at `range`.
    pub fn new(memory: GuestMemory, range: GuestRange) -> Self {
        Self {
            memory,
            range,
            seen: 0,
        }
    }

    fn written(&self) -> u64 {
        let offset = std::mem::offset_of!(LogRing, written) as u64;
        self.memory
            .read_obj(GuestAddress(self.range.gpa + offset))
            .unwrap_or(0)
    }

    /// The stream's bytes from `from` to `to`, which are at most [`LOG_BYTES`] apart.
    fn bytes(&self, from: u64, to: u64) -> Vec<u8> {
        let size = LOG_BYTES as u64;
        let len = to.saturating_sub(from).min(size);
        let at = from % size;
        let first = len.min(size - at);
        let text = self.range.gpa + size_of::<LogRing>() as u64;
        let mut bytes = vec![0; LOG_BYTES.min(usize::try_from(len).unwrap_or(LOG_BYTES))];
        let (head, tail) = bytes.split_at_mut(usize::try_from(first).unwrap_or(0));
        let head_ok = self.memory.read_slice(head, GuestAddress(text + at));
        let tail_ok = self.memory.read_slice(tail, GuestAddress(text));
        if head_ok.is_err() || tail_ok.is_err() {
            return Vec::new();
        }
        bytes
    }

    /// Lines completed since the last call. Of text that was overwritten meanwhile a line tells how much it was.
    pub fn new_lines(&mut self) -> Vec<Line> {
        let written = self.written();
        if written < self.seen {
            // It counts backwards: believe the new count.
            self.seen = written;
        }
        let from = self.seen.max(written.saturating_sub(LOG_BYTES as u64));
        let bytes = self.bytes(from, written);
        let complete = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let lost = from - self.seen;
        self.seen = from + complete as u64;
        let overwritten = (lost > 0).then(|| Line {
            level: Level::WARN,
            room: "log".to_owned(),
            text: format!("{lost} bytes were overwritten before they were read"),
        });
        overwritten
            .into_iter()
            .chain(lines(&bytes[..complete]).iter().map(|line| Line::of(line)))
            .collect()
    }

    /// The last `count` lines.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        let written = self.written();
        let mut all = lines(&self.bytes(written.saturating_sub(LOG_BYTES as u64), written));
        all.split_off(all.len().saturating_sub(count))
    }
}

/// A line of the libOS's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its level.
    pub level: Level,
    /// The libOS's room it comes from.
    pub room: String,
    /// The rest, with the guest's time in front.
    pub text: String,
}

impl Line {
    /// Takes `[seconds] Level room: message` apart; what is not of this form is a warning as it stands.
    fn of(line: &str) -> Self {
        let parts = || {
            let (time, rest) = line.split_once("] ")?;
            let (level, rest) = rest.split_once(' ')?;
            let (room, message) = rest.split_once(": ")?;
            Some(Self {
                level: match level {
                    "Error" => Level::ERROR,
                    "Warn" => Level::WARN,
                    "Info" => Level::INFO,
                    "Debug" => Level::DEBUG,
                    "Trace" => Level::TRACE,
                    _ => return None,
                },
                room: room.to_owned(),
                text: format!("{time}] {message}"),
            })
        };
        parts().unwrap_or_else(|| Self {
            level: Level::WARN,
            room: "log".to_owned(),
            text: line.to_owned(),
        })
    }

    /// Puts it into husk's own log.
    pub fn emit(&self) {
        macro_rules! at {
            ($level:expr) => {
                tracing::event!(target: "libos", $level, room = self.room.as_str(), "{}", self.text)
            };
        }
        match self.level {
            Level::ERROR => at!(Level::ERROR),
            Level::WARN => at!(Level::WARN),
            Level::INFO => at!(Level::INFO),
            Level::DEBUG => at!(Level::DEBUG),
            Level::TRACE => at!(Level::TRACE),
        }
    }
}

/// Lines, made safe to print: control characters cannot drive the terminal.
fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes)
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            line.chars()
                .map(|c| if c.is_control() && c != '\t' { '?' } else { c })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use vm_memory::GuestMemoryMmap;

    fn log() -> (GuestMemory, GuestLog) {
        let memory: GuestMemory =
            Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), LOG_BYTES + 8192)]).unwrap());
        let range = GuestRange {
            gpa: 4096,
            len: LOG_BYTES as u64 + 8,
        };
        (memory.clone(), GuestLog::new(memory, range))
    }

    fn write(memory: &GuestMemory, stream: &mut u64, text: &str) {
        for byte in text.bytes() {
            let at = 4096 + 8 + *stream % LOG_BYTES as u64;
            memory.write_obj(byte, GuestAddress(at)).unwrap();
            *stream += 1;
        }
        memory.write_obj(*stream, GuestAddress(4096)).unwrap();
    }

    fn texts(log: &mut GuestLog) -> Vec<String> {
        log.new_lines().into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn levels_and_rooms() {
        let line = Line::of("[    0.012] Debug mm: a: b");
        let expected = Line {
            level: Level::DEBUG,
            room: "mm".to_owned(),
            text: "[    0.012] a: b".to_owned(),
        };
        assert_eq!(line, expected);
        for odd in ["", "] ", "[1] Loud mm: x", "[1] Debug mm"] {
            assert_eq!(Line::of(odd).text, odd);
        }
    }

    #[test]
    fn lines_once_and_in_order() {
        let (memory, mut log) = log();
        let mut stream = 0;
        write(&memory, &mut stream, "one\ntwo\nthr");
        assert_eq!(texts(&mut log), ["one", "two"]);
        assert!(log.new_lines().is_empty());
        write(&memory, &mut stream, "ee\n\x1b[31mred\n");
        assert_eq!(texts(&mut log), ["three", "?[31mred"]);
        assert_eq!(log.last_lines(2), ["three", "?[31mred"]);
    }

    #[test]
    fn wraps_and_loses_the_oldest() {
        let (memory, mut log) = log();
        let mut stream = 0;
        for number in 0..20_000 {
            write(&memory, &mut stream, &format!("line {number}\n"));
        }
        assert_eq!(log.last_lines(1), ["line 19999"]);
        let lines = texts(&mut log);
        assert_eq!(lines.last().map(String::as_str), Some("line 19999"));
        assert!(lines.len() < 20_000);
        assert!(lines[0].ends_with("bytes were overwritten before they were read"));
    }

    #[test]
    fn nonsense_counts() {
        let (memory, mut log) = log();
        for count in [u64::MAX, 1 << 63, LOG_BYTES as u64, 0, 7, u64::MAX - 1] {
            memory.write_obj(count, GuestAddress(4096)).unwrap();
            let _ = log.new_lines();
            let _ = log.last_lines(10);
        }
    }
}
