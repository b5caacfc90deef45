//! The guest as gdb sees it: threads, registers, memory, breakpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, SwBreakpoint, SwBreakpointOps,
};
use gdbstub::target::ext::monitor_cmd::MonitorCmdOps;
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use gdbstub_arch::x86::X86_64_SSE;
use gdbstub_arch::x86::reg::X86_64CoreRegs;
use kvm_bindings::kvm_fpu;

use super::{Ending, VCPU_TID};
use crate::vmm::debug::{Inspector, Registers, Resume, Stop, Thread};

/// gdb's id of a vCPU.
pub fn vcpu_tid(index: u32) -> Tid {
    Tid::new(VCPU_TID + index as usize).unwrap_or(Tid::MIN)
}

/// A failure that ends the session. There is none yet.
#[derive(Debug, thiserror::Error)]
pub enum TargetFailure {}

/// A stopped or running guest.
pub struct Guest {
    pub inspector: Arc<Inspector>,
    pub(super) ending: Arc<Ending>,
    /// The guest's threads, as of the last stop, and which of them vCPUs run.
    pub threads: Vec<Thread>,
    pub running: BTreeMap<u32, u32>,
    /// Registers gdb has set, by vCPU.
    changed: BTreeMap<u32, Registers>,
    /// The vCPU to step.
    step: Option<u32>,
    /// The vCPUs gdb said something about, and whether the others are to stand still.
    mentioned: BTreeSet<u32>,
    is_locked: bool,
}

impl Guest {
    pub(super) fn new(inspector: Arc<Inspector>, ending: Arc<Ending>) -> Self {
        let mut guest = Self {
            inspector,
            ending,
            threads: Vec::new(),
            running: BTreeMap::new(),
            changed: BTreeMap::new(),
            step: None,
            mentioned: BTreeSet::new(),
            is_locked: false,
        };
        guest.refresh();
        guest
    }

    /// Looks at the threads again, after a stop.
    pub fn refresh(&mut self) {
        self.threads = self.inspector.threads();
        self.running = self
            .inspector
            .debug
            .stops()
            .into_iter()
            .filter_map(|(index, stop)| {
                let current = self.inspector.current(&stop?.registers, &self.threads)?;
                Some((self.threads[current].tid, index))
            })
            .collect();
    }

    fn vcpu_of(&self, tid: Tid) -> Option<u32> {
        let index = u32::try_from(tid.get().checked_sub(VCPU_TID)?).ok()?;
        (index < self.inspector.debug.vcpu_count()).then_some(index)
    }

    fn thread_of(&self, tid: Tid) -> Option<&Thread> {
        self.threads
            .iter()
            .find(|thread| thread.tid as usize == tid.get())
    }

    fn stop_of(&self, index: u32) -> Option<Stop> {
        self.inspector
            .debug
            .stops()
            .into_iter()
            .find_map(|(vcpu, stop)| (vcpu == index).then_some(stop?))
    }

    /// Registers of a vCPU or of a thread that does not run.
    fn registers(&self, tid: Tid) -> Option<(Registers, kvm_fpu)> {
        if let Some(index) = self.vcpu_of(tid) {
            let stop = self.stop_of(index)?;
            let registers = self.changed.get(&index).copied();
            return Some((registers.unwrap_or(stop.registers), stop.fpu));
        }
        let thread = self.thread_of(tid)?;
        let registers = self.inspector.saved_registers(thread)?;
        Some((registers, kvm_fpu::default()))
    }

    /// The page tables memory is read through.
    fn root(&self, tid: Tid) -> u64 {
        match (self.vcpu_of(tid), self.thread_of(tid)) {
            (Some(index), _) => self.stop_of(index).map(|stop| stop.registers.root),
            (None, Some(thread)) => Some(thread.root).filter(|root| *root != 0),
            (None, None) => None,
        }
        .unwrap_or(self.inspector.boot_root())
    }
}

impl Target for Guest {
    type Arch = X86_64_SSE;
    type Error = TargetFailure;

    fn base_ops(&mut self) -> BaseOps<'_, X86_64_SSE, TargetFailure> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Guest {
    fn read_registers(&mut self, regs: &mut X86_64CoreRegs, tid: Tid) -> TargetResult<(), Self> {
        let (registers, fpu) = self.registers(tid).ok_or(TargetError::NonFatal)?;
        regs.regs = registers.general;
        regs.rip = registers.rip;
        // The upper half is reserved.
        regs.eflags = registers.rflags as u32;
        regs.segments.cs = registers.cs.into();
        regs.segments.ss = registers.ss.into();
        for (to, from) in regs.st.iter_mut().zip(&fpu.fpr) {
            to.copy_from_slice(&from[..10]);
        }
        regs.fpu.fctrl = fpu.fcw.into();
        regs.fpu.fstat = fpu.fsw.into();
        regs.fpu.ftag = fpu.ftwx.into();
        for (to, from) in regs.xmm.iter_mut().zip(&fpu.xmm) {
            *to = u128::from_le_bytes(*from);
        }
        regs.mxcsr = fpu.mxcsr;
        Ok(())
    }

