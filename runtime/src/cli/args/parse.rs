//! From words to a command, or to one line that says what is wrong with them.

use std::ffi::OsString;

use clap::Parser;

use super::Cli;

/// Flags of [`Cli`] that take a value, for finding the verb when the line does not parse.
const VALUED: [&str; 4] = ["--root", "--log", "--log-format", "--log-filter"];

/// Verbs other than `run`.
const OTHER_VERBS: [&str; 20] = [
    "pull", "image", "create", "start", "state", "kill", "exec", "ps", "pause", "resume", "update",
    "events", "delete", "list", "spec", "features", "check", "trace", "debug", "version",
];

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

/// A command line for tests.
#[cfg(test)]
pub(super) fn words(line: &str) -> Vec<OsString> {
    line.split(' ').map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> UsageError {
        parse(&words(line)).expect_err(line)
    }

    #[test]
    fn definition_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
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
    fn help_is_help() {
        assert!(matches!(
            parse(&words("husk run --help")),
            Ok(Parsed::Help(text)) if text.contains("--memory")
        ));
    }
}
