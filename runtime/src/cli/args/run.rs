//! `husk run`.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args};
use husk_images::Source;
use husk_images::source::{SourceError, TRANSPORTS};

use super::{RecordArgs, SetupArgs, stored};
use crate::gdb::GdbAddress;
use crate::plan::{Cpus, MemorySize, Network, Volume};

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
    /// CPUs the container may use, such as 1.5 (its processes share one vCPU for now)
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub cpus: Option<Cpus>,
    /// Host name in the container [default: 12 random hex digits]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// What it reaches outside itself
    #[arg(long, value_name = "NETWORK", value_enum, default_value_t)]
    pub network: Network,
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
                (self.network != Network::default(), "--network"),
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

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "give a number of seconds above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::parse::words;
    use crate::cli::args::{Parsed, Verb, parse};

    fn run(line: &str) -> RunArgs {
        let Ok(Parsed::Command(cli)) = parse(&words(line)) else {
            panic!("{line} does not parse: {:?}", parse(&words(line)));
        };
        match cli.verb {
            Verb::Run(run) => *run,
            other => panic!("{other:?}"),
        }
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
}
