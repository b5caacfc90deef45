//! Processes that are started from outside: init, and those `exec` asks for.
//!
//! Each is a session: it has the streams it came with, no parent, a session and a group of its own, and its end is told to
//! the host. Its thread loads the program itself, the first time it runs.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use husk_abi::boundary::config::{ProcessConfig, StreamKind};
use husk_abi::boundary::control::{Obstacle, Report};
use husk_abi::linux::general::AT_FDCWD;

use super::{Credentials, InitParts, clone, exec, exit};
use crate::fs::{self, FdTable, FsContext};
use crate::host::Console;
use crate::mm::AddressSpace;
use crate::sync::SpinLock;
use crate::{Errno, Kernel, Result, Thread, log, sched};

/// What a process started from outside has of its start.
#[derive(Debug)]
pub struct Outside {
    /// Its session at the host; 0 for init.
    pub session: u32,
    console: Arc<Console>,
    /// Taken by its thread.
    config: SpinLock<Option<Box<ProcessConfig>>>,
}

fn credentials(config: &ProcessConfig) -> Credentials {
    let [bounding, effective, inheritable, permitted, ambient] = config.capabilities;
    Credentials {
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
    }
}

/// Makes a process as `config` says, with the streams of `console`, and lets it run.
///
/// # Errors
/// `EAGAIN` if there are too many processes, `ENOMEM`.
pub fn start(kernel: &'static Kernel, console: Arc<Console>, config: ProcessConfig) -> Result<()> {
    if kernel.tasks.count() as u64 >= kernel.tasks.limit() {
        return Err(Errno::EAGAIN);
    }
    let parts = InitParts {
        mm: AddressSpace::new(kernel)?,
        files: FdTable::new(),
        fs: FsContext::new_init(kernel, config.umask)?,
        credentials: credentials(&config),
        rlimits: config.rlimits.clone(),
        oom_score_adj: config.oom_score_adj,
        outside: Some(Outside {
            session: console.session,
            console: console.clone(),
            config: SpinLock::new(None),
        }),
    };
    let thread = clone::process_from_outside(kernel, parts)?;
    if config.streams.contains(&StreamKind::Terminal) {
        kernel.host.number_terminal(kernel, &console);
        console.becomes_terminal(thread.process.pid, config.window);
        thread.process.controlling.set(Some(console.clone()));
    }
    if let Some(outside) = &thread.process.outside {
        *outside.config.lock() = Some(Box::new(config));
    }
    sched::start(&thread);
    Ok(())
}

/// Loads the program of a process that was started from outside, when its thread first runs; all others have theirs.
pub fn thread_started(t: &Thread) {
    let Some(outside) = &t.process.outside else {
        return;
    };
    let Some(config) = outside.config.lock().take() else {
        return;
    };
    let is_init = outside.session == 0;
    let host = &t.kernel.host;
    match load(t, &outside.console, &config, is_init) {
        Ok(()) if is_init => host.started(),
        Ok(()) => host
            .control
            .report(&Report::Started(outside.session, t.process.pid)),
        Err((errno, _)) if is_init => host.start_failed(errno),
        Err((errno, obstacle)) => {
            log!(Debug, "process", "exec: {obstacle:?}: {errno}");
            host.control
                .report(&Report::Failed(outside.session, errno.code(), obstacle));
            drop(config);
            exit::exit_thread(t, 0);
        }
    }
}

fn load(
    t: &Thread,
    console: &Arc<Console>,
    config: &ProcessConfig,
    is_init: bool,
) -> Result<(), (Errno, Obstacle)> {
    let because = |obstacle| move |errno| (errno, obstacle);
    if is_init {
        as_root(t, || fs::set_up(t)).map_err(because(Obstacle::Resources))?;
    } else {
        // First: whatever fails later, closing them tells the host that they are done with.
        open_descriptors(t, console, config).map_err(because(Obstacle::Resources))?;
    }
    as_root(t, || fs::enter_directory(t, &config.cwd, is_init))
        .map_err(because(Obstacle::Directory))?;
    if is_init {
        fs::seal_root(t.kernel).map_err(because(Obstacle::Resources))?;
        open_descriptors(t, console, config).map_err(because(Obstacle::Resources))?;
    }
    check_user(t.kernel, config).map_err(because(Obstacle::User))?;
    execute(t, config).map_err(because(Obstacle::Program))
}

/// Whether all its ids are in the container's user namespace.
fn check_user(kernel: &Kernel, config: &ProcessConfig) -> Result<()> {
    kernel.check_uid(config.uid)?;
    kernel.check_gid(config.gid)?;
    let mut groups = config.additional_gids.iter();
    groups.try_for_each(|gid| kernel.check_gid(*gid))
}

/// What it has open when its program begins.
fn open_descriptors(t: &Thread, console: &Arc<Console>, config: &ProcessConfig) -> Result<()> {
    fs::open_streams(t, console, config)?;
    fs::open_handed(t, console.session, config)
}

fn execute(t: &Thread, config: &ProcessConfig) -> Result<()> {
    let name = config.args.first().ok_or(Errno::EINVAL)?;
    let mut failure = Errno::ENOENT;
    for path in candidates(name, &config.env) {
        match fs::open_for_exec(t, AT_FDCWD, &path, 0) {
            Ok(file) => {
                let (args, env) = (config.args.clone(), config.env.clone());
                return exec::replace_program(t, file, path, args, env);
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
