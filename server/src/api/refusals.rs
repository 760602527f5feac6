//! Refused uses of certificates, as lines of the audit log: they are what a theft looks like.

use std::{io, net::IpAddr, time::SystemTime};

use rustls::PeerIncompatible;
use signet_certs::{
    dates::WhoseClock,
    tls::RefusedPeer,
    verify::{VerifiedSvid, VerifyError},
};
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

/// Why a handshake failed.
pub(super) fn words(error: &io::Error, refused: &RefusedPeer) -> String {
    match error.get_ref().and_then(|cause| cause.downcast_ref()) {
        Some(tls) => refused.words(tls),
        None => error.to_string(),
    }
}

/// Whether a handshake failed because the peer offers no key exchange that is allowed here.
pub(super) fn lacks_key_exchange(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    matches!(
        cause,
        Some(rustls::Error::PeerIncompatible(
            PeerIncompatible::NoKxGroupsInCommon
        ))
    )
}

/// A handshake failed; a line if it did for its certificate, which TLS names by nothing but the address it came from.
pub(super) fn of_handshake(
    address: IpAddr,
    error: &io::Error,
    refused: &RefusedPeer,
    now: SystemTime,
) -> Option<AuditEvent> {
    let cause = error.get_ref()?.downcast_ref();
    let refusal = refused
        .get()
        .cloned()
        .map(|refusal| refusal.by(WhoseClock::Server));
    let kind = match (&refusal, cause?) {
        (Some(VerifyError::Revoked { .. }), _) => Kind::Revoked,
        (Some(VerifyError::Expired(_)), _) => Kind::Expired,
        (Some(_), _) | (None, rustls::Error::InvalidCertificate(_)) => Kind::NotVerified,
        (None, _) => return None,
    };
    let action = AuditAction::Refused {
        caller: address.to_string(),
        operation: "handshake".to_owned(),
        kind: kind.as_str(),
        reason: refusal.map_or_else(|| words(error, refused), |refusal| refusal.to_string()),
        spiffe_id: None,
        pod_uid: None,
    };
    Some(AuditEvent::new(now, action))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{
        CertificateError,
        pki_types::{CertificateDer, UnixTime},
        server::danger::ClientCertVerifier as _,
    };
    use signet_certs::{
        tls::{PeerRule, SharedRoots, SpiffeVerifier},
        verify::{TrustRoots, TrustedAuthority},
    };
    use signet_testkit::{DOMAIN, at, authority, crl, leaf};

    use super::*;

    #[test]
    fn a_handshake_that_fails_for_its_certificate_is_a_line_and_a_port_scan_is_none() {
        let line = |error: io::Error, refused: &RefusedPeer| {
            let event = of_handshake(
                IpAddr::from([10, 0, 0, 1]),
                &error,
                refused,
                SystemTime::UNIX_EPOCH,
            )?;
            match event.action() {
                AuditAction::Refused {
                    caller, kind, reason, ..
                } if caller == "10.0.0.1" => Some((*kind, reason.clone())),
                other => panic!("{other:?}"),
            }
        };
        let invalid = |error| io::Error::other(rustls::Error::InvalidCertificate(error));
        let none = RefusedPeer::default();
        let (kind, reason) = line(invalid(CertificateError::BadSignature), &none).unwrap();
        assert_eq!(kind, "not_verified");
        assert!(reason.contains("did not prove"), "{reason}");
        assert_eq!(
            line(io::Error::other(rustls::Error::HandshakeNotComplete), &none),
            None
        );
        assert_eq!(line(io::ErrorKind::UnexpectedEof.into(), &none), None);
    }

    /// The verifier's words stand in the line, not the class that rustls made of them.
    #[test]
    fn a_line_says_what_the_verifier_said() {
        let authority = authority(DOMAIN);
        let leaf = leaf(&authority, "/signet/agent/c/n").svid();
        let crl = crl(&authority, 1, &[leaf.serial()]);
        let trusted = TrustedAuthority {
            certificate: authority.certificate().clone(),
            crl: Some(crl),
        };
        let roots = TrustRoots::new(vec![(leaf.spiffe_id().trust_domain(), vec![trusted])]);
        let refused = RefusedPeer::default();
        let verifier = SpiffeVerifier::new(Arc::new(SharedRoots::new(roots)), PeerRule::Any);
        let verifier = verifier.telling(refused.clone());
        let der = CertificateDer::from(leaf.chain()[0].as_slice());
        let now = UnixTime::since_unix_epoch(at(0).duration_since(SystemTime::UNIX_EPOCH).unwrap());
        let error = verifier.verify_client_cert(&der, &[], now).unwrap_err();
        let event = of_handshake(
            IpAddr::from([10, 0, 0, 1]),
            &io::Error::other(error),
            &refused,
            at(0),
        );
        match event.unwrap().action() {
            AuditAction::Refused { kind, reason, .. } => {
                assert_eq!(*kind, "revoked");
                assert!(reason.contains(&leaf.serial().to_string()), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
}
