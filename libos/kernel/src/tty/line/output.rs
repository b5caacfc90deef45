//! Written bytes, and echoes of received ones.

use alloc::vec::Vec;

use husk_abi::linux::general::{ECHOCTL, OCRNL, OLCUC, ONLCR, ONLRET, ONOCR, OPOST, TABDLY, XTABS};

use super::input::to_upper;
use super::{Driver, Line};

/// Echoes that wait; older ones are lost then.
const MAX_ECHOES: usize = 4096 - 512;
/// So many are shown though more bytes are being received.
const MANY_ECHOES: usize = 256;
/// Columns between tab stops.
const TAB: usize = 8;

/// Something to be shown that was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Echo {
    /// A byte, which output processing sees.
    Byte(u8),
    /// A control character as `^` and a letter.
    Control(u8),
    /// A tab, that many columns after the line's beginning or after another tab, is gone.
    EraseTab { columns: usize, after_tab: bool },
    /// Here the line that is being typed begins.
    FirstColumn,
    /// The last byte took up no column.
    Back,
}

/// Bytes on their way to the driver.
struct Staged {
    bytes: Vec<u8>,
    room: usize,
}

impl Staged {
    fn left(&self) -> usize {
        self.room - self.bytes.len()
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

impl Line {
    /// Writes bytes; returns how many, fewer if there is no room.
    pub fn write(&mut self, bytes: &[u8], driver: &mut impl Driver) -> usize {
        self.show_echoes(driver);
        let room = self.room(driver);
        if !self.settings.has_output(OPOST) {
            let taken = bytes.len().min(room);
            driver.send(&bytes[..taken]);
            return taken;
        }
        let mut staged = Staged {
            bytes: Vec::with_capacity(bytes.len() + bytes.len() / 8),
            room,
        };
        let mut taken = 0;
        while let [byte, ..] = bytes[taken..] {
            let plain = self.plain(&bytes[taken..]).min(staged.left());
            if plain > 0 {
                staged.push(&bytes[taken..taken + plain]);
                self.column += plain;
                taken += plain;
            } else if self.process(byte, &mut staged) {
                taken += 1;
            } else {
                break;
            }
        }
        driver.send(&staged.bytes);
        taken
    }

    /// How many bytes at the beginning stay what they are and take up a column each.
    fn plain(&self, bytes: &[u8]) -> usize {
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~');
        if self.settings.has_output(OLCUC) {
            return 0;
        }
        bytes
            .iter()
            .position(|byte| !is_plain(byte))
            .unwrap_or(bytes.len())
    }

    /// Processes a byte of output; false if there is no room for what it becomes.
    fn process(&mut self, byte: u8, staged: &mut Staged) -> bool {
        if staged.left() == 0 {
            return false;
        }
        let settings = self.settings;
        let mut sent = byte;
        match byte {
            b'\n' => {
                if settings.has_output(ONLRET) {
                    self.column = 0;
                }
                if settings.has_output(ONLCR) {
                    if staged.left() < 2 {
                        return false;
                    }
                    (self.column, self.first_column) = (0, 0);
                    staged.push(b"\r\n");
                    return true;
                }
                self.first_column = self.column;
            }
            b'\r' if settings.has_output(ONOCR) && self.column == 0 => return true,
            b'\r' if settings.has_output(OCRNL) => {
                sent = b'\n';
                if settings.has_output(ONLRET) {
                    (self.column, self.first_column) = (0, 0);
                }
            }
            b'\r' => (self.column, self.first_column) = (0, 0),
            b'\t' => {
                let width = TAB - self.column % TAB;
                if settings.output & TABDLY == XTABS {
                    if staged.left() < width {
                        return false;
                    }
                    self.column += width;
                    staged.push(&b"        "[..width]);
                    return true;
                }
                self.column += width;
            }
            b'\x08' => self.column = self.column.saturating_sub(1),
            _ if byte.is_ascii_control() => {}
            _ => {
                if settings.has_output(OLCUC) {
                    sent = to_upper(byte);
                }
                if !self.continues_character(byte) {
                    self.column += 1;
                }
            }
        }
        staged.push(&[sent]);
        true
    }

    /// How a received byte is shown.
    pub(super) fn visible(&self, byte: u8) -> Echo {
        if self.settings.has_local(ECHOCTL) && byte.is_ascii_control() && byte != b'\t' {
            Echo::Control(byte)
        } else {
            Echo::Byte(byte)
        }
    }

    /// Shows a received byte.
    pub(super) fn echo_visibly(&mut self, byte: u8) {
        self.echo(self.visible(byte));
    }

    /// Notes where the line begins, if nothing of it was typed yet.
    pub(super) fn note_first_column(&mut self) {
        if self.input.len() == self.complete {
            self.echo(Echo::FirstColumn);
        }
    }

    pub(super) fn echo(&mut self, echo: Echo) {
        if self.echoes.len() >= MAX_ECHOES {
            self.echoes.pop_front();
        }
        self.echoes.push_back(echo);
    }

    /// An echo is complete. It is shown when all that came with it is received, unless that is much.
    pub(super) fn commit_echoes(&mut self, driver: &mut impl Driver) {
        if self.echoes.len() >= MANY_ECHOES {
            self.show_echoes(driver);
        }
    }

    /// Shows echoes, as many as there is room for.
    pub(super) fn show_echoes(&mut self, driver: &mut impl Driver) {
        if self.echoes.is_empty() {
            return;
        }
        let mut staged = Staged {
            bytes: Vec::new(),
            room: self.room(driver),
        };
        while let Some(echo) = self.echoes.front().copied() {
            if !self.show(echo, &mut staged) {
                break;
            }
            self.echoes.pop_front();
        }
        driver.send(&staged.bytes);
    }

    /// Shows an echo; false if there is no room.
    fn show(&mut self, echo: Echo, staged: &mut Staged) -> bool {
        match echo {
            Echo::Byte(byte) if self.settings.has_output(OPOST) => {
                return self.process(byte, staged);
            }
            Echo::Byte(_) if staged.left() == 0 => return false,
            Echo::Byte(byte) => staged.push(&[byte]),
            Echo::Control(_) if staged.left() < 2 => return false,
            Echo::Control(byte) => {
                staged.push(&[b'^', byte ^ 0o100]);
                self.column += 2;
            }
            Echo::EraseTab { columns, after_tab } => {
                let start = if after_tab { 0 } else { self.first_column };
                let width = TAB - (columns + start) % TAB;
                if staged.left() < width {
                    return false;
                }
                staged.push(&b"\x08\x08\x08\x08\x08\x08\x08\x08"[..width]);
                self.column = self.column.saturating_sub(width);
            }
            Echo::FirstColumn => self.first_column = self.column,
            Echo::Back => self.column = self.column.saturating_sub(1),
        }
        true
    }
}
