//! Traces in strace's form, and which differences between two traces of the same program mean nothing.
//!
//! `docs/records.md` lists the differences.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// A call as printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// What stands behind the equals sign.
    pub result: String,
}

/// A program's calls: for each thread, by how it came to be, in order.
///
/// The first thread is `1`, the threads and processes it makes `1.1`, `1.2`, ...
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Calls by thread.
    pub threads: BTreeMap<String, Vec<Call>>,
    /// Names of threads by their ids in the container.
    names: BTreeMap<i64, String>,
}

/// Calls that make threads and processes.
const MAKERS: [&str; 4] = ["clone", "clone3", "fork", "vfork"];

impl Trace {
    /// From what `husk trace` prints.
    ///
    /// # Errors
    /// On a line that is no event.
    pub fn of_husk(text: &str) -> Result<Self> {
        let mut by_id: BTreeMap<i64, Vec<Call>> = BTreeMap::new();
        for line in text.lines() {
            if line.starts_with("[host] ") {
                continue;
            }
            let parts = line
                .strip_prefix("[pid ")
                .and_then(|rest| rest.split_once("] "));
            let (who, rest) = parts.with_context(|| format!("no event: {line}"))?;
            let id = who.split('<').next().unwrap_or_default().parse()?;
            // The time it took.
            let call = rest.rsplit_once(" <").map_or(rest, |(call, _)| call);
            by_id.entry(id).or_default().extend(parse(call));
        }
        let mut trace = Self::default();
        trace.add("1".to_owned(), 1, 1, &mut |id, _| {
            by_id.remove(&id).unwrap_or_default()
        });
        Ok(trace)
    }

    /// From the files strace wrote into `dir` for each thread, those of the container's first program `argv0` and all
    /// it made, from its start on.
    ///
    /// # Errors
    /// Without such a program.
    pub fn of_strace(dir: &Path, argv0: &str) -> Result<Self> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let id = name.and_then(|name| name.strip_prefix("t.")?.parse::<i64>().ok());
            if let Some(id) = id {
                files.insert(id, String::from_utf8_lossy(&fs::read(&path)?).into_owned());
            }
        }
        let start = format!(", [\"{argv0}\"");
        let first = files.iter().find_map(|(id, text)| {
            let lines: Vec<&str> = text.lines().collect();
            // Not the last: programs may execute themselves.
            let at = lines.iter().position(|line| {
                line.starts_with("execve(") && line.contains(&start) && line.ends_with(" = 0")
            });
            at.map(|at| (*id, lines[at + 1..].join("\n")))
        });
        let Some((host, text)) = first else {
            bail!("no thread executes {argv0}");
        };
        files.insert(host, text);
        let mut trace = Self::default();
        trace.add("1".to_owned(), 1, host, &mut |_, host| {
            let text = files.remove(&host).unwrap_or_default();
            text.lines().filter_map(parse).collect()
        });
        Ok(trace)
    }

    /// Takes over the calls of a thread and those it makes. `get` gives a thread's calls, by its id in the container and
    /// on the host.
    fn add(
        &mut self,
        name: String,
        id: i64,
        host: i64,
        get: &mut impl FnMut(i64, i64) -> Vec<Call>,
    ) {
        let calls = get(id, host);
        self.names.insert(id, name.clone());
        let mut made = 0;
        for call in &calls {
            if MAKERS.contains(&call.name.as_str())
                && let Some((child, host)) = child(&call.result)
            {
                made += 1;
                self.add(format!("{name}.{made}"), child, host, get);
            }
        }
        let calls = calls.into_iter();
        // Whether a thread must wait for another depends on which of them is faster.
        let calls = calls.filter(|call| call.name != "futex").collect();
        self.threads
            .insert(name, whole_directories(once_each(calls)));
    }

    fn normal(&self, call: &Call) -> Call {
        let mut call = call.clone();
        for arg in &mut call.args {
            *arg = without_comments(arg);
        }
        let is_id = |index: usize| match call.name.as_str() {
            "kill" | "tkill" | "wait4" | "prlimit64" | "setpgid" | "getpgid" => index == 0,
            "tgkill" => index < 2,
            _ => false,
        };
        let args: Vec<String> = call
            .args
            .iter()
            .enumerate()
            .map(|(index, arg)| match arg.parse::<i64>() {
                Ok(id) if is_id(index) => self.id(id),
                _ => normal_argument(arg),
            })
            .collect();
        call.args = match call.name.as_str() {
            // strace shows the arguments in an order of its own, and by name.
            "clone" | "clone3" => vec![clone_flags(&call.args)],
            "rt_sigreturn" => Vec::new(),
            _ => args,
        };
        call.result = self.normal_result(&call);
        call
    }

    fn normal_result(&self, call: &Call) -> String {
        const IDS: [&str; 12] = [
            "clone",
            "clone3",
            "fork",
            "vfork",
            "getpid",
            "gettid",
            "getppid",
            "wait4",
            "set_tid_address",
            "setsid",
            "getpgrp",
            "getpgid",
        ];
        let result = without_comments(&call.result);
        // The error's meaning, and what a number means.
        let result = result
            .split(" (")
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned();
        match result.parse::<i64>() {
            // What interrupted it comes before or after its end, by chance.
            _ if call.name == "rt_sigreturn" => String::new(),
            Ok(id) if id > 0 && IDS.contains(&call.name.as_str()) => self.id(id),
            _ if result.starts_with("0x") => normal_argument(&result),
            _ => result,
        }
    }

    fn id(&self, id: i64) -> String {
        match self.names.get(&id) {
            Some(name) => format!("thread {name}"),
            None if id > 0 => "an id".to_owned(),
            None => id.to_string(),
        }
    }

    /// The first difference to `other` that means something.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        let names = |trace: &Self| trace.threads.keys().cloned().collect::<Vec<_>>().join(", ");
        if names(self) != names(other) {
            return Some(format!("threads {} and {}", names(self), names(other)));
        }
        for (name, calls) in &self.threads {
            let others = &other.threads[name];
            for index in 0..calls.len().max(others.len()) {
                let (a, b) = (calls.get(index), others.get(index));
                let same = match (a, b) {
                    (Some(a), Some(b)) => equal(&self.normal(a), &other.normal(b)),
                    _ => false,
                };
                if !same {
                    let show = |call: Option<&Call>| {
                        call.map_or_else(
                            || "nothing".to_owned(),
                            |call| {
                                format!("{}({}) = {}", call.name, call.args.join(", "), call.result)
                            },
                        )
                    };
                    return Some(format!(
                        "call {index} of thread {name}:\n  {}\n  {}",
                        show(a),
                        show(b)
                    ));
                }
            }
        }
        None
    }
}

