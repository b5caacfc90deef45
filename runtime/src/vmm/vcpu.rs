//! One vCPU: its initial state, and its life on a thread.

mod debug;

use std::cell::Cell;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use husk_abi::boundary::boot::VcpuBoot;
use husk_abi::boundary::doorbell;
use husk_abi::boundary::layout::{
    DIRECT_MAP, INTERRUPT_VECTOR, LARGE_PAGE_SIZE, PERCPU, PERCPU_GDT, PERCPU_IDLE_STACK_TOP,
    PERCPU_IDT, PERCPU_PVCLOCK, PERCPU_TSS, TSS_LIMIT, selector,
};
use husk_abi::boundary::vcpu::{FREED_BLOCKS, NO_DEADLINE, VcpuShared};
use kvm_bindings::{CpuId, Msrs, kvm_msr_entry, kvm_regs, kvm_segment, kvm_xcr, kvm_xcrs};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress};

use super::debug::{Inspector, Reason};
use super::loader::Image;
use super::machine::{DoorbellHandler, End, SHARED_OFFSET, Served};
use super::memory::{self, GuestMemory};
use super::ram::Ram;
use super::raw;
use super::timer::KickTimer;
use super::{Error, Kicker};

const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_CSTAR: u32 = 0xc000_0083;
const MSR_SYSCALL_MASK: u32 = 0xc000_0084;
/// Says that [`MSR_MISC_FEATURES_ENABLES`] has its bit 0.
const MSR_PLATFORM_INFO: u32 = 0xce;
const PLATFORM_INFO_CPUID_FAULT: u64 = 1 << 31;
/// Bit 0: `cpuid` faults above CPL 0.
const MSR_MISC_FEATURES_ENABLES: u32 = 0x140;
const MSR_KVM_SYSTEM_TIME_NEW: u32 = 0x4b56_4d01;

/// TF, DF and AC; never IF (kvm-facts.md, quirk 5).
const SYSCALL_MASK: u64 = 0x4_0500;
/// PE, MP, ET, NE, WP, AM, PG.
const CR0: u64 = 0x8005_0033;
/// PAE, OSFXSR, OSXMMEXCPT, FSGSBASE, OSXSAVE.
const CR4: u64 = 0x5_0620;
/// SCE, LME, LMA, NXE.
const EFER: u64 = 0xd01;

/// A vCPU that is ready to run.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    index: u32,
    shared: u64,
    memory: GuestMemory,
    ram: Arc<Ram>,
    kicker: Kicker,
    inspector: Arc<Inspector>,
    /// The debugger wants one instruction executed, and what it needs to know afterwards.
    stepping: Option<debug::Step>,
}

fn segment(selector: u16, kind: u8, long: bool, dpl: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: kind,
        present: 1,
        dpl,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..kvm_segment::default()
    }
}

