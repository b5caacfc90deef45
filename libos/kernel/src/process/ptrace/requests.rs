//! What a tracer asks of a standing tracee.

use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::linux::ptrace::*;

use super::registers::{Registers, WORDS};
use super::state::{CALLS, DEBUG, EMULATE, HOW, LISTENING, STANDING, STEP, Stopped};
use super::{link, syscall_info};
use crate::process::Thread;
use crate::signal::info::SIGINFO_BYTES;
use crate::signal::set::{NSIG, SigSet};
use crate::signal::{Info, tracing};
use crate::user::UserAddr;
use crate::{Errno, Result, SysResult};

/// Register sets (`elf.h`): general registers, FXSAVE's, XSAVE's.
const NT_PRSTATUS: u32 = 1;
const NT_PRFPREG: u32 = 2;
const NT_X86_XSTATE: u32 = 0x202;

/// Bytes of `struct user`.
const USER_BYTES: u64 = 928;
/// Offset of its `u_debugreg`.
const DEBUG_REGISTERS: u64 = 848;
/// Its end; the last fault follows, which is never shown.
const DEBUG_END: u64 = DEBUG_REGISTERS + 64;
/// `struct ptrace_rseq_configuration`.
const RSEQ_CONFIGURATION_BYTES: usize = 24;

/// Runs `f` on what standing `tracee` shows.
///
/// # Errors
/// `ESRCH` if it was killed meanwhile; what `f` gives.
pub(super) fn shown<R>(tracee: &Thread, f: impl FnOnce(&mut Stopped) -> Result<R>) -> Result<R> {
    let mut state = tracee.trace.state.lock();
    f(state.stopped.as_mut().ok_or(Errno::ESRCH)?)
}

fn registers<R>(tracee: &Thread, f: impl FnOnce(&mut Registers) -> Result<R>) -> Result<R> {
    shown(tracee, |stopped| f(&mut stopped.registers))
}

/// Serves a request about `tracee`, which stands for `t`.
///
/// # Errors
/// `EIO` for unknown requests and bad addresses, others as the man page lists them.
pub(super) fn serve(
    t: &Thread,
    tracee: &Arc<Thread>,
    request: u32,
    addr: u64,
    data: u64,
) -> SysResult {
    let to = UserAddr(data);
    match request {
        PTRACE_PEEKTEXT | PTRACE_PEEKDATA => peek(tracee, addr, to),
        PTRACE_POKETEXT | PTRACE_POKEDATA => poke(tracee, addr, data),
        PTRACE_PEEKUSR => peek_user(tracee, addr, to),
        PTRACE_POKEUSR => poke_user(tracee, addr, data),
        PTRACE_GETREGS => {
            let words = registers(tracee, |registers| Ok(registers.words()))?;
            to.write(&words)?;
            Ok(0)
        }
        PTRACE_SETREGS => {
            let words = to.read::<[u64; WORDS]>()?;
            set_words(tracee, &words)
        }
        PTRACE_GETFPREGS => {
            let image = registers(tracee, |registers| Ok(registers.fxsave()))?;
            to.write_bytes(&image)?;
            Ok(0)
        }
        PTRACE_SETFPREGS => {
            let image = to.read::<[u8; 512]>()?;
            registers(tracee, |registers| registers.set_fxsave(&image))?;
            Ok(0)
        }
        PTRACE_GETREGSET => get_set(tracee, addr, to),
        PTRACE_SETREGSET => set_set(tracee, addr, to),
        PTRACE_CONT
        | PTRACE_SYSCALL
        | PTRACE_SINGLESTEP
        | PTRACE_SYSEMU
        | PTRACE_SYSEMU_SINGLESTEP => resume(tracee, request, data),
        PTRACE_DETACH => {
            let signo = signal_number(data)?;
            link::detach(t, tracee, signo);
            Ok(0)
        }
        PTRACE_LISTEN => listen(tracee),
        PTRACE_SETOPTIONS | PTRACE_OLDSETOPTIONS => {
            let options = link::checked_options(t, data)?;
            if let Some(link) = &mut tracee.trace.state.lock().link {
                link.options = options;
            }
            Ok(0)
        }
        PTRACE_GETEVENTMSG => {
            let message = tracee.trace.state.lock().message;
            to.write(&message)?;
            Ok(0)
        }
        PTRACE_GETSIGINFO => {
            let info = shown(tracee, |stopped| stopped.info.ok_or(Errno::EINVAL))?;
            to.write_bytes(&info.to_bytes())?;
            Ok(0)
        }
        PTRACE_SETSIGINFO => {
            let bytes = to.read::<[u8; SIGINFO_BYTES]>()?;
            shown(tracee, |stopped| {
                let info = stopped.info.as_mut().ok_or(Errno::EINVAL)?;
                *info = Info::from_tracer(&bytes)?;
                Ok(0)
            })
        }
        PTRACE_PEEKSIGINFO => peek_signals(tracee, UserAddr(addr), to),
        PTRACE_GETSIGMASK | PTRACE_SETSIGMASK if addr != size_of::<SigSet>() as u64 => {
            Err(Errno::EINVAL)
        }
        PTRACE_GETSIGMASK => {
            to.write(&tracing::blocked(tracee).0)?;
            Ok(0)
        }
        PTRACE_SETSIGMASK => {
            let mask = SigSet(to.read()?);
            tracing::set_blocked(tracee, mask);
            Ok(0)
        }
        PTRACE_GET_SYSCALL_INFO => syscall_info::get(tracee, addr, to),
        PTRACE_GET_RSEQ_CONFIGURATION => {
            if addr != RSEQ_CONFIGURATION_BYTES as u64 {
                return Err(Errno::EINVAL);
            }
            let words = crate::sched::rseq::configuration(tracee);
            to.write(&words)?;
            Ok(RSEQ_CONFIGURATION_BYTES)
        }
        PTRACE_ARCH_PRCTL => arch_prctl(tracee, data, addr),
        _ => Err(Errno::EIO),
    }
}

