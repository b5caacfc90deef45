//! Running the tools that tasks are made of.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use husk_tests::cache::workspace;

/// A command in the workspace's root, its words separated by spaces.
pub fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).current_dir(workspace());
    command
}

/// Runs the command with our own output, says how long it took, and demands success.
pub fn step(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    println!("\n==> {shown}");
    let start = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("cannot run {shown}"))?;
    ensure!(status.success(), "{shown}: {status}");
    println!("==> {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Runs the command and returns its standard output, trimmed.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    ensure!(
        output.status.success(),
        "{shown}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
