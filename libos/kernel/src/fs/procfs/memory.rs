//! A process's memory: `maps`, `smaps`, `cmdline`, `environ`, `auxv`.

use husk_abi::boundary::layout::PAGE_SIZE;

use super::subject::Subject;
use super::text::Text;
use crate::fs::devfs;
use crate::mm::{MapLine, MapName};
use crate::{Result, Thread};

/// Column in which the names of mappings start.
const NAME_COLUMN: usize = 72;

/// One line of `maps`.
pub(super) fn map_line(text: &mut Text, map: &MapLine) {
    let start = text.len();
    let [r, w, x, s] = map.perms().map(char::from);
    let (major, minor) = devfs::split(map.dev);
    write!(
        text,
        "{:08x}-{:08x} {r}{w}{x}{s} {:08x} {major:02x}:{minor:02x} {} ",
        map.start, map.end, map.offset, map.ino
    );
    match &map.name {
        MapName::None => {}
        MapName::Path(path) => {
            text.pad_to(start, NAME_COLUMN);
            text.push(b" ");
            text.push_newlines_escaped(path);
        }
        MapName::Special(name) => {
            text.pad_to(start, NAME_COLUMN);
            write!(text, " {name}");
        }
    }
    write!(text, "\n");
}

/// `maps`.
pub(super) fn maps(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    if let Some(mm) = subject.thread()?.mm_opt() {
        for map in mm.maps(false) {
            map_line(text, &map);
        }
    }
    Ok(())
}

/// `smaps`. Pages are not looked at one by one: what is private counts as dirty, what is a file's as shared.
pub(super) fn smaps(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    let Some(mm) = subject.thread()?.mm_opt() else {
        return Ok(());
    };
    for map in mm.maps(true) {
        map_line(text, &map);
        let kib = |pages: u64| pages * PAGE_SIZE / 1024;
        let resident = kib(map.resident_pages);
        let anonymous = kib(map.anonymous_pages);
        let lines = [
            ("Size", (map.end - map.start) / 1024),
            ("KernelPageSize", PAGE_SIZE / 1024),
            ("MMUPageSize", PAGE_SIZE / 1024),
            ("Rss", resident),
            ("Pss", resident),
            ("Pss_Dirty", anonymous),
            ("Shared_Clean", resident - anonymous),
            ("Shared_Dirty", 0),
            ("Private_Clean", 0),
            ("Private_Dirty", anonymous),
            ("Referenced", resident),
            ("Anonymous", anonymous),
            ("KSM", 0),
            ("LazyFree", 0),
            ("AnonHugePages", 0),
            ("ShmemPmdMapped", 0),
            ("FilePmdMapped", 0),
            ("Shared_Hugetlb", 0),
            ("Private_Hugetlb", 0),
            ("Swap", 0),
            ("SwapPss", 0),
            ("Locked", 0),
        ];
        for (name, kib) in lines {
            let label = alloc::format!("{name}:");
            write!(text, "{label:<16} {kib:>8} kB\n");
        }
        write!(text, "THPeligible:           0\nVmFlags: ");
        for (letter, flag) in map.perms().iter().zip(["rd", "wr", "ex", "sh"]) {
            if !matches!(letter, b'-' | b'p') {
                write!(text, "{flag} ");
            }
        }
        write!(text, "mr mw me \n");
    }
    Ok(())
}

/// Appends the bytes `start..end` of the process's memory, as far as they can be read.
fn push_memory(subject: &Subject, text: &mut Text, start: u64, end: u64) -> Result<()> {
    let Some(mm) = subject.thread()?.mm_opt() else {
        return Ok(());
    };
    let mut bytes = [0; PAGE_SIZE as usize];
    let mut at = start;
    while at < end {
        let want = (end - at).min(PAGE_SIZE) as usize;
        match mm.read_bytes(at, &mut bytes[..want]) {
            Ok(got) if got > 0 => {
                text.push(&bytes[..got]);
                at += got as u64;
            }
            _ => break,
        }
    }
    Ok(())
}

/// `cmdline`. Empty for a zombie. A process may have written over its arguments, and on into its environment:
/// then they end at the first NUL, as on Linux (`setproctitle`).
pub(super) fn cmdline(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    subject.process()?;
    let Ok(Some(mm)) = subject.thread().map(|thread| thread.mm_opt()) else {
        return Ok(());
    };
    let places = mm.places();
    let mut last = [0];
    let ends_with_nul = places.arg_end > places.arg_start
        && mm.read_bytes(places.arg_end - 1, &mut last) == Ok(1)
        && last == [0];
    if ends_with_nul {
        return push_memory(subject, text, places.arg_start, places.arg_end);
    }
    let mut title = Text::default();
    let end = places.env_end.max(places.arg_end);
    push_memory(subject, &mut title, places.arg_start, end)?;
    let title = title.into_bytes();
    let len = title.iter().position(|byte| *byte == 0);
    text.push(&title[..len.unwrap_or(title.len())]);
    Ok(())
}

/// `environ`.
pub(super) fn environ(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    let Some(mm) = subject.memory()? else {
        return Ok(());
    };
    let places = mm.places();
    push_memory(subject, text, places.env_start, places.env_end)
}

/// `auxv`.
pub(super) fn auxv(_t: &Thread, subject: &Subject, text: &mut Text) -> Result<()> {
    let Some(mm) = subject.memory()? else {
        return Ok(());
    };
    let places = mm.places();
    let end = places.auxv_start + places.auxv_bytes;
    push_memory(subject, text, places.auxv_start, end)
}
