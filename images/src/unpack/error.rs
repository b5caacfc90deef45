//! What can go wrong while applying a layer.

use std::io;
use std::path::PathBuf;

use crate::tarball::TarError;

/// Why a layer was not applied. Names of entries are in quotes and escaped.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The directory to unpack into cannot be opened.
    #[error("cannot unpack into {}: {cause}", path.display())]
    Target {
        /// The directory.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The stream is no good tar archive.
    #[error("{0}")]
    Tar(TarError),
    /// An entry's name leads out of the root.
    #[error("entry {entry} leads out of the image: refused, do not trust this image")]
    Escape {
        /// The entry.
        entry: String,
    },
    /// An entry's name cannot be a file's.
    #[error("entry {entry} has an impossible name ({why}): refused, rebuild the image")]
    Name {
        /// The entry.
        entry: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The root of the image as something other than a directory.
    #[error("entry {entry} would replace the root of the image: refused, do not trust this image")]
    Root {
        /// The entry.
        entry: String,
    },
    /// A whiteout that names nothing, the directory itself or its parent.
    #[error("whiteout {entry} hides no file: refused, do not trust this image")]
    Whiteout {
        /// The entry.
        entry: String,
    },
    /// A hard link to what is absent, a directory, or the root.
    #[error(
        "hard link {entry} points to {target}, which is no file of the image: rebuild the image"
    )]
    LinkTarget {
        /// The entry.
        entry: String,
        /// What it points to.
        target: String,
    },
    /// A hard link whose target leads out of the root.
    #[error(
        "hard link {entry} points to {target}, out of the image: refused, do not trust this image"
    )]
    LinkEscape {
        /// The entry.
        entry: String,
        /// What it points to.
        target: String,
    },
    /// A component of the name is no directory.
    #[error("entry {entry} is below {obstacle}, which is not a directory: rebuild the image")]
    NotADirectory {
        /// The entry.
        entry: String,
        /// The component in the way.
        obstacle: String,
    },
    /// Symbolic links that lead to each other, or very many.
    #[error("entry {entry} is behind more than {limit} symbolic links: refused, rebuild the image")]
    TooManyLinks {
        /// The entry.
        entry: String,
        /// The limit.
        limit: usize,
    },
    /// Directories nested without reason.
    #[error("entry {entry} is nested deeper than {limit} directories: refused, rebuild the image")]
    TooDeep {
        /// The entry.
        entry: String,
        /// The limit.
        limit: usize,
    },
    /// Something only root may do.
    #[error("cannot {action} of {entry}: not permitted; run as root (or with {capability})")]
    Privilege {
        /// `set the owner 0:0`, `make the device node`.
        action: String,
        /// The entry.
        entry: String,
        /// The capability that allows it.
        capability: &'static str,
    },
    /// The kernel refused an operation.
    #[error("cannot {action} {entry}: {cause}")]
    Io {
        /// `create`, `write` and the like.
        action: &'static str,
        /// The entry.
        entry: String,
        /// Why.
        cause: io::Error,
    },
}
