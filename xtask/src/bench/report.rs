//! Best values, tables, result files.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use husk_tests::Husk;
use husk_tests::cache::workspace;
use serde_json::{Value, json};

use crate::sh::{command, output};

/// What husk promises. A benchmark that breaks its promise makes the run fail.
enum Promise {
    /// At most this many times runc's value in the same run.
    Ratio(f64),
    /// At most this value.
    Absolute(f64),
}

const PROMISES: [(&str, Promise); 13] = [
    ("getppid_wrapper", Promise::Ratio(0.12)),
    ("getppid_syscall", Promise::Ratio(0.12)),
    ("read_zero", Promise::Ratio(0.3)),
    ("pipe_rw", Promise::Ratio(0.3)),
    ("thread_create", Promise::Ratio(1.0)),
    ("fork_wait", Promise::Ratio(2.0)),
    ("fork_exec", Promise::Ratio(2.0)),
    ("first_touch", Promise::Ratio(0.5)),
    ("startup", Promise::Absolute(50.0)),
    ("startup", Promise::Ratio(2.0)),
    ("startup_bundle", Promise::Ratio(2.0)),
    ("exec", Promise::Absolute(40.0)),
    ("docker_run", Promise::Ratio(1.3)),
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
    /// The ratio of the run before.
    pub previous: Option<f64>,
}

impl Measured {
    /// Of the best values: what else the machine does only ever adds time.
    fn ratio(&self) -> f64 {
        best(&self.husk) / best(&self.runc)
    }

    /// The promise, if this run broke it.
    pub fn broken_promise(&self) -> Option<String> {
        let own = PROMISES.iter().filter(|(name, _)| *name == self.name);
        let broken: Vec<String> = own
            .filter_map(|(_, promise)| {
                let (actual, limit, what) = match promise {
                    Promise::Ratio(limit) => (self.ratio(), *limit, "times runc's"),
                    Promise::Absolute(limit) => (best(&self.husk), *limit, self.unit),
                };
                (actual > limit).then(|| {
                    format!(
                        "{}: {actual:.3} {what}, promised: at most {limit}",
                        self.name
                    )
                })
            })
            .collect();
        (!broken.is_empty()).then(|| broken.join("; "))
    }

    /// A line of the table.
    pub fn line(&self) -> String {
        let (runc, husk) = (best(&self.runc), best(&self.husk));
        let before = self
            .previous
            .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
        format!(
            "{:<18} {runc:>14.1} {husk:>14.1} {:>4} {:>9.3} {before:>9}",
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
        let result = json!({
            "name": self.name,
            "unit": self.unit,
            "best": { "runc": best(&self.runc), "husk": best(&self.husk) },
            "median": { "runc": median(&self.runc), "husk": median(&self.husk) },
            "ratio": self.ratio(),
            "husk_counts_per_operation": self.counts.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "rounds": { "runc": self.runc, "husk": self.husk },
        });
        store(&self.name, result, husk)
    }
}

/// Writes `benches/results/NAME.json`: `result`, when it was had, and on what.
pub fn store(name: &str, mut result: Value, husk: &Husk) -> Result<()> {
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
    result["date"] = json!(output(&mut command("date -u +%Y-%m-%dT%H:%M:%SZ"))?);
    result["machine"] = json!({
        "cpu": cpu,
        "cpus": std::thread::available_parallelism()?.get(),
        "kernel": output(&mut command("uname -sr"))?,
    });
    result["versions"] = json!({
        "husk": first_line(Command::new(husk.binary()).arg("version")),
        "commit": output(&mut command("git describe --always --dirty")).unwrap_or_default(),
        "runc": first_line(&mut command("runc --version")),
    });
    fs::create_dir_all(workspace().join("benches/results"))?;
    Ok(fs::write(result_file(name), format!("{result:#}\n"))?)
}

/// All benchmarks under one heading.
pub fn table(all: &[Measured]) -> String {
    let mut table = format!(
        "{:<18} {:>14} {:>14} {:>4} {:>9} {:>9}\n",
        "benchmark", "runc", "husk", "unit", "husk/runc", "before"
    );
    for measured in all {
        table += &measured.line();
        table.push('\n');
        table += &measured.counts_line();
    }
    table
}

fn result_file(name: &str) -> PathBuf {
    workspace().join(format!("benches/results/{name}.json"))
}

/// The ratio of the benchmark's last run, as its result file has it.
pub fn previous_ratio(name: &str) -> Option<f64> {
    let text = fs::read_to_string(result_file(name)).ok()?;
    serde_json::from_str::<serde_json::Value>(&text).ok()?["ratio"].as_f64()
}

/// The smallest value.
pub fn best(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::min)
}

/// The middle value.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::{Measured, best, median};

    #[test]
    fn promises_are_compared_with_the_best() {
        let measured = |name: &str, runc: f64, husk: f64| {
            Measured {
                name: name.to_owned(),
                unit: "ms",
                runc: vec![runc, 2.0 * runc],
                husk: vec![2.0 * husk, husk],
                counts: Vec::new(),
                previous: None,
            }
            .broken_promise()
        };
        assert_eq!(measured("getppid_wrapper", 100.0, 12.0), None);
        assert!(measured("getppid_wrapper", 100.0, 12.1).is_some());
        assert!(measured("startup", 1000.0, 51.0).is_some());
        assert!(measured("startup", 20.0, 41.0).is_some());
        assert_eq!(measured("startup", 20.0, 39.0), None);
        assert_eq!(measured("mmap_touch", 1.0, 1000.0), None);
    }

    #[test]
    fn the_median_is_the_middle_of_any_order() {
        assert!((median(&[5.0, 1.0, 3.0]) - 3.0).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_best_is_the_smallest() {
        assert!((best(&[5.0, 1.0, 3.0]) - 1.0).abs() < 1e-9);
        assert!(best(&[]).is_nan());
    }
}
