//! Delivery: what a thread does about its signals on the way back to user code.

use husk_abi::linux::general::RLIMIT_CORE;
use husk_hal::fpu;

use crate::process::ptrace;
use crate::user::UserAddr;
use crate::{SysResult, Thread, translate};

use super::action::{Action, ActionFlags, SIG_DFL, SIG_IGN};
use super::frame::{self, Contents, FRAME_BYTES, FXSAVE_BYTES, MAGIC2, VectorState};
use super::info::Info;
use super::mask::set_mask;
use super::set::{SIGSEGV, SigSet};
use super::state::{REPORT, RESTORE_MASK, STOP, TRAP_NOTIFY, TRAP_STOP, recalculate};
use super::{restart, stop};

/// Handles all signals that wait for the running thread, stops or ends it if they say so, and settles what
/// becomes of a system call they interrupted. To be called on every way back to user code while
/// `WORK_THREAD` is up, with no lock held.
pub fn deliver(t: &Thread) {
    if t.signals.has_work() {
        translate::finish_entry(t);
        while let Some((info, action)) = next(t) {
            handle(t, &info, &action);
        }
    }
    let live = t.frame();
    if live.nr() != u64::MAX {
        let mut frame = live.get();
        if restart::is_restart_code(frame.rax) {
            let original_rip = translate::original_rip(t, frame.rip);
            restart::apply(&mut frame, original_rip, None);
            live.set(&frame);
        }
    }
    if t.signals.take(RESTORE_MASK) {
        set_mask(t, t.signals.saved_mask());
    }
}

/// Takes signals until one has a handler; `None` if there are no more.
fn next(t: &Thread) -> Option<(Info, Action)> {
    let signals = &t.signals;
    loop {
        if signals.is_killed() {
            die(t);
        }
        if signals.take(REPORT) {
            stop::report_end(t);
            continue;
        }
        if signals.flags() & (STOP | TRAP_STOP | TRAP_NOTIFY) != 0 {
            if t.trace.is_traced() {
                signals.lower(STOP | TRAP_STOP | TRAP_NOTIFY);
                ptrace::group_stop(t);
            } else if signals.flags() & STOP != 0 {
                signals.lower(TRAP_STOP | TRAP_NOTIFY);
                stop::stand_still(t);
            } else {
                signals.lower(TRAP_STOP | TRAP_NOTIFY);
            }
            continue;
        }
        let Some(info) = ptrace::deliver(t, take_next(t)?) else {
            continue;
        };
        let action = t.process.handlers().take(info.signo);
        match action.handler {
            SIG_IGN => {}
            SIG_DFL => do_default(t, info.signo),
            _ => return Some((info, action)),
        }
    }
}

/// Takes the next signal: faults first, then the thread's own, then the process's.
pub(super) fn take_next(t: &Thread) -> Option<Info> {
    let own = &t.signals.pending;
    let shared = &t.process.signals.pending;
    let mut group = t.process.signals.group.lock();
    let mask = t.signals.mask();
    let info = own
        .take_fault(mask)
        .or_else(|| own.take_first(mask))
        .or_else(|| shared.take_first(mask));
    if info.is_some_and(|info| SigSet::STOP.contains(info.signo)) {
        group.arm();
    }
    recalculate(t);
    drop(group);
    info.map(|info| info.taken_by(&t.process))
}

fn do_default(t: &Thread, signo: i32) {
    let protected = t.process.signals.is_protected(t.process.pid);
    if SigSet::IGNORED_BY_DEFAULT.contains(signo)
        || protected && !SigSet::UNBLOCKABLE.contains(signo)
    {
        return;
    }
    if SigSet::STOP.contains(signo) {
        stop::begin(t, signo);
        return;
    }
    let core = SigSet::CORE_DUMP.contains(signo)
        && t.process
            .limit(RLIMIT_CORE)
            .is_ok_and(|limit| limit.rlim_cur > 0);
    crate::process::exit_group_signal(t, signo, core)
}

/// The thread was told to die.
fn die(t: &Thread) -> ! {
    match t.process.signals.fatal_signal() {
        Some(signo) => crate::process::exit_group_signal(t, signo, false),
        None => crate::process::exit_killed(t),
    }
}

