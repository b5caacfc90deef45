//! What `--trace` and its options record: nothing more, nothing less, and every loss told.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use husk_tests::cache::Scratch;
use husk_tests::capture::{Captured, capture};
use husk_tests::oci::{Bundle, Runtime};
use husk_tests::{End, Husk, Image, Job, Runner, programs};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// A recording's place.
struct Recording {
    scratch: Scratch,
}

impl Recording {
    fn new() -> Self {
        Self {
            scratch: Scratch::new("recording").unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.scratch.path().join("trace")
    }

    /// Runs `job` with these options besides `--trace`.
    fn run(&self, job: &Job, options: &[&str]) -> Captured {
        let path = self.path();
        let husk = Husk::find()
            .unwrap()
            .options(["--trace", path.to_str().unwrap()])
            .options(options.iter().copied());
        let run = husk.run(job).unwrap();
        assert!(
            !run.stderr_text().contains("recording"),
            "{}",
            run.stderr_text()
        );
        run
    }

    fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
            .collect()
    }

    fn calls(&self) -> Vec<Value> {
        let events = self.events().into_iter();
        events.filter(|event| event["kind"] == "syscall").collect()
    }
}

/// `husk trace` with these arguments.
fn printed(arguments: &[&str], file: &Path) -> String {
    let mut command = Husk::find().unwrap().command();
    command.arg("trace").args(arguments).arg(file);
    let run = capture(&command, &[], LIMIT).unwrap();
    assert_eq!(run.end, End::Status(0), "{}", run.stderr_text());
    run.stdout_text()
}

fn shell(script: &str) -> Job {
    Job::shell(&Image::busybox().unwrap(), script)
}

fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or_default()
}

#[test]
fn records_say_who_did_what_and_for_whom() {
    let recording = Recording::new();
    let job = shell("mkdir -m 700 /x; exec cat /etc/passwd");
    let run = recording.run(&job, &["--tenant", "acme"]);
    assert_eq!(run.end, End::Status(0));
    let events = recording.events();
    for event in &events {
        assert_eq!(text(event, "tenant"), "acme", "{event}");
        assert_eq!(text(event, "container").len(), 64, "{event}");
        assert!(text(event, "image").starts_with("sha256:"), "{event}");
    }
    let find = |name: &str, comm: &str| {
        let mut calls = events.iter().filter(|event| event["name"] == name);
        calls
            .find(|event| event["comm"] == comm)
            .unwrap_or_else(|| panic!("no {name} of {comm}"))
    };
    assert_eq!(find("mkdir", "mkdir")["decoded"]["path"], "/x");
    let open = find("openat", "cat");
    assert_eq!(open["decoded"]["path"], "/etc/passwd");
    assert_eq!(open["decoded"]["dirfd"], "AT_FDCWD");
    assert!(
        text(&open["decoded"], "flags").starts_with("O_RDONLY"),
        "{open}"
    );
    let line = printed(&[], &recording.path());
    assert!(
        line.lines()
            .any(|line| line.contains("<mkdir>] mkdir(\"/x\", 0")),
        "{line}"
    );
}

