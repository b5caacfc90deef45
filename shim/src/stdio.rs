//! The streams of a process: pipes or a terminal on its side, FIFOs on containerd's, a thread between for each.
//!
//! A FIFO is opened for reading and writing, so that neither a containerd that restarts nor a client that goes ends
//! the process's stream: output waits in the FIFO until somebody reads, input ends only by `CloseIO`. Nothing here
//! blocks but `poll`, which also hears of the process's end and of the order to stop.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Error, Result};
use crate::husk::Streams;

/// Bytes moved at a time.
const BLOCK: usize = 64 << 10;

/// What containerd asks for.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// FIFO that input is read from, or empty.
    pub stdin: String,
    /// FIFO or `file://` path that output goes to, or empty.
    pub stdout: String,
    /// The same for errors; unused with a terminal.
    pub stderr: String,
    /// The process has a terminal.
    pub terminal: bool,
}

/// A flag that `poll` sees.
#[derive(Debug)]
struct Flag(OwnedFd);

impl Flag {
    fn new() -> io::Result<Self> {
        Ok(Self(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?))
    }

    fn raise(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

#[derive(Debug)]
struct Flags {
    ended: Flag,
    stop: Flag,
}

/// The shim's ends, before the process has its own.
#[derive(Debug)]
struct Ends {
    stdin: Option<File>,
    stdout: Option<File>,
    stderr: Option<File>,
}

/// The streams of one process.
#[derive(Debug)]
pub struct ProcessStdio {
    flags: Arc<Flags>,
    /// Holds the input FIFO open; `CloseIO` lets go.
    keeper: Mutex<Option<File>>,
    input: Option<File>,
    outputs: [Option<File>; 2],
    ends: Option<Ends>,
    master: Option<OwnedFd>,
    drained: Latches,
    finished: Latches,
}

/// Each hears when its sender goes.
type Latches = Mutex<Vec<Receiver<()>>>;

fn open_input(path: &str) -> Result<(File, File)> {
    let open = |write: bool| {
        OpenOptions::new()
            .read(!write)
            .write(write)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(path)
            .map_err(Error::host(format!("open the input {path}")))
    };
    // The reader first: a FIFO without one cannot be opened for writing without waiting.
    Ok((open(false)?, open(true)?))
}

fn open_output(uri: &str) -> Result<File> {
    let mut options = OpenOptions::new();
    let path = match uri.split_once("://") {
        Some(("file", path)) => {
            options.append(true).create(true).mode(0o640);
            path
        }
        Some(("fifo", path)) => {
            options.read(true).write(true);
            path
        }
        None => {
            options.read(true).write(true);
            uri
        }
        Some((scheme, _)) => {
            return Err(Error::Invalid(format!(
                "output of the kind {scheme}:// is not supported"
            )));
        }
    };
    options
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(Error::host(format!("open the output {path}")))
}

fn present(path: &str) -> Option<&str> {
    Some(path).filter(|path| !path.is_empty())
}

fn unblocked(file: &impl AsFd) -> io::Result<()> {
    Ok(fcntl_setfl(file, fcntl_getfl(file)? | OFlags::NONBLOCK)?)
}

impl ProcessStdio {
    /// Opens what `paths` names; gives also what the command that starts the process gets, whose pipes belong to
    /// `owner`.
    ///
    /// # Errors
    /// What cannot be opened.
    pub fn open(paths: &Paths, owner: (u32, u32)) -> Result<(Self, Streams)> {
        let failed = |error: io::Error| Error::host("make a stream")(error);
        let (input, keeper) = match present(&paths.stdin).map(open_input).transpose()? {
            Some((input, keeper)) => (Some(input), Some(keeper)),
            None => (None, None),
        };
        let stdout = present(&paths.stdout).map(open_output).transpose()?;
        let stderr = present(&paths.stderr)
            .filter(|_| !paths.terminal)
            .map(open_output)
            .transpose()?;
        let flags = Flags {
            ended: Flag::new().map_err(failed)?,
            stop: Flag::new().map_err(failed)?,
        };
        let mut streams = Streams {
            stdin: Stdio::null(),
            stdout: Stdio::null(),
            stderr: Stdio::null(),
        };
        let mut ends = Ends {
            stdin: None,
            stdout: None,
            stderr: None,
        };
        if !paths.terminal {
            let pipe = || -> io::Result<(File, File)> {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                if owner != (0, 0) {
                    fchown(&write, Some(owner.0), Some(owner.1))?;
                }
                Ok((read.into(), write.into()))
            };
            if input.is_some() {
                let (read, write) = pipe().map_err(failed)?;
                unblocked(&write).map_err(failed)?;
                (streams.stdin, ends.stdin) = (read.into(), Some(write));
            }
            for (wanted, stream, end) in [
                (&stdout, &mut streams.stdout, &mut ends.stdout),
                (&stderr, &mut streams.stderr, &mut ends.stderr),
            ] {
                if wanted.is_some() {
                    let (read, write) = pipe().map_err(failed)?;
                    unblocked(&read).map_err(failed)?;
                    (*stream, *end) = (write.into(), Some(read));
                }
            }
        }
        let own = Self {
            flags: Arc::new(flags),
            keeper: Mutex::new(keeper),
            input,
            outputs: [stdout, stderr],
            ends: Some(ends),
            master: None,
            drained: Latches::default(),
            finished: Latches::default(),
        };
        Ok((own, streams))
    }

    /// Starts to move bytes; with the terminal, if the process has one.
    ///
    /// # Errors
    /// What the host refuses.
    pub fn start(&mut self, master: Option<OwnedFd>) -> Result<()> {
        self.join(master).map_err(Error::host("join the streams"))
    }

    fn join(&mut self, master: Option<OwnedFd>) -> io::Result<()> {
        let Some(mut ends) = self.ends.take() else {
            return Ok(());
        };
        if let Some(master) = &master {
            unblocked(master)?;
            ends.stdin = Some(master.try_clone()?.into());
            ends.stdout = Some(master.try_clone()?.into());
        }
        self.master = master;
        if let (Some(from), Some(to)) = (self.input.take(), ends.stdin) {
            let flags = self.flags.clone();
            thread::spawn(move || pump_input(from, to, &flags));
        }
        let [stdout, stderr] = std::mem::take(&mut self.outputs);
        for (from, to) in [(ends.stdout, stdout), (ends.stderr, stderr)] {
            let Some(from) = from else { continue };
            let flags = self.flags.clone();
            let (drained, tell_drained) = latch();
            let (finished, tell_finished) = latch();
            locked(&self.drained).push(drained);
            locked(&self.finished).push(finished);
            thread::spawn(move || {
                pump_output(from, to, &flags, tell_drained);
                drop(tell_finished);
            });
        }
        Ok(())
    }

    /// The terminal.
    pub fn master(&self) -> Option<&OwnedFd> {
        self.master.as_ref()
    }

    /// Input ends with what is in the FIFO, once its other writers have closed it too.
    pub fn close_input(&self) {
        locked(&self.keeper).take();
    }

    /// The process has ended: waits until what it wrote has been passed on, at most for `limit`.
    pub fn drain(&self, limit: Duration) {
        self.flags.ended.raise();
        wait_for(&self.drained, limit);
    }

    /// Nobody wants the streams any more: waits for their ends, at most for `limit`, and closes them.
    pub fn close(&self, limit: Duration) {
        wait_for(&self.finished, limit);
        self.flags.stop.raise();
    }
}

impl Drop for ProcessStdio {
    fn drop(&mut self) {
        self.flags.stop.raise();
    }
}

/// The receiver hears of it when the sender goes.
fn latch() -> (Receiver<()>, Sender<()>) {
    let (sender, receiver) = channel();
    (receiver, sender)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait_for(latches: &Latches, limit: Duration) {
    let deadline = Instant::now() + limit;
    for latch in &*locked(latches) {
        let _ = latch.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Waits for one of `events`, and tells which occurred.
fn wait<const N: usize>(mut fds: [PollFd<'_>; N]) -> Option<[PollFlags; N]> {
    loop {
        match poll(&mut fds, None) {
            Ok(_) => return Some(fds.each_ref().map(PollFd::revents)),
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Reads what is there: `None` at the end of the stream, a terminal's too.
fn take<'b>(from: &mut File, block: &'b mut [u8]) -> Option<io::Result<&'b [u8]>> {
    match from.read(block) {
        Ok(0) => None,
        Ok(count) => Some(Ok(&block[..count])),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Some(Err(error)),
            _ => None,
        },
    }
}

/// Writes all, waiting for room; false if that cannot be.
fn put(to: &mut File, mut bytes: &[u8], flags: &Flags) -> bool {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let fds = [
                    PollFd::new(to, PollFlags::OUT),
                    PollFd::new(&flags.stop.0, PollFlags::IN),
                ];
                match wait(fds) {
                    Some([_, stop]) if stop.is_empty() => {}
                    _ => return false,
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

fn pump_input(mut from: File, mut to: File, flags: &Flags) {
    let mut block = vec![0; BLOCK];
    loop {
        let fds = [
            PollFd::new(&from, PollFlags::IN),
            PollFd::new(&flags.stop.0, PollFlags::IN),
            // Nobody reads it any more: only the error is of interest.
            PollFd::new(&to, PollFlags::empty()),
        ];
        match wait(fds) {
            Some([_, stop, gone])
                if stop.is_empty() && !gone.intersects(PollFlags::ERR | PollFlags::NVAL) => {}
            _ => return,
        }
        match take(&mut from, &mut block) {
            Some(Ok(bytes)) if !put(&mut to, bytes, flags) => return,
            Some(_) => {}
            None => return,
        }
    }
}

/// `drained` goes when, after the process's end, nothing is left to read.
fn pump_output(mut from: File, to: Option<File>, flags: &Flags, drained: Sender<()>) {
    let mut to = to;
    let mut drained = Some(drained);
    let mut block = vec![0; BLOCK];
    loop {
        let before_end = if drained.is_some() {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        let fds = [
            PollFd::new(&from, PollFlags::IN),
            PollFd::new(&flags.stop.0, PollFlags::IN),
            PollFd::new(&flags.ended.0, before_end),
        ];
        let Some([source, stop, ended]) = wait(fds) else {
            return;
        };
        if source.is_empty() {
            if !stop.is_empty() {
                return;
            }
            if !ended.is_empty() {
                // What the process wrote before its end would have been seen together with that.
                drained = None;
            }
            continue;
        }
        match take(&mut from, &mut block) {
            Some(Ok(bytes)) => {
                if let Some(sink) = &mut to
                    && !put(sink, bytes, flags)
                {
                    return;
                }
            }
            Some(Err(_)) => {}
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::path::Path;
    use std::process::Command;

    use crate::reaper::Reaper;

    fn fifo(directory: &Path, name: &str) -> String {
        let path = directory.join(name);
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn run(script: &str, paths: &Paths) -> (ProcessStdio, i32) {
        let (mut stdio, streams) = ProcessStdio::open(paths, (0, 0)).unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .stdin(streams.stdin)
            .stdout(streams.stdout)
            .stderr(streams.stderr);
        let child = Reaper::of_tests().spawn(&mut command).unwrap();
        drop(command);
        stdio.start(None).unwrap();
        (stdio, child.pid)
    }

    const AMPLE: Duration = Duration::from_secs(30);

    #[test]
    fn bytes_pass_and_input_ends_with_close() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths {
            stdin: fifo(directory.path(), "in"),
            stdout: fifo(directory.path(), "out"),
            stderr: fifo(directory.path(), "err"),
            terminal: false,
        };
        let out = paths.stdout.clone();
        let reader = thread::spawn(move || std::fs::read(out).unwrap());
        let (stdio, pid) = run("echo oops >&2; cat; echo end", &paths);
        // Writers may come and go.
        for _ in 0..3 {
            std::fs::write(&paths.stdin, vec![b'x'; 200_000]).unwrap();
        }
        stdio.close_input();
        assert_eq!(Reaper::of_tests().wait(pid).status, 0);
        stdio.drain(AMPLE);
        let text = reader.join().unwrap();
        assert_eq!(text.len(), 600_004);
        assert!(text.ends_with(b"xend\n"));
    }

    #[test]
    fn output_waits_for_a_reader_that_was_away() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths {
            stdout: fifo(directory.path(), "out"),
            ..Paths::default()
        };
        let (stdio, pid) = run("head -c 1000000 /dev/zero", &paths);
        let mut first = File::open(&paths.stdout).unwrap();
        let mut some = vec![0; 100_000];
        first.read_exact(&mut some).unwrap();
        drop(first);
        // What the FIFO holds stays there: this end of it is open.
        let rest = std::fs::read(&paths.stdout).unwrap();
        assert_eq!(rest.len(), 900_000);
        assert_eq!(Reaper::of_tests().wait(pid).status, 0);
        stdio.close(AMPLE);
    }

    #[test]
    fn nobody_reads() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths {
            stdout: fifo(directory.path(), "out"),
            ..Paths::default()
        };
        let (stdio, pid) = run("head -c 1000000 /dev/zero; exit 3", &paths);
        stdio.close(Duration::ZERO);
        // Its stream is closed, so that it ends.
        assert_eq!(Reaper::of_tests().wait(pid).status, 3);
    }

    #[test]
    fn files_and_what_is_left_open() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let paths = Paths {
            stdout: format!("file://{}", log.display()),
            ..Paths::default()
        };
        let (stdio, pid) = run("echo one; tail --pid=$PPID -f /dev/null & echo two", &paths);
        assert_eq!(Reaper::of_tests().wait(pid).status, 0);
        // The stream is still open, but what was written has been passed on.
        stdio.drain(AMPLE);
        assert_eq!(std::fs::read(&log).unwrap(), b"one\ntwo\n");
        stdio.close(Duration::ZERO);
    }

    #[test]
    fn bad_paths() {
        for stdout in ["/nonexistent/fifo", "teapot://x"] {
            let paths = Paths {
                stdout: stdout.to_owned(),
                ..Paths::default()
            };
            assert!(ProcessStdio::open(&paths, (0, 0)).is_err(), "{stdout}");
        }
    }
}
