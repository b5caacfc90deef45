//! Random numbers: the kernel's generator and `getrandom(2)`.
//!
//! ChaCha20 (RFC 8439) with fast key erasure: a block of output starts with the next key, bytes are wiped as
//! they are handed out, so a captured state tells nothing about the past. Written in plain integer code,
//! because the kernel must not touch vector registers and the usual crates select SIMD at run time.

use husk_abi::linux::general;
use husk_hal::entropy;

use crate::sync::SpinLock;
use crate::syscall::{BufOut, Hex, Len};
use crate::user::IoBuf;
use crate::{Errno, Result, SysResult, Thread};

const BLOCK: usize = 64;
const POOL: usize = 4 * BLOCK;
const KEY: usize = 32;
/// The most a single read of a random device or `getrandom(2)` moves before it looks for signals.
const CHUNK: usize = 4096;

/// ChaCha20's block function with a 64-bit counter and a zero nonce.
fn block(key: &[u32; 8], counter: u64, out: &mut [u8]) {
    let mut state = [0u32; 16];
    state[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
    state[4..12].copy_from_slice(key);
    state[12] = counter as u32;
    state[13] = (counter >> 32) as u32;
    permute(&state, out);
}

fn permute(state: &[u32; 16], out: &mut [u8]) {
    let mut x = *state;
    for _ in 0..10 {
        quarter(&mut x, 0, 4, 8, 12);
        quarter(&mut x, 1, 5, 9, 13);
        quarter(&mut x, 2, 6, 10, 14);
        quarter(&mut x, 3, 7, 11, 15);
        quarter(&mut x, 0, 5, 10, 15);
        quarter(&mut x, 1, 6, 11, 12);
        quarter(&mut x, 2, 7, 8, 13);
        quarter(&mut x, 3, 4, 9, 14);
    }
    for (index, word) in out.chunks_mut(4).enumerate() {
        let value = x[index].wrapping_add(state[index]).to_le_bytes();
        word.copy_from_slice(&value[..word.len()]);
    }
}

fn quarter(x: &mut [u32; 16], a: usize, b: usize, c: usize, d: usize) {
    x[a] = x[a].wrapping_add(x[b]);
    x[d] = (x[d] ^ x[a]).rotate_left(16);
    x[c] = x[c].wrapping_add(x[d]);
    x[b] = (x[b] ^ x[c]).rotate_left(12);
    x[a] = x[a].wrapping_add(x[b]);
    x[d] = (x[d] ^ x[a]).rotate_left(8);
    x[c] = x[c].wrapping_add(x[d]);
    x[b] = (x[b] ^ x[c]).rotate_left(7);
}

fn words(key: &[u8]) -> [u32; 8] {
    let mut words = [0; 8];
    for (word, bytes) in words.iter_mut().zip(key.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    words
}

/// The generator: a key and output made from it that was not handed out yet.
#[derive(Debug)]
struct Pool {
    key: [u32; 8],
    ready: [u8; POOL],
    /// Where the rest of `ready` begins.
    at: usize,
    seeded: bool,
}

impl Pool {
    const fn unseeded() -> Self {
        Self {
            key: [0; 8],
            ready: [0; POOL],
            at: POOL,
            seeded: false,
        }
    }

    #[cfg(test)]
    fn with_key(key: [u32; 8]) -> Self {
        Self {
            key,
            seeded: true,
            ..Self::unseeded()
        }
    }

    fn seed(&mut self) {
        for (word, seed) in self.key.chunks_exact_mut(2).zip(entropy::seed()) {
            word[0] ^= seed as u32;
            word[1] ^= (seed >> 32) as u32;
        }
        self.seeded = true;
    }

    fn refill(&mut self) {
        if !self.seeded {
            self.seed();
        }
        for (counter, out) in self.ready.chunks_exact_mut(BLOCK).enumerate() {
            block(&self.key, counter as u64, out);
        }
        self.key = words(&self.ready[..KEY]);
        self.ready[..KEY].fill(0);
        self.at = KEY;
    }

    fn take(&mut self, bytes: &mut [u8]) {
        let mut done = 0;
        while done < bytes.len() {
            if self.at == POOL {
                self.refill();
            }
            let len = (bytes.len() - done).min(POOL - self.at);
            let from = &mut self.ready[self.at..self.at + len];
            bytes[done..done + len].copy_from_slice(from);
            from.fill(0);
            self.at += len;
            done += len;
        }
    }

    /// A stream of its own, for long outputs made without the lock.
    fn fork(&mut self) -> [u32; 8] {
        let mut key = [0; KEY];
        self.take(&mut key);
        words(&key)
    }
}

static GENERATOR: SpinLock<Pool> = SpinLock::new(Pool::unseeded());

/// Fills `bytes` with cryptographically strong random bytes.
pub fn fill(bytes: &mut [u8]) {
    if bytes.len() <= POOL {
        GENERATOR.lock().take(bytes);
        return;
    }
    let key = GENERATOR.lock().fork();
    for (counter, out) in bytes.chunks_mut(BLOCK).enumerate() {
        block(&key, counter as u64, out);
    }
}

/// A random 64-bit number.
#[must_use]
pub fn u64() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Fills all of `buf`; stops early when a signal is pending, or at memory that cannot be written.
///
/// # Errors
/// `EFAULT` if not even the first byte could be written.
pub fn fill_user(t: &Thread, buf: &mut IoBuf<'_>) -> Result<usize> {
    let mut chunk = [0; 256];
    let mut moved = 0;
    while buf.remaining() > 0 {
        let len = buf.remaining().min(chunk.len());
        fill(&mut chunk[..len]);
        match buf.put(&chunk[..len]) {
            Ok(got) => {
                moved += got;
                if got < len {
                    break;
                }
            }
            Err(_) if moved > 0 => break,
            Err(error) => return Err(error),
        }
        if moved.is_multiple_of(CHUNK) && t.signals.is_pending() {
            break;
        }
    }
    Ok(moved)
}

/// `getrandom(2)`. The generator is always seeded, so no flag makes a difference.
///
/// # Errors
/// `EINVAL` for unknown flags or `GRND_INSECURE` with `GRND_RANDOM`; `EFAULT`.
pub fn getrandom(t: &Thread, buf: BufOut, count: Len, flags: Hex) -> SysResult {
    const KNOWN: u32 = general::GRND_NONBLOCK | general::GRND_RANDOM | general::GRND_INSECURE;
    const CONFLICT: u32 = general::GRND_RANDOM | general::GRND_INSECURE;
    // The argument is an unsigned int.
    let flags = flags as u32;
    if flags & !KNOWN != 0 || flags & CONFLICT == CONFLICT {
        return Err(Errno::EINVAL);
    }
    fill_user(t, &mut IoBuf::user(buf, count)?)
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Pool, fill, permute, words};

    #[test]
    fn rfc_8439_block() {
        // RFC 8439, 2.3.2.
        let key: Vec<u8> = (0..32).collect();
        let mut state = [0; 16];
        state[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
        state[4..12].copy_from_slice(&words(&key));
        state[12..].copy_from_slice(&[1, 0x0900_0000, 0x4a00_0000, 0]);
        let mut out = [0; BLOCK];
        permute(&state, &mut out);
        assert_eq!(
            out[..16],
            [
                0x10, 0xf1, 0xe7, 0xe4, 0xd1, 0x3b, 0x59, 0x15, 0x50, 0x0f, 0xdd, 0x1f, 0xa3, 0x20,
                0x71, 0xc4
            ]
        );
        assert_eq!(out[60..], [0xa2, 0x50, 0x3c, 0x4e]);
    }

    #[test]
    fn pieces_do_not_repeat() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10_000 {
            let mut bytes = [0; 16];
            fill(&mut bytes);
            assert!(seen.insert(bytes));
        }
        let mut long = vec![0; 100_000];
        fill(&mut long);
        for piece in long.chunks_exact(16) {
            assert!(seen.insert(piece.try_into().unwrap()));
        }
        let ones: u32 = long.iter().map(|byte| byte.count_ones()).sum();
        assert!((395_000..405_000).contains(&ones), "{ones} ones of 800000");
    }

    #[test]
    fn handed_out_bytes_are_wiped() {
        let mut pool = Pool::with_key([7; 8]);
        let mut bytes = [0; 40];
        pool.take(&mut bytes);
        assert!(pool.ready[..pool.at].iter().all(|byte| *byte == 0));
        assert_ne!(pool.key, [7; 8]);
        // The same key gives the same stream, whatever the pieces.
        let mut again = Pool::with_key([7; 8]);
        let mut one_by_one = [0; 40];
        for byte in &mut one_by_one {
            again.take(core::slice::from_mut(byte));
        }
        assert_eq!(bytes, one_by_one);
    }
}
