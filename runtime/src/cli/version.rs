//! `husk version`.

use std::io::{self, Write};
use std::process::ExitCode;

use husk_abi::boundary::version::BOUNDARY_VERSION;

use super::Error;

/// Commit this was built from, where the build was told one (`HUSK_COMMIT`).
const COMMIT: Option<&str> = option_env!("HUSK_COMMIT");

/// Prints version numbers.
pub fn run() -> Result<ExitCode, Error> {
    let mut text = format!("husk {}\n", env!("CARGO_PKG_VERSION"));
    if let Some(commit) = COMMIT {
        text.push_str(&format!("commit: {commit}\n"));
    }
    text.push_str(&format!("boundary: {BOUNDARY_VERSION}\n"));
    text.push_str(&format!("libOS: {} bytes\n", crate::LIBOS.len()));
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(Error::Output)?;
    Ok(ExitCode::SUCCESS)
}
