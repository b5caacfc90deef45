//! The control socket of a running container: how other husk processes ask something of it.
//!
//! | module | what |
//! | --- | --- |
//! | `wire` | the messages on the socket, and descriptors with them |
//! | [`client`] | the side of `exec`, `ps`, `update` |
//! | [`proxy`] | a process that stands for one in the container |
//! | [`server`] | the VMM's side: one thread for the socket, its connections and the guest's control queues |
//! | `guest` | those queues (`abi::boundary::control`) |
//! | `session` | a process that runs by `exec`, with its streams |
//!
//! The socket is made by `create`, in the container's directory, which only its owner can enter; the VMM is handed the
//! listening end, since the directory is out of its sight. A connection is one question, or one `exec` for as long as its
//! process lives: a connection that closes before takes the process with it.

pub mod client;
mod guest;
pub mod proxy;
pub mod server;
mod session;
pub mod wire;
