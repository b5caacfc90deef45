//! Received bytes: pieces as they were sent, small ones put together.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;

/// Pieces are filled up to this size before another one is begun.
const PIECE: usize = 4096;

/// Bytes from `start` on.
#[derive(Debug, Default)]
struct Piece {
    data: Vec<u8>,
    start: usize,
}

/// A queue of bytes. One reader at a time may have a piece out of it ([`ByteQueue::take`]); these bytes still
/// count as queued.
#[derive(Debug, Default)]
pub struct ByteQueue {
    pieces: VecDeque<Piece>,
    len: usize,
}

/// A piece that is being read.
#[derive(Debug)]
pub struct Taken {
    index: usize,
    piece: Piece,
}

impl Taken {
    /// The bytes that were not read before.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.piece.data[self.piece.start..]
    }
}

impl ByteQueue {
    /// Bytes queued.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds bytes at the end.
    pub fn push(&mut self, data: Vec<u8>) {
        self.len += data.len();
        if data.len() < PIECE
            && let Some(last) = self.pieces.back_mut()
            // A piece that is out for reading is empty here.
            && !last.data.is_empty()
            && last.data.len() + data.len() <= PIECE
        {
            last.data.extend_from_slice(&data);
        } else {
            self.pieces.push_back(Piece { data, start: 0 });
        }
    }

    /// Takes out piece `index`, which the caller puts back.
    pub fn take(&mut self, index: usize) -> Option<Taken> {
        let piece = mem::take(self.pieces.get_mut(index)?);
        Some(Taken { index, piece })
    }

    /// Puts a piece back of which `read` bytes are read for good. The queue may have been emptied meanwhile.
    pub fn put_back(&mut self, taken: Taken, read: usize) {
        let Taken { index, mut piece } = taken;
        if index >= self.pieces.len() {
            return;
        }
        piece.start += read;
        self.len = self.len.saturating_sub(read);
        if piece.start == piece.data.len() {
            self.pieces.remove(index);
        } else {
            self.pieces[index] = piece;
        }
    }

    /// Takes everything.
    pub fn clear(&mut self) -> Self {
        mem::take(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_in_and_out() {
        let mut queue = ByteQueue::default();
        queue.push(b"abc".to_vec());
        queue.push(b"def".to_vec());
        queue.push(vec![b'x'; PIECE]);
        assert_eq!((queue.len(), queue.pieces.len()), (6 + PIECE, 2));
        let taken = queue.take(0).unwrap();
        assert_eq!(taken.bytes(), b"abcdef");
        // Bytes that come while a piece is out.
        queue.push(b"late".to_vec());
        queue.put_back(taken, 4);
        assert_eq!(queue.len(), 6 + PIECE);
        let taken = queue.take(0).unwrap();
        assert_eq!(taken.bytes(), b"ef");
        queue.put_back(taken, 2);
        assert_eq!(queue.take(0).unwrap().bytes().len(), PIECE);
    }
}
