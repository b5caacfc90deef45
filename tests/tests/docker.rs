//! husk below dockerd and containerd.

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
