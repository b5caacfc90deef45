//! Settings of a terminal (`termios(3)`), and the three forms programs pass them in.

use husk_abi::linux::general::{
    self, B38400, CBAUD, CS8, CSIZE, ECHO, ECHOCTL, ECHOE, ECHOK, ECHOKE, ICANON, ICRNL, IEXTEN,
    ISIG, IXON, ONLCR, OPOST, PARENB, termio, termios, termios2,
};

/// Control characters a terminal starts with: INTR QUIT ERASE KILL EOF TIME MIN SWTC START STOP SUSP EOL REPRINT DISCARD
/// WERASE LNEXT EOL2.
const CONTROL_CHARACTERS: [u8; 19] = [
    3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0, 0, 0,
];

/// A control character with this value does not exist (`_POSIX_VDISABLE`).
pub const DISABLED: u8 = 0;

/// Bits per second of the codes in `CBAUD`, in order; those after the first 16 have `CBAUDEX`.
const SPEEDS: [u32; 31] = [
    0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400, 57600,
    115_200, 230_400, 460_800, 500_000, 576_000, 921_600, 1_000_000, 1_152_000, 1_500_000,
    2_000_000, 2_500_000, 3_000_000, 3_500_000, 4_000_000,
];

/// Settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `c_iflag`.
    pub input: u32,
    /// `c_oflag`.
    pub output: u32,
    /// `c_cflag`.
    pub control: u32,
    /// `c_lflag`.
    pub local: u32,
    /// `c_line`, of which nothing depends.
    pub discipline: u8,
    /// `c_cc`.
    pub characters: [u8; 19],
    /// Bits per second in, of which nothing depends.
    pub input_speed: u32,
    /// Bits per second out, likewise.
    pub output_speed: u32,
}

impl Default for Settings {
    /// Linux's initial settings.
    fn default() -> Self {
        Self {
            input: ICRNL | IXON,
            output: OPOST | ONLCR,
            control: B38400 | CS8 | general::CREAD,
            local: ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN,
            discipline: 0,
            characters: CONTROL_CHARACTERS,
            input_speed: 38400,
            output_speed: 38400,
        }
    }
}

/// The speed a code in the bits of `CBAUD` stands for; `other` for `BOTHER`.
fn speed(code: u32, other: u32) -> u32 {
    const EXTENDED: u32 = general::CBAUDEX;
    if code == general::BOTHER {
        return other;
    }
    let index = if code & EXTENDED != 0 {
        (code & !EXTENDED) + 15
    } else {
        code
    };
    // Codes that mean nothing are taken for the fastest, as Linux does it.
    let last = SPEEDS[SPEEDS.len() - 1];
    SPEEDS.get(index as usize).copied().unwrap_or(last)
}

impl Settings {
    /// A control character (`V*`).
    #[must_use]
    pub fn character(&self, index: u32) -> u8 {
        self.characters
            .get(index as usize)
            .copied()
            .unwrap_or(DISABLED)
    }

    /// Whether `byte` is the control character `index`, and that exists.
    #[must_use]
    pub fn is(&self, byte: u8, index: u32) -> bool {
        byte != DISABLED && self.character(index) == byte
    }

    /// Whether any bit of `flag` is set in `c_iflag`.
    #[must_use]
    pub fn has_input(&self, flag: u32) -> bool {
        self.input & flag != 0
    }

    /// Whether any bit of `flag` is set in `c_oflag`.
    #[must_use]
    pub fn has_output(&self, flag: u32) -> bool {
        self.output & flag != 0
    }

    /// Whether any bit of `flag` is set in `c_lflag`.
    #[must_use]
    pub fn has_local(&self, flag: u32) -> bool {
        self.local & flag != 0
    }

    /// Whether input comes by lines.
    #[must_use]
    pub fn is_canonical(&self) -> bool {
        self.has_local(ICANON)
    }

    /// Whether `XON` and `XOFF` are `^Q` and `^S` and work: what packet mode tells the master.
    #[must_use]
    pub fn has_plain_flow_control(&self) -> bool {
        self.has_input(IXON)
            && self.character(general::VSTOP) == 0o23
            && self.character(general::VSTART) == 0o21
    }

    /// What a pseudo-terminal makes of settings: bytes have eight bits and no parity.
    #[must_use]
    pub fn for_pseudo_terminal(mut self) -> Self {
        self.control = self.control & !(CSIZE | PARENB) | CS8 | general::CREAD;
        self
    }

    fn with_speeds(mut self) -> Self {
        self.output_speed = speed(self.control & CBAUD, self.output_speed);
        self.input_speed = match self.control >> general::IBSHIFT & CBAUD {
            0 => self.output_speed,
            code => speed(code, self.input_speed),
        };
        self
    }