#[test]
fn only_what_a_filter_selects_is_recorded() {
    let script = "cat /etc/passwd /nowhere; cat </etc/group; cd /etc; cat passwd; (exit 3); true";
    let job = shell(script);
    let all = Recording::new();
    all.run(&job, &[]);
    let all = all.calls();
    let selected = |filters: &[&str]| {
        let recording = Recording::new();
        let options: Vec<&str> = filters
            .iter()
            .flat_map(|filter| ["--trace-filter", filter])
            .collect();
        recording.run(&job, &options);
        recording.calls()
    };
    // Which calls a shell makes depends a little on when its children end; those selected here do not.
    let names = |calls: &[Value], keep: &dyn Fn(&Value) -> bool| -> Vec<String> {
        let calls = calls.iter().filter(|call| keep(call));
        calls
            .map(|call| format!("{} {} {}", call["name"], call["args"], call["result"]))
            .map(|line| line.split("140").next().unwrap_or_default().to_owned())
            .collect()
    };
    let equal = |filters: &[&str], keep: &dyn Fn(&Value) -> bool| {
        let calls = selected(filters);
        assert!(calls.iter().all(keep), "{filters:?}: {calls:?}");
        assert_eq!(
            names(&calls, keep).len(),
            names(&all, keep).len(),
            "{filters:?}"
        );
        assert!(!calls.is_empty(), "{filters:?}");
    };
    equal(&["openat,exit_group"], &|call| {
        call["name"] == "openat" || call["name"] == "exit_group"
    });
    equal(&["openat result=failure"], &|call| {
        call["name"] == "openat" && call["errno"].is_string()
    });
    equal(&["openat result=ENOENT", "exit_group"], &|call| {
        (call["name"] == "openat" && call["errno"] == "ENOENT") || call["name"] == "exit_group"
    });
    let names_a_file = |call: &Value| {
        let decoded = call["decoded"].as_object();
        call["name"] == "getcwd"
            || decoded.is_some_and(|decoded| decoded.keys().any(|name| name.ends_with("path")))
    };
    equal(&["pid=1 %file"], &|call| {
        call["pid"] == 1 && names_a_file(call)
    });
    // By path: relative ones and descriptors are resolved.
    let calls = selected(&["path=/etc/passwd openat,sendfile,read,close"]);
    let opened = calls.iter().filter(|call| call["name"] == "openat");
    let paths: Vec<&str> = opened.map(|call| text(&call["decoded"], "path")).collect();
    assert_eq!(paths, ["/etc/passwd", "passwd"]);
    assert!(
        calls.iter().any(|call| call["name"] == "close"),
        "{calls:?}"
    );
    // A tree goes on in children.
    let tree = selected(&["tree=1 execve,openat"]);
    assert!(tree.iter().any(|call| call["pid"] != 1), "{tree:?}");
}

#[test]
fn blocking_loses_nothing() {
    burst("block", 2, 250_000);
}

#[test]
fn dropping_tells_every_loss() {
    burst("drop", 2, 250_000);
}

#[test]
#[ignore = "five million calls each: some minutes of JSON"]
fn five_million_calls() {
    burst("block", 2, 2_500_000);
    burst("drop", 2, 2_500_000);
}

/// Two threads that close what is not open: what each asked for tells whether all are there, and in order.
fn burst(policy: &str, threads: u64, calls: u64) {
    let recording = Recording::new();
    let job = Job::new(
        programs::image(),
        [
            "/t/burst".to_owned(),
            threads.to_string(),
            calls.to_string(),
        ],
    )
    .limit(Duration::from_secs(600));
    let filter = [
        "--trace-filter",
        "close result=EBADF",
        "--trace-policy",
        policy,
    ];
    let binary = ["--trace-format", "binary"];
    let run = recording.run(&job, &[filter.as_slice(), &binary].concat());
    assert_eq!(run.end, End::Status(0), "{}", run.stderr_text());
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    let (mut delivered, mut lost, mut made) = (0, 0, 0);
    let mut command = Husk::find().unwrap().command();
    command
        .arg("trace")
        .arg(recording.path())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let number = |text: &str| -> u64 {
            text.chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
                .parse()
                .unwrap()
        };
        if let Some(rest) = line.strip_prefix("--- ") {
            lost += number(rest);
        } else if let Some((_, rest)) = line.split_once("close(") {
            let (thread, index) = (number(rest) / 10_000_000, number(rest) % 10_000_000);
            let expected = next.entry(thread).or_default();
            assert!(index >= *expected, "{line}: after {expected}");
            made += index - *expected;
            *expected = index + 1;
            delivered += 1;
        }
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(delivered + lost, threads * calls, "{policy}: {lost} lost");
    if policy == "block" {
        assert_eq!((lost, made), (0, 0), "none is missing");
        assert!(next.values().all(|next| *next == calls), "{next:?}");
    }
}