impl Vcpu {
    /// Makes the vCPU and sets it to enter the image at CPL 3.
    #[expect(
        clippy::too_many_arguments,
        reason = "all of a vCPU's parts, used once"
    )]
    pub fn new(
        vm: &VmFd,
        index: u32,
        boot: &VcpuBoot,
        boot_info: u64,
        image: &Image,
        cpuid: &CpuId,
        xcr0: u64,
        memory: GuestMemory,
        ram: Arc<Ram>,
        kicker: Kicker,
        inspector: Arc<Inspector>,
    ) -> Result<Self, Error> {
        let fd = vm
            .create_vcpu(u64::from(index))
            .map_err(Error::kvm("create a vCPU"))?;
        fd.set_cpuid2(cpuid)
            .map_err(Error::kvm("set CPU features"))?;

        let mut sregs = fd
            .get_sregs()
            .map_err(Error::kvm("read a vCPU's registers"))?;
        sregs.cr0 = CR0;
        sregs.cr3 = boot.pml4_gpa;
        sregs.cr4 = CR4;
        sregs.efer = EFER;
        sregs.gdt.base = PERCPU_GDT;
        sregs.gdt.limit = 0x7f;
        sregs.idt.base = PERCPU_IDT;
        sregs.idt.limit = 0xfff;
        sregs.cs = segment(selector::USER_CODE, 0xb, true, 3);
        let data = segment(selector::USER_DATA, 3, false, 3);
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
        sregs.ldt = kvm_segment {
            unusable: 1,
            ..kvm_segment::default()
        };
        sregs.tr = kvm_segment {
            base: PERCPU_TSS,
            limit: u32::from(TSS_LIMIT),
            selector: selector::TSS,
            type_: 0xb,
            present: 1,
            ..kvm_segment::default()
        };
        fd.set_sregs(&sregs)
            .map_err(Error::kvm("set a vCPU's system registers"))?;

        fd.set_xcrs(&kvm_xcrs {
            nr_xcrs: 1,
            xcrs: {
                let mut xcrs = [kvm_xcr::default(); 16];
                xcrs[0].value = xcr0;
                xcrs
            },
            ..kvm_xcrs::default()
        })
        .map_err(Error::kvm("enable vector state"))?;

        let star = u64::from(selector::USER_CODE32) << 48 | u64::from(selector::KERNEL_CODE) << 32;
        let pvclock = boot.percpu_gpa + (PERCPU_PVCLOCK - PERCPU);
        let entries = [
            (MSR_STAR, star),
            (MSR_LSTAR, image.lstar),
            (MSR_CSTAR, image.cstar),
            (MSR_SYSCALL_MASK, SYSCALL_MASK),
            (MSR_KVM_SYSTEM_TIME_NEW, pvclock | 1),
        ]
        .map(|(index, data)| kvm_msr_entry {
            index,
            data,
            ..kvm_msr_entry::default()
        });
        let msrs = Msrs::from_entries(&entries).map_err(|_| Error::Image("MSR list".into()))?;
        let written = fd
            .set_msrs(&msrs)
            .map_err(Error::kvm("set a vCPU's MSRs"))?;
        if written != entries.len() {
            let source = io::Error::from_raw_os_error(libc::EINVAL);
            return Err(Error::Kvm {
                what: "set all of a vCPU's MSRs",
                source,
            });
        }

        // Best effort: `cpuid` at CPL 3 then faults, and the libOS answers it without leaving the guest. A KVM that
        // cannot do it answers each one itself.
        let faulting = [
            (MSR_PLATFORM_INFO, PLATFORM_INFO_CPUID_FAULT),
            (MSR_MISC_FEATURES_ENABLES, 1),
        ]
        .map(|(index, data)| kvm_msr_entry {
            index,
            data,
            ..kvm_msr_entry::default()
        });
        if let Ok(msrs) = Msrs::from_entries(&faulting) {
            let written = fd.set_msrs(&msrs).unwrap_or(0);
            tracing::debug!(possible = written == faulting.len(), "cpuid faulting");
        }

        fd.set_regs(&kvm_regs {
            rip: image.entry,
            rsp: PERCPU_IDLE_STACK_TOP,
            rdi: DIRECT_MAP + boot_info,
            rsi: u64::from(index),
            rflags: 0x202,
            ..kvm_regs::default()
        })
        .map_err(Error::kvm("set a vCPU's registers"))?;
        Ok(Self {
            fd,
            index,
            shared: boot.percpu_gpa + SHARED_OFFSET,
            memory,
            ram,
            kicker,
            inspector,
            stepping: None,
        })
    }

    pub fn index(&self) -> u32 {
        self.index
    }

    /// Guest physical address of the page shared with the libOS.
    pub fn shared_gpa(&self) -> u64 {
        self.shared
    }

    fn load_u32(&self, offset: usize) -> u32 {
        self.memory
            .load(GuestAddress(self.shared + offset as u64), Ordering::SeqCst)
            .unwrap_or(0)
    }

    fn deadline(&self) -> Option<Duration> {
        let offset = std::mem::offset_of!(VcpuShared, deadline_ns) as u64;
        let address = GuestAddress(self.shared + offset);
        match self
            .memory
            .load(address, Ordering::SeqCst)
            .unwrap_or(NO_DEADLINE)
        {
            NO_DEADLINE => None,
            ns => Some(Duration::from_nanos(ns)),
        }
    }

    /// Gives the first `count` blocks back that the libOS says nobody uses; how many bytes that is.
    fn give_back(&self, count: u32) -> u64 {
        let mut bytes = 0;
        let blocks = std::mem::offset_of!(VcpuShared, freed_blocks) as u64;
        for index in 0..u64::from(count).min(FREED_BLOCKS as u64) {
            let at = GuestAddress(self.shared + blocks + index * 8);
            let gpa: u64 = self.memory.load(at, Ordering::SeqCst).unwrap_or(u64::MAX);
            if gpa.is_multiple_of(LARGE_PAGE_SIZE) {
                memory::give_back(&self.memory, gpa, LARGE_PAGE_SIZE);
                bytes += LARGE_PAGE_SIZE;
            }
        }
        bytes
    }

    /// Injects the interrupt, unless one is in service or the vCPU cannot take it yet; then asks to be told.
    fn interrupt(&mut self) {
        if self.load_u32(std::mem::offset_of!(VcpuShared, interrupts_ready)) == 0
            || self.load_u32(IN_SERVICE) != 0
        {
            return;
        }
        let run = self.fd.get_kvm_run();
        if run.ready_for_interrupt_injection == 0 {
            run.request_interrupt_window = 1;
            return;
        }
        run.request_interrupt_window = 0;
        if raw::interrupt(self.fd.as_raw_fd(), INTERRUPT_VECTOR).is_ok() {
            let address = GuestAddress(self.shared + IN_SERVICE as u64);
            let _ = self.memory.store(1u32, address, Ordering::SeqCst);
        }
    }

    /// The timer that [`Vcpu::run`] needs, to be made by the thread that will run it.
    ///
    /// # Errors
    /// When the host has none.
    pub fn timer(&self) -> io::Result<KickTimer> {
        KickTimer::new(&self.kicker)
    }

    /// Runs the vCPU on this thread until the machine ends.
    pub fn run(mut self, timer: &KickTimer, handler: &dyn DoorbellHandler) -> End {
        self.kicker.attach_this_thread();
        raw::kicks_leave(&mut self.fd);
        let end = loop {
            let stopped = if self.is_stop_wanted() {
                self.stop(Reason::Asked)
            } else {
                None
            };
            if let Some(end) = stopped.or_else(|| self.run_once(timer, handler)) {
                break end;
            }
        };
        self.ended(end);
        raw::kicks_leave_nothing();
        end
    }

    fn run_once(&mut self, timer: &KickTimer, handler: &dyn DoorbellHandler) -> Option<End> {
        let exit = match self.fd.run() {
            Ok(VcpuExit::IoOut(port, data)) => {
                let mut value = [0; 4];
                let len = data.len().min(4);
                value[..len].copy_from_slice(&data[..len]);
                Exit::Doorbell(port, u32::from_le_bytes(value))
            }
            Ok(VcpuExit::IoIn(_, data)) => {
                data.fill(0xff);
                return None;
            }
            Ok(VcpuExit::IrqWindowOpen | VcpuExit::Intr) => Exit::Kicked,
            Ok(VcpuExit::Shutdown) => Exit::End(End::Crash("triple fault")),
            Ok(VcpuExit::Hlt) => Exit::End(End::Crash("it halted at CPL 0")),
            Ok(VcpuExit::MmioRead(..) | VcpuExit::MmioWrite(..)) => {
                Exit::End(End::Crash("an access outside its memory"))
            }
            Ok(VcpuExit::FailEntry(..)) => Exit::End(End::Crash("KVM refused its state")),
            Ok(VcpuExit::InternalError) => {
                Exit::End(End::Crash("KVM could not emulate an instruction"))
            }
            Ok(_) => Exit::End(End::Crash("an exit nobody asked for")),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Exit::Kicked,
            Err(error) if error.errno() == libc::EFAULT => Exit::MemoryFault,
            Err(error) => Exit::End(End::RunFailed(error.errno())),
        };
        match exit {
            Exit::Kicked => {
                self.fd.set_kvm_immediate_exit(0);
                self.kicker.take();
                self.interrupt();
            }
            Exit::Doorbell(doorbell::TIMER, _) => {
                if let Some(after) = self.deadline() {
                    timer.arm(after);
                }
            }
            Exit::Doorbell(doorbell::IDLE, freed) => {
                if freed > 0 {
                    let bytes = self.give_back(freed);
                    handler.memory("memory_returned", bytes);
                }
                // With memory to give back it does not sleep yet, and has not looked since: a kick stays one. Nor does it
                // sleep with an interrupt that came after it had looked.
                let has_slept = Cell::new(false);
                handler.idle(self.index, &|also| {
                    if freed > 0 || self.load_u32(IN_SERVICE) != 0 {
                        return false;
                    }
                    has_slept.set(true);
                    self.kicker.sleep(self.deadline(), also)
                });
                if has_slept.get() {
                    self.fd.set_kvm_immediate_exit(0);
                }
            }
            Exit::Doorbell(doorbell::MEMORY, end) => {
                let before = self.ram.ready_bytes();
                if let Err(error) = self.ram.reach(u64::from(end) * LARGE_PAGE_SIZE) {
                    tracing::error!("{error}");
                    return Some(End::Crash("the host has no memory for it"));
                }
                handler.memory("memory_added", self.ram.ready_bytes() - before);
            }
            Exit::Doorbell(doorbell::DEBUG, vector) => return self.trapped(vector),
            Exit::Doorbell(port, value) => match handler.ring(self.index, port, value) {
                Served::Resume => {}
                Served::End(end) => return Some(end),
            },
            Exit::MemoryFault => match handler.memory_fault(self.index) {
                Served::Resume => {}
                Served::End(end) => return Some(end),
            },
            Exit::End(end) => return Some(end),
        }
        None
    }
}

/// Where the vCPU's shared page tells that an interrupt is in service.
const IN_SERVICE: usize = std::mem::offset_of!(VcpuShared, interrupt_in_service);

/// An exit, without borrows of the vCPU's shared page.
enum Exit {
    Doorbell(u16, u32),
    Kicked,
    MemoryFault,
    End(End),
}
