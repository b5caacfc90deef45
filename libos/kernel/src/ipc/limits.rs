//! How much an IPC namespace may hold (`sysvipc(7)`, `/proc/sys/kernel`).

use alloc::string::String;

use super::{msg, sem, shm};

/// The limits of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `shmmax`: bytes of a segment.
    pub segment_bytes: u64,
    /// `shmall`: pages of all segments.
    pub segment_pages: u64,
    /// `shmmni`: segments.
    pub segments: usize,
    /// `msgmax`: bytes of a message.
    pub message_bytes: usize,
    /// `msgmnb`: bytes of a queue at first.
    pub queue_bytes: u64,
    /// `msgmni`: queues.
    pub queues: usize,
    /// `sem`: semaphores of a set, semaphores in all, operations of a call, sets.
    pub semaphores: [usize; 4],
}

impl Default for Limits {
    /// Linux's own.
    fn default() -> Self {
        Self {
            segment_bytes: shm::MAX_BYTES,
            segment_pages: shm::MAX_PAGES,
            segments: shm::MAX_SEGMENTS,
            message_bytes: msg::MAX_BYTES,
            queue_bytes: msg::QUEUE_BYTES,
            queues: msg::MAX_QUEUES,
            semaphores: [
                sem::MAX_OF_SET,
                sem::MAX_IN_ALL,
                sem::MAX_OPERATIONS,
                sem::MAX_SETS,
            ],
        }
    }
}

/// The most objects of a kind that there can be (`IPCMNI`).
const MAX_OBJECTS: usize = 32768;

impl Limits {
    /// Those that settings of `kernel` change. Whoever configured the container has checked their form.
    #[must_use]
    pub fn of(settings: &[(String, String)]) -> Self {
        let mut limits = Self::default();
        for (name, value) in settings {
            let mut numbers = value
                .split_ascii_whitespace()
                .filter_map(|word| word.parse::<u64>().ok());
            let Some(first) = numbers.next() else {
                continue;
            };
            let count = usize::try_from(first).unwrap_or(usize::MAX);
            match name.as_str() {
                "kernel.shmmax" => limits.segment_bytes = first,
                "kernel.shmall" => limits.segment_pages = first,
                "kernel.shmmni" => limits.segments = count.min(MAX_OBJECTS),
                "kernel.msgmax" => limits.message_bytes = count,
                "kernel.msgmnb" => limits.queue_bytes = first,
                "kernel.msgmni" => limits.queues = count.min(MAX_OBJECTS),
                "kernel.sem" => {
                    limits.semaphores[0] = count;
                    for (limit, number) in limits.semaphores[1..].iter_mut().zip(numbers) {
                        *limit = usize::try_from(number).unwrap_or(usize::MAX);
                    }
                }
                _ => {}
            }
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn settings_change_limits() {
        let settings = [
            ("kernel.shmmax", "12345"),
            ("kernel.msgmni", "99999999"),
            ("kernel.sem", "10\t20 30 40"),
            ("kernel.msgmax", "words"),
            ("net.core.somaxconn", "1"),
        ]
        .map(|(name, value)| (name.to_string(), value.to_string()));
        let limits = Limits::of(&settings);
        assert_eq!(limits.segment_bytes, 12345);
        assert_eq!(limits.queues, MAX_OBJECTS);
        assert_eq!(limits.semaphores, [10, 20, 30, 40]);
        assert_eq!(limits.message_bytes, msg::MAX_BYTES);
    }
}