#[test]
fn the_binary_form_says_the_same() {
    // No address is the same in two runs, and no time: one program whose calls have neither.
    let job = Job::new(programs::image(), ["/t/trace_known"]);
    let (json, binary) = (Recording::new(), Recording::new());
    json.run(&job, &[]);
    binary.run(&job, &["--trace-format", "binary"]);
    let without_times = |recording: &Recording| -> Vec<String> {
        let lines = printed(&[], &recording.path());
        let lines = lines
            .lines()
            .map(|line| line.split(" <0.").next().unwrap_or_default());
        lines
            .map(|line| line.split(" = 0x").next().unwrap_or_default().to_owned())
            // Addresses; and what another thread writes when it comes to it.
            .filter(|line| {
                !["mprotect", "munmap", "console"]
                    .iter()
                    .any(|other| line.contains(other))
            })
            .collect()
    };
    assert_eq!(without_times(&json), without_times(&binary));
    let (json, binary) = (fs::metadata(json.path()), fs::metadata(binary.path()));
    assert!(binary.unwrap().len() < json.unwrap().len());
}

#[test]
fn a_summary_counts_calls() {
    let recording = Recording::new();
    recording.run(&Job::new(programs::image(), ["/t/trace_known"]), &[]);
    let table = printed(&["-c"], &recording.path());
    let row = table
        .lines()
        .find(|line| line.ends_with(" getppid"))
        .unwrap_or_else(|| panic!("{table}"));
    assert_eq!(row.split_whitespace().nth(3), Some("5"), "{row}");
    assert!(table.lines().any(|line| line.ends_with(" total")));
}

#[test]
fn a_recording_is_followed_while_the_container_runs() {
    let recording = Recording::new();
    let job = shell("cat; echo end");
    let husk = Husk::find()
        .unwrap()
        .options(["--trace", recording.path().to_str().unwrap()]);
    let mut container = husk
        .command_for(&job)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !recording.path().exists() {
        assert!(container.try_wait().unwrap().is_none(), "it ended early");
        std::thread::yield_now();
    }
    let mut follower = husk.command();
    let mut follower = follower
        .args(["trace", "--follow"])
        .arg(recording.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    // Seen while `cat` waits for input that nobody has sent.
    assert!(lines.any(|line| line.unwrap().contains("<cat>]")));
    drop(container.stdin.take());
    assert!(
        lines.any(|line| line.unwrap().contains("control.shutdown")),
        "the end is seen"
    );
    assert!(container.wait().unwrap().success());
    // What is left of its output may come after that.
    assert!(lines.all(|line| line.unwrap().starts_with("[host] console.")));
    assert!(follower.wait().unwrap().success());
}

#[test]
fn what_crosses_the_boundary_is_recorded_by_the_vmm() {
    let scratch = Scratch::new("volume").unwrap();
    fs::write(scratch.path().join("secret"), "x").unwrap();
    let volume = format!("{}:/v", scratch.path().display());
    let recording = Recording::new();
    // Nothing of the guest's own records is asked for.
    let options = ["--volume", &volume, "--trace-filter", "!all"];
    recording.run(&shell("cat /v/secret; rm /v/secret; exit 3"), &options);
    let events = recording.events();
    assert!(
        events.iter().all(|event| event["kind"] == "boundary"),
        "{events:?}"
    );
    let has = |service: &str, operation: &str, argument: &str| {
        events.iter().any(|event| {
            event["service"] == service
                && event["operation"] == operation
                && text(event, "argument") == argument
        })
    };
    assert!(
        has("files", "lookup", "secret") && has("files", "unlink", "secret"),
        "{events:?}"
    );
    assert!(has("control", "started", ""));
    assert!(has("console", "write", "stdout"));
    let last = events
        .iter()
        .rfind(|event| event["operation"] == "shutdown");
    let last = last.unwrap();
    assert_eq!(
        (text(last, "operation"), &last["value"]),
        ("shutdown", &Value::from(3 << 8))
    );
    let sequence: Vec<u64> = events
        .iter()
        .filter_map(|event| event["seq"].as_u64())
        .collect();
    assert!(
        sequence.iter().copied().eq(0..events.len() as u64),
        "{sequence:?}"
    );
}

#[test]
fn flows_are_recorded_by_the_vmm() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = listener.local_addr().unwrap();
    let recording = Recording::new();
    let peer = std::thread::scope(|scope| {
        let accepted = scope.spawn(|| {
            let (mut peer, address) = listener.accept().unwrap();
            peer.write_all(b"12345").unwrap();
            address
        });
        let job = shell(&format!("nc 127.0.0.1 {} </dev/null", server.port()));
        recording.run(&job, &["--network", "host", "--trace-filter", "!all"]);
        accepted.join().unwrap()
    });
    let events = recording.events();
    let of = |operation: &str| {
        let is_it =
            |event: &&Value| event["service"] == "network" && event["operation"] == operation;
        events.iter().filter(is_it).collect::<Vec<_>>()
    };
    let flow = format!("tcp {peer} > {server}");
    let connect = of("connect")[0];
    assert_eq!(text(connect, "argument"), flow);
    assert!(
        [Value::Null, "EINPROGRESS".into()].contains(&connect["errno"]),
        "{connect}"
    );
    let received = of("receive")
        .into_iter()
        .filter(|event| event["errno"].is_null())
        .inspect(|event| assert_eq!(text(event, "argument"), flow))
        .inspect(|event| assert_eq!(event["node"], connect["node"]))
        .filter_map(|event| event["value"].as_u64());
    assert_eq!(received.sum::<u64>(), 5, "{events:?}");
    assert_eq!(of("close").len(), of("socket").len(), "{events:?}");
}

