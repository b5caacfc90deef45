//! Files of the host for the guest: a FUSE server, and the window their contents are mapped into (`abi::boundary::fuse`).
//!
//! | module | what |
//! | --- | --- |
//! | `tree` | the directories served, and opening files below them |
//! | `nodes` | what the guest was told of: descriptions, with descriptors while they are used |
//! | `server` | the operations |
//! | `window` | what is mapped where in the window |
//! | `channels` | FIFOs and sockets that are open |
//! | `handed` | channels of what processes were handed from outside |
//! | `locks` | what the guest holds of files' advisory locks |

mod channels;
mod handed;
mod locks;
mod nodes;
mod server;
mod tree;
mod window;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use husk_abi::boundary::fuse::{CHANNELS_OFFSET, MAX_TREES, TRUNCATED_OFFSET};

use super::Interrupt;
use super::requests::message::Request;
use super::requests::{
    self, Answer, Observer, Operation, Parts, Service, errno_of, record_name, set_bits,
};
use crate::vmm::{GuestMemory, Window};
use server::Server;
use tree::Tree;
pub use tree::TreeSource;

/// What can go wrong in starting to serve.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("cannot open {}: {source}", path.display())]
    Tree { path: PathBuf, source: io::Error },
    #[error("{count} directories for one container are too many (at most {MAX_TREES})")]
    TooManyTrees { count: usize },
    #[error(transparent)]
    Host(#[from] io::Error),
}

/// What the service is called in records.
pub const SERVICE: &str = "files";

/// The file service.
pub struct Files {
    server: Server,
    memory: GuestMemory,
    interrupt: Arc<dyn Interrupt>,
    /// The page of host events, and that of the truncated chunks.
    events: u64,
    truncated: u64,
}

impl Files {
    /// Serves the trees of `parts`, with so many descriptors.
    ///
    /// # Errors
    /// [`Error`], by way of [`super::Error`].
    pub fn start(
        parts: &Parts<'_>,
        window: Window,
        descriptors: u64,
    ) -> Result<Arc<Self>, super::Error> {
        if parts.trees.len() > MAX_TREES {
            let count = parts.trees.len();
            return Err(Error::TooManyTrees { count }.into());
        }
        let opened = parts
            .trees
            .iter()
            .map(|source| {
                Tree::open(source, parts.has_strangers).map_err(|errno| Error::Tree {
                    path: source.path.clone(),
                    source: errno.into(),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        // What is made gets exactly the mode asked for.
        rustix::process::umask(rustix::fs::Mode::empty());
        // Each may hold a file and its contents, and chunks of the window hold some more.
        let holders = usize::try_from(descriptors / 3).unwrap_or(usize::MAX);
        let server = Server::new(
            opened,
            window,
            parts.memory.clone(),
            holders,
            parts.handed.clone(),
        )
        .map_err(|errno| Error::Host(errno.into()))?;
        let files = Arc::new(Self {
            server,
            memory: parts.memory.clone(),
            interrupt: parts.interrupt.clone(),
            events: parts.layout.host_events,
            truncated: parts.layout.truncated,
        });
        let channels = files.clone();
        requests::spawn("channels".to_owned(), move || channels.announce())?;
        Ok(files)
    }

    /// An access of the guest failed; false if it was not to a file that became shorter.
    pub fn memory_fault(&self) -> bool {
        let chunks = self.server.repair();
        tracing::debug!(?chunks, "a mapped file became shorter");
        if chunks.is_empty() {
            return false;
        }
        for chunk in chunks {
            let at = self.truncated + u64::from(chunk / 64 * 8);
            set_bits(&self.memory, at, 1 << (chunk % 64));
        }
        set_bits(&self.memory, self.events + TRUNCATED_OFFSET, 1);
        self.interrupt.interrupt();
        true
    }

    /// The life of the thread that tells the guest which channels became ready: it ends with the process.
    fn announce(&self) {
        while let Ok(words) = self.server.channels.wait() {
            for (at, bits) in (0..).zip(words) {
                if bits != 0 {
                    set_bits(&self.memory, self.events + CHANNELS_OFFSET + at * 8, bits);
                }
            }
            self.interrupt.interrupt();
        }
    }
}

impl Service for Files {
    fn may_block(&self, request: &Request) -> bool {
        self.server.may_block(request)
    }

    fn serve(&self, request: &Request) -> Answer {
        self.server.serve(request)
    }

    fn serve_observed(&self, request: &Request, observer: &dyn Observer) -> Answer {
        // The path before: afterwards the name may be gone.
        let path = self.server.describe(request);
        let begun = Instant::now();
        let answer = self.server.serve(request);
        observer.served(&Operation {
            service: SERVICE,
            name: &record_name(request.header.opcode),
            path: &path,
            argument: argument(request),
            node: Some(request.header.nodeid),
            value: None,
            errno: errno_of(&answer),
            duration: begun.elapsed(),
        });
        answer
    }
}

/// The names a request carries, for records: its body's text behind the fixed part.
fn argument(request: &Request) -> &[u8] {
    use husk_abi::boundary::fuse::{LinkIn, MkdirIn, MknodIn, Rename2In, SetxattrIn, op};
    let fixed = match request.header.opcode {
        op::LOOKUP | op::UNLINK | op::RMDIR | op::SYMLINK | op::GETXATTR | op::REMOVEXATTR => 0,
        op::MKNOD => MknodIn::BYTES,
        op::MKDIR => MkdirIn::BYTES,
        op::LINK => LinkIn::BYTES,
        op::RENAME2 => Rename2In::BYTES,
        op::SETXATTR => SetxattrIn::BYTES,
        _ => return &[],
    };
    let rest = request.body.get(fixed..).unwrap_or_default();
    let end = rest.iter().position(|byte| *byte == 0);
    &rest[..end.unwrap_or(rest.len())]
}
