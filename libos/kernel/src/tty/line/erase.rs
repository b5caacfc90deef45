//! The characters that take back what was typed: `VERASE`, `VWERASE`, `VKILL`.

use husk_abi::linux::general::{
    ECHO, ECHOCTL, ECHOE, ECHOK, ECHOKE, ECHOPRT, VERASE, VKILL, VWERASE,
};

use super::Line;
use super::input::is_alphanumeric;
use super::output::Echo;

/// How much is taken back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Character,
    Word,
    Line,
}

impl Line {
    /// Takes back what `byte` says, and shows it.
    pub(super) fn erase(&mut self, byte: u8) {
        if self.input.len() == self.complete {
            return;
        }
        let settings = self.settings;
        let extent = if settings.is(byte, VERASE) {
            Extent::Character
        } else if settings.is(byte, VWERASE) {
            Extent::Word
        } else {
            Extent::Line
        };
        if extent == Extent::Line {
            if !settings.has_local(ECHO) {
                return self.input.truncate(self.complete);
            }
            let wipes = [ECHOK, ECHOKE, ECHOE];
            if !wipes.iter().all(|flag| settings.has_local(*flag)) {
                self.input.truncate(self.complete);
                self.finish_erasing();
                self.echo_visibly(settings.character(VKILL));
                if settings.has_local(ECHOK) {
                    self.echo(Echo::Byte(b'\n'));
                }
                return;
            }
        }
        let mut in_word = false;
        while self.input.len() > self.complete {
            let Some(start) = self.last_character() else {
                break;
            };
            let first = self.input[start].byte;
            if extent == Extent::Word {
                if is_alphanumeric(first) || first == b'_' {
                    in_word = true;
                } else if in_word {
                    break;
                }
            }
            if settings.has_local(ECHO) {
                self.show_erased(start, extent);
            }
            self.input.truncate(start);
            if extent == Extent::Character {
                break;
            }
        }
        if self.input.len() == self.complete && settings.has_local(ECHO) {
            self.finish_erasing();
        }
    }

    /// Where the last character of the line begins; `None` if its beginning is not there.
    fn last_character(&self) -> Option<usize> {
        (self.complete..self.input.len())
            .rev()
            .find(|at| !self.continues_character(self.input[*at].byte))
    }

    /// Shows that the character that begins at `start` is gone.
    fn show_erased(&mut self, start: usize, extent: Extent) {
        let settings = self.settings;
        let byte = self.input[start].byte;
        if settings.has_local(ECHOPRT) {
            if !self.is_erasing {
                self.echo(Echo::Byte(b'\\'));
                self.is_erasing = true;
            }
            self.echo_visibly(byte);
            for at in start + 1..self.input.len() {
                self.echo(Echo::Byte(self.input[at].byte));
                self.echo(Echo::Back);
            }
        } else if extent == Extent::Character && !settings.has_local(ECHOE) {
            self.echo_visibly(settings.character(VERASE));
        } else if byte == b'\t' {
            let (columns, after_tab) = self.columns_before(start);
            self.echo(Echo::EraseTab { columns, after_tab });
        } else {
            let is_control = byte.is_ascii_control();
            let shows_control = settings.has_local(ECHOCTL);
            let width = match (is_control, shows_control) {
                (false, _) => 1,
                (true, true) => 2,
                (true, false) => 0,
            };
            for echo in b"\x08 \x08".repeat(width) {
                self.echo(Echo::Byte(echo));
            }
        }
    }

    /// Columns the characters before `end` take up since the line began, or since the tab before them if there is one.
    fn columns_before(&self, end: usize) -> (usize, bool) {
        let mut columns = 0;
        for at in (self.complete..end).rev() {
            let byte = self.input[at].byte;
            if byte == b'\t' {
                return (columns, true);
            }
            if byte.is_ascii_control() {
                columns += if self.settings.has_local(ECHOCTL) {
                    2
                } else {
                    0
                };
            } else if !self.continues_character(byte) {
                columns += 1;
            }
        }
        (columns, false)
    }

    /// Ends showing erased characters.
    pub(super) fn finish_erasing(&mut self) {
        if core::mem::take(&mut self.is_erasing) {
            self.echo(Echo::Byte(b'/'));
        }
    }
}