    fn write_registers(&mut self, regs: &X86_64CoreRegs, tid: Tid) -> TargetResult<(), Self> {
        // A waiting thread's registers lie in frames that gdb changes through memory, if it must.
        let index = self.vcpu_of(tid).ok_or(TargetError::NonFatal)?;
        let (before, _) = self.registers(tid).ok_or(TargetError::NonFatal)?;
        let registers = Registers {
            general: regs.regs,
            rip: regs.rip,
            rflags: u64::from(regs.eflags),
            ..before
        };
        self.changed.insert(index, registers);
        Ok(())
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let read = self.inspector.space.read(self.root(tid), start, data);
        if read == 0 && !data.is_empty() {
            return Err(TargetError::NonFatal);
        }
        self.inspector.hide_breakpoints(start, &mut data[..read]);
        Ok(read)
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        if self.inspector.space.write(self.root(tid), start, data) {
            Ok(())
        } else {
            Err(TargetError::NonFatal)
        }
    }

    fn list_active_threads(&mut self, each: &mut dyn FnMut(Tid)) -> Result<(), TargetFailure> {
        for index in 0..self.inspector.debug.vcpu_count() {
            each(vcpu_tid(index));
        }
        self.threads
            .iter()
            .filter(|thread| !self.running.contains_key(&thread.tid))
            .filter(|thread| (thread.tid as usize) < VCPU_TID)
            .filter_map(|thread| Tid::new(thread.tid as usize))
            .for_each(each);
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl ThreadExtraInfo for Guest {
    fn thread_extra_info(&self, tid: Tid, buffer: &mut [u8]) -> Result<usize, TargetFailure> {
        let named =
            |thread: &Thread| format!("thread {} of {} {}", thread.tid, thread.pid, thread.name);
        let text = match (self.vcpu_of(tid), self.thread_of(tid)) {
            (Some(index), _) => {
                let current = self
                    .running
                    .iter()
                    .find(|(_, vcpu)| **vcpu == index)
                    .and_then(|(tid, _)| self.thread_of(Tid::new(*tid as usize)?));
                match current {
                    Some(thread) => format!("vCPU {index}, {}", named(thread)),
                    None => format!("vCPU {index}, no thread"),
                }
            }
            (None, Some(thread)) => {
                format!("{}: {}", named(thread), self.inspector.doing(thread, false))
            }
            (None, None) => String::new(),
        };
        let len = text.len().min(buffer.len());
        buffer[..len].copy_from_slice(&text.as_bytes()[..len]);
        Ok(len)
    }
}

impl MultiThreadResume for Guest {
    fn resume(&mut self) -> Result<(), TargetFailure> {
        let changed = std::mem::take(&mut self.changed);
        let step = self.step;
        let mut kept = BTreeMap::new();
        self.inspector.debug.resume_all(|index, stop| {
            let registers = changed.get(&index).copied();
            if self.is_locked && !self.mentioned.contains(&index) {
                kept.extend(registers.map(|registers| (index, registers)));
                return None;
            }
            Some(Resume {
                registers: registers.unwrap_or(stop.registers),
                step: step == Some(index),
                kill: false,
            })
        });
        self.changed = kept;
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), TargetFailure> {
        self.step = None;
        self.mentioned.clear();
        self.is_locked = false;
        Ok(())
    }

    fn set_resume_action_continue(
        &mut self,
        tid: Tid,
        _signal: Option<Signal>,
    ) -> Result<(), TargetFailure> {
        self.mentioned.extend(self.vcpu_of(tid));
        Ok(())
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Guest {
    fn set_resume_action_step(
        &mut self,
        tid: Tid,
        _signal: Option<Signal>,
    ) -> Result<(), TargetFailure> {
        // A thread that waits cannot be stepped: it goes on with all others.
        self.step = self.vcpu_of(tid);
        self.mentioned.extend(self.step);
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Guest {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), TargetFailure> {
        self.is_locked = true;
        Ok(())
    }
}

impl Breakpoints for Guest {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Guest {
    fn add_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        match self.inspector.plant(address) {
            Ok(()) => Ok(true),
            Err(why) => {
                tracing::warn!("no breakpoint at {address:#x}: {why}");
                Ok(false)
            }
        }
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.inspector.unplant(address))
    }
}
