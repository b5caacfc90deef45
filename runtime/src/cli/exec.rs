//! `husk exec`.
#![allow(unsafe_code, reason = "fork, and the terminal of a session")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use husk_abi::boundary::config::{ProcessConfig, StreamKind};
use husk_abi::boundary::control::Obstacle;
use husk_abi::linux::Errno as GuestErrno;
use nix::errno::Errno;
use nix::pty::openpty;
use nix::sched::{CloneFlags, setns};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe, setsid};

use super::Error;
use super::args::{Cli, ExecArgs};
use super::preserved::Preserved;
use super::terminal::Relay;
use crate::control::client::Client;
use crate::control::proxy::{self, Signals};
use crate::control::wire::{Answer, Ask};
use crate::oci::exec::{Changes, Process, Wanted};
use crate::oci::state::{Directory, Init, Status};
use crate::oci::{self, console, lifecycle};
use crate::plan::stream_kind;
use crate::sandbox::report::{Listener, Report, Reporter};

/// Exit status when the process could not be started, as runc's.
const STATUS_EXEC_FAILED: u8 = 255;

fn wanted(args: &ExecArgs) -> Result<Wanted, Error> {
    if let Some(file) = &args.process {
        return Ok(Wanted::File(file.clone()));
    }
    if args.command.is_empty() {
        return Err(Error::Wanted("process args cannot be empty".to_owned()));
    }
    Ok(Wanted::Changed(Changes {
        args: args.command.clone(),
        env: args.env.clone(),
        cwd: args.cwd.clone(),
        user: args.user.as_deref().map(user).transpose()?,
        additional_gids: args.additional_gids.clone(),
        capabilities: args.cap.clone(),
        no_new_privileges: args.no_new_privs,
        apparmor_profile: args.apparmor.clone(),
        selinux_label: args.process_label.clone(),
        terminal: args.tty,
    }))
}

/// `UID[:GID]`.
fn user(text: &str) -> Result<(u32, Option<u32>), Error> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid.parse()).transpose()),
        None => (text, Ok(None)),
    };
    match (uid.parse(), gid) {
        (Ok(uid), Ok(gid)) => Ok((uid, gid)),
        _ => Err(Error::Wanted(format!(
            "--user {text}: give numbers, as UID or UID:GID"
        ))),
    }
}

/// A terminal of its own for the process.
struct Terminal {
    master: OwnedFd,
    slave: OwnedFd,
}

/// A process about to be started.
struct Start {
    init: Init,
    client: Client,
    config: ProcessConfig,
    terminal: Option<Terminal>,
    /// What it is handed besides its streams.
    handed: Vec<OwnedFd>,
}

/// Runs another process in a container. Whatever keeps it from running gives runc's status.
pub fn run(cli: &Cli, args: &ExecArgs) -> Result<ExitCode, Error> {
    executed(cli, args).or_else(|error| failed(&error))
}

fn executed(cli: &Cli, args: &ExecArgs) -> Result<ExitCode, Error> {
    let all = Directory::new(&cli.state());
    let seen = all.look(&args.id).map_err(oci::Error::from)?;
    match seen.status {
        Status::Stopped => return Err(oci::Error::ExecStopped.into()),
        Status::Paused if !args.ignore_paused => return Err(oci::Error::ExecPaused.into()),
        _ if !seen.record.has_started() => return Err(oci::Error::ExecCreated.into()),
        _ => {}
    }
    let preserved = Preserved::take(args.preserve_fds)?;
    let wanted = wanted(args)?;
    let dir = all.path(&args.id);
    let process = Process::read(&dir, &seen.record, &wanted)?;
    let has_terminal = process.has_terminal();
    match (args.detach && has_terminal, &args.console_socket) {
        (true, None) => return Err(Error::NoConsoleSocket),
        (false, Some(_)) => return Err(Error::NoTerminal),
        _ => {}
    }
    let terminal = has_terminal.then(open_terminal).transpose()?;
    let streams = match &terminal {
        Some(_) => [StreamKind::Terminal; 3],
        None => [0, 1, 2].map(|number| kind(number, args.detach)),
    };
    let mut config = process.config(streams)?;
    config.handed = preserved.described;
    let client = Client::connect(&dir).map_err(oci::Error::Control)?;
    let init = seen.record.init.ok_or(oci::Error::ExecStopped)?;
    let start = Start {
        init,
        client,
        config,
        terminal,
        handed: preserved.descriptors,
    };
    if args.detach || has_terminal {
        beside(start, args)
    } else {
        here(start, args.pid_file.as_deref())
    }
}

