//! The schema of recorded events: one JSON object a line. `docs/records.md` is its description.

use std::borrow::Cow;
use std::collections::BTreeMap;

use husk_abi::linux::Errno;
use husk_abi::linux::syscalls::{self, lookup};
use serde::{Deserialize, Serialize};

use super::Name;
use super::parse::{Call, Pointee};

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Event<'a> {
    /// A system call.
    #[serde(borrow)]
    Syscall(Syscall<'a>),
    /// Records were lost.
    #[serde(borrow)]
    Lost(Lost<'a>),
    /// Something crossed the isolation boundary: the VMM's own record.
    #[serde(borrow)]
    Boundary(Boundary<'a>),
}

/// What an argument points to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Decoded {
    /// A string.
    Text(String),
    /// An array of strings.
    List(Vec<String>),
    /// Memory that could not be read.
    Unreadable,
}

/// A system call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/records.md describes each field")]
pub struct Syscall<'a> {
    pub seq: u64,
    pub time_ns: u64,
    pub vcpu: u32,
    pub pid: u32,
    pub tid: u32,
    pub nr: u32,
    pub name: Name,
    pub args: [u64; 6],
    pub result: Option<i64>,
    pub errno: Option<Name>,
    pub duration_ns: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub decoded: BTreeMap<Name, Decoded>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<Name>,
    #[serde(borrow)]
    pub container: Cow<'a, str>,
    #[serde(borrow)]
    pub image: Cow<'a, str>,
}

/// Records were lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/records.md describes each field")]
pub struct Lost<'a> {
    pub seq: u64,
    pub vcpu: u32,
    pub count: u64,
    #[serde(borrow)]
    pub container: Cow<'a, str>,
    #[serde(borrow)]
    pub image: Cow<'a, str>,
}

/// Something crossed the isolation boundary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/records.md describes each field")]
pub struct Boundary<'a> {
    pub seq: u64,
    pub time_ns: u64,
    pub service: Name,
    #[serde(borrow)]
    pub operation: Cow<'a, str>,
    pub node: u64,
    #[serde(borrow)]
    pub path: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub argument: Cow<'a, str>,
    pub errno: Option<Name>,
    pub duration_ns: u64,
    #[serde(borrow)]
    pub container: Cow<'a, str>,
    #[serde(borrow)]
    pub image: Cow<'a, str>,
}

/// The highest value of `-rax` that is an error.
const MAX_ERRNO: i64 = 4095;

/// The codes a call that a signal interrupted has before it is restarted (`include/linux/errno.h`).
const RESTARTS: [(i64, &str); 4] = [
    (512, "ERESTARTSYS"),
    (513, "ERESTARTNOINTR"),
    (514, "ERESTARTNOHAND"),
    (516, "ERESTART_RESTARTBLOCK"),
];

/// Name of the error that `result` is, if it is one.
#[must_use]
pub fn errno_name(result: i64) -> Option<Name> {
    let code = result
        .checked_neg()
        .filter(|code| (1..=MAX_ERRNO).contains(code))?;
    let restart = RESTARTS.iter().find(|(number, _)| *number == code);
    Some(match restart {
        Some((_, name)) => Cow::Borrowed(*name),
        None => i32::try_from(code)
            .ok()
            .and_then(|code| Errno::from_code(code).name())
            .map_or_else(|| Cow::Owned(format!("E{code}")), Cow::Borrowed),
    })
}

/// Name of call `nr`; `syscall_NR` if the table has none.
fn call_name(nr: u32) -> (Name, &'static [(&'static str, syscalls::ArgKind)]) {
    match lookup(u64::from(nr)) {
        Some(row) => (Cow::Borrowed(row.name), row.args),
        None => (Cow::Owned(format!("syscall_{nr}")), &[]),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl<'a> Syscall<'a> {
    /// The event of `call` on `vcpu`; `labels` are container id and image digest.
    pub(super) fn new(vcpu: u32, call: &Call, labels: (&'a str, &'a str)) -> Self {
        let header = &call.header;
        let (name, args) = call_name(header.nr);
        let argument_name = |index: usize| -> Name {
            args.get(index).map_or_else(
                || Cow::Owned(format!("arg{index}")),
                |(name, _)| Cow::Borrowed(*name),
            )
        };
        let decoded = call.entries.iter().map(|entry| {
            let value = match &entry.pointee {
                Pointee::Text(bytes) => Decoded::Text(text(bytes)),
                Pointee::List(list) => {
                    Decoded::List(list.iter().map(|bytes| text(bytes)).collect())
                }
                Pointee::Unreadable => Decoded::Unreadable,
            };
            (argument_name(entry.argument), value)
        });
        let truncated = call
            .entries
            .iter()
            .filter(|entry| entry.truncated && entry.pointee != Pointee::Unreadable)
            .map(|entry| argument_name(entry.argument));
        let result = call.result();
        Self {
            seq: header.sequence,
            time_ns: header.time_ns,
            vcpu,
            pid: header.pid,
            tid: header.tid,
            nr: header.nr,
            name,
            args: call.args,
            result,
            errno: result.and_then(errno_name),
            duration_ns: header.duration_ns,
            decoded: decoded.collect(),
            truncated: truncated.collect(),
            container: Cow::Borrowed(labels.0),
            image: Cow::Borrowed(labels.1),
        }
    }
}

impl<'a> Lost<'a> {
    /// `count` records of `vcpu` were lost before the one numbered `seq`.
    pub(super) fn new(vcpu: u32, seq: u64, count: u64, labels: (&'a str, &'a str)) -> Self {
        Self {
            seq,
            vcpu,
            count,
            container: Cow::Borrowed(labels.0),
            image: Cow::Borrowed(labels.1),
        }
    }
}
