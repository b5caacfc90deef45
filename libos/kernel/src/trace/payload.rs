//! What arguments point to: paths, a program's arguments, structs.

use alloc::vec::Vec;

use husk_abi::boundary::record::{
    ENTRY_AFTER, ENTRY_BYTES, ENTRY_STRING, ENTRY_STRINGS, ENTRY_TRUNCATED, ENTRY_UNREADABLE,
    EntryHeader, MAX_STRING_BYTES, MAX_STRINGS_BYTES, MAX_STRUCT_BYTES,
};
use husk_abi::linux::arguments::{Extent, Pointee, fcntl_pointee, ioctl_pointee};
use husk_abi::linux::syscalls::Syscall;

use crate::Errno;
use crate::user::UserAddr;

/// What was read of the program's memory.
struct Memory {
    bytes: Vec<u8>,
    flags: u8,
}

/// Appends what `row`'s arguments point to before the call is made: what it reads.
pub(super) fn before(row: &Syscall, args: &[u64; 6], payload: &mut Vec<u8>) {
    for (index, at, pointee) in pointees(row, args) {
        let Some(pointee) = narrowed(pointee, index, args).filter(|pointee| pointee.is_input)
        else {
            continue;
        };
        match pointee.extent {
            Extent::String => push(payload, index, ENTRY_STRING, &string(at)),
            Extent::Strings => push(payload, index, ENTRY_STRINGS, &strings(at)),
            extent => {
                if let Some(len) = length(extent, index, args, 0) {
                    push(payload, index, ENTRY_BYTES, &bytes(at, len, 0));
                }
            }
        }
    }
}

/// Appends what `row`'s arguments point to after a call that succeeded with `result`: what it wrote.
pub(super) fn after(row: &Syscall, args: &[u64; 6], result: usize, payload: &mut Vec<u8>) {
    for (index, at, pointee) in pointees(row, args) {
        let pointee = narrowed(pointee, index, args).filter(|pointee| pointee.is_output);
        let len = pointee.and_then(|pointee| length(pointee.extent, index, args, result));
        if let Some(len) = len {
            push(payload, index, ENTRY_BYTES, &bytes(at, len, ENTRY_AFTER));
        }
    }
}

/// Indices, addresses and pointees of the arguments that point somewhere.
fn pointees<'a>(
    row: &'a Syscall,
    args: &'a [u64; 6],
) -> impl Iterator<Item = (u8, UserAddr, Pointee)> + 'a {
    (0u8..)
        .zip(row.args.iter().zip(args))
        .filter(|(_, (_, value))| **value != 0)
        .filter_map(|(index, ((_, kind), value))| Some((index, UserAddr(*value), kind.pointee()?)))
}

/// With the extent that the request or command before it gives it.
fn narrowed(pointee: Pointee, index: u8, args: &[u64; 6]) -> Option<Pointee> {
    let what = args[usize::from(index).saturating_sub(1)] as u32;
    let (len, is_input, is_output) = match pointee.extent {
        Extent::Ioctl => ioctl_pointee(what)?,
        Extent::Fcntl => fcntl_pointee(what)?,
        _ => return Some(pointee),
    };
    Some(Pointee {
        extent: Extent::Fixed(len),
        is_input,
        is_output,
    })
}

/// Bytes of what is pointed to.
fn length(extent: Extent, index: u8, args: &[u64; 6], result: usize) -> Option<usize> {
    let next = args.get(usize::from(index) + 1).copied().unwrap_or(0);
    let size = usize::try_from(next).unwrap_or(usize::MAX);
    let len = match extent {
        Extent::Fixed(len) => usize::from(len),
        Extent::NextValue => size,
        Extent::NextPointee => UserAddr(next).read::<u32>().ok()? as usize,
        Extent::NextCount(element) => size.saturating_mul(usize::from(element)),
        Extent::ResultCount(element) => result.saturating_mul(usize::from(element)),
        Extent::String | Extent::Strings | Extent::Ioctl | Extent::Fcntl => return None,
    };
    (len > 0).then_some(len)
}

fn bytes(at: UserAddr, len: usize, flags: u8) -> Memory {
    let mut bytes = alloc::vec![0; len.min(MAX_STRUCT_BYTES)];
    match at.read_bytes(&mut bytes) {
        Ok(()) if len > MAX_STRUCT_BYTES => Memory {
            bytes,
            flags: flags | ENTRY_TRUNCATED,
        },
        Ok(()) => Memory { bytes, flags },
        Err(_) => Memory {
            bytes: Vec::new(),
            flags: flags | ENTRY_UNREADABLE,
        },
    }
}

fn push(payload: &mut Vec<u8>, argument: u8, kind: u8, memory: &Memory) {
    let header = EntryHeader {
        argument,
        kind,
        flags: memory.flags,
        reserved: 0,
        bytes: memory.bytes.len() as u32,
    };
    payload.extend_from_slice(&header.to_bytes());
    payload.extend_from_slice(&memory.bytes);
    payload.resize(payload.len().next_multiple_of(8), 0);
}

fn string(at: UserAddr) -> Memory {
    let failed = |bytes, flags| Memory { bytes, flags };
    match at.read_cstr(MAX_STRING_BYTES) {
        Ok(bytes) => Memory { bytes, flags: 0 },
        Err(Errno::ENAMETOOLONG) => {
            let mut bytes = alloc::vec![0; MAX_STRING_BYTES];
            match at.read_bytes(&mut bytes) {
                Ok(()) => failed(bytes, ENTRY_TRUNCATED),
                Err(_) => failed(Vec::new(), ENTRY_UNREADABLE),
            }
        }
        Err(_) => failed(Vec::new(), ENTRY_UNREADABLE),
    }
}

fn strings(array: UserAddr) -> Memory {
    let mut bytes = Vec::new();
    for index in 0.. {
        let flags = match array.add(index * 8).read::<u64>() {
            Ok(0) => 0,
            Ok(pointer) => {
                let text = string(UserAddr(pointer));
                let fits = bytes.len() + text.bytes.len() < MAX_STRINGS_BYTES;
                if fits && text.flags == 0 {
                    bytes.extend_from_slice(&text.bytes);
                    bytes.push(0);
                    continue;
                }
                if fits { text.flags } else { ENTRY_TRUNCATED }
            }
            Err(_) => ENTRY_UNREADABLE,
        };
        return Memory { bytes, flags };
    }
    Memory { bytes, flags: 0 }
}
