use super::*;
use std::mem::offset_of;
use std::sync::Arc;

use husk_abi::boundary::record::*;
use husk_abi::boundary::record_filter::FILTER_DROP;
use vm_memory::GuestMemoryMmap;

const RING: u64 = 0x2000;
const RING_BYTES: u64 = RING_DATA + (64 << 10);
const FILTER: u64 = 0x1000;

/// A guest that writes records, well or badly.
struct Guest {
    memory: GuestMemory,
    head: u64,
    sequence: u64,
}

struct Fixture {
    guest: Guest,
    session: Session,
    path: PathBuf,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn labels() -> Labels {
    Labels {
        container: "c".to_owned(),
        image: "i".to_owned(),
        tenant: String::new(),
    }
}

fn fixture(name: &str) -> Fixture {
    fixture_in(Format::Json, name)
}

fn fixture_in(format: Format, name: &str) -> Fixture {
    let memory: GuestMemory =
        Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap());
    let path = std::env::temp_dir().join(format!("husk-record-{}-{name}", std::process::id()));
    let range = GuestRange {
        gpa: RING,
        len: RING_BYTES,
    };
    let session = Session::over(
        &memory,
        &[range],
        FILTER,
        RecordFilter::everything(FILTER_PAYLOADS),
        Sink::start(create(&path).unwrap(), format, &labels()).unwrap(),
        path.clone(),
        labels(),
    )
    .unwrap();
    Fixture {
        guest: Guest {
            memory,
            head: 0,
            sequence: 0,
        },
        session,
        path,
    }
}

impl Guest {
    fn field(&self, offset: usize, value: u64) {
        self.memory
            .write_obj(value, GuestAddress(RING + offset as u64))
            .unwrap();
    }

    fn put(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let at = RING + RING_DATA + self.head % (RING_BYTES - RING_DATA);
            self.memory.write_obj(*byte, GuestAddress(at)).unwrap();
            self.head += 1;
        }
        self.field(offset_of!(RingHeader, head), self.head);
    }

    fn record(&mut self, header: RecordHeader, args: [u64; 6], payload: &[u8]) {
        let header = RecordHeader {
            bytes: u32::try_from(MIN_RECORD_BYTES + 48 + payload.len()).unwrap(),
            kind: KIND_SYSCALL,
            sequence: self.sequence,
            args: 6,
            ..header
        };
        self.sequence += 1;
        self.raw(&header, args, payload);
    }

    fn raw(&mut self, header: &RecordHeader, args: [u64; 6], payload: &[u8]) {
        let mut bytes = header.to_bytes().to_vec();
        let args = args.iter().take(usize::from(header.args));
        bytes.extend(args.flat_map(|arg| arg.to_le_bytes()));
        bytes.extend(payload);
        self.put(&bytes);
    }
}

fn entry(argument: u8, kind: u8, flags: u8, bytes: &[u8]) -> Vec<u8> {
    let header = EntryHeader {
        argument,
        kind,
        flags,
        reserved: 0,
        bytes: u32::try_from(bytes.len()).unwrap(),
    };
    let mut entry = header.to_bytes().to_vec();
    entry.extend(bytes);
    entry.resize(entry.len().next_multiple_of(8), 0);
    entry
}

fn openat() -> RecordHeader {
    RecordHeader {
        nr: 257,
        pid: 1,
        tid: 2,
        time_ns: 1000,
        duration_ns: 50,
        result: (-2i64).cast_unsigned(),
        name: *b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ..RecordHeader::default()
    }
}

