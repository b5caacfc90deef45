//! Where log lines go, and how they look.
//!
//! With `--log FILE`: to that file, warnings and errors, with `--debug` or `--log-filter` more. Those alone: to
//! standard error. husk's lines and the libOS's make one stream, each with its `source`. The JSON form is runc's, which engines read errors from:
//! `{"level":"error","msg":"...","time":"2026-01-02T03:04:05.678901Z"}`.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Write};
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::Error;
use super::args::{Cli, LogFormat};
use super::filter::LogFilter;
use crate::oci::complaints::Listener;
use crate::sandbox::handover::Log;

/// Whether there is a log file: then errors belong into it.
static TO_FILE: AtomicBool = AtomicBool::new(false);

/// Sets logging up as the command line says.
///
/// # Errors
/// When the log file cannot be opened.
pub fn start(cli: &Cli) -> Result<LogFilter, Error> {
    let level = if cli.debug {
        LevelFilter::DEBUG
    } else {
        LevelFilter::WARN
    };
    let filter = match &cli.log_filter {
        Some(filter) => filter.clone().or(level),
        None => LogFilter::all(level),
    };
    if let Some(path) = &cli.log {
        to_file(open(path)?, filter.targets(), cli.log_format);
    } else if cli.is_verbose() {
        to_stderr(filter.targets(), cli.log_format);
    } else {
        let _ = tracing_subscriber::registry()
            .with(Listener.with_filter(Listener::targets()))
            .try_init();
    }
    Ok(filter)
}

fn to_file(file: File, filter: Targets, format: LogFormat) {
    let layer = tracing_subscriber::fmt::layer()
        .event_format(Lines(format))
        .with_writer(Mutex::new(file));
    let _ = tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .with(Listener.with_filter(Listener::targets()))
        .try_init();
    TO_FILE.store(true, Ordering::Relaxed);
}

fn to_stderr(filter: Targets, format: LogFormat) {
    let layer = tracing_subscriber::fmt::layer()
        .event_format(Lines(format))
        .with_writer(std::io::stderr);
    let _ = tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .with(Listener.with_filter(Listener::targets()))
        .try_init();
}

/// Opens the log file at `path`.
///
/// # Errors
/// When it cannot be opened.
pub fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(path)
        .map_err(|source| Error::LogFile {
            path: path.to_owned(),
            source,
        })
}

/// Sets logging up in the VMM process, as the command that made the container was told.
pub fn start_in_vmm(log: &Log) {
    let format = if log.json {
        LogFormat::Json
    } else {
        LogFormat::Text
    };
    let filter: Targets = log.targets.parse().unwrap_or_default();
    match log.file {
        Some(file) => to_file(File::from(file.take()), filter, format),
        None => to_stderr(filter, format),
    }
}

/// Writes an error into the log file, if there is one.
pub fn error(message: &str) {
    if TO_FILE.load(Ordering::Relaxed) {
        tracing::error!("{message}");
    }
}

/// Writes a complaint about a command line into the log file that it names: it could not be read as a whole.
pub fn usage(args: &[OsString], message: &str) {
    let value = |flag: &str| {
        let at = args.iter().position(|arg| arg == flag);
        let apart = at.and_then(|at| args.get(at + 1)).cloned();
        let joined = args.iter().find_map(|arg| {
            let rest = arg.as_bytes().strip_prefix(flag.as_bytes())?;
            Some(OsStr::from_bytes(rest.strip_prefix(b"=")?).to_owned())
        });
        apart.or(joined)
    };
    let Some(path) = value("--log") else { return };
    let format = match value("--log-format") {
        Some(word) if word.eq_ignore_ascii_case("json") => LogFormat::Json,
        _ => LogFormat::Text,
    };
    if let Ok(file) = open(Path::new(&path)) {
        to_file(file, Targets::new().with_default(LevelFilter::WARN), format);
        error(message);
    }
}

/// Field with the room of a libOS's line.
const ROOM: &str = "room";

/// The two forms of a line.
struct Lines(LogFormat);

/// Collects an event's fields.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.others.push((field.name(), text.into()));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.others.push((field.name(), value.into()));
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.push((field.name(), value.into()));
    }
}

/// runc's (logrus's) name of a level.
fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let metadata = event.metadata();
        let line = render(self.0, *metadata.level(), &time, metadata.target(), fields);
        writeln!(writer, "{line}")
    }
}

/// What a line's `source` says: `husk::vmm`, `libos::mm`.
fn source_of(target: &str, fields: &mut Fields) -> String {
    let room = fields.others.iter().position(|(name, _)| *name == ROOM);
    match room.map(|index| fields.others.remove(index).1) {
        Some(Value::String(room)) => format!("{target}::{room}"),
        _ => target.to_owned(),
    }
}

fn render(format: LogFormat, level: Level, time: &str, target: &str, mut fields: Fields) -> String {
    let source = source_of(target, &mut fields);
    match format {
        LogFormat::Json => {
            let mut object: Map<String, Value> = fields
                .others
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            object.insert("level".to_owned(), level_name(level).into());
            object.insert("msg".to_owned(), fields.message.into());
            object.insert("source".to_owned(), source.into());
            object.insert("time".to_owned(), time.into());
            Value::Object(object).to_string()
        }
        LogFormat::Text => {
            let mut line = format!(
                "{time} {:7} {source}: {}",
                level_name(level),
                fields.message
            );
            for (name, value) in fields.others {
                let _ = write!(line, " {name}={value}");
            }
            line.replace('\n', " ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        Fields {
            message: "two\nlines \"quoted\"".to_owned(),
            others: vec![("count", 3.into())],
        }
    }

    #[test]
    fn json_as_runc_writes_it() {
        assert_eq!(
            render(LogFormat::Json, Level::ERROR, "T", "husk::cli", fields()),
            concat!(
                r#"{"count":3,"level":"error","msg":"two\nlines \"quoted\"","source":"husk::cli","#,
                r#""time":"T"}"#
            )
        );
    }

    #[test]
    fn text_is_one_line() {
        assert_eq!(
            render(LogFormat::Text, Level::WARN, "T", "husk", fields()),
            "T warning husk: two lines \"quoted\" count=3"
        );
    }
}
