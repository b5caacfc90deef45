//! husk below dockerd and containerd.

use std::cell::RefCell;

use anyhow::{Result, ensure};
use husk_tests::End;
use husk_tests::cache::unique;
use husk_tests::differential::judge;
use husk_tests::engines::{Docker, run_topic};

fn topic(name: &str) {
    run_topic(&Docker::start().unwrap(), name);
}

#[test]
fn run() {
    topic("run");
}

#[test]
fn exec() {
    topic("exec");
}

#[test]
fn life() {
    topic("life");
}

#[test]
fn files() {
    topic("files");
}

#[test]
fn limits() {
    topic("limits");
}

#[test]
fn networks() {
    run_topic(&Docker::start_with_bridge().unwrap(), "networks");
}

#[test]
fn compose() {
    run_topic(&Docker::start_with_bridge().unwrap(), "compose");
}

/// Runs the client; gives what it prints and its status.
fn told(docker: &Docker, arguments: &[&str]) -> Result<String> {
    let done = docker.docker(arguments)?;
    ensure!(
        matches!(done.end, End::Status(_)),
        "{arguments:?}: {:?}: {}",
        done.end,
        done.stderr_text()
    );
    Ok(format!("{}{:?}\n", done.stdout_text(), done.end))
}

/// A container lives through the end of dockerd, by `signal`, and belongs to the next one.
fn outlives(docker: &mut Docker, runtime: &str, signal: &str) -> Result<String> {
    let name = unique("outlives");
    let script = "echo up; trap 'echo bye; exit 5' TERM; while :; do sleep 0.05; done";
    let run = [
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        &name,
        "--runtime",
        runtime,
    ];
    docker.docker(&[&run[..], &["husk-test", "sh", "-c", script]].concat())?;
    docker.end_dockerd(signal)?;
    docker.start_dockerd()?;
    let mut seen = String::new();
    for arguments in [
        &["inspect", "-f", "{{.State.Status}}"][..],
        &["exec", &name, "echo", "inside"],
        &["pause"],
        &["unpause"],
        &["stop", "-t", "30"],
        &["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}"],
        &["logs"],
        &["rm"],
    ] {
        let mut line = arguments.to_vec();
        if !line.contains(&name.as_str()) {
            line.push(&name);
        }
        seen += &told(docker, &line)?.replace(&name, "it");
    }
    Ok(seen)
}

#[test]
fn containers_outlive_the_daemon() -> Result<()> {
    let docker = RefCell::new(Docker::start()?);
    for signal in ["TERM", "KILL"] {
        let under = |runtime| {
            let seen = outlives(&mut docker.borrow_mut(), runtime, signal)?;
            ensure!(seen.contains("exited 5"), "{seen}");
            Ok(seen)
        };
        let report = judge(
            signal,
            || under("runc"),
            || under("husk"),
            |oracle, ours| {
                (oracle != ours).then(|| format!("--- runc\n{oracle}\n--- husk\n{ours}"))
            },
        )?;
        ensure!(
            report.is_none(),
            "after SIG{signal}:\n{}",
            report.unwrap_or_default()
        );
    }
    Ok(())
}
