//! Whole handshakes in memory: both sides over byte buffers, at a fixed time.

use std::time::{Duration, SystemTime};

use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConnection, HandshakeKind, ServerConnection};

use super::*;
use crate::authority::{AuthorityCertificate, X509Authority};
use crate::crl::{CrlNumber, RevocationReason, RevokedEntry, sign_crl};
use crate::link::{LINKS_PROTOCOL, create_link, walk};
use crate::svid::X509Svid;
use crate::testing::*;
use crate::verify::{CrlPolicy, Role, TrustedAuthority, VerifyError};

const SERVER: &str = "spiffe://td/signet/server";
const CLIENT: &str = "spiffe://td/ns/shop/sa/cart";
const ALPN: &[&[u8]] = &[b"h2"];

fn trusted(authority: &X509Authority, revoked: &[u8]) -> TrustedAuthority {
    let entry = |number: &u8| RevokedEntry {
        serial: serial(*number),
        revoked_at: now(),
        reason: RevocationReason::KeyCompromise,
        invalid_since: None,
    };
    let entries: Vec<_> = revoked.iter().map(entry).collect();
    TrustedAuthority {
        certificate: authority.certificate().clone(),
        crl: Some(crl(authority, &entries)),
    }
}

fn roots(domain: &str, authorities: Vec<TrustedAuthority>) -> TrustRoots {
    TrustRoots::new(vec![(td(domain), authorities)])
}

fn identity(svid: &X509Svid) -> Arc<RotatingIdentity> {
    let identity = Arc::new(RotatingIdentity::new());
    identity.set(svid).unwrap();
    identity
}

/// One side's view: what it presents and whom it accepts.
pub(super) struct Side {
    identity: Option<Arc<RotatingIdentity>>,
    roots: Arc<SharedRoots>,
    allow: PeerRule,
}

impl Side {
    pub(super) fn verifier(&self) -> SpiffeVerifier {
        SpiffeVerifier::new(
            Arc::clone(&self.roots) as Arc<dyn TrustSource>,
            self.allow.clone(),
        )
    }

    fn server(&self, required: bool) -> ServerConfig {
        self.server_by(self.verifier(), required)
    }

    pub(super) fn server_by(&self, verifier: SpiffeVerifier, required: bool) -> ServerConfig {
        self.server_with(verifier, required, now())
    }

    fn server_with(&self, verifier: SpiffeVerifier, required: bool, at: SystemTime) -> ServerConfig {
        let identity = self.identity.clone().unwrap_or_default();
        let mut config = server_config(identity, verifier, required, ALPN).unwrap();
        config.time_provider = time_provider(move || at);
        config
    }

    fn client(&self) -> ClientConfig {
        self.client_by(self.verifier())
    }

    pub(super) fn client_by(&self, verifier: SpiffeVerifier) -> ClientConfig {
        let own = self.identity.clone();
        let own = own.map(|own| -> Arc<dyn ResolvesClientCert> { own });
        let mut config = client_config(own, verifier, ALPN).unwrap();
        config.time_provider = time_provider(now);
        config
    }
}

/// Server and client of one domain that trust the same authority.
pub(super) fn pair(authority: &X509Authority) -> (Side, Side) {
    let shared = || Arc::new(SharedRoots::new(roots("td", vec![trusted(authority, &[])])));
    let server = Side {
        identity: Some(identity(&svid(authority, SERVER, 1))),
        roots: shared(),
        allow: PeerRule::TrustDomain(td("td")),
    };
    let client = Side {
        identity: Some(identity(&svid(authority, CLIENT, 2))),
        roots: shared(),
        allow: PeerRule::Exactly(id(SERVER)),
    };
    (server, client)
}

#[derive(Debug)]
pub(super) struct Failed {
    by_server: bool,
    error: Error,
}

fn failed(by_server: bool) -> impl Fn(Error) -> Failed {
    move |error| Failed { by_server, error }
}

