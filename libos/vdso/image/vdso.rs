//! The code every process maps (`vdso(7)`): clocks and the CPU number without a system call.
//!
//! It runs as part of the program, so it needs no privilege: kvmclock's page and the per-CPU block lie at fixed
//! addresses that any code of the guest may read, and the libOS writes the wall clock's address into the slot below
//! when it loads the image. Whatever the image cannot answer goes to the system call.
#![no_std]
#![allow(dead_code, reason = "the included files define more than is used here")]

#[path = "boundary.rs"]
mod boundary;

use core::arch::{asm, global_asm};

use boundary::clock::{PvclockVcpuTime, VDSO_WALL_CLOCK_SLOT, WallClock};
use boundary::layout::{PERCPU_INDEX, PERCPU_PVCLOCK};

const NSEC_PER_SEC: u64 = 1_000_000_000;

const CLOCK_REALTIME: i32 = 0;
const CLOCK_MONOTONIC: i32 = 1;
const CLOCK_MONOTONIC_RAW: i32 = 4;
const CLOCK_REALTIME_COARSE: i32 = 5;
const CLOCK_MONOTONIC_COARSE: i32 = 6;
const CLOCK_BOOTTIME: i32 = 7;
const CLOCK_TAI: i32 = 11;

const SYS_GETTIMEOFDAY: i64 = 96;
const SYS_TIME: i64 = 201;
const SYS_CLOCK_GETTIME: i64 = 228;
const SYS_CLOCK_GETRES: i64 = 229;

/// Where the libOS writes the address of the wall clock.
#[unsafe(link_section = ".rodata.wall_clock")]
static WALL_CLOCK: u64 = VDSO_WALL_CLOCK_SLOT;

/// `struct timespec`, `struct timeval`.
#[repr(C)]
pub struct Time {
    seconds: i64,
    fraction: i64,
}

// The unprefixed names are what programs find that look for the C library's own.
global_asm!(
    "
    .macro alias name
    .weak \\name
    .type \\name, @function
    .set \\name, __vdso_\\name
    .endm
    alias clock_gettime
    alias gettimeofday
    alias time
    alias clock_getres
    alias getcpu

    # Linux's own vDSO carries its version like this.
    .section .note.linux, \"a\", @note
    .balign 4
    .long 6, 4, 0
    .asciz \"Linux\"
    .balign 4
    .long {version}
    .previous
    ",
    // LINUX_VERSION_CODE of 6.12.0.
    version = const 6 << 16 | 12 << 8,
);

/// Nanoseconds of `CLOCK_MONOTONIC`, or `None` if the TSC cannot be trusted here.
#[inline(always)]
fn monotonic() -> Option<u64> {
    // SAFETY: every address space maps the running vCPU's kvmclock page here; all fields are atomics.
    let page = unsafe { &*(PERCPU_PVCLOCK as *const PvclockVcpuTime) };
    let reading = page.read(|| {
        let (low, high): (u64, u64);
        // SAFETY: reads a counter; the fence keeps it from being read before the page.
        unsafe {
            asm!("lfence", "rdtsc", out("rax") low, out("rdx") high, options(nostack, preserves_flags));
        }
        high << 32 | low
    });
    reading.is_stable.then_some(reading.ns)
}

/// The wall clock, or `None` if the libOS has not said where it is.
#[inline(always)]
fn wall_clock() -> Option<&'static WallClock> {
    // SAFETY: a static; volatile because the libOS changes it when it loads the image.
    let address = unsafe { (&raw const WALL_CLOCK).read_volatile() };
    // The libOS's addresses are all in the upper half; the slot's own value is not.
    if address.cast_signed() >= 0 {
        return None;
    }
    // SAFETY: the libOS wrote the address of the page the VMM keeps; all fields are atomics.
    Some(unsafe { &*(address as *const WallClock) })
}

/// Nanoseconds since the epoch, or `None` if the image cannot tell.
#[inline(never)]
fn realtime() -> Option<u64> {
    read_clock(CLOCK_REALTIME)
}

