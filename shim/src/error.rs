//! What a request can end with, and how containerd is told.

use std::io;

use containerd_shim::protos::ttrpc::{self, Code};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such container or process, or no more.
    #[error("{0}")]
    NotFound(String),
    /// There is one of this name.
    #[error("{0}")]
    Exists(String),
    /// Not in this state.
    #[error("{0}")]
    Precondition(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// husk does not have it.
    #[error("{0} is not implemented by husk")]
    Unimplemented(&'static str),
    /// What husk said.
    #[error("OCI runtime {verb} failed: {message}")]
    Runtime {
        /// The verb.
        verb: &'static str,
        /// husk's last error.
        message: String,
    },
    /// The host refused something.
    #[error("cannot {what}: {source}")]
    Host {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// What the library says.
    #[error("{0}")]
    Library(#[from] containerd_shim::Error),
}

/// What a request gives.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err` on what the host is asked.
    pub fn host<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Host {
            what,
            source: source.into(),
        }
    }

    /// The process has ended, as containerd wants to hear it.
    pub fn finished() -> Self {
        Self::NotFound("process already finished".to_owned())
    }

    fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::NOT_FOUND,
            Self::Exists(_) => Code::ALREADY_EXISTS,
            Self::Precondition(_) => Code::FAILED_PRECONDITION,
            Self::Invalid(_) => Code::INVALID_ARGUMENT,
            Self::Unimplemented(_) => Code::UNIMPLEMENTED,
            Self::Runtime { .. } | Self::Host { .. } | Self::Library(_) => Code::UNKNOWN,
        }
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        Self::RpcStatus(ttrpc::get_status(error.code(), error))
    }
}
