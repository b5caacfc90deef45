//! bash, perl and Debian's tools: husk must do what runc does.

use husk_tests::debian::{self, Script};
use husk_tests::differential::{Failures, difference};
use husk_tests::{End, Husk, Runc, Runner};

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

/// A script must print the same twice under runc, or its differences would be blamed on husk.
fn compare(first: usize) {
    let scripts = share(first);
    let husk = Husk::find().unwrap();
    let mut failures = Failures::default();
    for script in &scripts {
        let outcome = script.job().and_then(|job| {
            let expected = Runc.run(&job)?;
            if let End::TimedOut(_) = expected.end {
                return Ok(Some("  hangs under runc\n".to_owned()));
            }
            let actual = husk.run(&job)?;
            let Some(report) = difference(("runc", &expected), ("husk", &actual)) else {
                return Ok(None);
            };
            let again = Runc.run(&job)?;
            Ok(Some(
                difference(("first", &expected), ("again", &again)).map_or(report, |unstable| {
                    format!("  not the same twice under runc\n{unstable}")
                }),
            ))
        });
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
