//! One container and its processes.
//!
//! Order of events: a process's end is told after its start, an `exec`'s end before its container's. The thread that
//! waits for a process's end keeps to that: it waits for a start at work, and for the first process also until all
//! others have ended.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use containerd_shim::protos::events::task::{
    TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused, TaskResumed, TaskStart,
};
use containerd_shim::warn;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::console::ConsoleSocket;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::husk::Husk;
use crate::metrics::Pids;
use crate::oom::{self, Kills};
use crate::process::{Process, Stage, timestamp};
use crate::reaper::{Claimant, Exit};
use crate::rootfs;
use crate::stdio::{Paths, ProcessStdio};

/// How long a reader may take for what a process wrote last, before its end is told anyway.
const DRAIN: Duration = Duration::from_secs(2);
/// How long stand-ins of `exec` may outlive their container before they are killed.
const STAND_INS: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Processes {
    execs: HashMap<String, Arc<Process>>,
    /// The first process has ended: no other is started.
    ending: bool,
}

/// A container.
pub struct Container {
    husk: Husk,
    events: Events,
    owner: (u32, u32),
    first: Arc<Process>,
    processes: Mutex<Processes>,
    paused: AtomicBool,
    /// How many processes there were inside when it was paused.
    paused_with: AtomicU64,
    pids_limit: Mutex<u64>,
    cgroup: Option<Cgroup>,
    /// What the guest kills.
    kills: OnceLock<Kills>,
}

/// Makes the streams and, by `run`, a process with them; gives it.
fn launch(
    paths: &Paths,
    owner: (u32, u32),
    run: impl FnOnce(Option<&std::path::Path>, crate::husk::Streams) -> Result<i32>,
) -> Result<(i32, ProcessStdio)> {
    let (mut stdio, streams) = ProcessStdio::open(paths, owner)?;
    let console = paths
        .terminal
        .then(ConsoleSocket::new)
        .transpose()
        .map_err(Error::host("make the console socket"))?;
    let pid = run(console.as_ref().map(ConsoleSocket::path), streams)?;
    let started = console
        .map(|console| console.receive())
        .transpose()
        .map_err(Error::host("receive the terminal"))
        .and_then(|master| stdio.start(master));
    if let Err(error) = started {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        return Err(error);
    }
    Ok((pid, stdio))
}

/// `linux.resources.pids.limit` of the specification, or 0.
fn pids_limit(resources: &Value) -> Option<u64> {
    resources["pids"]["limit"].as_u64()
}

impl Container {
    /// Creates it from its bundle, whose root is mounted.
    ///
    /// # Errors
    /// What husk says; nothing of it is left then.
    pub fn create(
        husk: Husk,
        paths: Paths,
        owner: (u32, u32),
        events: Events,
    ) -> Result<Arc<Self>> {
        let reaper = husk.reaper.clone();
        let claimant = reaper.claimant();
        let made = launch(&paths, owner, |console, streams| {
            husk.create(console, streams, &claimant)
        });
        let (pid, streams) = made.inspect_err(|_| husk.delete_forced())?;
        let spec: Value = std::fs::read(husk.bundle.join("config.json"))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let container = Arc::new(Self {
            first: Arc::new(Process::first(paths, pid, streams)),
            cgroup: Cgroup::of(pid),
            kills: OnceLock::new(),
            pids_limit: Mutex::new(pids_limit(&spec["linux"]["resources"]).unwrap_or(0)),
            husk,
            events,
            owner,
            processes: Mutex::default(),
            paused: AtomicBool::new(false),
            paused_with: AtomicU64::new(0),
        });
        drop(claimant);
        Ok(container)
    }

    /// From now on the end of its first process is told. Separate, so that its creation can be told before.
    pub fn attend(self: &Arc<Self>) {
        let container = self.clone();
        let pid = self.first.pid();
        thread::spawn(move || {
            let exit = container.husk.reaper.wait(pid);
            container.first_ended(pid, exit);
        });
    }

    /// Its bundle.
    pub fn bundle(&self) -> &PathBuf {
        &self.husk.bundle
    }

    /// Its control group, while there is one.
    pub fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    fn processes(&self) -> MutexGuard<'_, Processes> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The process of this name; the empty one is the first's.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        if exec_id.is_empty() {
            return Ok(self.first.clone());
        }
        let processes = self.processes();
        processes
            .execs
            .get(exec_id)
            .cloned()
            .ok_or_else(|| Error::NotFound(format!("process {exec_id} does not exist")))
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Starts a process; gives its id on the host.
    ///
    /// # Errors
    /// What husk says.
    pub fn start(self: &Arc<Self>, exec_id: &str) -> Result<u32> {
        let process = self.process(exec_id)?;
        let pid = if exec_id.is_empty() {
            self.start_first(&process)?
        } else {
            self.start_exec(&process)?
        };
        Ok(pid.cast_unsigned())
    }

