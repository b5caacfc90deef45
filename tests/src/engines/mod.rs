//! Real engines, each with a daemon or store of its own, and the scenarios that users know: every one is a few lines of
//! shell, run once with runc and once with husk as the container's runtime. Both must print the same and end alike.

pub mod containerd;
mod docker;
mod mounts;
mod podman;
mod scenarios;

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cache::{Scratch, unique};
use crate::capture::{Captured, End, capture};
use crate::differential::{Failures, difference, judge};
pub use docker::Docker;
pub use mounts::remove_cgroup;
pub use podman::Podman;
pub use scenarios::{Scenario, TOPICS};

/// How long a scenario may take, on a machine under load.
const LIMIT: Duration = Duration::from_secs(300);
/// Scenarios at a time.
const WORKERS: usize = 4;
/// The engines' name of the test image.
const IMAGE: &str = "husk-test:latest";
const PRELUDE: &str = include_str!("prelude.sh");

/// What scenarios are run with.
pub trait Engine: Sync {
    /// Its name in messages, and in [`Scenario::only`].
    fn name(&self) -> &'static str;

    /// Its command line, for a shell.
    fn command_line(&self, runtime: &str) -> String;

    /// Flags of its `run` and `create`.
    fn run_flags(&self, runtime: &str) -> String;

    /// Environment its commands need.
    fn environment(&self) -> Vec<(String, String)>;

    /// Runs a script with the prelude and this runtime.
    ///
    /// # Errors
    /// When it cannot be run.
    fn script(&self, runtime: &str, text: &str, limit: Duration) -> Result<Captured> {
        let directory = Scratch::new("scenario")?;
        let container = unique("husk-test");
        let mut bash = Command::new("bash");
        bash.arg("-c")
            .arg(format!("{PRELUDE}\n{text}"))
            .env("E", self.command_line(runtime))
            .env("F", self.run_flags(runtime))
            .env("I", IMAGE)
            .env("C", &container)
            .env("W", directory.path())
            .envs(self.environment())
            .current_dir(directory.path());
        let done = capture(&bash, b"", limit)?;
        let mut clean = Command::new("bash");
        clean
            .arg("-c")
            .arg(
                "for c in $($E ps -aq --filter name=$C); do $E rm -f $c; done; \
                 for v in $($E volume ls -q --filter name=$C); do $E volume rm $v; done",
            )
            .env("E", self.command_line(runtime))
            .env("C", &container)
            .envs(self.environment());
        let cleaned = capture(&clean, b"", LIMIT)?;
        ensure!(
            cleaned.end == End::Status(0),
            "cannot remove what is left after {:?}: {}",
            done.stdout_text(),
            cleaned.stderr_text()
        );
        Ok(done)
    }
}

/// Runs one scenario with either runtime; tells how they differ.
fn compare(engine: &dyn Engine, scenario: &Scenario) -> Result<Option<String>> {
    let show = |name: &str, run: &Captured| {
        format!(
            "--- {name} ({:.1} s)\n{}--- its errors\n{}",
            run.wall.as_secs_f64(),
            run.stdout_text(),
            run.stderr_text()
        )
    };
    let run = |runtime: &str| {
        let run = engine.script(runtime, scenario.text, LIMIT)?;
        if std::env::var_os("HUSK_SHOW").is_some() {
            println!("=== {}\n{}", scenario.name, show(runtime, &run));
        }
        Ok(run)
    };
    judge(
        scenario.name,
        || {
            let expected = run("runc")?;
            ensure!(
                expected.end == End::Status(0) && !expected.stdout.is_empty(),
                "it does not do with runc what it should: {:?}\n{}",
                expected.end,
                show("runc", &expected)
            );
            Ok(expected)
        },
        || run("husk"),
        |expected, actual| {
            // Errors in words are the engine's and each runtime's own.
            let wordless = |run: &Captured| Captured {
                stderr: Vec::new(),
                ..run.clone()
            };
            let report = difference(("runc", &wordless(expected)), ("husk", &wordless(actual)))?;
            let shown = show("runc", expected) + &show("husk", actual);
            Some(format!("{report}{shown}"))
        },
    )
}

/// Runs all scenarios of a topic that are for this engine; panics with every failure. `HUSK_SCENARIO` names one, by a part
/// of its name.
pub fn run_topic(engine: &dyn Engine, topic: &str) {
    let only = std::env::var("HUSK_SCENARIO").unwrap_or_default();
    let scenarios: Vec<&Scenario> = TOPICS
        .iter()
        .filter(|(name, _)| *name == topic)
        .flat_map(|(_, scenarios)| *scenarios)
        .filter(|scenario| scenario.is_for(engine.name()) && scenario.name.contains(&only))
        .collect();
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Failures::default());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = compare(engine, scenario);
                    if let Ok(mut failures) = failures.lock() {
                        failures.note(scenario.name, outcome);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().context("a scenario panics");
    failures.unwrap_or_default().check(scenarios.len());
}
