//! Records from bytes. The bytes are the guest's, or a file's: any may come, and each gives records or an error.

use husk_abi::boundary::record::{
    ENTRY_AFTER, ENTRY_BYTES, ENTRY_STRING, ENTRY_STRINGS, ENTRY_TRUNCATED, ENTRY_UNREADABLE,
    EntryHeader, KIND_LOST, KIND_SYSCALL, MAX_ARGS, MAX_RECORD_BYTES, MIN_RECORD_BYTES,
    RECORD_NO_RETURN, RecordHeader,
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
    /// Its arguments or its payload do not fit it.
    #[error("a record's payload does not fit it")]
    Payload,
}

/// What an argument points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pointee<'a> {
    /// A string.
    Text(&'a [u8]),
    /// Strings, each ended by a NUL.
    List(&'a [u8]),
    /// A struct or an array.
    Bytes(&'a [u8]),
    /// Memory that could not be read.
    Unreadable,
}

/// A payload entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Index of the argument.
    pub argument: usize,
    /// What it points to.
    pub pointee: Pointee<'a>,
    /// Whether there was more.
    pub truncated: bool,
    /// Whether it was read after the call.
    pub after: bool,
}

/// A system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// The fixed part.
    pub header: RecordHeader,
    /// Argument registers, as many as `header.args` says.
    pub args: [u64; MAX_ARGS],
    /// Entries.
    payload: &'a [u8],
}

impl<'a> Call<'a> {
    /// A call of its parts, if `header` may have them.
    pub fn new(
        header: RecordHeader,
        args: [u64; MAX_ARGS],
        payload: &'a [u8],
    ) -> Result<Self, Malformed> {
        if usize::from(header.args) > MAX_ARGS {
            return Err(Malformed::Payload);
        }
        let mut entries = Entries(payload);
        while entries.next_entry()?.is_some() {}
        Ok(Self {
            header,
            args,
            payload,
        })
    }

    /// The argument registers.
    pub fn args(&self) -> &[u64] {
        &self.args[..usize::from(self.header.args).min(MAX_ARGS)]
    }

    /// What it returned, unless it does not return.
    pub fn result(&self) -> Option<i64> {
        (self.header.flags & RECORD_NO_RETURN == 0).then_some(self.header.result.cast_signed())
    }

    /// The entries as bytes.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// What arguments point to.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> {
        let mut entries = Entries(self.payload);
        // `new` has seen that all are good.
        std::iter::from_fn(move || entries.next_entry().ok().flatten())
    }
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A system call.
    Call(Call<'a>),
    /// Records were dropped here.
    Lost {
        /// Number of the next record.
        sequence: u64,
        /// How many.
        count: u64,
    },
}

/// Takes the first record off `bytes`.
///
/// # Errors
/// [`Malformed`]; [`Malformed::Length`] may also mean that its end is not there.
#[inline]
pub fn record(bytes: &[u8]) -> Result<(Record<'_>, &[u8]), Malformed> {
    let left = bytes.len();
    let Some((head, _)) = bytes.split_first_chunk::<MIN_RECORD_BYTES>() else {
        return Err(Malformed::Length {
            bytes: MIN_RECORD_BYTES as u64,
            left,
        });
    };
    let header = RecordHeader::from_bytes(head);
    let (record, rest) = usize::try_from(header.bytes)
        .ok()
        .filter(|len| is_length(*len))
        .and_then(|len| bytes.split_at_checked(len))
        .ok_or(Malformed::Length {
            bytes: u64::from(header.bytes),
            left,
        })?;
    let body = &record[MIN_RECORD_BYTES..];
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
    let (args, payload) = body
        .split_at_checked(8 * usize::from(header.args))
        .filter(|_| usize::from(header.args) <= MAX_ARGS)
        .ok_or(Malformed::Payload)?;
    let mut registers = [0; MAX_ARGS];
    for (register, bytes) in registers.iter_mut().zip(args.as_chunks().0) {
        *register = u64::from_le_bytes(*bytes);
    }
    Ok((Record::Call(Call::new(header, registers, payload)?), rest))
}

/// Whether a record may be `len` bytes long.
pub fn is_length(len: usize) -> bool {
    (MIN_RECORD_BYTES..=MAX_RECORD_BYTES).contains(&len) && len.is_multiple_of(8)
}

/// Entries not yet looked at.
struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    fn next_entry(&mut self) -> Result<Option<Entry<'a>>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let (head, rest) = self.0.split_first_chunk().ok_or(Malformed::Payload)?;
        let header = EntryHeader::from_bytes(head);
        let argument = usize::from(header.argument);
        let len = usize::try_from(header.bytes).map_err(|_| Malformed::Payload)?;
        let padded = len.checked_next_multiple_of(8).ok_or(Malformed::Payload)?;
        let (padded, rest) = rest.split_at_checked(padded).ok_or(Malformed::Payload)?;
        let bytes = &padded[..len];
        let pointee = match header.kind {
            _ if argument >= MAX_ARGS => return Err(Malformed::Payload),
            _ if header.flags & ENTRY_UNREADABLE != 0 && bytes.is_empty() => Pointee::Unreadable,
            ENTRY_STRING => Pointee::Text(bytes),
            ENTRY_STRINGS => Pointee::List(bytes),
            ENTRY_BYTES => Pointee::Bytes(bytes),
            _ => return Err(Malformed::Payload),
        };
        self.0 = rest;
        Ok(Some(Entry {
            argument,
            pointee,
            truncated: header.flags & (ENTRY_TRUNCATED | ENTRY_UNREADABLE) != 0,
            after: header.flags & ENTRY_AFTER != 0,
        }))
    }
}

/// Strings, each ended by a NUL.
pub fn strings(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ended = bytes.strip_suffix(&[0]);
    ended
        .into_iter()
        .flat_map(|bytes| bytes.split(|byte| *byte == 0))
}
