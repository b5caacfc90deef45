//! `exec`, `pause`, `resume` and `update` of a running container: equal under runc and under husk.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use husk_tests::capture::{End, capture};
use husk_tests::image::Image;
use husk_tests::oci::{Bundle, Runtime, both};
use serde_json::{Value, json};

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
fn ps_shows_arguments() -> Result<()> {
    let image = Image::busybox()?;
    both(|runtime| {
        let bundle = Bundle::new(runtime, &image, "exec sleep 1000")?;
        let id = bundle.started()?;
        let deadline = Instant::now() + LIMIT;
        loop {
            let table = runtime.must(&["ps", &id])?;
            if table.contains(" sleep 1000\n") {
                let count = table.lines().count();
                return Ok(format!("{count} lines"));
            }
            ensure!(Instant::now() < deadline, "{table}");
        }
    })?;
    Ok(())
}

/// The names of an object's fields, and of those in them.
fn names(value: &Value, depth: usize) -> String {
    let fields = value.as_object().into_iter().flatten();
    fields
        .filter(|(_, value)| depth == 0 || value.is_object())
        .map(|(name, value)| {
            format!(
                "{name} {{{}}} ",
                if depth < 2 {
                    names(value, depth + 1)
                } else {
                    String::new()
                }
            )
        })
        .collect()
}

#[test]
fn events_tell_what_is_used() -> Result<()> {
    let image = Image::busybox()?;
    both(|runtime| {
        let bundle = Bundle::new(runtime, &image, "exec sleep 1000")?;
        let id = bundle.started()?;
        let printed: Value = serde_json::from_str(&runtime.must(&["events", "--stats", &id])?)?;
        let number = |path: &str| printed.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        ensure!(
            printed["id"] == *id && printed["type"] == "stats",
            "{printed}"
        );
        ensure!(number("/data/cpu/usage/total") > 0, "{printed}");
        ensure!(number("/data/memory/usage/usage") > 0, "{printed}");
        // runc counts its own threads that have not ended yet.
        ensure!(number("/data/pids/current") > 0, "{printed}");
        runtime.must(&["kill", &id, "KILL"])?;
        runtime.wait_for(&id, "stopped")?;
        runtime.must_fail(&["events", "--stats", &id])?;
        Ok(names(&printed, 0))
    })?;
    Ok(())
}

#[test]
fn events_tell_when_memory_runs_out() -> Result<()> {
    let image = Image::busybox()?;
    both(|runtime| {
        let script = "read go </go; dd if=/dev/zero of=/dev/null bs=300M count=1; echo over; while :; do sleep 1000; done";
        let mut bundle = Bundle::new(runtime, &image, &format!("mkfifo /go; echo up; {script}"))?;
        let bytes = 64 << 20;
        bundle.edit(|spec| {
            spec["root"]["readonly"] = json!(false);
            spec["linux"]["resources"]["memory"] = json!({ "limit": bytes, "swap": bytes });
        })?;
        let id = bundle.started()?;
        bundle.wait_for_text(&id, "up")?;
        let mut events = runtime
            .command()
            .args(["events", "--interval", "200ms", &id])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(events.stdout.take().context("no output")?).lines();
        // Who has printed figures also watches.
        lines.next().context("no figures")??;
        runtime.must(&["exec", &id, "sh", "-c", "echo go >/go"])?;
        bundle.wait_for_text(&id, "over")?;
        let is_oom = |line: &str| {
            serde_json::from_str::<Value>(line)
                .is_ok_and(|it| it["type"] == "oom" && it["id"] == *id)
        };
        // Figures come until then, five times a second.
        let deadline = Instant::now() + LIMIT;
        while !is_oom(&lines.next().context("it has ended")??) {
            ensure!(Instant::now() < deadline, "nothing is told");
        }
        runtime.must(&["delete", "--force", &id])?;
        // It ends with the container.
        lines.try_for_each(|line| line.map(drop))?;
        Ok(events.wait()?.to_string())
    })?;
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
        ensure!(done.end == End::Status(number), "{:?}", done.end);
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

/// Runs a verb with what `redirection` makes of its descriptors; `assignments` are variables in its environment.
fn with_descriptors(
    runtime: &Runtime,
    assignments: &str,
    redirection: &str,
    verb: &[&str],
) -> Result<husk_tests::Captured> {
    let command = runtime.command();
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("{assignments} exec \"$@\" {redirection}"))
        .arg("sh")
        .arg(command.get_program())
        .args(command.get_args())
        .args(verb);
    capture(&shell, b"", LIMIT)
}

/// For husk alone: runc passes on whatever is open, some of its own descriptors among it.
#[test]
fn descriptors_that_cannot_be_passed_on() -> Result<()> {
    let runtime = Runtime::husk()?;
    let bundle = Bundle::new(&runtime, &Image::busybox()?, "sleep 1000")?;
    let id = bundle.started()?;
    let refused = |done: &husk_tests::Captured, words: &str| {
        ensure!(
            done.end != End::Status(0) && done.stderr_text().contains(words),
            "{:?} {}",
            done.end,
            done.stderr_text()
        );
        Ok(())
    };
    let exec = ["exec", "--preserve-fds", "1", &id, "true"];
    let done = with_descriptors(&runtime, "", "3</dev/kvm", &exec)?;
    refused(
        &done,
        "cannot pass on descriptor 3 (/dev/kvm): a device of the host has no driver inside",
    )?;
    let done = with_descriptors(&runtime, "", "3<&-", &exec)?;
    refused(
        &done,
        "unable to stat preserved-fd 0 (of 1): stat /proc/self/fd/3: no such file or directory",
    )?;
    let done = with_descriptors(&runtime, "", "3</dev/kvm", &["exec", &id, "true"])?;
    ensure!(done.end == End::Status(0), "{}", done.stderr_text());
    let other = format!("{id}-2");
    let path = bundle.path().to_string_lossy();
    let create = ["create", "--bundle", &path, &other];
    let activated = "export LISTEN_FDS=1 LISTEN_PID=$$;";
    let done = with_descriptors(&runtime, activated, "3</dev/kvm", &create)?;
    refused(&done, "cannot pass on descriptor 3 (/dev/kvm)")?;
    runtime.must_fail(&["state", &other])?;
    Ok(())
}
