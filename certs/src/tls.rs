//! SPIFFE mutual TLS for rustls: peers are judged by their SPIFFE ID and the CRLs, host names play no part.
//!
//! TLS 1.3 with the ring provider, named explicitly. Sessions are never resumed: resumption would skip the
//! verifier, and with it every revocation since the first handshake.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, ring as provider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, ServerConfig, SignatureScheme,
};

use crate::id::{SpiffeId, TrustDomain};
use crate::svid::X509Svid;
use crate::verify::{LeafInfo, Role, TrustRoots, VerifiedSvid, VerifyError, inspect_leaf, verify_chain_at};

/// Where a verifier finds whom to trust at this moment.
pub trait TrustSource: Send + Sync + fmt::Debug {
    /// The roots as they are now; cheap.
    fn roots(&self) -> Arc<TrustRoots>;
}

/// Roots that can be replaced while verifiers use them.
#[derive(Debug, Default)]
pub struct SharedRoots(ArcSwap<TrustRoots>);

impl SharedRoots {
    /// Begins with these roots.
    #[must_use]
    pub fn new(roots: impl Into<Arc<TrustRoots>>) -> Self {
        Self(ArcSwap::new(roots.into()))
    }

    /// Replaces the roots for every check from now on.
    pub fn store(&self, roots: impl Into<Arc<TrustRoots>>) {
        self.0.store(roots.into());
    }

    /// The roots as they are now.
    #[must_use]
    pub fn load(&self) -> Arc<TrustRoots> {
        self.0.load_full()
    }
}

impl TrustSource for SharedRoots {
    fn roots(&self) -> Arc<TrustRoots> {
        self.load()
    }
}

/// Which valid identities are accepted.
#[derive(Clone)]
pub enum PeerRule {
    /// This one.
    Exactly(SpiffeId),
    /// One of these.
    OneOf(Vec<SpiffeId>),
    /// Any of this trust domain.
    TrustDomain(TrustDomain),
    /// Any that verifies.
    Any,
    /// Whom the function accepts.
    Predicate(Arc<dyn Fn(&SpiffeId) -> bool + Send + Sync>),
}

impl PeerRule {
    /// Whether `id` is accepted.
    #[must_use]
    pub fn accepts(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Exactly(expected) => expected == id,
            Self::OneOf(expected) => expected.contains(id),
            Self::TrustDomain(domain) => domain.as_str() == id.trust_domain_name(),
            Self::Any => true,
            Self::Predicate(accepts) => accepts(id),
        }
    }
}

impl fmt::Debug for PeerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(id) => f.debug_tuple("Exactly").field(id).finish(),
            Self::OneOf(ids) => f.debug_tuple("OneOf").field(ids).finish(),
            Self::TrustDomain(domain) => f.debug_tuple("TrustDomain").field(domain).finish(),
            Self::Any => f.write_str("Any"),
            Self::Predicate(_) => f.write_str("Predicate"),
        }
    }
}

/// Verifies peers in both roles. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SpiffeVerifier {
    source: Arc<dyn TrustSource>,
    allow: PeerRule,
    allow_expired_client: bool,
    client_cert_required: bool,
    provider: Arc<CryptoProvider>,
}

impl SpiffeVerifier {
    /// A verifier that asks `source` at each handshake and accepts whom `allow` names.
    #[must_use]
    pub fn new(source: Arc<dyn TrustSource>, allow: PeerRule) -> Self {
        Self {
            source,
            allow,
            allow_expired_client: false,
            client_cert_required: true,
            provider: Arc::new(provider::default_provider()),
        }
    }

    /// Lets in clients whose certificate has expired but is otherwise valid, not revoked above all. Only for
    /// a listener whose handlers check expiry themselves, by [`VerifiedSvid::recheck`].
    #[must_use]
    pub fn allow_expired_client(mut self, allow: bool) -> Self {
        self.allow_expired_client = allow;
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
        let verified = verify_chain_at(chain, role, &self.source.roots(), path_time, now)?;
        if self.allow.accepts(&verified.spiffe_id) {
            Ok(verified)
        } else {
            Err(VerifyError::NotAllowed(verified.spiffe_id))
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
        self.verify(&chain, role, now)
            .map(drop)
            .map_err(|error| Error::InvalidCertificate(classify(error)))
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

/// Our own certificate, replaced while listeners and clients use it. New handshakes see the new one.
#[derive(Debug, Default)]
pub struct RotatingIdentity(ArcSwapOption<CertifiedKey>);

impl RotatingIdentity {
    /// Without a certificate: handshakes that need one fail until [`set`](Self::set).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Presents `svid` from the next handshake on.
    pub fn set(&self, svid: &X509Svid) -> Result<(), Error> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(svid.key.pkcs8_der()));
        let key = provider::sign::any_ecdsa_type(&key)?;
        let chain = svid
            .chain
            .iter()
            .map(|der| CertificateDer::from(der.clone()))
            .collect();
        self.0.store(Some(Arc::new(CertifiedKey::new(chain, key))));
        Ok(())
    }

    /// Presents nothing from the next handshake on.
    pub fn clear(&self) {
        self.0.store(None);
    }
}

impl ResolvesServerCert for RotatingIdentity {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

impl ResolvesClientCert for RotatingIdentity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }

    fn has_certs(&self) -> bool {
        self.0.load().is_some()
    }
}

/// A server side that asks every client for its certificate, and refuses those without one if
/// `client_cert_required`. A test that owns the time replaces the config's `time_provider`.
pub fn server_config(
    identity: Arc<RotatingIdentity>,
    mut verifier: SpiffeVerifier,
    client_cert_required: bool,
    alpn: &[&[u8]],
) -> Result<ServerConfig, Error> {
    verifier.client_cert_required = client_cert_required;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&verifier.provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(identity);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A client side that presents `identity` where it has one. Host names are neither sent nor checked.
/// A test that owns the time replaces the config's `time_provider`.
pub fn client_config(
    identity: Option<Arc<RotatingIdentity>>,
    verifier: SpiffeVerifier,
    alpn: &[&[u8]],
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(&verifier.provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(identity),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// Who the peer of a finished handshake is, from the chain that rustls verified.
#[must_use]
pub fn peer_svid(chain: &[CertificateDer<'_>]) -> Option<LeafInfo> {
    chain.first().and_then(|leaf| inspect_leaf(leaf).ok())
}
