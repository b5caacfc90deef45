//! Where an interrupt or exception found the vCPU, and what follows from it.

use core::sync::atomic::Ordering;

use husk_abi::boundary::layout::{DIRECT_MAP, IMAGE_BASE, IMAGE_SPAN, selector};
use husk_abi::boundary::vcpu::{DEBUG_CONTINUE, DEBUG_NOT_OURS};

use super::{cpu, entry, user};
use crate::trap::{EXIT_FULL, TrapFrame};

const FRAME_BYTES: u64 = size_of::<TrapFrame>() as u64;
/// Debug exception.
const VECTOR_DB: u64 = 1;
/// Breakpoint.
const VECTOR_BP: u64 = 3;
const VECTOR_GP: u64 = 13;
const VECTOR_PF: u64 = 14;

unsafe extern "Rust" {
    /// The kernel's handler for exceptions of user code (image crate).
    safe fn husk_user_exception(frame: &mut TrapFrame, vector: u64, address: u64, error: u64);
    /// Tries to make `address` accessible for a user copy of the libOS.
    safe fn husk_copy_fault(address: u64, error: u64) -> bool;
    /// The libOS itself is broken: report and stop.
    safe fn husk_fatal_exception(frame: &TrapFrame, vector: u64, address: u64) -> !;
}

fn label(symbol: unsafe extern "C" fn()) -> u64 {
    symbol as *const () as u64
}

fn in_image(rip: u64) -> bool {
    (IMAGE_BASE..IMAGE_BASE + IMAGE_SPAN).contains(&rip)
}

/// If `frame` was taken at one of the two instructions that leave for user code, makes it the user's.
fn finish_exit(frame: &mut TrapFrame) -> bool {
    if frame.rip == label(entry::hal_exit_jump) {
        frame.rip = frame.rcx;
        true
    } else if frame.rip == label(entry::hal_exit_iret) {
        let words = frame.rsp as *const u64;
        // SAFETY: at that label rsp points at the five words iretq was about to pop.
        let [rip, _cs, rflags, rsp, _ss] = unsafe { words.cast::<[u64; 5]>().read() };
        frame.rip = rip;
        frame.rflags = rflags;
        frame.rsp = rsp;
        true
    } else {
        false
    }
}

/// Puts user state on the current thread's stack, whence it returns by iretq.
fn place_user(frame: &mut TrapFrame) -> *mut TrapFrame {
    frame.code = EXIT_FULL;
    frame.orig_rax = u64::MAX;
    frame.cs = u64::from(selector::USER_CODE);
    frame.ss = u64::from(selector::USER_DATA);
    let top = cpu::block().kstack_top.load(Ordering::Relaxed);
    let at = (top - FRAME_BYTES) as *mut TrapFrame;
    // SAFETY: user code ran, so the current thread's stack is empty and its top is ours.
    unsafe { at.write(*frame) };
    at
}

/// If `frame` was taken on the way back to user code, after the test for work, makes it test again.
fn restart_exit(frame: &mut TrapFrame) -> bool {
    let rip = frame.rip;
    if (label(entry::hal_exit)..label(entry::hal_exit_jump)).contains(&rip) {
        frame.rip = label(entry::hal_exit);
    } else if (label(entry::hal_exit_full)..label(entry::hal_exit_iret)).contains(&rip) {
        frame.rip = label(entry::hal_exit_full);
    } else {
        return false;
    }
    true
}

/// Shows a breakpoint or single-step trap to the VMM's debugger, if there is one; what it answers. It may have changed
/// the frame.
fn debugger_answers(frame: &mut TrapFrame, vector: u64) -> u32 {
    let shared = cpu::shared();
    let is_trap = vector == VECTOR_DB || vector == VECTOR_BP;
    if !is_trap || shared.debugger.load(Ordering::Relaxed) == 0 {
        return DEBUG_NOT_OURS;
    }
    let at = core::ptr::from_mut(frame).expose_provenance() as u64;
    shared.debug_frame.store(at, Ordering::Relaxed);
    shared.debug_answer.store(DEBUG_NOT_OURS, Ordering::Relaxed);
    crate::doorbell::ring(husk_abi::boundary::doorbell::DEBUG, vector as u32);
    shared.debug_answer.load(Ordering::Relaxed)
}

