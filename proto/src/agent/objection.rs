//! What a status says against the caller's own certificate, beside its code: a word for programs.

use tonic::Status;

/// Serial of the certificate that is revoked, in hexadecimal.
const REVOKED: &str = "signet-revoked-serial";

/// Says that the caller's certificate with this serial (hexadecimal) is revoked: its key must not be certified again.
#[must_use]
pub fn revoked(mut status: Status, serial: &str) -> Status {
    if let Ok(value) = serial.parse() {
        status.metadata_mut().insert(REVOKED, value);
    }
    status
}

/// The serial that a status calls revoked, as it was sent.
#[must_use]
pub fn revoked_serial(status: &Status) -> Option<&str> {
    status.metadata().get(REVOKED)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_that_was_given_the_word_has_it() {
        let plain = Status::unauthenticated("the agent certificate is refused: it is revoked");
        assert_eq!(revoked_serial(&plain), None);
        let status = revoked(plain, "01ab");
        assert_eq!(revoked_serial(&status), Some("01ab"));
        assert_eq!(revoked_serial(&revoked(Status::ok(""), "no\nserial")), None);
    }
}
