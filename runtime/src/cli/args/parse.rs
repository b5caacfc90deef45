//! From words to a command, or to one line that says what is wrong with them.

use std::ffi::OsString;

use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory, Parser};

use super::Cli;

/// Flags of [`Cli`] that take a value, for finding the verb when the line does not parse.
const VALUED: [&str; 6] = [
    "--root",
    "--log",
    "--log-format",
    "--log-filter",
    "--rootless",
    "--criu",
];

/// Verbs of runc that husk has not.
const NOT_YET: [&str; 2] = ["checkpoint", "restore"];

/// Exit status of a wrong command line.
const STATUS_USAGE: u8 = 1;
/// That of a wrong `run`, as engines and users of images have it.
const STATUS_RUN: u8 = 125;
/// That of a verb that is not known, runc's.
const STATUS_NO_VERB: u8 = 3;

/// The place in `args` (the program's name is not among them) of the first word that is neither a flag nor the value of one.
fn verb_at(args: &[OsString]) -> Option<usize> {
    let mut places = args.iter().enumerate();
    while let Some((place, arg)) = places.next() {
        if VALUED.iter().any(|flag| arg == flag) {
            places.next();
        } else if !arg.as_encoded_bytes().starts_with(b"-") {
            return Some(place);
        }
    }
    None
}

/// What is wrong with a command line, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    /// The line.
    pub message: String,
    /// The exit status for it.
    pub status: u8,
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
    let words = args.get(1..).unwrap_or_default();
    let at = verb_at(words);
    let verb = at.and_then(|at| words[at].to_str()).unwrap_or_default();
    if NOT_YET.contains(&verb) {
        return Err(UsageError {
            message: format!("{verb}: husk cannot save and restore containers yet"),
            status: STATUS_USAGE,
        });
    }
    let parsed = match at {
        // `help VERB` is `VERB --help`.
        Some(at) if verb == "help" => {
            let rest = words[at + 1..].iter().cloned();
            let help = std::iter::once("--help".into());
            Cli::try_parse_from(args.iter().take(1).cloned().chain(rest).chain(help))
        }
        _ => Cli::try_parse_from(args),
    };
    parsed
        .map(|cli| Parsed::Command(Box::new(cli)))
        .or_else(|error| match error.kind() {
            ErrorKind::DisplayHelp => Ok(Parsed::Help(error.to_string())),
            // As runc, which helps where nothing is asked for.
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand
                if at.is_none() =>
            {
                Ok(Parsed::Help(Cli::command().render_help().to_string()))
            }
            kind => Err(UsageError {
                message: one_line(&error),
                status: match kind {
                    ErrorKind::InvalidSubcommand if verb != "image" && verb != "debug" => {
                        STATUS_NO_VERB
                    }
                    _ if verb == "run" => STATUS_RUN,
                    _ => STATUS_USAGE,
                },
            }),
        })
}

/// clap's error and its first tip, without the usage that follows.
fn one_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        if error.to_string().contains("Usage: husk image") {
            return "no image command given; write load, ls, inspect, rm or prune (husk image --help explains)"
                .to_owned();
        }
        return "no command given (husk --help explains)".to_owned();
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
    // In runc's words, which people look for.
    let word = |kind| error.get(kind).map(ToString::to_string);
    match error.kind() {
        ErrorKind::UnknownArgument => {
            if let Some(flag) = word(ContextKind::InvalidArg).filter(|arg| arg.starts_with('-')) {
                line = format!("flag provided but not defined: {flag}");
            }
        }
        ErrorKind::InvalidSubcommand => {
            if let Some(verb) = word(ContextKind::InvalidSubcommand) {
                line = format!("No help topic for '{verb}': there is no such command");
            }
        }
        _ => {}
    }
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
    fn statuses_are_those_of_the_verb() {
        for (line, status) in [
            ("husk --root /x --debug run --nope", 125),
            ("husk --log run run", 125),
            ("husk --rootless auto run", 125),
            ("husk --root run trace", 1),
            ("husk check run", 1),
            ("husk image fly", 1),
            ("husk --nope list", 1),
            ("husk --log x checkpoint --leave-running c", 1),
            ("husk restore", 1),
            ("husk fly", 3),
            ("husk --root x fly --high", 3),
        ] {
            assert_eq!(error(line).status, status, "{line}");
        }
    }

    #[test]
    fn words_are_runcs() {
        let text = |line| error(line).message;
        assert!(text("husk fly").starts_with("No help topic for 'fly'"));
        assert!(text("husk list --frob").starts_with("flag provided but not defined: --frob"));
        assert!(text("husk checkpoint x").starts_with("checkpoint: husk cannot save"));
    }

    #[test]
    fn help_is_help() {
        assert!(matches!(
            parse(&words("husk run --help")),
            Ok(Parsed::Help(text)) if text.contains("--memory")
        ));
        for line in [
            "husk",
            "husk help",
            "husk --debug",
            "husk help run",
            "husk --root x help kill",
        ] {
            assert!(matches!(parse(&words(line)), Ok(Parsed::Help(_))), "{line}");
        }
    }
}
