//! The bytes in a pipe: a ring that grows up to the pipe's capacity, and where its packets begin and end.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::user::IoBuf;
use crate::{Errno, Result};

/// Bytes a write puts in without others' bytes between them (`PIPE_BUF`); also the largest packet.
pub const PIPE_BUF: usize = 4096;

/// A packet (`O_DIRECT`), in positions of the pipe's byte stream.
#[derive(Clone, Copy, Debug)]
struct Packet {
    start: u64,
    end: u64,
}

/// The contents of a pipe. Positions count bytes since the pipe was made; `position % buffer.len()` is the
/// place in the ring.
#[derive(Debug)]
pub struct Ring {
    buffer: Vec<u8>,
    capacity: usize,
    read_at: u64,
    write_at: u64,
    packets: VecDeque<Packet>,
}

impl Ring {
    /// An empty pipe of at most `capacity` bytes, a power of two of at least one page.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self {
            buffer: Vec::new(),
            capacity,
            read_at: 0,
            write_at: 0,
            packets: VecDeque::new(),
        }
    }

    /// Bytes in the pipe.
    #[must_use]
    pub fn used(&self) -> usize {
        (self.write_at - self.read_at) as usize
    }

    /// Bytes a write can add. Each packet takes at least a page's slot, as on Linux.
    #[must_use]
    pub fn free(&self) -> usize {
        if self.packets.len() >= self.capacity / PIPE_BUF {
            0
        } else {
            self.capacity.saturating_sub(self.used())
        }
    }

    /// The most it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Changes the capacity (a power of two of at least one page).
    ///
    /// # Errors
    /// `EBUSY` if it holds more; `ENOMEM`.
    pub fn set_capacity(&mut self, capacity: usize) -> Result<()> {
        if self.used() > capacity || self.packets.len() > capacity / PIPE_BUF {
            return Err(Errno::EBUSY);
        }
        if self.buffer.len() > capacity {
            self.reallocate(capacity)?;
        }
        self.capacity = capacity;
        Ok(())
    }

    /// Makes the buffer `len` bytes long (a power of two) and moves the contents to where they belong.
    fn reallocate(&mut self, len: usize) -> Result<()> {
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
        buffer.resize(len, 0);
        let mut at = self.read_at;
        while at < self.write_at {
            let from = self.place(at);
            let to = at as usize & (len - 1);
            let run = (self.write_at - at) as usize;
            let run = run.min(self.buffer.len() - from).min(len - to);
            buffer[to..to + run].copy_from_slice(&self.buffer[from..from + run]);
            at += run as u64;
        }
        self.buffer = buffer;
        Ok(())
    }

    fn place(&self, at: u64) -> usize {
        at as usize & (self.buffer.len() - 1)
    }

    /// Makes room for `len` more bytes.
    fn grow_for(&mut self, len: usize) -> Result<()> {
        let needed = self.used() + len;
        if needed <= self.buffer.len() {
            return Ok(());
        }
        self.reallocate(needed.next_power_of_two().max(PIPE_BUF))
    }

    /// Puts back what was read last, in front of what was not read; the capacity may be exceeded.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn unread(&mut self, bytes: &[u8]) -> Result<()> {
        self.grow_for(bytes.len())?;
        for byte in bytes.iter().rev() {
            self.read_at -= 1;
            let at = self.place(self.read_at);
            self.buffer[at] = *byte;
        }
        Ok(())
    }

    /// Takes up to `len` bytes from `from`, as far as there is room.
    ///
    /// # Errors
    /// `EFAULT`, `ENOMEM` if nothing was moved.
    pub fn fill(&mut self, from: &mut IoBuf<'_>, len: usize) -> Result<usize> {
        let len = len.min(self.free()).min(from.remaining());
        self.grow_for(len)?;
        let mut moved = 0;
        while moved < len {
            let at = self.place(self.write_at);
            let run = (len - moved).min(self.buffer.len() - at);
            match from.take(&mut self.buffer[at..at + run]) {
                Ok(got) => {
                    self.write_at += got as u64;
                    moved += got;
                    if got < run {
                        break;
                    }
                }
                Err(_) if moved > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(moved)
    }

    /// As [`Ring::fill`], as one packet of at most [`PIPE_BUF`] bytes.
    ///
    /// # Errors
    /// As [`Ring::fill`].
    pub fn fill_packet(&mut self, from: &mut IoBuf<'_>) -> Result<usize> {
        let start = self.write_at;
        let moved = self.fill(from, PIPE_BUF)?;
        if moved > 0 {
            self.packets.push_back(Packet {
                start,
                end: self.write_at,
            });
        }
        Ok(moved)
    }

    /// Moves bytes into `to` until it is full, the pipe is empty, or a packet was read; what does not fit of a
    /// packet is lost.
    ///
    /// # Errors
    /// `EFAULT` if nothing was moved.
    pub fn drain(&mut self, to: &mut IoBuf<'_>) -> Result<usize> {
        let mut moved = 0;
        while self.used() > 0 && to.remaining() > 0 {
            let packet = self.packets.front().copied();
            let inside = packet.is_some_and(|packet| packet.start <= self.read_at);
            let end = match packet {
                Some(packet) if inside => packet.end,
                Some(packet) => packet.start,
                None => self.write_at,
            };
            let want = ((end - self.read_at) as usize).min(to.remaining());
            let got = match self.drain_run(to, want) {
                Ok(got) => got,
                Err(_) if moved > 0 => break,
                Err(error) => return Err(error),
            };
            moved += got;
            if got < want {
                break;
            }
            if inside {
                self.read_at = end;
                self.packets.pop_front();
                break;
            }
        }
        Ok(moved)
    }

    /// Moves up to `want` bytes, which are there, into `to`.
    fn drain_run(&mut self, to: &mut IoBuf<'_>, want: usize) -> Result<usize> {
        let mut moved = 0;
        while moved < want {
            let at = self.place(self.read_at);
            let run = (want - moved).min(self.buffer.len() - at);
            match to.put(&self.buffer[at..at + run]) {
                Ok(got) => {
                    self.read_at += got as u64;
                    moved += got;
                    if got < run {
                        break;
                    }
                }
                Err(_) if moved > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(moved)
    }

    /// Copies up to `len` bytes of the contents into another ring, without consuming them (`tee(2)`).
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn copy_to(&self, to: &mut Ring, len: usize) -> Result<usize> {
        let len = len.min(self.used()).min(to.free());
        let mut at = self.read_at;
        let end = at + len as u64;
        while at < end {
            let place = self.place(at);
            let run = ((end - at) as usize).min(self.buffer.len() - place);
            to.fill(
                &mut IoBuf::kernel_const(&self.buffer[place..place + run]),
                run,
            )?;
            at += run as u64;
        }
        Ok(len)
    }

    /// Drops `len` bytes from the front (they were moved by [`Ring::copy_to`]).
    pub fn consume(&mut self, len: usize) {
        self.read_at += len.min(self.used()) as u64;
        while self
            .packets
            .front()
            .is_some_and(|packet| packet.end <= self.read_at)
        {
            self.packets.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PIPE_BUF, Ring};
    use crate::Errno;
    use crate::user::IoBuf;
    use std::collections::VecDeque;

    /// xorshift, so that a failing run can be repeated.
    struct Seeded(u64);

    impl Seeded {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit as u64) as usize
        }
    }

    #[test]
    fn behaves_like_a_queue() {
        for seed in 1..6 {
            let mut random = Seeded(seed * 0x9e37_79b9);
            let mut ring = Ring::new(65536);
            let mut model = VecDeque::new();
            let mut next = 0u8;
            for _ in 0..2000 {
                match random.below(5) {
                    0 | 1 => {
                        let span = if random.below(4) == 0 { 70_000 } else { 5000 };
                        let bytes: Vec<u8> = (0..random.below(span))
                            .map(|_| {
                                next = next.wrapping_add(1);
                                next
                            })
                            .collect();
                        let room = ring.free();
                        let mut from = IoBuf::kernel_const(&bytes);
                        let moved = ring.fill(&mut from, bytes.len()).unwrap();
                        assert_eq!(moved, bytes.len().min(room));
                        model.extend(&bytes[..moved]);
                    }
                    2 | 3 => {
                        let mut bytes = vec![0; random.below(9000) + 1];
                        let moved = ring.drain(&mut IoBuf::kernel(&mut bytes)).unwrap();
                        assert_eq!(moved, bytes.len().min(model.len()));
                        let expected: Vec<u8> = model.drain(..moved).collect();
                        assert_eq!(bytes[..moved], expected);
                    }
                    _ => {
                        let capacity = 4096 << random.below(6);
                        let fits = model.len() <= capacity;
                        assert_eq!(ring.set_capacity(capacity).is_ok(), fits);
                        if ring.capacity() < 65536 && random.below(2) == 0 {
                            ring.set_capacity(65536).unwrap();
                        }
                    }
                }
                assert_eq!(ring.used(), model.len());
                assert_eq!(ring.free(), ring.capacity() - model.len());
            }
        }
    }

    #[test]
    fn packets_keep_their_borders() {
        let mut ring = Ring::new(8192);
        let write =
            |ring: &mut Ring, bytes: &[u8]| ring.fill_packet(&mut IoBuf::kernel_const(bytes));
        assert_eq!(write(&mut ring, b"first packet"), Ok(12));
        assert_eq!(write(&mut ring, b"second"), Ok(6));
        // Two slots of a page each are in use.
        assert_eq!(ring.free(), 0);
        let mut bytes = [0; 5];
        assert_eq!(ring.drain(&mut IoBuf::kernel(&mut bytes)), Ok(5));
        assert_eq!(&bytes, b"first");
        let mut bytes = [0; 64];
        assert_eq!(ring.drain(&mut IoBuf::kernel(&mut bytes)), Ok(6));
        assert_eq!(&bytes[..6], b"second");
        assert_eq!((ring.used(), ring.free()), (0, 8192));

        let mut stream = IoBuf::kernel_const(b"stream");
        ring.fill(&mut stream, 6).unwrap();
        write(&mut ring, b"packet").unwrap();
        write(&mut ring, b"next").unwrap();
        // A read takes the stream's bytes and goes on to the end of the first packet.
        assert_eq!(ring.drain(&mut IoBuf::kernel(&mut bytes)), Ok(12));
        assert_eq!(ring.drain(&mut IoBuf::kernel(&mut bytes)), Ok(4));
        let large = vec![7; PIPE_BUF + 1];
        assert_eq!(write(&mut ring, &large), Ok(PIPE_BUF));
    }

    #[test]
    fn shrinking_keeps_the_bytes() {
        let mut ring = Ring::new(65536);
        let bytes: Vec<u8> = (0..50_000u32).map(|i| i as u8).collect();
        ring.fill(&mut IoBuf::kernel_const(&bytes), bytes.len())
            .unwrap();
        assert_eq!(ring.set_capacity(32768), Err(Errno::EBUSY));
        let mut out = vec![0; 48_000];
        ring.drain(&mut IoBuf::kernel(&mut out)).unwrap();
        ring.set_capacity(4096).unwrap();
        let mut rest = vec![0; 4096];
        assert_eq!(ring.drain(&mut IoBuf::kernel(&mut rest)), Ok(2000));
        assert_eq!(rest[..2000], bytes[48_000..]);
    }

    #[test]
    fn tee_copies_and_consume_drops() {
        let mut from = Ring::new(4096);
        let mut to = Ring::new(4096);
        from.fill(&mut IoBuf::kernel_const(b"hello"), 5).unwrap();
        assert_eq!(from.copy_to(&mut to, 3), Ok(3));
        assert_eq!((from.used(), to.used()), (5, 3));
        from.consume(3);
        assert_eq!(from.used(), 2);
        from.unread(b"hel").unwrap();
        let mut bytes = [0; 5];
        from.drain(&mut IoBuf::kernel(&mut bytes)).unwrap();
        assert_eq!(&bytes, b"hello");
    }
}
