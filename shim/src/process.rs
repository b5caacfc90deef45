//! One process of a container: its first, or one of `exec`.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use containerd_shim::protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim::protos::types::task::Status;

use crate::error::{Error, Result};
use crate::reaper::Exit;
use crate::stdio::{Paths, ProcessStdio};

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Known; the first process of a container waits for `start`, others do not exist yet.
    Created,
    /// `start` or `exec` is at work.
    Starting,
    /// Its program runs.
    Running,
    /// It has ended, and everybody was told.
    Ended(Exit),
}

#[derive(Debug)]
struct State {
    stage: Stage,
    pid: i32,
}

/// A process, as the shim keeps it.
#[derive(Debug)]
pub struct Process {
    /// Name of an `exec`; empty for the container's first process.
    pub exec_id: String,
    /// What its streams are for containerd.
    pub paths: Paths,
    /// The process of the specification, as JSON; empty for the first.
    pub spec: Vec<u8>,
    state: Mutex<State>,
    changed: Condvar,
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    stdio: Option<Arc<ProcessStdio>>,
    /// `CloseIO` may come before there is anything to close.
    input_closed: bool,
}

impl Process {
    /// One that does not exist yet.
    pub fn new(exec_id: &str, paths: Paths, spec: Vec<u8>) -> Self {
        Self {
            exec_id: exec_id.to_owned(),
            paths,
            spec,
            state: Mutex::new(State {
                stage: Stage::Created,
                pid: 0,
            }),
            changed: Condvar::new(),
            streams: Mutex::default(),
        }
    }

    /// The container's first, which waits for `start`.
    pub fn first(paths: Paths, pid: i32, streams: ProcessStdio) -> Self {
        let process = Self::new("", paths, Vec::new());
        process.lock().pid = pid;
        process.streams().stdio = Some(Arc::new(streams));
        process
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stdio(&self) -> Option<Arc<ProcessStdio>> {
        self.streams().stdio.clone()
    }

    /// The host's process that it is, or that stands for it; 0 before there is one.
    pub fn pid(&self) -> i32 {
        self.lock().pid
    }

    /// Where it is in its life.
    pub fn stage(&self) -> Stage {
        self.lock().stage
    }

    /// Begins to start it.
    ///
    /// # Errors
    /// When that was done before.
    pub fn begin(&self) -> Result<()> {
        let mut state = self.lock();
        match state.stage {
            Stage::Created => {
                state.stage = Stage::Starting;
                Ok(())
            }
            Stage::Starting | Stage::Running => Err(Error::Precondition(
                "the process has been started already".to_owned(),
            )),
            Stage::Ended(_) => Err(Error::Precondition("the process has ended".to_owned())),
        }
    }

    /// It runs, as `pid`, with these streams if they are new; whoever waits for the end of its start goes on.
    pub fn runs(&self, pid: i32, streams: Option<ProcessStdio>) {
        if let Some(stdio) = streams {
            let mut streams = self.streams();
            if streams.input_closed {
                stdio.close_input();
            }
            streams.stdio = Some(Arc::new(stdio));
        }
        let mut state = self.lock();
        state.pid = pid;
        state.stage = Stage::Running;
        self.changed.notify_all();
    }

    /// It could not be started.
    pub fn does_not_run(&self) {
        self.lock().stage = Stage::Created;
        self.changed.notify_all();
    }

    /// Returns when no start is at work.
    pub fn settled(&self) {
        let mut state = self.lock();
        while state.stage == Stage::Starting {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// It has ended.
    pub fn ended(&self, exit: Exit) {
        self.lock().stage = Stage::Ended(exit);
        self.changed.notify_all();
    }

    /// Waits for its end.
    pub fn wait(&self) -> Exit {
        let mut state = self.lock();
        loop {
            if let Stage::Ended(exit) = state.stage {
                return exit;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for its end, at most for `limit`; false if it has not come. One that was not started counts as ended.
    pub fn wait_for(&self, limit: Duration) -> bool {
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), limit, |state| {
                matches!(state.stage, Stage::Starting | Stage::Running)
            })
            .unwrap_or_else(PoisonError::into_inner);
        !matches!(state.stage, Stage::Starting | Stage::Running)
    }

    /// Waits until its output has been passed on.
    pub fn drain(&self, limit: Duration) {
        if let Some(stdio) = self.stdio() {
            stdio.drain(limit);
        }
    }

    /// Closes its streams when they have ended, or after `limit`.
    pub fn close(&self, limit: Duration) {
        if let Some(stdio) = self.stdio() {
            stdio.close(limit);
        }
        self.streams().stdio = None;
    }

    /// No more input comes.
    pub fn close_input(&self) {
        let mut streams = self.streams();
        streams.input_closed = true;
        if let Some(stdio) = &streams.stdio {
            stdio.close_input();
        }
    }

    /// Gives its terminal a size.
    ///
    /// # Errors
    /// When it has no terminal.
    pub fn resize(&self, columns: u32, rows: u32) -> Result<()> {
        let fit = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let stdio = self.stdio();
        match stdio.as_ref().and_then(|stdio| stdio.master()) {
            Some(master) => crate::console::resize(master, fit(columns), fit(rows))
                .map_err(Error::host("resize the terminal")),
            None if matches!(self.stage(), Stage::Ended(_)) => Ok(()),
            None => Err(Error::Precondition(
                "the process has no terminal".to_owned(),
            )),
        }
    }

    /// In containerd's words.
    pub fn status(&self, paused: bool) -> Status {
        match self.stage() {
            Stage::Created | Stage::Starting => Status::CREATED,
            Stage::Running if paused => Status::PAUSED,
            Stage::Running => Status::RUNNING,
            Stage::Ended(_) => Status::STOPPED,
        }
    }

    /// How it ended, if it did.
    pub fn exit(&self) -> Option<Exit> {
        match self.stage() {
            Stage::Ended(exit) => Some(exit),
            _ => None,
        }
    }
}

/// A time as events and answers have it.
pub fn timestamp(exit: Exit) -> Timestamp {
    exit.at.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::SystemTime;

    #[test]
    fn a_life() {
        let process = Arc::new(Process::new("e", Paths::default(), Vec::new()));
        assert_eq!(process.status(false), Status::CREATED);
        process.begin().unwrap();
        assert!(process.begin().is_err());
        process.does_not_run();
        process.begin().unwrap();
        let waiter = {
            let process = process.clone();
            thread::spawn(move || {
                process.settled();
                process.wait()
            })
        };
        process.runs(5, None);
        assert_eq!((process.pid(), process.status(true)), (5, Status::PAUSED));
        assert!(!process.wait_for(Duration::ZERO));
        assert!(process.resize(1, 1).is_err());
        let exit = Exit {
            status: 3,
            at: SystemTime::now(),
        };
        process.ended(exit);
        assert_eq!(waiter.join().unwrap(), exit);
        assert_eq!(
            (process.exit(), process.status(true)),
            (Some(exit), Status::STOPPED)
        );
        assert!(process.begin().is_err());
        assert!(process.resize(1, 1).is_ok());
        assert!(process.wait_for(Duration::ZERO));
    }
}
