//! What may be typed: flags and their values, each checked for its own form.
//!
//! Whether a value makes sense together with the image and the host is [`crate::plan`]'s business.
//!
//! Longer than most files: it is a list, a verb after the other, of what can be looked up in one place.

mod images;
mod record;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use husk_images::Source;
use husk_images::source::{SourceError, TRANSPORTS};

use super::filter::LogFilter;
use crate::gdb::GdbAddress;
use crate::plan::{Cpus, MemorySize, Volume};
pub use images::{ImageVerb, LoadArgs, LsArgs, PullArgs, stored};
pub use record::RecordArgs;

/// Run OCI containers, each under a kernel of its own in a KVM guest.
#[derive(Debug, Parser)]
#[command(name = "husk", disable_version_flag = true, max_term_width = 100)]
pub struct Cli {
    /// Directory for unpacked images and the state of containers [default: /var/lib/husk for images,
    /// /run/husk for state]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
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
    /// Let systemd make the containers' cgroups
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// What to log, such as mm=debug,sched=trace,vmm=debug,warn; like --debug, but only this
    #[arg(long, value_name = "FILTER")]
    pub log_filter: Option<LogFilter>,
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
    /// Run a command in a container made from an image, or a container made from a bundle
    Run(Box<RunArgs>),
    /// Get an image from a registry into the store
    Pull(PullArgs),
    /// Load, list, inspect and remove images
    #[command(subcommand)]
    Image(ImageVerb),
    /// Make a container from a bundle; its program waits for `start`
    Create(CreateArgs),
    /// Start the program of a container that was made
    Start(IdArgs),
    /// Print the state of a container
    State(IdArgs),
    /// Send a signal to the first process of a container
    Kill(KillArgs),
    /// Run another process in a container that runs
    Exec(Box<ExecArgs>),
    /// Print the processes of a container
    Ps(PsArgs),
    /// Stop all that runs in a container
    Pause(IdArgs),
    /// Let a paused container go on
    Resume(IdArgs),
    /// Change limits of a container
    Update(UpdateArgs),
    /// Print what a container uses, and tell when its memory runs out
    Events(EventsArgs),
    /// Remove a container and all that belongs to it
    Delete(DeleteArgs),
    /// Print the containers
    List(ListArgs),
    /// Write an example config.json
    Spec(SpecArgs),
    /// Print what this runtime can do, as JSON
    Features,
    /// Tell whether this host can run husk, and what to fix
    Check(CheckArgs),
    /// Print a recording as strace prints system calls
    Trace(TraceArgs),
    /// Serve those who debug husk itself
    #[command(subcommand)]
    Debug(DebugVerb),
    /// Print version numbers
    Version,
}

/// `husk debug`.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum DebugVerb {
    /// Write the libOS's ELF file, symbols and all, to standard output
    Elf,
}

/// `husk run`.
#[derive(Debug, Args)]
#[command(
    override_usage = "husk run [OPTIONS] IMAGE [-- COMMAND...]\n       husk run [OPTIONS] [--bundle DIR] ID",
    after_help = "Exit status: the command's own, 128 + N if signal N ended it, 124 after --timeout, \
                  125 if husk itself failed,\n126 if the command cannot be executed, 127 if it is not in the \
                  image, 70 if the container's libOS crashed."
)]
pub struct RunArgs {
    /// Image: a name or id in the store, or docker-archive:FILE[:NAME], oci:DIR[:TAG], oci-archive:FILE[:TAG]; with
    /// --bundle, and where the working directory is a bundle, the id of the container to make from that
    #[arg(
        value_name = "IMAGE|ID",
        required_unless_present = "rootfs",
        conflicts_with = "rootfs"
    )]
    pub target: Option<Target>,
    /// How a container is made from a bundle
    #[command(flatten)]
    pub setup: SetupArgs,
    /// Do not wait for the container's end (bundles)
    #[arg(short, long)]
    pub detach: bool,
    /// Do not remove the container after its end (bundles)
    #[arg(long)]
    pub keep: bool,
    /// Accepted: husk needs no subreaper
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
    /// Use DIR itself as the root file system, instead of an image
    #[arg(long, value_name = "DIR")]
    pub rootfs: Option<PathBuf>,
    /// Unpack the image into the container's memory, instead of serving it from the store's layers
    #[arg(long, conflicts_with = "rootfs")]
    pub in_memory: bool,
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
    /// What is recorded
    #[command(flatten)]
    pub record: RecordArgs,
    /// Print where time went and what left the guest, to standard error
    #[arg(long)]
    pub stats: bool,
    /// End the container after this many seconds, with status 124
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_hyphen_values = true)]
    pub timeout: Option<Duration>,
    /// Wait for gdb at a Unix socket's path or a loopback HOST:PORT, and let it debug the libOS
    #[arg(long, value_name = "SOCKET|ADDR")]
    pub gdb: Option<GdbAddress>,
    /// Boot another libOS image; for tests
    #[arg(long, value_name = "FILE", hide = true)]
    pub libos: Option<PathBuf>,
    /// Command and arguments instead of the image's
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What `husk run` runs, as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An image of an archive or a layout.
    Source(Source),
    /// A container's id, or an image in the store: [`RunArgs::is_bundle`] tells which.
    Word(String),
}

