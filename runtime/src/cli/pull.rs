//! `husk pull`.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use husk_images::Store;
use husk_images::registry::PullOptions;

use super::Error;
use super::args::PullArgs;
use super::progress::Meter;

/// Pulls an image, and says what Docker says.
pub fn run(root: &Path, args: &PullArgs) -> Result<ExitCode, Error> {
    let store = Store::open(root)?;
    let options = PullOptions {
        tls_verify: args.tls_verify,
    };
    let pulled = store.pull(&args.reference, options, &mut Meter::new())?;
    // In full, so that scripts can compare it.
    let name = pulled.name.name();
    let text = if args.quiet {
        format!("{name}\n")
    } else {
        let status = if pulled.is_new {
            "Downloaded newer image"
        } else {
            "Image is up to date"
        };
        format!(
            "Digest: {}\nStatus: {status} for {}\n{name}\n",
            pulled.manifest, args.reference
        )
    };
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(Error::Output)?;
    Ok(ExitCode::SUCCESS)
}
