//! Kernel threads: a stack, what must outlive a switch, and the switch itself.

use alloc::alloc::{Layout, alloc, dealloc};
use core::cell::UnsafeCell;
use core::sync::atomic::Ordering;

use husk_abi::boundary::inspect::ThreadRecord;

use super::{cpu, entry, fpu};
use crate::trap::{LiveFrame, TrapFrame};

/// Bytes of a thread's libOS stack.
pub const STACK_BYTES: usize = 32 << 10;
const STACK_LAYOUT: Layout = match Layout::from_size_align(STACK_BYTES, 64) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};
/// Lies at the bottom of every stack; gone means the stack overflowed.
const CANARY: u64 = 0x6875_736b_2d73_746b;

struct Stack(*mut u8);

impl Stack {
    fn new() -> Option<Self> {
        // SAFETY: the layout has a non-zero size.
        let base = unsafe { alloc(STACK_LAYOUT) };
        if base.is_null() {
            return None;
        }
        // SAFETY: the allocation holds at least 8 bytes.
        unsafe { base.cast::<u64>().write(CANARY) };
        Some(Self(base))
    }

    fn top(&self) -> u64 {
        self.0 as u64 + STACK_BYTES as u64
    }

    fn intact(&self) -> bool {
        // SAFETY: `new` wrote the word; only an overflow changes it.
        unsafe { self.0.cast::<u64>().read_volatile() == CANARY }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; the thread does not run (see `Context`).
        unsafe { dealloc(self.0, STACK_LAYOUT) }
    }
}

/// A thread's machine state while it does not run.
pub struct Context {
    /// `None` for a vCPU's idle thread, which runs on the stack the VMM gave it.
    stack: Option<Stack>,
    /// Stack pointer and segment bases while it does not run, and what a debugger wants to know.
    record: ThreadRecord,
    fpu: UnsafeCell<fpu::State>,
}

// SAFETY: the scheduler runs a context on one vCPU at a time (`switch` asserts that the old one is current),
// so `fpu` and the stack have one user; the rest is atomic.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl core::fmt::Debug for Context {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Context")
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// A thread that will enter user code as `frame` says, after the kernel's `husk_thread_started`; `None` if
    /// there is no memory for its stack.
    #[must_use]
    pub fn user(frame: &TrapFrame, fs_base: u64, gs_base: u64, fpu: fpu::State) -> Option<Self> {
        let stack = Stack::new()?;
        let frame_at = stack.top() - size_of::<TrapFrame>() as u64;
        // Six callee-saved registers and the return address `hal_switch` pops.
        let rsp = frame_at - 7 * 8;
        // SAFETY: all addresses lie in the new stack, which nobody else uses.
        unsafe {
            (frame_at as *mut TrapFrame).write(*frame);
            (rsp as *mut [u64; 7]).write([
                0,
                0,
                0,
                0,
                0,
                0,
                entry::hal_thread_start as *const () as u64,
            ]);
        }
        let record = ThreadRecord {
            stack_top: stack.top().into(),
            rsp: rsp.into(),
            fs_base: fs_base.into(),
            gs_base: gs_base.into(),
            ..ThreadRecord::default()
        };
        Some(Self {
            stack: Some(stack),
            record,
            fpu: UnsafeCell::new(fpu),
        })
    }

    /// The context of the code that is running at boot: a vCPU's idle thread.
    #[must_use]
    pub fn idle() -> Self {
        Self {
            stack: None,
            record: ThreadRecord::default(),
            fpu: UnsafeCell::new(fpu::State::initial()),
        }
    }

    /// What is known of the thread outside the guest.
    #[must_use]
    pub fn record(&self) -> &ThreadRecord {
        &self.record
    }

    /// The registers this thread came into the libOS with and will leave with. For the running thread.
    ///
    /// # Panics
    /// For an idle thread.
    #[must_use]
    pub fn user_frame(&self) -> &LiveFrame {
        // SAFETY: the top of a thread's stack always holds its frame while it is in the libOS, and
        // `LiveFrame` is transparent over a cell.
        unsafe { &*self.frame_at().cast::<LiveFrame>() }
    }

    fn frame_at(&self) -> *mut TrapFrame {
        let stack = self.stack.as_ref().expect("a thread with user code");
        (stack.top() - size_of::<TrapFrame>() as u64) as *mut TrapFrame
    }
}

/// FS base of the running thread.
#[must_use]
pub fn live_fs_base() -> u64 {
    let base: u64;
    // SAFETY: reads a register; CR4.FSGSBASE is set by the VMM.
    unsafe {
        core::arch::asm!("rdfsbase {}", out(reg) base, options(nomem, nostack, preserves_flags))
    };
    base
}

/// Sets FS base of the running thread.
pub fn set_live_fs_base(base: u64) {
    // SAFETY: the libOS does not use FS.
    unsafe {
        core::arch::asm!("wrfsbase {}", in(reg) base, options(nomem, nostack, preserves_flags))
    }
}

/// GS base of the running thread.
#[must_use]
pub fn live_gs_base() -> u64 {
    let base: u64;
    // SAFETY: reads a register.
    unsafe {
        core::arch::asm!("rdgsbase {}", out(reg) base, options(nomem, nostack, preserves_flags))
    };
    base
}

/// Sets GS base of the running thread.
pub fn set_live_gs_base(base: u64) {
    // SAFETY: the libOS does not use GS.
    unsafe {
        core::arch::asm!("wrgsbase {}", in(reg) base, options(nomem, nostack, preserves_flags))
    }
}

/// Runs `new` in place of `old`, which must be the running thread; returns when something switches back.
///
/// The caller has made `new`'s address space the live one, keeps both alive until the switch is over, and runs
/// no context on two vCPUs.
pub fn switch(old: &Context, new: &Context) {
    if let Some(stack) = &old.stack {
        let here = core::ptr::from_ref(&old) as u64;
        assert!(
            here <= stack.top() && here > stack.0 as u64,
            "only the running thread switches away"
        );
        assert!(stack.intact(), "libOS stack overflow");
        old.record.fs_base.store(live_fs_base(), Ordering::Relaxed);
        old.record.gs_base.store(live_gs_base(), Ordering::Relaxed);
        // SAFETY: `old` is running here, so nobody else uses its vector state.
        unsafe { (*old.fpu.get()).save() };
    }
    if let Some(stack) = &new.stack {
        cpu::set_kstack_top(stack.top());
        set_live_fs_base(new.record.fs_base.load(Ordering::Relaxed));
        set_live_gs_base(new.record.gs_base.load(Ordering::Relaxed));
        // SAFETY: `new` does not run yet, so its vector state is only ours.
        unsafe { (*new.fpu.get()).restore() };
    }
    // SAFETY: `new.rsp` was left by an earlier switch away from it, or by `Context::user`.
    unsafe {
        entry::hal_switch(
            old.record.rsp.as_ptr(),
            new.record.rsp.load(Ordering::Relaxed),
        )
    }
}
