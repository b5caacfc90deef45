//! What the host asks of the running container (`abi::boundary::control`).

use husk_abi::boundary::config::ProcessConfig;
use husk_abi::boundary::control::{Limits, Obstacle, ProcessInfo, Report, Request, Usage};

use crate::process::outside;
use crate::signal::{self, Info};
use crate::{Errno, Kernel, Process, Result};

/// Serves a request. Does not sleep: it may be served where no thread runs.
pub fn handle(kernel: &'static Kernel, request: Request) {
    let host = &kernel.host;
    match request {
        Request::Start(session, config) => start(kernel, session, config),
        Request::Signal(session, signo) if (1..=64).contains(&signo) => {
            let processes = kernel.tasks.processes();
            let wanted = |process: &&alloc::sync::Arc<Process>| is_of(process, session);
            if let Some(process) = processes.iter().find(wanted) {
                let _ = signal::send_process(process, &Info::from_host(signo));
            }
        }
        Request::TerminalSignal(session, signo) if (1..=64).contains(&signo) => {
            if let Some(console) = host.console_of(session) {
                console.terminal.signal(kernel, signo);
            }
        }
        Request::Signal(..) | Request::TerminalSignal(..) => {}
        Request::Resize(session, size) => {
            if let Some(console) = host.console_of(session) {
                console.terminal.resize(kernel, size);
            }
        }
        Request::Released(session) => {
            host.release_session(session);
            host.control.report(&Report::Released(session));
        }
        Request::List(ticket) => {
            let processes = kernel.tasks.processes();
            let list = processes.iter().map(|process| info(process)).collect();
            host.control.report(&Report::Processes(ticket, list));
        }
        Request::Kill(ticket, signo, all) => {
            let processes = kernel.tasks.processes();
            let wanted = |process: &&alloc::sync::Arc<Process>| all || is_of(process, 0);
            if (1..=64).contains(&signo) {
                for process in processes.iter().filter(wanted) {
                    let _ = signal::send_process(process, &Info::from_host(signo));
                }
            }
            host.control.report(&Report::Killed(ticket));
        }
        Request::Settle(ticket) => {
            kernel.fs.behind.flush(kernel);
            host.control.report(&Report::Settled(ticket));
            // Nothing more is written until whoever asked has looked, or frozen the guest.
            host.stand_still();
        }
        Request::Usage(ticket) => {
            let usage = usage(kernel);
            host.control.report(&Report::Usage(ticket, usage));
        }
        Request::Update(ticket, limits) => {
            let done = update(kernel, &limits).map_err(|errno| errno.code());
            host.control.report(&Report::Updated(ticket, done));
        }
    }
}

fn is_of(process: &Process, session: u32) -> bool {
    let outside = process.outside.as_ref();
    outside.is_some_and(|outside| outside.session == session)
}

fn start(kernel: &'static Kernel, session: u32, config: ProcessConfig) {
    let host = &kernel.host;
    // What was done outside before this process was asked for is seen by it.
    kernel.fs.distrust();
    let started = host
        .open_session(kernel, session)
        .and_then(|console| outside::start(kernel, console, config));
    if let Err(errno) = started {
        let failed = Report::Failed(session, errno.code(), Obstacle::Resources);
        for report in [failed, Report::Ended(session, 0), Report::Closed(session)] {
            host.control.report(&report);
        }
    }
}

fn info(process: &Process) -> ProcessInfo {
    let thread = process.any_thread();
    let name = thread.as_ref().map(|thread| thread.name());
    let uid = thread.map(|thread| thread.credentials().uid);
    ProcessInfo {
        pid: process.pid,
        ppid: process.ppid(),
        uid: uid.unwrap_or(0),
        age_ns: husk_hal::clock::now_ns().saturating_sub(process.start_ns()),
        cpu_ns: process.cpu_ns(),
        name: name.unwrap_or_default(),
        executable: process.executable(),
        arguments: process.arguments().to_vec(),
    }
}

fn usage(kernel: &Kernel) -> Usage {
    let memory = kernel.frames.usage();
    Usage {
        memory_bytes: memory.used_bytes,
        memory_limit_bytes: memory.limit_bytes,
        tasks: kernel.tasks.count() as u64,
        tasks_limit: kernel.tasks.limit(),
        oom_kills: kernel.host.oom_kills(),
    }
}

/// Changes limits of the container.
fn update(kernel: &'static Kernel, limits: &Limits) -> Result<()> {
    if let Some(bytes) = limits.memory_bytes {
        // As on Linux, a limit above what there is limits nothing.
        let bytes = bytes.min(kernel.frames.ram_bytes());
        if bytes < kernel.frames.usage().used_bytes {
            return Err(Errno::EBUSY);
        }
        kernel.frames.set_limit(bytes);
    }
    if let Some(pids) = limits.pids {
        kernel.tasks.set_limit(pids);
    }
    Ok(())
}
