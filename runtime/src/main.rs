//! The husk command.

use std::process::ExitCode;

fn main() -> ExitCode {
    husk::cli::main()
}
