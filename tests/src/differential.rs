//! The comparison of two runs.

use std::fmt::Write;

use anyhow::{Context, Result};

use crate::capture::Captured;
use crate::runner::{Job, Runner};

/// Runs `job` under both; describes every difference, or returns nothing if there is none.
pub fn differential(
    oracle: &dyn Runner,
    subject: &dyn Runner,
    job: &Job,
) -> Result<Option<String>> {
    let expected = oracle.run(job).with_context(|| oracle.name())?;
    let actual = subject.run(job).with_context(|| subject.name())?;
    Ok(difference(
        (oracle.name(), &expected),
        (subject.name(), &actual),
    ))
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
    use crate::capture::End;

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