    fn start_first(&self, process: &Process) -> Result<i32> {
        process.begin()?;
        self.watch_memory();
        if let Err(error) = self.husk.start() {
            process.does_not_run();
            return Err(error);
        }
        let pid = process.pid();
        self.events.publish(TaskStart {
            container_id: self.husk.id.clone(),
            pid: pid.cast_unsigned(),
            ..TaskStart::default()
        });
        process.runs(pid, None);
        Ok(pid)
    }

    fn watch_memory(&self) {
        let teller = || {
            let (events, id) = (self.events.clone(), self.husk.id.clone());
            move || {
                events.publish(TaskOOM {
                    container_id: id.clone(),
                    ..TaskOOM::default()
                });
            }
        };
        let trouble = |error| {
            warn!(
                "{}: nothing tells of a lack of memory: {error}",
                self.husk.id
            );
        };
        let kills = Kills::watch(self.husk.memory_events(), teller())
            .map_err(trouble)
            .ok();
        if let Some(kills) = &kills {
            let _ = self.kills.set(kills.clone());
        }
        let tell = teller();
        // A guest that ends for want of memory has the cgroup run out, too, which is not told again.
        let tell = move || {
            let is_told = |kills: &Kills| {
                kills.look();
                kills.have_been_told()
            };
            if !kills.as_ref().is_some_and(is_told) {
                tell();
            }
        };
        if let Some(cgroup) = &self.cgroup
            && let Err(error) = oom::watch(cgroup, tell)
        {
            trouble(error);
        }
    }

    fn start_exec(self: &Arc<Self>, process: &Arc<Process>) -> Result<i32> {
        {
            // With the lock held: the container's end waits for what is being started, or it is not started.
            let processes = self.processes();
            if processes.ending {
                return Err(Error::NotFound("the container has ended".to_owned()));
            }
            process.begin()?;
        }
        let claimant = self.husk.reaper.claimant();
        match self.exec(process, &claimant) {
            Ok((pid, streams)) => {
                self.events.publish(TaskExecStarted {
                    container_id: self.husk.id.clone(),
                    exec_id: process.exec_id.clone(),
                    pid: pid.cast_unsigned(),
                    ..TaskExecStarted::default()
                });
                process.runs(pid, Some(streams));
                let (container, process) = (self.clone(), process.clone());
                thread::spawn(move || {
                    let exit = container.husk.reaper.wait(pid);
                    container.end(&process, pid, exit);
                });
                Ok(pid)
            }
            Err(error) => {
                process.does_not_run();
                Err(error)
            }
        }
    }

    fn exec(&self, process: &Process, claimant: &Claimant<'_>) -> Result<(i32, ProcessStdio)> {
        let id = &process.exec_id;
        let file = self.husk.bundle.join(format!("{id}-process.json"));
        std::fs::write(&file, &process.spec)
            .map_err(Error::host("write the process's description"))?;
        let made = launch(&process.paths, self.owner, |console, streams| {
            self.husk.exec(id, &file, console, streams, claimant)
        });
        let _ = std::fs::remove_file(&file);
        made
    }

    fn first_ended(&self, pid: i32, exit: Exit) {
        self.first.settled();
        if let Some(kills) = self.kills.get() {
            // The kill of the first process is told before its end.
            kills.look();
        }
        let execs: Vec<Arc<Process>> = {
            let mut processes = self.processes();
            processes.ending = true;
            processes.execs.values().cloned().collect()
        };
        for exec in execs {
            if !exec.wait_for(STAND_INS) {
                warn!("{}: {} outlives its container", self.husk.id, exec.exec_id);
                if exec.pid() > 0 {
                    let _ = kill(Pid::from_raw(exec.pid()), Signal::SIGKILL);
                }
                exec.wait_for(STAND_INS);
            }
        }
        self.end(&self.first, pid, exit);
    }

    /// A process has ended: tells it after its last output, then lets go whoever waits for it.
    fn end(&self, process: &Process, pid: i32, exit: Exit) {
        process.drain(DRAIN);
        let name = if process.exec_id.is_empty() {
            &self.husk.id
        } else {
            &process.exec_id
        };
        self.events.publish(TaskExit {
            container_id: self.husk.id.clone(),
            id: name.clone(),
            pid: pid.cast_unsigned(),
            exit_status: exit.status,
            exited_at: Some(timestamp(exit)).into(),
            ..TaskExit::default()
        });
        process.ended(exit);
    }

