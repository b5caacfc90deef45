//! What records mean: arguments by name, and events as strace prints system calls.

mod flags;
mod structs;
mod tables;
mod values;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use husk_abi::linux::general;
use husk_abi::linux::syscalls::{ArgKind, lookup};

use super::Name;
use super::event::{Boundary, Decoded, Event, Lost, Syscall};
use super::parse::{Call, Entry, Pointee, strings};

/// What is known of a call's arguments beyond their numbers, by their names, and the names of those of which there was
/// more.
pub(super) fn arguments_of(call: &Call<'_>) -> (BTreeMap<Name, Decoded>, Vec<Name>) {
    let (mut decoded, mut truncated) = (BTreeMap::new(), Vec::new());
    let row = lookup(u64::from(call.header.nr));
    let entries: Vec<Entry<'_>> = call.entries().collect();
    for (index, value) in call.args().iter().enumerate() {
        let of_row = row.and_then(|row| row.args.get(index));
        let (name, kind) = of_row.map_or_else(
            || (Cow::Owned(format!("arg{index}")), ArgKind::Hex),
            |(name, kind)| (Cow::Borrowed(*name), *kind),
        );
        let mut own = entries.iter().filter(|entry| entry.argument == index);
        let what = match own.next() {
            Some(first) => {
                let last = own.next_back();
                if first.truncated && first.pointee != Pointee::Unreadable {
                    truncated.push(name.clone());
                }
                let before = call.args()[index.saturating_sub(1)];
                pointee(kind, before, first, last)
            }
            None if *value != 0 || kind.pointee().is_none() => {
                values::names(kind, index, call.args()).map(Decoded::Text)
            }
            None => None,
        };
        if let Some(what) = what {
            decoded.insert(name, what);
        }
    }
    (decoded, truncated)
}

fn pointee(
    kind: ArgKind,
    what: u64,
    first: &Entry<'_>,
    last: Option<&Entry<'_>>,
) -> Option<Decoded> {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match first.pointee {
        Pointee::Text(bytes) => Some(Decoded::Text(lossy(bytes))),
        Pointee::List(bytes) => Some(Decoded::List(strings(bytes).map(lossy).collect())),
        Pointee::Unreadable => Some(Decoded::Unreadable),
        Pointee::Bytes(bytes) => {
            let changed = match last.map(|last| last.pointee) {
                Some(Pointee::Bytes(after)) => structs::change(kind, bytes, after),
                _ => None,
            };
            changed
                .or_else(|| structs::text(kind, what, bytes))
                .map(Decoded::Text)
        }
    }
}

/// One line for `event`, without its end.
#[must_use]
pub fn line(event: &Event<'_>) -> String {
    match event {
        Event::Syscall(call) => syscall(call),
        Event::Lost(lost) => self::lost(lost),
        Event::Boundary(crossing) => boundary(crossing),
    }
}

fn lost(lost: &Lost<'_>) -> String {
    let records = if lost.count == 1 { "record" } else { "records" };
    format!(
        "--- {} {records} of vCPU {} lost ---",
        lost.count, lost.vcpu
    )
}

fn boundary(crossing: &Boundary<'_>) -> String {
    let mut line = format!(
        "[host] {}.{}(",
        printable(&crossing.service),
        printable(&crossing.operation),
    );
    let texts = [&crossing.path, &crossing.argument];
    let texts = texts.iter().filter(|text| !text.is_empty());
    let mut parts: Vec<String> = texts.map(|text| quoted(text, false)).collect();
    parts.extend(crossing.value.map(|value| format!("{value:#x}")));
    line.push_str(&parts.join(", "));
    line.push_str(") = ");
    match &crossing.errno {
        None => line.push('0'),
        Some(name) => {
            let _ = write!(line, "-1 {}", printable(name));
        }
    }
    let micros = crossing.duration_ns / 1000;
    let _ = write!(line, " <{}.{:06}>", micros / 1_000_000, micros % 1_000_000);
    line
}

fn syscall(call: &Syscall<'_>) -> String {
    let mut line = format!("[pid {}", call.tid);
    if !call.comm.is_empty() {
        let _ = write!(line, "<{}>", printable(&call.comm));
    }
    let _ = write!(line, "] {}(", printable(&call.name));
    line.push_str(&arguments(call).join(", "));
    line.push_str(") = ");
    line.push_str(&result(call));
    if call.result.is_some() {
        let micros = call.duration_ns / 1000;
        let _ = write!(line, " <{}.{:06}>", micros / 1_000_000, micros % 1_000_000);
    }
    line
}

/// Calls that return an address.
const RETURN_ADDRESS: [&str; 4] = ["mmap", "brk", "mremap", "shmat"];

