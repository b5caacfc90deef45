//! What the assembly and the hardware layer call.

use husk_hal::cpu;
use husk_hal::trap::{LiveFrame, TrapFrame};
use husk_kernel::{Thread, process, signal, syscall};

/// A system call: its frame lies at the top of the thread's stack.
#[unsafe(no_mangle)]
extern "C" fn husk_syscall(frame: &LiveFrame) {
    // SAFETY: the scheduler makes only `Thread`s current, and one is current whenever user code runs.
    let thread = unsafe { cpu::current_unchecked::<Thread>() };
    syscall::dispatch(thread, frame);
}

/// A translated `cpuid`.
#[unsafe(no_mangle)]
extern "C" fn husk_cpuid(_frame: &LiveFrame) {
    cpu::with_current(process::cpuid::translated);
}

/// On the way back to user code, a work flag is up.
#[unsafe(no_mangle)]
extern "C" fn husk_exit_work(_frame: &LiveFrame) {
    cpu::with_current(husk_kernel::exit_work);
}

/// A new thread's first instructions.
#[unsafe(no_mangle)]
extern "C" fn husk_thread_started() {
    cpu::with_current(husk_kernel::thread_started);
}

/// An exception of user code.
#[unsafe(no_mangle)]
fn husk_user_exception(_frame: &mut TrapFrame, vector: u64, address: u64, error: u64) {
    cpu::with_current(|thread: &Thread| {
        signal::fault::user_exception(thread, vector, address, error);
    });
}

/// A user copy of the libOS faulted: make the page present if the process may access it so.
#[unsafe(no_mangle)]
fn husk_copy_fault(address: u64, error: u64) -> bool {
    cpu::with_current(|thread: &Thread| {
        thread
            .mm_opt()
            .is_some_and(|mm| mm.fault(address, error).is_ok())
    })
    .unwrap_or(false)
}

/// The libOS itself faulted.
#[unsafe(no_mangle)]
fn husk_fatal_exception(frame: &TrapFrame, vector: u64, address: u64) -> ! {
    panic!("exception {vector} in the libOS, address {address:#x}: {frame:x?}")
}
