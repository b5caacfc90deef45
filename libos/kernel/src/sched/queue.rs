//! Run queues and the switch from one thread to the next.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use husk_abi::boundary::doorbell;
use husk_abi::boundary::vcpu::{FREED_BLOCKS, NO_DEADLINE};
use husk_hal::{clock, cpu, doorbell as bell, thread};

use super::{SLEEPER_CREDIT_NS, SLICE_NS, WAKE_GRANULARITY_NS};
use crate::mm::{AddressSpace, Frames};
use crate::sync::SpinLock;
use crate::{Kernel, Thread};

/// What a vCPU schedules.
#[derive(Debug)]
pub struct Cpu {
    queue: SpinLock<VecDeque<Arc<Thread>>>,
    idle: thread::Context,
    /// The running thread; `None` while idle.
    current: SpinLock<Option<Arc<Thread>>>,
    /// The thread that was switched away from, until the next one has its stack.
    previous: SpinLock<Option<Arc<Thread>>>,
    /// The address space in CR3, kept alive while it is there; its thread may have ended.
    active_mm: SpinLock<Option<Arc<AddressSpace>>>,
    /// When the running thread's slice ends, if others wait.
    slice_end_ns: AtomicU64,
    /// Fair time of the thread that was furthest when it was put on this vCPU: where sleepers come back.
    fair_ns: AtomicU64,
    /// When the VMM will interrupt this vCPU, as last asked for.
    armed_ns: AtomicU64,
    /// Switches between threads.
    switches: AtomicU64,
}

/// All run queues.
#[derive(Debug)]
pub struct Scheduler {
    cpus: Vec<Cpu>,
    kernel: spin::Once<&'static Kernel>,
}