#[test]
fn bundles_are_recorded_too() {
    let runtime = Runtime::husk().unwrap();
    let image = Image::busybox().unwrap();
    let mut bundle = Bundle::new(&runtime, &image, "cat /etc/passwd").unwrap();
    let recording = Recording::new();
    let path = recording.path();
    bundle
        .edit(|spec| {
            spec["annotations"] = serde_json::json!({
                "husk.trace": path,
                "husk.trace.filter": "openat\nexit_group",
                "husk.tenant": "acme",
                "husk.image": "sha256:0123",
            });
        })
        .unwrap();
    assert_eq!(bundle.run().unwrap().end, End::Status(0));
    let calls = recording.calls();
    assert!(!calls.is_empty());
    for call in &calls {
        assert!(
            call["name"] == "openat" || call["name"] == "exit_group",
            "{call}"
        );
        assert_eq!(
            (text(call, "tenant"), text(call, "image")),
            ("acme", "sha256:0123")
        );
    }
    // A file that is there is not written over because a bundle says so.
    let again = bundle.run().unwrap();
    assert_ne!(again.end, End::Status(0));
    assert!(
        again.stderr_text().contains("File exists"),
        "{}",
        again.stderr_text()
    );
    // Whoever calls husk may.
    let id = bundle.id();
    let trace = path.to_str().unwrap();
    let flags = ["--trace", trace, "--trace-filter", "brk"];
    assert_eq!(
        bundle.try_create(&id, &flags).unwrap(),
        End::Status(0),
        "{}",
        bundle.text(&id)
    );
    runtime.must(&["start", &id]).unwrap();
    runtime.wait_for(&id, "stopped").unwrap();
    assert!(recording.calls().iter().all(|call| call["name"] == "brk"));
    bundle
        .edit(|spec| spec["annotations"] = serde_json::json!({"husk.trace": "trace"}))
        .unwrap();
    let bad = bundle.run().unwrap();
    assert!(
        bad.stderr_text().contains("annotations[\"husk.trace\"]"),
        "{}",
        bad.stderr_text()
    );
}

