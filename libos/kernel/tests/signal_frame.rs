//! Signal frames against the host's Linux: a real frame, taken apart and built again, must be the same bytes at
//! the same address.
#![allow(unsafe_code, reason = "a signal handler reads its own frame")]

use std::cell::UnsafeCell;
use std::mem::{MaybeUninit, size_of};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use husk_kernel::signal::frame::{
    self, Contents, FRAME_BYTES, FXSAVE_BYTES, MAGIC2, Place, VectorState,
};
use husk_kernel::signal::{Action, ActionFlags, AltStack, Info, LastFault, SigSet};

/// Where `sigcontext.reserved1` lies in the frame.
const RESERVED: std::ops::Range<usize> = 240..304;
const CAPTURE_BYTES: usize = 32 << 10;
/// Offset of the FXSAVE image's software bytes, and of the area's size in them.
const XSTATE_SIZE: usize = 464 + 16;

/// What the handler saw: frame, then vector state.
struct Capture {
    bytes: UnsafeCell<[u8; CAPTURE_BYTES]>,
    frame: AtomicUsize,
    length: AtomicUsize,
}

// SAFETY: written by the handler only, read after it has returned; `SERIAL` lets one test run at a time.
unsafe impl Sync for Capture {}

static CAPTURE: Capture = Capture {
    bytes: UnsafeCell::new([0; CAPTURE_BYTES]),
    frame: AtomicUsize::new(0),
    length: AtomicUsize::new(0),
};
static SERIAL: Mutex<()> = Mutex::new(());

extern "C" fn handler(_signo: i32, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let start = context as usize - size_of::<u64>();
    // SAFETY: the kernel wrote a frame there; its vector state lies above it.
    unsafe {
        let context = &*context.cast::<libc::ucontext_t>();
        let state = context.uc_mcontext.fpregs as usize;
        let size = ((state + XSTATE_SIZE) as *const u32).read_unaligned() as usize;
        let length = state + size + size_of::<u32>() - start;
        let to = CAPTURE.bytes.get().cast::<u8>();
        std::ptr::copy_nonoverlapping(start as *const u8, to, length.min(CAPTURE_BYTES));
        CAPTURE.length.store(length, Ordering::SeqCst);
    }
    CAPTURE.frame.store(start, Ordering::SeqCst);
}

/// The kernel's own `struct sigaction` for `signo`, where libc's restorer shows.
fn kernel_action(signo: i32) -> [u64; 4] {
    let mut words = [0u64; 4];
    // SAFETY: reads the action into four words.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, signo, 0, words.as_mut_ptr(), 8) };
    assert_eq!(result, 0);
    words
}

fn mask() -> u64 {
    let mut mask = 0u64;
    // SAFETY: reads the mask into one word.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_BLOCK,
            0,
            &raw mut mask,
            8,
        )
    };
    assert_eq!(result, 0);
    mask
}

fn altstack() -> AltStack {
    let mut stack = MaybeUninit::<libc::stack_t>::uninit();
    // SAFETY: reads the current alternate stack.
    let stack = unsafe {
        assert_eq!(libc::sigaltstack(std::ptr::null(), stack.as_mut_ptr()), 0);
        stack.assume_init()
    };
    AltStack {
        base: stack.ss_sp as u64,
        size: stack.ss_size as u64,
        flags: stack.ss_flags.cast_unsigned(),
    }
}

/// Takes a signal with the handler's `flags` and compares what the kernel made of it with what we make.
fn compare(signo: i32, flags: i32) {
    let _serial = SERIAL.lock().unwrap();
    // SAFETY: installs a handler that only copies its frame, and signals this thread.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = flags | libc::SA_SIGINFO;
        assert_eq!(
            libc::sigaction(signo, &raw const action, std::ptr::null_mut()),
            0
        );
        let result = libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), signo);
        assert_eq!(result, 0);
    }
    let length = CAPTURE.length.load(Ordering::SeqCst);
    let at = CAPTURE.frame.load(Ordering::SeqCst) as u64;
    assert!(length > 0 && length <= CAPTURE_BYTES, "{length} bytes");
    // SAFETY: the handler has returned.
    let real = unsafe { &(&*CAPTURE.bytes.get())[..length] };

    let head: &[u8; FRAME_BYTES] = real[..FRAME_BYTES].try_into().unwrap();
    let saved = frame::parse(head);
    let state = (saved.vector_state - at) as usize;
    let image: &[u8; FXSAVE_BYTES] = real[state..state + FXSAVE_BYTES].try_into().unwrap();
    let VectorState::Extended { bytes, features } = frame::vector_state(image, CAPTURE_BYTES)
    else {
        panic!("the kernel's frames hold XSAVE areas");
    };
    assert_eq!(real[state + bytes..], MAGIC2.to_le_bytes());

    let [address, kernel_flags, restorer, action_mask] = kernel_action(signo);
    let action = Action {
        handler: address,
        flags: ActionFlags::from_bits_truncate(kernel_flags),
        restorer,
        mask: SigSet(action_mask),
    };
    let altstack = altstack();
    let place = frame::place(saved.registers.rsp, action.flags, &altstack, bytes);
    let expected = Place {
        frame: at,
        vector_state: saved.vector_state,
    };
    assert_eq!(place, Some(expected));

    // SAFETY: asks for ids.
    let (pid, uid) = unsafe { (libc::getpid(), libc::getuid()) };
    let info = Info::tkill(signo, pid.cast_unsigned(), uid);
    assert_eq!(saved.mask.0, mask());
    // Flags a program cannot change (ID) pass through a frame unseen.
    let mut registers = saved.registers;
    let rflags = 8 + 40 + 17 * 8;
    registers.rflags = u64::from_le_bytes(real[rflags..rflags + 8].try_into().unwrap());
    // What the last exception left is the kernel's business: taken from the frame.
    let word = |offset: usize| u64::from_le_bytes(real[offset..offset + 8].try_into().unwrap());
    let last_fault = LastFault {
        error: word(rflags + 16),
        vector: word(rflags + 24),
        address: word(rflags + 40),
    };
    let ours = frame::build(
        &Contents {
            registers: &registers,
            info: &info,
            action: &action,
            mask: saved.mask,
            // The frame holds the stack as it was set, not whether it is in use.
            altstack: saved.altstack,
            last_fault,
            vector_state: &real[state..state + bytes],
            features,
        },
        &expected,
    );
    assert_eq!(ours.len(), real.len());
    // The kernel leaves what lay on the stack in the reserved words of `struct sigcontext`.
    assert_eq!(ours[..RESERVED.start], real[..RESERVED.start]);
    assert_eq!(
        ours[RESERVED.end..FRAME_BYTES],
        real[RESERVED.end..FRAME_BYTES]
    );
    assert_eq!(ours[state..], real[state..]);
    assert_eq!(
        (saved.altstack.base, saved.altstack.size),
        (altstack.base, altstack.size)
    );
}

#[test]
fn on_the_thread_stack() {
    compare(libc::SIGUSR1, 0);
    compare(libc::SIGUSR2, libc::SA_RESTART | libc::SA_NODEFER);
}

#[test]
fn on_the_alternate_stack() {
    const BYTES: usize = 64 << 10;
    let memory = vec![0u8; BYTES].leak();
    let stack = libc::stack_t {
        ss_sp: memory.as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: BYTES,
    };
    // SAFETY: the memory lives for ever.
    let result = unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) };
    assert_eq!(result, 0);
    compare(libc::SIGUSR1, libc::SA_ONSTACK);
    compare(libc::SIGUSR1, 0);
}
