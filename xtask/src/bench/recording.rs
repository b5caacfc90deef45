//! What recording costs a call: husk with and without, in turns.

use anyhow::{Context, Result, ensure};
use husk_tests::cache::Scratch;
use husk_tests::{End, Husk, Image, Job, Runner};
use serde_json::json;

use super::ROUNDS;
use super::report::{best, store};

/// The benchmark's name.
pub const NAME: &str = "recording";

/// What is recorded, by name, and how: each but the first is compared with the first.
const CASES: [(&str, &[&str]); 6] = [
    ("off", &[]),
    ("unselected", &["--trace-filter", "reboot"]),
    (
        "unselected-result",
        &["--trace-filter", "reboot result=failure"],
    ),
    ("binary", &["--trace-format", "binary"]),
    (
        "binary-drop",
        &["--trace-format", "binary", "--trace-policy", "drop"],
    ),
    ("json", &[]),
];

/// Nanoseconds more than without a recording that husk promises at most.
const PROMISES: [(&str, f64); 2] = [("unselected", 2.0), ("binary", 100.0)];

/// Measures, prints and stores; gives the promises that are broken.
pub fn run(husk: &Husk, image: &Image) -> Result<Vec<String>> {
    let job = Job::new(image, ["/t/getppid_wrapper"]);
    let mut values = vec![Vec::new(); CASES.len()];
    for round in 0..=ROUNDS {
        for ((name, options), values) in CASES.iter().zip(&mut values) {
            let value = nanoseconds(husk, &job, name, options)?;
            if round > 0 {
                values.push(value);
            }
        }
    }
    let off = best(&values[0]);
    println!("{:<18} {:>10} {:>10}", NAME, "ns/call", "more");
    let mut cases = json!({});
    for ((name, _), values) in CASES.iter().zip(&values) {
        let value = best(values);
        println!("    {name:<14} {value:>10.1} {:>10.1}", value - off);
        cases[*name] = json!({ "best": value, "more": value - off, "rounds": values });
    }
    store(
        NAME,
        json!({ "name": NAME, "unit": "ns", "cases": cases }),
        husk,
    )?;
    let broken = PROMISES.iter().filter_map(|(name, limit)| {
        let index = CASES.iter().position(|(case, _)| case == name)?;
        let more = best(&values[index]) - off;
        (more > *limit).then(|| {
            format!("{NAME}: {name}: {more:.1} ns more than without, promised: at most {limit}")
        })
    });
    Ok(broken.collect())
}

fn nanoseconds(husk: &Husk, job: &Job, name: &str, options: &[&str]) -> Result<f64> {
    let scratch = Scratch::new("bench-recording")?;
    let mut husk = husk.clone();
    if name != "off" {
        let path = scratch.path().join("trace").display().to_string();
        husk = husk.options(["--trace".to_owned(), path]);
    }
    let run = husk.options(options.iter().copied()).run(job)?;
    ensure!(run.end == End::Status(0), "{name}: {}", run.stderr_text());
    let printed = run.stdout_text();
    let value = printed.split_whitespace().next();
    value
        .and_then(|value| value.parse().ok())
        .with_context(|| format!("{name} printed {printed:?}"))
}