#[test]
fn a_recorded_container_is_followed_by_its_id_and_what_is_asked_of_it_is_recorded() {
    let runtime = Runtime::husk().unwrap();
    let image = Image::busybox().unwrap();
    let script = "trap 'exit 4' USR1; while :; do sleep 0.05; done";
    let bundle = Bundle::new(&runtime, &image, script).unwrap();
    let recording = Recording::new();
    let path = recording.path();
    let id = bundle.id();
    // Relative, from another directory than the reader's.
    let flags = [
        "--trace",
        path.to_str().unwrap(),
        "--trace-filter",
        "exit_group",
    ];
    let created = bundle.try_create(&id, &flags).unwrap();
    assert_eq!(created, End::Status(0), "{}", bundle.text(&id));
    runtime.must(&["start", &id]).unwrap();
    let mut follower = runtime.command();
    let mut follower = follower
        .args(["trace", &id])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    runtime.must(&["exec", &id, "/bin/true"]).unwrap();
    assert!(lines.any(|line| line.unwrap().contains("control.exec(\"/bin/true\"")));
    runtime.must(&["kill", "--all", &id, "URG"]).unwrap();
    assert!(lines.any(|line| line.unwrap().contains("control.kill(\"all\"")));
    runtime.must(&["kill", &id, "USR1"]).unwrap();
    assert!(lines.any(|line| line.unwrap().contains("exit_group(4)")));
    assert!(lines.any(|line| line.unwrap().contains("control.shutdown")));
    assert!(follower.wait().unwrap().success());
    let unrecorded = bundle.started().unwrap();
    let text = runtime.must_fail(&["trace", &unrecorded]).unwrap();
    assert!(text.contains("is not recorded"), "{text}");
}

#[test]
fn a_call_during_which_its_thread_is_killed_has_a_record() {
    let recording = Recording::new();
    let job = shell("(exec sleep 1000) & sleep 0.2; kill -9 $!; wait $!; echo $?");
    let run = recording.run(
        &job,
        &["--trace-filter", "nanosleep,clock_nanosleep,exit_group"],
    );
    assert_eq!(run.stdout_text(), "137\n");
    let calls = recording.calls();
    let killed = calls
        .iter()
        .find(|call| text(call, "name").ends_with("nanosleep") && call["result"].is_null());
    assert!(killed.is_some(), "{calls:#?}");
    let line = printed(&[], &recording.path());
    assert!(
        line.lines()
            .any(|line| line.contains("nanosleep(") && line.contains("= ?")),
        "{line}"
    );
}

#[test]
fn memory_that_comes_and_goes_is_recorded_by_the_vmm() {
    let image = programs::image();
    let recording = Recording::new();
    let job = Job::new(image, ["/t/memory_waves"]);
    let run = recording.run(&job, &["--trace-filter", "!all"]);
    assert_eq!(run.end, End::Status(0), "{}", run.stderr_text());
    let events = recording.events();
    let bytes = |operation: &str| -> u64 {
        let of = events
            .iter()
            .filter(|event| event["operation"] == operation);
        of.filter_map(|event| event["value"].as_u64()).sum()
    };
    assert!(bytes("memory_added") >= 1 << 29, "{events:?}");
    assert!(bytes("memory_returned") >= 1 << 29, "{events:?}");
}

#[test]
fn bad_options_name_the_word() {
    let scratch = Scratch::new("bad").unwrap();
    let trace = scratch.path().join("trace");
    for (option, value, word) in [
        ("--trace-filter", "opne", "opne"),
        ("--trace-filter", "%files", "%files"),
        ("--trace-filter", "path=etc", "etc"),
        ("--trace-filter", "result=EWHAT", "EWHAT"),
        ("--trace-policy", "wait", "wait"),
        ("--trace-format", "xml", "xml"),
    ] {
        let husk =
            Husk::find()
                .unwrap()
                .options(["--trace", trace.to_str().unwrap(), option, value]);
        let run = husk.run(&shell("true")).unwrap();
        let message = run.stderr_text();
        assert_ne!(run.end, End::Status(0), "{value}");
        assert!(message.contains(word), "{message}");
        assert!(!trace.exists(), "{value}: nothing is made");
    }
}
