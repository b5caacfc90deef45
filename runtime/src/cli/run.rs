//! `husk run`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use husk_abi::boundary::config::LogLevel;
use husk_abi::linux::Errno;
use husk_images::{Algorithm, Digest, Image, Store};

use super::args::RunArgs;
use super::progress::Meter;
use super::{Error, report, stats};
use crate::plan::{self, Cpus, Host, Request};
use crate::sandbox::{self, Ended};
use crate::vmm;

const STATUS_TIMED_OUT: u8 = 124;
const STATUS_NOT_EXECUTABLE: u8 = 126;
const STATUS_NOT_FOUND: u8 = 127;
/// `EX_SOFTWARE` of sysexits.h: the libOS crashed.
const STATUS_CRASHED: u8 = 70;

/// Runs a container to its end.
pub fn run(root: &Path, args: RunArgs, debug: bool) -> Result<ExitCode, Error> {
    let begun = Instant::now();
    let host = Host::look()?;
    check_cpus(args.cpus, &host)?;
    let request = Request {
        env: args.env,
        workdir: args.workdir,
        memory: args.memory.unwrap_or(host.memory),
        hostname: args.hostname,
        entrypoint: args.entrypoint,
        user: args.user,
        command: args.command,
        trace: args.trace,
        rootfs: args.rootfs,
        volumes: args.volume,
        timeout: args.timeout,
        stats: args.stats,
        log_level: if debug {
            LogLevel::Debug
        } else {
            LogLevel::Warn
        },
    };
    request.check(&host)?;
    // Unpacking may take a while: first see that there is something to run it with.
    drop(vmm::open_kvm().map_err(sandbox::Error::from)?);

    let image = match (&request.rootfs, &args.source) {
        (Some(directory), _) => directory_image(directory)?,
        (None, Some(source)) => Store::open(root)?.prepare(source, &mut Meter::new())?,
        (None, None) => unreachable!("the command line's own rule"),
    };
    let image_time = begun.elapsed();
    tracing::debug!(digest = %image.digest, "image ready");
    let plan = request.plan(container_id()?, &image, &host)?;
    let program = plan.guest.args.first().cloned().unwrap_or_default();
    tracing::debug!(id = plan.id, "starting");

    let outcome = sandbox::run(plan)?;
    let problem = outcome
        .recorded
        .as_ref()
        .and_then(|recorded| recorded.problem.as_ref());
    if let Some(problem) = problem {
        report(&format!("the recording is not complete: {problem}"));
    }
    let status = status_of(&outcome.ended, &program, args.timeout);
    if args.stats {
        let text = stats::table(image_time, begun.elapsed(), &outcome);
        let _ = io::stderr().write_all(text.as_bytes());
    }
    Ok(ExitCode::from(status))
}

/// What stands for an image where the root is a plain directory: nothing is known of it but its files.
fn directory_image(directory: &Path) -> Result<Image, Error> {
    let rootfs = directory
        .canonicalize()
        .map_err(|source| plan::Error::Volume {
            path: directory.to_path_buf(),
            source,
        })?;
    Ok(Image {
        digest: Digest::of(Algorithm::Sha256, b""),
        reference: None,
        config: husk_images::ImageConfig::default(),
        rootfs,
        root_archive: std::path::PathBuf::new(),
    })
}

fn check_cpus(cpus: Option<Cpus>, host: &Host) -> Result<(), plan::Error> {
    match cpus {
        Some(asked) if asked.hundredths > u64::from(host.cpus) * 100 => {
            Err(plan::Error::TooManyCpus {
                asked,
                host: host.cpus,
            })
        }
        _ => Ok(()),
    }
}

/// 64 random hexadecimal digits.
fn container_id() -> Result<String, Error> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(Error::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Tells what is to be told about the end and gives the exit status for it.
fn status_of(ended: &Ended, program: &[u8], timeout: Option<Duration>) -> u8 {
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
        Ended::Crashed { reason, log } => {
            let tail = if log.is_empty() {
                "it logged nothing"
            } else {
                "its last messages follow"
            };
            report(&format!("the container's libOS crashed: {reason}; {tail}"));
            let mut stderr = io::stderr().lock();
            for line in log {
                let _ = writeln!(stderr, "husk: libOS: {line}");
            }
            STATUS_CRASHED
        }
    }
}

/// A wait status as a shell shows it.
fn exit_status(wait_status: u32) -> u8 {
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
fn not_executed(errno: Errno, program: &[u8]) -> (String, u8) {
    let name = String::from_utf8_lossy(program);
    match errno {
        Errno::ENOENT if program.contains(&b'/') => (
            format!(
                "cannot run {name:?}: it is not in the image, or the interpreter it names is not"
            ),
            STATUS_NOT_FOUND,
        ),
        Errno::ENOENT => (
            format!("cannot run {name:?}: not found in the image's PATH"),
            STATUS_NOT_FOUND,
        ),
        Errno::EACCES => (
            format!("cannot run {name:?}: it is not executable"),
            STATUS_NOT_EXECUTABLE,
        ),
        Errno::ENOEXEC => (
            format!(
                "cannot run {name:?}: it is not executable: neither an x86-64 program nor a script"
            ),
            STATUS_NOT_EXECUTABLE,
        ),
        errno => (
            format!("cannot run {name:?}: {errno}"),
            STATUS_NOT_EXECUTABLE,
        ),
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
            ("cannot run \"foo\": not found in the image's PATH", 127)
        );
        assert_eq!(not_executed(Errno::ENOENT, b"/foo").1, 127);
        assert_eq!(not_executed(Errno::EACCES, b"/foo").1, 126);
        assert_eq!(not_executed(Errno::ENOEXEC, b"/foo").1, 126);
        let (line, status) = not_executed(Errno::E2BIG, b"/foo");
        assert!(line.ends_with("E2BIG") && status == 126);
    }

    #[test]
    fn ids_are_long_and_differ() {
        let (one, two) = (container_id().unwrap(), container_id().unwrap());
        assert!(one.len() == 64 && one != two);
        assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
