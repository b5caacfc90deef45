//! The first instructions of a vCPU.

use alloc::boxed::Box;
use core::arch::global_asm;

use husk_abi::boundary::{config, doorbell};
use husk_hal::{boot, phys};

use husk_kernel::{Kernel, log};

use crate::heap;

global_asm!(
    r#"
    .section .text.entry, "ax"
    .globl _start
_start:
    // rdi = boot info, rsi = vCPU index, rsp = top of the idle stack.
    xor %ebp, %ebp
    call image_start
    ud2
    "#,
    options(att_syntax)
);

#[unsafe(no_mangle)]
extern "C" fn image_start(boot_info: u64, cpu: u64) -> ! {
    // SAFETY: called once by each vCPU, first of all, with what the VMM passed.
    unsafe { boot::init(boot_info, cpu as usize) };
    let info = boot::info();
    assert!(cpu == 0, "one vCPU runs; the others come with SMP");
    log::init(info.log.gpa);

    let mut encoded = alloc::vec![0; info.config.len as usize];
    phys::read_gpa(info.config.gpa, &mut encoded);
    let config = match config::decode(&encoded) {
        Ok(config) => config,
        Err(error) => panic!("the VMM's configuration does not decode: {error}"),
    };
    log::set_levels(&config.log_levels);

    let kernel: &'static Kernel = Box::leak(Box::new(Kernel::new(info, config, husk_vdso::IMAGE)));
    heap::grow_from(kernel);
    husk_kernel::inspect::announce(info.host_events_gpa);
    husk_kernel::start(kernel)
}

/// Tells the VMM that the libOS cannot go on.
pub fn give_up() -> ! {
    loop {
        husk_hal::doorbell::ring(doorbell::PANIC, 0);
    }
}