impl FromStr for Target {
    type Err = String;

    /// A transport wins over an image of that name.
    fn from_str(text: &str) -> Result<Self, String> {
        let transport = text.split_once(':').map(|(transport, _)| transport);
        if transport.is_some_and(|transport| TRANSPORTS.contains(&transport)) {
            return text
                .parse()
                .map(Self::Source)
                .map_err(|e: SourceError| e.to_string());
        }
        // Ids have none of these.
        if text.contains([':', '/', '@']) {
            stored(text)?;
        }
        Ok(Self::Word(text.to_owned()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(source) => source.fmt(f),
            Self::Word(word) => f.write_str(word),
        }
    }
}

impl RunArgs {
    /// Whether a container is to be made from a bundle, not from an image: `--bundle` was given, or the working
    /// directory is a bundle and the target is no source of images.
    #[must_use]
    pub fn is_bundle(&self) -> bool {
        self.setup.bundle.is_some()
            || (matches!(self.target, Some(Target::Word(_))) && Path::new("config.json").exists())
    }

    /// A flag that says nothing about what is run.
    #[must_use]
    pub fn misplaced(&self, is_bundle: bool) -> Option<&'static str> {
        let flags: &[(bool, &'static str)] = if is_bundle {
            &[
                (!self.env.is_empty(), "--env"),
                (self.rootfs.is_some(), "--rootfs"),
                (self.in_memory, "--in-memory"),
                (!self.volume.is_empty(), "--volume"),
                (self.workdir.is_some(), "--workdir"),
                (self.memory.is_some(), "--memory"),
                (self.cpus.is_some(), "--cpus"),
                (self.hostname.is_some(), "--hostname"),
                (self.entrypoint.is_some(), "--entrypoint"),
                (self.user.is_some(), "--user"),
                (self.stats, "--stats"),
                (self.timeout.is_some(), "--timeout"),
                (self.gdb.is_some(), "--gdb"),
                (self.libos.is_some(), "--libos"),
                (!self.command.is_empty(), "a command"),
            ]
        } else {
            &[
                (self.setup.console_socket.is_some(), "--console-socket"),
                (self.setup.pid_file.is_some(), "--pid-file"),
                (self.setup.no_pivot, "--no-pivot"),
                (self.detach, "--detach"),
                (self.keep, "--keep"),
            ]
        };
        flags
            .iter()
            .find_map(|(is_given, name)| is_given.then_some(*name))
    }
}

/// How a container is made from a bundle: `create` and `run`.
#[derive(Clone, Debug, Default, Args)]
pub struct SetupArgs {
    /// The bundle's directory
    #[arg(
        short,
        long,
        value_name = "DIR",
        help = "The bundle's directory [default: .]"
    )]
    pub bundle: Option<PathBuf>,
    /// Socket that is sent the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Write the process id of the container to FILE
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Move the root instead of pivot_root, for a root on a RAM disk
    #[arg(long)]
    pub no_pivot: bool,
    /// Accepted: the guest has no keyring of the host's
    #[arg(long, hide = true)]
    pub no_new_keyring: bool,
    /// Pass on this many descriptors after the first three; only 0 is possible
    #[arg(long, value_name = "N", default_value = "0", hide = true)]
    pub preserve_fds: u32,
}

