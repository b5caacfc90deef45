//! What helps those who debug the libOS: gdb, backtraces, the state of a running guest, the log by room.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use husk_tests::cache::Scratch;
use husk_tests::capture::capture;
use husk_tests::{Captured, End, Husk, Image, Job, Runner};

const LIMIT: Duration = Duration::from_secs(120);

/// Runs `script` in busybox's shell with gdb's `commands` attached from the first instruction on: what gdb printed,
/// and what became of the container.
fn debugged(script: &str, commands: &str) -> (String, Captured) {
    let scratch = Scratch::new("gdb").unwrap();
    let at = |name: &str| scratch.path().join(name);
    let husk = Husk::find().unwrap();
    let elf = husk
        .command()
        .args(["debug", "elf"])
        .output()
        .unwrap()
        .stdout;
    fs::write(at("libos.elf"), elf).unwrap();
    let socket = at("socket");
    let text = format!(
        "set pagination off\nset language c\ntarget remote {}\n{commands}",
        socket.display()
    );
    fs::write(at("commands"), text).unwrap();

    let husk = husk.options(["--gdb".to_owned(), socket.display().to_string()]);
    let job = Job::shell(&Image::busybox().unwrap(), script);
    let container = thread::spawn({
        let command = husk.command_for(&job);
        move || capture(&command, b"", LIMIT).unwrap()
    });
    wait_for(&socket);
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-x"])
        .arg(at("commands"))
        .arg(at("libos.elf"));
    let gdb = capture(&gdb, b"", LIMIT).unwrap();
    let printed = format!("{}{}", gdb.stdout_text(), gdb.stderr_text());
    (printed, container.join().unwrap())
}

/// Until husk listens.
fn wait_for(socket: &Path) {
    let deadline = Instant::now() + LIMIT;
    while !socket.exists() {
        assert!(Instant::now() < deadline, "husk does not listen");
        thread::yield_now();
    }
}

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn gdb_stops_in_a_call_reads_the_process_and_lets_go() {
    let (printed, run) = debugged(
        "/bin/echo found me; exit 3",
        "break husk_kernel::process::exec::execveat\n\
         continue\n\
         backtrace\n\
         info threads\n\
         monitor ps\n\
         monitor threads\n\
         monitor regs 1\n\
         monitor maps 1\n\
         x/s $rdx\n\
         stepi\n\
         stepi\n\
         delete\n\
         continue\n",
    );
    contains(
        &printed,
        &[
            "hit Breakpoint 1, husk_kernel::process::exec::execveat",
            "husk_kernel::syscall::dispatch",
            "vCPU 0, thread 2 of 2 sh",
            // The parent waits in fork or for its child.
            "    1       1 sh ",
            "running  in execve(",
            "orig ",
            "r-x ",
            "exited with code 03",
        ],
    );
    assert_eq!(run.stdout_text(), "found me\n", "{printed}");
    assert_eq!(run.end, End::Status(3), "{printed}");
}

#[test]
fn gdb_steps_through_the_way_out_and_in() {
    // From the libOS back into the process and, by its next call, into the libOS again.
    let (printed, run) = debugged(
        "echo a; echo b",
        "break husk_kernel::process::ids::getppid\n\
         break hal_fast_entry\n\
         set $steps = 0\n\
         continue\n\
         delete\n\
         while $steps < 300\n\
         stepi\n\
         set $steps = $steps + 1\n\
         end\n\
         print $steps\n\
         continue\n",
    );
    contains(&printed, &["$1 = 300", "exited normally"]);
    assert_eq!(run.stdout_text(), "a\nb\n", "{printed}");
    assert_eq!(run.end, End::Status(0), "{printed}");
}

#[test]
fn detached_the_guest_runs_on_and_killed_it_ends() {
    let (printed, run) = debugged("echo on", "break husk_syscall\ncontinue\ndetach\n");
    assert_eq!(run.stdout_text(), "on\n", "{printed}");
    assert_eq!(run.end, End::Status(0));
    let (printed, run) = debugged("echo on", "break husk_syscall\ncontinue\nkill\n");
    assert_eq!(run.stdout_text(), "", "{printed}");
    assert_eq!(run.end, End::Status(137), "{run:?}");
}

#[test]
fn no_breakpoint_where_traps_are_reported() {
    let (printed, run) = debugged(
        "echo on",
        "break *&hal_exception_place\ncontinue\ndelete\ncontinue\n",
    );
    contains(&printed, &["Cannot insert breakpoint 1"]);
    assert_eq!(run.stdout_text(), "on\n", "{printed}");
    assert_eq!(run.end, End::Status(0));
}

/// One packet of the remote protocol.
fn send(stream: &mut UnixStream, packet: &str) {
    let sum = packet.bytes().fold(0u8, u8::wrapping_add);
    write!(stream, "${packet}#{sum:02x}").unwrap();
}

/// Everything up to and including the next packet.
fn receive(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
        let len = text.len();
        if len > 3 && text[len - 3] == b'#' {
            stream.write_all(b"+").unwrap();
            return String::from_utf8(text).unwrap();
        }
    }
}