#[inline(always)]
fn read_clock(clock: i32) -> Option<u64> {
    let wall = match clock {
        CLOCK_REALTIME | CLOCK_REALTIME_COARSE | CLOCK_TAI => Some(wall_clock()?),
        CLOCK_MONOTONIC | CLOCK_MONOTONIC_RAW | CLOCK_MONOTONIC_COARSE | CLOCK_BOOTTIME => None,
        _ => return None,
    };
    let now = monotonic()?;
    Some(match wall {
        Some(wall) => now.saturating_add_signed(wall.read()),
        None => now,
    })
}

/// The system call, for what the image cannot answer.
#[cold]
#[inline(never)]
fn syscall(nr: i64, first: u64, second: u64) -> i64 {
    let result;
    // SAFETY: a system call that writes at most where its arguments point, which is the caller's wish; the kernel
    // clobbers rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") nr => result,
            in("rdi") first,
            in("rsi") second,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// `clock_gettime(2)`.
///
/// # Safety
/// `time` must be writable or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __vdso_clock_gettime(clock: i32, time: *mut Time) -> i32 {
    if !time.is_null()
        && let Some(now) = read_clock(clock)
    {
        // SAFETY: the caller's promise.
        unsafe {
            time.write(Time {
                seconds: (now / NSEC_PER_SEC) as i64,
                fraction: (now % NSEC_PER_SEC) as i64,
            });
        }
        return 0;
    }
    syscall(SYS_CLOCK_GETTIME, clock as u64, time as u64) as i32
}

/// `clock_getres(2)`.
///
/// # Safety
/// `resolution` must be writable or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __vdso_clock_getres(clock: i32, resolution: *mut Time) -> i32 {
    match clock {
        CLOCK_REALTIME
        | CLOCK_REALTIME_COARSE
        | CLOCK_TAI
        | CLOCK_MONOTONIC
        | CLOCK_MONOTONIC_RAW
        | CLOCK_MONOTONIC_COARSE
        | CLOCK_BOOTTIME => {
            if !resolution.is_null() {
                // SAFETY: the caller's promise.
                unsafe {
                    resolution.write(Time {
                        seconds: 0,
                        fraction: 1,
                    });
                }
            }
            0
        }
        _ => syscall(SYS_CLOCK_GETRES, clock as u64, resolution as u64) as i32,
    }
}

/// `gettimeofday(2)`.
///
/// # Safety
/// `time` and `zone` must be writable or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __vdso_gettimeofday(time: *mut Time, zone: *mut [i32; 2]) -> i32 {
    let Some(now) = realtime() else {
        return syscall(SYS_GETTIMEOFDAY, time as u64, zone as u64) as i32;
    };
    if !time.is_null() {
        // SAFETY: the caller's promise.
        unsafe {
            time.write(Time {
                seconds: (now / NSEC_PER_SEC) as i64,
                fraction: (now % NSEC_PER_SEC / 1000) as i64,
            });
        }
    }
    if !zone.is_null() {
        // SAFETY: the caller's promise.
        unsafe { zone.write([0, 0]) };
    }
    0
}

/// `time(2)`.
///
/// # Safety
/// `seconds` must be writable or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __vdso_time(seconds: *mut i64) -> i64 {
    let Some(now) = realtime() else {
        return syscall(SYS_TIME, seconds as u64, 0);
    };
    let now = (now / NSEC_PER_SEC) as i64;
    if !seconds.is_null() {
        // SAFETY: the caller's promise.
        unsafe { seconds.write(now) };
    }
    now
}

/// `getcpu(2)`. There is one NUMA node.
///
/// # Safety
/// `cpu` and `node` must be writable or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __vdso_getcpu(cpu: *mut u32, node: *mut u32, _cache: *mut u8) -> i32 {
    if !cpu.is_null() {
        // SAFETY: every address space maps the running vCPU's block here; the index is written once at boot. The
        // rest is the caller's promise.
        unsafe { cpu.write((PERCPU_INDEX as *const u64).read_volatile() as u32) };
    }
    if !node.is_null() {
        // SAFETY: the caller's promise.
        unsafe { node.write(0) };
    }
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