    /// Adds a process, to be started later.
    ///
    /// # Errors
    /// When there is one of this name.
    pub fn add(&self, exec_id: &str, paths: Paths, spec: Vec<u8>) -> Result<()> {
        // It becomes part of file names.
        if exec_id.is_empty() || exec_id.contains('/') {
            return Err(Error::Invalid(format!(
                "{exec_id:?} is no name of a process"
            )));
        }
        let mut processes = self.processes();
        if processes.ending {
            return Err(Error::NotFound("the container has ended".to_owned()));
        }
        if processes.execs.contains_key(exec_id) {
            return Err(Error::Exists(format!("process {exec_id} exists already")));
        }
        let process = Arc::new(Process::new(exec_id, paths, spec));
        processes.execs.insert(exec_id.to_owned(), process);
        self.events.publish(TaskExecAdded {
            container_id: self.husk.id.clone(),
            exec_id: exec_id.to_owned(),
            ..TaskExecAdded::default()
        });
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// [`Error::NotFound`] for what has ended; what husk says.
    pub fn kill(&self, exec_id: &str, signal: u32, all: bool) -> Result<()> {
        let process = self.process(exec_id)?;
        match process.stage() {
            Stage::Ended(_) => return Err(Error::finished()),
            Stage::Created if !exec_id.is_empty() => {
                return Err(Error::Precondition(format!(
                    "process {exec_id} has not been started"
                )));
            }
            _ => {}
        }
        if exec_id.is_empty() {
            return self.husk.kill(signal, all);
        }
        // What stands for the process passes it on.
        let number = signal.cast_signed();
        let signal = Signal::try_from(number)
            .map_err(|_| Error::Invalid(format!("{number} is no signal")))?;
        match kill(Pid::from_raw(process.pid()), signal) {
            Ok(()) => Ok(()),
            Err(nix::errno::Errno::ESRCH) => Err(Error::finished()),
            Err(errno) => Err(Error::host("signal the process")(errno)),
        }
    }

    /// Stops all of it, or lets it go on.
    ///
    /// # Errors
    /// What husk says.
    pub fn pause(&self, paused: bool) -> Result<()> {
        let container_id = self.husk.id.clone();
        if paused {
            // Asked now: one that is paused does not answer.
            let inside = self.count_inside();
            self.paused_with.store(inside, Ordering::Relaxed);
            self.husk.pause()?;
        } else {
            self.husk.resume()?;
        }
        self.paused.store(paused, Ordering::Relaxed);
        if paused {
            self.events.publish(TaskPaused {
                container_id,
                ..TaskPaused::default()
            });
        } else {
            self.events.publish(TaskResumed {
                container_id,
                ..TaskResumed::default()
            });
        }
        Ok(())
    }

    /// Changes limits, to `linux.resources` as JSON.
    ///
    /// # Errors
    /// What husk says.
    pub fn update(&self, resources: &[u8]) -> Result<()> {
        self.husk.update(resources)?;
        let wanted: Value = serde_json::from_slice(resources).unwrap_or_default();
        if let Some(limit) = pids_limit(&wanted).filter(|limit| *limit > 0) {
            *self.limit() = limit;
        }
        Ok(())
    }

    fn limit(&self) -> MutexGuard<'_, u64> {
        self.pids_limit
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The host's processes of the container, with the names of those of `exec`.
    ///
    /// # Errors
    /// What husk says.
    pub fn pids(&self) -> Result<Vec<(u32, Option<String>)>> {
        let mut pids: Vec<(u32, Option<String>)> = Vec::new();
        for pid in self.husk.processes()? {
            pids.push((pid, None));
        }
        for exec in self.processes().execs.values() {
            if exec.stage() == Stage::Running {
                let pid = exec.pid().cast_unsigned();
                pids.retain(|(other, _)| *other != pid);
                pids.push((pid, Some(exec.exec_id.clone())));
            }
        }
        Ok(pids)
    }

    /// How many processes there are inside and may be.
    pub fn guest_pids(&self) -> Pids {
        let current = if self.is_paused() {
            self.paused_with.load(Ordering::Relaxed)
        } else {
            self.count_inside()
        };
        Pids {
            current,
            limit: *self.limit(),
        }
    }

    fn count_inside(&self) -> u64 {
        let count = self.husk.guest_processes().ok();
        count
            .and_then(|count| u64::try_from(count).ok())
            .unwrap_or(0)
    }

    /// Removes a process that has ended or was never started; the first takes the container with it.
    ///
    /// # Errors
    /// When it runs; what husk says.
    pub fn delete(&self, exec_id: &str) -> Result<(i32, Exit)> {
        let process = self.process(exec_id)?;
        let running = || Error::Precondition("the process has not been stopped".to_owned());
        if exec_id.is_empty() {
            match process.stage() {
                Stage::Ended(_) => {
                    if let Err(error) = self.husk.delete() {
                        warn!("{}: {error}", self.husk.id);
                        self.husk.delete_forced();
                    }
                }
                // It waits for a start that will not come.
                Stage::Created => {
                    self.husk.delete_forced();
                    process.wait();
                }
                Stage::Starting | Stage::Running => return Err(running()),
            }
            rootfs::unmount(&self.husk.bundle).map_err(Error::host("unmount the root"))?;
        } else {
            match process.stage() {
                Stage::Created | Stage::Ended(_) => {}
                Stage::Starting | Stage::Running => return Err(running()),
            }
            self.processes().execs.remove(exec_id);
        }
        process.close(DRAIN);
        let never_run = Exit {
            status: 0,
            at: std::time::SystemTime::UNIX_EPOCH,
        };
        Ok((process.pid(), process.exit().unwrap_or(never_run)))
    }
}
