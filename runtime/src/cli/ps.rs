//! `husk ps`.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use husk_abi::boundary::control::ProcessInfo;
use serde_json::json;

use super::args::{Cli, ListFormat, PsArgs};
use super::{Error, print_json, print_text};
use crate::oci::state::{Directory, Status};
use crate::oci::{self, control, lifecycle};

/// Prints the processes of a container: those of the host that stand for it as JSON, as engines want them, those inside as a
/// table.
pub fn run(cli: &Cli, args: &PsArgs) -> Result<ExitCode, Error> {
    let all = Directory::new(&cli.state());
    let seen = all.look(&args.id).map_err(oci::Error::from)?;
    match args.format {
        ListFormat::Json => {
            let pids = lifecycle::processes(&seen)?;
            print_json(&json!(pids))
        }
        ListFormat::Table => {
            let list = match seen.status {
                Status::Running => control::processes(&all.path(&args.id))?,
                Status::Paused if seen.record.has_started() => {
                    return Err(oci::Error::PsPaused.into());
                }
                // There are none yet, or none any more.
                _ => Vec::new(),
            };
            print_text(&table(&list))
        }
    }
}

/// A command line for people: no NUL, nothing that moves a terminal's cursor.
fn arguments(process: &ProcessInfo) -> String {
    let bytes = match process.arguments.as_slice() {
        [] => process.executable.as_slice(),
        [words @ .., 0] => words,
        cut => cut,
    };
    let text = String::from_utf8_lossy(bytes);
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.collect()
}

/// Columns as `ps -ef` has them.
fn table(list: &[ProcessInfo]) -> String {
    let mut text = "UID          PID    PPID  C STIME TTY          TIME CMD\n".to_owned();
    for process in list {
        let used = Duration::from_nanos(process.cpu_ns).as_secs();
        let time = format!("{:02}:{:02}:{:02}", used / 3600, used / 60 % 60, used % 60);
        let started = SystemTime::now()
            .checked_sub(Duration::from_nanos(process.age_ns))
            .unwrap_or(SystemTime::UNIX_EPOCH);
        let name = String::from_utf8_lossy(&process.name);
        let command = match arguments(process) {
            command if command.is_empty() => format!("[{name}]"),
            command => command,
        };
        let _ = writeln!(
            text,
            "{:<9}{:>7} {:>7}  0 {:<5} ?        {time} {command}",
            process.uid,
            process.pid,
            process.ppid,
            lifecycle::clock_time(started),
        );
    }
    text
}
