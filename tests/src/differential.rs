//! The comparison of two runs.

use std::fmt::Write;
use std::io::Write as _;

use anyhow::{Context, Result, ensure};

use crate::capture::{Captured, End};
use crate::runner::{Job, Runner};

/// How often the oracle is asked at most for one case.
const ORACLE_RUNS: usize = 5;

/// Runs the oracle, then the subject, and tells how the subject's result differs from all that the oracle gives.
///
/// Where the first two results differ, the oracle runs again, up to [`ORACLE_RUNS`] times in all: what Linux itself does
/// now one way, now another, as on a busy machine, is no failure of husk's, and a line on standard error says so. A run of
/// the oracle that is an error is repeated likewise. The subject runs once: what it does wrong once is a failure.
///
/// # Errors
/// The subject's, and the oracle's if it has no other.
pub fn judge<T>(
    case: &str,
    mut oracle: impl FnMut() -> Result<T>,
    subject: impl FnOnce() -> Result<T>,
    differs: impl Fn(&T, &T) -> Option<String>,
) -> Result<Option<String>> {
    let mut runs = 1;
    let expected = loop {
        match oracle() {
            Ok(expected) => break expected,
            Err(error) if runs < ORACLE_RUNS => {
                say(case, "runc itself fails", &format!("{error:#}"))
            }
            Err(error) => return Err(error),
        }
        runs += 1;
    };
    let actual = subject()?;
    let Some(report) = differs(&expected, &actual) else {
        return Ok(None);
    };
    while runs < ORACLE_RUNS {
        runs += 1;
        if oracle().is_ok_and(|again| differs(&again, &actual).is_none()) {
            say(case, "runc itself differs", &report);
            return Ok(None);
        }
    }
    Ok(Some(report))
}

/// Says something of a case that does not fail, past the harness that shows what failing tests print.
fn say(case: &str, what: &str, report: &str) {
    let _ = writeln!(std::io::stderr(), "\n{case}: {what}: {}", report.trim_end());
}

/// Runs `job` under both; describes every difference, or returns nothing if there is none.
pub fn differential(
    oracle: &dyn Runner,
    subject: &dyn Runner,
    job: &Job,
) -> Result<Option<String>> {
    compare(oracle, subject, job, |_| Ok(()))
}

/// The same for a job that must end so under the oracle.
pub fn differential_to(
    end: End,
    oracle: &dyn Runner,
    subject: &dyn Runner,
    job: &Job,
) -> Result<Option<String>> {
    compare(oracle, subject, job, |expected| {
        ensure!(
            expected.end == end,
            "{:?} under {}:\n{}{}",
            expected.end,
            oracle.name(),
            expected.stdout_text(),
            expected.stderr_text()
        );
        Ok(())
    })
}

fn compare(
    oracle: &dyn Runner,
    subject: &dyn Runner,
    job: &Job,
    is_sound: impl Fn(&Captured) -> Result<()>,
) -> Result<Option<String>> {
    judge(
        &job.argv.join(" "),
        || {
            let expected = oracle.run(job).with_context(|| oracle.name())?;
            is_sound(&expected)?;
            Ok(expected)
        },
        || subject.run(job).with_context(|| subject.name()),
        |expected, actual| difference((oracle.name(), expected), (subject.name(), actual)),
    )
}

/// Describes how two runs differ.
pub fn difference(expected: (&str, &Captured), actual: (&str, &Captured)) -> Option<String> {
    let mut report = String::new();
    if expected.1.end != actual.1.end {
        let _ = writeln!(
            report,
            "  end: {} {:?}, {} {:?}",
            expected.0, expected.1.end, actual.0, actual.1.end
        );
    }
    for (stream, left, right) in [
        ("stdout", &expected.1.stdout, &actual.1.stdout),
        ("stderr", &expected.1.stderr, &actual.1.stderr),
    ] {
        if left != right {
            let _ = writeln!(
                report,
                "  {stream}: {} {} bytes, {} {} bytes",
                expected.0,
                left.len(),
                actual.0,
                right.len()
            );
            describe(&mut report, (expected.0, left), (actual.0, right));
        }
    }
    (!report.is_empty()).then_some(report)
}

