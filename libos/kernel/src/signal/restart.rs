//! What becomes of a system call that a signal interrupted.
//!
//! A handler that gives up because of a signal returns one of the `ERESTART*` codes, which no program sees:
//! on the way out the call is made again, or fails with `EINTR` (`signal(7)`).

use alloc::boxed::Box;

use husk_hal::trap::{EXIT_FULL, TrapFrame};

use crate::{Errno, SysResult, Thread};

use super::action::ActionFlags;

/// Number of `restart_syscall(2)`.
const NR_RESTART_SYSCALL: u64 = husk_abi::linux::general::__NR_restart_syscall as u64;

/// How a call goes on that cannot simply be made again (a sleep that has used up part of its time).
pub struct RestartBlock(Box<dyn FnOnce(&Thread) -> SysResult + Send>);

impl RestartBlock {
    /// `resume` serves the call from where it was interrupted.
    #[must_use]
    pub fn new(resume: impl FnOnce(&Thread) -> SysResult + Send + 'static) -> Self {
        Self(Box::new(resume))
    }
}

impl core::fmt::Debug for RestartBlock {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("RestartBlock")
    }
}

/// Keeps how an interrupted call goes on unless a handler runs; returns what its handler is to return,
/// `ERESTART_RESTARTBLOCK`.
pub fn restart_with(
    t: &Thread,
    resume: impl FnOnce(&Thread) -> SysResult + Send + 'static,
) -> Errno {
    let block = RestartBlock::new(resume);
    let old = t.signals.restart_block.lock().replace(block);
    drop(old);
    Errno::ERESTART_RESTARTBLOCK
}

/// What to do with a call on the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// The result stands.
    Keep,
    /// It fails with `EINTR`.
    Interrupted,
    /// It is made again.
    Again,
    /// It goes on through `restart_syscall`.
    Resume,
}

/// Whether `rax` is one of the codes that ask for a restart.
pub(super) fn is_restart_code(rax: u64) -> bool {
    decide(rax, None) != Decision::Keep
}

/// `handler`: the flags of the handler that is about to run, if one is.
fn decide(rax: u64, handler: Option<ActionFlags>) -> Decision {
    let code = i32::try_from(rax.cast_signed().wrapping_neg()).unwrap_or(0);
    let is = |errno: Errno| code == errno.code();
    if is(Errno::ERESTARTNOINTR) {
        Decision::Again
    } else if is(Errno::ERESTARTSYS) {
        match handler {
            Some(flags) if !flags.contains(ActionFlags::RESTART) => Decision::Interrupted,
            _ => Decision::Again,
        }
    } else if is(Errno::ERESTARTNOHAND) {
        handler.map_or(Decision::Again, |_| Decision::Interrupted)
    } else if is(Errno::ERESTART_RESTARTBLOCK) {
        handler.map_or(Decision::Resume, |_| Decision::Interrupted)
    } else {
        Decision::Keep
    }
}

/// Prepares `frame` for the way out; `handler` as in [`decide`]. Addresses in it become the program's own:
/// `original_rip` is where the program's own `syscall` instruction returns to. Afterwards the frame is no
/// system call's any more if it was changed, so it cannot be restarted twice.
pub(super) fn apply(frame: &mut TrapFrame, original_rip: u64, handler: Option<ActionFlags>) {
    if !frame.is_syscall() {
        return;
    }
    let decision = decide(frame.rax, handler);
    if handler.is_none() && decision == Decision::Keep {
        return;
    }
    let nr = frame.orig_rax;
    frame.rip = original_rip;
    match decision {
        Decision::Keep => {}
        Decision::Interrupted => frame.rax = i64::from(-Errno::EINTR.code()).cast_unsigned(),
        Decision::Again => {
            frame.rax = nr;
            frame.rip -= 2;
        }
        Decision::Resume => {
            frame.rax = NR_RESTART_SYSCALL;
            frame.rip -= 2;
        }
    }
    // The `syscall` instruction leaves these behind, and so does a translated call seen from outside.
    frame.rcx = original_rip;
    frame.r11 = frame.rflags;
    frame.orig_rax = u64::MAX;
    frame.code |= EXIT_FULL;
}

/// `restart_syscall(2)`: made by the way out only.
///
/// # Errors
/// `EINTR` if there is nothing to resume, else what the resumed call gives.
pub fn restart_syscall(t: &Thread) -> SysResult {
    let block = t.signals.restart_block.lock().take();
    match block {
        Some(RestartBlock(resume)) => resume(t),
        None => Err(Errno::EINTR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use husk_hal::trap::ENTRY_TRANSLATED;

    fn code(errno: Errno) -> u64 {
        i64::from(-errno.code()).cast_unsigned()
    }

    #[test]
    fn decisions() {
        use Decision::*;
        let restart = Some(ActionFlags::RESTART);
        let plain = Some(ActionFlags::empty());
        for (errno, without, with_restart, with_plain) in [
            (Errno::ERESTARTSYS, Again, Again, Interrupted),
            (Errno::ERESTARTNOINTR, Again, Again, Again),
            (Errno::ERESTARTNOHAND, Again, Interrupted, Interrupted),
            (
                Errno::ERESTART_RESTARTBLOCK,
                Resume,
                Interrupted,
                Interrupted,
            ),
            (Errno::EINTR, Keep, Keep, Keep),
        ] {
            let rax = code(errno);
            assert_eq!(decide(rax, None), without, "{errno:?}");
            assert_eq!(decide(rax, restart), with_restart, "{errno:?}");
            assert_eq!(decide(rax, plain), with_plain, "{errno:?}");
        }
        for rax in [0, 512, u64::MAX, 1 << 63, 0x1_0000_0000 - 512] {
            assert_eq!(decide(rax, None), Keep, "{rax:#x}");
        }
        assert!(is_restart_code(code(Errno::ERESTARTSYS)));
    }

    fn in_call(rax: u64) -> TrapFrame {
        TrapFrame {
            rax,
            orig_rax: 35,
            rip: 0x7000,
            rflags: 0x246,
            code: ENTRY_TRANSLATED,
            ..TrapFrame::default()
        }
    }

    #[test]
    fn restarted_once() {
        let mut frame = in_call(code(Errno::ERESTARTSYS));
        apply(&mut frame, 0x4002, None);
        assert_eq!((frame.rip, frame.rax), (0x4000, 35));
        assert_eq!((frame.rcx, frame.r11), (0x4002, 0x246));
        assert_eq!(frame.code, EXIT_FULL);
        assert!(!frame.is_syscall());
        let again = frame;
        apply(&mut frame, 0x9999, None);
        assert_eq!(frame, again);
    }

    #[test]
    fn resumed_and_interrupted() {
        let mut frame = in_call(code(Errno::ERESTART_RESTARTBLOCK));
        apply(&mut frame, 0x4002, None);
        assert_eq!((frame.rip, frame.rax), (0x4000, 219));
        let mut frame = in_call(code(Errno::ERESTARTSYS));
        apply(&mut frame, 0x4002, Some(ActionFlags::empty()));
        assert_eq!((frame.rip, frame.rax), (0x4002, code(Errno::EINTR)));
    }

    #[test]
    fn finished_calls_stay() {
        let mut frame = in_call(5);
        apply(&mut frame, 0x4002, None);
        assert_eq!(frame, in_call(5));
        apply(&mut frame, 0x4002, Some(ActionFlags::empty()));
        assert_eq!((frame.rip, frame.rax), (0x4002, 5));
        assert!(!frame.is_syscall());
    }
}
