//! Shell scripts over busybox: husk must do what runc does.

use anyhow::{Result, ensure};
use husk_tests::differential::Failures;
use husk_tests::scripts::TOPICS;
use husk_tests::{Captured, End, Husk, Image, Job, Runc, Runner, differential};

fn compare(topic: &str, subject: &dyn Runner) {
    let image = Image::busybox().unwrap();
    let (_, scripts) = TOPICS.iter().find(|(name, _)| *name == topic).unwrap();
    let mut failures = Failures::default();
    for script in *scripts {
        failures.note(
            script.name,
            differential(&Runc, subject, &script.job(&image)),
        );
    }
    failures.check(scripts.len());
}

#[test]
fn devices() {
    compare("devices", &Husk::find().unwrap());
}

#[test]
fn files() {
    compare("files", &Husk::find().unwrap());
}

#[test]
fn processes() {
    compare("processes", &Husk::find().unwrap());
}

#[test]
fn shell() {
    compare("shell", &Husk::find().unwrap());
}

#[test]
fn text() {
    compare("text", &Husk::find().unwrap());
}

/// runc once more.
struct Again;

impl Runner for Again {
    fn name(&self) -> &'static str {
        "again"
    }

    fn run(&self, job: &Job) -> Result<Captured> {
        let run = Runc.run(job)?;
        ensure!(!matches!(run.end, End::TimedOut(_)), "it hangs under runc");
        Ok(run)
    }
}

/// A script whose output changes from run to run would blame husk for it.
#[test]
fn every_script_is_deterministic_under_runc() {
    let image = Image::busybox().unwrap();
    let mut failures = Failures::default();
    let mut total = 0;
    for script in TOPICS.iter().flat_map(|(_, scripts)| *scripts) {
        let job = script.job(&image);
        failures.note(script.name, differential(&Runc, &Again, &job));
        total += 1;
    }
    failures.check(total);
}
