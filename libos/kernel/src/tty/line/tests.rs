//! What is typed, what is shown, what is read.

use husk_abi::linux::general::*;

use super::super::settings::Settings;
use super::{CAPACITY, Driver, Line};

/// A terminal that keeps what it is sent.
#[derive(Debug)]
struct Screen {
    shown: Vec<u8>,
    room: usize,
    signals: Vec<u32>,
    status: u32,
}

impl Driver for Screen {
    fn room(&self) -> usize {
        self.room
    }

    fn send(&mut self, bytes: &[u8]) {
        self.room -= bytes.len();
        self.shown.extend_from_slice(bytes);
    }

    fn discard(&mut self) {}

    fn signal(&mut self, signo: u32) {
        self.signals.push(signo);
    }

    fn report(&mut self, set: u32, clear: u32) {
        self.status = self.status & !clear | set;
    }
}

struct Rig {
    line: Line,
    screen: Screen,
}

impl Rig {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::default();
        change(&mut settings);
        Self {
            line: Line::new(settings),
            screen: Screen {
                shown: Vec::new(),
                room: 1 << 20,
                signals: Vec::new(),
                status: 0,
            },
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Settings)) {
        let mut settings = *self.line.settings();
        change(&mut settings);
        self.line.set_settings(settings, &mut self.screen);
    }

    /// Types each byte on its own, as a person does.
    fn types(&mut self, bytes: &[u8]) -> &mut Self {
        for byte in bytes {
            self.line
                .receive(core::slice::from_ref(byte), &mut self.screen);
        }
        self
    }

    fn writes(&mut self, bytes: &[u8]) -> usize {
        self.line.write(bytes, &mut self.screen)
    }

    fn shown(&mut self) -> String {
        let shown = core::mem::take(&mut self.screen.shown);
        shown.escape_ascii().to_string()
    }

    fn reads(&mut self, most: usize) -> String {
        let mut bytes = Vec::new();
        self.line.read(&mut bytes, most);
        bytes.escape_ascii().to_string()
    }
}

fn canonical() -> Rig {
    Rig::new(|_| {})
}

#[test]
fn a_line_is_shown_and_read_when_it_ends() {
    let mut rig = canonical();
    rig.types(b"ab");
    assert!(!rig.line.has_input() && rig.line.available() == 0);
    rig.types(b"c\rd");
    assert_eq!(rig.shown(), r"abc\r\nd");
    assert!(rig.line.has_input() && rig.line.available() == 4);
    assert_eq!(rig.reads(2), "ab");
    assert_eq!(rig.reads(100), r"c\n");
    assert!(!rig.line.has_input());
}

#[test]
fn one_read_gets_one_line() {
    let mut rig = canonical();
    rig.types(b"one\ntwo\n");
    assert_eq!(rig.line.available(), 8);
    assert_eq!(
        (rig.reads(100), rig.reads(100)),
        (r"one\n".into(), r"two\n".into())
    );
}

#[test]
fn end_of_file_pushes_what_there_is() {
    let mut rig = canonical();
    rig.types(b"ab\x04");
    assert_eq!(rig.line.available(), 2);
    assert_eq!(rig.reads(100), "ab");
    assert!(!rig.line.has_input());
    rig.types(b"\x04");
    assert!(rig.line.has_input() && rig.line.available() == 0);
    assert_eq!(rig.reads(100), "");
    assert!(!rig.line.has_input());
    // A read that exactly takes what is before it takes the end too.
    rig.types(b"abc\x04");
    assert_eq!(rig.reads(3), "abc");
    assert!(!rig.line.has_input());
    rig.types(b"abc\n\x04");
    assert_eq!(rig.reads(4), r"abc\n");
    assert!(rig.line.has_input());
    assert_eq!(rig.shown(), r"ababcabc\r\n");
}

#[test]
fn further_ends_of_lines() {
    let mut rig = Rig::new(|s| {
        s.characters[VEOL as usize] = b';';
        s.characters[VEOL2 as usize] = b'!';
    });
    rig.types(b"a;b!");
    assert_eq!((rig.reads(9), rig.reads(9)), ("a;".into(), "b!".into()));
    assert_eq!(rig.shown(), "a;b!");
    rig.change(|s| s.local &= !IEXTEN);
    rig.types(b"c!");
    assert!(!rig.line.has_input());
}

#[test]
fn erasing_characters() {
    let mut rig = canonical();
    rig.types(b"ab\x7f\x7f\x7fc\n");
    assert_eq!(rig.shown(), r"ab\x08 \x08\x08 \x08c\r\n");
    assert_eq!(rig.reads(9), r"c\n");
    rig.types(b"a\x01\x7f");
    assert_eq!(rig.shown(), r"a^A\x08 \x08\x08 \x08");
    rig.change(|s| s.local &= !ECHOCTL);
    rig.types(b"\x01\x7f");
    assert_eq!(rig.shown(), r"\x01");
    rig.change(|s| s.local &= !ECHOE);
    rig.types(b"\x7f\n");
    assert_eq!(
        (rig.shown(), rig.reads(9)),
        (r"\x7f\r\n".into(), r"\n".into())
    );
}