#[test]
fn a_call_becomes_a_line() {
    let mut fixture = fixture("line");
    let payload = entry(1, ENTRY_STRING, 0, b"/etc/passwd");
    fixture
        .guest
        .record(openat(), [u64::MAX - 99, 2, 3, 4, 5, 6], &payload);
    fixture.guest.record(
        RecordHeader {
            nr: 231,
            flags: RECORD_NO_RETURN,
            pid: 1,
            tid: 1,
            ..RecordHeader::default()
        },
        [7, 0, 0, 0, 0, 0],
        &[],
    );
    let summary = fixture.session.finish();
    assert_eq!(
        summary,
        Summary {
            written: 2,
            ..Summary::default()
        }
    );
    let text = std::fs::read_to_string(&fixture.path).unwrap();
    let expected = concat!(
        r#"{"kind":"syscall","seq":0,"time_ns":1000,"vcpu":0,"pid":1,"tid":2,"comm":"sh","nr":257,"name":"openat","#,
        r#""args":[18446744073709551516,2,3,4,5,6],"result":-2,"errno":"ENOENT","duration_ns":50,"#,
        r#""decoded":{"dirfd":"AT_FDCWD","flags":"O_ACCMODE","path":"/etc/passwd"},"container":"c","image":"i"}"#,
        "\n",
        r#"{"kind":"syscall","seq":1,"time_ns":0,"vcpu":0,"pid":1,"tid":1,"comm":"","nr":231,"name":"exit_group","#,
        r#""args":[7,0,0,0,0,0],"result":null,"errno":null,"duration_ns":0,"container":"c","image":"i"}"#,
        "\n",
    );
    assert_eq!(text, expected);
    for line in text.lines() {
        let event: Event<'_> = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&event).unwrap(), line);
    }
}

#[test]
fn the_filter_is_replaced_while_the_guest_runs() {
    let mut fixture = fixture("filter");
    let read = |fixture: &Fixture| {
        let mut bytes = [0; size_of::<RecordFilter>()];
        let at = GuestAddress(FILTER);
        fixture.guest.memory.read_slice(&mut bytes, at).unwrap();
        RecordFilter::from_bytes(&bytes).unwrap()
    };
    let first = read(&fixture);
    assert_eq!(first.rules(), RecordFilter::everything(0).rules());
    assert_eq!((first.flags, first.generation), (FILTER_PAYLOADS, 2));
    let options = Options {
        filters: vec!["read".to_owned()],
        policy: Policy::Drop,
        ..Options::default()
    };
    fixture
        .session
        .set_filter(options.filter().unwrap())
        .unwrap();
    let second = read(&fixture);
    assert!(second.rules()[0].has(0) && !second.rules()[0].has(1));
    assert_eq!(
        (second.flags, second.generation),
        (FILTER_PAYLOADS | FILTER_DROP, 4)
    );
}

