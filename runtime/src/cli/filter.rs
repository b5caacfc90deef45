//! `--log-filter`: which lines are kept, by where they come from.
//!
//! `NAME=LEVEL` and plain `LEVEL` separated by commas, as `RUST_LOG` has it; the last word on a name counts. A name is a
//! room of the libOS (`mm`), a module of husk (`vmm`), `libos` or `husk` for all of one, or a path (`libos::mm`,
//! `husk::vmm::debug`). Where two say different things, the longer one counts.

use std::str::FromStr;

use husk_abi::boundary::config::LogLevel;
use husk_abi::boundary::log::{self, ROOMS};
use tracing_subscriber::filter::{LevelFilter, Targets};

/// husk's own modules that log.
const MODULES: [&str; 8] = [
    "cli", "control", "gate", "gdb", "plan", "record", "sandbox", "vmm",
];
const LEVELS: &str = "off, error, warn, info, debug or trace";

/// A parsed filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter {
    /// For what is not named; what `--debug` says if there is none.
    default: Option<LevelFilter>,
    /// For all of the libOS.
    libos: Option<LevelFilter>,
    rooms: [Option<LevelFilter>; ROOMS.len()],
    /// Paths in husk.
    husk: Vec<(String, LevelFilter)>,
}

impl LogFilter {
    /// Keeps everything up to `level`.
    pub fn all(level: LevelFilter) -> Self {
        Self {
            default: Some(level),
            libos: None,
            rooms: [None; ROOMS.len()],
            husk: Vec::new(),
        }
    }

    /// With `level` for what it does not name.
    pub fn or(mut self, level: LevelFilter) -> Self {
        self.default = self.default.or(Some(level));
        self
    }

    fn default_level(&self) -> LevelFilter {
        self.default.unwrap_or(LevelFilter::WARN)
    }

    /// For the libOS, which filters by itself.
    pub fn guest_levels(&self) -> [LogLevel; ROOMS.len()] {
        self.rooms.map(|room| {
            let level = room.or(self.libos).unwrap_or(self.default_level());
            match level.into_level() {
                // What makes the libOS stop is always kept.
                None | Some(tracing::Level::ERROR) => LogLevel::Error,
                Some(tracing::Level::WARN) => LogLevel::Warn,
                Some(tracing::Level::INFO) => LogLevel::Info,
                Some(tracing::Level::DEBUG) => LogLevel::Debug,
                Some(tracing::Level::TRACE) => LogLevel::Trace,
            }
        })
    }

    /// For husk's own lines, and the libOS's as they pass.
    pub fn targets(&self) -> Targets {
        // Libraries' lines are not for users.
        Targets::new()
            .with_target("husk", self.default_level())
            .with_target("libos", LevelFilter::TRACE)
            .with_targets(self.husk.iter().cloned())
    }
}

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut filter = Self {
            default: None,
            libos: None,
            rooms: [None; ROOMS.len()],
            husk: Vec::new(),
        };
        for directive in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let (name, level) = match directive.split_once('=') {
                Some((name, level)) => (name.trim(), parse_level(level.trim())?),
                None => ("", parse_level(directive)?),
            };
            filter.set(name, level)?;
        }
        Ok(filter)
    }
}

impl LogFilter {
    fn set(&mut self, name: &str, level: LevelFilter) -> Result<(), String> {
        let room = log::room(name.strip_prefix("libos::").unwrap_or(name));
        match (name, room) {
            ("", _) => self.default = Some(level),
            ("libos", _) => self.libos = Some(level),
            (_, Some(room)) => self.rooms[room] = Some(level),
            _ => {
                let path = name.strip_prefix("husk::").unwrap_or(name);
                let module = path.split("::").next().unwrap_or_default();
                if name == "husk" {
                    self.husk.push(("husk".to_owned(), level));
                } else if MODULES.contains(&module) {
                    self.husk.push((format!("husk::{path}"), level));
                } else {
                    return Err(format!(
                        "nothing called {name:?} logs: the libOS has {}; husk has {}",
                        ROOMS.join(", "),
                        MODULES.join(", ")
                    ));
                }
            }
        }
        Ok(())
    }
}

fn parse_level(text: &str) -> Result<LevelFilter, String> {
    match text.to_ascii_lowercase().as_str() {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" | "warning" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(format!("{text:?} is no level: give {LEVELS}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(filter: &str, room: &str) -> LogLevel {
        let filter: LogFilter = filter.parse().unwrap();
        filter.guest_levels()[log::room(room).unwrap()]
    }

    #[test]
    fn rooms() {
        assert_eq!(level("", "mm"), LogLevel::Warn);
        assert_eq!(level("mm=debug", "mm"), LogLevel::Debug);
        assert_eq!(level("mm=debug", "fs"), LogLevel::Warn);
        assert_eq!(level("libos::mm=TRACE, info", "mm"), LogLevel::Trace);
        assert_eq!(level("mm=trace,info", "fs"), LogLevel::Info);
        assert_eq!(level("trace=debug,error", "trace"), LogLevel::Debug);
        assert_eq!(level("fs=off,libos=debug", "fs"), LogLevel::Error);
        assert_eq!(level("libos=debug,husk=error", "time"), LogLevel::Debug);
        let all = LogFilter::all(LevelFilter::DEBUG);
        assert!(all.guest_levels().iter().all(|l| *l == LogLevel::Debug));
    }

    #[test]
    fn husk_modules() {
        let would = |filter: &str, target: &str, level: tracing::Level| {
            let filter: LogFilter = filter.parse().unwrap();
            filter.targets().would_enable(target, &level)
        };
        use tracing::Level;
        assert!(would("vmm=debug", "husk::vmm::machine", Level::DEBUG));
        assert!(!would("vmm=debug", "husk::gate", Level::DEBUG));
        assert!(would("debug,vmm=error", "husk::gate", Level::DEBUG));
        assert!(!would("debug,vmm=error", "husk::vmm", Level::WARN));
        assert!(would(
            "husk::vmm::debug=trace",
            "husk::vmm::debug",
            Level::TRACE
        ));
        assert!(!would("trace", "hyper", Level::ERROR));
    }

    #[test]
    fn errors() {
        for bad in ["loud", "mm=loud", "kernel=debug", "mm=", "=x"] {
            assert!(bad.parse::<LogFilter>().is_err(), "{bad}");
        }
    }
}
