//! bash, perl and Debian's tools: husk must do what runc does.

use husk_tests::debian::{self, Script};
use husk_tests::differential::Failures;
use husk_tests::{Husk, Runc, differential};

/// Every `step`th script, from `first` on: a few tests that run at the same time.
fn share(first: usize) -> Vec<Script> {
    const STEP: usize = 3;
    debian::scripts()
        .unwrap()
        .into_iter()
        .skip(first)
        .step_by(STEP)
        .collect()
}

fn compare(first: usize) {
    let scripts = share(first);
    let husk = Husk::find().unwrap();
    let mut failures = Failures::default();
    for script in &scripts {
        let outcome = script
            .job()
            .and_then(|job| differential(&Runc, &husk, &job));
        failures.note(&script.name, outcome);
    }
    failures.check(scripts.len());
}

#[test]
fn first_third() {
    compare(0);
}

#[test]
fn second_third() {
    compare(1);
}

#[test]
fn last_third() {
    compare(2);
}
