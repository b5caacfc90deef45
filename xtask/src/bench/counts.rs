//! What an operation costs in switches between guest and KVM: the counters of `husk run --stats`.

use anyhow::{Context, Result};
use husk_tests::{Husk, Job, Runner};

/// Sections of the table that count events.
const SECTIONS: [&str; 2] = ["doorbells served by the VMM", "memory"];
/// What happens more rarely than this for each operation belongs to starting and ending.
const LEAST: f64 = 0.01;

/// Runs the job once more and divides each counter by the number of operations it says it made. Starting the program
/// is in there, too.
pub fn per_operation(husk: &Husk, job: &Job) -> Result<Vec<(String, f64)>> {
    let run = husk.clone().options(["--stats"]).run(job)?;
    let printed = run.stdout_text();
    let operations: f64 = printed
        .split_whitespace()
        .nth(1)
        .and_then(|count| count.parse().ok())
        .with_context(|| format!("no number of operations in {printed:?}"))?;
    Ok(parse(&run.stderr_text())
        .into_iter()
        .map(|(name, count)| (name, count / operations))
        .filter(|(_, count)| *count >= LEAST)
        .collect())
}

/// The counters in the table.
fn parse(table: &str) -> Vec<(String, f64)> {
    let mut counts = Vec::new();
    let mut is_counting = false;
    for line in table.lines() {
        let Some(row) = line.strip_prefix("  ") else {
            is_counting = SECTIONS.contains(&line);
            continue;
        };
        let cells = row.trim().rsplit_once(' ');
        if let Some((name, count)) = cells.filter(|_| is_counting)
            && let Ok(count) = count.parse()
        {
            counts.push((name.trim().to_owned(), count));
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn counters_of_the_table() {
        let table = "\ntime, ms\n  image      1.000\ndoorbells served by the VMM\n  timer          3\n\
                     syscall translation\n  calls  9\nmemory\n  faults: zeros            12\n";
        let found = parse(table);
        assert_eq!(
            found,
            [
                ("timer".to_owned(), 3.0),
                ("faults: zeros".to_owned(), 12.0)
            ]
        );
    }
}
