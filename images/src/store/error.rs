//! What can go wrong with a store.

use std::io;
use std::path::{Path, PathBuf};

use crate::cpio::CpioError;
use crate::read::ReadError;
use crate::unpack::UnpackError;

/// Why the store did not do what it was to do. Nothing half-made is left.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The source is at fault.
    #[error("{0}")]
    Read(ReadError),
    /// A layer could not be completed.
    #[error("{0}")]
    Unpack(UnpackError),
    /// The root archive could not be made.
    #[error("{0}")]
    RootArchive(CpioError),
    /// More layers than overlayfs stacks.
    #[error(
        "the image has {layers} layers, more than the {limit} that can be stacked: rebuild it with fewer"
    )]
    TooManyLayers {
        /// Of the image.
        layers: usize,
        /// The most there can be.
        limit: usize,
    },
    /// No such image.
    #[error(
        "no image {wanted} in the store: husk pull or husk image load brings one, husk image ls shows what is there"
    )]
    NotFound {
        /// What was asked for, in quotes.
        wanted: String,
    },
    /// Several images whose ids begin alike.
    #[error("{wanted} is the beginning of several image ids: write more digits")]
    Ambiguous {
        /// What was asked for, in quotes.
        wanted: String,
    },
    /// The image has several names and was to be removed by its id.
    #[error("image {id} has several names ({names}): remove them one by one, or use --force")]
    SeveralNames {
        /// Short form of its id.
        id: String,
        /// The names, separated by commas.
        names: String,
    },
    /// A container runs from the image.
    #[error("image {wanted} is in use by a container or by another husk: let that end first")]
    InUse {
        /// What was asked for, in quotes.
        wanted: String,
    },
    /// A file of the store is not what was put there.
    #[error("{} is damaged ({why}): remove the image with husk image rm and load it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// A registry is at fault, or the way there.
    #[cfg(feature = "registry")]
    #[error("{0}")]
    Registry(Box<crate::registry::RegistryError>),
    /// The store itself is at fault.
    #[error("cannot {action} {}: {cause}; check the image store's disk and permissions", path.display())]
    Store {
        /// `create`, `lock` and the like.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

pub(super) fn not_found(wanted: &str) -> StoreError {
    StoreError::NotFound {
        wanted: crate::text::shown(wanted),
    }
}

pub(super) fn failed(action: &'static str, path: &Path, cause: io::Error) -> StoreError {
    StoreError::Store {
        action,
        path: path.to_owned(),
        cause,
    }
}