/// Lets the handler run when the thread gets back to user code.
fn handle(t: &Thread, info: &Info, action: &Action) {
    let live = t.frame();
    if live.nr() == u64::MAX {
        crate::sched::rseq::on_return(t);
    }
    let mut registers = live.get();
    let stepped = ptrace::ends_step(t);
    registers.rflags = ptrace::own_flags(t, registers.rflags);
    if registers.is_syscall() {
        let original_rip = translate::original_rip(t, registers.rip);
        restart::apply(&mut registers, original_rip, Some(action.flags));
    } else {
        translate::settle(t, &mut registers);
    }
    let entered = enter(t, info, action, &mut registers);
    live.set(&registers);
    if !entered {
        super::send::force_sigsegv(t, info.signo);
        return;
    }
    let signals = &t.signals;
    signals.lower(RESTORE_MASK);
    let own = if action.flags.contains(ActionFlags::NODEFER) {
        SigSet::EMPTY
    } else {
        SigSet::of(info.signo)
    };
    set_mask(t, signals.mask() | action.mask | own);
    if signals.altstack().is_auto_disarmed() {
        signals.forget_altstack();
    }
    if stepped {
        ptrace::entered_handler(t);
    } else {
        ptrace::arm(t);
    }
}

/// Writes the frame and points `registers` at the handler; false if that is not possible.
fn enter(
    t: &Thread,
    info: &Info,
    action: &Action,
    registers: &mut husk_hal::trap::TrapFrame,
) -> bool {
    let signals = &t.signals;
    if !action.flags.contains(ActionFlags::RESTORER) || !frame::is_code_address(action.handler) {
        return false;
    }
    let altstack = signals.altstack();
    let state = fpu::State::of_running();
    let Some(place) = frame::place(registers.rsp, action.flags, &altstack, state.bytes().len())
    else {
        return false;
    };
    let mask = if signals.flags() & RESTORE_MASK != 0 {
        signals.saved_mask()
    } else {
        signals.mask()
    };
    let bytes = frame::build(
        &Contents {
            registers,
            info,
            action,
            mask,
            altstack,
            last_fault: *signals.last_fault.lock(),
            vector_state: state.bytes(),
            features: fpu::features(),
        },
        &place,
    );
    if UserAddr(place.frame).write_bytes(&bytes).is_err() {
        return false;
    }
    frame::enter_handler(registers, info.signo, action.handler, &place);
    // Handlers start with fresh vector state.
    fpu::State::initial().restore();
    true
}

/// `rt_sigreturn(2)`: back to where the handler interrupted the program. A frame that makes no sense is
/// `SIGSEGV`.
///
/// # Errors
/// None; the result is the frame's `rax`.
pub fn rt_sigreturn(t: &Thread) -> SysResult {
    // The handler's `ret` has popped the restorer's address.
    let at = UserAddr(t.frame().get().rsp.wrapping_sub(8));
    if leave_handler(t, at).is_some() {
        translate::resume(t);
    } else {
        super::send::force(t, &Info::kernel(SIGSEGV));
    }
    Ok(0)
}

fn leave_handler(t: &Thread, at: UserAddr) -> Option<()> {
    let saved = frame::parse(&at.read::<[u8; FRAME_BYTES]>().ok()?);
    set_mask(t, saved.mask);
    if !frame::is_code_address(saved.registers.rip) {
        return None;
    }
    restore_vector_state(UserAddr(saved.vector_state))?;
    // A call that waited to be resumed belongs to what the handler interrupted; it fails with EINTR.
    drop(t.signals.restart_block.lock().take());
    t.frame().set(&saved.registers);
    let altstack = t.signals.altstack();
    // As on Linux a stack that cannot be set is left alone.
    if let Ok(altstack) = altstack.replaced(saved.altstack, saved.registers.rsp) {
        t.signals.set_altstack(altstack);
    }
    Some(())
}

fn restore_vector_state(at: UserAddr) -> Option<()> {
    if at.is_null() {
        fpu::State::initial().restore();
        return Some(());
    }
    let image = at.read::<[u8; FXSAVE_BYTES]>().ok()?;
    let mut state = fpu::State::of_running();
    let (mut area, features) = match frame::vector_state(&image, fpu::size_bytes()) {
        VectorState::Extended { bytes, features }
            if at.add(bytes as u64).read::<u32>().ok()? == MAGIC2 =>
        {
            let mut area = alloc::vec![0; bytes];
            at.read_bytes(&mut area).ok()?;
            (area, features)
        }
        _ => (image.to_vec(), 0),
    };
    if !frame::is_loadable(&mut area, features, fpu::features(), state.bytes()) {
        return None;
    }
    state.set(&area);
    state.restore();
    Some(())
}