impl SetupArgs {
    /// The bundle's directory.
    #[must_use]
    pub fn bundle(&self) -> &Path {
        self.bundle.as_deref().unwrap_or(Path::new("."))
    }
}

/// `husk create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The new container's id
    #[arg(value_name = "ID")]
    pub id: String,
    /// How it is made
    #[command(flatten)]
    pub setup: SetupArgs,
    /// What is recorded
    #[command(flatten)]
    pub record: RecordArgs,
}

/// `husk start` and `husk state`.
#[derive(Debug, Args)]
pub struct IdArgs {
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `husk kill`.
#[derive(Debug, Args)]
pub struct KillArgs {
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
    /// The signal, by name or number
    #[arg(
        value_name = "SIGNAL",
        default_value = "SIGTERM",
        allow_hyphen_values = true
    )]
    pub signal: String,
    /// Send it to all processes of the container
    #[arg(short, long)]
    pub all: bool,
}

/// `husk ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Print a table of the processes inside, or a JSON array of the host's processes that stand for them
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "table"
    )]
    pub format: ListFormat,
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `husk events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// How often to print what is used
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = "5s")]
    pub interval: Duration,
    /// Print what is used, once
    #[arg(long)]
    pub stats: bool,
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `husk update`. Amounts of memory are bytes, times are microseconds.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// The new limits as JSON; - is standard input. Other options are ignored then
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<u16>,
    /// Period of the CPU quota
    #[arg(long, value_name = "N")]
    pub cpu_period: Option<u64>,
    /// CPU time in a period
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Share of the CPUs, relative to others
    #[arg(long, value_name = "N")]
    pub cpu_share: Option<u64>,
    /// Period of the realtime quota
    #[arg(long, value_name = "N")]
    pub cpu_rt_period: Option<u64>,
    /// Realtime in a period
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs to use
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Memory
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub memory: Option<i64>,
    /// Memory that is kept when others want it
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub memory_reservation: Option<i64>,
    /// Memory and swap; -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    /// Processes and threads
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `husk exec`.
#[derive(Debug, Args)]
#[command(trailing_var_arg = true)]
pub struct ExecArgs {
    /// Socket that is sent the process's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Directory to start in [default: the container's]
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// Add a variable
    #[arg(short, long, value_name = "NAME=VALUE", action = ArgAction::Append)]
    pub env: Vec<String>,
    /// With a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// User to run as [default: the container's]
    #[arg(short, long, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// Add a supplementary group
    #[arg(short = 'g', long, value_name = "GID", action = ArgAction::Append)]
    pub additional_gids: Vec<u32>,
    /// The process as a JSON file describes it (OCI runtime-spec, process)
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Do not wait for the process's end
    #[arg(short, long)]
    pub detach: bool,
    /// Write the id of the process that stands for it to FILE
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Accepted: the guest has no security labels
    #[arg(long, value_name = "LABEL", hide = true)]
    pub process_label: Option<String>,
    /// Accepted: the guest has no AppArmor
    #[arg(long, value_name = "PROFILE", hide = true)]
    pub apparmor: Option<String>,
    /// Set no_new_privs
    #[arg(long)]
    pub no_new_privs: bool,
    /// Add a capability, as CAP_NAME
    #[arg(short, long, value_name = "CAP", action = ArgAction::Append)]
    pub cap: Vec<String>,
    /// Pass on this many descriptors after the first three; only 0 is possible
    #[arg(long, value_name = "N", default_value = "0", hide = true)]
    pub preserve_fds: u32,
    /// Also in a container that is paused: the process runs when that is resumed
    #[arg(long)]
    pub ignore_paused: bool,
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
    /// Command and arguments
    #[arg(value_name = "COMMAND", allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// `husk delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
    /// Kill the container if it still runs; no error if there is none
    #[arg(short, long)]
    pub force: bool,
}

/// `husk list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print a table, or one JSON array
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "table"
    )]
    pub format: ListFormat,
    /// Ids only
    #[arg(short, long)]
    pub quiet: bool,
}

/// Form of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// For people
    Table,
    /// For programs
    Json,
}

/// `husk check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Show how the process of this container is confined
    #[arg(long, value_name = "ID")]
    pub jail: Option<String>,
}