fn result(call: &Syscall<'_>) -> String {
    let Some(value) = call.result else {
        return "?".to_owned();
    };
    match &call.errno {
        None if call.name == "umask" => tables::octal(value.cast_unsigned()),
        None if RETURN_ADDRESS.contains(&&*call.name) => format!("{:#x}", value.cast_unsigned()),
        None => match values::of_result(&call.name, &call.args, value) {
            Some(names) => format!("{value:#x} ({names})"),
            None => value.to_string(),
        },
        Some(name) if name.starts_with("ERESTART") => {
            format!("? {} (to be restarted)", printable(name))
        }
        Some(name) => {
            let code = value
                .checked_neg()
                .and_then(|code| i32::try_from(code).ok());
            let message = code.map(message).unwrap_or_default();
            format!("-1 {} ({message})", printable(name))
        }
    }
}

/// What strerror(3) says.
fn message(code: i32) -> String {
    let text = std::io::Error::from_raw_os_error(code).to_string();
    match text.rsplit_once(" (os error ") {
        Some((message, _)) => message.to_owned(),
        None => text,
    }
}

fn arguments(call: &Syscall<'_>) -> Vec<String> {
    let row = lookup(u64::from(call.nr)).filter(|row| row.name == call.name);
    let Some(row) = row else {
        // An unknown call: how many arguments it takes is unknown, too.
        return call.args.iter().map(|value| hex(*value)).collect();
    };
    if row.args.is_empty() && !row.implemented {
        return vec!["...".to_owned()];
    }
    row.args
        .iter()
        .zip(&call.args)
        .filter(|((name, kind), _)| match kind {
            ArgKind::FcntlArg => values::has_fcntl_argument(&call.args),
            _ => *name != "mode" || has_mode(call),
        })
        .map(|((name, kind), value)| {
            let truncated = call.truncated.iter().any(|truncated| truncated == name);
            match call.decoded.get(*name) {
                Some(Decoded::Text(text)) if is_string(*kind) => quoted(text, truncated),
                Some(Decoded::Text(text)) => {
                    let dots = if truncated { "..." } else { "" };
                    format!("{}{dots}", printable(text))
                }
                Some(Decoded::List(list)) => {
                    let mut items: Vec<String> =
                        list.iter().map(|text| quoted(text, false)).collect();
                    if truncated {
                        items.push("...".to_owned());
                    }
                    format!("[{}]", items.join(", "))
                }
                Some(Decoded::Unreadable) | None => number(*kind, *value),
            }
        })
        .collect()
}

fn is_string(kind: ArgKind) -> bool {
    matches!(kind, ArgKind::Path | ArgKind::Name)
}

/// Whether the call looks at its `mode`: `open` does only when it creates.
fn has_mode(call: &Syscall<'_>) -> bool {
    let flags = match &*call.name {
        "open" => call.args.get(1),
        "openat" => call.args.get(2),
        _ => return true,
    };
    let flags = flags.copied().unwrap_or(0);
    let creating = u64::from(general::O_CREAT | (general::O_TMPFILE & !general::O_DIRECTORY));
    flags & creating != 0
}

/// An argument nothing is known of but its number.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the ABI ignores the upper bits"
)]
fn number(kind: ArgKind, value: u64) -> String {
    let int = value as u32;
    match kind {
        ArgKind::Fd | ArgKind::DirFd | ArgKind::Int | ArgKind::Pid | ArgKind::Uid => {
            int.cast_signed().to_string()
        }
        ArgKind::Len => value.to_string(),
        ArgKind::Off => value.cast_signed().to_string(),
        ArgKind::Uint => int.to_string(),
        ArgKind::Mode | ArgKind::NodeMode => tables::octal(u64::from(int)),
        ArgKind::BufIn | ArgKind::BufOut | ArgKind::Ptr | ArgKind::Addr | ArgKind::Envp => {
            pointer(value)
        }
        ArgKind::IoctlArg | ArgKind::FcntlArg => hex(value),
        kind if kind.pointee().is_some() => pointer(value),
        _ => hex(value),
    }
}

fn pointer(value: u64) -> String {
    if value == 0 {
        "NULL".to_owned()
    } else {
        format!("{value:#x}")
    }
}

fn hex(value: u64) -> String {
    if value == 0 {
        "0".to_owned()
    } else {
        format!("{value:#x}")
    }
}

/// A C string literal, followed by dots if there was more.
fn quoted(text: &str, truncated: bool) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(out, "\\x{byte:02x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
    if truncated {
        out.push_str("...");
    }
    out
}

/// A name of a file that somebody else may have written, without what could drive a terminal.
fn printable(name: &str) -> Cow<'_, str> {
    if name.chars().any(char::is_control) {
        Cow::Owned(name.chars().filter(|c| !c.is_control()).collect())
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests;
