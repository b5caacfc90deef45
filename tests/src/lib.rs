//! The end-to-end harness: one job, two runtimes, equal results.
//!
//! A [`Job`] is a command in an image with its standard input. A [`Runner`] carries it out, either under runc on a
//! bundle or under husk on the image's archive. [`differential`] demands that both end alike. runc is the oracle:
//! no expected output of a job is written by hand.
//!
//! Test programs are C sources in `programs/`, linked statically by the machine's gcc and put into an image as
//! `/t/NAME`. Everything that is built lies under `target/husk-tests/`, keyed by the hash of its inputs.

pub mod cache;
pub mod capture;
pub mod debian;
pub mod differential;
pub mod engines;
pub mod husk;
pub mod image;
pub mod layer;
pub mod network;
pub mod oci;
pub mod programs;
pub mod registry;
mod rootfs;
pub mod runc;
pub mod runner;
pub mod sandbox;
pub mod scripts;
pub mod store;
pub mod strace;
pub mod suite;
pub mod systemd;

pub use capture::{Captured, End};
pub use differential::{differential, differential_to};
pub use husk::Husk;
pub use image::Image;
pub use runc::Runc;
pub use runner::{Job, Runner};
pub use sandbox::Sandbox;
