//! "Not now": an answer that says when to come back.

use std::time::Duration;

use tonic::{Status, metadata::MetadataValue};

/// `RESOURCE_EXHAUSTED`, and how long until it makes sense to ask again.
pub(super) fn later(what: &str, wait: Duration) -> Status {
    with_retry(Status::resource_exhausted(what), wait)
}

/// This status, with the time in `retry-after-ms`.
pub(super) fn with_retry(mut status: Status, after: Duration) -> Status {
    if let Ok(value) = MetadataValue::try_from(millis(after).to_string()) {
        status.metadata_mut().insert("retry-after-ms", value);
    }
    status
}

/// Milliseconds of it.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