#[test]
fn both_forms_say_the_same() {
    let mut texts = Vec::new();
    for format in [Format::Json, Format::Binary] {
        let mut fixture = fixture_in(format, &format!("forms-{format:?}"));
        for round in 0..2000 {
            let payload = entry(1, ENTRY_STRING, 0, b"/etc/passwd");
            fixture.guest.record(
                RecordHeader {
                    time_ns: 1_000_000 + round * 3,
                    tid: u32::try_from(round / 7).unwrap(),
                    ..openat()
                },
                [u64::MAX - 99, round, 0x80000, 0, 0, 0],
                &payload,
            );
            if round % 100 == 0 {
                fixture.session.crossing(&Crossing {
                    service: "files",
                    operation: "open",
                    path: b"/x",
                    value: Some(round),
                    ..Crossing::default()
                });
                fixture.session.flush();
            }
        }
        let summary = fixture.session.finish();
        assert_eq!((summary.written, summary.problem), (2020, None));
        let file = std::fs::File::open(&fixture.path).unwrap();
        let mut lines = Vec::new();
        let mut reader = reader::Reader::new(file).unwrap();
        reader
            .read(|event| {
                if !matches!(event, Event::Boundary(_)) {
                    lines.push(serde_json::to_string(event).unwrap());
                }
                Ok::<(), reader::Error>(())
            })
            .unwrap();
        assert!(!reader.is_cut());
        texts.push(lines);
    }
    assert_eq!(texts[0].len(), 2000);
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn a_recording_is_made_once_at_a_time() {
    let fixture = fixture("once");
    assert!(matches!(create(&fixture.path), Err(Error::InUse { .. })));
    let file = std::fs::File::open(&fixture.path).unwrap();
    assert!(is_being_written(&file));
    let path = fixture.path.clone();
    let mut fixture = fixture;
    fixture.path = PathBuf::new();
    drop(fixture);
    assert!(!is_being_written(&file));
    assert!(matches!(create_new(&path), Err(Error::Create { .. })));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn rings_wrap_and_room_is_freed() {
    let mut fixture = fixture("wrap");
    for round in 0..3000u64 {
        let text = vec![b'x'; usize::try_from(round % 50).unwrap()];
        let payload = entry(1, ENTRY_STRING, 0, &text);
        fixture.guest.record(openat(), [round; 6], &payload);
        if round % 100 == 0 {
            fixture.session.drain();
            let tail: u64 = fixture
                .guest
                .memory
                .read_obj(GuestAddress(RING + offset_of!(RingHeader, tail) as u64))
                .unwrap();
            assert_eq!(tail, fixture.guest.head);
        }
    }
    let summary = fixture.session.finish();
    assert_eq!((summary.written, summary.problem), (3000, None));
    let text = std::fs::read_to_string(&fixture.path).unwrap();
    assert_eq!(text.lines().count(), 3000);
}

#[test]
fn losses_are_told_once() {
    let mut fixture = fixture("lost");
    fixture.guest.record(openat(), [0; 6], &[]);
    let told = RecordHeader {
        bytes: u32::try_from(MIN_RECORD_BYTES).unwrap(),
        kind: KIND_LOST,
        sequence: 4,
        result: 3,
        ..RecordHeader::default()
    };
    fixture.guest.raw(&told, [0; 6], &[]);
    fixture.guest.field(offset_of!(RingHeader, lost), 5);
    fixture.guest.field(offset_of!(RingHeader, sequence), 9);
    let summary = fixture.session.finish();
    assert_eq!((summary.written, summary.lost), (1, 5));
    let text = std::fs::read_to_string(&fixture.path).unwrap();
    let lost: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(
        lost,
        [
            r#"{"kind":"lost","seq":4,"vcpu":0,"count":3,"container":"c","image":"i"}"#,
            r#"{"kind":"lost","seq":9,"vcpu":0,"count":2,"container":"c","image":"i"}"#,
        ]
    );
}

#[test]
fn nonsense_positions_end_the_recording() {
    for head in [1, 7, RING_BYTES, u64::MAX, 1 << 63, 64 << 10 | 4] {
        let mut fixture = fixture("positions");
        fixture.guest.field(offset_of!(RingHeader, head), head);
        fixture.session.drain();
        fixture.session.drain();
        let summary = fixture.session.finish();
        assert!(summary.problem.is_some(), "{head:#x}");
        assert_eq!(summary.written, 0);
    }
    // Backwards.
    let mut fixture = fixture("backwards");
    fixture.guest.record(openat(), [0; 6], &[]);
    fixture.session.drain();
    fixture.guest.field(offset_of!(RingHeader, head), 8);
    let summary = fixture.session.finish();
    assert_eq!(summary.written, 1);
    assert!(summary.problem.unwrap().contains("make no sense"));
}

#[test]
fn nonsense_records_end_the_recording() {
    let good = RecordHeader {
        bytes: u32::try_from(MIN_RECORD_BYTES + 48 + 16).unwrap(),
        kind: KIND_SYSCALL,
        args: 6,
        ..openat()
    };
    let bad = |change: fn(&mut RecordHeader)| {
        let mut header = good;
        change(&mut header);
        header
    };
    let headers = [
        bad(|header| header.bytes = 0),
        bad(|header| header.bytes = 8),
        bad(|header| header.bytes -= 4),
        bad(|header| header.bytes += 8),
        bad(|header| header.bytes = u32::MAX),
        bad(|header| header.bytes = u32::try_from(MAX_RECORD_BYTES).unwrap() + 8),
        bad(|header| header.kind = 0),
        bad(|header| header.kind = 999),
        bad(|header| header.args = 5),
        bad(|header| header.args = 7),
        bad(|header| header.args = u16::MAX),
    ];
    for (index, header) in headers.iter().enumerate() {
        let mut fixture = fixture(&format!("records-{index}"));
        fixture.guest.record(openat(), [0; 6], &[]);
        fixture
            .guest
            .raw(header, [0; 6], &entry(0, ENTRY_STRING, 0, b"a"));
        let summary = fixture.session.finish();
        assert_eq!(summary.written, 1, "{header:?}");
        assert!(summary.problem.is_some(), "{header:?}");
    }
}

#[test]
fn nonsense_payloads_end_the_recording() {
    let mut long = entry(0, ENTRY_STRING, 0, b"abcdefgh");
    long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let payloads = [
        entry(6, ENTRY_STRING, 0, b"a"),
        entry(0, 0, 0, b"a"),
        entry(0, 9, 0, b"a"),
        long,
    ];
    for (index, payload) in payloads.iter().enumerate() {
        let mut fixture = fixture(&format!("payloads-{index}"));
        fixture.guest.record(openat(), [0; 6], payload);
        let summary = fixture.session.finish();
        assert_eq!(summary.written, 0, "{payload:?}");
        assert!(summary.problem.is_some(), "{payload:?}");
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut fixture = fixture("random");
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..300 {
        let mut bytes: Vec<u8> = (0..512).flat_map(|_| random().to_le_bytes()).collect();
        // Half of them look right at first.
        if round % 2 == 0 {
            let header = RecordHeader {
                bytes: u32::try_from(MIN_RECORD_BYTES + 64).unwrap(),
                kind: KIND_SYSCALL,
                args: (round % 9) as u16,
                nr: random() as u32,
                ..RecordHeader::default()
            };
            bytes[..MIN_RECORD_BYTES].copy_from_slice(&header.to_bytes());
        }
        let mut rest = bytes.as_slice();
        while let Ok((record, after)) = parse::record(rest) {
            fixture.session.output.record(0, &record);
            rest = after;
        }
    }
    let _ = fixture.session.finish();
}

/// What the fuzz target `recording` asserts, for a fixed series of files. `HUSK_FUZZ_ROUNDS` is how many of each form.
#[test]
fn spoilt_recordings_are_events_or_errors() {
    let rounds: u64 = std::env::var("HUSK_FUZZ_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2000);
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for format in [Format::Json, Format::Binary] {
        let mut fixture = fixture_in(format, &format!("spoilt-{format:?}"));
        for round in 0..8 {
            let payload = entry(1, ENTRY_STRING, 0, b"/etc/passwd");
            let args = [u64::MAX - 99, round, 0x80000, 0, 0, 0];
            fixture.guest.record(openat(), args, &payload);
            fixture.session.crossing(&Crossing::default());
        }
        let _ = fixture.session.finish();
        let good = std::fs::read(&fixture.path).unwrap();
        for _ in 0..rounds {
            let mut bytes = good.clone();
            for _ in 0..=random(4) {
                let at = random(bytes.len());
                match random(4) {
                    0 => bytes[at] = u8::try_from(random(256)).unwrap(),
                    1 => bytes[at] ^= 1 << random(8),
                    2 => bytes.truncate(at.max(1)),
                    _ => {
                        let from = random(bytes.len());
                        let part = bytes[from..bytes.len().min(from + 16)].to_vec();
                        bytes.splice(at..at, part);
                    }
                }
            }
            let Ok(mut reader) = reader::Reader::new(bytes.as_slice()) else {
                continue;
            };
            let read = reader.read(|event| {
                assert!(!decode::line(event).contains('\n'));
                Ok::<(), reader::Error>(())
            });
            let _ = (read, reader.is_cut());
        }
    }
}

#[test]
fn a_full_disk_is_told() {
    let memory: GuestMemory =
        Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap());
    let range = GuestRange {
        gpa: RING,
        len: RING_BYTES,
    };
    let full = Path::new("/dev/full");
    let sink = || Sink::start(create(full).unwrap(), Format::Json, &labels()).unwrap();
    let session = Session::over(
        &memory,
        &[range],
        FILTER,
        RecordFilter::everything(0),
        sink(),
        full.into(),
        labels(),
    )
    .unwrap();
    let mut fixture = Fixture {
        guest: Guest {
            memory: memory.clone(),
            head: 0,
            sequence: 0,
        },
        session,
        path: PathBuf::new(),
    };
    fixture.guest.record(openat(), [0; 6], &[]);
    let problem = fixture.session.finish().problem.unwrap();
    assert!(problem.starts_with("cannot write /dev/full:"), "{problem}");

    let nowhere = Path::new("/no/such/dir/trace");
    assert!(matches!(create(nowhere), Err(Error::Create { .. })));
    let outside = GuestRange {
        gpa: 1 << 40,
        len: RING_BYTES,
    };
    assert!(matches!(
        Session::over(
            &memory,
            &[outside],
            FILTER,
            RecordFilter::everything(0),
            sink(),
            full.into(),
            labels()
        ),
        Err(Error::Layout)
    ));
}
