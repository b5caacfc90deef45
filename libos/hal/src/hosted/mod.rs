//! The same interface for host-side tests of the kernel: no vCPU, user addresses are host pointers.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    clippy::missing_errors_doc,
    reason = "see x86_64/"
)]

pub mod user;

// The host is the same kind of CPU.
#[path = "../x86_64/cpuid.rs"]
pub mod cpuid;

pub mod boot {
    pub fn fast_entry() -> u64 {
        0xffff_ffff_8020_0000
    }

    pub fn cpuid_entry_slot() -> u64 {
        0xffff_ffff_8030_0008
    }

    pub fn fast_entry_slot() -> u64 {
        0xffff_ffff_8030_0000
    }
}

pub mod clock {
    use core::sync::atomic::{AtomicI64, AtomicU64, Ordering};
    static NOW: AtomicU64 = AtomicU64::new(1_000_000_000);
    static WALL: AtomicI64 = AtomicI64::new(1_700_000_000_000_000_000);

    pub fn now_ns() -> u64 {
        NOW.load(Ordering::Relaxed)
    }

    pub fn advance_ns(by: u64) {
        NOW.fetch_add(by, Ordering::Relaxed);
    }

    pub fn tsc_khz() -> u64 {
        2_000_000
    }

    pub fn wall_offset_ns() -> i64 {
        WALL.load(Ordering::Relaxed)
    }

    pub fn wall_clock_address() -> u64 {
        0xffff_8080_0000_1000
    }
}

pub mod cpu {
    use core::sync::atomic::{AtomicU32, Ordering};
    pub const WORK_INTERRUPT: u32 = 1;
    pub const WORK_RESCHEDULE: u32 = 2;
    pub const WORK_THREAD: u32 = 4;
    static WORK: AtomicU32 = AtomicU32::new(0);

    pub fn index() -> usize {
        0
    }

    pub fn hwcap() -> u32 {
        0x0f8b_fbff
    }

    pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
        let result = core::arch::x86_64::__cpuid_count(leaf, subleaf);
        [result.eax, result.ebx, result.ecx, result.edx]
    }

    pub fn raise(work: u32) {
        WORK.fetch_or(work, Ordering::Relaxed);
    }

    pub fn take_work() -> u32 {
        WORK.swap(0, Ordering::Relaxed)
    }

    pub fn acknowledge_interrupt() {}

    pub fn shared_started() {}

    pub fn set_deadline(_deadline_in_ns: u64) {}

    pub fn set_freed_blocks(_blocks: &[u64]) {}

    pub fn set_current<T: Send + Sync + 'static>(
        _thread: std::sync::Arc<T>,
    ) -> Option<std::sync::Arc<T>> {
        None
    }

    pub fn with_current<T: 'static, R>(_f: impl FnOnce(&T) -> R) -> Option<R> {
        None
    }
}

pub mod doorbell {
    pub fn ring(_port: u16, _value: u32) {}
}

pub mod entropy {
    use std::hash::{BuildHasher, RandomState};

    pub fn seed() -> [u64; 4] {
        [1, 2, 3, 4].map(|word| RandomState::new().hash_one(word))
    }
}

pub mod fpu {
    #[derive(Debug)]
    pub struct State(Vec<u8>);

    pub fn size_bytes() -> usize {
        832
    }

    pub fn features() -> u64 {
        7
    }

    impl State {
        pub fn initial() -> Self {
            Self(vec![0; size_bytes()])
        }
        pub fn of_running() -> Self {
            Self::initial()
        }
        pub fn save(&mut self) {}
        pub fn restore(&self) {}
        pub fn bytes(&self) -> &[u8] {
            &self.0
        }
        pub fn set(&mut self, bytes: &[u8]) {
            let len = bytes.len().min(self.0.len());
            self.0[..len].copy_from_slice(&bytes[..len]);
        }
    }
}

pub mod mmu {
    use crate::phys::Frame;
    pub fn init_root(_root: Frame, _cpu: usize) {}
    pub fn boot_root(_cpu: usize) -> Frame {
        Frame::new(0)
    }
    pub fn activate(_root: Frame) {}
    pub fn flush_page(_address: u64) {}
}

pub mod thread {
    use husk_abi::boundary::inspect::ThreadRecord;

    use super::fpu;
    use crate::trap::{LiveFrame, TrapFrame};

    #[derive(Debug, Default)]
    pub struct Context(ThreadRecord);

    impl Context {
        pub fn user(
            _frame: &TrapFrame,
            _fs_base: u64,
            _gs_base: u64,
            _fpu: fpu::State,
        ) -> Option<Self> {
            Some(Self::default())
        }
        pub fn idle() -> Self {
            Self::default()
        }
        pub fn record(&self) -> &ThreadRecord {
            &self.0
        }
        pub fn user_frame(&self) -> &LiveFrame {
            unimplemented!("no vCPU")
        }
    }

    pub fn live_fs_base() -> u64 {
        0
    }
    pub fn set_live_fs_base(_base: u64) {}
    pub fn live_gs_base() -> u64 {
        0
    }
    pub fn set_live_gs_base(_base: u64) {}

    pub fn switch(_old: &Context, _new: &Context) {
        panic!("a host-side test tried to block");
    }
}
