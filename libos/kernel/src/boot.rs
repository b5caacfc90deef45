//! From a built kernel to the first process.

use husk_hal::cpu;

use crate::process::{self, outside};
use crate::{Kernel, Result, Thread, fs, log, sched};

/// Starts the container: mounts its root, makes init, and becomes the vCPU's idle loop.
pub fn start(kernel: &'static Kernel) -> ! {
    kernel.attach();
    match start_init(kernel) {
        Ok(()) => log!(Info, "boot", "init is ready"),
        Err(errno) => {
            log!(Error, "boot", "cannot make the first process: {errno}");
            kernel.host.start_failed(errno);
        }
    }
    sched::idle(kernel)
}

fn start_init(kernel: &'static Kernel) -> Result<()> {
    fs::mount_initial(kernel)?;
    outside::start(
        kernel,
        kernel.host.console.clone(),
        kernel.config.process.clone(),
    )?;
    kernel.host.control.open(&kernel.frames)
}

/// What a thread does before its first user instruction.
pub fn thread_started(t: &Thread) {
    process::thread_started(t);
    outside::thread_started(t);
}

/// On the way back to user code with work to do: what concerns the vCPU, then signals.
pub fn exit_work(t: &Thread) {
    loop {
        let work = cpu::take_work();
        if work == 0 {
            return;
        }
        sched::exit_work(t, work);
        if work & cpu::WORK_THREAD != 0 {
            sched::rseq::on_return(t);
            crate::signal::deliver(t);
        }
    }
}