#[test]
fn a_line_that_has_ended_cannot_be_erased() {
    let mut rig = canonical();
    rig.types(b"ab\n\x7f\x15\x17");
    assert_eq!(rig.reads(9), r"ab\n");
}

#[test]
fn erasing_tabs_goes_back_to_where_they_began() {
    let mut rig = canonical();
    rig.types(b"ab\t\x7f");
    assert_eq!(rig.shown(), r"ab\t\x08\x08\x08\x08\x08\x08");
    rig.types(b"\x15\t\t\x7f");
    assert_eq!(
        rig.shown(),
        r"\x08 \x08\x08 \x08\t\t\x08\x08\x08\x08\x08\x08\x08\x08"
    );
    // After a prompt of three columns the first tab is five wide.
    let mut rig = canonical();
    rig.writes(b"$> ");
    rig.types(b"\t\x7f");
    assert_eq!(rig.shown(), r"$> \t\x08\x08\x08\x08\x08");
    rig.types(b"\x01\t\x7f");
    assert_eq!(rig.shown(), r"^A\t\x08\x08\x08");
}

#[test]
fn erasing_words_and_lines() {
    let mut rig = canonical();
    rig.types(b"ls a_1 ../x-y  \x17");
    let wiped = |count: usize| r"\x08 \x08".repeat(count);
    assert_eq!(rig.shown(), format!("ls a_1 ../x-y  {}", wiped(3)));
    rig.types(b"\x17\x17");
    assert_eq!(rig.shown(), format!("{}{}", wiped(2), wiped(7)));
    rig.types(b"\x15pwd\n");
    assert_eq!(rig.shown(), format!(r"{}pwd\r\n", wiped(3)));
    assert_eq!(rig.reads(99), r"pwd\n");
    rig.change(|s| s.local &= !ECHOKE);
    rig.types(b"abc\x15");
    assert_eq!(rig.shown(), r"abc^U\r\n");
    rig.change(|s| s.local &= !ECHOK);
    rig.types(b"abc\x15");
    assert_eq!(rig.shown(), "abc^U");
    rig.change(|s| s.local &= !ECHO);
    rig.types(b"abc\x15d\n");
    assert_eq!((rig.shown(), rig.reads(99)), (String::new(), r"d\n".into()));
}

#[test]
fn erased_characters_of_a_printing_terminal() {
    let mut rig = Rig::new(|s| s.local |= ECHOPRT);
    rig.types(b"abc\x7f\x7fx\x7f\n");
    assert_eq!(rig.shown(), r"abc\\cb/x\\x\r\n");
    assert_eq!(rig.reads(9), r"a\n");
    rig.types(b"ab\x15c\n");
    // What was erased last is closed off when the next byte is shown.
    assert_eq!(rig.shown(), r"/ab\\ba/c\r\n");
}

#[test]
fn characters_of_several_bytes_are_erased_whole() {
    let mut rig = Rig::new(|s| s.input |= IUTF8);
    rig.types("aé€".as_bytes()).types(b"\x7f");
    assert_eq!(rig.shown(), r"a\xc3\xa9\xe2\x82\xac\x08 \x08");
    rig.types(b"\x7f\n");
    assert_eq!(rig.reads(9), r"a\n");
    rig.change(|s| s.input &= !IUTF8);
    rig.types("é".as_bytes()).types(b"\x7f\n");
    assert_eq!(rig.reads(9), r"\xc3\n");
}

#[test]
fn the_next_byte_taken_literally() {
    let mut rig = canonical();
    rig.types(b"a\x16\x03\x16\x16\x16\n\n");
    assert_eq!(rig.shown(), r"a^\x08^C^\x08^V^\x08^J\r\n");
    assert!(rig.screen.signals.is_empty());
    assert_eq!(rig.reads(9), r"a\x03\x16\n\n");
    rig.change(|s| s.local &= !IEXTEN);
    rig.types(b"\x16\n");
    assert_eq!(rig.reads(9), r"\x16\n");
}

#[test]
fn the_line_is_shown_again() {
    let mut rig = canonical();
    rig.types(b"x\ny\x01z\x12");
    assert_eq!(rig.shown(), r"x\r\ny^Az^R\r\ny^Az");
}