/// An interrupt: returns the place of the user's frame, or null to return at once to where it came from,
/// which tests the work flag before it goes back to user code.
#[unsafe(no_mangle)]
extern "C" fn hal_interrupt_place(frame: &mut TrapFrame) -> *mut TrapFrame {
    cpu::raise(cpu::WORK_INTERRUPT);
    let rip = frame.rip;
    if frame.cs & 3 == 0 {
        leave_ring0(frame);
        return core::ptr::null_mut();
    }
    if !restart_exit(frame) && (finish_exit(frame) || !in_image(rip)) {
        return place_user(frame);
    }
    core::ptr::null_mut()
}

/// Interrupted in `hal_lstar` at CPL 0 (hardware only, IF is never masked): the prologue runs at CPL 3 and
/// cannot go back there, so go on at the CPL 3 half with the caller's registers.
fn leave_ring0(frame: &mut TrapFrame) {
    let scratch = &cpu::block().scratch;
    if frame.rip > label(entry::hal_lstar) {
        frame.rax = scratch[0];
    }
    if frame.rip > label(entry::hal_lstar_saved) {
        frame.rcx = scratch[1];
        frame.r11 = scratch[2];
    }
    frame.rip = label(entry::hal_lstar_cpl3);
    frame.cs = u64::from(selector::USER_CODE);
    frame.ss = u64::from(selector::USER_DATA);
    frame.rflags = 0x202;
}

/// An exception: returns where on which stack its frame now lies, or null to return at once.
#[unsafe(no_mangle)]
extern "C" fn hal_exception_place(
    frame: &mut TrapFrame,
    vector: u64,
    address: u64,
) -> *mut TrapFrame {
    let rip = frame.rip;
    // User code's traps are shown once they are placed, so that the way back tests for work.
    if in_image(rip) {
        let answer = debugger_answers(frame, vector);
        if answer != DEBUG_NOT_OURS {
            if answer == DEBUG_CONTINUE {
                restart_exit(frame);
            }
            return core::ptr::null_mut();
        }
    }
    if finish_exit(frame) || !in_image(rip) {
        if !cpu::has_thread() {
            // No program runs yet: the libOS itself has gone astray.
            husk_fatal_exception(frame, vector, address);
        }
        return place_user(frame);
    }
    let in_entry = (label(entry::hal_entry_start)..label(entry::hal_entry_end)).contains(&rip)
        || (label(entry::hal_upcall_start)..label(entry::hal_upcall_end)).contains(&rip);
    if in_entry {
        // A program that single-steps itself through a thunk: step on, the entry's slow side clears TF.
        if vector == VECTOR_DB {
            return core::ptr::null_mut();
        }
        if rip == label(entry::hal_cstar) {
            return place_user(frame);
        }
        husk_fatal_exception(frame, vector, address);
    }
    if frame.rsp < DIRECT_MAP || !frame.rsp.is_multiple_of(8) {
        husk_fatal_exception(frame, vector, address);
    }
    let at = ((frame.rsp - FRAME_BYTES) & !15) as *mut TrapFrame;
    // SAFETY: the libOS ran on a stack in the upper half; it has no red zone, so what lies below rsp is
    // free. A wild rsp faults in here and ends as fatal, above.
    unsafe { at.write(*frame) };
    at
}

/// Handles a placed exception; true to return into the libOS, false to the user.
#[unsafe(no_mangle)]
extern "C" fn hal_exception_handle(
    frame: &mut TrapFrame,
    vector: u64,
    address: u64,
    error: u64,
) -> bool {
    if !in_image(frame.rip) || frame.rip == label(entry::hal_cstar) {
        if debugger_answers(frame, vector) != DEBUG_NOT_OURS {
            return false;
        }
        husk_user_exception(frame, vector, address, error);
        return false;
    }
    if let Some(fixup) = user::fixup(frame.rip) {
        let resolved = vector == VECTOR_PF && husk_copy_fault(address, error);
        if resolved {
            return true;
        }
        if vector == VECTOR_PF || vector == VECTOR_GP {
            frame.rip = fixup;
            return true;
        }
    }
    husk_fatal_exception(frame, vector, address)
}
