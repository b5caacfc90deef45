//! What arguments point to: paths, and a program's arguments.

use alloc::vec::Vec;

use husk_abi::boundary::record::{
    ENTRY_STRING, ENTRY_STRINGS, ENTRY_TRUNCATED, ENTRY_UNREADABLE, EntryHeader, MAX_STRING_BYTES,
    MAX_STRINGS_BYTES,
};
use husk_abi::linux::syscalls::{ArgKind, lookup};

use crate::Errno;
use crate::user::UserAddr;

/// What was read of the program's memory.
struct Text {
    bytes: Vec<u8>,
    flags: u8,
}

/// The payload entries of a call; empty for most calls.
pub(super) fn capture(nr: u64, args: &[u64; 6]) -> Vec<u8> {
    let mut payload = Vec::new();
    let Some(row) = lookup(nr) else {
        return payload;
    };
    for (index, ((name, kind), value)) in (0u8..).zip(row.args.iter().zip(args)) {
        let at = UserAddr(*value);
        if at.is_null() {
            continue;
        }
        match kind {
            ArgKind::Path => push(&mut payload, index, ENTRY_STRING, &string(at)),
            // The environment may hold secrets, and nobody reads it in a trace.
            ArgKind::Argv if *name != "envp" => {
                push(&mut payload, index, ENTRY_STRINGS, &strings(at));
            }
            _ => {}
        }
    }
    payload
}

fn push(payload: &mut Vec<u8>, argument: u8, kind: u8, text: &Text) {
    let header = EntryHeader {
        argument,
        kind,
        flags: text.flags,
        reserved: 0,
        bytes: text.bytes.len() as u32,
    };
    payload.extend_from_slice(&header.to_bytes());
    payload.extend_from_slice(&text.bytes);
    payload.resize(payload.len().next_multiple_of(8), 0);
}

fn string(at: UserAddr) -> Text {
    let failed = |bytes, flags| Text { bytes, flags };
    match at.read_cstr(MAX_STRING_BYTES) {
        Ok(bytes) => Text { bytes, flags: 0 },
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

fn strings(array: UserAddr) -> Text {
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
        return Text { bytes, flags };
    }
    Text { bytes, flags: 0 }
}
