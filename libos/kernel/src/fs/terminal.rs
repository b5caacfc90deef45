//! Settings of the container's terminal (`ioctl_tty(2)`).
//!
//! The host's terminal does the line editing: it is given the settings programs ask for. Which processes are in its
//! foreground only the guest knows.

use alloc::sync::Arc;

use husk_abi::boundary::config::WindowSize;
use husk_abi::boundary::stdio::SETTINGS_BYTES;
use husk_abi::linux::general::{self, SIGWINCH, termios, winsize};
use husk_abi::linux::ioctl;
use spin::Once;

use super::anon::AnonInode;
use super::{FileOps, stdio};
use crate::host::Console;
use crate::sync::SpinLock;
use crate::tty::{Job, Tty, job};
use crate::user::UserAddr;
use crate::{Errno, Kernel, Result, SysResult, Thread};

impl Tty for Console {
    fn job(&self) -> &Job {
        &self.terminal.job
    }

    fn device(&self) -> u64 {
        stdio::terminal_number(self.terminal.number().unwrap_or(0))
    }

    fn open(self: Arc<Self>, t: &Thread) -> Result<Arc<dyn FileOps>> {
        stdio::open_session(t.kernel, self.session)
    }
}

/// A terminal.
#[derive(Debug)]
pub struct Terminal {
    state: SpinLock<State>,
    /// Whose it is.
    pub job: Job,
    /// Its number below `/dev/pts`.
    number: Once<u32>,
    /// Its device there.
    device: Once<Arc<AnonInode>>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    settings: termios,
    size: winsize,
}

/// A `struct termios` as its bytes.
fn settings_bytes(settings: &termios) -> [u8; SETTINGS_BYTES] {
    let mut bytes = [0; SETTINGS_BYTES];
    let flags = [
        settings.c_iflag,
        settings.c_oflag,
        settings.c_cflag,
        settings.c_lflag,
    ];
    for (field, flags) in bytes.chunks_exact_mut(4).zip(flags) {
        field.copy_from_slice(&flags.to_le_bytes());
    }
    bytes[16] = settings.c_line;
    bytes[17..].copy_from_slice(&settings.c_cc);
    bytes
}

/// Control characters as `stty sane` sets them: INTR QUIT ERASE KILL EOF TIME MIN SWTC START STOP SUSP EOL
/// REPRINT DISCARD WERASE LNEXT EOL2.
const CONTROL_CHARACTERS: [u8; 19] = [
    3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0, 0, 0,
];

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

impl Terminal {
    /// A terminal of no size, with Linux's initial settings.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: SpinLock::new(State {
                settings: termios {
                    c_iflag: general::ICRNL | general::IXON,
                    c_oflag: general::OPOST | general::ONLCR,
                    c_cflag: general::B38400 | general::CS8 | general::CREAD,
                    c_lflag: general::ISIG
                        | general::ICANON
                        | general::ECHO
                        | general::ECHOE
                        | general::ECHOK
                        | general::ECHOCTL
                        | general::ECHOKE
                        | general::IEXTEN,
                    c_line: 0,
                    c_cc: CONTROL_CHARACTERS,
                },
                size: winsize {
                    ws_row: 0,
                    ws_col: 0,
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                },
            }),
            job: Job::default(),
            number: Once::new(),
            device: Once::new(),
        }
    }

    /// Its number below `/dev/pts`; `None` until it has one.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.number.get().copied()
    }

    /// Gives it a number, unless it has one.
    pub fn set_number(&self, number: u32) {
        self.number.call_once(|| number);
    }

    /// Its device, which `make` makes the first time.
    pub fn device(&self, make: impl FnOnce() -> Arc<AnonInode>) -> Arc<AnonInode> {
        self.device.call_once(make).clone()
    }

    /// Becomes the terminal of session `session`, whose leader's group is in the foreground.
    pub fn belong_to(&self, session: u32) {
        self.job.belong_to(session, session);
    }

    /// Whether background processes that write to it are stopped (`TOSTOP`).
    #[must_use]
    pub fn stops_background_output(&self) -> bool {
        self.state.lock().settings.c_lflag & general::TOSTOP != 0
    }

    /// Sends `signo` to the foreground processes.
    pub fn signal(&self, kernel: &Kernel, signo: i32) {
        self.job.signal(kernel, signo.cast_unsigned());
    }

    /// Takes another size, and tells the foreground processes if it is one.
    pub fn resize(&self, kernel: &Kernel, size: WindowSize) {
        if self.take_size(size) {
            self.signal(kernel, SIGWINCH.cast_signed());
        }
    }

    /// Takes the size it has; true if it had another.
    pub fn take_size(&self, size: WindowSize) -> bool {
        let new = winsize {
            ws_row: size.rows,
            ws_col: size.columns,
            ws_xpixel: size.x_pixels,
            ws_ypixel: size.y_pixels,
        };
        let mut state = self.state.lock();
        let old = core::mem::replace(&mut state.size, new);
        (old.ws_row, old.ws_col, old.ws_xpixel, old.ws_ypixel)
            != (new.ws_row, new.ws_col, new.ws_xpixel, new.ws_ypixel)
    }

    /// `ioctl_tty(2)`.
    ///
    /// # Errors
    /// `ENOTTY` for requests it does not know, `EFAULT`, `EINVAL`.
    pub fn ioctl(
        &self,
        t: &Thread,
        console: &Arc<Console>,
        stream: u32,
        request: u32,
        arg: u64,
    ) -> SysResult {
        let arg = UserAddr(arg);
        let state = *self.state.lock();
        match request {
            ioctl::TCGETS => arg.write(&state.settings)?,
            ioctl::TCSETS | ioctl::TCSETSW | ioctl::TCSETSF => {
                job::check_change(t, &**console)?;
                let settings: termios = arg.read()?;
                console.set_settings(t, stream, &settings_bytes(&settings))?;
                self.state.lock().settings = settings;
            }
            ioctl::TIOCGWINSZ => arg.write(&state.size)?,
            ioctl::TIOCSWINSZ => {
                let size: winsize = arg.read()?;
                let size = WindowSize {
                    rows: size.ws_row,
                    columns: size.ws_col,
                    x_pixels: size.ws_xpixel,
                    y_pixels: size.ws_ypixel,
                };
                self.resize(t.kernel, size);
            }
            ioctl::TIOCGPGRP => arg.write(&job::foreground(t, &**console, false)?)?,
            ioctl::TIOCSPGRP => job::set_foreground(t, &**console, || arg.read::<i32>())?,
            ioctl::TIOCGSID => arg.write(&job::session(t, &**console, false)?)?,
            ioctl::TIOCSCTTY => job::set_controlling(t, console.clone(), true, arg.0)?,
            ioctl::TIOCNOTTY => job::give_up(t, &**console)?,
            ioctl::TCFLSH | ioctl::TCSBRK => {
                job::check_change(t, &**console)?;
                let argument = u32::try_from(arg.0).map_err(|_| Errno::EINVAL)?;
                console.control(t, stream, request, argument)?;
            }
            // Output that is held up could not be let go: what lets it go is queued behind it.
            ioctl::TCXONC => return Err(Errno::EINVAL),
            _ => return Err(Errno::ENOTTY),
        }
        Ok(0)
    }
}
