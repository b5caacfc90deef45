//! The libOS's last words. The VMM adds the backtrace: it reads the guest's stacks and has the symbols.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use husk_abi::boundary::config::LogLevel;
use husk_kernel::log;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    static PANICKING: AtomicBool = AtomicBool::new(false);
    if PANICKING.swap(true, Ordering::Relaxed) {
        crate::entry::give_up();
    }
    log::write_line(LogLevel::Error, "panic", format_args!("{info}"));
    crate::entry::give_up()
}
