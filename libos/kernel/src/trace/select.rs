//! Which calls the filter's rules select (`husk_abi::boundary::record_filter`).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use husk_abi::boundary::record_filter::{FilterRule, MAX_RULES, PROCESS_TREE};
use husk_abi::linux::general;
use husk_abi::linux::syscalls::Syscall;

use crate::fs::dir;
use crate::user::UserAddr;
use crate::{Process, Thread};

/// Longest path looked at, with its NUL.
const PATH_MAX: usize = general::PATH_MAX as usize;

/// Rules that may select a call, by index: bit `n` for rule `n`.
pub(super) type RuleSet = u32;

const _: () = assert!(MAX_RULES <= RuleSet::BITS as usize);

/// The rules that select a call by what is known before it is made.
pub(super) fn before(
    rules: &[FilterRule],
    thread: &Thread,
    nr: u64,
    row: Option<&Syscall>,
    args: &[u64; 6],
) -> RuleSet {
    let marks = thread.process.record_marks.load(Ordering::Relaxed);
    let mut files: Option<Vec<Vec<u8>>> = None;
    let mut selected = 0;
    for (index, rule) in rules.iter().enumerate() {
        let by_process = || {
            !rule.has_processes()
                || marks >> index & 1 != 0
                || rule.processes.contains(&thread.process.pid)
        };
        if !rule.has(nr) || !by_process() {
            continue;
        }
        if rule.has_paths() {
            let files = files
                .get_or_insert_with(|| row.map_or_else(Vec::new, |row| named(thread, row, args)));
            if !files.iter().any(|path| rule.wants_path(path)) {
                continue;
            }
        }
        selected |= 1 << index;
    }
    selected
}

/// Whether one of `selected` wants the result.
pub(super) fn after(rules: &[FilterRule], selected: RuleSet, rax: Option<i64>) -> bool {
    rules
        .iter()
        .enumerate()
        .any(|(index, rule)| selected >> index & 1 != 0 && rule.wants_result(rax))
}

/// In which rules' process trees `pid` is, whose parent is in those of `parent`.
pub(super) fn marks(rules: &[FilterRule], parent: RuleSet, pid: u32) -> RuleSet {
    let own = rules
        .iter()
        .enumerate()
        .filter(|(_, rule)| rule.processes.contains(&(pid | PROCESS_TREE)));
    own.fold(parent, |marks, (index, _)| marks | 1 << index)
}

/// Finds for all processes in which rules' trees they are.
pub(super) fn mark_all(rules: &[FilterRule], processes: &[Arc<Process>]) {
    for process in processes {
        let mut marks = self::marks(rules, 0, process.pid);
        let mut ancestor = process.parent();
        while let Some(parent) = ancestor {
            marks = self::marks(rules, marks, parent.pid);
            ancestor = parent.parent();
        }
        process.record_marks.store(marks, Ordering::Relaxed);
    }
}

/// The files a call names, by path or by descriptor, as absolute paths without `.` and `..`; symbolic links are as
/// the program wrote them.
fn named(thread: &Thread, row: &Syscall, args: &[u64; 6]) -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    let mut base = general::AT_FDCWD;
    for ((_, kind), value) in row.args.iter().zip(args) {
        if kind.is_path() {
            if let Ok(path) = UserAddr(*value).read_cstr(PATH_MAX) {
                files.extend(absolute(thread, base, &path));
            }
            base = general::AT_FDCWD;
        } else if kind.is_descriptor() {
            base = *value as i32;
            files.extend(descriptor(thread, base));
        }
    }
    files
}

/// Where `path`, relative to the descriptor `base` or `AT_FDCWD`, leads.
fn absolute(thread: &Thread, base: i32, path: &[u8]) -> Option<Vec<u8>> {
    let mut full = match path.first() {
        Some(b'/') => Vec::new(),
        _ if base == general::AT_FDCWD => {
            let fs = thread.fs_opt()?;
            dir::visible_path(&fs.cwd(), &fs.root()).ok()?
        }
        _ => descriptor(thread, base)?,
    };
    full.push(b'/');
    full.extend_from_slice(path);
    Some(normal(&full))
}

/// Where the open file `fd` lies.
fn descriptor(thread: &Thread, fd: i32) -> Option<Vec<u8>> {
    let file = thread.files_opt()?.get_any(fd).ok()?;
    let fs = thread.fs_opt()?;
    dir::visible_path(&file.location(thread.kernel), &fs.root()).ok()
}

/// An absolute path without empty parts, `.` and `..`.
pub(super) fn normal(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut normal = Vec::with_capacity(path.len());
    for part in &parts {
        normal.push(b'/');
        normal.extend_from_slice(part);
    }
    if normal.is_empty() {
        normal.push(b'/');
    }
    normal
}
