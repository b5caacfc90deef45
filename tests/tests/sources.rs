//! The same image in every format husk reads.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use husk_tests::capture::capture;
use husk_tests::{End, Husk, Image};

fn runs(kind: &str, path: PathBuf) {
    let mut source = OsString::from(kind);
    source.push(":");
    source.push(path);
    let mut command = Husk::find().unwrap().command();
    command
        .arg("run")
        .arg(source)
        .args(["--", "sh", "-c", "head -1 /etc/passwd; exit 3"]);
    let run = capture(&command, &[], Duration::from_secs(60)).unwrap();
    assert_eq!(
        run.stdout_text(),
        "root:x:0:0:root:/root:/bin/sh\n",
        "{}",
        run.stderr_text()
    );
    assert_eq!(run.end, End::Status(3));
}

#[test]
fn docker_archive() {
    runs("docker-archive", Image::busybox().unwrap().docker_archive());
}

#[test]
fn oci_layout() {
    runs("oci", Image::busybox().unwrap().oci());
}

#[test]
fn oci_archive() {
    runs("oci-archive", Image::busybox().unwrap().oci_archive());
}

#[test]
fn the_images_own_command_runs_without_arguments() {
    let mut source = OsString::from("docker-archive:");
    source.push(Image::busybox().unwrap().docker_archive());
    let mut command = Husk::find().unwrap().command();
    command.arg("run").arg(source);
    // Its command is `sh`, which takes its script from standard input.
    let run = capture(
        &command,
        b"echo from stdin; exit 4\n",
        Duration::from_secs(60),
    )
    .unwrap();
    assert_eq!(run.stdout_text(), "from stdin\n", "{}", run.stderr_text());
    assert_eq!(run.end, End::Status(4));
}
