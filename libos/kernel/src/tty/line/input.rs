//! Received bytes.

use husk_abi::linux::general::{
    ECHO, ECHOCTL, ECHONL, EXTPROC, ICRNL, IEXTEN, IGNCR, INLCR, ISIG, ISTRIP, IUCLC, IXANY, IXON,
    NOFLSH, PARMRK, SIGINT, SIGQUIT, SIGTSTP, TIOCPKT_FLUSHREAD, VEOF, VEOL, VEOL2, VERASE, VINTR,
    VKILL, VLNEXT, VQUIT, VREPRINT, VSTART, VSTOP, VSUSP, VWERASE,
};

use super::output::Echo;
use super::{CAPACITY, Cell, Driver, Line};
use crate::tty::settings::DISABLED;

/// What makes a byte more than itself.
const MEANINGS: u32 = ISTRIP | IUCLC | IGNCR | ICRNL | INLCR | IXON | PARMRK;

impl Line {
    /// Takes bytes the terminal has sent; returns how many, fewer if there is no room.
    pub fn receive(&mut self, bytes: &[u8], driver: &mut impl Driver) -> usize {
        let taken = if self.is_raw() {
            let room = (CAPACITY - 1).saturating_sub(self.input.len());
            let taken = bytes.len().min(room);
            let cells = bytes[..taken].iter().map(|byte| Cell {
                byte: *byte,
                ends: false,
            });
            self.input.extend(cells);
            taken
        } else {
            let fit = |byte: &&u8| {
                let fits = self.make_room();
                if fits {
                    self.receive_byte(**byte, driver);
                }
                fits
            };
            bytes.iter().take_while(fit).count()
        };
        self.show_echoes(driver);
        taken
    }

    /// Whether received bytes are only stored.
    fn is_raw(&self) -> bool {
        let settings = &self.settings;
        let plain =
            settings.input & MEANINGS == 0 && !settings.has_local(ISIG | ECHO) && !self.is_literal;
        let outside = settings.has_local(EXTPROC) && !settings.has_input(ISTRIP | IUCLC);
        plain && !settings.is_canonical() || outside && !settings.is_canonical()
    }

    /// Whether another byte may be received. A line that has grown too long loses its last byte to the next, so that it can
    /// be ended.
    fn make_room(&mut self) -> bool {
        let mut left = CAPACITY - self.input.len().min(CAPACITY);
        let full = left == 0;
        if self.settings.has_input(PARMRK) {
            left = left.div_ceil(3);
        }
        if left > 1 {
            return true;
        }
        let overflows = self.settings.is_canonical() && self.complete == 0;
        if overflows && full {
            self.input.pop_back();
        }
        overflows
    }

    fn push(&mut self, byte: u8, ends: bool) {
        self.input.push_back(Cell { byte, ends });
    }

    /// Stores a byte, twice if one alone would be a mark.
    fn store(&mut self, byte: u8) {
        if byte == 0xff && self.settings.has_input(PARMRK) {
            self.push(byte, false);
        }
        self.push(byte, false);
    }

    fn receive_byte(&mut self, mut byte: u8, driver: &mut impl Driver) {
        let settings = self.settings;
        if settings.has_input(ISTRIP) {
            byte &= 0x7f;
        }
        if settings.has_input(IUCLC) && settings.has_local(IEXTEN) {
            byte = to_lower(byte);
        }
        if settings.has_local(EXTPROC) {
            return self.push(byte, false);
        }
        if core::mem::take(&mut self.is_literal) {
            self.start_by_any(driver);
            return self.receive_plain(byte, false, driver);
        }
        if settings.has_input(IXON) {
            if settings.is(byte, VSTART) {
                return self.start(driver);
            }
            if settings.is(byte, VSTOP) {
                return self.stop(driver);
            }
        }
        if settings.has_local(ISIG) {
            let signals = [(VINTR, SIGINT), (VQUIT, SIGQUIT), (VSUSP, SIGTSTP)];
            let signal = signals.iter().find(|(index, _)| settings.is(byte, *index));
            if let Some((_, signo)) = signal {
                return self.receive_signal(byte, *signo, driver);
            }
        }
        self.start_by_any(driver);
        let is_return = byte == b'\r';
        match byte {
            b'\r' if settings.has_input(IGNCR) => return,
            b'\r' if settings.has_input(ICRNL) => byte = b'\n',
            b'\n' if settings.has_input(INLCR) => byte = b'\r',
            _ => {}
        }
        if settings.is_canonical() && self.edit(byte, driver) {
            return;
        }
        self.receive_plain(byte, is_return, driver);
    }