/// Leaves out a call that was made again at once.
///
/// Linux wakes a traced thread for a signal that is ignored, such as the SIGCHLD of a child just gone.
fn once_each(calls: Vec<Call>) -> Vec<Call> {
    let again = |index: usize| {
        calls[index].result.starts_with("? ERESTART")
            && matches!(calls.get(index + 1), Some(next) if next.name == calls[index].name)
    };
    let kept: Vec<bool> = (0..calls.len()).map(|index| !again(index)).collect();
    let mut kept = kept.into_iter();
    let mut calls = calls;
    calls.retain(|_| kept.next().unwrap_or(true));
    calls
}

/// Joins reads of a directory that follow each other.
///
/// Linux ends one after its first entry when a signal waits, as even an ignored one, such as SIGCHLD of an earlier
/// child, does for a moment in a traced thread.
fn whole_directories(calls: Vec<Call>) -> Vec<Call> {
    let read = |call: &Call| match call.name.as_str() {
        "getdents64" => call.result.parse::<u64>().ok().filter(|bytes| *bytes > 0),
        _ => None,
    };
    let mut joined: Vec<Call> = Vec::with_capacity(calls.len());
    for call in calls {
        if let Some(last) = joined.last_mut()
            && last.args.first() == call.args.first()
            && let (Some(before), Some(more)) = (read(last), read(&call))
        {
            last.result = (before + more).to_string();
        } else {
            joined.push(call);
        }
    }
    joined
}

/// The thread a call made: its id in the container, and that on the host, which is the same unless strace says.
fn child(result: &str) -> Option<(i64, i64)> {
    let id = result
        .split_whitespace()
        .next()?
        .parse()
        .ok()
        .filter(|id| *id > 0)?;
    let host = result
        .split_once("/* ")
        .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    Some((id, host.unwrap_or(id)))
}

