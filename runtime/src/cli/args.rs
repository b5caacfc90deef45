//! What may be typed: flags and their values, each checked for its own form.
//!
//! Whether a value makes sense together with the image and the host is [`crate::plan`]'s business.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use husk_images::Source;

use crate::plan::{Cpus, MemorySize, Volume};

/// Run OCI containers, each under a kernel of its own in a KVM guest.
#[derive(Debug, Parser)]
#[command(name = "husk", disable_version_flag = true, max_term_width = 100)]
pub struct Cli {
    /// Directory for unpacked images
    #[arg(long, value_name = "DIR", default_value = "/var/lib/husk")]
    pub root: PathBuf,
    /// Append logs and errors to FILE
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Form of the lines in the log file
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "text",
        ignore_case = true
    )]
    pub log_format: LogFormat,
    /// Log what husk and the libOS do; to standard error unless --log names a file
    #[arg(long)]
    pub debug: bool,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line, as runc writes
    Json,
}

/// The verbs.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum Verb {
    /// Run a command in a container made from an image
    Run(Box<RunArgs>),
    /// Tell whether this host can run husk, and what to fix
    Check,
    /// Print a recording as strace prints system calls
    Trace(TraceArgs),
    /// Print version numbers
    Version,
}

/// `husk run`.
#[derive(Debug, Args)]
#[command(
    override_usage = "husk run [OPTIONS] SOURCE [-- COMMAND...]",
    after_help = "Exit status: the command's own, 128 + N if signal N ended it, 124 after --timeout, \
                  125 if husk itself failed,\n126 if the command cannot be executed, 127 if it is not in the \
                  image, 70 if the container's libOS crashed."
)]
pub struct RunArgs {
    /// Image: docker-archive:FILE[:NAME], oci:DIR[:TAG] or oci-archive:FILE[:TAG]
    #[arg(
        value_name = "SOURCE",
        required_unless_present = "rootfs",
        conflicts_with = "rootfs"
    )]
    pub source: Option<Source>,
    /// Use DIR itself as the root file system, instead of an image
    #[arg(long, value_name = "DIR")]
    pub rootfs: Option<PathBuf>,
    /// Show a directory or file of the host in the container
    #[arg(short, long, value_name = "SRC:DST[:ro]", action = ArgAction::Append)]
    pub volume: Vec<Volume>,
    /// Set a variable; NAME alone passes on the caller's
    #[arg(short, long, value_name = "NAME[=VALUE]", action = ArgAction::Append)]
    pub env: Vec<OsString>,
    /// Directory to start in
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<OsString>,
    /// Memory the container may use, such as 512m or 2g [default: the host's]
    #[arg(short, long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory: Option<MemorySize>,
    /// CPUs the container may use, such as 1.5 (accepted; one vCPU runs for now)
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub cpus: Option<Cpus>,
    /// Host name in the container [default: 12 random hex digits]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Program to run instead of the image's entry point
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<OsString>,
    /// User to run as, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Record every system call to FILE, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Print where time went and what left the guest, to standard error
    #[arg(long)]
    pub stats: bool,
    /// End the container after this many seconds, with status 124
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_hyphen_values = true)]
    pub timeout: Option<Duration>,
    /// Command and arguments instead of the image's
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `husk trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// What `husk run --trace FILE` wrote; - is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "give a number of seconds above 0".to_owned())
}

/// Flags of [`Cli`] that take a value, for finding the verb when the line does not parse.
const VALUED: [&str; 3] = ["--root", "--log", "--log-format"];

/// Verbs other than `run`.
const OTHER_VERBS: [&str; 3] = ["check", "trace", "version"];

/// Whether the first word of `args` (the program's name is not among them) that is no flag is another verb
/// than `run`. An unknown verb, or none, counts as an attempt to run.
fn is_other_verb(args: &[OsString]) -> bool {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if VALUED.iter().any(|flag| arg == flag) {
            args.next();
        } else if !arg.as_encoded_bytes().starts_with(b"-") {
            return OTHER_VERBS.iter().any(|verb| arg == verb);
        }
    }
    false
}

/// What is wrong with a command line, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    /// The line.
    pub message: String,
    /// Whether it was a `husk run`, as far as one can tell.
    pub is_run: bool,
}

/// How a command line reads.
#[derive(Debug)]
pub enum Parsed {
    /// As a command.
    Command(Box<Cli>),
    /// As a question for help: this text is the answer.
    Help(String),
}

/// Parses a command line, program name first.
///
/// # Errors
/// [`UsageError`].
pub fn parse(args: &[OsString]) -> Result<Parsed, UsageError> {
    Cli::try_parse_from(args)
        .map(|cli| Parsed::Command(Box::new(cli)))
        .or_else(|error| match error.kind() {
            clap::error::ErrorKind::DisplayHelp => Ok(Parsed::Help(error.to_string())),
            _ => Err(UsageError {
                message: one_line(&error),
                is_run: !is_other_verb(args.get(1..).unwrap_or_default()),
            }),
        })
}

/// clap's error and its first tip, without the usage that follows.
fn one_line(error: &clap::Error) -> String {
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "no command given; write run, check, trace or version (husk --help explains)"
            .to_owned();
    }
    let text = error.to_string();
    let joined = |paragraph: &str| {
        paragraph
            .lines()
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut paragraphs = text
        .split("\n\n")
        .map(joined)
        .filter(|paragraph| !paragraph.is_empty());
    let first = paragraphs.next().unwrap_or_default();
    let mut line = first.strip_prefix("error: ").unwrap_or(&first).to_owned();
    if let Some(tip) = paragraphs
        .next()
        .as_deref()
        .and_then(|paragraph| paragraph.strip_prefix("tip: "))
    {
        line.push_str("; ");
        line.push_str(tip.split(" tip: ").next().unwrap_or(tip));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn run(line: &str) -> RunArgs {
        let Ok(Parsed::Command(cli)) = parse(&words(line)) else {
            panic!("{line} does not parse: {:?}", parse(&words(line)));
        };
        match cli.verb {
            Verb::Run(run) => *run,
            other => panic!("{other:?}"),
        }
    }

    fn error(line: &str) -> UsageError {
        parse(&words(line)).expect_err(line)
    }

    #[test]
    fn definition_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_of_run() {
        let args = run(
            "husk --root /r run -e A=1 --env B docker-archive:b.tar --workdir /w --memory 64m --cpus 1.5 \
             --hostname h --entrypoint /e --user 1:2 --trace t --stats --timeout 0.5 -- sh -c x",
        );
        assert_eq!(args.env, ["A=1", "B"]);
        assert_eq!(args.memory, Some(MemorySize { bytes: 64 << 20 }));
        assert_eq!(args.cpus, Some(Cpus { hundredths: 150 }));
        assert_eq!(args.timeout, Some(Duration::from_millis(500)));
        assert_eq!(args.command, ["sh", "-c", "x"]);
        assert!(args.stats);
    }

    #[test]
    fn errors_are_one_line() {
        let lines = [
            "husk",
            "husk run",
            "husk --nope run x",
            "husk run --nope oci:x",
            "husk run oci:x sh",
            "husk run nowhere:x",
            "husk run oci:x --memory lots",
            "husk run oci:x --memory -1",
            "husk run oci:x --cpus 0",
            "husk run oci:x --timeout 0",
            "husk run oci:x --timeout nan",
            "husk run oci:x --timeout 1e300",
            "husk --log-format xml run oci:x",
            "husk fly",
            "husk trace",
            "husk check x",
        ];
        for line in lines {
            let error = error(line);
            assert!(!error.message.contains('\n'), "{line}: {}", error.message);
            assert!(!error.message.is_empty(), "{line}");
            assert!(
                !error.message.contains("Usage"),
                "{line}: {}",
                error.message
            );
        }
    }

    #[test]
    fn run_is_recognised_behind_global_flags() {
        assert!(error("husk --root /x --debug run --nope").is_run);
        assert!(error("husk --log run run").is_run);
        assert!(!error("husk --root run trace").is_run);
        assert!(!error("husk check run").is_run);
        assert!(error("husk").is_run && error("husk fly").is_run);
    }

    #[test]
    fn help_is_help() {
        assert!(matches!(
            parse(&words("husk run --help")),
            Ok(Parsed::Help(text)) if text.contains("--memory")
        ));
    }
}