    /// Any key lets output go on (`IXANY`).
    fn start_by_any(&mut self, driver: &mut impl Driver) {
        let settings = &self.settings;
        if self.is_stopped && settings.has_input(IXON) && settings.has_input(IXANY) {
            self.start(driver);
        }
    }

    /// A byte that means nothing but itself. A newline that was typed as carriage return is shown as one.
    fn receive_plain(&mut self, byte: u8, is_return: bool, driver: &mut impl Driver) {
        if self.settings.has_local(ECHO) {
            self.finish_erasing();
            if byte == b'\n' && is_return {
                self.echo(Echo::Byte(b'\n'));
            } else {
                self.note_first_column();
                self.echo_visibly(byte);
            }
            self.commit_echoes(driver);
        }
        self.store(byte);
    }

    fn receive_signal(&mut self, byte: u8, signo: u32, driver: &mut impl Driver) {
        driver.signal(signo);
        if !self.settings.has_local(NOFLSH) {
            self.echoes.clear();
            self.flush_output(driver);
            self.forget_input();
            driver.report(TIOCPKT_FLUSHREAD, 0);
        }
        if self.settings.has_input(IXON) {
            self.start(driver);
        }
        if self.settings.has_local(ECHO) {
            self.echo_visibly(byte);
            self.commit_echoes(driver);
        } else {
            self.show_echoes(driver);
        }
    }

    /// Edits the line; whether that was all `byte` meant.
    fn edit(&mut self, byte: u8, driver: &mut impl Driver) -> bool {
        let settings = self.settings;
        let is_extended = settings.has_local(IEXTEN);
        let echoes = settings.has_local(ECHO);
        let is = |index: u32| settings.is(byte, index);
        if is(VERASE) || is(VKILL) || is_extended && is(VWERASE) {
            self.erase(byte);
            self.commit_echoes(driver);
            return true;
        }
        if is_extended && is(VLNEXT) {
            self.is_literal = true;
            if echoes {
                self.finish_erasing();
                if settings.has_local(ECHOCTL) {
                    self.echo(Echo::Byte(b'^'));
                    self.echo(Echo::Byte(b'\x08'));
                    self.commit_echoes(driver);
                }
            }
            return true;
        }
        if is_extended && echoes && is(VREPRINT) {
            self.reprint(byte);
            self.commit_echoes(driver);
            return true;
        }
        let (stored, shown) = if byte == b'\n' {
            let shown = settings.has_local(ECHO | ECHONL);
            (byte, shown.then_some(Echo::Byte(byte)))
        } else if is(VEOF) {
            (DISABLED, None)
        } else if is(VEOL) || is_extended && is(VEOL2) {
            if echoes {
                self.note_first_column();
            }
            (byte, echoes.then(|| self.visible(byte)))
        } else {
            return false;
        };
        if let Some(echo) = shown {
            self.echo(echo);
            self.commit_echoes(driver);
        }
        if stored == 0xff && settings.has_input(PARMRK) {
            self.push(stored, false);
        }
        self.push(stored, true);
        self.complete = self.input.len();
        true
    }

    /// Shows the line again, on one of its own.
    fn reprint(&mut self, byte: u8) {
        self.finish_erasing();
        self.echo_visibly(byte);
        self.echo(Echo::Byte(b'\n'));
        for at in self.complete..self.input.len() {
            self.echo_visibly(self.input[at].byte);
        }
    }
}

/// The small letter, of ASCII and Latin-1, as Linux's tables have it.
pub(super) fn to_lower(byte: u8) -> u8 {
    if is_upper(byte) { byte + 32 } else { byte }
}

/// The capital letter.
pub(super) fn to_upper(byte: u8) -> u8 {
    if is_lower(byte) { byte - 32 } else { byte }
}

fn is_upper(byte: u8) -> bool {
    byte.is_ascii_uppercase() || matches!(byte, 0xc0..=0xd6 | 0xd8..=0xde)
}

fn is_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || matches!(byte, 0xdf..=0xf6 | 0xf8..=0xff)
}

/// Whether it is a letter or a digit.
pub(super) fn is_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_digit() || is_upper(byte) || is_lower(byte)
}
