//! The trace says what strace says: for each program the calls of each thread, with arguments, results and errors, are
//! those of `strace -f` under runc, up to the differences docs/records.md lists.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use husk_tests::cache::Scratch;
use husk_tests::capture::capture;
use husk_tests::differential::{Failures, judge};
use husk_tests::strace::Trace;
use husk_tests::{End, Husk, Image, Job, Runc, Runner, debian, programs};

/// How a job ends and what it calls, as strace tells it under runc.
fn under_runc(job: &Job) -> Result<(End, Trace)> {
    let scratch = Scratch::new("strace")?;
    let run = Runc.traced(job, scratch.path())?;
    Ok((run.end, Trace::of_strace(scratch.path(), &job.argv[0])?))
}

/// The same, as husk's recording has it.
fn under_husk(job: &Job) -> Result<(End, Trace)> {
    let scratch = Scratch::new("trace")?;
    let file = scratch.path().join("trace");
    let husk = Husk::find()?.options(["--trace", file.to_str().context("no UTF-8")?]);
    let run = husk.run(job)?;
    let mut command = husk.command();
    command.arg("trace").arg(&file);
    let printed = capture(&command, &[], Duration::from_secs(60))?;
    ensure!(printed.end == End::Status(0), "{}", printed.stderr_text());
    let trace = Trace::of_husk(&printed.stdout_text())?;
    let count: usize = trace.threads.values().map(Vec::len).sum();
    ensure!(count > 0, "nothing was recorded");
    Ok((run.end, trace))
}

fn compare(job: &Job) -> Result<Option<String>> {
    judge(
        &job.argv.join(" "),
        || under_runc(job),
        || under_husk(job),
        |(end, calls), (our_end, our_calls)| {
            if end != our_end {
                return Some(format!("{our_end:?}, under runc {end:?}"));
            }
            let difference = calls.difference(our_calls)?;
            Some(format!("runc, then husk: {difference}"))
        },
    )
}

fn check(jobs: Vec<Job>) {
    let mut failures = Failures::default();
    let total = jobs.len();
    for job in jobs {
        failures.note(&job.argv.join(" "), compare(&job));
    }
    failures.check(total);
}

/// Applets of a static busybox.
const BUSYBOX: [&str; 26] = [
    "true",
    "echo hello world",
    "cat /etc/passwd /nowhere",
    "ls -l /etc",
    "head -n 1 /etc/passwd",
    "wc /etc/passwd",
    "sort /etc/passwd",
    "grep root /etc/passwd",
    "sed s/root/toor/ /etc/passwd",
    "cut -d: -f1 /etc/passwd",
    "md5sum /etc/passwd",
    "od /etc/passwd",
    "cp /etc/passwd /tmp/copy",
    "mv /etc/passwd /etc/moved",
    "rm /etc/passwd /nowhere",
    "mkdir -p /tmp/a/b/c",
    "ln -s /etc/passwd /tmp/link",
    "readlink -f /etc/passwd",
    "touch /tmp/new",
    "chmod 600 /etc/passwd",
    "stat -c %s:%a /etc/passwd",
    "find /etc",
    "expr 1 + 2",
    "dd if=/dev/zero of=/tmp/zeros bs=1000 count=3",
    "basename /a/b/c",
    "tar -cf /tmp/x.tar /etc",
];

#[test]
fn busybox() {
    let image = Image::busybox().unwrap();
    let jobs = BUSYBOX.iter().map(|line| Job::new(&image, line.split(' ')));
    check(jobs.collect());
}

/// Dynamically linked programs.
const DEBIAN: [&str; 10] = [
    "/bin/true",
    "/bin/cat /etc/debian_version",
    "/usr/bin/head -n 1 /etc/passwd /nowhere",
    "/usr/bin/wc /etc/passwd",
    "/usr/bin/md5sum /etc/passwd",
    "/usr/bin/cut -d: -f1 /etc/passwd",
    "/usr/bin/perl -e print(1+1)",
    "/usr/bin/env A=b /bin/echo x",
    "/usr/bin/tail -n 2 /etc/passwd",
    "/bin/bash -c echo$IFS$HOME",
];

#[test]
fn debian_programs() {
    let image = debian::image().unwrap();
    let jobs = DEBIAN.iter().map(|line| Job::new(image, line.split(' ')));
    check(jobs.collect());
}

#[test]
fn threads_and_processes() {
    // husk, as engines do, sets what runc does not; a shell without it asks for it.
    let shell = |script| Job::shell(&Image::busybox().unwrap(), script).env("HOSTNAME", "vessel");
    check(vec![
        Job::new(programs::image(), ["/t/burst", "3", "20"]),
        shell("xargs -n 1 echo </etc/passwd"),
        Job::new(
            &Image::busybox().unwrap(),
            ["find", "/etc", "-type", "f", "-exec", "echo", "{}", ";"],
        ),
        shell("time true"),
    ]);
}
