//! Why control authorities cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::server_client::trust::TrustError;

/// Most anchors that come of what a server names, or of links; many times what a trust domain has.
pub(super) const MAX_ANCHORS: usize = 64;

/// Why there are no anchors.
#[derive(Debug, Error)]
pub(crate) enum AnchorsError {
    /// The configured file cannot be read.
    #[error("{}: {problem}; it must hold the control authorities that the server writes", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: io::Error,
    },
    /// The configured file holds something else.
    #[error("{}: {problem}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl AnchorsError {
    pub(super) fn unusable(path: &Path, problem: String) -> Self {
        Self::Unusable {
            path: path.to_owned(),
            problem,
        }
    }
}

/// Why authorities that the server named are not taken over.
#[derive(Debug, Error)]
pub(crate) enum NamedError {
    /// More than any trust domain has.
    #[error("the server names {0} control authorities, of at most {MAX_ANCHORS}")]
    Many(usize),
    /// Not an authority, or one of another trust domain.
    #[error(transparent)]
    Authority(#[from] TrustError),
}
