//! `husk list`.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::Value;

use super::args::{Cli, ListArgs, ListFormat};
use super::{Error, print_json, print_text};
use crate::oci::state::{Directory, Seen};
use crate::oci::{self, lifecycle};

/// Prints the containers.
pub fn run(cli: &Cli, args: &ListArgs) -> Result<ExitCode, Error> {
    let all = Directory::new(&cli.state())
        .list()
        .map_err(oci::Error::from)?;
    if args.quiet {
        let ids: String = all.iter().map(|seen| format!("{}\n", seen.id)).collect();
        return print_text(&ids);
    }
    match args.format {
        ListFormat::Json => print_json(&Value::Array(all.iter().map(row).collect())),
        ListFormat::Table => print_text(&table(&all)),
    }
}

/// A state as lists show it: with its owner.
fn row(seen: &Seen) -> Value {
    let mut state = lifecycle::state_of(seen);
    state["owner"] = lifecycle::owner(seen.record.owner).into();
    state
}

/// Columns as runc has them.
fn table(all: &[Seen]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    for seen in all {
        let state = row(seen);
        rows.push(
            ["id", "pid", "status", "bundle", "created", "owner"].map(|name| match &state[name] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            }),
        );
    }
    let widths: Vec<usize> = (0..6)
        .map(|column| {
            let widest = rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
            (widest + 3).max(12)
        })
        .collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row[..5].iter().zip(&widths) {
            let _ = write!(text, "{cell:width$}");
        }
        text.push_str(&row[5]);
        text.push('\n');
    }
    text
}