/// `husk spec`.
#[derive(Debug, Args)]
pub struct SpecArgs {
    /// The bundle's directory
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
}

/// `husk trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// What `husk run --trace FILE` wrote, - for standard input; or the id of a container that is recorded, which is then
    /// followed to its end
    #[arg(value_name = "FILE|ID")]
    pub file: PathBuf,
    /// Go on printing what is added while the container runs
    #[arg(short, long)]
    pub follow: bool,
    /// Print counts and times by call instead
    #[arg(short = 'c', long)]
    pub summary: bool,
}

/// A duration as runc takes it: `500ms`, `5s`, `1.5m`, `1h30m`.
fn interval(text: &str) -> Result<Duration, String> {
    let wrong = || "give a duration above 0, such as 500ms, 5s or 1m".to_owned();
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let cut = rest
            .find(|c: char| c.is_ascii_alphabetic())
            .ok_or_else(wrong)?;
        let (number, after) = rest.split_at(cut);
        let end = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let unit = match &after[..end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        total += number.parse::<f64>().map_err(|_| wrong())? * unit;
        rest = &after[end..];
    }
    Duration::try_from_secs_f64(total)
        .ok()
        .filter(|duration| *duration >= Duration::from_millis(1))
        .ok_or_else(wrong)
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
const VALUED: [&str; 4] = ["--root", "--log", "--log-format", "--log-filter"];

/// Verbs other than `run`.
const OTHER_VERBS: [&str; 20] = [
    "pull", "image", "create", "start", "state", "kill", "exec", "ps", "pause", "resume", "update",
    "events", "delete", "list", "spec", "features", "check", "trace", "debug", "version",
];

impl Cli {
    /// Whether more than warnings is asked for.
    #[must_use]
    pub fn is_verbose(&self) -> bool {
        self.debug || self.log_filter.is_some()
    }

    /// Where images are kept.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.root.clone().unwrap_or_else(|| "/var/lib/husk".into())
    }

    /// Where the state of containers is kept.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.clone().unwrap_or_else(|| "/run/husk".into())
    }
}

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
        if error.to_string().contains("Usage: husk image") {
            return "no image command given; write load, ls, inspect, rm or prune (husk image --help explains)"
                .to_owned();
        }
        let verbs = OTHER_VERBS.join(", ");
        return format!("no command given; write run, {verbs} (husk --help explains)");
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
    fn what_run_runs() {
        let archive = run("husk run docker-archive:b.tar");
        assert!(matches!(archive.target, Some(Target::Source(_))) && !archive.is_bundle());
        // The tests' directory is no bundle.
        assert!(!run("husk run busybox").is_bundle());
        assert!(!run("husk run example.org/a/b:1").is_bundle());
        for line in [
            "husk run --bundle b Box",
            "husk run -b b docker-archive:b.tar",
        ] {
            assert!(run(line).is_bundle(), "{line}");
        }
    }

    #[test]
    fn flags_belong_to_images_or_bundles() {
        let found = |line: &str| {
            let args = run(line);
            args.misplaced(args.is_bundle())
        };
        assert_eq!(found("husk run busybox --env A=1 -- sh"), None);
        assert_eq!(found("husk run -d busybox"), Some("--detach"));
        assert_eq!(found("husk run -d --bundle b box"), None);
        assert_eq!(
            found("husk run --bundle b box --memory 64m"),
            Some("--memory")
        );
        assert_eq!(found("husk run --bundle b box -- sh"), Some("a command"));
    }

    #[test]
    fn errors_are_one_line() {
        let lines = [
            "husk",
            "husk run",
            "husk image",
            "husk image load x",
            "husk image rm A",
            "husk pull x:",
            "husk pull --tls-verify=perhaps x",
            "husk --nope run x",
            "husk run --nope oci:x",
            "husk run oci:x sh",
            "husk run Nowhere:x",
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
    fn durations() {
        assert_eq!(interval("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(interval("1m1.5s"), Ok(Duration::from_millis(61_500)));
        for wrong in ["", "5", "s", "0s", "-1s", "5d", "nans", "1e300s"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn help_is_help() {
        assert!(matches!(
            parse(&words("husk run --help")),
            Ok(Parsed::Help(text)) if text.contains("--memory")
        ));
    }
}
