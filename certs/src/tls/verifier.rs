//! Judges peers during the handshake.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible,
    SignatureScheme,
};

use super::{Hybrid, PeerRule, RefusedPeer, TrustSource, provider};
use crate::verify::{Role, VerifiedSvid, VerifyError, inspect_leaf, verify_chain_at};

/// Verifies peers in both roles. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SpiffeVerifier {
    source: Arc<dyn TrustSource>,
    allow: PeerRule,
    allow_expired_client: bool,
    refused: Option<RefusedPeer>,
    pub(super) client_cert_required: bool,
    pub(super) provider: Arc<CryptoProvider>,
}

impl SpiffeVerifier {
    /// A verifier that asks `source` at each handshake and accepts whom `allow` names.
    #[must_use]
    pub fn new(source: Arc<dyn TrustSource>, allow: PeerRule) -> Self {
        Self {
            source,
            allow,
            allow_expired_client: false,
            refused: None,
            client_cert_required: true,
            provider: provider(Hybrid::default()),
        }
    }

    /// Lets in clients whose certificate has expired but is otherwise valid, not revoked above all. Only for
    /// a listener whose handlers check expiry themselves, by [`VerifiedSvid::recheck`].
    #[must_use]
    pub fn allow_expired_client(mut self, allow: bool) -> Self {
        self.allow_expired_client = allow;
        self
    }

    /// For connections whose key exchange is as this says, instead of [`Hybrid::Prefer`].
    #[must_use]
    pub fn with_key_exchange(mut self, hybrid: Hybrid) -> Self {
        self.provider = provider(hybrid);
        self
    }

    /// The same for one connection, whose peer's refusal is told to `refused` in full.
    #[must_use]
    pub fn telling(mut self, refused: RefusedPeer) -> Self {
        self.refused = Some(refused);
        self
    }

    /// Verifies a chain at `now`, outside a handshake too.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        role: Role,
        now: SystemTime,
    ) -> Result<VerifiedSvid, VerifyError> {
        let path_time = match chain.first() {
            Some(leaf) if role == Role::Client && self.allow_expired_client => {
                inspect_leaf(leaf).map_or(now, |leaf| leaf.not_after.min(now))
            }
            _ => now,
        };
        let linked = match role {
            Role::Server => self.source.roots_by_links(chain, now),
            Role::Client => None,
        };
        let verified = match linked {
            Some(roots) => verify_chain_at(chain.get(..1).unwrap_or(chain), role, &roots, path_time, now)?,
            None => verify_chain_at(chain, role, &self.source.roots(), path_time, now)?,
        };
        if self.allow.accepts(verified.spiffe_id()) {
            Ok(verified)
        } else {
            Err(VerifyError::NotAllowed(verified.spiffe_id().clone()))
        }
    }

    fn verify_handshake(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<(), Error> {
        let mut chain = Vec::with_capacity(1 + above.len());
        chain.push(CertificateDer::from(leaf.as_ref()));
        chain.extend(
            above
                .iter()
                .map(|certificate| CertificateDer::from(certificate.as_ref())),
        );
        let now = UNIX_EPOCH + Duration::from_secs(now.as_secs());
        self.verify(&chain, role, now).map(drop).map_err(|error| {
            if let Some(refused) = &self.refused {
                refused.note(&error);
            }
            Error::InvalidCertificate(classify(error))
        })
    }

    fn verify_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            leaf,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }
}

/// The alert that fits, and our own words where rustls has no class of its own.
fn classify(error: VerifyError) -> CertificateError {
    match error {
        VerifyError::Revoked { .. } => CertificateError::Revoked,
        VerifyError::Expired(_) => CertificateError::Expired,
        VerifyError::NotYetValid(_) => CertificateError::NotValidYet,
        VerifyError::CrlMissing(_) => CertificateError::UnknownRevocationStatus,
        VerifyError::CrlStale(_) => CertificateError::ExpiredRevocationList,
        VerifyError::UnknownTrustDomain(_) => CertificateError::UnknownIssuer,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    }
}

impl ServerCertVerifier for SpiffeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify_handshake(end_entity, intermediates, Role::Server, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl ClientCertVerifier for SpiffeVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.client_cert_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify_handshake(end_entity, intermediates, Role::Client, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