    /// These, changed by a `struct termios`.
    #[must_use]
    pub fn changed_by(&self, new: &termios) -> Self {
        Self {
            input: new.c_iflag,
            output: new.c_oflag,
            control: new.c_cflag,
            local: new.c_lflag,
            discipline: new.c_line,
            characters: new.c_cc,
            ..*self
        }
        .with_speeds()
    }

    /// These, changed by a `struct termios2`.
    #[must_use]
    pub fn changed_by_2(&self, new: &termios2) -> Self {
        Self {
            input: new.c_iflag,
            output: new.c_oflag,
            control: new.c_cflag,
            local: new.c_lflag,
            discipline: new.c_line,
            characters: new.c_cc,
            input_speed: new.c_ispeed,
            output_speed: new.c_ospeed,
        }
        .with_speeds()
    }

    /// These, changed by System V's `struct termio`, which holds the lower halves only.
    #[must_use]
    pub fn changed_by_old(&self, new: &termio) -> Self {
        let low = |old: u32, new: u16| old & 0xffff_0000 | u32::from(new);
        let mut characters = self.characters;
        characters[..new.c_cc.len()].copy_from_slice(&new.c_cc);
        Self {
            input: low(self.input, new.c_iflag),
            output: low(self.output, new.c_oflag),
            control: low(self.control, new.c_cflag),
            local: low(self.local, new.c_lflag),
            discipline: new.c_line,
            characters,
            ..*self
        }
        .with_speeds()
    }

    /// As a `struct termios`.
    #[must_use]
    pub fn to_termios(&self) -> termios {
        termios {
            c_iflag: self.input,
            c_oflag: self.output,
            c_cflag: self.control,
            c_lflag: self.local,
            c_line: self.discipline,
            c_cc: self.characters,
        }
    }

    /// As a `struct termios2`.
    #[must_use]
    pub fn to_termios2(&self) -> termios2 {
        termios2 {
            c_iflag: self.input,
            c_oflag: self.output,
            c_cflag: self.control,
            c_lflag: self.local,
            c_line: self.discipline,
            c_cc: self.characters,
            c_ispeed: self.input_speed,
            c_ospeed: self.output_speed,
        }
    }

    /// As a `struct termio`.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the format has 16 bits")]
    pub fn to_termio(&self) -> termio {
        let mut c_cc = [0; general::NCC as usize];
        let len = c_cc.len();
        c_cc.copy_from_slice(&self.characters[..len]);
        termio {
            c_iflag: self.input as u16,
            c_oflag: self.output as u16,
            c_cflag: self.control as u16,
            c_lflag: self.local as u16,
            c_line: self.discipline,
            c_cc,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_follow_their_codes() {
        let mut new = Settings::default().to_termios2();
        let speeds = |new: &termios2| {
            let settings = Settings::default().changed_by_2(new);
            (settings.input_speed, settings.output_speed)
        };
        (new.c_ispeed, new.c_ospeed) = (7, 9);
        assert_eq!(speeds(&new), (38400, 38400));
        new.c_cflag = new.c_cflag & !CBAUD | general::B115200;
        assert_eq!(speeds(&new), (115_200, 115_200));
        new.c_cflag |= general::B1200 << general::IBSHIFT;
        assert_eq!(speeds(&new), (1200, 115_200));
        new.c_cflag = new.c_cflag & !(CBAUD | general::CIBAUD)
            | general::BOTHER
            | general::BOTHER << general::IBSHIFT;
        assert_eq!(speeds(&new), (7, 9));
        new.c_cflag = general::B4000000;
        assert_eq!(speeds(&new), (4_000_000, 4_000_000));
    }

    #[test]
    fn system_v_s_form_leaves_what_it_does_not_hold() {
        let mut settings = Settings::default();
        settings.local |= general::EXTPROC;
        settings.characters[general::VEOL2 as usize] = 9;
        let mut old = settings.to_termio();
        old.c_lflag = 0;
        old.c_cc[0] = 5;
        let changed = settings.changed_by_old(&old);
        assert_eq!(changed.local, general::EXTPROC);
        assert_eq!(changed.character(general::VINTR), 5);
        assert_eq!(changed.character(general::VEOL2), 9);
    }

    #[test]
    fn pseudo_terminals_have_eight_bits() {
        let settings = Settings {
            control: general::B38400 | general::CS7 | PARENB,
            ..Settings::default()
        };
        assert_eq!(
            settings.for_pseudo_terminal().control,
            B38400 | CS8 | general::CREAD
        );
    }

    #[test]
    fn a_character_that_is_zero_does_not_exist() {
        let settings = Settings::default();
        assert!(settings.is(3, general::VINTR) && !settings.is(0, general::VEOL));
    }
}
