//! From a built kernel to the first process.

use alloc::vec::Vec;

use husk_abi::linux::general::AT_FDCWD;
use husk_hal::cpu;

use crate::process::{self, Credentials, InitParts, exec};
use crate::{Errno, Kernel, Result, Thread, fs, log, sched};

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
    let mm = crate::mm::AddressSpace::new(kernel)?;
    let config = &kernel.config;
    let [bounding, effective, inheritable, permitted, ambient] = config.capabilities;
    let credentials = Credentials {
        uid: config.uid,
        euid: config.uid,
        suid: config.uid,
        fsuid: config.uid,
        gid: config.gid,
        egid: config.gid,
        sgid: config.gid,
        fsgid: config.gid,
        groups: config.additional_gids.clone(),
        cap_bounding: bounding,
        cap_effective: effective,
        cap_inheritable: inheritable,
        cap_permitted: permitted,
        cap_ambient: ambient,
        no_new_privileges: config.no_new_privileges,
        securebits: 0,
    };
    let parts = InitParts {
        mm,
        files: fs::FdTable::new(),
        fs: fs::FsContext::new_init(kernel, config.umask)?,
        credentials,
    };
    let thread = process::clone::init_process(kernel, parts)?;
    sched::start(&thread);
    Ok(())
}

/// What a thread does before its first user instruction; init loads its program first.
pub fn thread_started(t: &Thread) {
    process::thread_started(t);
    if t.process.pid == 1 && t.process.executable().is_empty() {
        match load_init(t) {
            Ok(()) => t.kernel.host.started(),
            Err(errno) => t.kernel.host.start_failed(errno),
        }
    }
}

fn load_init(t: &Thread) -> Result<()> {
    let config = &t.kernel.config;
    as_root(t, || {
        fs::set_up(t)?;
        fs::enter_directory(t, &config.cwd)
    })?;
    fs::seal_root(t.kernel)?;
    fs::open_streams(t)?;
    let name = config.args.first().ok_or(Errno::EINVAL)?;
    let mut failure = Errno::ENOENT;
    for path in candidates(name, &config.env) {
        match fs::open_for_exec(t, AT_FDCWD, &path, 0) {
            Ok(file) => {
                return exec::replace_program(
                    t,
                    file,
                    path,
                    config.args.clone(),
                    config.env.clone(),
                );
            }
            // As execvp(3): a file that may not be executed is worse news than one that is not there.
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(Errno::EACCES) => failure = Errno::EACCES,
            Err(errno) => return Err(errno),
        }
    }
    Err(failure)
}

/// Does `work` with every right there is: what the runtime does before it becomes the container's user.
fn as_root(t: &Thread, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let own = t.credentials();
    t.set_credentials(Credentials {
        fsuid: 0,
        fsgid: 0,
        cap_effective: u64::MAX,
        ..(*own).clone()
    });
    let done = work();
    t.set_credentials((*own).clone());
    done
}

/// The paths execvpe(3) tries for `name`.
fn candidates(name: &[u8], env: &[Vec<u8>]) -> Vec<Vec<u8>> {
    if name.contains(&b'/') || name.is_empty() {
        return alloc::vec![name.to_vec()];
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix(b"PATH="));
    let path = path.unwrap_or(b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    path.split(|byte| *byte == b':')
        .map(|dir| {
            let mut candidate = if dir.is_empty() {
                b".".to_vec()
            } else {
                dir.to_vec()
            };
            candidate.push(b'/');
            candidate.extend_from_slice(name);
            candidate
        })
        .collect()
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

#[cfg(test)]
mod tests {
    use super::candidates;

    #[test]
    fn path_search() {
        let env = [b"A=b".to_vec(), b"PATH=/bin::/x".to_vec()];
        let found = candidates(b"sh", &env);
        assert_eq!(
            found,
            [b"/bin/sh".to_vec(), b"./sh".to_vec(), b"/x/sh".to_vec()]
        );
        assert_eq!(candidates(b"./sh", &env), [b"./sh".to_vec()]);
    }
}