/// A signal to go on with, 0 for none.
fn signal_number(data: u64) -> Result<i32> {
    match i32::try_from(data) {
        Ok(signo @ 0..=NSIG) => Ok(signo),
        _ => Err(Errno::EIO),
    }
}

fn peek(tracee: &Thread, addr: u64, to: UserAddr) -> SysResult {
    let mut bytes = [0; 8];
    let mm = tracee.mm_opt().ok_or(Errno::EIO)?;
    match mm.read_bytes_forced(addr, &mut bytes) {
        Ok(8) => {
            to.write(&u64::from_le_bytes(bytes))?;
            Ok(0)
        }
        _ => Err(Errno::EIO),
    }
}

fn poke(tracee: &Thread, addr: u64, data: u64) -> SysResult {
    let mm = tracee.mm_opt().ok_or(Errno::EIO)?;
    match mm.write_bytes_forced(addr, &data.to_le_bytes()) {
        Ok(8) => Ok(0),
        _ => Err(Errno::EIO),
    }
}

/// A place in `struct user`.
enum UserWord {
    Register(usize),
    Debug(usize),
    /// What no kernel fills in.
    Unused,
}

fn user_word(addr: u64) -> Result<UserWord> {
    if !addr.is_multiple_of(8) || addr >= USER_BYTES {
        return Err(Errno::EIO);
    }
    let index = (addr / 8) as usize;
    Ok(match addr {
        _ if index < WORDS => UserWord::Register(index),
        DEBUG_REGISTERS..DEBUG_END => UserWord::Debug(index - (DEBUG_REGISTERS / 8) as usize),
        _ => UserWord::Unused,
    })
}

fn peek_user(tracee: &Thread, addr: u64, to: UserAddr) -> SysResult {
    let value = match user_word(addr)? {
        UserWord::Register(index) => registers(tracee, |registers| Ok(registers.words()[index]))?,
        UserWord::Debug(index) => tracee.trace.debug.lock().get(index),
        UserWord::Unused => 0,
    };
    to.write(&value)?;
    Ok(0)
}

