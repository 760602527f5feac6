//! Refused uses of certificates, as lines of the audit log: they are what a theft looks like.

use std::{io, net::IpAddr, time::SystemTime};

use rustls::CertificateError;
use signet_certs::verify::VerifiedSvid;
use tonic::Status;

use crate::audit::{AuditAction, AuditEvent};

/// What speaks against a certificate.
#[derive(Debug)]
pub(super) struct Doubt {
    /// In one word.
    pub kind: Kind,
    /// In full, for its holder.
    pub why: String,
}

/// What speaks against a certificate, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is revoked.
    Revoked,
    /// A newer one of the agent is in use.
    Superseded,
    /// Its agent is denied.
    Denied,
    /// It has ended.
    Expired,
    /// The ledger lacks it.
    Unknown,
    /// Nothing that is trusted vouches for it.
    NotVerified,
    /// Nothing; but what was called is not for its holder.
    NotAllowed,
}

impl Kind {
    /// With the reason in full.
    pub(super) fn doubt(self, why: impl ToString) -> Doubt {
        let why = why.to_string();
        Doubt { kind: self, why }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Superseded => "superseded",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
            Self::NotVerified => "not_verified",
            Self::NotAllowed => "not_allowed",
        }
    }
}

/// The holder of a certificate called `method` and was answered `status`.
pub(super) fn of_call(
    svid: &VerifiedSvid,
    method: &'static str,
    kind: Kind,
    status: &Status,
    now: SystemTime,
) -> AuditEvent {
    let action = AuditAction::Refused {
        caller: svid.spiffe_id().to_string(),
        operation: method.to_owned(),
        kind: kind.as_str(),
        reason: format!("{}, serial {}", status.message(), svid.serial()),
        spiffe_id: Some(svid.spiffe_id().clone()),
        pod_uid: None,
    };
    AuditEvent::new(now, action)
}

/// A handshake failed; a line if it did for its certificate, which TLS names by nothing but the address it came from.
pub(super) fn of_handshake(address: IpAddr, error: &io::Error, now: SystemTime) -> Option<AuditEvent> {
    let kind = match error.get_ref()?.downcast_ref()? {
        rustls::Error::InvalidCertificate(CertificateError::Revoked) => Kind::Revoked,
        rustls::Error::InvalidCertificate(CertificateError::Expired) => Kind::Expired,
        rustls::Error::InvalidCertificate(_) => Kind::NotVerified,
        _ => return None,
    };
    let action = AuditAction::Refused {
        caller: address.to_string(),
        operation: "handshake".to_owned(),
        kind: kind.as_str(),
        reason: error.to_string(),
        spiffe_id: None,
        pod_uid: None,
    };
    Some(AuditEvent::new(now, action))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_that_fails_for_its_certificate_is_a_line_and_a_port_scan_is_none() {
        let kind = |error: io::Error| {
            let event = of_handshake(IpAddr::from([10, 0, 0, 1]), &error, SystemTime::UNIX_EPOCH)?;
            match event.action() {
                AuditAction::Refused { caller, kind, .. } if caller == "10.0.0.1" => Some(*kind),
                other => panic!("{other:?}"),
            }
        };
        let invalid = |error| io::Error::other(rustls::Error::InvalidCertificate(error));
        assert_eq!(kind(invalid(CertificateError::Revoked)), Some("revoked"));
        assert_eq!(
            kind(invalid(CertificateError::BadSignature)),
            Some("not_verified")
        );
        assert_eq!(kind(io::Error::other(rustls::Error::HandshakeNotComplete)), None);
        assert_eq!(kind(io::ErrorKind::UnexpectedEof.into()), None);
    }
}
