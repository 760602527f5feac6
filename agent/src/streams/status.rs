//! The few gRPC statuses that a workload can see, beside those of the sockets' gate.
//!
//! | what happened | status | what clients make of it |
//! |---|---|---|
//! | the server granted nothing | PermissionDenied, `no identity issued: …` | back off; java-spiffe gives up |
//! | not known yet, shutting down, overloaded, our fault | Unavailable | back off, retry |
//! | the request itself is wrong | InvalidArgument | give up |
//! | a profile that is not offered | Unimplemented | give up or retry |
//!
//! Never OK at the end of a watch and never Cancelled: both are final for some clients (EP-17 to EP-22).

use signet_runtime::error::one_line;
use tonic::Status;

/// Longest message in bytes. grpc-java takes 8 KiB of trailers in all, and percent-encoding may triple it.
const MAX_MESSAGE: usize = 512;

/// rust-spiffe recognises "no identity" by these words (EP-19).
const NO_IDENTITY: &str = "no identity issued";

pub(crate) fn refused(message: &str) -> Status {
    if message.is_empty() {
        return Status::permission_denied(NO_IDENTITY);
    }
    Status::permission_denied(short(&format!("{NO_IDENTITY}: {message}")))
}

pub(crate) fn unavailable(problem: &str) -> Status {
    Status::unavailable(short(problem))
}

pub(crate) fn gone() -> Status {
    Status::unavailable("this workload's volume, or the agent, is going away; retry")
}

pub(crate) fn ending() -> Status {
    Status::unavailable("the agent is ending this connection; retry")
}

pub(crate) fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("the caller's deadline has passed")
}

/// The request makes no sense.
pub(crate) fn invalid(problem: &str) -> Status {
    Status::invalid_argument(short(problem))
}

/// One line of at most [`MAX_MESSAGE`] bytes.
pub(crate) fn short(text: &str) -> String {
    let mut line = one_line(text);
    if line.len() > MAX_MESSAGE {
        line.truncate(line.floor_char_boundary(MAX_MESSAGE));
        line.push('…');
    }
    line
}
