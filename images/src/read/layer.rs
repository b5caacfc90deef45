//! One layer: stored bytes -> digest -> decompression -> `diff_id` -> unpacker, in one pass.
//!
//! The digests are complete only after the content has been applied; whoever calls throws the
//! target away on an error, and the unpacker keeps any content inside it.

use std::io::{self, Read};

use super::blobs::Blobs;
use super::compression::Expand;
use super::{LayerRef, ReadError, check_stored};
use crate::digest::{Algorithm, HashReader};
use crate::progress::Progress;
use crate::unpack::Unpacker;

/// Applies `layer` and gives its uncompressed length in bytes; `label` is `layer 1 of 3`.
pub(super) fn apply(
    blobs: &Blobs,
    layer: &LayerRef,
    label: &str,
    unpacker: &mut Unpacker,
    progress: &mut dyn Progress,
) -> Result<u64, ReadError> {
    let path = || blobs.path().to_owned();
    let blob = blobs.open(&layer.name)?;
    if let Some(expected) = layer.stored.as_ref().and_then(|s| s.size)
        && expected != blob.size
    {
        return Err(ReadError::Size {
            path: path(),
            name: crate::text::shown(&layer.name),
            expected,
            found: blob.size,
        });
    }
    progress.begin(label, Some(blob.size));
    let algorithm = layer
        .stored
        .as_ref()
        .map_or(Algorithm::Sha256, |s| s.digest.algorithm());
    let metered = Metered {
        // A file that grows while it is read must not be followed.
        inner: blob.reader.take(blob.size),
        progress: &mut *progress,
    };
    let mut stored = HashReader::new(metered, algorithm);
    let decompress = |cause| ReadError::Decompress {
        path: path(),
        label: label.to_owned(),
        cause,
    };

    let applied = (|| {
        let expanded = Expand::new(&mut stored).map_err(decompress)?;
        let mut plain = HashReader::new(expanded, layer.diff_id.algorithm());
        unpacker
            .apply(&mut plain)
            .map_err(|error| ReadError::Unpack {
                path: path(),
                label: label.to_owned(),
                error,
            })?;
        // What follows the end marker belongs to the digest as well.
        plain.drain().map_err(decompress)?;
        Ok(plain.finish())
    })();

    // A wrong digest is why corrupt content does not decompress or parse: tell the cause.
    if let Some(expected) = &layer.stored {
        let drained = stored.drain();
        if applied.is_ok() {
            drained.map_err(decompress)?;
        }
        let (found, size) = stored.finish();
        check_stored(blobs, &layer.name, expected, &found, size)?;
    }
    let (diff_id, length) = applied?;
    if diff_id != layer.diff_id {
        return Err(ReadError::DiffId {
            path: path(),
            label: label.to_owned(),
            expected: layer.diff_id.clone(),
            found: diff_id,
        });
    }
    progress.end();
    Ok(length)
}

/// Reports what is read.
struct Metered<'a, R> {
    inner: R,
    progress: &'a mut dyn Progress,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.progress.advance(n as u64);
        Ok(n)
    }
}