/// A standard descriptor of this process.
fn standard(number: i32) -> BorrowedFd<'static> {
    // SAFETY: they are used for calls that fail for one that is closed.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// What stream `number` is to the process. In the foreground runc puts pipes between.
fn kind(number: i32, detached: bool) -> StreamKind {
    match stream_kind(standard(number)) {
        StreamKind::Terminal if !detached => StreamKind::Pipe,
        kind => kind,
    }
}

fn open_terminal() -> Result<Terminal, Error> {
    let pty =
        openpty(None, None).map_err(|errno| oci::Error::host("make a terminal")(errno.into()))?;
    Ok(Terminal {
        master: pty.master,
        slave: pty.slave,
    })
}

/// Asks for the process and waits until it runs; gives its id in the container.
fn begin(
    client: &mut Client,
    config: &ProcessConfig,
    terminal: Option<BorrowedFd<'_>>,
    handed: Vec<OwnedFd>,
) -> Result<u32, oci::Error> {
    let program = config.args.first().cloned().unwrap_or_default();
    let streams = (0..)
        .zip(config.streams)
        .filter(|(_, kind)| *kind != StreamKind::Closed)
        .map(|(number, _)| terminal.unwrap_or_else(|| standard(number)));
    let descriptors: Vec<BorrowedFd<'_>> = streams.chain(handed.iter().map(AsFd::as_fd)).collect();
    client
        .ask(&Ask::Exec(config.clone()), &descriptors)
        .map_err(oci::Error::Control)?;
    // Whoever holds the other ends sees when the process closes its own.
    drop(handed);
    match client.answer().map_err(oci::Error::Control)? {
        Some(Answer::Started(pid)) => Ok(pid),
        Some(Answer::Failed(errno, obstacle)) => Err(oci::Error::Refused(failure(
            GuestErrno::from_code(errno),
            obstacle,
            config,
            &program,
        ))),
        Some(Answer::Refused(why)) => Err(oci::Error::Refused(why)),
        Some(_) => Err(oci::Error::Control(io::ErrorKind::InvalidData.into())),
        None => Err(oci::Error::ExecStopped),
    }
}

/// What kept the process from running, in runc's words where engines look for them.
fn failure(
    errno: GuestErrno,
    obstacle: Obstacle,
    config: &ProcessConfig,
    program: &[u8],
) -> String {
    let why = match obstacle {
        Obstacle::Program => super::run::not_executed(errno, program).0,
        Obstacle::Directory => format!(
            "chdir to cwd ({:?}) set in config.json failed: {}",
            String::from_utf8_lossy(&config.cwd),
            said(errno)
        ),
        Obstacle::User => format!("unable to setup user: {}", said(errno)),
        Obstacle::Resources => format!("the container has no room for it: {}", said(errno)),
    };
    format!("unable to start container process: {why}")
}

/// An error in words, as runc has them.
fn said(errno: GuestErrno) -> String {
    Errno::from_raw(errno.code()).desc().to_lowercase()
}

/// This process lets go of its standard descriptors: whoever reads what the container's process writes sees that close
/// when that closes it.
fn let_go(numbers: &[i32]) {
    let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") else {
        return;
    };
    for number in numbers {
        // SAFETY: nothing in this process uses them after this.
        unsafe { libc::dup2(null.as_raw_fd(), *number) };
    }
}

/// Runs in this very process: without a terminal, in the foreground.
fn here(start: Start, pid_file: Option<&Path>) -> Result<ExitCode, Error> {
    let Start {
        mut client,
        config,
        handed,
        ..
    } = start;
    let signals = Signals::hold(true).map_err(oci::Error::host("hold signals"))?;
    begin(&mut client, &config, None, handed)?;
    if let Some(path) = pid_file {
        let pid = nix::unistd::getpid().as_raw();
        lifecycle::write_pid_file(path, pid)?;
    }
    let_go(&[0, 1]);
    let status = proxy::stay(client, &signals, None).map_err(oci::Error::Control)?;
    Ok(ExitCode::from(proxy::exit_status(status)))
}

fn failed(error: &Error) -> Result<ExitCode, Error> {
    super::report(&format!("exec failed: {error}"));
    Ok(ExitCode::from(STATUS_EXEC_FAILED))
}

/// This process's children are made in the container's pid namespace: the kernel ends them before the container's own end can be seen,
/// as engines expect of processes that run by exec.
struct Namespace {
    own: File,
}

impl Namespace {
    fn enter(init: &Init) -> Result<Self, oci::Error> {
        let open = |pid: &str| File::open(format!("/proc/{pid}/ns/pid"));
        let failed = oci::Error::host("enter the container's pid namespace");
        let opened = open("self").and_then(|own| Ok((own, open(&init.pid.to_string())?)));
        let (own, theirs) = opened.map_err(failed)?;
        if !init.is_alive() {
            // The number may be another process's already.
            return Err(oci::Error::ExecStopped);
        }
        let namespace = Self { own };
        namespace.set(&theirs)?;
        Ok(namespace)
    }

