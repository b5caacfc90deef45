//! A new program's stack: arguments, environment and auxiliary vector, as Linux's `create_elf_tables` lays
//! them out (System V ABI, figure 3.9).

use alloc::vec::Vec;

use crate::{Errno, Result};

/// The longest single argument or environment string, NUL included (`MAX_ARG_STRLEN`).
const MAX_STRING_BYTES: usize = 32 * 4096;
/// Room for strings and pointers whatever the stack limit (`ARG_MAX`), and at most.
const MIN_ARGUMENT_BYTES: u64 = 128 << 10;
const MAX_ARGUMENT_BYTES: u64 = 6 << 20;
const PLATFORM: &[u8] = b"x86_64\0";

/// What goes onto the stack.
#[derive(Clone, Debug)]
pub struct Contents<'a> {
    /// Arguments, without NULs.
    pub argv: &'a [Vec<u8>],
    /// Environment, without NULs.
    pub envp: &'a [Vec<u8>],
    /// Path of the program (`AT_EXECFN`).
    pub execfn: &'a [u8],
    /// `AT_RANDOM`'s bytes.
    pub random: [u8; 16],
    /// Bytes, below 8192, by which the stack starts lower.
    pub shift: u64,
    /// Auxiliary vector up to `AT_EGID` and from `AT_HWCAP2` on: values that need no address on the stack.
    pub auxv: &'a [(u32, u64)],
}

/// A stack as it is to be written to memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "addresses, in proc_pid_stat(5)'s terms")]
pub struct StackImage {
    /// The initial stack pointer, and where `bytes` begin.
    pub pointer: u64,
    /// Everything from there to the stack's top.
    pub bytes: Vec<u8>,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
    pub auxv_start: u64,
    pub auxv_bytes: u64,
}

/// `AT_*` numbers whose values are addresses in the stack itself.
mod at {
    use husk_abi::linux::auxvec;
    pub const NULL: u32 = auxvec::AT_NULL;
    pub const RANDOM: u32 = auxvec::AT_RANDOM;
    pub const EXECFN: u32 = auxvec::AT_EXECFN;
    pub const PLATFORM: u32 = auxvec::AT_PLATFORM;
}

/// Whether strings and pointers fit a stack with limit `stack_limit`.
///
/// # Errors
/// `E2BIG`.
pub fn check_size(argv: &[Vec<u8>], envp: &[Vec<u8>], stack_limit: u64) -> Result<()> {
    let limit = (stack_limit / 4).clamp(MIN_ARGUMENT_BYTES, MAX_ARGUMENT_BYTES);
    let mut total = 0u64;
    for string in argv.iter().chain(envp) {
        if string.len() >= MAX_STRING_BYTES {
            return Err(Errno::E2BIG);
        }
        total += string.len() as u64 + 1 + 8;
    }
    if total > limit {
        return Err(Errno::E2BIG);
    }
    Ok(())
}

/// Lays the stack out below `top`.
#[must_use]
pub fn build(top: u64, contents: &Contents<'_>) -> StackImage {
    let string_bytes =
        |strings: &[Vec<u8>]| strings.iter().map(|s| s.len() as u64 + 1).sum::<u64>();
    // From the top down: a NULL, the path, the environment, the arguments.
    let execfn = top - 8 - (contents.execfn.len() as u64 + 1);
    let env_start = execfn - string_bytes(contents.envp);
    let arg_start = env_start - string_bytes(contents.argv);
    let aligned = (arg_start - contents.shift) & !15;
    let platform = aligned - PLATFORM.len() as u64;
    let random = platform - contents.random.len() as u64;

    let mut auxv: Vec<(u32, u64)> = contents.auxv.to_vec();
    auxv.extend([
        (at::RANDOM, random),
        (at::EXECFN, execfn),
        (at::PLATFORM, platform),
        (at::NULL, 0),
    ]);
    let words = 1 + contents.argv.len() + 1 + contents.envp.len() + 1 + auxv.len() * 2;
    let pointer = (random - words as u64 * 8) & !15;

    let mut bytes = alloc::vec![0; (top - pointer) as usize];
    let mut put = |address: u64, data: &[u8]| {
        let from = (address - pointer) as usize;
        bytes[from..from + data.len()].copy_from_slice(data);
        address + data.len() as u64
    };
    put(execfn, contents.execfn);
    put(platform, PLATFORM);
    put(random, &contents.random);
    let mut at = put(pointer, &(contents.argv.len() as u64).to_le_bytes());
    for (strings, mut string_at) in [(contents.argv, arg_start), (contents.envp, env_start)] {
        for string in strings {
            at = put(at, &string_at.to_le_bytes());
            string_at = put(string_at, string) + 1;
        }
        at = put(at, &0u64.to_le_bytes());
    }
    let auxv_start = at;
    for (kind, value) in &auxv {
        at = put(at, &u64::from(*kind).to_le_bytes());
        at = put(at, &value.to_le_bytes());
    }
    StackImage {
        pointer,
        bytes,
        arg_start,
        arg_end: env_start,
        env_start,
        env_end: execfn,
        auxv_start,
        auxv_bytes: at - auxv_start,
    }
}

#[cfg(test)]
#[path = "stack_tests.rs"]
mod tests;
