//! A request as it comes off the queue, checked, and its answer on the way back.

use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;

use husk_abi::boundary::fuse::{InHeader, MAX_DATA, MAX_REQUEST, OutHeader, WriteIn, op};
use husk_abi::boundary::net::{self, MAX_ADDRESS, MAX_CONTROL, NetIn, SendIn, SendOne};
use rustix::io::Errno;
use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::vmm::{GuestMemory, file_into_guest, guest_into_file};

/// Data of at least so many bytes are much.
pub const BULK: usize = 256 << 10;

/// Ranges of guest memory, one after the other.
pub type Ranges = Vec<(u64, usize)>;

/// A request. What the guest may still change is only the data of a `WRITE`, `SEND` or `SEND_MANY`.
#[derive(Debug)]
pub struct Request {
    /// Its header.
    pub header: InHeader,
    /// What follows the header; for `WRITE`, `SEND` and `SEND_MANY` without the data.
    pub body: Vec<u8>,
    /// The data of a `WRITE`, `SEND` or `SEND_MANY`.
    pub data: Ranges,
    /// Where the answer goes.
    pub answer: Ranges,
}

/// Takes the first `bytes` of `ranges`; what is left stays. `None` if there are fewer.
pub fn split(ranges: &mut Ranges, bytes: usize) -> Option<Ranges> {
    let mut wanted = bytes;
    let mut whole = 0;
    for (_, len) in ranges.iter() {
        if *len > wanted {
            break;
        }
        wanted -= len;
        whole += 1;
    }
    let rest = ranges.split_off(whole);
    let mut head = std::mem::replace(ranges, rest);
    if wanted > 0 {
        let (at, len) = ranges.first_mut()?;
        head.push((*at, wanted));
        *at = at.wrapping_add(wanted as u64);
        *len -= wanted;
    }
    Some(head)
}

fn total(ranges: &Ranges) -> usize {
    ranges
        .iter()
        .fold(0usize, |sum, (_, len)| sum.saturating_add(*len))
}

/// Copies `ranges` out of guest memory.
fn copy_in(memory: &GuestMemoryMmap, ranges: &Ranges) -> Option<Vec<u8>> {
    let mut bytes = vec![0; total(ranges)];
    let mut done = 0;
    for (at, len) in ranges {
        memory
            .read_slice(&mut bytes[done..done + len], GuestAddress(*at))
            .ok()?;
        done += len;
    }
    Some(bytes)
}

/// Copies what stands before the data of a `SEND_MANY`.
fn send_many_body(memory: &GuestMemoryMmap, readable: &mut Ranges) -> Option<Vec<u8>> {
    let mut body = copy_in(memory, &split(readable, NetIn::BYTES)?)?;
    let (head, _) = NetIn::take(&body)?;
    let bytes = (head.argument as usize).checked_mul(SendOne::BYTES)?;
    if bytes > MAX_REQUEST {
        return None;
    }
    body.extend(copy_in(memory, &split(readable, bytes)?)?);
    let mut ones = body.get(NetIn::BYTES..)?;
    let mut addresses = 0usize;
    while let Some((one, rest)) = SendOne::take(ones) {
        if one.address_bytes as usize > MAX_ADDRESS {
            return None;
        }
        addresses += one.address_bytes as usize;
        ones = rest;
    }
    if addresses > MAX_REQUEST {
        return None;
    }
    body.extend(copy_in(memory, &split(readable, addresses)?)?);
    Some(body)
}

/// Copies what stands before the data of a `SEND`.
fn send_body(memory: &GuestMemoryMmap, readable: &mut Ranges) -> Option<Vec<u8>> {
    let mut body = copy_in(memory, &split(readable, SendIn::BYTES)?)?;
    let (send, _) = SendIn::take(&body)?;
    let (address, control) = (send.address_bytes as usize, send.control_bytes as usize);
    if address > MAX_ADDRESS || control > MAX_CONTROL {
        return None;
    }
    body.extend(copy_in(memory, &split(readable, address + control)?)?);
    Some(body)
}

impl Request {
    /// Reads the request in `chain`. `None` if it is none at all: it is given back without an answer then.
    pub fn read(memory: &GuestMemory, chain: DescriptorChain<&GuestMemoryMmap>) -> Option<Self> {
        let (mut readable, mut answer) = (Ranges::new(), Ranges::new());
        for descriptor in chain {
            let range = (descriptor.addr().0, descriptor.len() as usize);
            if descriptor.is_write_only() {
                answer.push(range);
            } else if answer.is_empty() {
                readable.push(range);
            } else {
                return None;
            }
        }
        Self::from_ranges(memory, readable, answer)
    }

