//! Statuses of failed calls.

use std::time::Duration;

use signet_proto::agent::objection;
use signet_runtime::error::causes;
use tonic::{Code, Status};

use super::{short, wait};
use crate::server_client::ServerError;

/// What a failed call means for the agent.
pub(in crate::server_client) fn error(status: &Status) -> ServerError {
    let message = describe(status);
    if let Some(serial) = objection::revoked_serial(status).and_then(|serial| serial.parse().ok()) {
        return ServerError::Revoked { message, serial };
    }
    match status.code() {
        Code::Unauthenticated => ServerError::Unauthenticated(message),
        Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::InvalidArgument
        | Code::Unimplemented
        | Code::NotFound
        | Code::OutOfRange => ServerError::Refused(message),
        _ => ServerError::Unavailable {
            message,
            retry_after: pushback(status),
        },
    }
}

/// The server's "not before".
fn pushback(status: &Status) -> Option<Duration> {
    let text = status.metadata().get("retry-after-ms")?.to_str().ok()?;
    wait(text.parse().ok()?)
}

/// The status with the chain of its causes: a refused handshake is only told there.
fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    for cause in causes(status).skip(1).map(ToString::to_string) {
        // tonic's own "transport error" says less than what it wraps.
        if cause == "transport error" || text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    if text.is_empty() {
        text = status.code().description().to_owned();
    }
    short(text)
}
