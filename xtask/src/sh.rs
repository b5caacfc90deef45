//! Running the tools that tasks are made of.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use husk_tests::cache::workspace;

/// A command in the workspace's root, its words separated by spaces.
///
/// Without the variables that `cargo run` set for this program: build scripts of dependencies ask to be run again when
/// they change, so with them every other build would be a long one.
pub fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).current_dir(workspace());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_cargo_run) {
            command.env_remove(name);
        }
    }
    command
}

/// Whether `cargo run` sets this variable, and no user does.
fn is_of_cargo_run(name: &str) -> bool {
    let prefixes = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_CRATE_",
        "CARGO_BIN_",
    ];
    name == "CARGO" || prefixes.iter().any(|prefix| name.starts_with(prefix))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_do_not_inherit_what_cargo_run_sets() {
        for name in ["CARGO", "CARGO_PKG_NAME", "CARGO_MANIFEST_DIR"] {
            assert!(is_of_cargo_run(name), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_TARGET_DIR",
            "CARGO_PROFILE_RELEASE_LTO",
            "PATH",
        ] {
            assert!(!is_of_cargo_run(name), "{name}");
        }
        let command = command("true");
        let removed: Vec<_> = command
            .get_envs()
            .filter(|(_, value)| value.is_none())
            .collect();
        assert!(
            removed
                .iter()
                .any(|(name, _)| *name == "CARGO_MANIFEST_DIR"),
            "{removed:?}"
        );
    }
}
