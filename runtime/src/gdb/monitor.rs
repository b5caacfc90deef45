//! `monitor` commands: the guest's processes and threads.

use std::collections::BTreeMap;
use std::fmt::Write;

use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, outputln};

use super::target::{Guest, TargetFailure};
use crate::vmm::debug::Thread;

const HELP: &str = "\
ps            processes
threads       threads: what each does and where it waits
regs TID      registers a thread entered the libOS with
maps PID      pages a process has mapped now, with their rights
bt            what the vCPUs do, with inlined functions
help          this";

impl MonitorCmd for Guest {
    fn handle_monitor_cmd(
        &mut self,
        command: &[u8],
        mut out: ConsoleOutput<'_>,
    ) -> Result<(), TargetFailure> {
        let command = String::from_utf8_lossy(command);
        let words: Vec<&str> = command.split_whitespace().collect();
        let number = |word: &str| word.parse::<u32>().ok();
        let text = match words.as_slice() {
            ["ps"] => self.processes(),
            ["threads"] => self.inspector.thread_report().join("\n"),
            ["bt"] => self.inspector.vcpu_report().join("\n"),
            ["regs", tid] => match number(tid).and_then(|tid| self.by_tid(tid)) {
                Some(thread) => self.user_registers(thread),
                None => format!("there is no thread {tid}"),
            },
            ["maps", pid] => match number(pid).and_then(|pid| self.by_pid(pid)) {
                Some(thread) => self.mappings(thread),
                None => format!("there is no process {pid} that has run"),
            },
            [] | ["help"] => HELP.to_owned(),
            _ => format!("unknown command\n{HELP}"),
        };
        for line in text.lines() {
            outputln!(out, "{line}");
        }
        Ok(())
    }
}

impl Guest {
    fn by_tid(&self, tid: u32) -> Option<&Thread> {
        self.threads.iter().find(|thread| thread.tid == tid)
    }

    /// A thread of the process whose page tables are known.
    fn by_pid(&self, pid: u32) -> Option<&Thread> {
        self.threads
            .iter()
            .find(|thread| thread.pid == pid && thread.root != 0)
    }

    fn processes(&self) -> String {
        let mut processes: BTreeMap<u32, Vec<&Thread>> = BTreeMap::new();
        for thread in &self.threads {
            processes.entry(thread.pid).or_default().push(thread);
        }
        let mut text = format!("{:>5} {:>7} {:<15} STATE", "PID", "THREADS", "NAME");
        for (pid, threads) in processes {
            let leader = threads
                .iter()
                .find(|thread| thread.tid == pid)
                .unwrap_or(&threads[0]);
            let state = if threads
                .iter()
                .any(|thread| self.running.contains_key(&thread.tid))
            {
                "running".to_owned()
            } else {
                leader.state.to_string()
            };
            let count = threads.len();
            let _ = write!(text, "\n{pid:>5} {count:>7} {:<15} {state}", leader.name);
        }
        text
    }

    fn user_registers(&self, thread: &Thread) -> String {
        let Some(frame) = self.inspector.user_frame(thread) else {
            return "its frame cannot be read".to_owned();
        };
        let rows = [
            [
                ("rax", frame.rax),
                ("rbx", frame.rbx),
                ("rcx", frame.rcx),
                ("rdx", frame.rdx),
            ],
            [
                ("rsi", frame.rsi),
                ("rdi", frame.rdi),
                ("rbp", frame.rbp),
                ("rsp", frame.rsp),
            ],
            [
                ("r8", frame.r8),
                ("r9", frame.r9),
                ("r10", frame.r10),
                ("r11", frame.r11),
            ],
            [
                ("r12", frame.r12),
                ("r13", frame.r13),
                ("r14", frame.r14),
                ("r15", frame.r15),
            ],
            [
                ("rip", frame.rip),
                ("flags", frame.rflags),
                ("cs", frame.cs),
                ("ss", frame.ss),
            ],
            [
                ("fs", thread.fs_base),
                ("gs", thread.gs_base),
                ("orig", frame.orig_rax),
                ("cr3", thread.root),
            ],
        ];
        let mut text = String::new();
        for row in rows {
            for (name, value) in row {
                let _ = write!(text, "{name:<5} {value:016x}  ");
            }
            text.push('\n');
        }
        if self.running.contains_key(&thread.tid) {
            text.push_str("It runs: these are of its last entry into the libOS.\n");
        }
        text
    }

    fn mappings(&self, thread: &Thread) -> String {
        let mut text = String::new();
        for range in self.inspector.space.mappings(thread.root) {
            let right = |has, letter| if has { letter } else { '-' };
            let _ = writeln!(
                text,
                "{:012x}-{:012x} r{}{} {:>8} KiB",
                range.start,
                range.end,
                right(range.is_writable, 'w'),
                right(range.is_executable, 'x'),
                (range.end - range.start) >> 10
            );
        }
        text
    }
}