#[test]
fn keys_that_are_signals() {
    let mut rig = canonical();
    rig.types(b"abc\x03def\x1cgh\x1ai\n");
    assert_eq!(rig.screen.signals, [SIGINT, SIGQUIT, SIGTSTP]);
    assert_eq!(rig.shown(), r"abc^Cdef^\\gh^Zi\r\n");
    assert_eq!(rig.reads(9), r"i\n");
    assert_eq!(rig.screen.status, TIOCPKT_FLUSHREAD | TIOCPKT_FLUSHWRITE);
    rig.change(|s| s.local |= NOFLSH);
    rig.types(b"abc\x03d\n");
    assert_eq!(rig.reads(9), r"abcd\n");
    rig.change(|s| s.local &= !ISIG);
    rig.types(b"\x03\n");
    assert_eq!(rig.reads(9), r"\x03\n");
    assert_eq!(rig.screen.signals.len(), 4);
}

#[test]
fn a_signal_takes_back_echoes_that_came_with_it() {
    let mut rig = canonical();
    rig.line.receive(b"abc\x03d", &mut rig.screen);
    assert_eq!(rig.shown(), "^Cd");
}

#[test]
fn output_held_back() {
    let mut rig = canonical();
    rig.types(b"\x13");
    assert!(rig.line.is_stopped() && rig.screen.status == TIOCPKT_STOP);
    assert_eq!(rig.writes(b"no"), 0);
    rig.types(b"ab");
    assert_eq!(rig.shown(), "");
    rig.types(b"\x11");
    assert_eq!(rig.screen.status, TIOCPKT_START);
    assert_eq!((rig.shown(), rig.writes(b"yes")), ("ab".into(), 3));
    rig.types(b"\x13");
    rig.change(|s| s.input |= IXANY);
    rig.types(b"c");
    assert!(!rig.line.is_stopped());
    // Without flow control nothing stays stopped.
    rig.types(b"\x13");
    rig.change(|s| s.input &= !IXON);
    assert!(!rig.line.is_stopped());
    // What a program holds back only a program lets go.
    rig.line.hold(true, &mut rig.screen);
    rig.change(|s| s.input |= IXON);
    rig.types(b"\x11z");
    assert_eq!(rig.writes(b"no"), 0);
    rig.line.hold(false, &mut rig.screen);
    assert_eq!(rig.writes(b"yes"), 3);
}

#[test]
fn a_signal_lets_output_go_on() {
    let mut rig = canonical();
    rig.types(b"\x13\x03");
    assert!(!rig.line.is_stopped());
    assert_eq!(rig.shown(), "^C");
}

#[test]
fn input_is_translated() {
    let mut rig = Rig::new(|s| {
        s.local = 0;
        s.input = INLCR;
    });
    rig.types(b"a\r\n");
    assert_eq!(rig.reads(9), r"a\r\r");
    rig.change(|s| s.input = IGNCR);
    rig.types(b"a\r\n");
    assert_eq!(rig.reads(9), r"a\n");
    rig.change(|s| s.input = ICRNL);
    rig.types(b"a\r\n");
    assert_eq!(rig.reads(9), r"a\n\n");
    rig.change(|s| (s.input, s.local) = (ISTRIP | IUCLC, IEXTEN));
    rig.types(b"A\xc1Z");
    assert_eq!(rig.reads(9), "aaz");
    rig.change(|s| s.local = 0);
    rig.types(b"A\xc1");
    assert_eq!(rig.reads(9), "AA");
    rig.change(|s| s.input = PARMRK);
    rig.types(b"a\xff");
    assert_eq!(rig.reads(9), r"a\xff\xff");
}

#[test]
fn output_is_translated() {
    let mut rig = Rig::new(|s| s.local = 0);
    rig.writes(b"a\nb\tc\rd");
    assert_eq!(rig.shown(), r"a\r\nb\tc\rd");
    rig.change(|s| s.output = OPOST | XTABS | OLCUC);
    rig.writes(b"\r\tab\tx\x08\x08\t\n");
    assert_eq!(rig.shown(), r"\r        AB      X\x08\x08 \n");
    rig.change(|s| s.output = OPOST | OCRNL);
    rig.writes(b"a\rb");
    assert_eq!(rig.shown(), r"a\nb");
    rig.change(|s| s.output = OPOST | ONOCR | ONLRET);
    rig.writes(b"a\n\rb\r\rc");
    assert_eq!(rig.shown(), r"a\nb\rc");
    rig.change(|s| s.output = ONLCR | OLCUC);
    rig.writes(b"a\n");
    assert_eq!(rig.shown(), r"a\n");
}

#[test]
fn what_has_no_room_is_not_taken() {
    let mut rig = canonical();
    rig.screen.room = 3;
    assert_eq!(rig.writes(b"a\n\n"), 2);
    rig.screen.room = 1;
    assert_eq!(rig.writes(b"\n"), 0);
    rig.shown();
    rig.screen.room = 1;
    rig.types(b"ab\x03");
    assert_eq!(rig.shown(), "a");
    rig.screen.room = 9;
    assert_eq!(rig.writes(b"x"), 1);
    assert_eq!(rig.shown(), "^Cx");
}

