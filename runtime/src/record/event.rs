//! The schema of recorded events: one JSON object a line. `docs/records.md` is its description.

use std::borrow::Cow;
use std::collections::BTreeMap;

use husk_abi::linux::Errno;
use husk_abi::linux::syscalls::lookup;
use serde::{Deserialize, Serialize};

use super::parse::Call;
use super::{Labels, Name, decode};

/// Where an event comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/records.md describes each field")]
pub struct Origin<'a> {
    #[serde(borrow)]
    pub container: Cow<'a, str>,
    #[serde(borrow)]
    pub image: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub tenant: Cow<'a, str>,
}

impl<'a> Origin<'a> {
    pub(super) fn new(labels: &'a Labels) -> Self {
        Self {
            container: Cow::Borrowed(&labels.container),
            image: Cow::Borrowed(&labels.image),
            tenant: Cow::Borrowed(&labels.tenant),
        }
    }
}

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
    #[serde(borrow)]
    pub comm: Cow<'a, str>,
    pub nr: u32,
    pub name: Name,
    pub args: Vec<u64>,
    pub result: Option<i64>,
    pub errno: Option<Name>,
    pub duration_ns: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub decoded: BTreeMap<Name, Decoded>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<Name>,
    #[serde(flatten, borrow)]
    pub origin: Origin<'a>,
}

/// Records were lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/records.md describes each field")]
pub struct Lost<'a> {
    pub seq: u64,
    pub vcpu: u32,
    pub count: u64,
    #[serde(flatten, borrow)]
    pub origin: Origin<'a>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u64>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub path: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub argument: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
    pub errno: Option<Name>,
    pub duration_ns: u64,
    #[serde(flatten, borrow)]
    pub origin: Origin<'a>,
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
pub fn call_name(nr: u32) -> Name {
    match lookup(u64::from(nr)) {
        Some(row) => Cow::Borrowed(row.name),
        None => Cow::Owned(format!("syscall_{nr}")),
    }
}

impl<'a> Syscall<'a> {
    /// The event of `call` on `vcpu`.
    pub(super) fn new(vcpu: u32, call: &Call<'_>, labels: &'a Labels) -> Self {
        let header = &call.header;
        let (decoded, truncated) = decode::arguments_of(call);
        let result = call.result();
        let name = header.name.split(|byte| *byte == 0).next();
        Self {
            seq: header.sequence,
            time_ns: header.time_ns,
            vcpu,
            pid: header.pid,
            tid: header.tid,
            comm: Cow::Owned(String::from_utf8_lossy(name.unwrap_or_default()).into_owned()),
            nr: header.nr,
            name: call_name(header.nr),
            args: call.args().to_vec(),
            result,
            errno: result.and_then(errno_name),
            duration_ns: header.duration_ns,
            decoded,
            truncated,
            origin: Origin::new(labels),
        }
    }
}

impl<'a> Lost<'a> {
    /// `count` records of `vcpu` were lost before the one numbered `seq`.
    pub(super) fn new(vcpu: u32, seq: u64, count: u64, labels: &'a Labels) -> Self {
        Self {
            seq,
            vcpu,
            count,
            origin: Origin::new(labels),
        }
    }
}