    /// Back: a process whose children are made elsewhere can have no threads.
    fn leave(self) -> Result<(), oci::Error> {
        self.set(&self.own)
    }

    fn set(&self, namespace: &File) -> Result<(), oci::Error> {
        setns(namespace, CloneFlags::CLONE_NEWPID)
            .map_err(|errno| oci::Error::host("enter the container's pid namespace")(errno.into()))
    }
}

/// Runs in a process of its own, which leads a session with the terminal.
fn beside(start: Start, args: &ExecArgs) -> Result<ExitCode, Error> {
    let host = |what| move |errno: Errno| oci::Error::host(what)(errno.into());
    if let (Some(socket), Some(terminal)) = (&args.console_socket, &start.terminal) {
        console::send(socket, terminal.master.as_fd())
            .map_err(oci::Error::host("send the terminal to the console socket"))?;
    }
    let (read, write) = pipe().map_err(host("make a pipe"))?;
    let namespace = Namespace::enter(&start.init)?;
    // SAFETY: this process has one thread.
    let child = match unsafe { fork() }.map_err(host("start a process"))? {
        ForkResult::Child => {
            drop(read);
            stand_in(start, Reporter::inherited(File::from(write)));
        }
        ForkResult::Parent { child } => child,
    };
    drop(write);
    namespace.leave()?;
    let Start {
        client,
        terminal,
        handed,
        ..
    } = start;
    drop((client, handed));
    let master = terminal.map(|terminal| terminal.master);
    match Listener::inherited(File::from(read)).wait() {
        Some(Report::Started) => {}
        Some(Report::Failed { message, .. }) => return Err(oci::Error::Refused(message).into()),
        None => {
            let message = "its process died before the program ran".to_owned();
            return Err(oci::Error::Refused(message).into());
        }
    }
    if let Some(path) = &args.pid_file {
        lifecycle::write_pid_file(path, child.as_raw())?;
    }
    match master {
        Some(master) if !args.detach => attend(child, master),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The process that stands for the container's; ends as that does.
fn stand_in(start: Start, reporter: Reporter) -> ! {
    let Start {
        mut client,
        mut config,
        terminal,
        handed,
        ..
    } = start;
    let _ = setsid();
    let slave = terminal.map(|terminal| terminal.slave);
    if let Some(slave) = &slave {
        // SAFETY: the request takes a number.
        unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) };
    }
    let fail = |reporter: Reporter, message: String| -> ! {
        reporter.tell(&Report::Failed {
            message,
            status: STATUS_EXEC_FAILED,
            told: false,
        });
        std::process::exit(STATUS_EXEC_FAILED.into())
    };
    let signals = match Signals::hold(false) {
        Ok(signals) => signals,
        Err(error) => fail(reporter, format!("cannot hold signals: {error}")),
    };
    let terminal = slave.as_ref().map(AsFd::as_fd);
    // Only now: of a size that the engine gives the terminal later, a signal tells.
    config.window = terminal.and_then(proxy::window).or(config.window);
    if let Err(error) = begin(&mut client, &config, terminal, handed) {
        fail(reporter, error.to_string());
    }
    reporter.tell(&Report::Started);
    let_go(&[0, 1, 2]);
    let status = proxy::stay(client, &signals, terminal);
    let code = status.map_or(STATUS_EXEC_FAILED, proxy::mirror);
    std::process::exit(code.into())
}

/// Joins the caller's terminal to the process's, and waits for the end of its stand-in.
fn attend(child: Pid, master: OwnedFd) -> Result<ExitCode, Error> {
    let signals = Signals::hold(false).map_err(oci::Error::host("hold signals"))?;
    let relay = Relay::start(master).map_err(oci::Error::host("relay the terminal"))?;
    let failed = |errno: Errno| oci::Error::host("wait for the process")(errno.into());
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => {
                relay.finish();
                return Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX)));
            }
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                relay.finish();
                return Ok(ExitCode::from(proxy::exit_status(signal as i32)));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(failed(errno).into()),
        }
        match signals.next().map_err(oci::Error::host("take a signal"))? {
            Some((libc::SIGCHLD, _)) | None => {}
            Some((libc::SIGWINCH, _)) => relay.resize(),
            Some((number, _)) => {
                // SAFETY: no pointers; the child is not waited for, so the number is its own.
                unsafe { libc::kill(child.as_raw(), number) };
            }
        }
    }
}
