//! The libOS's log ring.

use husk_abi::boundary::boot::GuestRange;
use husk_abi::boundary::log::{LOG_BYTES, LogRing};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// The libOS's last messages, oldest first. What the guest wrote is shown as text, control characters removed.
#[must_use]
pub fn read_log(memory: &GuestMemoryMmap, ring: GuestRange) -> Vec<String> {
    let Ok(written) = memory.read_obj::<u64>(GuestAddress(ring.gpa)) else {
        return Vec::new();
    };
    let mut text = vec![0; LOG_BYTES];
    let start = GuestAddress(ring.gpa + size_of::<LogRing>() as u64);
    if memory.read_slice(&mut text, start).is_err() {
        return Vec::new();
    }
    let written = usize::try_from(written).unwrap_or(usize::MAX);
    if written <= LOG_BYTES {
        text.truncate(written);
    } else {
        text.rotate_left(written % LOG_BYTES);
        // The oldest line has lost its start.
        let first = text
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        text.drain(..first);
    }
    String::from_utf8_lossy(&text)
        .lines()
        .map(|line| line.chars().filter(|c| !c.is_control()).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory_with(written: u64, text: &[u8]) -> (GuestMemoryMmap, GuestRange) {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("memory");
        memory
            .write_obj(written, GuestAddress(0x1000))
            .expect("write");
        memory
            .write_slice(text, GuestAddress(0x1008))
            .expect("write");
        (
            memory,
            GuestRange {
                gpa: 0x1000,
                len: 8 + LOG_BYTES as u64,
            },
        )
    }

    #[test]
    fn short_log() {
        let (memory, ring) = memory_with(10, b"one\ntw\x1bo\n!");
        assert_eq!(read_log(&memory, ring), ["one", "two"]);
    }

    #[test]
    fn wrapped_log_starts_at_a_line() {
        let mut text = vec![b'x'; LOG_BYTES];
        text[..6].copy_from_slice(b"new\nld");
        text[6] = b'\n';
        let (memory, ring) = memory_with(LOG_BYTES as u64 + 4, &text);
        let lines = read_log(&memory, ring);
        assert_eq!(
            lines.last().map(String::as_str),
            Some("x".repeat(LOG_BYTES - 7) + "new").as_deref()
        );
    }

    #[test]
    fn hostile_length() {
        let (memory, ring) = memory_with(u64::MAX, b"\xff\xfe");
        let _ = read_log(&memory, ring);
    }
}
