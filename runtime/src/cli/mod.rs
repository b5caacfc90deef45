//! The `husk` command line: a thin front end, one file per verb.

pub mod args;
mod check;
mod debug;
mod filter;
mod image;
mod logging;
mod progress;
mod pull;
mod run;
mod stats;
mod trace;
mod version;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use args::{Cli, Parsed, Verb};

/// Exit status of `husk run` when husk itself failed.
const STATUS_RUN_FAILED: u8 = 125;
/// Exit status of the other verbs when they failed.
const STATUS_FAILED: u8 = 1;

/// What ends a command without result.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("cannot open the log file {}: {source}", path.display())]
    LogFile { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Store(#[from] husk_images::StoreError),
    #[error("{0}")]
    Plan(#[from] crate::plan::Error),
    #[error("{0}")]
    Sandbox(#[from] crate::sandbox::Error),
    #[error("cannot get random bytes for the container's id: {0}")]
    Random(io::Error),
    #[error("{0}")]
    Trace(#[from] trace::Error),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

/// Runs the command line this process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    match args::parse(&args) {
        Ok(Parsed::Command(cli)) => command(*cli),
        Ok(Parsed::Help(text)) => {
            let _ = write!(io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&error.message);
            ExitCode::from(if error.is_run {
                STATUS_RUN_FAILED
            } else {
                STATUS_FAILED
            })
        }
    }
}

fn command(cli: Cli) -> ExitCode {
    let failed = match cli.verb {
        Verb::Run(_) => STATUS_RUN_FAILED,
        _ => STATUS_FAILED,
    };
    let is_verbose = cli.debug || cli.log_filter.is_some();
    let result = logging::start(&cli).and_then(|log| match cli.verb {
        Verb::Run(args) => run::run(&cli.root, *args, &log, is_verbose),
        Verb::Debug(what) => debug::run(&what),
        Verb::Pull(args) => pull::run(&cli.root, &args),
        Verb::Image(verb) => image::run(&cli.root, verb),
        Verb::Check => check::run(),
        Verb::Trace(args) => trace::run(&args),
        Verb::Version => version::run(),
    });
    result.unwrap_or_else(|error| {
        // Whoever reads a closed pipe has what they wanted.
        if !matches!(&error, Error::Output(source) if source.kind() == io::ErrorKind::BrokenPipe) {
            report(&error.to_string());
        }
        ExitCode::from(failed)
    })
}

/// Reports what went wrong: one line on standard error, one in the log.
fn report(message: &str) {
    logging::error(message);
    say(message);
}

/// One line on standard error.
fn say(message: &str) {
    let line: String = message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let _ = writeln!(io::stderr(), "husk: {line}");
}
