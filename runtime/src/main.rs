//! The husk command.

use std::process::ExitCode;

fn main() -> ExitCode {
    if husk::cli::is_vmm() {
        return husk::cli::vmm();
    }
    husk::cli::main()
}
