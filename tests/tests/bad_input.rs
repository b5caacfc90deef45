//! Bad command lines, machines and programs: one clear line each, the right status, nothing left behind.

use husk_tests::differential::Failures;
use husk_tests::sandbox::Kvm;
use husk_tests::{End, Husk, Image, Sandbox};

const GOOD: &str = "docker-archive:/mnt/bin/good.tar";

fn sandbox() -> Sandbox {
    Sandbox::new(&Husk::find().unwrap(), &Image::busybox().unwrap()).unwrap()
}

#[test]
fn the_sandbox_runs_good_input_and_leaves_nothing() {
    let outcome = sandbox()
        .run(
            Kvm::Present,
            &["run", GOOD, "--", "sh", "-c", "echo fine; exit 3"],
        )
        .unwrap();
    assert_eq!(outcome.run.stdout_text(), "fine\n", "{outcome:?}");
    assert_eq!(outcome.run.end, End::Status(3));
    assert!(outcome.left_behind.is_empty(), "{:#?}", outcome.left_behind);
}

#[test]
fn without_a_usable_kvm() {
    let mut failures = Failures::default();
    let cases = [Kvm::Missing, Kvm::Wrong, Kvm::Forbidden];
    for kvm in cases {
        failures.note(
            &format!("{kvm:?}"),
            sandbox().complaint(kvm, &["run", GOOD, "--", "true"], 125),
        );
    }
    failures.check(cases.len());
}

#[test]
fn commands_that_cannot_run() {
    let cases = [
        ("/no/such/command", 127),
        ("no-such-command", 127),
        ("/etc/passwd", 126),
        ("/home/ada/not-executable", 126),
        ("/home/ada/garbage", 126),
        ("/etc", 126),
    ];
    let mut failures = Failures::default();
    for (command, status) in cases {
        failures.note(
            command,
            sandbox().complaint(Kvm::Present, &["run", GOOD, "--", command], status),
        );
    }
    failures.check(cases.len());
}

#[test]
fn command_lines() {
    let cases: &[(&str, &[&str])] = &[
        ("no source", &["run"]),
        ("unknown flag", &["run", "--frobnicate", GOOD, "--", "true"]),
        (
            "unknown kind of source",
            &["run", "floppy:/mnt/bin/good.tar", "--", "true"],
        ),
        (
            "missing archive",
            &["run", "docker-archive:/mnt/work/none.tar", "--", "true"],
        ),
        (
            "missing layout",
            &["run", "oci:/mnt/work/none", "--", "true"],
        ),
        (
            "a directory as archive",
            &["run", "docker-archive:/mnt/work", "--", "true"],
        ),
        ("memory 0", &["run", "--memory", "0", GOOD, "--", "true"]),
        ("memory 1", &["run", "--memory", "1", GOOD, "--", "true"]),
        ("memory -5", &["run", "--memory=-5", GOOD, "--", "true"]),
        (
            "memory of words",
            &["run", "--memory", "plenty", GOOD, "--", "true"],
        ),
        (
            "memory beyond the machine",
            &["run", "--memory", "99999T", GOOD, "--", "true"],
        ),
        (
            "memory beyond 64 bits",
            &[
                "run",
                "--memory",
                "99999999999999999999G",
                GOOD,
                "--",
                "true",
            ],
        ),
        (
            "an unknown user",
            &["run", "--user", "nosuch", GOOD, "--", "true"],
        ),
        (
            "a volume that is not there",
            &["run", "--volume", "/no/such:/v", GOOD, "--", "true"],
        ),
        ("cpus 0", &["run", "--cpus", "0", GOOD, "--", "true"]),
        (
            "cpus of words",
            &["run", "--cpus", "some", GOOD, "--", "true"],
        ),
        (
            "timeout of words",
            &["run", "--timeout", "soon", GOOD, "--", "true"],
        ),
        (
            "trace into nowhere",
            &["run", "--trace", "/no/such/dir/trace", GOOD, "--", "true"],
        ),
    ];
    let mut failures = Failures::default();
    for (name, arguments) in cases {
        failures.note(name, sandbox().complaint(Kvm::Present, arguments, 125));
    }
    failures.check(cases.len());
}