#[test]
fn a_line_may_be_too_long() {
    let mut rig = canonical();
    rig.types(&[b'x'; 5000]).types(b"y\n");
    assert_eq!(rig.line.available(), CAPACITY);
    let mut bytes = Vec::new();
    rig.line.read(&mut bytes, 9999);
    assert_eq!(bytes.len(), CAPACITY);
    assert_eq!(bytes[4094..], *b"x\n");
}

#[test]
fn input_that_does_not_fit_waits() {
    let mut rig = Rig::new(|s| (s.local, s.input) = (0, 0));
    assert_eq!(rig.line.receive(&[1; 5000], &mut rig.screen), CAPACITY - 1);
    rig.reads(100);
    assert_eq!(rig.line.receive(&[1; 5000], &mut rig.screen), 100);
    // Whole lines are not written over either.
    let mut rig = canonical();
    rig.types(b"a\n");
    let taken = rig.line.receive(&[b'x'; 5000], &mut rig.screen);
    assert_eq!(taken, CAPACITY - 3);
}

#[test]
fn lines_begin_and_end_with_the_mode() {
    let mut rig = Rig::new(|s| s.local &= !ICANON);
    rig.types(b"ab\ncd");
    rig.change(|s| s.local |= ICANON);
    assert_eq!(rig.line.available(), 5);
    assert_eq!(rig.reads(99), r"ab\ncd");
    rig.types(b"ef\ngh");
    rig.change(|s| s.local &= !ICANON);
    assert_eq!(rig.reads(99), r"ef\ngh");
    assert!(!rig.line.has_input());
    rig.change(|s| s.local |= ICANON);
    assert!(!rig.line.has_input());
}

#[test]
fn when_reads_are_done() {
    let mut rig = canonical();
    assert_eq!(rig.line.patience().minimum, 0);
    let mut with = |minimum, time| {
        rig.change(|s| {
            s.local &= !ICANON;
            s.characters[VMIN as usize] = minimum;
            s.characters[VTIME as usize] = time;
        });
        let patience = rig.line.patience();
        (patience.minimum, patience.first_ns, patience.further_ns)
    };
    assert_eq!(with(1, 0), (1, None, None));
    assert_eq!(with(0, 0), (1, Some(0), Some(0)));
    assert_eq!(with(0, 3), (1, Some(300_000_000), Some(300_000_000)));
    assert_eq!(with(4, 2), (4, None, Some(200_000_000)));
    assert_eq!(with(4, 0), (4, None, None));
    rig.types(b"abc");
    assert!(rig.line.has_input() && !rig.line.is_readable());
    rig.types(b"d");
    assert!(rig.line.is_readable());
}

#[test]
fn editing_done_outside() {
    let mut rig = Rig::new(|s| s.local |= EXTPROC);
    rig.types(b"a\x7f\x03\n");
    assert_eq!(
        (rig.shown(), rig.reads(9)),
        (String::new(), r"a\x7f\x03\n".into())
    );
    rig.types(b"\x04");
    assert_eq!(rig.reads(9), "");
    rig.types(b"a\x04");
    assert_eq!(rig.reads(9), r"a\x04");
    rig.change(|s| s.local |= TOSTOP);
    assert_eq!(rig.screen.status, TIOCPKT_IOCTL);
}

#[test]
fn packet_mode_hears_of_flow_control() {
    let mut rig = canonical();
    rig.change(|s| s.input &= !IXON);
    assert_eq!(rig.screen.status, TIOCPKT_NOSTOP);
    rig.change(|s| s.input |= IXON);
    assert_eq!(rig.screen.status, TIOCPKT_DOSTOP);
    rig.change(|s| s.characters[VSTOP as usize] = 1);
    assert_eq!(rig.screen.status, TIOCPKT_NOSTOP);
}

#[test]
fn what_is_flushed_is_gone() {
    let mut rig = canonical();
    rig.types(b"a\nb");
    rig.line.flush_input(&mut rig.screen);
    rig.types(b"c\n");
    assert_eq!(rig.reads(9), r"c\n");
}

#[test]
fn newlines_are_shown_even_where_nothing_else_is() {
    let mut rig = Rig::new(|s| s.local = ICANON | ECHONL);
    rig.types(b"a\n");
    assert_eq!((rig.shown(), rig.reads(9)), (r"\r\n".into(), r"a\n".into()));
    // Without lines a newline is a control character like others.
    let mut rig = Rig::new(|s| s.local &= !ICANON);
    rig.types(b"\n\r");
    assert_eq!(rig.shown(), r"^J\r\n");
}