    pub(in crate::gate) fn from_ranges(
        memory: &GuestMemoryMmap,
        mut readable: Ranges,
        answer: Ranges,
    ) -> Option<Self> {
        let bytes = total(&readable);
        if bytes > InHeader::BYTES + MAX_REQUEST + MAX_DATA {
            return None;
        }
        let head = split(&mut readable, InHeader::BYTES)?;
        let (header, _) = InHeader::take(&copy_in(memory, &head)?)?;
        if header.len as usize != bytes {
            return None;
        }
        let (body, data) = match header.opcode {
            op::WRITE => {
                let fixed = split(&mut readable, WriteIn::BYTES)?;
                (copy_in(memory, &fixed)?, readable)
            }
            net::op::SEND => (send_body(memory, &mut readable)?, readable),
            net::op::SEND_MANY => (send_many_body(memory, &mut readable)?, readable),
            _ if total(&readable) > MAX_REQUEST => return None,
            _ => (copy_in(memory, &readable)?, Ranges::new()),
        };
        if total(&data) > MAX_DATA {
            return None;
        }
        Some(Self {
            header,
            body,
            data,
            answer,
        })
    }

    /// Bytes of data that come or go.
    pub fn data_bytes(&self) -> usize {
        total(&self.data) + self.room()
    }

    /// Bytes of data the answer has room for.
    pub fn room(&self) -> usize {
        total(&self.answer)
            .saturating_sub(OutHeader::BYTES)
            .min(MAX_DATA)
    }

    /// Bytes of data that came with the request.
    pub fn sent_bytes(&self) -> usize {
        total(&self.data)
    }

    /// Where the data of an answer go that has `head` bytes before them, and how many bytes that is: at most `len`.
    pub fn room_after(&self, head: usize, len: usize) -> (Ranges, usize) {
        let mut answer = self.answer.clone();
        if split(&mut answer, OutHeader::BYTES + head).is_none() {
            return (Ranges::new(), 0);
        }
        let len = len.min(total(&answer));
        (split(&mut answer, len).unwrap_or_default(), len)
    }

    /// Writes the request's data to `file` at `offset`, or else at its end; at most `len`.
    pub fn write_to_file(
        &self,
        memory: &GuestMemory,
        file: BorrowedFd<'_>,
        offset: Option<u64>,
        len: usize,
    ) -> io::Result<usize> {
        let mut data = self.data.clone();
        let part = split(&mut data, len).ok_or(io::ErrorKind::InvalidInput)?;
        guest_into_file(memory, &part, file, offset)
    }

    /// Reads `file` at `offset` straight to where the answer's data go; at most `len`.
    pub fn read_from_file(
        &self,
        memory: &GuestMemory,
        file: BorrowedFd<'_>,
        offset: u64,
        len: usize,
    ) -> io::Result<usize> {
        let mut answer = self.answer.clone();
        split(&mut answer, OutHeader::BYTES).ok_or(io::ErrorKind::InvalidInput)?;
        let part = split(&mut answer, len).ok_or(io::ErrorKind::InvalidInput)?;
        file_into_guest(memory, &part, file, offset)
    }

    /// Writes the answer's header and `data`; returns the bytes written, 0 if there is no room for them. If `placed`, so many
    /// bytes of data are there already.
    pub fn answer(&self, memory: &GuestMemoryMmap, answer: Result<Reply, Errno>) -> u32 {
        let (error, data, placed) = match answer {
            Ok(Reply::Data(data)) => (0, data, 0),
            Ok(Reply::Placed(bytes)) => (0, Vec::new(), bytes),
            Ok(Reply::Before(data, bytes)) => (0, data, bytes),
            Err(errno) => (-errno.raw_os_error(), Vec::new(), 0),
        };
        let Ok(len) = u32::try_from(OutHeader::BYTES + data.len() + placed) else {
            return 0;
        };
        let header = OutHeader {
            len,
            error,
            unique: self.header.unique,
        };
        let mut bytes = Vec::with_capacity(OutHeader::BYTES + data.len());
        header.put(&mut bytes);
        bytes.extend_from_slice(&data);
        let mut ranges = self.answer.clone();
        let Some(part) = split(&mut ranges, bytes.len()) else {
            return 0;
        };
        let mut done = 0;
        for (at, len) in part {
            let piece = &bytes[done..done + len];
            if memory.write_slice(piece, GuestAddress(at)).is_err() {
                return 0;
            }
            done += len;
        }
        len
    }
}

