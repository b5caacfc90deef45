//! husk below podman and conmon.

use husk_tests::engines::{Podman, run_topic};

fn topic(name: &str) {
    run_topic(&Podman::start().unwrap(), name);
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
fn users() {
    topic("users");
}
