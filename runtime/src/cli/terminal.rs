//! The caller's terminal and the container's, joined, for a run in the foreground.
#![allow(unsafe_code, reason = "ioctls for a terminal's size")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// The container's terminal, relayed to the caller's streams. The caller's terminal is as before when it goes.
#[derive(Debug)]
pub struct Relay {
    master: File,
    /// The caller's settings, if its input is a terminal.
    before: Option<Termios>,
    output: Option<std::thread::JoinHandle<()>>,
}

impl Relay {
    /// Starts relaying.
    ///
    /// # Errors
    /// When threads or descriptors run out.
    pub fn start(master: OwnedFd) -> io::Result<Self> {
        let master = File::from(master);
        let stdin = io::stdin();
        let before = tcgetattr(stdin.as_fd()).ok();
        if let Some(settings) = &before {
            let mut raw = settings.clone();
            cfmakeraw(&mut raw);
            tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw)?;
        }
        let mut relay = Self {
            master,
            before,
            output: None,
        };
        relay.resize();
        let (mut from, mut to) = (relay.master.try_clone()?, relay.master.try_clone()?);
        let output = std::thread::Builder::new().name("terminal out".to_owned());
        relay.output = Some(output.spawn(move || {
            // EIO when the last process with the other end is gone.
            copy(&mut from, &mut io::stdout());
        })?);
        let input = std::thread::Builder::new().name("terminal in".to_owned());
        // It ends with the process: it may be asleep in a read.
        input.spawn(move || copy(&mut io::stdin(), &mut to))?;
        Ok(relay)
    }

    /// Gives the container's terminal the size of the caller's.
    pub fn resize(&self) {
        let mut size = libc::winsize {
            ws_row: 0,
            ws_col: 0,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the request fills a `winsize`.
        let known = unsafe { libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size) } == 0;
        if known {
            // SAFETY: the request reads a `winsize`.
            unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        }
    }

    /// Writes out what the container has left, and puts the caller's terminal back.
    pub fn finish(mut self) {
        if let Some(output) = self.output.take() {
            let _ = output.join();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(settings) = &self.before {
            let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, settings);
        }
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write) {
    let mut bytes = [0; 4096];
    loop {
        let count = match from.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        if to
            .write_all(&bytes[..count])
            .and_then(|()| to.flush())
            .is_err()
        {
            return;
        }
    }
}
