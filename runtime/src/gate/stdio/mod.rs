//! Standard streams: bytes the container writes, and bytes it asks for (`abi::boundary::stdio`).

mod input;
mod output;

pub use input::Input;
pub use output::Output;