impl Scheduler {
    /// Empty queues for `count` vCPUs.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let cpu = || Cpu {
            queue: SpinLock::new(VecDeque::new()),
            idle: super::idle_context(),
            current: SpinLock::new(None),
            previous: SpinLock::new(None),
            active_mm: SpinLock::new(None),
            slice_end_ns: AtomicU64::new(0),
            fair_ns: AtomicU64::new(0),
            armed_ns: AtomicU64::new(NO_DEADLINE),
            switches: AtomicU64::new(0),
        };
        Self {
            cpus: (0..count).map(|_| cpu()).collect(),
            kernel: spin::Once::new(),
        }
    }

    /// Tells the scheduler whose it is.
    pub(crate) fn attach(&self, kernel: &'static Kernel) {
        self.kernel.call_once(|| kernel);
    }

    fn cpu(&self) -> &Cpu {
        &self.cpus[cpu::index()]
    }

    /// Number of vCPUs.
    #[must_use]
    pub fn cpu_count(&self) -> usize {
        self.cpus.len()
    }

    /// Thread switches so far, over all vCPUs.
    #[must_use]
    pub fn switches(&self) -> u64 {
        self.cpus
            .iter()
            .map(|cpu| cpu.switches.load(Ordering::Relaxed))
            .sum()
    }

    /// Threads that run or wait to run.
    #[must_use]
    pub fn runnable(&self) -> usize {
        self.cpus
            .iter()
            .map(|cpu| cpu.queue.lock().len() + usize::from(cpu.current.lock().is_some()))
            .sum()
    }

    /// Puts a thread that was woken or made on the queue. If it has had much less of the vCPU than the running
    /// one, that one gives way on its way back to user code; else it waits for the end of the slice.
    pub(super) fn enqueue(&self, thread: Arc<Thread>) {
        let cpu = self.cpu();
        let fair = cpu.fair_ns.load(Ordering::Relaxed);
        let waited = thread.sched.place(fair.saturating_sub(SLEEPER_CREDIT_NS));
        cpu.queue.lock().push_back(thread);
        let gives_way = cpu
            .current
            .lock()
            .as_ref()
            .is_some_and(|current| waited + WAKE_GRANULARITY_NS < current.sched.fair_ns());
        if gives_way {
            cpu.slice_end_ns.store(0, Ordering::Relaxed);
        }
        // The running thread looks at the slice and the timer on its way out.
        cpu::raise(cpu::WORK_RESCHEDULE);
    }

    /// Takes the thread that has had least of the vCPU; the one that waits longest among equals.
    fn pick(&self) -> Option<Arc<Thread>> {
        let mut queue = self.cpu().queue.lock();
        let best = (0..queue.len()).min_by_key(|index| queue[*index].sched.fair_ns())?;
        queue.remove(best)
    }

    /// Lets the best other thread run before this one, if there is one.
    pub(super) fn yield_to_others(&self, thread: &Thread) {
        let Some(next) = self.pick() else { return };
        self.cpu().queue.lock().push_back(thread.arc());
        self.leave_to(thread, Some(next));
    }

    pub(super) fn has_runnable(&self) -> bool {
        !self.cpu().queue.lock().is_empty()
    }

    /// Whether the running thread has used its slice and another waits.
    pub(super) fn slice_over(&self) -> bool {
        let cpu = self.cpu();
        self.has_runnable() && clock::now_ns() >= cpu.slice_end_ns.load(Ordering::Relaxed)
    }

    /// Asks the VMM for an interrupt when the next timer is due or the slice ends, if it would come too late.
    pub(super) fn arm_timer(&self) {
        let cpu = self.cpu();
        let kernel = self.kernel.get().expect("attached at boot");
        let mut wanted = kernel.timers.next_deadline();
        if self.has_runnable() {
            wanted = wanted.min(cpu.slice_end_ns.load(Ordering::Relaxed));
        }
        if wanted == NO_DEADLINE {
            return;
        }
        let now = clock::now_ns();
        let armed = cpu.armed_ns.load(Ordering::Relaxed);
        // An earlier interrupt is as good: it comes here again.
        if armed > now && armed <= wanted.max(now + SLICE_NS / 10) {
            return;
        }
        cpu.armed_ns.store(wanted.max(now + 1), Ordering::Relaxed);
        cpu::set_deadline(wanted.saturating_sub(now));
        bell::ring(doorbell::TIMER, 0);
    }

    /// Leaves the vCPU to the next thread, or to the idle context; returns when this one is chosen again.
    pub(super) fn switch_away(&self, thread: &Thread) {
        let next = self.pick();
        self.leave_to(thread, next);
    }

    fn leave_to(&self, thread: &Thread, next: Option<Arc<Thread>>) {
        let now = clock::now_ns();
        if let Some(next) = &next
            && core::ptr::eq(Arc::as_ptr(next), thread)
        {
            // Woken before it was gone.
            let slice_end = &self.cpu().slice_end_ns;
            slice_end.store(now + SLICE_NS, Ordering::Relaxed);
            return;
        }
        thread.sched.off_cpu(now);
        match next {
            Some(next) => self.run(&thread.context, next, now),
            None => {
                let cpu = self.cpu();
                *cpu.previous.lock() = cpu.current.lock().take();
                thread::switch(&thread.context, &cpu.idle);
            }
        }
        self.finish_switch();
    }

    /// From the idle context: runs a thread if there is one; returns when the vCPU is idle again.
    pub(super) fn run_next_from_idle(&self) -> bool {
        let Some(next) = self.pick() else {
            return false;
        };
        self.run(&self.cpu().idle, next, clock::now_ns());
        self.finish_switch();
        true
    }

    fn run(&self, from: &thread::Context, next: Arc<Thread>, now: u64) {
        let cpu = self.cpu();
        cpu.switches.fetch_add(1, Ordering::Relaxed);
        cpu.slice_end_ns.store(now + SLICE_NS, Ordering::Relaxed);
        next.sched.on_cpu(now);
        cpu.fair_ns
            .fetch_max(next.sched.fair_ns(), Ordering::Relaxed);
        self.activate_mm_of(&next);
        // Nothing on this stack may own the next thread: if this one is dead, it never comes back to let go.
        drop(cpu::set_current(next.clone()));
        let old = cpu.current.lock().replace(next);
        if old.is_some() {
            *cpu.previous.lock() = old;
        }
        cpu::raise(cpu::WORK_THREAD | cpu::WORK_RESCHEDULE);
        cpu::with_current(|next: &Thread| thread::switch(from, &next.context));
    }

    /// Makes `thread`'s address space the vCPU's. A thread that is exiting keeps whatever is active.
    pub fn activate_mm_of(&self, thread: &Thread) {
        let Some(mm) = thread.mm_opt() else { return };
        mm.activate();
        let root = mm.root(cpu::index()).gpa();
        let record = thread.context.record();
        record.root_gpa.store(root, Ordering::Relaxed);
        let old = self.cpu().active_mm.lock().replace(mm);
        // Freed, if it was the last reference, now that CR3 is another's.
        drop(old);
    }

    pub(super) fn finish_switch(&self) {
        let previous = self.cpu().previous.lock().take();
        drop(previous);
    }

    /// Sleeps in the VMM until something happens or the next timer is due.
    pub(super) fn wait_for_event(&self) {
        let kernel = self.kernel.get().expect("attached at boot");
        let deadline = kernel.timers.next_deadline();
        let now = clock::now_ns();
        crate::log::flush();
        self.cpu().armed_ns.store(NO_DEADLINE, Ordering::Relaxed);
        give_memory_back(&kernel.frames);
        let wait = if deadline == NO_DEADLINE {
            deadline
        } else {
            deadline.saturating_sub(now)
        };
        cpu::set_deadline(wait);
        bell::ring(doorbell::IDLE, 0);
    }
}

/// Gives free memory back to the host: there is nothing better to do. Others cannot have it meanwhile, so this does not
/// sleep.
fn give_memory_back(frames: &Frames) {
    let mut blocks = [0; FREED_BLOCKS];
    loop {
        let count = frames.offer(&mut blocks);
        if count == 0 {
            return;
        }
        let blocks = &blocks[..count];
        cpu::set_freed_blocks(blocks);
        cpu::set_deadline(0);
        bell::ring(doorbell::IDLE, count as u32);
        frames.given_back(blocks);
    }
}
