//! Shows how far preparing an image is: a bar on a terminal, a line now and then elsewhere, and nothing at
//! all as long as it is quick.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use husk_images::Progress;

use crate::plan::MemorySize;

/// Nothing is shown before.
const PATIENCE: Duration = Duration::from_millis(150);
/// Between two drawings of the bar.
const FRAME: Duration = Duration::from_millis(80);
/// Between two lines where no bar can be drawn.
const LINE: Duration = Duration::from_secs(5);
/// Cells of the bar.
const WIDTH: usize = 30;

/// Draws on standard error.
#[derive(Debug)]
pub struct Meter {
    terminal: bool,
    begun: Instant,
    shown: Option<Instant>,
    /// A bar is on the screen.
    drawn: bool,
    what: String,
    total: Option<u64>,
    done: u64,
}

impl Meter {
    /// Nothing to show yet.
    pub fn new() -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            begun: Instant::now(),
            shown: None,
            drawn: false,
            what: String::new(),
            total: None,
            done: 0,
        }
    }

    fn text(&self) -> String {
        let size = |bytes| MemorySize { bytes }.to_string();
        match (self.total, self.done) {
            (Some(total), done) if total > 0 => {
                let done = done.min(total);
                let cells = usize::try_from(u128::from(done) * WIDTH as u128 / u128::from(total))
                    .unwrap_or(WIDTH);
                let amount = format!("{} of {}", size(done), size(total));
                if self.terminal {
                    let bar = format!("{}{}", "#".repeat(cells), " ".repeat(WIDTH - cells));
                    format!("{:<20} [{bar}] {amount}", self.what)
                } else {
                    format!("{}: {amount}", self.what)
                }
            }
            (_, 0) => self.what.clone(),
            (_, done) => format!("{}: {}", self.what, size(done)),
        }
    }

    fn show(&mut self) {
        let now = Instant::now();
        let (wait, pause) = if self.terminal {
            (PATIENCE, FRAME)
        } else {
            (LINE, LINE)
        };
        let due = match self.shown {
            None => now - self.begun >= wait,
            Some(shown) => now - shown >= pause,
        };
        if !due {
            return;
        }
        self.shown = Some(now);
        let text = self.text();
        let mut stderr = io::stderr().lock();
        let _ = if self.terminal {
            self.drawn = true;
            write!(stderr, "\r\x1b[K{text}")
        } else {
            writeln!(stderr, "husk: {text}")
        };
        let _ = stderr.flush();
    }
}

impl Progress for Meter {
    fn begin(&mut self, what: &str, total: Option<u64>) {
        what.clone_into(&mut self.what);
        (self.total, self.done) = (total, 0);
        self.show();
    }

    fn advance(&mut self, bytes: u64) {
        self.done = self.done.saturating_add(bytes);
        self.show();
    }

    fn end(&mut self) {}
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.drawn {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let mut meter = Meter::new();
        meter.terminal = true;
        meter.begin("layer 1 of 2", Some(2 << 20));
        meter.advance(1 << 20);
        assert_eq!(
            meter.text(),
            "layer 1 of 2         [###############               ] 1 MiB of 2 MiB"
        );
        meter.advance(u64::MAX);
        assert!(meter.text().ends_with("2 MiB of 2 MiB"));
        meter.terminal = false;
        meter.begin("layer 2 of 2", None);
        assert_eq!(meter.text(), "layer 2 of 2");
        meter.advance(512);
        assert_eq!(meter.text(), "layer 2 of 2: 512 bytes");
        assert!(meter.shown.is_none(), "a quick step shows nothing");
    }
}
