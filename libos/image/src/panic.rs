//! The libOS's last words.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use husk_abi::boundary::config::LogLevel;
use husk_abi::boundary::layout::{IMAGE_BASE, IMAGE_SPAN};
use husk_kernel::log;

/// A list of return addresses, for the host to symbolise.
struct Backtrace;

impl core::fmt::Display for Backtrace {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut frame: u64;
        // SAFETY: reads a register; the libOS is built with frame pointers.
        unsafe { core::arch::asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack)) };
        for _ in 0..24 {
            if frame < husk_abi::boundary::layout::DIRECT_MAP || !frame.is_multiple_of(8) {
                break;
            }
            // SAFETY: an aligned upper-half address from the frame chain; a wild one ends as a nested
            // panic, which only rings the doorbell.
            let [next, rip] = unsafe { (frame as *const [u64; 2]).read() };
            if !(IMAGE_BASE..IMAGE_BASE + IMAGE_SPAN).contains(&rip) {
                break;
            }
            write!(f, " {rip:#x}")?;
            if next <= frame {
                break;
            }
            frame = next;
        }
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    static PANICKING: AtomicBool = AtomicBool::new(false);
    if PANICKING.swap(true, Ordering::Relaxed) {
        crate::entry::give_up();
    }
    log::write_line(LogLevel::Error, "panic", format_args!("{info}"));
    log::write_line(
        LogLevel::Error,
        "panic",
        format_args!("backtrace:{Backtrace}"),
    );
    crate::entry::give_up()
}
