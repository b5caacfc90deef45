//! The one place where children end.
//!
//! The shim is a subreaper: besides the commands it runs, it inherits what they leave behind, among that each
//! container's first process and the stand-ins of `exec`. A thread looks at every dead child without reaping it,
//! takes the lock and only then reaps it, so that a child that is being started (under the lock) is known before its
//! end is. What belongs to nobody is reaped and forgotten.

use std::collections::HashMap;
use std::io;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use containerd_shim::monitor::monitor_notify_by_pid;
use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// Signals that end a process add this to its status.
const SIGNALLED: u32 = 128;
/// How often to look for children of which nothing tells.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// 0 to 255; 128 + N after signal N.
    pub status: u32,
    /// When.
    pub at: SystemTime,
}

/// A child that was started, to be waited for with [`Reaper::wait`].
#[derive(Debug)]
pub struct Started {
    /// Its number.
    pub pid: i32,
    /// The pipe to its input, if the command asked for one.
    pub stdin: Option<ChildStdin>,
    /// The pipe from its output.
    pub stdout: Option<ChildStdout>,
    /// The pipe from its errors.
    pub stderr: Option<ChildStderr>,
}

#[derive(Debug, Default)]
struct State {
    /// Processes somebody waits for, and how they ended.
    claimed: HashMap<i32, Option<Exit>>,
    /// Ends that nobody has claimed yet, kept while somebody may.
    unclaimed: HashMap<i32, Exit>,
    /// How many may still claim a process.
    claimants: usize,
    /// How many fork without telling.
    forkers: usize,
    /// Children started so far.
    started: u64,
}

/// Waits for all children of this process.
#[derive(Debug, Default)]
pub struct Reaper {
    state: Mutex<State>,
    changed: Condvar,
}

/// As long as it lives, a process that has ended can still be claimed.
#[derive(Debug)]
pub struct Claimant<'a>(&'a Reaper);

impl Drop for Claimant<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.claimants -= 1;
        if state.claimants == 0 {
            state.unclaimed.clear();
        }
    }
}

impl Reaper {
    /// Starts the thread that reaps.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start() -> io::Result<Arc<Self>> {
        let reaper = Arc::new(Self::default());
        let own = reaper.clone();
        thread::Builder::new()
            .name("reaper".to_owned())
            .spawn(move || own.reap())?;
        Ok(reaper)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reap(&self) {
        loop {
            let started = self.lock().started;
            match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
                Ok(status) => {
                    if let Some(pid) = status.pid() {
                        self.ended(pid);
                    }
                }
                Err(Errno::ECHILD) => self.wait_for_children(started),
                Err(_) => {}
            }
        }
    }

    /// Returns when there may be children again.
    fn wait_for_children(&self, started: u64) {
        let mut state = self.lock();
        while state.started == started {
            if state.forkers > 0 {
                let (_state, _) = self
                    .changed
                    .wait_timeout(state, LOOK_AGAIN)
                    .unwrap_or_else(PoisonError::into_inner);
                return;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn ended(&self, pid: Pid) {
        let mut state = self.lock();
        let end = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
        let status = match end {
            Ok(WaitStatus::Exited(_, code)) => u32::try_from(code & 0xff).unwrap_or(0),
            Ok(WaitStatus::Signaled(_, signal, _)) => SIGNALLED + signal as u32,
            // Whoever started it has waited for it: its program could not be executed.
            _ => return,
        };
        let exit = Exit {
            status,
            at: SystemTime::now(),
        };
        let pid = pid.as_raw();
        if let Some(slot) = state.claimed.get_mut(&pid) {
            *slot = Some(exit);
            self.changed.notify_all();
            return;
        }
        if state.claimants > 0 {
            state.unclaimed.insert(pid, exit);
        }
        drop(state);
        // The library's own children.
        let _ = monitor_notify_by_pid(pid, status.cast_signed());
    }

    /// Starts a command.
    ///
    /// # Errors
    /// What starting it gives.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Started> {
        let mut state = self.lock();
        let mut child = command.spawn()?;
        let started = Started {
            pid: child.id().cast_signed(),
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
        };
        state.claimed.insert(started.pid, None);
        state.started += 1;
        self.changed.notify_all();
        Ok(started)
    }

    /// From now on, processes that end can be claimed.
    pub fn claimant(&self) -> Claimant<'_> {
        self.lock().claimants += 1;
        Claimant(self)
    }

    /// Process `pid`, which a command left behind, is to be waited for with [`Self::wait`].
    pub fn claim(&self, _: &Claimant<'_>, pid: i32) {
        let mut state = self.lock();
        let ended = state.unclaimed.remove(&pid);
        state.claimed.insert(pid, ended);
    }

    /// Runs what forks by itself.
    pub fn forking<T>(&self, run: impl FnOnce() -> T) -> T {
        self.lock().forkers += 1;
        self.changed.notify_all();
        let result = run();
        self.lock().forkers -= 1;
        result
    }

    /// Waits for the end of a process of [`Self::spawn`] or [`Self::claim`], once.
    pub fn wait(&self, pid: i32) -> Exit {
        let mut state = self.lock();
        loop {
            if let Some(Some(exit)) = state.claimed.get(&pid) {
                let exit = *exit;
                state.claimed.remove(&pid);
                return exit;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
impl Reaper {
    /// The one of all tests: a process can have only one.
    pub fn of_tests() -> Arc<Self> {
        static REAPER: std::sync::OnceLock<Arc<Reaper>> = std::sync::OnceLock::new();
        REAPER.get_or_init(|| Self::start().unwrap()).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim::util::read_pid_from_file;

    #[test]
    fn ends_find_their_owners() {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let reaper = Reaper::of_tests();
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };

        let quick: Vec<i32> = (0..20)
            .map(|code| {
                reaper
                    .spawn(&mut shell(&format!("exit {code}")))
                    .unwrap()
                    .pid
            })
            .collect();
        for (code, pid) in (0..20).zip(quick) {
            assert_eq!(reaper.wait(pid).status, code);
        }
        let killed = reaper.spawn(&mut shell("kill -9 $$")).unwrap();
        assert_eq!(reaper.wait(killed.pid).status, 137);

        assert!(reaper.spawn(&mut Command::new("/nonexistent")).is_err());

        // An orphan, claimed after its end.
        let directory = tempfile::tempdir().unwrap();
        let [file, go] = ["pid", "go"].map(|name| directory.path().join(name));
        let claimant = reaper.claimant();
        // Its parent is gone when it ends: a shell would reap it itself.
        let parent = reaper
            .spawn(&mut shell(&format!(
                "sh -c 'while [ ! -e {} ]; do sleep 0.01; done; exit 7' & printf $! > {}",
                go.display(),
                file.display()
            )))
            .unwrap();
        reaper.wait(parent.pid);
        let orphan = read_pid_from_file(&file).unwrap();
        std::fs::write(go, "").unwrap();
        while !reaper.lock().unclaimed.contains_key(&orphan) {
            thread::yield_now();
        }
        reaper.claim(&claimant, orphan);
        assert_eq!(reaper.wait(orphan).status, 7);
    }
}
