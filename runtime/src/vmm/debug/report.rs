//! The state of a machine as text: what each vCPU does, what each thread waits for.

use std::fmt::Write;

use husk_abi::boundary::frame::TrapFrame;
use husk_abi::linux::syscalls;

use super::backtrace::in_image;
use super::inspector::Inspector;
use super::registers::Registers;
use super::symbols::Place;
use super::threads::{Thread, ThreadState};

/// Threads listed in a report.
const THREADS: usize = 100;

impl Inspector {
    /// Lines about the vCPUs, stopped or ended, with a backtrace each.
    #[must_use]
    pub fn vcpu_report(&self) -> Vec<String> {
        let threads = self.threads();
        let mut lines = Vec::new();
        for (index, stop) in self.debug.stops() {
            let Some(stop) = stop else {
                lines.push(format!("vCPU {index}: does not stop"));
                continue;
            };
            let current = self
                .current(&stop.registers, &threads)
                .map(|current| &threads[current]);
            lines.push(format!(
                "vCPU {index}: {}",
                self.whereabouts(&stop.registers, current)
            ));
            let places = self.backtrace(&stop.registers);
            lines.extend(
                places
                    .iter()
                    .enumerate()
                    .map(|(number, place)| format!("  {number:2}: {place}")),
            );
        }
        lines
    }

    fn whereabouts(&self, registers: &Registers, current: Option<&Thread>) -> String {
        let rip = registers.rip;
        let Some(thread) = current else {
            return format!("no thread, rip {rip:#x}, rsp {:#x}", registers.rsp());
        };
        let who = format!(
            "thread {} of process {} ({})",
            thread.tid, thread.pid, thread.name
        );
        if !in_image(rip) {
            return format!("{who} in its own code, rip {rip:#x}");
        }
        match self.user_frame(thread) {
            Some(frame) => format!("{who}, {}, user rip {:#x}", entered(&frame), frame.rip),
            None => who,
        }
    }

    /// Lines about the threads: their state, the call they are in, and where in the libOS they wait.
    #[must_use]
    pub fn thread_report(&self) -> Vec<String> {
        let threads = self.threads();
        let running: Vec<u32> = self
            .debug
            .stops()
            .into_iter()
            .filter_map(|(_, stop)| {
                let current = self.current(&stop?.registers, &threads)?;
                Some(threads[current].tid)
            })
            .collect();
        let mut lines = vec![format!("{} threads", threads.len())];
        lines.extend(threads.iter().take(THREADS).map(|thread| {
            let is_running = running.contains(&thread.tid);
            format!(
                "  {:>5} of {:>5} {:<15} {}",
                thread.tid,
                thread.pid,
                thread.name,
                self.doing(thread, is_running)
            )
        }));
        if threads.len() > THREADS {
            lines.push(format!("  and {} more", threads.len() - THREADS));
        }
        lines
    }

    /// What a thread does, in some words.
    #[must_use]
    pub fn doing(&self, thread: &Thread, is_running: bool) -> String {
        let state = if is_running {
            "running".to_owned()
        } else {
            thread.state.to_string()
        };
        let mut text = format!("{state:<8}");
        if let Some(frame) = self.user_frame(thread)
            && (!is_running || frame.is_syscall())
        {
            let _ = write!(text, " {}", entered(&frame));
        }
        if thread.state == ThreadState::Parked
            && let Some(place) = self.wait_place(thread)
        {
            let _ = write!(text, ", {place}");
        }
        text
    }

    /// Where in the libOS a parked thread waits: its innermost function that is not the waiting itself.
    fn wait_place(&self, thread: &Thread) -> Option<Place> {
        let registers = self.saved_registers(thread)?;
        let places = self.backtrace(&registers);
        let is_waiting = |place: &&Place| {
            [
                "husk_kernel::sched",
                "husk_kernel::sync",
                "husk_hal",
                "hal_",
                "core::",
                "alloc::",
            ]
            .iter()
            .any(|room| place.function.trim_start_matches('<').starts_with(room))
        };
        places
            .iter()
            .find(|place| !is_waiting(place))
            .or(places.first())
            .cloned()
    }
}

/// How a frame's thread came into the libOS.
fn entered(frame: &TrapFrame) -> String {
    if !frame.is_syscall() {
        return "not in a call".to_owned();
    }
    let args = [
        frame.rdi, frame.rsi, frame.rdx, frame.r10, frame.r8, frame.r9,
    ];
    match syscalls::lookup(frame.orig_rax) {
        Some(call) => {
            let shown: Vec<String> = args
                .iter()
                .take(call.args.len())
                .map(|arg| format!("{arg:#x}"))
                .collect();
            format!("in {}({})", call.name, shown.join(", "))
        }
        None => format!("in call {}", frame.orig_rax),
    }
}
