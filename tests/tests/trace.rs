//! The trace of a program with a known sequence of syscalls holds exactly that sequence.

use std::fs;
use std::time::Duration;

use husk_tests::cache::Scratch;
use husk_tests::capture::capture;
use husk_tests::differential::difference;
use husk_tests::{End, Husk, Job, Runc, Runner, programs};
use serde_json::Value;

const EBADF: i64 = -9;
const ENOENT: i64 = -2;
const ENOSYS: i64 = -38;
const AT_FDCWD: i64 = -100;

/// What a record must say. `None`: the program does not determine it.
struct Expected {
    number: u64,
    name: Option<&'static str>,
    arguments: &'static [Option<i64>],
    result: Option<i64>,
}

const fn call(
    number: u64,
    name: &'static str,
    arguments: &'static [Option<i64>],
    result: Option<i64>,
) -> Expected {
    Expected {
        number,
        name: Some(name),
        arguments,
        result,
    }
}

/// What programs/trace_known.c does, the only process of its container.
fn sequence() -> Vec<Expected> {
    let mut calls = vec![call(39, "getpid", &[], Some(1))];
    calls.extend((0..5).map(|_| call(110, "getppid", &[], Some(0))));
    calls.extend([
        call(3, "close", &[Some(-1)], Some(EBADF)),
        call(
            9,
            "mmap",
            &[Some(0), Some(4096), Some(3), Some(0x22), Some(-1), Some(0)],
            None,
        ),
        call(10, "mprotect", &[None, Some(4096), Some(1)], Some(0)),
        call(11, "munmap", &[None, Some(4096)], Some(0)),
        call(1, "write", &[Some(1), None, Some(6)], Some(6)),
        call(
            257,
            "openat",
            &[Some(AT_FDCWD), None, Some(0)],
            Some(ENOENT),
        ),
        call(33, "dup2", &[Some(1), Some(9)], Some(9)),
        call(3, "close", &[Some(9)], Some(0)),
        Expected {
            number: 100_000,
            name: None,
            arguments: &[Some(1), Some(2), Some(3), Some(4), Some(5), Some(6)],
            result: Some(ENOSYS),
        },
        call(186, "gettid", &[], Some(1)),
        // It does not return.
        call(231, "exit_group", &[Some(23)], None),
    ]);
    calls
}

/// A number written as signed or as unsigned, as its 64 bits.
fn bits(value: &Value) -> i64 {
    value
        .as_i64()
        .or_else(|| value.as_u64().map(u64::cast_signed))
        .unwrap_or_else(|| panic!("{value} is no number"))
}

fn trace(file: &std::path::Path) -> (Vec<Value>, String) {
    let job = Job::new(programs::image(), ["/t/trace_known"]);
    let expected = Runc.run(&job).unwrap();
    let husk = Husk::find()
        .unwrap()
        .options(["--trace".to_owned(), file.display().to_string()]);
    let run = husk.run(&job).unwrap();
    assert_eq!(
        difference(("runc", &expected), ("husk", &run)),
        None,
        "tracing changes nothing"
    );
    assert_eq!(run.end, End::Status(23));
    let text = fs::read_to_string(file).unwrap();
    let records = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")));
    (records.collect(), text)
}

#[test]
fn the_trace_is_the_sequence() {
    let scratch = Scratch::new("trace").unwrap();
    let (records, text) = trace(&scratch.path().join("trace.jsonl"));
    // A line that is no syscall (a header, counts of drops) may stand among them; it has no `nr`.
    let calls: Vec<&Value> = records
        .iter()
        .filter(|record| record.get("nr").is_some())
        .collect();
    let expected = sequence();
    let names = |calls: &[&Value]| {
        calls
            .iter()
            .map(|call| call["name"].to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(calls.len(), expected.len(), "{:?}", names(&calls));

    let mut last_time = 0;
    for (record, call) in calls.iter().zip(&expected) {
        assert_eq!(record["nr"].as_u64(), Some(call.number), "{record}\n{text}");
        if let Some(name) = call.name {
            assert_eq!(record["name"].as_str(), Some(name), "{record}");
        }
        let arguments = record["args"]
            .as_array()
            .unwrap_or_else(|| panic!("no args in {record}"));
        assert!(arguments.len() >= call.arguments.len(), "{record}");
        for (actual, wanted) in arguments.iter().zip(call.arguments) {
            assert!(
                wanted.is_none_or(|wanted| wanted == bits(actual)),
                "{record}: {actual}, not {wanted:?}"
            );
        }
        if let Some(result) = call.result {
            assert_eq!(record["result"].as_i64(), Some(result), "{record}");
        }
        assert_eq!(record["pid"].as_u64(), Some(1), "{record}");
        assert_eq!(record["tid"].as_u64(), Some(1), "{record}");
        assert!(
            record["vcpu"].is_u64() && record["duration_ns"].is_u64(),
            "{record}"
        );
        let time = record["time_ns"]
            .as_u64()
            .unwrap_or_else(|| panic!("no time in {record}"));
        assert!(time >= last_time, "time goes backwards at {record}");
        last_time = time;
    }

    let page = bits(&calls[7]["result"]);
    assert!(page > 0 && page % 4096 == 0, "{}", calls[7]);
    for later in [8, 9] {
        assert_eq!(bits(&calls[later]["args"][0]), page, "{}", calls[later]);
    }
}

#[test]
fn husk_trace_prints_one_line_for_each_call() {
    let scratch = Scratch::new("trace").unwrap();
    let file = scratch.path().join("trace.jsonl");
    trace(&file);
    let mut command = Husk::find().unwrap().command();
    command.arg("trace").arg(&file);
    let run = capture(&command, &[], Duration::from_secs(30)).unwrap();
    assert_eq!(run.end, End::Status(0), "{}", run.stderr_text());
    let printed = run.stdout_text();
    let mut lines = printed.lines();
    for name in sequence().iter().filter_map(|call| call.name) {
        assert!(
            lines.any(|line| line.contains(&format!("{name}("))),
            "no {name}, or not in order:\n{printed}"
        );
    }
}
