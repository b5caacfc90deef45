//! Records from bytes. The bytes are the guest's: any may come, and each gives records or an error.

use husk_abi::boundary::record::{
    ARGS_BYTES, ENTRY_STRING, ENTRY_STRINGS, ENTRY_TRUNCATED, ENTRY_UNREADABLE, EntryHeader,
    KIND_LOST, KIND_SYSCALL, MAX_RECORD_BYTES, MIN_RECORD_BYTES, RECORD_NO_RETURN, RecordHeader,
};

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Its length cannot be.
    #[error("a record is {bytes} bytes long, of {left} left")]
    Length {
        /// As its header says.
        bytes: u64,
        /// Bytes that are there.
        left: usize,
    },
    /// Its kind is unknown.
    #[error("a record is of the unknown kind {0}")]
    Kind(u16),
    /// Its payload does not fit it.
    #[error("a record's payload does not fit it")]
    Payload,
}

/// What an argument points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pointee {
    /// A string.
    Text(Vec<u8>),
    /// An array of strings.
    List(Vec<Vec<u8>>),
    /// Memory that could not be read.
    Unreadable,
}

/// A payload entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Index of the argument.
    pub argument: usize,
    /// What it points to.
    pub pointee: Pointee,
    /// Whether there was more.
    pub truncated: bool,
}

/// A system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The fixed part.
    pub header: RecordHeader,
    /// Argument registers.
    pub args: [u64; 6],
    /// What arguments point to.
    pub entries: Vec<Entry>,
}

impl Call {
    /// What it returned, unless it does not return.
    pub fn result(&self) -> Option<i64> {
        (self.header.flags & RECORD_NO_RETURN == 0).then_some(self.header.result.cast_signed())
    }
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A system call.
    Call(Call),
    /// Records were dropped here.
    Lost {
        /// Number of the next record.
        sequence: u64,
        /// How many.
        count: u64,
    },
}

/// Appends the records that `bytes` consist of to `records`.
pub fn records(mut bytes: &[u8], records: &mut Vec<Record>) -> Result<(), Malformed> {
    while !bytes.is_empty() {
        let (record, rest) = record(bytes)?;
        records.push(record);
        bytes = rest;
    }
    Ok(())
}

fn record(bytes: &[u8]) -> Result<(Record, &[u8]), Malformed> {
    let left = bytes.len();
    let Some((head, _)) = bytes.split_first_chunk() else {
        return Err(Malformed::Length {
            bytes: MIN_RECORD_BYTES as u64,
            left,
        });
    };
    let header = RecordHeader::from_bytes(head);
    let (record, rest) = usize::try_from(header.bytes)
        .ok()
        .filter(|len| (MIN_RECORD_BYTES..=MAX_RECORD_BYTES).contains(len) && len % 8 == 0)
        .and_then(|len| bytes.split_at_checked(len))
        .ok_or(Malformed::Length {
            bytes: u64::from(header.bytes),
            left,
        })?;
    let (args, payload) = record[size_of::<RecordHeader>()..].split_at(ARGS_BYTES);
    match header.kind {
        KIND_SYSCALL => {}
        KIND_LOST => {
            let lost = Record::Lost {
                sequence: header.sequence,
                count: header.result,
            };
            return Ok((lost, rest));
        }
        kind => return Err(Malformed::Kind(kind)),
    }
    if u32::try_from(payload.len()) != Ok(header.payload_bytes) {
        return Err(Malformed::Payload);
    }
    let mut registers = [0; 6];
    for (register, bytes) in registers.iter_mut().zip(args.as_chunks().0) {
        *register = u64::from_le_bytes(*bytes);
    }
    let call = Call {
        header,
        args: registers,
        entries: entries(payload)?,
    };
    Ok((Record::Call(call), rest))
}

fn entries(mut payload: &[u8]) -> Result<Vec<Entry>, Malformed> {
    let mut entries = Vec::new();
    while let Some((head, rest)) = payload.split_first_chunk() {
        let header = EntryHeader::from_bytes(head);
        let argument = usize::from(header.argument);
        let len = usize::try_from(header.bytes).map_err(|_| Malformed::Payload)?;
        let padded = len.checked_next_multiple_of(8).ok_or(Malformed::Payload)?;
        let (padded, rest) = rest.split_at_checked(padded).ok_or(Malformed::Payload)?;
        let bytes = &padded[..len];
        let pointee = match header.kind {
            _ if argument >= 6 => return Err(Malformed::Payload),
            _ if header.flags & ENTRY_UNREADABLE != 0 && bytes.is_empty() => Pointee::Unreadable,
            ENTRY_STRING => Pointee::Text(bytes.to_vec()),
            ENTRY_STRINGS => Pointee::List(strings(bytes)),
            _ => return Err(Malformed::Payload),
        };
        entries.push(Entry {
            argument,
            pointee,
            truncated: header.flags & (ENTRY_TRUNCATED | ENTRY_UNREADABLE) != 0,
        });
        payload = rest;
    }
    if payload.is_empty() {
        Ok(entries)
    } else {
        Err(Malformed::Payload)
    }
}

/// Strings, each ended by a NUL.
fn strings(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut strings: Vec<Vec<u8>> = bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    // What follows the last NUL.
    strings.pop();
    strings
}
