//! What can be wrong with an image source.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::tarball::TarError;
use crate::unpack::UnpackError;

/// Why an image could not be read. `path` is the source's file or directory; names of blobs are in
/// quotes and escaped.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file or directory cannot be opened or read.
    #[error("cannot read {}: {cause}", path.display())]
    Open {
        /// The source.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A blob cannot be opened or read.
    #[error("cannot read {name} in {}: {cause}", path.display())]
    Blob {
        /// The source.
        path: PathBuf,
        /// The blob.
        name: String,
        /// Why.
        cause: io::Error,
    },
    /// The source is a directory, a device or the like.
    #[error("{} is not a regular file: name an archive, or use oci: for a layout directory", path.display())]
    NotAFile {
        /// The source.
        path: PathBuf,
    },
    /// The archive is no good tar file.
    #[error("{}: {error}", path.display())]
    Tar {
        /// The source.
        path: PathBuf,
        /// What is wrong.
        error: TarError,
    },
    /// The archive holds implausibly many entries.
    #[error("{} holds more than {limit} entries: it is not an image archive", path.display())]
    TooManyEntries {
        /// The source.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// The compressed archive could not be expanded.
    #[error("cannot expand {} into {}: {cause}; fetch it again if it is cut or corrupt", path.display(), spool_dir.display())]
    Expand {
        /// The source.
        path: PathBuf,
        /// Where the expanded copy goes.
        spool_dir: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A blob is named but absent.
    #[error("{} has no {name}: the image is incomplete or not of this kind", path.display())]
    Missing {
        /// The source.
        path: PathBuf,
        /// The blob.
        name: String,
    },
    /// A JSON document is implausibly long.
    #[error("{name} in {} is longer than {limit} bytes: no image document is", path.display())]
    TooLong {
        /// The source.
        path: PathBuf,
        /// The blob.
        name: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// A JSON document is malformed.
    #[error("{name} in {} is not what it should be: {why}", path.display())]
    Json {
        /// The source.
        path: PathBuf,
        /// The blob.
        name: String,
        /// The parser's words.
        why: String,
    },
    /// A blob's content is not what its descriptor promises.
    #[error("{name} in {} is corrupt: expected {expected}, found {found}; fetch the image again", path.display())]
    Digest {
        /// The source.
        path: PathBuf,
        /// The blob.
        name: String,
        /// What the descriptor says.
        expected: Digest,
        /// What the content gives.
        found: Digest,
    },
    /// A blob's length is not what its descriptor promises.
    #[error("{name} in {} is corrupt: expected {expected} bytes, found {found}; fetch the image again", path.display())]
    Size {
        /// The source.
        path: PathBuf,
        /// The blob.
        name: String,
        /// What the descriptor says, in bytes.
        expected: u64,
        /// What is there, in bytes.
        found: u64,
    },
    /// A layer's decompressed content is not what the configuration promises.
    #[error("{label} of {} is corrupt: its diff_id should be {expected} but is {found}; fetch the image again", path.display())]
    DiffId {
        /// The source.
        path: PathBuf,
        /// `layer 1 of 3`.
        label: String,
        /// What the configuration says.
        expected: Digest,
        /// What the content gives.
        found: Digest,
    },
    /// Manifest and configuration disagree.
    #[error("{} names {layers} layers but its configuration has {diff_ids} diff_ids: the image is corrupt", path.display())]
    LayerCount {
        /// The source.
        path: PathBuf,
        /// Layers in the manifest.
        layers: usize,
        /// Entries of `rootfs.diff_ids`.
        diff_ids: usize,
    },
    /// The source holds no image at all.
    #[error("{} holds no image", path.display())]
    NoImage {
        /// The source.
        path: PathBuf,
    },
    /// Several images and no reference to choose by.
    #[error("{} holds several images: append one of :{}", path.display(), references.join(", :"))]
    SeveralImages {
        /// The source.
        path: PathBuf,
        /// What may be appended.
        references: Vec<String>,
    },
    /// Several images of one name for one platform.
    #[error("{} holds several {platform} images that no name tells apart ({}): copy the wanted one out with a tag", path.display(), digests.join(", "))]
    Ambiguous {
        /// The source.
        path: PathBuf,
        /// The platform looked for.
        platform: String,
        /// Manifest digests.
        digests: Vec<String>,
    },
    /// The reference given is not in the source.
    #[error("{} has no image {reference}: it holds {}", path.display(), references.join(", "))]
    NoSuchReference {
        /// The source.
        path: PathBuf,
        /// What was asked for, in quotes.
        reference: String,
        /// What is there.
        references: Vec<String>,
    },
    /// Images for other platforms only.
    #[error("{} is for {}, not for linux/amd64: get the linux/amd64 image", path.display(), found.join(", "))]
    Platform {
        /// The source.
        path: PathBuf,
        /// The platforms there.
        found: Vec<String>,
    },
    /// A media type that is no image's.
    #[error("{name} in {} has media type {found}, which is not supported: expected {expected}", path.display())]
    MediaType {
        /// The source.
        path: PathBuf,
        /// The blob.
        name: String,
        /// The type found, in quotes.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// Indexes within indexes without end.
    #[error("{} nests image indexes deeper than {limit}: rebuild the image", path.display())]
    IndexDepth {
        /// The source.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// A layer could not be decompressed or hashed to its end.
    #[error("{label} of {} cannot be decompressed: {cause}; fetch the image again", path.display())]
    Decompress {
        /// The source.
        path: PathBuf,
        /// `layer 1 of 3`.
        label: String,
        /// Why.
        cause: io::Error,
    },
    /// A layer could not be applied.
    #[error("{label} of {}: {error}", path.display())]
    Unpack {
        /// The source.
        path: PathBuf,
        /// `layer 1 of 3`.
        label: String,
        /// What went wrong.
        error: UnpackError,
    },
}