fn poke_user(tracee: &Thread, addr: u64, data: u64) -> SysResult {
    match user_word(addr)? {
        UserWord::Register(index) => {
            registers(tracee, |registers| registers.set_word(index, data))?;
            Ok(0)
        }
        UserWord::Debug(index) => {
            if tracee.trace.debug.lock().set(index, data)? {
                tracee.trace.raise(DEBUG);
            } else {
                tracee.trace.lower(DEBUG);
            }
            Ok(0)
        }
        UserWord::Unused => Err(Errno::EIO),
    }
}

/// Sets the words of `struct user_regs_struct` from the first on, until one is refused.
fn set_words(tracee: &Thread, words: &[u64]) -> SysResult {
    registers(tracee, |registers| {
        for (index, word) in words.iter().enumerate() {
            registers.set_word(index, *word)?;
        }
        Ok(0)
    })
}

/// The `iovec` of a register set: address and bytes, whose number must be a multiple of 8.
fn set_range(at: UserAddr) -> Result<(UserAddr, usize)> {
    let [base, len] = at.read::<[u64; 2]>()?;
    Ok((UserAddr(base), usize::try_from(len).unwrap_or(usize::MAX)))
}

fn check_set(kind: u64, len: usize) -> Result<u32> {
    let kind = u32::try_from(kind).map_err(|_| Errno::EINVAL)?;
    let is_known = matches!(kind, NT_PRSTATUS | NT_PRFPREG | NT_X86_XSTATE);
    if is_known && len.is_multiple_of(8) {
        Ok(kind)
    } else {
        Err(Errno::EINVAL)
    }
}

fn get_set(tracee: &Thread, kind: u64, iov: UserAddr) -> SysResult {
    let (base, len) = set_range(iov)?;
    let kind = check_set(kind, len)?;
    let bytes: Vec<u8> = registers(tracee, |registers| {
        Ok(match kind {
            NT_PRSTATUS => registers
                .words()
                .iter()
                .flat_map(|w| w.to_le_bytes())
                .collect(),
            NT_PRFPREG => registers.fxsave(),
            _ => registers.xstate(),
        })
    })?;
    let len = len.min(bytes.len());
    base.write_bytes(&bytes[..len])?;
    iov.add(8).write(&(len as u64))?;
    Ok(0)
}

fn set_set(tracee: &Thread, kind: u64, iov: UserAddr) -> SysResult {
    let (base, len) = set_range(iov)?;
    let kind = check_set(kind, len)?;
    let most = match kind {
        NT_PRSTATUS => WORDS * 8,
        NT_PRFPREG => 512,
        _ => husk_hal::fpu::size_bytes(),
    };
    let mut bytes = alloc::vec![0; len.min(most)];
    base.read_bytes(&mut bytes)?;
    match kind {
        NT_PRSTATUS => {
            let words: Vec<u64> = bytes
                .chunks_exact(8)
                .map(|chunk| {
                    chunk
                        .iter()
                        .rev()
                        .fold(0, |word, byte| word << 8 | u64::from(*byte))
                })
                .collect();
            set_words(tracee, &words)?;
        }
        NT_PRFPREG => registers(tracee, |registers| registers.set_fxsave(&bytes))?,
        _ => registers(tracee, |registers| registers.set_xstate(&bytes))?,
    }
    iov.add(8).write(&(bytes.len() as u64))?;
    Ok(0)
}

/// Lets the tracee go on.
fn resume(tracee: &Arc<Thread>, request: u32, data: u64) -> SysResult {
    let signo = signal_number(data)?;
    let how = match request {
        PTRACE_SYSCALL => CALLS,
        PTRACE_SINGLESTEP => STEP,
        PTRACE_SYSEMU => EMULATE,
        PTRACE_SYSEMU_SINGLESTEP => EMULATE | STEP,
        _ => 0,
    };
    {
        let mut state = tracee.trace.state.lock();
        state.resume_signal = signo;
        state.unreported = None;
    }
    tracee.trace.lower(HOW);
    tracee.trace.raise(how);
    tracee.trace.lower(STANDING);
    crate::sched::unpark(tracee);
    Ok(0)
}