/// A call of a line; nothing for signals and ends.
fn parse(line: &str) -> Option<Call> {
    if line.starts_with("--- ") || line.starts_with("+++ ") {
        return None;
    }
    let (name, rest) = line.split_once('(')?;
    let (args, rest) = arguments(rest);
    Some(Call {
        name: name.to_owned(),
        args,
        result: rest.trim_start().strip_prefix("= ")?.to_owned(),
    })
}

/// What stands between commas up to the parenthesis that ends them, and what comes after that.
fn arguments(text: &str) -> (Vec<String>, &str) {
    let (mut args, mut arg) = (Vec::new(), String::new());
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    for (at, c) in text.char_indices() {
        if quoted {
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else {
            match c {
                '"' => quoted = true,
                '(' | '[' | '{' => depth += 1,
                ')' if depth == 0 => {
                    if !arg.trim().is_empty() {
                        args.push(arg.trim().to_owned());
                    }
                    return (args, &text[at + 1..]);
                }
                ')' | ']' | '}' => depth -= 1,
                ',' if depth == 0 => {
                    args.push(std::mem::take(&mut arg).trim().to_owned());
                    continue;
                }
                _ => {}
            }
        }
        arg.push(c);
    }
    (args, "")
}

fn without_comments(text: &str) -> String {
    let mut text = text.to_owned();
    while let Some(start) = text.find(" /*") {
        let end = text[start..]
            .find("*/")
            .map_or(text.len(), |end| start + end + 2);
        text.replace_range(start..end, "");
    }
    text
}

const ADDRESS: &str = "an address";
const STRUCT: &str = "a struct";

/// Beginnings of structs that are compared; what is in others depends on the machine.
const COMPARED: [&str; 4] = ["[{WIF", "{st_mode=S_IFREG", "{sa_family", "[{fd="];

fn normal_argument(arg: &str) -> String {
    if let Some(number) = number(arg) {
        // Numbers as large are addresses, or offsets and sizes strace shows in hexadecimal.
        return if arg.starts_with("0x") && number >= 0x1000 {
            ADDRESS.to_owned()
        } else {
            number.to_string()
        };
    }
    if COMPARED.iter().any(|start| arg.starts_with(start)) {
        return arg.to_owned();
    }
    if arg.contains('{') {
        return STRUCT.to_owned();
    }
    if !arg.starts_with(['"', '[', '~']) && arg.contains('|') {
        let mut flags: Vec<&str> = arg.split('|').collect();
        flags.sort_unstable();
        return flags.join("|");
    }
    arg.to_owned()
}

/// A number, in the form it is printed in; octal ones are modes.
fn number(text: &str) -> Option<i128> {
    if let Some(hex) = text.strip_prefix("0x") {
        return i128::from_str_radix(hex, 16).ok();
    }
    match text.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => i128::from_str_radix(octal, 8).ok(),
        _ => text.parse().ok(),
    }
}

/// The flags among clone's or clone3's arguments, and the signal.
fn clone_flags(args: &[String]) -> String {
    let flags = args
        .iter()
        .find_map(|arg| {
            let (_, rest) = arg.split_once("flags=")?;
            rest.split([',', '}']).next()
        })
        .or(args.first().map(String::as_str));
    let mut flags: Vec<&str> = flags.unwrap_or_default().split('|').collect();
    flags.sort_unstable();
    flags.join("|")
}

/// Calls of which strace leaves out what their request or operation does not use.
const SHORTENED: [&str; 3] = ["prctl", "ioctl", "fcntl"];

fn equal(a: &Call, b: &Call) -> bool {
    let count = if SHORTENED.contains(&a.name.as_str()) {
        a.args.len().min(b.args.len())
    } else {
        a.args.len()
    };
    let long_enough = |call: &Call| call.args.len() >= count;
    a.name == b.name
        && equal_argument(&a.result, &b.result)
        && long_enough(b)
        && (b.args.len() == count || SHORTENED.contains(&a.name.as_str()))
        && a.args[..count]
            .iter()
            .zip(&b.args[..count])
            .all(|(a, b)| equal_argument(a, b))
}

