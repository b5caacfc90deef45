//! The `husk` command line: a thin front end, one file per verb.

pub mod args;
mod check;
mod create;
mod debug;
mod delete;
mod events;
mod exec;
mod features;
mod filter;
mod foreground;
mod image;
mod jail;
mod kill;
mod list;
mod logging;
mod pause;
mod preserved;
mod progress;
mod ps;
mod pull;
mod run;
mod run_image;
mod spec;
mod start;
mod state;
mod stats;
mod terminal;
mod trace;
mod update;
mod version;
mod vmm;

use husk_abi::boundary::config::MAX_HANDED;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use args::{Cli, Parsed, Verb};
use serde_json::Value;

use crate::oci::{self, hooks};
pub use vmm::{is_vmm, vmm};

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
    #[error("{0}")]
    Oci(#[from] oci::Error),
    #[error("{0}")]
    Confine(#[from] crate::confine::Error),
    #[error("{0}")]
    Gdb(#[from] crate::gdb::Error),
    #[error("{0}")]
    Recording(#[from] crate::record::Error),
    #[error("cannot find the working directory: {0}")]
    Directory(io::Error),
    #[error("cannot allocate tty if husk will detach without setting console socket")]
    NoConsoleSocket,
    #[error("cannot use console socket if husk will not detach or allocate tty")]
    NoTerminal,
    #[error("cannot pass on descriptor {number} ({}): {why}", what.display())]
    PreserveFds {
        number: u32,
        what: PathBuf,
        why: &'static str,
    },
    #[error(
        "unable to stat preserved-fd {at} (of {of}): stat /proc/self/fd/{number}: no such file or directory"
    )]
    NoPreservedFd { number: u32, at: u32, of: u32 },
    #[error("cannot pass on so many descriptors: at most {MAX_HANDED}")]
    ManyPreservedFds,
    #[error("cannot write {}: {source}", path.display())]
    Spec { path: PathBuf, source: io::Error },
    #[error("cannot look at process {pid}: {source}")]
    Process { pid: i32, source: io::Error },
    #[error(
        "{flag} is for containers made from a bundle: no --bundle is given, and there is no config.json here"
    )]
    NoBundle { flag: &'static str },
    #[error("{flag} is for containers made from an image: the bundle's config.json has that")]
    NoImage { flag: &'static str },
    #[error("{0}")]
    Wanted(String),
}

/// Runs the command line this process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|word| word.to_str()) {
        Some("--version" | "-v") => return version::run().unwrap_or(ExitCode::FAILURE),
        Some(hooks::RELAY) => {
            if let Some(text) = hooks::relay(&args[2..]) {
                say(&text);
            }
            return ExitCode::from(STATUS_FAILED);
        }
        _ => {}
    }
    match args::parse(&args) {
        Ok(Parsed::Command(cli)) => command(*cli),
        Ok(Parsed::Help(text)) => {
            let _ = write!(io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            logging::usage(&args, &error.message);
            say(&error.message);
            ExitCode::from(error.status)
        }
    }
}

fn command(cli: Cli) -> ExitCode {
    let failed = match &cli.verb {
        Verb::Run(args) if !args.is_bundle() => STATUS_RUN_FAILED,
        _ => STATUS_FAILED,
    };
    let result = logging::start(&cli).and_then(|log| match &cli.verb {
        Verb::Run(args) => run::run(&cli, args, &log),
        Verb::Create(args) => create::run(&cli, args, &log),
        Verb::Start(args) => start::run(&cli, args),
        Verb::State(args) => state::run(&cli, args),
        Verb::Kill(args) => kill::run(&cli, args),
        Verb::Exec(args) => exec::run(&cli, args),
        Verb::Ps(args) => ps::run(&cli, args),
        Verb::Pause(args) => pause::pause(&cli, args),
        Verb::Resume(args) => pause::resume(&cli, args),
        Verb::Update(args) => update::run(&cli, args),
        Verb::Events(args) => events::run(&cli, args),
        Verb::Delete(args) => delete::run(&cli, args),
        Verb::List(args) => list::run(&cli, args),
        Verb::Spec(args) => spec::run(args),
        Verb::Features => features::run(),
        Verb::Debug(what) => debug::run(what),
        Verb::Pull(args) => pull::run(&cli, args),
        Verb::Image(verb) => image::run(&cli, verb),
        Verb::Check(args) => match &args.jail {
            Some(id) => jail::run(&cli, id),
            None => check::run(),
        },
        Verb::Trace(args) => trace::run(&cli, args),
        Verb::Version => version::run(),
    });
    result.unwrap_or_else(|error| {
        let failed = match &error {
            // What kept the program from running, as a shell says it.
            Error::Oci(oci::Error::Start { status, .. }) if failed == STATUS_RUN_FAILED => *status,
            _ => failed,
        };
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

/// Prints `value` for people and programs.
fn print_json(value: &Value) -> Result<ExitCode, Error> {
    print_text(&format!("{value:#}\n"))
}

fn print_text(text: &str) -> Result<ExitCode, Error> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(Error::Output)?;
    Ok(ExitCode::SUCCESS)
}
