//! Counts and times by call, as `strace -c` prints them.

use std::collections::HashMap;
use std::fmt;

use super::event::Event;

/// What is known of one call.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    calls: u64,
    errors: u64,
    nanoseconds: u64,
}

/// Counts events.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: HashMap<String, Row>,
    lost: u64,
}

impl Table {
    /// Counts an event.
    pub fn add(&mut self, event: &Event<'_>) {
        match event {
            Event::Syscall(call) => self.count(&call.name, call.errno.is_some(), call.duration_ns),
            Event::Boundary(crossing) => self.count(
                &format!("[host] {}.{}", crossing.service, crossing.operation),
                crossing.errno.is_some(),
                crossing.duration_ns,
            ),
            Event::Lost(lost) => self.lost = self.lost.saturating_add(lost.count),
        }
    }

    fn count(&mut self, name: &str, failed: bool, nanoseconds: u64) {
        if !self.rows.contains_key(name) {
            self.rows.insert(name.to_owned(), Row::default());
        }
        if let Some(row) = self.rows.get_mut(name) {
            row.calls += 1;
            row.errors += u64::from(failed);
            row.nanoseconds = row.nanoseconds.saturating_add(nanoseconds);
        }
    }
}

fn errors(count: u64) -> String {
    if count == 0 {
        String::new()
    } else {
        count.to_string()
    }
}

impl fmt::Display for Table {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LINE: &str = "------ ----------- ----------- --------- --------- ----------------";
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by(|(a_name, a), (b_name, b)| {
            b.nanoseconds.cmp(&a.nanoseconds).then(a_name.cmp(b_name))
        });
        let total = rows.iter().fold(Row::default(), |sum, (_, row)| Row {
            calls: sum.calls + row.calls,
            errors: sum.errors + row.errors,
            nanoseconds: sum.nanoseconds.saturating_add(row.nanoseconds),
        });
        let line = |f: &mut fmt::Formatter<'_>, name: &str, row: &Row| {
            let share = if total.nanoseconds == 0 {
                0.0
            } else {
                row.nanoseconds as f64 * 100.0 / total.nanoseconds as f64
            };
            let micros = row.nanoseconds / 1000;
            let name: String = name.chars().filter(|c| !c.is_control()).collect();
            writeln!(
                f,
                "{share:6.2} {:>11} {:>11} {:>9} {:>9} {name}",
                format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000),
                micros.checked_div(row.calls).unwrap_or(0),
                row.calls,
                errors(row.errors),
            )
        };
        writeln!(
            f,
            "{:>6} {:>11} {:>11} {:>9} {:>9} syscall",
            "% time", "seconds", "usecs/call", "calls", "errors"
        )?;
        writeln!(f, "{LINE}")?;
        for (name, row) in rows {
            line(f, name, row)?;
        }
        writeln!(f, "{LINE}")?;
        line(f, "total", &total)?;
        if self.lost > 0 {
            writeln!(f, "{} records were lost and are not counted", self.lost)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table() {
        let mut table = Table::default();
        table.count("read", false, 3_000_000);
        table.count("read", true, 0);
        table.count("close", false, 1_000_000);
        table.lost = 3;
        let expected = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 75.00    0.003000        1500         2         1 read
 25.00    0.001000        1000         1           close
------ ----------- ----------- --------- --------- ----------------
100.00    0.004000        1333         3         1 total
3 records were lost and are not counted
";
        assert_eq!(table.to_string(), expected);
        assert!(
            Table::default()
                .to_string()
                .contains("  0.00    0.000000           0         0           total")
        );
    }
}
