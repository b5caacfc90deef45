//! `husk pull`.

use std::process::ExitCode;

use husk_images::Store;
use husk_images::registry::PullOptions;

use super::args::{Cli, PullArgs};
use super::progress::Meter;
use super::{Error, print_text};

/// Pulls an image, and says what Docker says.
pub fn run(cli: &Cli, args: &PullArgs) -> Result<ExitCode, Error> {
    let store = Store::open(&cli.store())?;
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
    print_text(&text)
}
