use husk_abi::boundary::boot::{BootInfo, GuestRange, MAX_VCPUS, VcpuBoot};
use husk_abi::boundary::record::*;
use husk_hal::phys::{self, Frame};

use super::ring::Ring;
use super::{Recorder, payload};
use crate::mm::testing;

/// Ring data of the tests: not a multiple of a record's length, so that records wrap anywhere.
const DATA: u64 = 48 << 10;

fn store(gpa: u64, value: u64) {
    phys::store_u64(Frame::containing(gpa), (gpa % 4096) as usize, value);
}

fn load(gpa: u64) -> u64 {
    phys::load_u64(Frame::containing(gpa), (gpa % 4096) as usize)
}

/// The VMM's side, as simple as can be.
struct Reader {
    gpa: u64,
    tail: u64,
}

impl Reader {
    fn new() -> (Self, Ring) {
        let gpa = fresh_gpa();
        store(gpa, RING_MAGIC);
        store(gpa + 8, u64::from(RECORD_VERSION));
        store(gpa + 16, DATA);
        let len = RING_DATA + DATA;
        (Self { gpa, tail: 0 }, Ring::new(GuestRange { gpa, len }))
    }

    fn bytes(&self, position: u64, len: usize) -> Vec<u8> {
        (0..len as u64)
            .map(|index| {
                let mut byte = [0];
                let at = self.gpa + RING_DATA + (position + index) % DATA;
                phys::read_gpa(at, &mut byte);
                byte[0]
            })
            .collect()
    }

    fn drain(&mut self) -> Vec<(RecordHeader, Vec<u8>)> {
        let head = load(self.gpa + core::mem::offset_of!(RingHeader, head) as u64);
        let mut records = Vec::new();
        while self.tail < head {
            let header = self.bytes(self.tail, size_of::<RecordHeader>());
            let header = RecordHeader::from_bytes(&header.try_into().unwrap());
            let rest = self.bytes(self.tail + 64, header.bytes as usize - 64);
            self.tail += u64::from(header.bytes);
            records.push((header, rest));
        }
        assert_eq!(self.tail, head);
        store(
            self.gpa + core::mem::offset_of!(RingHeader, tail) as u64,
            head,
        );
        records
    }

    fn lost(&self) -> u64 {
        load(self.gpa + core::mem::offset_of!(RingHeader, lost) as u64)
    }
}

/// Two megabytes of memory of this test's own.
fn fresh_gpa() -> u64 {
    let frame = testing::frames(8)
        .alloc_large()
        .expect("the arena has room");
    frame.gpa()
}

fn call(nr: u32) -> RecordHeader {
    RecordHeader {
        nr,
        pid: 1,
        tid: 2,
        ..RecordHeader::default()
    }
}

#[test]
fn records_come_out_as_they_went_in() {
    let (mut reader, ring) = Reader::new();
    ring.write(call(39), &[1, 2, 3, 4, 5, u64::MAX], &[], false);
    ring.write(call(257), &[7; 6], b"payload!", false);
    let records = reader.drain();
    assert_eq!(records.len(), 2);
    let (header, rest) = &records[0];
    assert_eq!(
        (header.nr, header.sequence, header.kind),
        (39, 0, KIND_SYSCALL)
    );
    assert_eq!(header.bytes as usize, MIN_RECORD_BYTES);
    assert_eq!(rest[40..48], u64::MAX.to_le_bytes());
    let (header, rest) = &records[1];
    assert_eq!((header.sequence, header.payload_bytes), (1, 8));
    assert_eq!(&rest[48..], b"payload!");
}

#[test]
fn records_wrap_anywhere() {
    let (mut reader, ring) = Reader::new();
    let mut expected = 0;
    for round in 0..2000u32 {
        let payload = vec![round as u8; (round as usize % 40) * 8];
        ring.write(call(round), &[u64::from(round); 6], &payload, false);
        if round % 3 == 2 {
            for (header, rest) in reader.drain() {
                assert_eq!(
                    (header.nr, header.sequence),
                    (expected, u64::from(expected))
                );
                assert!(rest[48..].iter().all(|byte| *byte == expected as u8));
                expected += 1;
            }
        }
    }
    assert!(reader.tail > 3 * DATA);
    assert_eq!(reader.lost(), 0);
}

#[test]
fn losses_are_counted_and_told() {
    let (mut reader, ring) = Reader::new();
    let fit = DATA / MIN_RECORD_BYTES as u64;
    for nr in 0..fit as u32 + 5 {
        ring.write(call(nr), &[0; 6], &[], true);
    }
    assert_eq!(reader.lost(), 5);
    assert_eq!(reader.drain().len() as u64, fit);
    ring.write(call(1000), &[0; 6], &[], true);
    let records = reader.drain();
    assert_eq!(records.len(), 2);
    assert_eq!((records[0].0.kind, records[0].0.result), (KIND_LOST, 5));
    assert_eq!((records[1].0.nr, records[1].0.sequence), (1000, fit + 5));
    assert_eq!(reader.lost(), 5);
}

#[test]
fn a_full_ring_nobody_drains_loses_too() {
    // The test's doorbell drains nothing, as a VMM that gave the ring up.
    let (reader, ring) = Reader::new();
    let fit = DATA / MIN_RECORD_BYTES as u64;
    for nr in 0..fit as u32 + 3 {
        ring.write(call(nr), &[0; 6], &[], false);
    }
    assert_eq!(reader.lost(), 3);
}

#[test]
fn no_ring_no_records() {
    let ring = Ring::new(GuestRange::default());
    ring.write(call(1), &[0; 6], &[], false);
    let gpa = fresh_gpa();
    let ring = Ring::new(GuestRange { gpa, len: 1 << 20 });
    ring.write(call(1), &[0; 6], &[], false);
    assert_eq!(load(gpa + 64), 0, "nothing written where no magic stands");
}

