//! Why a peer was refused, in words. rustls keeps of it no more than the class that its alert needs.

use std::sync::{Arc, OnceLock};

use rustls::{CertificateError, Error, PeerIncompatible};

use crate::verify::VerifyError;

/// What the verifier of one connection held against its peer. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct RefusedPeer(Arc<OnceLock<VerifyError>>);

impl RefusedPeer {
    /// Why, if the peer was refused.
    #[must_use]
    pub fn get(&self) -> Option<&VerifyError> {
        self.0.get()
    }

    /// Why the handshake that ended with `error` did not come to its end.
    #[must_use]
    pub fn words(&self, error: &Error) -> String {
        if let Some(refusal) = self.get() {
            return refusal.to_string();
        }
        match error {
            Error::AlertReceived(alert) => format!("the other side broke off with the TLS alert {alert:?}"),
            Error::NoCertificatesPresented => "the other side presented no certificate".to_owned(),
            Error::InvalidCertificate(CertificateError::BadSignature) => {
                "the other side did not prove that it holds the key of its certificate".to_owned()
            }
            Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon) => {
                "the other side offers none of the key exchanges that are allowed here".to_owned()
            }
            Error::InvalidCertificate(unusable) => format!("the certificate is unusable: {unusable:?}"),
            other => other.to_string(),
        }
    }

    pub(super) fn note(&self, error: &VerifyError) {
        // A connection is judged once.
        let _ = self.0.set(error.clone());
    }
}
