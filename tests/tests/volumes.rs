//! Directories of the host in a container: what one side writes the other sees.

use std::fs;
use std::path::Path;

use husk_tests::cache::Scratch;
use husk_tests::{Captured, End, Husk, Image, Job, Runner};

fn run(directory: &Path, options: &str, script: &str) -> Captured {
    let volume = format!("{}:/v{options}", directory.display());
    let husk = Husk::find().unwrap().options(["--volume", volume.as_str()]);
    husk.run(&Job::shell(&Image::busybox().unwrap(), script))
        .unwrap()
}

#[test]
fn both_sides_see_the_same_files() {
    let volume = Scratch::new("volume").unwrap();
    let at = |name: &str| volume.path().join(name);
    fs::write(at("in"), "from the host\n").unwrap();
    let script = "cat /v/in; mkdir /v/d; echo from the guest >/v/new; mv /v/new /v/d/out; ln -s out /v/d/link; \
                  echo more >>/v/in; truncate -s 5 /v/d/out; cat /v/d/link; echo; rm /v/d/link; ls /v/d";
    let seen = run(volume.path(), "", script);
    assert_eq!(seen.end, End::Status(0), "{}", seen.stderr_text());
    assert_eq!(seen.stdout_text(), "from the host\nfrom \nout\n");
    assert_eq!(
        fs::read_to_string(at("in")).unwrap(),
        "from the host\nmore\n"
    );
    assert_eq!(fs::read_to_string(at("d/out")).unwrap(), "from ");
    assert!(!at("d/link").exists());
}

#[test]
fn a_read_only_volume_is_not_written_to() {
    let volume = Scratch::new("volume").unwrap();
    fs::write(volume.path().join("in"), "kept\n").unwrap();
    let script = "cat /v/in; echo x >/v/in; echo $?; rm /v/in; echo $?; mkdir /v/d; echo $?";
    let seen = run(volume.path(), ":ro", script);
    assert_eq!(
        seen.stdout_text(),
        "kept\n1\n1\n1\n",
        "{}",
        seen.stderr_text()
    );
    assert!(seen.stderr_text().contains("Read-only file system"));
    assert_eq!(
        fs::read_to_string(volume.path().join("in")).unwrap(),
        "kept\n"
    );
}

/// A link in the volume leads where it leads in the container, not on the host.
#[test]
fn links_do_not_lead_out() {
    let volume = Scratch::new("volume").unwrap();
    std::os::unix::fs::symlink("/etc/machine-id", volume.path().join("absolute")).unwrap();
    std::os::unix::fs::symlink("../../../../../etc/hostname", volume.path().join("up")).unwrap();
    let seen = run(
        volume.path(),
        "",
        "cat /v/absolute; echo $?; cat /v/up; echo $?",
    );
    assert_eq!(seen.stdout_text(), "1\n1\n", "{}", seen.stderr_text());
}
