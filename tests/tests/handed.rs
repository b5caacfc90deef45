//! Descriptors that are passed on into containers (`--preserve-fds`, socket activation): equal under runc and under husk.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use husk_tests::cache::{Scratch, workspace};
use husk_tests::capture::{End, capture};
use husk_tests::image::Image;
use husk_tests::oci::{Bundle, Runtime, both};
use husk_tests::programs;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(120);

/// The image with the program that gives and takes, and the program itself.
fn giver() -> Result<(Image, PathBuf)> {
    let all = programs::compile(&workspace().join("tests/programs"))?;
    let found = all.iter().find(|(name, _)| name == "handed");
    let (name, path) = found.context("no tests/programs/handed.c")?.clone();
    let image = Image::with_programs(&[(name, path.clone())])?;
    Ok((image, path))
}

/// A bundle whose program is `handed ARGUMENT`.
fn bundle<'a>(runtime: &'a Runtime, image: &Image, argument: &str) -> Result<Bundle<'a>> {
    let mut bundle = Bundle::new(runtime, image, "")?;
    bundle.edit(|spec| spec["process"]["args"] = json!(["/t/handed", argument]))?;
    Ok(bundle)
}

/// Runs the giver, which runs `verb` of the runtime.
fn given(
    runtime: &Runtime,
    program: &PathBuf,
    words: &[&str],
    verb: &[&str],
) -> Result<husk_tests::Captured> {
    let command = runtime.command();
    let mut giver = Command::new(program);
    giver
        .args(words)
        .arg(command.get_program())
        .args(command.get_args())
        .args(verb);
    capture(&giver, b"", LIMIT)
}

/// The scratch directory's files, and what was written, without the directory's name.
fn seen(scratch: &Scratch, written: &str) -> Result<String> {
    let read = |name| fs::read_to_string(scratch.path().join(name));
    let files = format!("both: {:?}\nappend: {:?}\n", read("both")?, read("append")?);
    Ok((written.to_owned() + &files).replace(&*scratch.path().to_string_lossy(), "DIR"))
}

#[test]
fn pipes_files_and_sockets_of_a_container() -> Result<()> {
    let (image, program) = giver()?;
    let seen = both(|runtime| {
        let scratch = Scratch::new("handed")?;
        let bundle = bundle(runtime, &image, "take")?;
        let (id, path) = (bundle.id(), bundle.path().to_string_lossy());
        let dir = scratch.path().to_string_lossy();
        let verb = ["run", "--preserve-fds", "7", "--bundle", &path, &id];
        let done = given(runtime, &program, &["give", &dir], &verb)?;
        ensure!(
            done.end == End::Status(0),
            "{:?} {}{}",
            done.end,
            done.stdout_text(),
            done.stderr_text()
        );
        seen(&scratch, &done.stdout_text())
    })?;
    assert!(seen.contains("200000 bytes"), "{seen}");
    Ok(())
}

#[test]
fn pipes_files_and_sockets_of_exec() -> Result<()> {
    let (image, program) = giver()?;
    both(|runtime| {
        let scratch = Scratch::new("handed")?;
        let bundle = Bundle::new(runtime, &image, "while :; do sleep 1000; done")?;
        let id = bundle.started()?;
        let dir = scratch.path().to_string_lossy();
        let exec = ["exec", "--preserve-fds", "7", &id, "/t/handed", "take"];
        let done = given(runtime, &program, &["give", &dir], &exec)?;
        ensure!(
            runtime.status(&id)? == "running",
            "the container has ended: {}",
            done.stderr_text()
        );
        seen(&scratch, &(done.stdout_text() + &done.stderr_text()))
    })
    .map(drop)
}

/// As systemd hands sockets to a service: they come first, and variables tell of them.
#[test]
fn socket_activation() -> Result<()> {
    let (image, program) = giver()?;
    let seen = both(|runtime| {
        let bundle = bundle(runtime, &image, "activated")?;
        let (id, path) = (bundle.id(), bundle.path().to_string_lossy());
        let verb = ["run", "--preserve-fds", "1", "--bundle", &path, &id];
        let done = given(runtime, &program, &["activate"], &verb)?;
        Ok(done.stdout_text() + &done.stderr_text())
    })?;
    assert!(seen.contains("LISTEN_FDS=1 LISTEN_PID=1"), "{seen}");
    Ok(())
}

/// They wait for `start`, and the reader outside sees the end when the process has ended.
#[test]
fn create_hands_over_and_start_lets_go() -> Result<()> {
    let image = Image::busybox()?;
    both(|runtime| {
        let bundle = Bundle::new(runtime, &image, "cat <&3 >&4; exec sleep 1000 3<&- 4>&-")?;
        let (id, path) = (bundle.id(), bundle.path().to_string_lossy());
        let command = runtime.command();
        let mut shell = Command::new("sh");
        // `cat` outside ends when nobody has the pipe's writing end any more, and the container's program has closed its own.
        shell
            .args(["-c", r#"id=$1; bundle=$2; shift 2
                { echo from outside | { "$@" create --preserve-fds 2 --bundle "$bundle" "$id" 3<&0 4>&1 \
                    </dev/null >/dev/null 2>/dev/null; echo "create $?" >&2; }
                  "$@" start "$id" >/dev/null; } | cat"#, "sh", &id, &path])
            .arg(command.get_program())
            .args(command.get_args());
        let done = capture(&shell, b"", LIMIT)?;
        let text = format!("{}{}", done.stdout_text(), done.stderr_text());
        Ok(format!("{text}{}", runtime.status(&id)?))
    })
    .map(|seen| assert!(seen.contains("from outside") && seen.ends_with("running"), "{seen}"))
}
