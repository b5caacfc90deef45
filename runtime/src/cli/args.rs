//! What may be typed: flags and their values, each checked for its own form.
//!
//! Whether a value makes sense together with the image and the host is [`crate::plan`]'s business.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use husk_images::reference::ReferenceError;
use husk_images::source::{SourceError, TRANSPORTS};
use husk_images::store::MIN_ID;
use husk_images::{Reference, Source};

use super::filter::LogFilter;
use crate::gdb::GdbAddress;
use crate::oci::state::check_id;
use crate::plan::{Cpus, MemorySize};

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
    /// Make a container from a bundle; its program waits for `start`
    Create(CreateArgs),
    /// Start the program of a container that was made
    Start(IdArgs),
    /// Print the state of a container
    State(IdArgs),
    /// Send a signal to the first process of a container
    Kill(KillArgs),
    /// Remove a container and all that belongs to it
    Delete(DeleteArgs),
    /// Print the containers
    List(ListArgs),
    /// Write an example config.json
    Spec(SpecArgs),
    /// Print what this runtime can do, as JSON
    Features,
    /// Get an image from a registry into the store
    Pull(PullArgs),
    /// Load, list, inspect and remove images
    #[command(subcommand)]
    Image(ImageVerb),
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
    override_usage = "husk run [OPTIONS] IMAGE [-- COMMAND...]\n       husk run --bundle DIR [OPTIONS] ID",
    after_help = "Exit status: the command's own, 128 + N if signal N ended it, 124 after --timeout, \
                  125 if husk itself failed,\n126 if the command cannot be executed, 127 if it is not in the \
                  image, 70 if the container's libOS crashed."
)]
pub struct RunArgs {
    /// Image: a name or id in the store, or docker-archive:FILE[:NAME], oci:DIR[:TAG], oci-archive:FILE[:TAG]; with
    /// --bundle, or in a bundle's directory, the id of the container to make from it
    #[arg(value_name = "IMAGE|ID")]
    pub image: Wanted,
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

/// How a container is made from a bundle: `create` and `run`.
#[derive(Clone, Debug, Default, Args)]
pub struct SetupArgs {
    /// The bundle's directory [default: the working directory]
    #[arg(short, long, value_name = "DIR")]
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

/// `husk create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The new container's id
    #[arg(value_name = "ID")]
    pub id: String,
    /// How it is made
    #[command(flatten)]
    pub setup: SetupArgs,
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
    /// Accepted: the guest's other processes end with its first
    #[arg(short, long)]
    pub all: bool,
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
    /// Form of the output
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

/// Which image to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// One of an archive or a layout.
    Source(Source),
    /// One of the store.
    Stored(String),
    /// No image can be called so, but a container can.
    Id(String),
}

impl FromStr for Wanted {
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
        match stored(text) {
            Ok(name) => Ok(Self::Stored(name)),
            Err(_) if check_id(text).is_ok() => Ok(Self::Id(text.to_owned())),
            Err(error) => Err(error),
        }
    }
}

/// A name or an id of an image in the store.
fn stored(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    if !(MIN_ID..=64).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        text.parse::<Reference>().map_err(|e| e.to_string())?;
    }
    Ok(text.to_owned())
}

/// `husk pull`.
#[derive(Debug, Args)]
#[command(
    after_help = "Credentials are those of docker login: auths, credHelpers and credsStore of \
                        $DOCKER_CONFIG/config.json or ~/.docker/config.json."
)]
pub struct PullArgs {
    /// [HOST[:PORT]/]NAME[:TAG][@DIGEST]; the host is docker.io and the tag latest where they are left out
    #[arg(value_name = "REFERENCE")]
    pub reference: Reference,
    /// Insist on a valid certificate; with false, also talk to registries without one, or without TLS at all
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = ArgAction::Set
    )]
    pub tls_verify: bool,
    /// Print the image's name only
    #[arg(short, long)]
    pub quiet: bool,
}

/// Form of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// For people
    #[default]
    Table,
    /// JSON: one array, or one object a line
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

/// `husk image`.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum ImageVerb {
    /// Load images from an archive or a layout into the store
    Load(LoadArgs),
    /// List the images in the store
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Print what is known of images as JSON
    Inspect {
        /// Names or ids
        #[arg(value_name = "IMAGE", required = true, value_parser = stored)]
        images: Vec<String>,
    },
    /// Remove names of images, and images that have no name left
    Rm {
        /// Names or ids
        #[arg(value_name = "IMAGE", required = true, value_parser = stored)]
        images: Vec<String>,
        /// Given an id, remove the image with all its names
        #[arg(short, long)]
        force: bool,
    },
    /// Remove images without a name, and what killed processes left
    Prune {
        /// Also those that have names, unless a container uses them
        #[arg(short, long)]
        all: bool,
    },
}

/// `husk image load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// docker-archive:FILE[:NAME], oci:DIR[:TAG] or oci-archive:FILE[:TAG]; all images of it where nothing is chosen
    #[arg(value_name = "SOURCE")]
    pub source: Source,
    /// Give the image this name instead of its own
    #[arg(long, value_name = "NAME[:TAG]", value_parser = plain_name)]
    pub name: Option<Reference>,
}

/// `husk image ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// Print ids in full
    #[arg(long)]
    pub no_trunc: bool,
    /// Print a table, or one JSON object a line
    #[arg(
        long,
        value_name = "FORM",
        value_enum,
        default_value = "table",
        conflicts_with = "quiet"
    )]
    pub format: ListFormat,
}

/// A name that can be given.
fn plain_name(text: &str) -> Result<Reference, String> {
    let name: Reference = text.parse().map_err(|e: ReferenceError| e.to_string())?;
    if name.digest().is_some() {
        return Err("a name to give holds no digest".to_owned());
    }
    Ok(name)
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
const VALUED: [&str; 4] = ["--root", "--log", "--log-format", "--log-filter"];

/// Verbs other than `run`.
const OTHER_VERBS: [&str; 14] = [
    "pull", "image", "check", "trace", "debug", "version", "create", "start", "state", "kill",
    "delete", "list", "spec", "features",
];

impl SetupArgs {
    /// The bundle's directory.
    #[must_use]
    pub fn bundle(&self) -> &Path {
        self.bundle.as_deref().unwrap_or(Path::new("."))
    }
}

impl RunArgs {
    /// The id of a container to make from a bundle, if that is what is meant: with `--bundle`, or, as with runc, in
    /// a bundle's directory; what has the form of an archive never is.
    #[must_use]
    pub fn container_id(&self) -> Option<String> {
        let (Wanted::Stored(name) | Wanted::Id(name)) = &self.image else {
            return None;
        };
        let in_bundle = || Path::new("config.json").exists();
        (self.setup.bundle.is_some() || in_bundle()).then(|| name.to_string())
    }
}

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
        return "no command given; write run, pull, image, check, trace, debug or version (husk --help explains)"
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
    fn help_is_help() {
        assert!(matches!(
            parse(&words("husk run --help")),
            Ok(Parsed::Help(text)) if text.contains("--memory")
        ));
    }
}