fn boot(filter_gpa: u64) -> BootInfo {
    BootInfo {
        magic: 0,
        boundary_version: 0,
        vcpu_count: 1,
        ram_bytes: 0,
        free_gpa: 0,
        memory_limit_bytes: 0,
        root_archive: GuestRange::default(),
        config: GuestRange::default(),
        log: GuestRange::default(),
        wall_clock_gpa: 0,
        record_filter_gpa: filter_gpa,
        host_events_gpa: 0,
        stdio_out: Default::default(),
        stdio_in: Default::default(),
        fuse: Default::default(),
        window: GuestRange::default(),
        truncated_gpa: 0,
        control_in: husk_abi::boundary::boot::Virtqueue::default(),
        control_out: husk_abi::boundary::boot::Virtqueue::default(),
        sessions_gpa: 0,
        xcr0: 0,
        vcpus: [VcpuBoot::default(); MAX_VCPUS],
    }
}

#[test]
fn the_filter_is_the_pages() {
    let gpa = fresh_gpa();
    let recorder = Recorder::new(&boot(gpa), false);
    assert!(!recorder.wants(39), "an empty page asks for nothing");
    let mut filter = RecordFilter::new(FILTER_PAYLOADS);
    filter.add(39);
    filter.pid = 7;
    phys::write(Frame::containing(gpa), 0, &filter.to_bytes());
    assert!(!recorder.wants(39), "it is a copy");
    recorder.reload_filter();
    assert!(recorder.wants(39) && !recorder.wants(40) && !recorder.wants(u64::MAX));
    assert!(recorder.wants_process(7) && !recorder.wants_process(8));
    assert!(recorder.has_flag(FILTER_PAYLOADS) && !recorder.has_flag(FILTER_DROP));
}

#[test]
fn missing_calls_are_counted_by_number() {
    let recorder = Recorder::new(&boot(0), false);
    assert!(recorder.count_missing(41));
    assert!(!recorder.count_missing(41));
    assert!(recorder.count_missing(u64::MAX));
    assert_eq!(recorder.missing().collect::<Vec<_>>(), [(41, 2), (511, 1)]);
}

/// An entry's header and its bytes.
fn entry(payload: &[u8]) -> (EntryHeader, &[u8]) {
    let header = EntryHeader::from_bytes(payload[..8].try_into().unwrap());
    (header, &payload[8..8 + header.bytes as usize])
}

#[test]
fn paths_and_arguments_are_captured() {
    let path = c"/etc/passwd";
    let args = [0, path.as_ptr() as u64, 0, 0, 0, 0];
    let captured = payload::capture(257, &args);
    assert_eq!(captured.len(), 8 + 16);
    let (header, bytes) = entry(&captured);
    assert_eq!(
        (header.argument, header.kind, header.flags),
        (1, ENTRY_STRING, 0)
    );
    assert_eq!(bytes, b"/etc/passwd");

    let argv = [c"sh".as_ptr() as u64, c"-c".as_ptr() as u64, 0];
    let args = [
        path.as_ptr() as u64,
        argv.as_ptr() as u64,
        argv.as_ptr() as u64,
        0,
        0,
        0,
    ];
    let captured = payload::capture(59, &args);
    let (header, bytes) = entry(&captured[24..]);
    assert_eq!((header.argument, header.kind), (1, ENTRY_STRINGS));
    assert_eq!(bytes, b"sh\0-c\0");
    assert_eq!(captured.len(), 24 + 8 + 8, "the environment is not");

    assert!(payload::capture(39, &[8; 6]).is_empty());
    assert!(payload::capture(257, &[0; 6]).is_empty());
    assert!(payload::capture(1 << 40, &[8; 6]).is_empty());
}

#[test]
fn bad_and_long_strings_are_marked() {
    let captured = payload::capture(2, &[8, 0, 0, 0, 0, 0]);
    assert_eq!(entry(&captured).0.flags, ENTRY_UNREADABLE);
    assert_eq!(captured.len(), 8);

    let mut long = vec![b'a'; MAX_STRING_BYTES + 10];
    long.push(0);
    let captured = payload::capture(2, &[long.as_ptr() as u64, 0, 0, 0, 0, 0]);
    let (header, bytes) = entry(&captured);
    assert_eq!(
        (header.flags, bytes.len()),
        (ENTRY_TRUNCATED, MAX_STRING_BYTES)
    );

    let half = vec![b'b'; MAX_STRING_BYTES - 1];
    let half = std::ffi::CString::new(half).unwrap();
    let argv = [
        half.as_ptr() as u64,
        half.as_ptr() as u64,
        half.as_ptr() as u64,
        0,
    ];
    let captured = payload::capture(59, &[0, argv.as_ptr() as u64, 0, 0, 0, 0]);
    let (header, bytes) = entry(&captured);
    assert_eq!(header.flags, ENTRY_TRUNCATED);
    assert!(bytes.len() <= MAX_STRINGS_BYTES);
    assert!(captured.len() + MIN_RECORD_BYTES <= MAX_RECORD_BYTES);
}

#[test]
fn calls_are_counted_whether_recorded_or_not() {
    let recorder = Recorder::new(&boot(0), true);
    for nr in [0, 39, 5000] {
        assert!(recorder.wants(nr) && !recorder.records(nr));
    }
    recorder.count(true);
    recorder.count(false);
    recorder.count(false);
    assert_eq!(recorder.counts(), (3, 1));
    let recorder = Recorder::new(&boot(0), false);
    assert!(!recorder.wants(39));
    recorder.count(true);
    assert_eq!(recorder.counts(), (0, 0));
}