/// Shows the lines around the first difference of two streams.
fn describe(report: &mut String, expected: (&str, &[u8]), actual: (&str, &[u8])) {
    const SHOWN: usize = 6;
    let left: Vec<&[u8]> = expected.1.split(|byte| *byte == b'\n').collect();
    let right: Vec<&[u8]> = actual.1.split(|byte| *byte == b'\n').collect();
    let first = left.iter().zip(&right).take_while(|(a, b)| a == b).count();
    let _ = writeln!(report, "    first difference in line {}:", first + 1);
    for (name, lines) in [(expected.0, &left), (actual.0, &right)] {
        for line in lines.iter().skip(first).take(SHOWN) {
            let shown = &line[..line.len().min(200)];
            let _ = writeln!(report, "    {name:>5} | {}", shown.escape_ascii());
        }
        if lines.len() > first + SHOWN {
            let _ = writeln!(
                report,
                "    {name:>5} | ... {} more lines",
                lines.len() - first - SHOWN
            );
        }
    }
}

/// Collects the failures of a table of cases, so that one run shows all of them.
#[derive(Default)]
pub struct Failures(Vec<String>);

impl Failures {
    /// Notes the outcome of one case.
    pub fn note(&mut self, case: &str, outcome: Result<Option<String>>) {
        match outcome {
            Ok(None) => {}
            Ok(Some(report)) => self.0.push(format!("{case}:\n{report}")),
            Err(error) => self.0.push(format!("{case}: {error:#}\n")),
        }
    }

    /// Panics with every failure if there was one.
    pub fn check(self, total: usize) {
        assert!(
            self.0.is_empty(),
            "{} of {total} cases failed\n\n{}",
            self.0.len(),
            self.0.join("\n")
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn run(stdout: &str, end: End) -> Captured {
        Captured {
            stdout: stdout.into(),
            stderr: Vec::new(),
            end,
            wall: Duration::ZERO,
        }
    }

    #[test]
    fn equal_runs_have_no_difference() {
        let (mut a, b) = (run("x\n", End::Status(1)), run("x\n", End::Status(1)));
        a.wall = Duration::from_secs(5);
        assert_eq!(difference(("a", &a), ("b", &b)), None);
    }

    /// The oracle gives these, in turn, and the subject 3.
    fn judged(oracle: &[Option<u32>]) -> (Result<Option<String>>, usize) {
        let mut asked = 0;
        let verdict = judge(
            "case",
            || {
                asked += 1;
                oracle[asked - 1].context("no result")
            },
            || Ok(3),
            |expected, actual| (expected != actual).then(|| format!("{expected} {actual}")),
        );
        (verdict, asked)
    }

    #[test]
    fn the_oracle_may_change_its_mind() {
        for (results, asked) in [
            (&[Some(3)][..], 1),
            (&[Some(1), Some(2), Some(3)], 3),
            (&[None, Some(1), None, Some(3)], 4),
        ] {
            let (verdict, times) = judged(results);
            assert_eq!((verdict.unwrap(), times), (None, asked));
        }
        let (verdict, times) = judged(&[Some(1), Some(2), Some(1), None, Some(4)]);
        assert_eq!((verdict.unwrap().as_deref(), times), (Some("1 3"), 5));
        let (verdict, times) = judged(&[None; 5]);
        assert_eq!((verdict.is_err(), times), (true, 5));
    }

    #[test]
    fn the_first_differing_line_is_shown() {
        let report = difference(
            ("a", &run("1\n2\n3\n", End::Status(0))),
            ("b", &run("1\nzwei\n3\n", End::Killed(9))),
        );
        let report = report.unwrap();
        assert!(
            report.contains("line 2")
                && report.contains("b | zwei")
                && report.contains("Killed(9)"),
            "{report}"
        );
    }
}
