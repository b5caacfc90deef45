//! Replacing the program: `execve(2)`, `execveat(2)`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use husk_abi::linux::general::{self, AT_FDCWD};
use husk_hal::trap::TrapFrame;
use husk_hal::{fpu, thread as hal_thread};

use super::{Thread, capabilities, exit, ptrace};
use crate::fs::{self, FileRef};
use crate::mm::load::{self, Program};
use crate::sync::Interruptible;
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult, signal};

/// `MAX_ARG_STRLEN`: the longest single argument, in bytes.
const MAX_STRING: usize = 131_072;
/// Bytes of a script's first line that count (`BINPRM_BUF_SIZE`).
const SCRIPT_LINE: usize = 256;
/// Interpreters of interpreters (`#!` lines) before `ELOOP`.
const MAX_INTERPRETERS: usize = 5;

/// `execve(2)`.
///
/// # Errors
/// As the man page lists them.
pub fn execve(t: &Thread, path: UserAddr, argv: UserAddr, envp: UserAddr) -> SysResult {
    execveat(t, AT_FDCWD, path, argv, envp, 0)
}

/// `execveat(2)`.
///
/// # Errors
/// As the man page lists them.
// One place for a breakpoint.
#[inline(never)]
pub fn execveat(
    t: &Thread,
    dirfd: i32,
    path: UserAddr,
    argv: UserAddr,
    envp: UserAddr,
    flags: u32,
) -> SysResult {
    t.sched
        .in_libos(|| execute(t, dirfd, path, argv, envp, flags))
}

