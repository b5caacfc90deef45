//! Medians, tables, result files.

use std::fs;
use std::process::Command;

use anyhow::Result;
use husk_tests::Husk;
use husk_tests::cache::workspace;
use serde_json::json;

use crate::sh::{command, output};

/// What husk promises. A benchmark that breaks its promise makes the run fail.
enum Promise {
    /// At most this many times runc's value in the same run.
    Ratio(f64),
    /// At most this value.
    Absolute(f64),
}

const PROMISES: [(&str, Promise); 3] = [
    ("getppid_wrapper", Promise::Ratio(0.12)),
    ("first_touch", Promise::Ratio(1.0)),
    ("startup", Promise::Absolute(60.0)),
];

/// One benchmark's values, in order of rounds.
pub struct Measured {
    /// The benchmark.
    pub name: String,
    /// Of every value.
    pub unit: &'static str,
    /// Under runc.
    pub runc: Vec<f64>,
    /// Under husk.
    pub husk: Vec<f64>,
    /// Counters under husk, for each operation.
    pub counts: Vec<(String, f64)>,
}

impl Measured {
    fn ratio(&self) -> f64 {
        median(&self.husk) / median(&self.runc)
    }

    /// The promise, if this run broke it.
    pub fn broken_promise(&self) -> Option<String> {
        let (_, promise) = PROMISES.iter().find(|(name, _)| *name == self.name)?;
        let (actual, limit, what) = match promise {
            Promise::Ratio(limit) => (self.ratio(), *limit, "times runc's"),
            Promise::Absolute(limit) => (median(&self.husk), *limit, self.unit),
        };
        (actual > limit).then(|| {
            format!(
                "{}: {actual:.3} {what}, promised: at most {limit}",
                self.name
            )
        })
    }

    /// A line of the table.
    pub fn line(&self) -> String {
        let (runc, husk) = (median(&self.runc), median(&self.husk));
        format!(
            "{:<18} {runc:>14.1} {husk:>14.1} {:>4} {:>9.3}",
            self.name,
            self.unit,
            self.ratio()
        )
    }

    /// What an operation costs in switches, on a line of its own; empty if nothing was counted.
    pub fn counts_line(&self) -> String {
        let counts: Vec<String> = self
            .counts
            .iter()
            .map(|(name, count)| format!("{name} {count:.2}"))
            .collect();
        if counts.is_empty() {
            String::new()
        } else {
            format!("    {}\n", counts.join(", "))
        }
    }

    /// Writes `benches/results/NAME.json`.
    pub fn store(&self, husk: &Husk) -> Result<()> {
        let first_line = |command: &mut Command| {
            output(command)
                .ok()
                .and_then(|text| text.lines().next().map(str::to_owned))
                .unwrap_or_default()
        };
        let cpu = fs::read_to_string("/proc/cpuinfo")?
            .lines()
            .find_map(|line| {
                line.strip_prefix("model name")
                    .map(|rest| rest.trim_start_matches(['\t', ' ', ':']).to_owned())
            });
        let result = json!({
            "name": self.name,
            "unit": self.unit,
            "date": output(&mut command("date -u +%Y-%m-%dT%H:%M:%SZ"))?,
            "median": { "runc": median(&self.runc), "husk": median(&self.husk) },
            "ratio": self.ratio(),
            "husk_counts_per_operation": self.counts.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "rounds": { "runc": self.runc, "husk": self.husk },
            "machine": {
                "cpu": cpu,
                "cpus": std::thread::available_parallelism()?.get(),
                "kernel": output(&mut command("uname -sr"))?,
            },
            "versions": {
                "husk": first_line(Command::new(husk.binary()).arg("version")),
                "commit": output(&mut command("git describe --always --dirty")).unwrap_or_default(),
                "runc": first_line(&mut command("runc --version")),
            },
        });
        let dir = workspace().join("benches/results");
        fs::create_dir_all(&dir)?;
        Ok(fs::write(
            dir.join(format!("{}.json", self.name)),
            format!("{result:#}\n"),
        )?)
    }
}

/// All benchmarks under one heading.
pub fn table(all: &[Measured]) -> String {
    let mut table = format!(
        "{:<18} {:>14} {:>14} {:>4} {:>9}\n",
        "benchmark", "runc", "husk", "unit", "husk/runc"
    );
    for measured in all {
        table += &measured.line();
        table.push('\n');
        table += &measured.counts_line();
    }
    table
}

/// The middle value.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::{Measured, median};

    #[test]
    fn promises_are_compared_with_medians() {
        let measured = |name: &str, runc: f64, husk: f64| {
            Measured {
                name: name.to_owned(),
                unit: "ms",
                runc: vec![runc],
                husk: vec![husk],
                counts: Vec::new(),
            }
            .broken_promise()
        };
        assert_eq!(measured("getppid_wrapper", 100.0, 12.0), None);
        assert!(measured("getppid_wrapper", 100.0, 12.1).is_some());
        assert!(measured("startup", 1000.0, 61.0).is_some());
        assert_eq!(measured("fork_wait", 1.0, 1000.0), None);
    }

    #[test]
    fn the_median_is_the_middle_of_any_order() {
        assert!((median(&[5.0, 1.0, 3.0]) - 3.0).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }
}
