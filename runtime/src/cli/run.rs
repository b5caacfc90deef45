//! `husk run`.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use husk_abi::linux::Errno;

use super::args::{Cli, RunArgs};
use super::filter::LogFilter;
use super::foreground::{self, Foreground};
use super::terminal::Relay;
use super::{Error, create, report, run_image};
use crate::oci::state::{self, Directory};
use crate::oci::{self, lifecycle};
use crate::sandbox::Ended;

const STATUS_TIMED_OUT: u8 = 124;
const STATUS_NOT_EXECUTABLE: u8 = 126;
const STATUS_NOT_FOUND: u8 = 127;
/// `EX_SOFTWARE` of sysexits.h: the libOS crashed.
const STATUS_CRASHED: u8 = 70;

/// Runs a container to its end.
pub fn run(cli: &Cli, args: &RunArgs, log: &LogFilter) -> Result<ExitCode, Error> {
    let is_bundle = args.is_bundle();
    match (is_bundle, args.misplaced(is_bundle)) {
        (true, Some(flag)) => Err(Error::NoImage { flag }),
        (false, Some(flag)) => Err(Error::NoBundle { flag }),
        (true, None) => {
            let id = args.target.as_ref().map(ToString::to_string);
            bundle(cli, args, log, &id.unwrap_or_default())
        }
        (false, None) => run_image::run(cli, args, log),
    }
}

/// A container made from a bundle.
fn bundle(cli: &Cli, args: &RunArgs, log: &LogFilter, id: &str) -> Result<ExitCode, Error> {
    let mut container = create::container(cli, id, &args.setup, &args.record, log, !args.detach)?;
    let terminal = container.terminal.take();
    let started = lifecycle::start(&container);
    container.unlock();
    if args.detach {
        if let Err(error) = started {
            remove(cli, id)?;
            return Err(error.into());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let status = started.and_then(|()| {
        let terminal = terminal
            .map(Relay::start)
            .transpose()
            .map_err(oci::Error::host("relay the terminal"))?
            .map_or(Foreground::None, Foreground::Relayed);
        let status = foreground::wait(&container, &terminal);
        if let Foreground::Relayed(relay) = terminal {
            relay.finish();
        }
        status
    });
    if !args.keep || status.is_err() {
        remove(cli, id)?;
    }
    Ok(ExitCode::from(status?))
}

/// Removes the container, unless somebody else did meanwhile.
pub fn remove(cli: &Cli, id: &str) -> Result<(), oci::Error> {
    match Directory::new(&cli.state()).open(id) {
        Ok(container) => lifecycle::delete(container, true),
        Err(state::Error::NotFound) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Tells what is to be told about the end and gives the exit status for it.
pub fn status_of(ended: &Ended, program: &[u8], timeout: Option<Duration>) -> u8 {
    match ended {
        Ended::Init(status) => exit_status(*status),
        Ended::NotExecuted(errno) => {
            let (line, status) = not_executed(*errno, program);
            report(&line);
            status
        }
        Ended::TimedOut => {
            let limit = timeout.unwrap_or_default().as_secs_f64();
            report(&format!(
                "the container was ended: it ran longer than the {limit} s --timeout allows"
            ));
            STATUS_TIMED_OUT
        }
        Ended::Crashed {
            reason,
            log,
            backtrace,
        } => {
            let tail = if log.is_empty() {
                "it logged nothing"
            } else {
                "its last messages follow"
            };
            report(&format!("the container's libOS crashed: {reason}; {tail}"));
            let mut stderr = io::stderr().lock();
            for line in log.iter().chain(backtrace) {
                let _ = writeln!(stderr, "husk: libOS: {line}");
            }
            for line in backtrace {
                super::logging::error(line);
            }
            STATUS_CRASHED
        }
    }
}

/// A wait status as a shell shows it.
pub fn exit_status(wait_status: u32) -> u8 {
    let status = ExitStatus::from_raw(wait_status.cast_signed());
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        // Stopped or continued: no end at all.
        (None, None) => i32::from(STATUS_CRASHED),
    };
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// What to say when the program could not be executed, and the status for it (as `env(1)` gives).
pub fn not_executed(errno: Errno, program: &[u8]) -> (String, u8) {
    let name = String::from_utf8_lossy(program);
    match errno {
        Errno::ENOENT if program.contains(&b'/') => (
            format!("exec: {name:?}: no such file or directory (it, or the interpreter it names)"),
            STATUS_NOT_FOUND,
        ),
        Errno::ENOENT => (
            format!("exec: {name:?}: executable file not found in $PATH"),
            STATUS_NOT_FOUND,
        ),
        Errno::EACCES => (
            format!("exec: {name:?}: permission denied"),
            STATUS_NOT_EXECUTABLE,
        ),
        Errno::ENOEXEC => (
            format!("exec: {name:?}: exec format error (neither an x86-64 program nor a script)"),
            STATUS_NOT_EXECUTABLE,
        ),
        errno => (format!("exec: {name:?}: {errno}"), STATUS_NOT_EXECUTABLE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        assert_eq!(exit_status(0), 0);
        assert_eq!(exit_status(7 << 8), 7);
        assert_eq!(exit_status(255 << 8), 255);
        assert_eq!(exit_status(9), 137);
        assert_eq!(exit_status(11 | 0x80), 139);
        for garbage in [u32::MAX, 0x7f, 0xffff, 0xdead_beef, 1 << 31] {
            let _ = exit_status(garbage);
        }
    }

    #[test]
    fn programs_that_do_not_start() {
        let (line, status) = not_executed(Errno::ENOENT, b"foo");
        assert_eq!(
            (line.as_str(), status),
            ("exec: \"foo\": executable file not found in $PATH", 127)
        );
        assert_eq!(not_executed(Errno::ENOENT, b"/foo").1, 127);
        assert_eq!(not_executed(Errno::EACCES, b"/foo").1, 126);
        assert_eq!(not_executed(Errno::ENOEXEC, b"/foo").1, 126);
        let (line, status) = not_executed(Errno::E2BIG, b"/foo");
        assert!(line.ends_with("E2BIG") && status == 126);
    }
}
