//! Settings of the container's terminal (`ioctl_tty(2)`).
//!
//! The host's terminal does the line editing; the guest keeps the settings programs ask for.

use husk_abi::linux::general::{self, termios, winsize};
use husk_abi::linux::ioctl;

use crate::sync::SpinLock;
use crate::user::UserAddr;
use crate::{Errno, SysResult, Thread};

/// A terminal.
#[derive(Debug)]
pub struct Terminal {
    state: SpinLock<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    settings: termios,
    size: winsize,
    foreground: u32,
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
    /// A terminal of 80 by 24 characters with Linux's initial settings.
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
                    ws_row: 24,
                    ws_col: 80,
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                },
                foreground: 1,
            }),
        }
    }

    /// `ioctl_tty(2)`.
    ///
    /// # Errors
    /// `ENOTTY` for requests it does not know, `EFAULT`, `EINVAL`.
    pub fn ioctl(&self, t: &Thread, request: u32, arg: u64) -> SysResult {
        let arg = UserAddr(arg);
        let state = *self.state.lock();
        match request {
            ioctl::TCGETS => arg.write(&state.settings)?,
            ioctl::TCSETS | ioctl::TCSETSW | ioctl::TCSETSF => {
                let settings = arg.read()?;
                self.state.lock().settings = settings;
            }
            ioctl::TIOCGWINSZ => arg.write(&state.size)?,
            ioctl::TIOCSWINSZ => {
                let size = arg.read()?;
                self.state.lock().size = size;
            }
            ioctl::TIOCGPGRP => arg.write(&state.foreground)?,
            ioctl::TIOCSPGRP => {
                let group: i32 = arg.read()?;
                let group = u32::try_from(group).map_err(|_| Errno::EINVAL)?;
                self.state.lock().foreground = group;
            }
            ioctl::TIOCGSID => arg.write(&t.process.sid())?,
            ioctl::TCFLSH | ioctl::TCSBRK | ioctl::TCXONC => {}
            _ => return Err(Errno::ENOTTY),
        }
        Ok(0)
    }
}