/// `PTRACE_LISTEN`: the tracee goes on standing, and shows the next change of its process's stop.
fn listen(tracee: &Arc<Thread>) -> SysResult {
    let is_event_stop = shown(tracee, |stopped| {
        Ok(stopped.code >> 8 == PTRACE_EVENT_STOP as i32)
    })?;
    if !is_event_stop {
        return Err(Errno::EIO);
    }
    tracee.trace.state.lock().unreported = None;
    tracee.trace.raise(LISTENING);
    if tracing::has_notice(tracee) {
        crate::sched::unpark(tracee);
    }
    Ok(0)
}

/// `PTRACE_PEEKSIGINFO`: `args` is a `struct ptrace_peeksiginfo_args`.
fn peek_signals(tracee: &Thread, args: UserAddr, to: UserAddr) -> SysResult {
    let offset = args.read::<u64>()?;
    let [flags, count] = args.add(8).read::<[u32; 2]>()?;
    let count = count.cast_signed();
    if flags & !PTRACE_PEEKSIGINFO_SHARED != 0 || count < 0 {
        return Err(Errno::EINVAL);
    }
    let of_process = flags & PTRACE_PEEKSIGINFO_SHARED != 0;
    let Ok(first) = usize::try_from(offset.cast_signed()) else {
        return Err(Errno::EINVAL);
    };
    let mut done = 0;
    while done < count.cast_unsigned() as usize {
        let Some(info) = tracing::pending(tracee, of_process, first.saturating_add(done)) else {
            break;
        };
        let at = to.add((done * SIGINFO_BYTES) as u64);
        match at.write_bytes(&info.to_bytes()) {
            Ok(_) => done += 1,
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// `PTRACE_ARCH_PRCTL`: `arch_prctl(2)` for another, of which only the bases can be seen and set.
fn arch_prctl(tracee: &Thread, code: u64, value: u64) -> SysResult {
    use crate::process::prctl::{ARCH_GET_FS, ARCH_GET_GS, ARCH_SET_FS, ARCH_SET_GS};
    const FS_BASE: usize = 21;
    const GS_BASE: usize = 22;
    let index = match code {
        ARCH_GET_FS | ARCH_SET_FS => FS_BASE,
        ARCH_GET_GS | ARCH_SET_GS => GS_BASE,
        _ => return Err(Errno::EINVAL),
    };
    if code == ARCH_SET_FS || code == ARCH_SET_GS {
        let set = registers(tracee, |registers| registers.set_word(index, value));
        set.map_err(|_| Errno::EPERM)?;
    } else {
        let base = registers(tracee, |registers| Ok(registers.words()[index]))?;
        UserAddr(value).write(&base)?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_struct_user() {
        assert!(matches!(user_word(0), Ok(UserWord::Register(0))));
        assert!(matches!(user_word(26 * 8), Ok(UserWord::Register(26))));
        assert!(matches!(user_word(27 * 8), Ok(UserWord::Unused)));
        assert!(matches!(user_word(848), Ok(UserWord::Debug(0))));
        assert!(matches!(user_word(904), Ok(UserWord::Debug(7))));
        assert!(matches!(user_word(912), Ok(UserWord::Unused)));
        for bad in [1, 7, 849, 928, u64::MAX] {
            assert!(matches!(user_word(bad), Err(Errno::EIO)), "{bad}");
        }
    }

    #[test]
    fn signals_to_go_on_with() {
        assert_eq!(signal_number(0), Ok(0));
        assert_eq!(signal_number(64), Ok(64));
        assert_eq!(signal_number(65), Err(Errno::EIO));
        assert_eq!(signal_number(u64::MAX), Err(Errno::EIO));
    }

    #[test]
    fn register_sets() {
        assert_eq!(check_set(1, 216), Ok(NT_PRSTATUS));
        assert_eq!(check_set(0x202, 0), Ok(NT_X86_XSTATE));
        assert_eq!(check_set(1, 217), Err(Errno::EINVAL));
        assert_eq!(check_set(3, 8), Err(Errno::EINVAL));
    }
}
