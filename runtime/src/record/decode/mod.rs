//! Events as strace prints system calls.

mod flags;
mod tables;

use std::borrow::Cow;
use std::fmt::Write;

use husk_abi::linux::general;
use husk_abi::linux::syscalls::{ArgKind, lookup};

use super::event::{Boundary, Decoded, Event, Lost, Syscall};
use flags::{bits, choice, signal};

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
        "[host] {}.{}(\"{}\"",
        printable(&crossing.service),
        printable(&crossing.operation),
        printable(&crossing.path)
    );
    if !crossing.argument.is_empty() {
        let _ = write!(line, ", \"{}\"", printable(&crossing.argument));
    }
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
    let mut line = format!("[pid {}] {}(", call.tid, printable(&call.name));
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
        None if RETURN_ADDRESS.contains(&&*call.name) => format!("{:#x}", value.cast_unsigned()),
        None => value.to_string(),
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
        .zip(call.args)
        .filter(|((name, _), _)| *name != "mode" || has_mode(call))
        .map(|((name, kind), value)| {
            let decoded = call.decoded.get(*name);
            let truncated = call.truncated.iter().any(|truncated| truncated == name);
            if *name == "mode" && call.name.contains("access") {
                return bits(value, tables::ACCESS, "F_OK");
            }
            argument(*kind, value, decoded, truncated)
        })
        .collect()
}

/// Whether the call looks at its `mode`: `open` does only when it creates.
fn has_mode(call: &Syscall<'_>) -> bool {
    let flags = match &*call.name {
        "open" => call.args[1],
        "openat" => call.args[2],
        _ => return true,
    };
    let creating = u64::from(general::O_CREAT | (general::O_TMPFILE & !general::O_DIRECTORY));
    flags & creating != 0
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the ABI ignores the upper bits"
)]
fn argument(kind: ArgKind, value: u64, decoded: Option<&Decoded>, truncated: bool) -> String {
    let int = value as u32;
    let signed = int.cast_signed();
    match kind {
        ArgKind::DirFd if signed == general::AT_FDCWD => "AT_FDCWD".to_owned(),
        ArgKind::Fd | ArgKind::DirFd | ArgKind::Int | ArgKind::Pid | ArgKind::Uid => {
            signed.to_string()
        }
        ArgKind::Path | ArgKind::Argv => match decoded {
            Some(Decoded::Text(text)) => quoted(text, truncated),
            Some(Decoded::List(list)) => {
                let mut items: Vec<String> = list.iter().map(|text| quoted(text, false)).collect();
                if truncated {
                    items.push("...".to_owned());
                }
                format!("[{}]", items.join(", "))
            }
            Some(Decoded::Unreadable) | None => pointer(value),
        },
        ArgKind::BufIn | ArgKind::BufOut | ArgKind::Iov | ArgKind::Ptr | ArgKind::Addr => {
            pointer(value)
        }
        ArgKind::Len => value.to_string(),
        ArgKind::Off => value.cast_signed().to_string(),
        ArgKind::Uint => int.to_string(),
        ArgKind::Hex => hex(value),
        ArgKind::Mode => format!("{int:04o}"),
        ArgKind::Signal => signal(int),
        ArgKind::SigHow => choice(int, tables::SIG_HOW),
        ArgKind::OpenFlags => tables::open_flags(int),
        ArgKind::AtFlags => bits(u64::from(int), tables::AT, "0"),
        ArgKind::Prot => bits(value, tables::PROT, "PROT_NONE"),
        ArgKind::MapFlags => tables::map_flags(int),
        ArgKind::CloneFlags => tables::clone_flags(value),
        ArgKind::FutexOp => tables::futex_op(int),
        ArgKind::FcntlCmd => choice(int, tables::FCNTL),
        ArgKind::Ioctl => choice(int, tables::IOCTL),
        ArgKind::Whence => choice(int, tables::WHENCE),
        ArgKind::Clock => choice(int, tables::CLOCK),
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
