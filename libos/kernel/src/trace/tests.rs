use husk_abi::boundary::boot::{BootInfo, GuestRange, MAX_VCPUS, VcpuBoot};
use husk_abi::boundary::record::*;
use husk_abi::boundary::record_filter::*;
use husk_abi::linux::syscalls::lookup;
use husk_hal::phys::{self, Frame};

use super::ring::Ring;
use super::{HAS_CONDITIONS, Recorder, payload, recorded, select};
use crate::mm::testing;
use crate::{Errno, fs, process};

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
            let start = self.tail + MIN_RECORD_BYTES as u64;
            let rest = self.bytes(start, header.bytes as usize - MIN_RECORD_BYTES);
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
    ring.write(&mut call(39), &[1, 2, 3, 4, 5, u64::MAX], &[], false);
    ring.write(&mut call(257), &[7, 8], b"payload!", false);
    let records = reader.drain();
    assert_eq!(records.len(), 2);
    let (header, rest) = &records[0];
    assert_eq!(
        (header.nr, header.sequence, header.kind),
        (39, 0, KIND_SYSCALL)
    );
    assert_eq!(header.bytes as usize, MIN_RECORD_BYTES + 48);
    assert_eq!(rest[40..48], u64::MAX.to_le_bytes());
    let (header, rest) = &records[1];
    assert_eq!((header.sequence, header.args), (1, 2));
    assert_eq!(rest[8..16], 8u64.to_le_bytes());
    assert_eq!(&rest[16..], b"payload!");
}

#[test]
fn records_wrap_anywhere() {
    let (mut reader, ring) = Reader::new();
    let mut expected = 0;
    for round in 0..2000u32 {
        let payload = vec![round as u8; (round as usize % 40) * 8];
        ring.write(&mut call(round), &[u64::from(round); 6], &payload, false);
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
        ring.write(&mut call(nr), &[], &[], true);
    }
    assert_eq!(reader.lost(), 5);
    assert_eq!(reader.drain().len() as u64, fit);
    ring.write(&mut call(1000), &[], &[], true);
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
        ring.write(&mut call(nr), &[], &[], false);
    }
    assert_eq!(reader.lost(), 3);
}

#[test]
fn no_ring_no_records() {
    let ring = Ring::new(GuestRange::default());
    ring.write(&mut call(1), &[], &[], false);
    let gpa = fresh_gpa();
    let ring = Ring::new(GuestRange { gpa, len: 1 << 20 });
    ring.write(&mut call(1), &[], &[], false);
    assert_eq!(load(gpa + 64), 0, "nothing written where no magic stands");
}