#[test]
fn an_interrupt_stops_the_guest() {
    let scratch = Scratch::new("gdb").unwrap();
    let socket = scratch.path().join("socket");
    let options = [
        "--gdb".to_owned(),
        socket.display().to_string(),
        "--timeout".to_owned(),
        "60".to_owned(),
    ];
    let husk = Husk::find().unwrap().options(options);
    let job = Job::shell(&Image::busybox().unwrap(), "echo up; while :; do :; done");
    let mut child = started(&husk.command_for(&job));
    wait_for(&socket);
    let mut gdb = UnixStream::connect(&socket).unwrap();
    gdb.set_read_timeout(Some(LIMIT)).unwrap();
    send(&mut gdb, "vCont;c");
    read_line(&mut child, "up");
    gdb.write_all(&[3]).unwrap();
    let answer = receive(&mut gdb);
    assert!(answer.contains("$T02"), "{answer}");
    send(&mut gdb, "k");
    assert_eq!(child.wait().unwrap().code(), Some(137));
}

fn started(command: &Command) -> Child {
    let mut own = Command::new(command.get_program());
    own.args(command.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn read_line(child: &mut Child, expected: &str) {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line.trim_end(), expected);
}

#[test]
fn a_libos_that_crashes_leaves_a_backtrace() {
    // Its own instruction overwritten by ud2.
    let (printed, run) = debugged(
        "/bin/echo not reached",
        "break husk_kernel::process::exec::execveat\n\
         continue\n\
         delete\n\
         set var *(unsigned short *)$rip = 0x0b0f\n\
         detach\n",
    );
    assert_eq!(run.end, End::Status(70), "{printed}{run:?}");
    let stderr = run.stderr_text();
    let first = stderr.lines().next().unwrap_or_default();
    assert_eq!(
        first,
        "husk: the container's libOS crashed: it panicked; its last messages follow"
    );
    contains(
        &stderr,
        &[
            "exception 6 in the libOS",
            "vCPU 0: thread 1 of process 1 (sh), in execve(",
            "user rip 0x",
            "husk_fatal_exception at libos/image/src/hooks.rs:",
            "husk_kernel::process::exec::execveat at libos/kernel/src/process/exec.rs:",
            "husk_kernel::syscall::dispatch_observed at libos/kernel/src/syscall/mod.rs:",
        ],
    );
}

#[test]
fn sigusr1_shows_what_a_verbose_guest_does() {
    let mut command = Husk::find().unwrap().command();
    let mut source = std::ffi::OsString::from("docker-archive:");
    source.push(Image::busybox().unwrap().docker_archive());
    command
        .args(["--log-filter", "warn", "run", "--timeout", "60"])
        .arg(source)
        .args([
            "--",
            "sh",
            "-c",
            "trap 'exit 0' TERM; sleep 100 & echo up; wait",
        ]);
    let mut child = started(&command);
    read_line(&mut child, "up");
    let pid = child.id().to_string();
    let signal = |name: &str| Command::new("kill").args([name, &pid]).status().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    // Until both have come to where they wait.
    let shown = loop {
        assert!(signal("-USR1").success());
        let mut shown = Vec::new();
        for line in &mut stderr {
            shown.push(line.unwrap());
            if shown.last().unwrap().contains(" 2 of     2 ") {
                break;
            }
        }
        let shown = shown.join("\n");
        if shown.contains("clock_nanosleep(") && shown.contains("rt_sigsuspend(") {
            break shown;
        }
        assert!(!shown.is_empty(), "it has ended");
    };
    contains(
        &shown,
        &[
            "vCPU 0: ",
            "2 threads",
            "husk_kernel::signal::wait::",
            "husk_kernel::time::wait::",
        ],
    );
    // It was passed on, too, and does nothing to the first process; this ends it, and husk clears up.
    assert!(signal("-TERM").success());
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_log_is_chosen_by_room() {
    let image = Image::busybox().unwrap();
    let run = |filter: &[&str]| {
        let mut command = Husk::find().unwrap().command();
        let mut source = std::ffi::OsString::from("docker-archive:");
        source.push(image.docker_archive());
        command
            .args(["--log-format", "json"])
            .args(filter)
            .arg("run")
            .arg(source)
            .args(["--", "true"]);
        capture(&command, b"", LIMIT).unwrap()
    };
    let boot = run(&["--log-filter", "error,boot=info"]).stderr_text();
    let lines: Vec<&str> = boot.lines().collect();
    assert_eq!(lines.len(), 1, "{boot}");
    contains(
        lines[0],
        &[
            r#""level":"info""#,
            r#""source":"libos::boot""#,
            "init is ready",
        ],
    );
    let all = run(&["--debug"]).stderr_text();
    contains(&all, &["libos::boot", "libos::fs", "husk::cli::run"]);
    assert_eq!(run(&[]).stderr_text(), "");
    let bad = run(&["--log-filter", "nothing=debug"]);
    assert_eq!(bad.end, End::Status(125));
    assert_eq!(bad.stderr_text().lines().count(), 1);
}

#[test]
fn a_gdb_address_must_be_loopback() {
    for address in ["0.0.0.0:1234", "nonsense"] {
        let husk = Husk::find().unwrap().options(["--gdb", address]);
        let run = husk
            .run(&Job::shell(&Image::busybox().unwrap(), "true"))
            .unwrap();
        assert_eq!(run.end, End::Status(125));
        assert_eq!(run.stderr_text().lines().count(), 1);
    }
}
