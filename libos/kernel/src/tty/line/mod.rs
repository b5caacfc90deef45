//! The line discipline: what happens to bytes between a terminal and its programs (`termios(3)`, Linux's `N_TTY`).
//!
//! Bytes in, bytes out, signals out: a [`Line`] neither locks nor waits. What it sends goes through a [`Driver`].
//!
//! | module | what |
//! | --- | --- |
//! | `input` | received bytes: signals, flow control, editing, lines |
//! | `erase` | the characters that take back what was typed |
//! | `output` | written bytes, and echoes |
//! | `read` | what programs get |

mod erase;
mod input;
mod output;
mod read;

use alloc::collections::VecDeque;

use husk_abi::linux::general::{self, EXTPROC, ICANON, IUTF8, IXON};

use super::settings::Settings;
use output::Echo;

/// Bytes of input a line holds; one of them is kept for the end of a line.
pub const CAPACITY: usize = 4096;

/// What a line discipline sends to, and tells.
pub trait Driver {
    /// Bytes that [`Driver::send`] takes now.
    fn room(&self) -> usize;

    /// Sends bytes to the terminal.
    fn send(&mut self, bytes: &[u8]);

    /// Drops what was sent and has not arrived.
    fn discard(&mut self);

    /// Sends a signal to the foreground processes.
    fn signal(&mut self, signo: u32);

    /// Tells the terminal, if it wants to know, of a change (`TIOCPKT_*` of `ioctl_tty(2)`); `clear` is no longer so.
    fn report(&mut self, set: u32, clear: u32);
}

/// A byte of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    byte: u8,
    /// It ends a line. An end that is [`super::settings::DISABLED`] is the end of file and no byte.
    ends: bool,
}

/// A line discipline.
#[derive(Debug, Default)]
pub struct Line {
    settings: Settings,
    input: VecDeque<Cell>,
    /// How many cells, from the first on, are lines that can be read.
    complete: usize,
    /// Where the next byte is shown, and where the line that is being typed began.
    column: usize,
    first_column: usize,
    echoes: VecDeque<Echo>,
    /// Erased characters are being shown between `\` and `/` (`ECHOPRT`).
    is_erasing: bool,
    /// The next byte is no control character (`VLNEXT`).
    is_literal: bool,
    is_stopped: bool,
    is_stopped_by_program: bool,
}

impl Line {
    /// A line with these settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether programs read line by line.
    fn reads_lines(&self) -> bool {
        self.settings.is_canonical() && !self.settings.has_local(EXTPROC)
    }

    /// Whether `byte` goes on a character of several bytes.
    fn continues_character(&self, byte: u8) -> bool {
        self.settings.has_input(IUTF8) && byte & 0xc0 == 0x80
    }

    /// Gives it other settings.
    pub fn set_settings(&mut self, new: Settings, driver: &mut impl Driver) {
        let old = core::mem::replace(&mut self.settings, new);
        self.report_settings(&old, driver);
        if (old.local ^ new.local) & (ICANON | EXTPROC) != 0 {
            for cell in &mut self.input {
                cell.ends = false;
            }
            // What came before there were lines is one, though nothing ends it.
            self.complete = if new.is_canonical() {
                self.input.len()
            } else {
                0
            };
            if self.complete > 0
                && let Some(last) = self.input.back_mut()
            {
                last.ends = true;
            }
            self.is_erasing = false;
            self.is_literal = false;
        }
        if old.has_input(IXON) && !new.has_input(IXON) && !self.is_stopped_by_program {
            self.start(driver);
        }
    }

    fn report_settings(&self, old: &Settings, driver: &mut impl Driver) {
        let (was, is) = (
            old.has_plain_flow_control(),
            self.settings.has_plain_flow_control(),
        );
        const BOTH: u32 = general::TIOCPKT_DOSTOP | general::TIOCPKT_NOSTOP;
        if was != is {
            let set = if is {
                general::TIOCPKT_DOSTOP
            } else {
                general::TIOCPKT_NOSTOP
            };
            driver.report(set, BOTH);
        }
        if (old.local | self.settings.local) & EXTPROC != 0 {
            driver.report(general::TIOCPKT_IOCTL, 0);
        }
    }

    /// Forgets what was received and not read.
    pub fn flush_input(&mut self, driver: &mut impl Driver) {
        self.forget_input();
        driver.report(general::TIOCPKT_FLUSHREAD, 0);
    }

    fn forget_input(&mut self) {
        self.input.clear();
        self.complete = 0;
        self.is_erasing = false;
    }

    /// Forgets what was written and has not arrived.
    pub fn flush_output(&mut self, driver: &mut impl Driver) {
        driver.discard();
        driver.report(general::TIOCPKT_FLUSHWRITE, 0);
    }

    /// Whether output is held back.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    fn stop(&mut self, driver: &mut impl Driver) {
        if !self.is_stopped {
            self.is_stopped = true;
            driver.report(general::TIOCPKT_STOP, general::TIOCPKT_START);
        }
    }

    fn start(&mut self, driver: &mut impl Driver) {
        if self.is_stopped && !self.is_stopped_by_program {
            self.is_stopped = false;
            driver.report(general::TIOCPKT_START, general::TIOCPKT_STOP);
        }
        self.show_echoes(driver);
    }

    /// A program holds output back or lets it go on (`TCXONC`).
    pub fn hold(&mut self, on: bool, driver: &mut impl Driver) {
        if on == self.is_stopped_by_program {
            return;
        }
        self.is_stopped_by_program = on;
        if on {
            self.stop(driver);
        } else {
            self.start(driver);
        }
    }

    /// Becomes as new, with initial settings (a hangup).
    pub fn reset(&mut self) {
        *self = Self::new(Settings::default());
    }

    /// Bytes that can be written now.
    #[must_use]
    pub fn room(&self, driver: &impl Driver) -> usize {
        if self.is_stopped { 0 } else { driver.room() }
    }
}

#[cfg(test)]
mod tests;