fn boot(filter_gpa: u64) -> BootInfo {
    BootInfo {
        magic: 0,
        boundary_version: 0,
        vcpu_count: 1,
        ram_bytes: 0,
        ready_bytes: 0,
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
        sockets: husk_abi::boundary::boot::GuestRange::default(),
        control_in: Default::default(),
        control_out: Default::default(),
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
    let mut filter = RecordFilter::new(FILTER_PAYLOADS | HAS_CONDITIONS);
    let mut rule = FilterRule::NONE;
    rule.add(39);
    assert!(filter.push(rule));
    filter.generation = 2;
    phys::write(Frame::containing(gpa), 0, &filter.to_bytes());
    assert!(!recorder.wants(39), "it is a copy");
    assert!(recorder.load_filter());
    let flags = || recorder.flags.load(core::sync::atomic::Ordering::Relaxed);
    assert_eq!(flags(), FILTER_PAYLOADS, "conditions are found, not told");
    assert!(recorder.wants(39) && !recorder.wants(40) && !recorder.wants(u64::MAX));

    rule.results = RESULT_FAILURE;
    rule.add(40);
    assert!(filter.push(rule));
    filter.generation = 3;
    phys::write(Frame::containing(gpa), 0, &filter.to_bytes());
    assert!(!recorder.load_filter(), "the VMM is still writing");
    assert!(!recorder.wants(40));
    filter.generation = 4;
    phys::write(Frame::containing(gpa), 0, &filter.to_bytes());
    assert!(recorder.load_filter());
    assert!(recorder.wants(39) && recorder.wants(40));
    assert_eq!(flags(), FILTER_PAYLOADS | HAS_CONDITIONS);
}

/// A kernel with a ring and a filter of its own, and what reads the ring.
fn recording(rules: &[FilterRule]) -> (alloc::sync::Arc<crate::Thread>, Reader) {
    let gpa = fresh_gpa();
    let filter_gpa = gpa + (1 << 20);
    store(gpa, RING_MAGIC);
    store(gpa + 8, u64::from(RECORD_VERSION));
    store(gpa + 16, DATA);
    let mut filter = RecordFilter::new(FILTER_PAYLOADS);
    for rule in rules {
        assert!(filter.push(*rule));
    }
    phys::write(Frame::containing(filter_gpa), 0, &filter.to_bytes());
    let t = process::testing::test_thread_with_boot(|boot| {
        boot.record_filter_gpa = filter_gpa;
        boot.vcpus[0].records = GuestRange {
            gpa,
            len: RING_DATA + DATA,
        };
    });
    (t, Reader { gpa, tail: 0 })
}

fn rule(calls: &[u64]) -> FilterRule {
    let mut rule = FilterRule::NONE;
    for nr in calls {
        rule.add(*nr);
    }
    rule
}

fn with_paths(mut rule: FilterRule, paths: &[u8]) -> FilterRule {
    rule.paths[..paths.len()].copy_from_slice(paths);
    rule
}

#[test]
fn a_record_says_who_and_what() {
    let (t, mut reader) = recording(&[FilterRule::ALL]);
    t.set_name(b"someone");
    assert_eq!(
        recorded(&t, 3, &[7, 8, 9, 10, 11, 12], || Err(Errno::EBADF)),
        Err(Errno::EBADF)
    );
    let _ = recorded(&t, 231, &[5; 6], || Ok(0));
    assert_eq!(recorded(&t, 400, &[1, 2, 3, 4, 5, 6], || Ok(77)), Ok(77));
    let records = reader.drain();
    assert_eq!(records.len(), 3);
    let (header, args) = &records[0];
    assert_eq!(
        (header.nr, header.pid, header.tid),
        (3, t.process.pid, t.tid())
    );
    assert_eq!(&header.name, b"someone\0\0\0\0\0\0\0\0\0");
    assert_eq!(header.result.cast_signed(), -9);
    assert_eq!(
        (header.args, args.as_slice()),
        (1, 7u64.to_le_bytes().as_slice())
    );
    assert_eq!(
        (records[1].0.flags, records[1].0.nr),
        (RECORD_NO_RETURN, 231)
    );
    assert_eq!(
        (records[2].0.args, records[2].0.result),
        (6, 77),
        "all of an unknown call"
    );
}

#[test]
fn conditions_on_results_and_processes() {
    let results = |results| FilterRule {
        results,
        ..rule(&[3])
    };
    let (t, mut reader) = recording(&[results(RESULT_FAILURE)]);
    let _ = recorded(&t, 3, &[0; 6], || Ok(0));
    let _ = recorded(&t, 3, &[0; 6], || Err(Errno::EBADF));
    let _ = recorded(&t, 4, &[0; 6], || Err(Errno::EBADF));
    assert_eq!(reader.drain().len(), 1);

    let mut other = rule(&[3]);
    other.processes[0] = 4711;
    let (t, mut reader) = recording(&[other]);
    let _ = recorded(&t, 3, &[0; 6], || Ok(0));
    assert!(reader.drain().is_empty());
    let mut own = rule(&[3]);
    own.processes[1] = t.process.pid;
    own.processes[0] = 4711;
    let (t, mut reader) = recording(&[other, own]);
    let _ = recorded(&t, 3, &[0; 6], || Ok(0));
    assert_eq!(reader.drain().len(), 1);
}

#[test]
fn a_process_tree_is_inherited() {
    let mut tree = rule(&[3]);
    tree.processes[0] = 1 | PROCESS_TREE;
    let rules = [rule(&[4]), tree];
    assert_eq!(select::marks(&rules, 0, 1), 2);
    assert_eq!(select::marks(&rules, 2, 9), 2, "a child");
    assert_eq!(select::marks(&rules, 0, 9), 0);
    let (t, mut reader) = recording(&rules);
    assert_eq!(t.process.pid, 1);
    let _ = recorded(&t, 3, &[0; 6], || Ok(0));
    let _ = recorded(&t, 4, &[0; 6], || Ok(0));
    assert_eq!(reader.drain().len(), 2);
    select::mark_all(&[], &t.kernel.tasks.processes());
    let _ = recorded(&t, 3, &[0; 6], || Ok(0));
    assert!(reader.drain().is_empty());
}

#[test]
fn conditions_on_files() {
    let filter = with_paths(rule(&[2, 3, 257]), b"/dev\0/somewhere");
    let (t, mut reader) = recording(&[filter]);
    let open = |path: &core::ffi::CStr| {
        let _ = recorded(&t, 2, &[path.as_ptr() as u64, 0, 0, 0, 0, 0], || Ok(3));
    };
    open(c"/dev/null");
    open(c"/proc/../dev/./null");
    open(c"somewhere/x");
    assert_eq!(reader.drain().len(), 3);
    open(c"/device");
    open(c"null");
    open(c"");
    assert!(reader.drain().is_empty());

    fs::dir::set_cwd(&t, b"/dev").unwrap();
    open(c"null");
    let dev = fs::open::open_path(&t, b"/dev", 0).unwrap();
    let fd = t.files().alloc(&t, dev, false).unwrap() as u64;
    let null = c"null".as_ptr() as u64;
    fs::dir::set_cwd(&t, b"/").unwrap();
    open(c"null");
    let _ = recorded(&t, 257, &[fd, null, 0, 0, 0, 0], || Ok(3));
    let _ = recorded(&t, 3, &[fd, 0, 0, 0, 0, 0], || Ok(0));
    let _ = recorded(&t, 3, &[fd + 100, 0, 0, 0, 0, 0], || Ok(0));
    assert_eq!(reader.drain().len(), 3);
}

#[test]
fn normal_paths() {
    for (path, normal) in [
        ("/", "/"),
        ("//a///b/", "/a/b"),
        ("/a/./b/../../..", "/"),
        ("/../x", "/x"),
        ("", "/"),
    ] {
        assert_eq!(select::normal(path.as_bytes()), normal.as_bytes(), "{path}");
    }
}

#[test]
fn missing_calls_are_counted_by_number() {
    let recorder = Recorder::new(&boot(0), false);
    assert!(recorder.count_missing(41));
    assert!(!recorder.count_missing(41));
    assert!(recorder.count_missing(u64::MAX));
    assert_eq!(recorder.missing().collect::<Vec<_>>(), [(41, 2), (511, 1)]);
}

/// What is captured of a call before it is made.
fn capture(nr: u64, args: &[u64; 6]) -> Vec<u8> {
    let mut payload = Vec::new();
    if let Some(row) = lookup(nr) {
        payload::before(row, args, &mut payload);
    }
    payload
}

fn capture_after(nr: u64, args: &[u64; 6], result: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    payload::after(lookup(nr).unwrap(), args, result, &mut payload);
    payload
}

#[test]
fn structs_are_captured_when_they_mean_something() {
    let time = [5u64, 6];
    let at = time.as_ptr() as u64;
    let captured = capture(35, &[at, at, 0, 0, 0, 0]);
    let (header, bytes) = entry(&captured);
    assert_eq!(
        (header.argument, header.kind, header.flags, bytes.len()),
        (0, ENTRY_BYTES, 0, 16)
    );
    assert_eq!(bytes[..8], 5u64.to_le_bytes());
    assert_eq!(captured.len(), 24, "not what the call will write");
    let captured = capture_after(228, &[0, at, 0, 0, 0, 0], 0);
    assert_eq!(entry(&captured).0.flags, ENTRY_AFTER);
    assert_eq!(entry(&captured).0.argument, 1);

    // sockaddr: as long as the next argument says, and cut.
    let bytes = [7u8; 1000];
    let address = bytes.as_ptr() as u64;
    assert_eq!(entry(&capture(42, &[3, address, 16, 0, 0, 0])).1.len(), 16);
    assert!(capture(42, &[3, address, 0, 0, 0, 0]).is_empty());
    let captured = capture(42, &[3, address, u64::MAX, 0, 0, 0]);
    let (header, cut) = entry(&captured);
    assert_eq!(
        (header.flags, cut.len()),
        (ENTRY_TRUNCATED, MAX_STRUCT_BYTES)
    );
    assert_eq!(
        entry(&capture(42, &[3, 8, 16, 0, 0, 0])).0.flags,
        ENTRY_UNREADABLE
    );
    // accept: as long as the kernel wrote.
    let len = 12u32;
    let captured = capture_after(43, &[3, address, &raw const len as u64, 0, 0, 0], 4);
    assert_eq!(entry(&captured).1.len(), 12);
    // epoll_wait: as many as the result says.
    assert_eq!(
        entry(&capture_after(232, &[3, address, 9, 0, 0, 0], 2))
            .1
            .len(),
        24
    );
    assert!(capture_after(232, &[3, address, 9, 0, 0, 0], 0).is_empty());
    // What an ioctl points to depends on its request.
    assert_eq!(
        entry(&capture_after(16, &[0, 0x5413, address, 0, 0, 0], 0))
            .1
            .len(),
        8
    );
    assert!(capture(16, &[0, 0x5413, address, 0, 0, 0]).is_empty());
    assert!(capture_after(16, &[0, 0x1234, address, 0, 0, 0], 0).is_empty());
    assert_eq!(entry(&capture(72, &[0, 6, address, 0, 0, 0])).1.len(), 32);
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
    let captured = capture(257, &args);
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
    let captured = capture(59, &args);
    let (header, bytes) = entry(&captured[24..]);
    assert_eq!((header.argument, header.kind), (1, ENTRY_STRINGS));
    assert_eq!(bytes, b"sh\0-c\0");
    assert_eq!(captured.len(), 24 + 8 + 8, "the environment is not");

    assert!(capture(39, &[8; 6]).is_empty());
    assert!(capture(257, &[0; 6]).is_empty());
    assert!(capture(1 << 40, &[8; 6]).is_empty());
}

#[test]
fn bad_and_long_strings_are_marked() {
    let captured = capture(2, &[8, 0, 0, 0, 0, 0]);
    assert_eq!(entry(&captured).0.flags, ENTRY_UNREADABLE);
    assert_eq!(captured.len(), 8);

    let mut long = vec![b'a'; MAX_STRING_BYTES + 10];
    long.push(0);
    let captured = capture(2, &[long.as_ptr() as u64, 0, 0, 0, 0, 0]);
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
    let captured = capture(59, &[0, argv.as_ptr() as u64, 0, 0, 0, 0]);
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
