//! `memcpy` and `memset` for what a kernel copies: mostly some tens of bytes.
//!
//! Those of `compiler_builtins` start a string instruction for every length, which costs more than copying a path or an inode's
//! attributes does. The compiler calls these by name; it does not turn the loops of functions so named into calls of themselves.

use core::arch::asm;

/// From so many bytes on a string instruction is worth its start.
const LONG: usize = 256;

/// Copies `len` bytes.
///
/// # Safety
/// As C's: both are so long and do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    /// Two words of a type, the first and the last of the bytes, which may overlap.
    macro_rules! ends {
        ($word:ty) => {{
            let last = len - size_of::<$word>();
            let (from, to) = (from.cast::<$word>(), to.cast::<$word>());
            let (first, second) = (from.read_unaligned(), from.byte_add(last).read_unaligned());
            to.write_unaligned(first);
            to.byte_add(last).write_unaligned(second);
        }};
    }
    // SAFETY: all offsets are within `len` of what the caller promises.
    unsafe {
        match len {
            0 => {}
            1 => to.write(from.read()),
            2..4 => ends!(u16),
            4..8 => ends!(u32),
            8..=16 => ends!(u64),
            17..LONG => {
                let mut at = 0;
                while at + 16 < len {
                    let from = from.add(at).cast::<u64>();
                    let (low, high) = (from.read_unaligned(), from.add(1).read_unaligned());
                    let to = to.add(at).cast::<u64>();
                    to.write_unaligned(low);
                    to.add(1).write_unaligned(high);
                    at += 16;
                }
                let from = from.add(len - 16).cast::<u64>();
                let (low, high) = (from.read_unaligned(), from.add(1).read_unaligned());
                let to = to.add(len - 16).cast::<u64>();
                to.write_unaligned(low);
                to.add(1).write_unaligned(high);
            }
            _ => asm!(
                "rep movsb",
                inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
                options(nostack, preserves_flags),
            ),
        }
    }
    to
}

/// Fills `len` bytes.
///
/// # Safety
/// As C's: there are so many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "as C's"
    )]
    let byte = value as u8;
    let word = u64::from(byte) * 0x0101_0101_0101_0101;
    // SAFETY: all offsets are within `len` of what the caller promises.
    unsafe {
        match len {
            0..8 => {
                let mut at = 0;
                while at < len {
                    to.add(at).write_volatile(byte);
                    at += 1;
                }
            }
            8..LONG => {
                let mut at = 0;
                while at + 8 < len {
                    to.add(at).cast::<u64>().write_unaligned(word);
                    at += 8;
                }
                to.add(len - 8).cast::<u64>().write_unaligned(word);
            }
            _ => asm!(
                "rep stosb",
                inout("rcx") len => _, inout("rdi") to => _, in("al") byte,
                options(nostack, preserves_flags),
            ),
        }
    }
    to
}
