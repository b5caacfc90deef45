//! `husk run`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use husk_abi::linux::Errno;
use husk_images::{Algorithm, ContainerRoot, Digest, Image, ImageConfig, Stack, Store};

use super::args::{Cli, RunArgs, Target, stored};
use super::filter::LogFilter;
use super::progress::Meter;
use super::terminal::Relay;
use super::{Error, create, foreground, report, stats};
use crate::gate::fuse::TreeSource;
use crate::oci::{self, lifecycle};
use crate::plan::{self, Cpus, Host, ImageAtHand, Request, RootFiles};
use crate::record::{self, Options};
use crate::sandbox::{self, Debugging, Ended, Plan, Trace};
use crate::vmm;

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
        (false, None) => image(cli, args, log),
    }
}

/// A container made from a bundle.
fn bundle(cli: &Cli, args: &RunArgs, log: &LogFilter, id: &str) -> Result<ExitCode, Error> {
    let mut container = create::container(cli, id, &args.setup, &args.record, log, !args.detach)?;
    let terminal = container.terminal.take();
    let started = lifecycle::start(&container);
    if args.detach {
        if let Err(error) = started {
            lifecycle::delete(container, true)?;
            return Err(error.into());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let status = started.and_then(|()| {
        let relay = terminal
            .map(Relay::start)
            .transpose()
            .map_err(oci::Error::host("relay the terminal"))?;
        let status = foreground::wait(&container, relay.as_ref());
        if let Some(relay) = relay {
            relay.finish();
        }
        status
    });
    if !args.keep || status.is_err() {
        lifecycle::delete(container, true)?;
    }
    Ok(ExitCode::from(status?))
}

/// A container made from an image.
fn image(cli: &Cli, args: &RunArgs, log: &LogFilter) -> Result<ExitCode, Error> {
    let begun = Instant::now();
    let host = Host::look()?;
    check_cpus(args.cpus, &host)?;
    let request = Request {
        env: args.env.clone(),
        workdir: args.workdir.clone(),
        memory: args.memory.unwrap_or(host.memory),
        hostname: args.hostname.clone(),
        entrypoint: args.entrypoint.clone(),
        user: args.user.clone(),
        command: args.command.clone(),
        trace: args.record.trace.clone(),
        volumes: args.volume.clone(),
        timeout: args.timeout,
        stats: args.stats,
        log_levels: log.guest_levels(),
        debugging: Debugging {
            is_verbose: cli.is_verbose(),
            libos: libos(args)?,
            gdb: args.gdb.clone(),
        },
    };
    request.check(&host)?;
    // Unpacking may take a while: first see that there is something to run it with.
    let kvm = vmm::open_kvm().map_err(sandbox::Error::from)?;

    // Held to the end: so long nobody removes it.
    let (_stored, at_hand) = match (&args.rootfs, &args.target) {
        (Some(directory), _) => (None, directory_at_hand(directory)?),
        (None, Some(target)) => {
            let (stored, at_hand) = prepare(&cli.store(), target, args.in_memory)?;
            (Some(stored), at_hand)
        }
        (None, None) => unreachable!("the command line's own rule"),
    };
    let image_time = begun.elapsed();
    tracing::debug!(digest = %at_hand.digest, "image ready");
    let id = container_id()?;
    let plan = request.plan(&id, at_hand, &host)?;
    let program = plan.guest.process.args.first().cloned().unwrap_or_default();
    tracing::debug!(id, "starting");
    let trace = match plan.trace {
        Some(path) => Some(Trace {
            file: record::create(&path)?,
            path,
            image: plan.image,
            options: args.record.options(Options::default())?,
        }),
        None => None,
    };
    let outcome = sandbox::run(Plan {
        id,
        memory_bytes: plan.memory_bytes,
        root_archive: plan.root_archive,
        trees: plan.trees,
        kvm,
        reporter: None,
        control: None,
        guest: plan.guest,
        trace,
        timeout: plan.timeout,
        debugging: plan.debugging,
    })?;
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

/// An image in use, and what a container of it writes.
struct Stored {
    _root: Option<ContainerRoot>,
    _image: Image,
}

/// Finds the image, stores it where it is an archive's, and gets it ready.
fn prepare(root: &Path, target: &Target, in_memory: bool) -> Result<(Stored, ImageAtHand), Error> {
    let mut meter = Meter::new();
    let store = Store::open(root)?;
    let image = match target {
        Target::Source(source) => store.add(source, |_| Vec::new(), &mut meter)?,
        Target::Word(name) => {
            let name = stored(name).map_err(Error::Wanted)?;
            store.find(&name, &mut meter)?
        }
    };
    let (files, own_root) = if in_memory {
        let archive = store.root_archive(&image, &mut meter)?;
        (RootFiles::Archive(archive), None)
    } else {
        let root = store.container_root(&image, &mut meter)?;
        let held = root.directory().try_clone_to_owned();
        let held = held.map_err(oci::Error::host("keep the root open"))?;
        tracing::debug!(is_copy = root.is_copy(), "root ready");
        let tree = root_tree(PathBuf::from("the image"), Some(held));
        (RootFiles::Tree(tree), Some(root))
    };
    let at_hand = ImageAtHand {
        digest: image.digest.clone(),
        config: image.config.clone(),
        root: store.root(&image)?,
        files,
    };
    let stored = Stored {
        _root: own_root,
        _image: image,
    };
    Ok((stored, at_hand))
}

/// What stands for an image where the root is a plain directory: nothing is known of it but its files.
fn directory_at_hand(directory: &Path) -> Result<ImageAtHand, Error> {
    let open = || Stack::open(&[directory.canonicalize()?]);
    Ok(ImageAtHand {
        digest: Digest::of(Algorithm::Sha256, b""),
        config: ImageConfig::default(),
        root: open().map_err(|source| plan::Error::Volume {
            path: directory.to_path_buf(),
            source,
        })?,
        files: RootFiles::Tree(root_tree(directory.to_path_buf(), None)),
    })
}

/// A root that is this container's alone.
fn root_tree(path: PathBuf, held: Option<OwnedFd>) -> TreeSource {
    TreeSource {
        path,
        held: held.map(Arc::new),
        read_only: false,
        exclusive: true,
    }
}

/// The image `--libos` names.
fn libos(args: &RunArgs) -> Result<Option<File>, sandbox::Error> {
    args.libos
        .as_ref()
        .map(File::open)
        .transpose()
        .map_err(|source| sandbox::Error::Host {
            what: "read the libOS image --libos names",
            source,
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

    #[test]
    fn ids_are_long_and_differ() {
        let (one, two) = (container_id().unwrap(), container_id().unwrap());
        assert!(one.len() == 64 && one != two);
        assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