/// Moves bytes between the two until both are done or one refuses.
pub(super) fn handshake(
    client: ClientConfig,
    server: ServerConfig,
) -> Result<(ClientConnection, ServerConnection), Failed> {
    let name = ServerName::try_from("ignored.invalid").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut idle = 0;
    while idle < 2 {
        let mut to_server = Vec::new();
        client.write_tls(&mut to_server).unwrap();
        server.read_tls(&mut to_server.as_slice()).unwrap();
        server.process_new_packets().map_err(failed(true))?;
        let mut to_client = Vec::new();
        server.write_tls(&mut to_client).unwrap();
        client.read_tls(&mut to_client.as_slice()).unwrap();
        client.process_new_packets().map_err(failed(false))?;
        idle = if to_server.is_empty() && to_client.is_empty() {
            idle + 1
        } else {
            0
        };
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

fn refusal(client: ClientConfig, server: ServerConfig) -> (bool, CertificateError) {
    match handshake(client, server) {
        Err(Failed {
            by_server,
            error: Error::InvalidCertificate(error),
        }) => (by_server, error),
        other => panic!("not refused over a certificate: {other:?}"),
    }
}

#[test]
fn both_sides_know_each_other_by_spiffe_id() {
    let authority = authority("td");
    let (server, client) = pair(&authority);
    let (at_client, at_server) = handshake(client.client(), server.server(true)).unwrap();
    let peer = peer_svid(&at_server).unwrap();
    assert_eq!((peer.spiffe_id(), peer.serial()), (&id(CLIENT), serial(2)));
    assert_eq!(peer.authority_id(), authority.certificate().id());
    assert_eq!(*peer_svid(&at_client).unwrap().spiffe_id(), id(SERVER));
    assert_eq!(
        at_server.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    assert_eq!(at_server.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(at_server.server_name(), None);
}

#[test]
fn a_client_without_certificate_is_let_in_only_where_none_is_required() {
    let (server, mut client) = pair(&authority("td"));
    client.identity = None;
    let (_, at_server) = handshake(client.client(), server.server(false)).unwrap();
    assert!(at_server.peer_certificates().is_none());
    assert_eq!(peer_svid(&at_server), None);
    let failed = handshake(client.client(), server.server(true)).unwrap_err();
    assert!(failed.by_server);
    assert_eq!(failed.error, Error::NoCertificatesPresented);
}

#[test]
fn nobody_is_known_before_the_handshake_is_over() {
    let (server, _) = pair(&authority("td"));
    let begun = ServerConnection::new(Arc::new(server.server(true))).unwrap();
    assert_eq!(peer_svid(&begun), None);
}

#[test]
fn a_certificate_that_is_offered_is_verified_even_where_none_is_required() {
    let (server, mut client) = pair(&authority("td"));
    client.identity = Some(identity(&svid(&authority("td"), CLIENT, 2)));
    assert!(
        handshake(client.client(), server.server(false))
            .unwrap_err()
            .by_server
    );
}

#[test]
fn a_revoked_peer_is_refused_on_either_side() {
    let authority = authority("td");
    let (server, client) = pair(&authority);
    server.roots.store(roots("td", vec![trusted(&authority, &[2])]));
    assert_eq!(
        refusal(client.client(), server.server(true)),
        (true, CertificateError::Revoked)
    );
    server.roots.store(roots("td", vec![trusted(&authority, &[])]));
    client.roots.store(roots("td", vec![trusted(&authority, &[1])]));
    assert_eq!(
        refusal(client.client(), server.server(true)),
        (false, CertificateError::Revoked)
    );
}

#[test]
fn a_stale_or_missing_crl_refuses_everyone() {
    let authority = authority("td");
    let (server, client) = pair(&authority);
    let certificate = authority.certificate().clone();
    let past = now() - Duration::from_secs(1);
    let stale = sign_crl(&authority, &[], CrlNumber(1), now() - HOUR, past).unwrap();
    server.roots.store(roots(
        "td",
        vec![TrustedAuthority {
            certificate: certificate.clone(),
            crl: Some(stale),
        }],
    ));
    assert_eq!(
        refusal(client.client(), server.server(true)),
        (true, CertificateError::ExpiredRevocationList)
    );
    server.roots.store(roots(
        "td",
        vec![TrustedAuthority {
            certificate,
            crl: None,
        }],
    ));
    assert_eq!(
        refusal(client.client(), server.server(true)),
        (true, CertificateError::UnknownRevocationStatus)
    );
}

/// Covers VAL-08, VAL-09.
#[test]
fn other_trust_domains_are_refused_and_domains_are_not_confused() {
    let (ours, theirs) = (authority("td"), authority("other"));
    let (server, mut client) = pair(&ours);
    client.identity = Some(identity(&svid(&theirs, "spiffe://other/w", 2)));
    assert_eq!(
        refusal(client.client(), server.server(true)),
        (true, CertificateError::UnknownIssuer)
    );

    // Both domains are loaded, but only ours may connect.
    let both = || {
        TrustRoots::new(vec![
            (td("td"), vec![trusted(&ours, &[])]),
            (td("other"), vec![trusted(&theirs, &[])]),
        ])
    };
    server.roots.store(both());
    let (by_server, error) = refusal(client.client(), server.server(true));
    assert!(
        by_server && error.to_string().contains("not accepted as a peer"),
        "{error}"
    );
    let open = Side {
        allow: PeerRule::Any,
        roots: Arc::new(SharedRoots::new(both())),
        ..server
    };
    assert!(handshake(client.client(), open.server(true)).is_ok());

    // The other domain's authority signs a leaf that names ours.
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI(CLIENT.try_into().unwrap())];
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let issuer = theirs.certificate().issuer_params().unwrap();
    let issuer = rcgen::Issuer::from_params(issuer, crate::signer::RcgenSigner(theirs.signer().as_ref()));
    let key = leaf_key();
    let forged = params.signed_by(&public_key(&key), &issuer).unwrap();
    client.identity = Some(identity(
        &X509Svid::new(vec![forged.der().to_vec()], key).unwrap(),
    ));
    let (by_server, error) = refusal(client.client(), open.server(true));
    assert!(
        by_server && error.to_string().contains("does not chain"),
        "{error}"
    );
}

#[test]
fn a_client_accepts_exactly_the_server_it_expects() {
    let (mut server, client) = pair(&authority("td"));
    let authority = authority("td");
    server.identity = Some(identity(&svid(&authority, "spiffe://td/ns/shop/sa/impostor", 3)));
    client.roots.store(roots("td", vec![trusted(&authority, &[])]));
    let (by_server, error) = refusal(client.client(), server.server(true));
    assert!(
        !by_server && error.to_string().contains("not accepted as a peer"),
        "{error}"
    );
}

/// Covers CA-16, CRL-31.
#[test]
fn keys_rotate_under_running_configs_without_a_refused_handshake() {
    let (old, new) = (authority("td"), authority("td"));
    let (server, client) = pair(&old);
    // The configs are made once and live through the whole rotation.
    let (server_config, client_config) = (server.server(true), client.client());
    let connects = || handshake(client_config.clone(), server_config.clone()).map(|_| ());
    let publish = |authorities: &dyn Fn() -> Vec<TrustedAuthority>| {
        server.roots.store(roots("td", authorities()));
        client.roots.store(roots("td", authorities()));
    };
    connects().unwrap();
    publish(&|| vec![trusted(&old, &[7]), trusted(&new, &[8])]);
    connects().unwrap();
    server
        .identity
        .as_ref()
        .unwrap()
        .set(&svid(&new, SERVER, 1))
        .unwrap();
    connects().unwrap();
    client
        .identity
        .as_ref()
        .unwrap()
        .set(&svid(&new, CLIENT, 2))
        .unwrap();
    connects().unwrap();
    publish(&|| vec![trusted(&new, &[8])]);
    connects().unwrap();
    client
        .identity
        .as_ref()
        .unwrap()
        .set(&svid(&old, CLIENT, 2))
        .unwrap();
    assert!(connects().unwrap_err().by_server);
}

/// Covers VAL-16.
#[test]
fn sessions_are_never_resumed() {
    let (server, client) = pair(&authority("td"));
    let (client, server) = (client.client(), server.server(true));
    assert_eq!(server.send_tls13_tickets, 0);
    for _ in 0..2 {
        let (client, server) = handshake(client.clone(), server.clone()).unwrap();
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
    }
}

/// Takes what follows a server's leaf for links.
#[derive(Debug)]
struct Walker(Arc<SharedRoots>);

impl TrustSource for Walker {
    fn roots(&self) -> Arc<TrustRoots> {
        self.0.load()
    }

    fn roots_by_links(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Option<Arc<TrustRoots>> {
        let read = |der: &CertificateDer<'_>| AuthorityCertificate::from_der(der).unwrap();
        let links: Vec<_> = chain[1..].iter().map(read).collect();
        let held = self.0.load().authorities(&td("td")).to_vec();
        let anchors: Vec<_> = held.iter().map(|held| held.certificate.clone()).collect();
        let found = walk(&anchors, &links, &td("td"), |_| false, now);
        let found = found.into_iter().map(|certificate| TrustedAuthority {
            certificate,
            crl: None,
        });
        let all = held.into_iter().chain(found).collect();
        Some(Arc::new(roots("td", all).with_crl_policy(CrlPolicy::Tolerate)))
    }
}

/// Links are sent to whoever offers to take them, and to nobody else; HTTP/2 is what is spoken in any case. A client that takes what
/// follows a leaf for links finds its way, one that does not refuses it.
#[test]
fn links_are_sent_on_request_and_lead_only_who_walks() {
    let (old, new) = (authority("td"), authority("td"));
    let link = create_link(&old, new.certificate(), serial(3), now() - HOUR).unwrap();
    let (server, mut client) = pair(&new);
    server.identity.as_ref().unwrap().set_links(&[link]);
    client.identity = None;
    let connect = |source: Arc<dyn TrustSource>, alpn: &[&[u8]]| {
        let verifier = SpiffeVerifier::new(source, client.allow.clone());
        let mut config = client_config(None, verifier, alpn).unwrap();
        config.time_provider = time_provider(now);
        let (at_client, at_server) = handshake(config, server.server(false))?;
        assert_eq!(at_server.alpn_protocol(), Some(&b"h2"[..]));
        Ok::<_, Failed>(at_client.peer_certificates().unwrap().len())
    };
    let both: &[&[u8]] = &[LINKS_PROTOCOL, b"h2"];
    assert_eq!(connect(client.roots.clone(), ALPN).unwrap(), 1);
    assert_eq!(connect(client.roots.clone(), both).unwrap(), 2);
    let behind = Arc::new(SharedRoots::new(roots("td", vec![trusted(&old, &[])])));
    connect(behind.clone(), ALPN).unwrap_err();
    connect(behind.clone(), both).unwrap_err();
    let walker = Arc::new(Walker(behind));
    connect(walker.clone(), ALPN).unwrap_err();
    assert_eq!(connect(walker, both).unwrap(), 2);
}

#[test]
fn without_an_identity_a_server_answers_nobody() {
    let (mut server, client) = pair(&authority("td"));
    server.identity = Some(Arc::new(RotatingIdentity::new()));
    assert!(
        handshake(client.client(), server.server(true))
            .unwrap_err()
            .by_server
    );
    server.identity = None;
    let alert = handshake(client.client(), server.server(true)).unwrap_err();
    assert_ne!(alert.error, Error::AlertReceived(AlertDescription::CloseNotify));
}

#[test]
fn an_expired_client_is_let_in_only_by_the_listener_that_rechecks() {
    let signer = authority("td");
    let (server, client) = pair(&signer);
    let later = now() + HOUR + Duration::from_secs(60);
    assert_eq!(
        refusal(
            client.client(),
            server.server_with(server.verifier(), true, later)
        ),
        (true, CertificateError::Expired)
    );
    let lenient = server.verifier().allow_expired_client(true);
    let (_, at_server) =
        handshake(client.client(), server.server_with(lenient.clone(), true, later)).unwrap();
    let chain = at_server.peer_certificates().unwrap();
    let verified = lenient.verify(chain, Role::Client, later).unwrap();
    assert!(matches!(
        verified.recheck(&server.roots.load(), later),
        Err(VerifyError::Expired(_))
    ));
    // Still no entry for the revoked, for strangers, or under a list that has ended; and never for servers.
    server.roots.store(roots("td", vec![trusted(&signer, &[2])]));
    assert!(matches!(
        lenient.verify(chain, Role::Client, later),
        Err(VerifyError::Revoked { .. })
    ));
    server
        .roots
        .store(roots("td", vec![trusted(&authority("td"), &[])]));
    assert!(matches!(
        lenient.verify(chain, Role::Client, later),
        Err(VerifyError::Untrusted { .. })
    ));
    server.roots.store(roots("td", vec![trusted(&signer, &[])]));
    assert!(matches!(
        lenient.verify(chain, Role::Client, now() + DAY),
        Err(VerifyError::CrlStale(_))
    ));
    assert!(matches!(
        lenient.verify(chain, Role::Server, later),
        Err(VerifyError::Expired(_))
    ));
}

#[test]
fn peer_rules_accept_whom_they_name() {
    let accepts = |rule: PeerRule| {
        ["spiffe://td/a", "spiffe://td/b", "spiffe://td2/a"].map(|text| rule.accepts(&id(text)))
    };
    assert_eq!(
        accepts(PeerRule::Exactly(id("spiffe://td/a"))),
        [true, false, false]
    );
    assert_eq!(
        accepts(PeerRule::OneOf(vec![id("spiffe://td/b"), id("spiffe://td2/a")])),
        [false, true, true]
    );
    assert_eq!(accepts(PeerRule::OneOf(Vec::new())), [false; 3]);
    assert_eq!(accepts(PeerRule::TrustDomain(td("td"))), [true, true, false]);
    assert_eq!(accepts(PeerRule::Any), [true; 3]);
    let ends_in_a = PeerRule::Predicate(Arc::new(|id: &SpiffeId| id.path().ends_with("/a")));
    assert_eq!(format!("{ends_in_a:?}"), "Predicate");
    assert_eq!(accepts(ends_in_a), [true, false, true]);
}
