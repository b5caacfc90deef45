//! What may be typed after `husk pull` and `husk image`.

use clap::{ArgAction, Args, Subcommand};
use husk_images::reference::ReferenceError;
use husk_images::store::MIN_ID;
use husk_images::{Reference, Source};

use super::ListFormat;

/// A name or an id of an image in the store.
///
/// # Errors
/// What is wrong with it.
pub fn stored(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    if !(MIN_ID..=64).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        text.parse::<Reference>().map_err(|e| e.to_string())?;
    }
    Ok(text.to_owned())
}

/// `husk pull`.
#[derive(Debug, Args)]
#[command(
    after_help = "Credentials are those of docker login: auths, credHelpers and credsStore of \
                        $DOCKER_CONFIG/config.json or ~/.docker/config.json."
)]
pub struct PullArgs {
    /// [HOST[:PORT]/]NAME[:TAG][@DIGEST]; the host is docker.io and the tag latest where they are left out
    #[arg(value_name = "REFERENCE")]
    pub reference: Reference,
    /// Insist on a valid certificate; with false, also talk to registries without one, or without TLS at all
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = ArgAction::Set
    )]
    pub tls_verify: bool,
    /// Print the image's name only
    #[arg(short, long)]
    pub quiet: bool,
}

/// `husk image`.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum ImageVerb {
    /// Load images from an archive or a layout into the store
    Load(LoadArgs),
    /// List the images in the store
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Print what is known of images as JSON
    Inspect {
        /// Names or ids
        #[arg(value_name = "IMAGE", required = true, value_parser = stored)]
        images: Vec<String>,
    },
    /// Remove names of images, and images that have no name left
    Rm {
        /// Names or ids
        #[arg(value_name = "IMAGE", required = true, value_parser = stored)]
        images: Vec<String>,
        /// Given an id, remove the image with all its names
        #[arg(short, long)]
        force: bool,
    },
    /// Remove images without a name, and what killed processes left
    Prune {
        /// Also those that have names, unless a container uses them
        #[arg(short, long)]
        all: bool,
    },
}

/// `husk image load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// docker-archive:FILE[:NAME], oci:DIR[:TAG] or oci-archive:FILE[:TAG]; all images of it where nothing is chosen
    #[arg(value_name = "SOURCE")]
    pub source: Source,
    /// Give the image this name instead of its own
    #[arg(long, value_name = "NAME[:TAG]", value_parser = plain_name)]
    pub name: Option<Reference>,
}

/// `husk image ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// Print ids in full
    #[arg(long)]
    pub no_trunc: bool,
    /// Print a table, or one JSON object a line
    #[arg(
        long,
        value_name = "FORM",
        value_enum,
        default_value = "table",
        conflicts_with = "quiet"
    )]
    pub format: ListFormat,
}

/// A name that can be given.
fn plain_name(text: &str) -> Result<Reference, String> {
    let name: Reference = text.parse().map_err(|e: ReferenceError| e.to_string())?;
    if name.digest().is_some() {
        return Err("a name to give holds no digest".to_owned());
    }
    Ok(name)
}
