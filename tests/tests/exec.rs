//! `exec`, `pause`, `resume` and `update` of a running container: equal under runc and under husk.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use husk_tests::capture::capture;
use husk_tests::image::Image;
use husk_tests::oci::{Bundle, Runtime, both};

const LIMIT: Duration = Duration::from_secs(60);

/// Flags of `exec`, a command, its input.
type Exec<'a> = (&'a [&'a str], &'a [&'a str], &'a [u8]);

/// A container that sleeps, and what `exec` gives there.
fn execs(all: &[Exec<'_>]) -> Result<String> {
    let image = Image::busybox()?;
    both(|runtime| {
        let bundle = Bundle::new(runtime, &image, "while :; do sleep 1000; done")?;
        let id = bundle.started()?;
        let mut seen = String::new();
        for (flags, command, input) in all {
            let mut exec = runtime.command();
            exec.arg("exec").args(*flags).arg(&id).args(*command);
            let done = capture(&exec, input, LIMIT)?;
            seen += &format!("{}|{:?}\n", done.stdout_text(), done.end);
        }
        ensure!(runtime.status(&id)? == "running", "the container has ended");
        Ok(seen)
    })
}

#[test]
fn output_input_and_status() -> Result<()> {
    let seen = execs(&[
        (&[], &["echo", "hello"], b""),
        (&[], &["cat"], b"from outside\n"),
        (&[], &["sh", "-c", "read a; echo $a; exit 7"], b"one\ntwo\n"),
        (&[], &["sh", "-c", "kill -9 $$"], b""),
        (&[], &["sh", "-c", "kill -TERM $$"], b""),
        (&[], &["sh", "-c", "echo $PPID"], b""),
        (&[], &["nope"], b""),
        (&[], &["/etc/passwd"], b""),
    ])?;
    assert!(seen.contains("hello") && seen.contains("137"), "{seen}");
    Ok(())
}

#[test]
fn flags() -> Result<()> {
    execs(&[
        (&["--user", "1000:1001"], &["id", "-u"], b""),
        (&["--user", "1000:1001"], &["id", "-g"], b""),
        (
            &["--env", "A=b", "--cwd", "/bin"],
            &["sh", "-c", "echo $A; pwd"],
            b"",
        ),
        (&["--cwd", "/nope"], &["true"], b""),
        (
            &["--no-new-privs"],
            &["grep", "NoNew", "/proc/self/status"],
            b"",
        ),
        (&["--additional-gids", "77"], &["id", "-G"], b""),
    ])?;
    Ok(())
}

#[test]
fn much_output_arrives() -> Result<()> {
    let runtime = Runtime::husk()?;
    let bundle = Bundle::new(&runtime, &Image::busybox()?, "sleep 1000")?;
    let id = bundle.started()?;
    let mut exec = runtime.command();
    exec.args(["exec", &id, "dd", "if=/dev/zero", "bs=1M", "count=100"]);
    let done = capture(&exec, b"", LIMIT)?;
    ensure!(
        done.stdout.len() == 100 << 20,
        "{} bytes came",
        done.stdout.len()
    );
    Ok(())
}

#[test]
fn many_at_once() -> Result<()> {
    let runtime = Runtime::husk()?;
    let bundle = Bundle::new(&runtime, &Image::busybox()?, "sleep 1000")?;
    let id = bundle.started()?;
    let running: Vec<_> = (0..30)
        .map(|number| {
            let mut exec = runtime.command();
            exec.args(["exec", &id, "sh", "-c", &format!("read a; exit {number}")]);
            std::thread::spawn(move || capture(&exec, b"go\n", LIMIT))
        })
        .collect();
    for (number, thread) in (0..).zip(running) {
        let done = thread.join().ok().context("a thread died")??;
        ensure!(
            done.end == husk_tests::capture::End::Status(number),
            "{:?}",
            done.end
        );
    }
    Ok(())
}

#[test]
fn a_paused_container_says_so_and_takes_no_exec() -> Result<()> {
    let image = Image::busybox()?;
    both(|runtime| {
        let bundle = Bundle::new(runtime, &image, "while :; do sleep 1000; done")?;
        let id = bundle.started()?;
        runtime.must_fail(&["resume", &id])?;
        runtime.must(&["pause", &id])?;
        let paused = runtime.status(&id)?;
        runtime.must_fail(&["exec", &id, "true"])?;
        runtime.must(&["resume", &id])?;
        let resumed = runtime.status(&id)?;
        let after = runtime.must(&["exec", &id, "echo", "on"])?;
        runtime.must(&["kill", &id, "KILL"])?;
        runtime.wait_for(&id, "stopped")?;
        runtime.must_fail(&["exec", &id, "true"])?;
        runtime.must_fail(&["pause", &id])?;
        Ok(format!("{paused} {resumed} {after}"))
    })?;
    Ok(())
}
