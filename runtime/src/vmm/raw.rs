//! The few system interfaces kvm-ioctls and nix do not offer safely.
#![allow(
    unsafe_code,
    reason = "one small module for raw ioctls, timers and the kick signal"
)]

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use kvm_bindings::{kvm_interrupt, kvm_run, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vmm_sys_util::eventfd::EventFd;

/// A descriptor of an open `/dev/kvm`.
///
/// # Errors
/// When there are too many descriptors.
pub fn kvm_descriptor(kvm: &Kvm) -> io::Result<OwnedFd> {
    // SAFETY: `kvm` keeps it open meanwhile.
    unsafe { BorrowedFd::borrow_raw(kvm.as_raw_fd()) }.try_clone_to_owned()
}

/// The event's descriptor, for poll(2).
#[must_use]
pub fn borrow_event(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as `event` lives, which the result's lifetime does not exceed.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

/// The `/dev/kvm` that `descriptor` is.
#[must_use]
pub fn kvm_of(descriptor: OwnedFd) -> Kvm {
    // SAFETY: the number is `descriptor`'s, which gives it up.
    unsafe { Kvm::from_raw_fd(descriptor.into_raw_fd()) }
}

/// `KVM_INTERRUPT`: queues an external interrupt (no in-kernel irqchip).
const KVM_INTERRUPT: libc::c_ulong = 0x4004_ae86;

/// Queues interrupt `vector` on the vCPU.
pub fn interrupt(vcpu: RawFd, vector: u8) -> io::Result<()> {
    let arg = kvm_interrupt {
        irq: u32::from(vector),
    };
    // SAFETY: the ioctl reads a `kvm_interrupt`.
    match unsafe { libc::ioctl(vcpu, KVM_INTERRUPT as _, &raw const arg) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives the VM a memory slot.
pub fn set_memory(
    vm: &VmFd,
    slot: u32,
    gpa: u64,
    mapping: &super::memory::Mapping,
    readonly: bool,
) -> Result<(), kvm_ioctls::Error> {
    let region = kvm_userspace_memory_region {
        slot,
        flags: if readonly {
            kvm_bindings::KVM_MEM_READONLY
        } else {
            0
        },
        guest_phys_addr: gpa,
        memory_size: mapping.bytes,
        userspace_addr: mapping.address as u64,
    };
    // SAFETY: the mapping is never unmapped.
    unsafe { vm.set_user_memory_region(region) }
}

thread_local! {
    /// The running vCPU's shared page, for the kick signal's handler.
    static RUN: Cell<*mut kvm_run> = const { Cell::new(std::ptr::null_mut()) };
}

/// Signal that makes a vCPU thread leave the guest. Not a real-time signal: those are lost while the user's processes have
/// `RLIMIT_SIGPENDING` of them pending. Nothing else sends this one to the VMM, and outside of vCPU threads it does nothing.
const KICK_SIGNAL: i32 = libc::SIGURG;

extern "C" fn on_kick(_signal: i32) {
    let run = RUN.get();
    if !run.is_null() {
        // SAFETY: set by this thread to its vCPU's live shared page, a mapping of KVM's.
        unsafe { (&raw mut (*run).immediate_exit).write_volatile(1) };
    }
}

/// Installs the handler of the kick signal for the process.
pub fn install_kick_handler() {
    // SAFETY: the handler only stores a byte; the struct is fully initialised.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_kick as *const () as usize;
        libc::sigaction(KICK_SIGNAL, &raw const action, std::ptr::null_mut());
    }
}

/// Makes the kick signal of this thread leave `vcpu`'s next or current run.
pub fn kicks_leave(vcpu: &mut VcpuFd) {
    let run: *mut kvm_run = vcpu.get_kvm_run();
    RUN.set(run);
}

/// This thread no longer runs a vCPU.
pub fn kicks_leave_nothing() {
    RUN.set(std::ptr::null_mut());
}

/// Id of this thread, for [`kick_thread`].
pub fn thread_id() -> i32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }
}

/// Sends the kick signal to a thread of this process.
pub fn kick_thread(tid: i32) {
    // SAFETY: plain system call; a thread that has ended gives ESRCH.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, KICK_SIGNAL) };
}

/// A timer that sends the kick signal to the thread that made it.
#[derive(Debug)]
pub struct SignalTimer(libc::timer_t);

impl SignalTimer {
    /// A disarmed timer for the calling thread.
    ///
    /// # Errors
    /// `EAGAIN` when the user's processes have as many pending signals and timers as `RLIMIT_SIGPENDING` allows.
    pub fn new() -> io::Result<Self> {
        // SAFETY: sigevent is a C struct of integers for which zero is valid; the timer id is written.
        unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = KICK_SIGNAL;
            event.sigev_notify_thread_id = libc::gettid();
            let mut id: libc::timer_t = std::mem::zeroed();
            match libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut id) {
                0 => Ok(Self(id)),
                _ => Err(io::Error::last_os_error()),
            }
        }
    }

    /// Fires once after `after`, which is not zero.
    pub fn arm(&self, after: Duration) {
        let value = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: libc::timespec {
                tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(after.subsec_nanos()),
            },
        };
        // SAFETY: the timer is ours and the value initialised.
        unsafe { libc::timer_settime(self.0, 0, &raw const value, std::ptr::null_mut()) };
    }
}

impl Drop for SignalTimer {
    fn drop(&mut self) {
        // SAFETY: the timer is ours.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// Features enabled in the host's XCR0.
pub fn host_xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: every x86-64 host that runs KVM has OSXSAVE; XGETBV of XCR0 has no other effect.
    unsafe {
        std::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// The boot info's bytes.
pub fn boot_info_bytes(info: &husk_abi::boundary::boot::BootInfo) -> Vec<u8> {
    let bytes = std::mem::size_of_val(info);
    // SAFETY: the struct is `repr(C)` of 8-byte aligned integers without padding between or behind them.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(info).cast::<u8>(), bytes) }.to_vec()
}

/// `KVM_GET_CLOCK`.
const KVM_GET_CLOCK: libc::c_ulong = 0x8030_ae7c;

/// The guest's kvmclock, read through a descriptor of its own so that any thread may.
#[derive(Debug)]
pub struct KvmClock(OwnedFd);

impl KvmClock {
    pub(super) fn of(vm: &VmFd) -> io::Result<Self> {
        // SAFETY: the VM's descriptor is open while `vm` lives; the duplicate is ours.
        unsafe { BorrowedFd::borrow_raw(vm.as_raw_fd()) }
            .try_clone_to_owned()
            .map(Self)
    }

    /// Nanoseconds of kvmclock now.
    pub fn now_ns(&self) -> io::Result<u64> {
        let mut data = kvm_bindings::kvm_clock_data::default();
        // SAFETY: the ioctl writes a `kvm_clock_data`.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), KVM_GET_CLOCK as _, &raw mut data) } {
            0 => Ok(data.clock),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
