//! The vCPU's own block, at one fixed address: same address, other memory on each vCPU.
//!
//! Neither GS nor FS belongs to the libOS (a process may change both without a trap), so the block is
//! found by address: every address space maps the running vCPU's region at `layout::PERCPU`.

use alloc::sync::Arc;
use core::any::TypeId;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use husk_abi::boundary::layout::{PERCPU_BLOCK, PERCPU_INDEX, PERCPU_SHARED};
use husk_abi::boundary::vcpu::VcpuShared;

/// Work flag: an interrupt arrived while the libOS ran.
pub const WORK_INTERRUPT: u32 = 1;
/// Work flag: another thread should run.
pub const WORK_RESCHEDULE: u32 = 2;
/// Work flag: the current thread has something to do before it returns (signals, exit).
pub const WORK_THREAD: u32 = 4;

/// The block. `entry.rs` knows the offsets of the first fields.
#[repr(C)]
pub(super) struct CpuBlock {
    /// 0: where the next entry from user code starts to push.
    pub kstack_top: AtomicU64,
    /// 8: `WORK_*`.
    pub work: AtomicU32,
    /// 12
    pub pad: u32,
    /// 16: scratch of the trap entry: rax, rcx, r11, rsp.
    pub scratch: [u64; 4],
    /// 48: CR2 of the page fault being taken.
    pub cr2: u64,
    /// 56: index of this vCPU.
    pub index: u64,
    /// 64: the kernel's current thread.
    pub current: AtomicPtr<()>,
}

pub(super) const KSTACK_TOP: u64 = PERCPU_BLOCK;
pub(super) const WORK: u64 = PERCPU_BLOCK + 8;
pub(super) const SCRATCH_RAX: u64 = PERCPU_BLOCK + 16;
pub(super) const SCRATCH_RCX: u64 = PERCPU_BLOCK + 24;
pub(super) const SCRATCH_R11: u64 = PERCPU_BLOCK + 32;
pub(super) const SCRATCH_RSP: u64 = PERCPU_BLOCK + 40;
pub(super) const CR2: u64 = PERCPU_BLOCK + 48;

const _: () = {
    assert!(core::mem::offset_of!(CpuBlock, work) == 8);
    assert!(core::mem::offset_of!(CpuBlock, scratch) == 16);
    assert!(core::mem::offset_of!(CpuBlock, cr2) == 48);
    assert!(PERCPU_BLOCK + core::mem::offset_of!(CpuBlock, index) as u64 == PERCPU_INDEX);
};

pub(super) fn block() -> &'static CpuBlock {
    // SAFETY: every address space maps this vCPU's block here, zeroed by the VMM before the first
    // instruction; fields shared with the assembly are atomics or written once at boot.
    unsafe { &*(PERCPU_BLOCK as *const CpuBlock) }
}

/// Index of the vCPU that runs this.
#[must_use]
pub fn index() -> usize {
    block().index as usize
}

/// CPUID leaf 1, edx: what `AT_HWCAP` says. Asked once, because it traps.
#[must_use]
pub fn hwcap() -> u32 {
    static EDX: spin::Once<u32> = spin::Once::new();
    *EDX.call_once(|| cpuid(1, 0)[3])
}

/// Asks the CPU: eax, ebx, ecx and edx for a leaf and subleaf. Leaves the guest: dear.
///
/// Asked at CPL 0: where the VMM can have it so, `cpuid` faults at CPL 3, so that programs' can be answered from memory.
#[must_use]
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let mut registers = [0; 4];
    // SAFETY: stores 16 bytes where it is told to; the gate keeps all other registers.
    unsafe { super::entry::hal_cpuid(leaf, subleaf, &raw mut registers) };
    registers
}

/// Raises work flags of this vCPU.
pub fn raise(work: u32) {
    block().work.fetch_or(work, Ordering::Relaxed);
}

/// Takes and clears this vCPU's work flags.
#[must_use]
pub fn take_work() -> u32 {
    block().work.swap(0, Ordering::Relaxed)
}

/// The page this vCPU shares with its VMM thread.
#[must_use]
pub fn shared() -> &'static VcpuShared {
    // SAFETY: mapped like the block; all fields are atomics.
    unsafe { &*(PERCPU_SHARED as *const VcpuShared) }
}

/// The libOS has seen the interrupt that raised [`WORK_INTERRUPT`] (or woke it from idling): the VMM may
/// inject the next. To be called before looking at what it may have been about.
pub fn acknowledge_interrupt() {
    shared().interrupt_in_service.store(0, Ordering::SeqCst);
}

/// Sets what the `TIMER` and `IDLE` doorbells read: nanoseconds from now, or `NO_DEADLINE`.
pub fn set_deadline(deadline_in_ns: u64) {
    shared()
        .deadline_ns
        .store(deadline_in_ns, Ordering::Release);
}

/// Says which blocks the next `IDLE` doorbell gives back; the rest of more than `FREED_BLOCKS` are left out.
pub fn set_freed_blocks(blocks: &[u64]) {
    for (slot, gpa) in shared().freed_blocks.iter().zip(blocks) {
        slot.store(*gpa, Ordering::Release);
    }
}

/// Tells the VMM that the container's first process is about to run.
pub fn shared_started() {
    shared().started.store(1, Ordering::Release);
}

static CURRENT_TYPE: spin::Once<TypeId> = spin::Once::new();

/// Makes `thread` what [`with_current`] sees on this vCPU; returns what was there before.
///
/// # Panics
/// If another type was used before: one program, one type of thread.
pub fn set_current<T: Send + Sync + 'static>(thread: Arc<T>) -> Option<Arc<T>> {
    let id = CURRENT_TYPE.call_once(TypeId::of::<T>);
    assert!(*id == TypeId::of::<T>(), "one type of thread");
    let new = Arc::into_raw(thread).cast_mut().cast();
    let old = block().current.swap(new, Ordering::Relaxed).cast::<T>();
    // SAFETY: what is in the slot came from `Arc::into_raw` of this type, and leaves the slot here.
    (!old.is_null()).then(|| unsafe { Arc::from_raw(old) })
}

/// Calls `f` with the thread that is current on this vCPU; `None` before the first [`set_current`].
///
/// `f` may switch to other threads: a thread object lives at least as long as its stack, on which `f` runs.
pub fn with_current<T: 'static, R>(f: impl FnOnce(&T) -> R) -> Option<R> {
    if CURRENT_TYPE.get() != Some(&TypeId::of::<T>()) {
        return None;
    }
    let pointer = block().current.load(Ordering::Relaxed).cast::<T>();
    // SAFETY: the slot holds a `T` of this very type, kept alive by the scheduler while its stack is used.
    unsafe { pointer.as_ref() }.map(f)
}

/// The thread that is current on this vCPU, for the path every system call takes.
///
/// # Safety
/// `T` must be the type that was given to [`set_current`], and a thread must be current. The reference must not
/// be kept beyond the stack of that thread.
#[inline]
#[must_use]
pub unsafe fn current_unchecked<'a, T>() -> &'a T {
    // SAFETY: as in `with_current`; the caller vouches for the type.
    unsafe { &*block().current.load(Ordering::Relaxed).cast::<T>() }
}

/// Whether a thread with a stack of its own has ever run on this vCPU.
pub(super) fn has_thread() -> bool {
    block().kstack_top.load(Ordering::Relaxed) != 0
}

/// Sets where entries from user code push: the top of the current thread's stack.
pub(super) fn set_kstack_top(top: u64) {
    block().kstack_top.store(top, Ordering::Relaxed);
}