/// A good answer.
#[derive(Debug)]
pub enum Reply {
    /// These bytes.
    Data(Vec<u8>),
    /// So many bytes that are in place already.
    Placed(usize),
    /// These bytes, and so many behind them that are in place already.
    Before(Vec<u8>, usize),
}

/// A name in a directory: not empty, no slash, not `.` or `..`, at most 255 bytes.
///
/// # Errors
/// `EINVAL`, `ENAMETOOLONG`.
pub fn name(bytes: &[u8]) -> Result<(&CStr, &[u8]), Errno> {
    let (name, rest) = string(bytes)?;
    match name.to_bytes() {
        b"" | b"." | b".." => Err(Errno::INVAL),
        name if name.len() > 255 => Err(Errno::NAMETOOLONG),
        other if other.contains(&b'/') => Err(Errno::INVAL),
        _ => Ok((name, rest)),
    }
}

/// A string up to its NUL, and what follows.
///
/// # Errors
/// `EINVAL` without a NUL.
pub fn string(bytes: &[u8]) -> Result<(&CStr, &[u8]), Errno> {
    let string = CStr::from_bytes_until_nul(bytes).map_err(|_| Errno::INVAL)?;
    Ok((string, &bytes[string.to_bytes_with_nul().len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const MEMORY: u64 = 1 << 20;

    fn memory() -> GuestMemory {
        Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap())
    }

    fn request(opcode: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        InHeader {
            len: (InHeader::BYTES + body.len()) as u32,
            opcode,
            unique: 9,
            nodeid: 1,
            ..InHeader::default()
        }
        .put(&mut bytes);
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn names() {
        assert_eq!(name(b"a\0rest").unwrap(), (c"a", b"rest".as_slice()));
        for bad in [
            b"".as_slice(),
            b"\0",
            b".\0",
            b"..\0",
            b"a/b\0",
            b"/\0",
            b"a",
        ] {
            assert_eq!(name(bad), Err(Errno::INVAL), "{bad:?}");
        }
        let mut long = vec![b'x'; 256];
        long.push(0);
        assert_eq!(name(&long), Err(Errno::NAMETOOLONG));
        assert!(name(&long[1..]).is_ok());
    }

    #[test]
    fn a_request_in_pieces() {
        let memory = memory();
        let bytes = request(op::LOOKUP, b"name\0");
        memory.write_slice(&bytes[..10], GuestAddress(100)).unwrap();
        memory
            .write_slice(&bytes[10..], GuestAddress(5000))
            .unwrap();
        let ranges = vec![(100, 10), (5000, bytes.len() - 10)];
        let request = Request::from_ranges(&memory, ranges, vec![(8192, 20)]).unwrap();
        assert_eq!(request.body, b"name\0");
        assert_eq!((request.header.nodeid, request.room()), (1, 4));
        let written = request.answer(&memory, Ok(Reply::Data(b"abcd".to_vec())));
        assert_eq!(written, 20);
        let mut answer = [0; 20];
        memory.read_slice(&mut answer, GuestAddress(8192)).unwrap();
        assert_eq!(&answer[16..], b"abcd");
        assert_eq!(
            OutHeader::take(&answer).unwrap().0,
            OutHeader {
                len: 20,
                error: 0,
                unique: 9
            }
        );
        assert_eq!(
            request.answer(&memory, Ok(Reply::Data(b"abcde".to_vec()))),
            0
        );
    }

    #[test]
    fn what_is_no_request() {
        let memory = memory();
        let bytes = request(op::LOOKUP, b"n\0");
        memory.write_slice(&bytes, GuestAddress(0)).unwrap();
        let good = bytes.len();
        let read = |ranges: Ranges| Request::from_ranges(&memory, ranges, Ranges::new());
        assert!(read(vec![(0, good)]).is_some());
        assert!(read(vec![]).is_none());
        assert!(read(vec![(0, good - 1)]).is_none());
        assert!(read(vec![(0, good + 1)]).is_none());
        assert!(read(vec![(MEMORY, good)]).is_none());
        assert!(read(vec![(MEMORY - 10, good)]).is_none());
        assert!(read(vec![(u64::MAX - 3, good)]).is_none());
        assert!(read(vec![(0, usize::MAX), (0, usize::MAX)]).is_none());
        assert!(read(vec![(0, 20), (0, MAX_DATA + MAX_REQUEST + 1)]).is_none());
    }

    /// Has a queue of the guest's pop a chain whose head is `head`, with `table` at 4 KiB; the queue's own are at 0.
    fn popped(head: (u64, u32, u16, u16), table: &[(u64, u32, u16, u16)]) -> Option<Request> {
        let memory = memory();
        let write = |at: u64, bytes: &[u8]| memory.write_slice(bytes, GuestAddress(at)).unwrap();
        let describe = |at: u64, (gpa, len, flags, next): (u64, u32, u16, u16)| {
            write(at, &gpa.to_le_bytes());
            write(at + 8, &len.to_le_bytes());
            write(at + 12, &flags.to_le_bytes());
            write(at + 14, &next.to_le_bytes());
        };
        describe(0, head);
        for (at, descriptor) in (4096..).step_by(16).zip(table) {
            describe(at, *descriptor);
        }
        write(65536, &request(op::READ, &[7; 40]));
        // The available ring's index: one entry, which is 0.
        write(2048 + 2, &1u16.to_le_bytes());
        let rings = husk_abi::boundary::boot::Virtqueue {
            desc_gpa: 0,
            avail_gpa: 2048,
            used_gpa: 3072,
            size: 16,
            ..Default::default()
        };
        let mut queue = crate::gate::queue::open(&memory, &rings, "test").ok()?;
        let chain = virtio_queue::QueueT::pop_descriptor_chain(&mut queue, &*memory)?;
        Request::read(&memory, chain)
    }

    #[test]
    fn tables_of_descriptors() {
        const NEXT: u16 = 1;
        const WRITE: u16 = 2;
        const INDIRECT: u16 = 4;
        let request = (65536, (InHeader::BYTES + 40) as u32, NEXT, 1);
        let pieces = (1..=200).map(|page| {
            let flags = if page == 200 { WRITE } else { WRITE | NEXT };
            (131_072 + page * 4096, 4096, flags, page as u16 + 1)
        });
        let table: Vec<_> = std::iter::once(request).chain(pieces).collect();
        let bytes = (table.len() * 16) as u32;
        let read = popped((4096, bytes, INDIRECT, 0), &table).unwrap();
        assert_eq!(read.room(), 200 * 4096 - OutHeader::BYTES);
        // Tables that are none: odd, empty, too long, not there, in another table, in a circle.
        for head in [
            (4096, bytes - 1, INDIRECT, 0),
            (4096, 0, INDIRECT, 0),
            (4096, !15, INDIRECT, 0),
            (u64::MAX - 15, 32, INDIRECT, 0),
        ] {
            assert!(popped(head, &table).is_none_or(|request| request.room() == 0));
        }
        let nested = [request, (4096, 32, INDIRECT, 0)];
        let answer = popped((4096, 32, INDIRECT, 0), &nested).map(|request| request.room());
        assert_eq!(answer.unwrap_or(0), 0);
        let circle = [request, (131_072, 4096, WRITE | NEXT, 1)];
        let answer = popped((4096, 32, INDIRECT, 0), &circle).map(|request| request.room());
        assert!(answer.unwrap_or(0) <= MAX_DATA);
    }

    /// Whatever bytes and ranges come, reading them neither panics nor allocates without bound.
    #[test]
    fn mutated_requests() {
        let memory = memory();
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..20_000 {
            let mut bytes = request(random() as u32 % 64, b"some\0name\0");
            for _ in 0..random() % 4 {
                let at = random() as usize % bytes.len();
                bytes[at] = random() as u8;
            }
            memory.write_slice(&bytes, GuestAddress(0)).unwrap();
            let cut = random() as usize % (bytes.len() + 3);
            let ranges = [
                (0, cut),
                (cut as u64, bytes.len().saturating_sub(cut)),
                (random() % (2 * MEMORY), (random() % 8) as usize * 1000),
            ];
            let count = 1 + random() as usize % 3;
            let answer = vec![(random() % (2 * MEMORY), (random() % 64) as usize)];
            if let Some(request) = Request::from_ranges(&memory, ranges[..count].to_vec(), answer) {
                assert!(request.body.len() <= MAX_REQUEST);
                let _ = name(&request.body);
                request.answer(&memory, Ok(Reply::Data(vec![1; 8])));
            }
        }
    }
}
