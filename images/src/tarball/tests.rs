//! Formats of entries, and archives that are none.

use super::*;
use crate::testing::Tar;

fn all(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut stream = TarStream::new(Streamed(bytes));
    let mut entries = Vec::new();
    while let Some(entry) = stream.next()? {
        let mut data = Vec::new();
        let read = stream.by_ref().read_to_end(&mut data);
        read.map_err(|e| stream.failed(e))?;
        entries.push((entry, data));
    }
    Ok(entries)
}

#[test]
fn what_the_tar_crate_writes() {
    let long = "dir/".repeat(60) + "file";
    let mut builder = tar::Builder::new(Vec::new());
    for name in ["short", &long] {
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o100_644);
        header.set_uid(1 << 22);
        header.set_gid(5);
        header.set_mtime(77);
        builder
            .append_data(&mut header, name, &b"hello"[..])
            .unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "link", &long).unwrap();
    let entries = all(&builder.into_inner().unwrap()).unwrap();
    assert_eq!(entries[0].0.path, b"short");
    assert_eq!(entries[1].0.path, long.as_bytes());
    assert_eq!((entries[1].0.mode, entries[1].0.mtime), (0o644, (77, 0)));
    assert_eq!((entries[1].0.uid, entries[1].0.gid), (1 << 22, 5));
    assert_eq!(entries[1].1, b"hello");
    assert_eq!(
        (entries[2].0.kind, &entries[2].0.link[..]),
        (Kind::Symlink, long.as_bytes())
    );
}

#[test]
fn ustar_prefix_and_old_directories() {
    let mut header = tar::Header::new_ustar();
    let path = format!("{}/{}", "p".repeat(120), "n".repeat(90));
    header.set_path(&path).unwrap();
    header.set_size(0);
    header.set_cksum();
    let mut old = tar::Header::new_old();
    old.set_path("old/").unwrap();
    old.set_size(0);
    old.as_mut_bytes()[156] = 0;
    old.set_cksum();
    let entries = all(&Tar::new().block(&header, b"").block(&old, b"").end()).unwrap();
    assert_eq!(entries[0].0.path, path.as_bytes());
    assert_eq!(entries[1].0.kind, Kind::Dir);
}

#[test]
fn pax_overrides_the_header() {
    let bytes = Tar::new()
        .raw(b'g', b"global", 0, b"", b"16 comment=abcd\n")
        .pax("path", b"real/name")
        .pax("uid", b"3000000000")
        .pax("gid", b"1")
        .pax("mtime", b"-1.5")
        .pax("size", b"3")
        .file("fake", "abc")
        .file("next", "")
        .end();
    let entries = all(&bytes).unwrap();
    let (entry, data) = &entries[0];
    assert_eq!(
        (&entry.path[..], entry.uid, entry.gid),
        (&b"real/name"[..], 3_000_000_000, 1)
    );
    assert_eq!((entry.mtime, &data[..]), ((-2, 500_000_000), &b"abc"[..]));
    assert_eq!(
        (&entries[1].0.path[..], entries[1].0.mtime),
        (&b"next"[..], (1000, 0))
    );
}

#[test]
fn gnu_sparse_with_continuation_blocks() {
    let mut header = tar::Header::new_gnu();
    header.set_path("s").unwrap();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_size(25);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(100_000);
    gnu.set_is_extended(true);
    for (i, slot) in gnu.sparse.iter_mut().enumerate() {
        slot.set_offset(i as u64 * 1000);
        slot.set_length(1);
    }
    header.set_cksum();
    let mut more = tar::GnuExtSparseHeader::new();
    for (i, slot) in more.sparse_mut().iter_mut().enumerate() {
        slot.set_offset((4 + i as u64) * 1000);
        slot.set_length(1);
    }
    let data = [more.as_bytes().to_vec(), (0..25).collect()].concat();
    let entries = all(&Tar::new().block(&header, &data).file("n", "z").end()).unwrap();
    let (entry, data) = &entries[0];
    let segments = entry.sparse.as_ref().unwrap();
    assert_eq!((entry.size, segments.len(), data.len()), (100_000, 25, 25));
    assert_eq!(
        segments[24],
        Segment {
            offset: 24_000,
            len: 1
        }
    );
    assert_eq!(entries[1].1, b"z");
}

#[test]
fn malformed_extensions_are_errors() {
    let pax = |records: &[(&str, &str)], data: &str| {
        let tar = records
            .iter()
            .fold(Tar::new(), |t, (k, v)| t.pax(k, v.as_bytes()));
        all(&tar.file("f", data).end())
    };
    let bad: [&[(&str, &str)]; 9] = [
        &[("uid", "4294967296")],
        &[("uid", "-1")],
        &[("mtime", "now")],
        &[("GNU.sparse.map", "0,1"), ("size", "1")],
        &[("GNU.sparse.map", "0,1,0,1"), ("GNU.sparse.size", "9")],
        &[("GNU.sparse.map", "0,9"), ("GNU.sparse.size", "1")],
        &[
            ("GNU.sparse.map", "18446744073709551615,2"),
            ("GNU.sparse.size", "9"),
        ],
        &[("GNU.sparse.map", "1"), ("GNU.sparse.size", "9")],
        &[("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "9")],
    ];
    for records in bad {
        assert!(pax(records, "ab").is_err(), "{records:?}");
    }
    let huge = Tar::new()
        .raw(b'x', b"p", 0, b"", &vec![b'a'; (1 << 20) + 1])
        .end();
    assert!(matches!(all(&huge), Err(TarError::Extension { .. })));
    let alone = Tar::new().raw(b'L', b"l", 0, b"", b"name\0");
    assert!(matches!(
        all(&alone.clone().cut()),
        Err(TarError::Truncated { .. })
    ));
    assert!(matches!(all(&alone.end()), Err(TarError::Extension { .. })));
    let odd = Tar::new().raw(b'V', b"volume", 0, b"", b"").end();
    assert!(all(&odd).unwrap_err().to_string().contains("\"volume\""));
    assert!(matches!(all(&[b'x'; 1024]), Err(TarError::Header { .. })));
}

#[test]
fn sizes_beyond_the_input() {
    for size in [1 << 20, u64::MAX >> 1] {
        let mut header = tar::Header::new_gnu();
        header.set_path("f").unwrap();
        header.set_size(size);
        header.set_cksum();
        let bytes = Tar::new().block(&header, b"").end();
        assert!(matches!(all(&bytes), Err(TarError::Truncated { .. })));
        let mut stream = TarStream::new(Streamed(bytes.as_slice()));
        stream.next().unwrap();
        assert!(matches!(stream.next(), Err(TarError::Truncated { .. })));
    }
    let pax = Tar::new()
        .pax("size", b"18446744073709551615")
        .file("f", "")
        .end();
    assert!(matches!(all(&pax), Err(TarError::Truncated { .. })));
}

#[test]
fn the_end_marker() {
    let ended = |bytes: &[u8]| {
        let mut stream = TarStream::new(Streamed(bytes));
        while stream.next().unwrap().is_some() {}
        stream.ended()
    };
    let cut = Tar::new().file("f", "").cut();
    assert!(!ended(&cut));
    assert!(!ended(&[cut.clone(), vec![0; 512]].concat()));
    assert!(ended(&[cut, vec![0; 1024]].concat()));
}