/// Where one shows an address the other may show what is there.
fn equal_argument(a: &str, b: &str) -> bool {
    a == b || (a == ADDRESS && b != "NULL") || (b == ADDRESS && a != "NULL")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let call =
            parse(r#"openat(AT_FDCWD, "a,(\")", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file)"#);
        let call = call.unwrap();
        assert_eq!(call.name, "openat");
        assert_eq!(call.args, ["AT_FDCWD", r#""a,(\")""#, "O_RDONLY|O_CLOEXEC"]);
        assert_eq!(call.result, "-1 ENOENT (No such file)");
        assert_eq!(parse("exit_group(0)   = ?").unwrap().result, "?");
        assert!(parse("--- SIGCHLD {si_signo=SIGCHLD} ---").is_none());
        assert!(parse("+++ exited with 0 +++").is_none());
        assert_eq!(child("6 /* 3580 in strace's PID NS */"), Some((6, 3580)));
        assert_eq!(child("-1 EAGAIN (x)"), None);
    }

    fn trace(lines: &[&str]) -> Trace {
        let text: Vec<String> = lines
            .iter()
            .map(|line| format!("[pid 1<x>] {line} <0.000001>"))
            .collect();
        Trace::of_husk(&text.join("\n")).unwrap()
    }

    #[test]
    fn directories_read_in_parts() {
        let read = |bytes| format!("getdents64(3, 0x1000 /* n entries */, 32768) = {bytes}");
        let (whole, rest) = (read(144), read(0));
        let whole = trace(&[&whole, &rest]);
        let parts = [read(24), read(120), read(0)];
        let parts = trace(&parts.each_ref().map(String::as_str));
        assert_eq!(whole.difference(&parts), None);
        let short = trace(&[&read(24), &read(0)]);
        assert!(whole.difference(&short).is_some());
    }

    #[test]
    fn calls_made_again() {
        let wait = |result| format!("wait4(-1, 0x7fff0000, 0, NULL) = {result}");
        let (again, done) = (
            wait("? ERESTARTSYS (To be restarted)"),
            wait("-1 ECHILD (x)"),
        );
        let (twice, once) = (trace(&[&again, &done]), trace(&[&done]));
        assert_eq!(twice.difference(&once), None);
        let handled = trace(&[&again, "rt_sigreturn({mask=[]}) = 0", &done]);
        assert!(handled.difference(&once).is_some());
    }

    #[test]
    fn what_means_nothing() {
        for (a, b) in [
            ("read(0, 0x7fff0000, 5) = 5", "read(0, \"abcde\", 5) = 5"),
            (
                "mmap(NULL, 1, PROT_READ|PROT_WRITE, 0, -1, 0) = 0x7000",
                "mmap(NULL, 1, PROT_WRITE|PROT_READ, 0, -1, 0) = 0x9000",
            ),
            ("umask(0022) = 18", "umask(022) = 18"),
            (
                "rseq(0x7000, 32, 0, 0x53053053) = 0",
                "rseq(0x8000, 0x20, 0, 0x53053053) = 0",
            ),
            ("getpid() = 1", "getpid() = 1"),
            (
                "prctl(PR_SET_NAME, 0x7000, 0, 0, 0) = 0",
                "prctl(PR_SET_NAME, \"cat\") = 0",
            ),
        ] {
            assert_eq!(trace(&[a]).difference(&trace(&[b])), None);
        }
    }

    #[test]
    fn what_means_something() {
        for (a, b) in [
            ("read(0, 0x7fff0000, 5) = 5", "read(0, NULL, 5) = 5"),
            ("read(0, 0x7fff0000, 5) = 5", "read(0, \"abcde\", 5) = 4"),
            ("read(0, 0x7fff0000, 5) = 5", "pread64(0, \"abcde\", 5) = 5"),
            ("close(3) = -1 EBADF (x)", "close(3) = -1 EINTR (x)"),
            ("open(\"a\", O_RDONLY) = 3", "open(\"b\", O_RDONLY) = 3"),
            (
                "open(\"a\", O_RDONLY) = 3",
                "open(\"a\", O_RDONLY|O_CLOEXEC) = 3",
            ),
        ] {
            assert!(trace(&[a]).difference(&trace(&[b])).is_some(), "{a}");
        }
        assert!(
            trace(&["sync() = 0"])
                .difference(&trace(&["sync() = 0"; 2]))
                .is_some()
        );
    }
}