fn execute(
    t: &Thread,
    dirfd: i32,
    path: UserAddr,
    argv: UserAddr,
    envp: UserAddr,
    flags: u32,
) -> SysResult {
    if flags & !(general::AT_EMPTY_PATH | general::AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    let path = path.read_path()?;
    let mut budget = argument_budget(t)?;
    let argv = read_strings(argv, &mut budget)?;
    let envp = read_strings(envp, &mut budget)?;
    let file = fs::open_for_exec(t, dirfd, &path, flags)?;
    let name = if path.is_empty() || (dirfd != AT_FDCWD && path[0] != b'/') {
        // What a script's interpreter is given, and `AT_EXECFN`.
        let mut name = alloc::format!("/dev/fd/{dirfd}").into_bytes();
        if !path.is_empty() {
            name.push(b'/');
            name.extend_from_slice(&path);
        }
        name
    } else {
        path
    };
    replace_program(t, file, name, argv, envp)?;
    Ok(0)
}

/// Bytes the strings of argv and envp and their pointers may take: a quarter of the stack limit, at least
/// 128 KiB, at most 6 MiB.
fn argument_budget(t: &Thread) -> Result<usize> {
    let stack = t.process.limit(general::RLIMIT_STACK)?.rlim_cur;
    Ok((stack / 4).clamp(128 << 10, 6 << 20) as usize)
}

fn read_strings(array: UserAddr, budget: &mut usize) -> Result<Vec<Vec<u8>>> {
    let mut strings = Vec::new();
    if array.is_null() {
        return Ok(strings);
    }
    loop {
        let pointer: u64 = array.add(strings.len() as u64 * 8).read()?;
        if pointer == 0 {
            return Ok(strings);
        }
        let string = UserAddr(pointer)
            .read_cstr(MAX_STRING)
            .map_err(|error| match error {
                Errno::ENAMETOOLONG => Errno::E2BIG,
                error => error,
            })?;
        *budget = budget
            .checked_sub(string.len() + 1 + 8)
            .ok_or(Errno::E2BIG)?;
        strings.push(string);
    }
}

/// What a `#!` line names: the interpreter and an optional argument.
type ScriptLine = (Vec<u8>, Option<Vec<u8>>);

/// A `#!` line; `None` if the file does not start with one.
fn script_line(head: &[u8]) -> Result<Option<ScriptLine>> {
    let Some(rest) = head.strip_prefix(b"#!") else {
        return Ok(None);
    };
    let is_blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let line = match rest.iter().position(|byte| *byte == b'\n') {
        Some(end) => &rest[..end],
        // A line that is cut off is good if the interpreter's name ends before the cut.
        None => {
            let text = rest
                .iter()
                .position(|byte| !is_blank(byte))
                .map_or(&[][..], |at| &rest[at..]);
            let cut =
                head.len() == SCRIPT_LINE && !text.iter().any(|byte| is_blank(byte) || *byte == 0);
            if cut {
                return Err(Errno::ENOEXEC);
            }
            rest.split(|byte| *byte == 0).next().unwrap_or(rest)
        }
    };
    let line = line.trim_ascii();
    if line.is_empty() {
        // Without a newline Linux takes the end of the file for an interpreter named "": the working directory.
        let no_name =
            rest.contains(&b'\n') || (head.len() == SCRIPT_LINE && rest.iter().all(is_blank));
        return Err(if no_name {
            Errno::ENOEXEC
        } else {
            Errno::EACCES
        });
    }
    let end = line.iter().position(is_blank).unwrap_or(line.len());
    let argument = line[end..].trim_ascii();
    Ok(Some((
        line[..end].to_vec(),
        (!argument.is_empty()).then(|| argument.to_vec()),
    )))
}

/// Bytes of arguments kept for lists of processes.
const MAX_LISTED: usize = 4096;

/// Arguments as lists show them.
fn listed(argv: &[Vec<u8>]) -> Arc<[u8]> {
    let bytes = argv.iter().flat_map(|arg| arg.iter().chain(&[0]));
    bytes.take(MAX_LISTED).copied().collect()
}

/// Loads `file` and makes it the process's program; from the point of no return on the thread's registers are
/// the new program's.
///
/// # Errors
/// As `execve(2)`; after the point of no return the process dies by `SIGKILL` instead.
pub fn replace_program(
    t: &Thread,
    mut file: FileRef,
    name: Vec<u8>,
    mut argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
) -> Result<()> {
    if argv.is_empty() {
        // As Linux since 5.18: no program sees argc 0.
        argv.push(Vec::new());
    }
    let mut script = name.clone();
    for round in 0.. {
        let mut head = [0; SCRIPT_LINE];
        let len = file.read_kernel(t, 0, &mut head)?;
        let Some((interpreter, argument)) = script_line(&head[..len])? else {
            break;
        };
        if round == MAX_INTERPRETERS {
            return Err(Errno::ELOOP);
        }
        argv.remove(0);
        argv.insert(0, script);
        if let Some(argument) = argument {
            argv.insert(0, argument);
        }
        argv.insert(0, interpreter.clone());
        file = fs::open_for_exec(t, AT_FDCWD, &interpreter, 0)?;
        script = interpreter;
    }
    let credentials = capabilities::after_exec(t, &file)?;
    let program = load::load(
        t,
        Program {
            exe: &file,
            argv: &argv,
            envp: &envp,
            execfn: &name,
            open_interpreter: &mut |path| fs::open_for_exec(t, AT_FDCWD, path, 0),
            vdso: t.kernel.time.vdso(),
            credentials: &credentials.new,
            secure: credentials.secure,
        },
    )?;

    let (old_tid, call) = (t.tid(), t.frame().nr());
    if t.trace.is_traced() {
        program.mm.untranslate()?;
    }
    kill_other_threads(t)?;
    // The point of no return.
    crate::futex::exit_robust_list(t);
    crate::futex::clear_child_tid(t);
    *t.clear_child_tid.lock() = UserAddr(0);
    t.process.has_execed.store(true, Ordering::Relaxed);
    t.process
        .dumpable
        .store(!credentials.changed_ids, Ordering::Relaxed);
    t.set_credentials(credentials.new);
    exit::release_mm(t);
    *t.mm.lock() = Some(program.mm);
    t.kernel.sched.activate_mm_of(t);

    let files = t.files();
    let files = if Arc::strong_count(&files) > 2 {
        files.fork()
    } else {
        files
    };
    files.close_on_exec();
    *t.files.lock() = Some(files);
    let handlers = t.process.handlers().reset_for_exec();
    *t.process.handlers.lock() = handlers;
    crate::signal::exec(t);
    t.process.timers.on_exec(t.kernel);
    *t.process.executable.lock() = file.path.clone();
    *t.process.arguments.lock() = listed(&argv);
    let old = t.process.program.lock().replace(file);
    drop(old);
    // The name is the path's last component as it was given, also for scripts.
    t.set_name(name.rsplit(|byte| *byte == b'/').next().unwrap_or(&name));

    *t.rseq.lock() = None;
    hal_thread::set_live_fs_base(0);
    hal_thread::set_live_gs_base(0);
    fpu::State::initial().restore();
    t.frame()
        .set(&TrapFrame::user_entry(program.entry, program.stack));
    ptrace::executed(t, old_tid, call);
    Ok(())
}

/// Leaves the calling thread alone in its process, with the process's id (`execve(2)`, "Effect on process
/// attributes").
fn kill_other_threads(t: &Thread) -> Result<()> {
    let process = &t.process;
    if process.thread_count() > 1 {
        for thread in process.threads() {
            if thread.tid() != t.tid() {
                signal::kill_thread(&thread);
            }
        }
        process
            .thread_exits
            .wait(t, Interruptible::Killable, None, || {
                (process.thread_count() == 1).then_some(())
            })
            .map_err(|_| Errno::EAGAIN)?;
    }
    if t.tid() != process.pid {
        let old = t.tid();
        let mut threads = process.threads.lock();
        threads.remove(&old);
        t.kernel.tasks.remove_thread(old);
        t.tid.store(process.pid, Ordering::Relaxed);
        threads.insert(process.pid, t.arc());
        drop(threads);
        t.kernel.tasks.add_thread(&t.arc());
        ptrace::replaced_leader(t);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::script_line;
    use crate::Errno;

    #[test]
    fn script_lines() {
        let parse = |text: &[u8]| script_line(text);
        assert_eq!(parse(b"\x7fELF").unwrap(), None);
        assert_eq!(
            parse(b"#!/bin/sh\necho").unwrap(),
            Some((b"/bin/sh".to_vec(), None))
        );
        assert_eq!(
            parse(b"#! /bin/awk -f  \n").unwrap(),
            Some((b"/bin/awk".to_vec(), Some(b"-f".to_vec())))
        );
        assert_eq!(
            parse(b"#!/usr/bin/env -S a b\n").unwrap(),
            Some((b"/usr/bin/env".to_vec(), Some(b"-S a b".to_vec())))
        );
        assert_eq!(
            parse(b"#!/bin/sh").unwrap(),
            Some((b"/bin/sh".to_vec(), None))
        );
        assert_eq!(parse(b"#!\n"), Err(Errno::ENOEXEC));
        assert_eq!(parse(b"#!   \n"), Err(Errno::ENOEXEC));
        let mut long = b"#!/".to_vec();
        long.resize(256, b'a');
        assert_eq!(parse(&long), Err(Errno::ENOEXEC));
    }
}
