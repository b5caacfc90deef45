//! Options of `husk run`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use husk_tests::capture::{Captured, capture};
use husk_tests::oci::Runtime;
use husk_tests::{End, Husk, Image, Job, Runc, Runner, differential};

fn same(job: &Job) {
    let report = differential(&Runc, &Husk::find().unwrap(), job).unwrap();
    assert!(report.is_none(), "{job:?}:\n{}", report.unwrap_or_default());
}

#[test]
fn env_workdir_and_hostname_reach_the_program() {
    let image = Image::busybox().unwrap();
    same(
        &Job::shell(&image, "echo $A,$B,$PWD; hostname; pwd; ls")
            .env("A", "1")
            .env("B", "x = y")
            .workdir("/home/ada"),
    );
    same(&Job::shell(&image, "echo $PATH; ls").env("PATH", "/bin"));
}

#[test]
fn the_first_match_on_the_path_runs() {
    let image = Image::busybox().unwrap();
    same(&Job::new(&image, ["hello.sh", "a"]).env("PATH", "/bin:/home/ada"));
    same(&Job::new(&image, ["/home/ada/hello.sh", "", "a b"]));
    same(&Job::new(&image, ["./hello.sh"]).workdir("/home/ada"));
}

#[test]
fn entrypoint_replaces_the_images() {
    let husk = Husk::find().unwrap().options(["--entrypoint", "echo"]);
    let run = husk
        .run(&Job::new(&Image::busybox().unwrap(), ["a", "b c"]))
        .unwrap();
    assert_eq!(run.stdout_text(), "a b c\n", "{}", run.stderr_text());
    assert_eq!(run.end, End::Status(0));
}

#[test]
fn timeout_ends_a_container_that_does_not_end() {
    let husk = Husk::find().unwrap().options(["--timeout", "1"]);
    let run = husk
        .run(&Job::shell(
            &Image::busybox().unwrap(),
            "echo begun; while :; do :; done",
        ))
        .unwrap();
    assert_eq!(run.stdout_text(), "begun\n");
    assert!(matches!(run.end, End::Status(1..)), "{run:?}");
    let clear = run
        .stderr_text()
        .lines()
        .filter(|line| line.starts_with("husk: "))
        .count();
    assert_eq!(clear, 1, "{}", run.stderr_text());
}

/// All processes of a user share `RLIMIT_SIGPENDING`; a neighbour that uses it up keeps nobody from running.
#[test]
fn without_pending_signals_threads_still_take_turns() {
    let script = "(while :; do :; done) & p=$!; sleep 0.1; kill $p; wait $p; echo $?";
    let job = Job::shell(&Image::busybox().unwrap(), script);
    let husk = Husk::find().unwrap().command_for(&job);
    let mut limited = Command::new("prlimit");
    limited
        .arg("--sigpending=0")
        .arg(husk.get_program())
        .args(husk.get_args());
    let run = capture(&limited, b"", job.limit).unwrap();
    assert_eq!(run.stdout_text(), "143\n", "{run:?}");
    assert_eq!(run.end, End::Status(0));
}

#[test]
fn memory_is_a_limit() {
    let image = Image::busybox().unwrap();
    let husk = Husk::find()
        .unwrap()
        .options(["--memory", "64M", "--in-memory"]);
    // A tmpfs file larger than the whole memory cannot be written; the shell sees that and goes on.
    let script = "head -c 200000000 /dev/zero >/tmp/f && echo no limit; rm -f /tmp/f; echo alive";
    let run = husk.run(&Job::shell(&image, script)).unwrap();
    assert_eq!(run.stdout_text(), "alive\n", "{}", run.stderr_text());
    let run = husk
        .run(&Job::shell(
            &image,
            "head -c 20000000 /dev/zero | md5sum; echo ok",
        ))
        .unwrap();
    assert!(run.stdout_text().ends_with("ok\n"), "{run:?}");
}

#[test]
fn stats_come_after_the_programs_own_output() {
    let husk = Husk::find().unwrap().options(["--stats"]);
    let run = husk
        .run(&Job::shell(&Image::busybox().unwrap(), "echo out; exit 6"))
        .unwrap();
    assert_eq!(run.end, End::Status(6));
    assert_eq!(run.stdout_text(), "out\n");
    assert!(!run.stderr.is_empty());
}

#[test]
fn version_and_check_answer() {
    for verb in ["version", "check"] {
        let mut command = Husk::find().unwrap().command();
        command.arg(verb);
        let run = capture(&command, &[], Duration::from_secs(30)).unwrap();
        assert_eq!(
            run.end,
            End::Status(0),
            "husk {verb}: {}",
            run.stderr_text()
        );
        assert!(!run.stdout.is_empty());
    }
}

/// `husk run --network`, in this test's network namespace; with and without a process of its own for the VMM, as `rootless`
/// says.
fn on_network(network: &str, rootless: &str, script: &str) -> Captured {
    let runtime = Runtime::husk().unwrap();
    let image = Image::busybox().unwrap();
    let source = format!("docker-archive:{}", image.docker_archive().display());
    let flag = format!("--rootless={rootless}");
    runtime
        .verb(&[
            &flag,
            "run",
            "--network",
            network,
            &source,
            "--",
            "sh",
            "-c",
            script,
        ])
        .unwrap()
}

const ROOTLESS: [&str; 2] = ["false", "true"];

#[test]
fn the_hosts_network_only_if_it_is_asked_for() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!("nc 127.0.0.1 {port} </dev/null; echo $?; cat /etc/resolv.conf");
    let names = std::fs::read_to_string("/etc/resolv.conf").unwrap();
    let (sender, peers) = mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((mut peer, from)) = listener.accept() {
            peer.write_all(b"from the host\n").unwrap();
            let _ = sender.send(from);
        }
    });
    for rootless in ROOTLESS {
        let answer = on_network("host", rootless, &script);
        let expected = format!("from the host\n0\n{names}");
        assert_eq!(answer.stdout_text(), expected, "{}", answer.stderr_text());
        assert!(peers.try_recv().is_ok());
        // Nobody is there, though the host has a listener.
        let alone = on_network("none", rootless, &script);
        assert!(alone.stdout_text().starts_with("1\n"), "{alone:?}");
        assert!(peers.try_recv().is_err());
    }
}

#[test]
fn a_container_on_the_hosts_network_is_reached() {
    for rootless in ROOTLESS {
        // One that was free a moment ago.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let client = std::thread::spawn(move || {
            loop {
                if let Ok(mut peer) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                    let mut all = String::new();
                    peer.read_to_string(&mut all).unwrap();
                    return all;
                }
                std::thread::yield_now();
            }
        });
        let script = format!("echo from inside | nc -l -p {port}; echo $?");
        let server = on_network("host", rootless, &script);
        assert_eq!(server.stdout_text(), "0\n", "{}", server.stderr_text());
        assert_eq!(client.join().unwrap(), "from inside\n");
    }
}

#[test]
fn networks_that_are_none() {
    let run = on_network("bridge", "false", "true");
    assert_eq!(run.end, End::Status(125));
    assert!(run.stderr_text().contains("none, host"), "{run:?}");
}
