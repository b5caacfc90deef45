//! OCI images: verify, unpack, store.
//!
//! [`Store::add`] turns a [`Source`] (an archive made by `docker save`, an OCI layout, or a tar
//! of one) into a stored [`Image`]: a directory per layer, which overlayfs could mount, and the image's
//! configuration. `Store::pull` does the same for an image of a registry. [`Store::container_root`] gives a container
//! those layers with a writable one on top; [`Store::root_archive`] makes one cpio file of them, which the guest maps
//! read-only. What is there already is found in about a millisecond.
//!
//! Rooms, in the order data flows through them:
//!
//! | module | idea |
//! |---|---|
//! | [`source`] | what the user typed |
//! | [`read`] | find the image in its source, choose the platform, verify every digest |
//! | `tarball` | the tar formats, as a stream |
//! | [`unpack`] | layers onto a directory, never outside of it |
//! | [`cpio`] | the unpacked root as one file for the guest |
//! | [`merged`] | layers seen as one root |
//! | [`store`] | layers, images and names, made atomically, safe between processes |
//! | [`reference`] | names of images |
//! | [`registry`] | images from registries into the store |
//!
//! Promises: no byte of a layer is kept unless its digest and its `diff_id` match; nothing is
//! written outside the target directory whatever an archive says; an error leaves nothing behind.
//! Absent on purpose: signatures, pushing, building images.
//!
//! The JSON documents are read with small types of our own rather than the `oci-spec` crate: five
//! structs are used here, Docker's archives hold `null` and missing members where the specification
//! wants values, and `oci-spec` would bring some twenty-five crates along (a regular-expression
//! engine and three generations of derive helpers among them).

pub mod config;
pub mod cpio;
pub mod digest;
pub mod merged;
pub mod progress;
pub mod read;
pub mod reference;
#[cfg(feature = "registry")]
pub mod registry;
pub mod source;
pub mod store;
mod tarball;
#[cfg(test)]
mod testing;
mod text;
pub mod unpack;

pub use config::ImageConfig;
pub use digest::{Algorithm, Digest};
pub use merged::Stack;
pub use progress::{NoProgress, Progress};
pub use reference::Reference;
pub use source::Source;
pub use store::{ContainerRoot, Image, Name, Named, Removed, Store, StoreError};
pub use tarball::TarError;
