use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use signet_certs::authority::{AuthorityKind, X509Authority};
use signet_certs::bundle::TrustBundle;
use signet_certs::csr::{create_csr, verify_csr};
use signet_certs::id::SpiffeId;
use signet_certs::signer::LeafKey;
use signet_certs::svid::{self, Purpose, SvidProfile, X509Svid};
use signet_certs::tls::{PeerRule, RotatingIdentity, SharedRoots, SpiffeVerifier, client_config};
use signet_runtime::clock::{Clock, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::web::WebCertificateError;
use super::*;
use crate::fixtures::{HOUR, MINUTE, SKEW, authority, published, serial, snapshot, trust_domain};

struct Served {
    address: SocketAddr,
    snapshots: watch::Sender<Arc<TrustSnapshot>>,
    drain: Drain,
}

impl Served {
    async fn start(
        identity: Arc<dyn ResolvesServerCert>,
        path: &'static str,
        first: Arc<TrustSnapshot>,
    ) -> Self {
        let (snapshots, receiver) = watch::channel(first);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (drain, tls) = (Drain::new(), bundle_tls(identity, Hybrid::default()).unwrap());
        let tls = BundleTls::new(tls, KeyExchanges::default());
        let ending = drain.clone();
        drain.spawn(async move {
            let refusals = Refusals::untold("a test's");
            serve_bundle(listener, tls, path, receiver, Limits::default(), refusals, ending).await;
        });
        Self {
            address,
            snapshots,
            drain,
        }
    }

    async fn ask(&self, client: ClientConfig, request: &str) -> std::io::Result<String> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await?;
        let head = format!("{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        match stream.read_to_string(&mut answer).await {
            // The server may close the socket right after its last byte.
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Err(error),
            _ => Ok(answer),
        }
    }
}

fn svid(authority: &X509Authority, id: SpiffeId) -> X509Svid {
    svid_with(authority, Purpose::Control, id, Vec::new())
}

fn svid_with(authority: &X509Authority, purpose: Purpose, id: SpiffeId, dns_names: Vec<String>) -> X509Svid {
    let key = LeafKey::generate(&SystemRandom::new()).unwrap();
    let public_key = verify_csr(&create_csr(&key).unwrap()).unwrap();
    let profile = SvidProfile {
        ttl: HOUR,
        clock_skew: SKEW,
        crl_base_url: None,
    };
    let template = svid::template(
        &profile,
        purpose,
        id,
        dns_names,
        serial(1),
        authority.certificate(),
        SystemClock.now(),
    )
    .unwrap();
    let leaf = svid::sign(&template, &public_key, authority).unwrap();
    X509Svid::new(vec![leaf], key).unwrap()
}

fn one_authority() -> (X509Authority, Arc<TrustSnapshot>) {
    let now = SystemClock.now();
    let x509 = authority(AuthorityKind::X509, now);
    let control = authority(AuthorityKind::Control, now);
    let published = (published(&x509, &[], 1, now), published(&control, &[], 1, now));
    (x509, snapshot(5, vec![published.0], vec![published.1]))
}

/// A federated client of profile https_spiffe that knows `snapshot` and expects `id`.
fn spiffe_client(snapshot: &TrustSnapshot, id: SpiffeId) -> ClientConfig {
    let roots = Arc::new(SharedRoots::new(snapshot.workload_roots()));
    client_config(
        None,
        SpiffeVerifier::new(roots, PeerRule::Exactly(id)),
        &[b"http/1.1"],
    )
    .unwrap()
}

/// Covers FED-01, FED-10, FED-16, FED-17, BND-03, BND-05.
#[tokio::test]
async fn the_newest_bundle_is_served_under_our_own_svid() {
    let (x509, first) = one_authority();
    let id = SpiffeId::bundle_endpoint(&trust_domain());
    let identity = Arc::new(RotatingIdentity::new());
    identity.set(&svid(&x509, id.clone())).unwrap();
    let served = Served::start(identity, "/", first.clone()).await;
    let answer = served
        .ask(spiffe_client(&first, id.clone()), "GET /")
        .await
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    let read = TrustBundle::parse_json(&trust_domain(), body.as_bytes()).unwrap();
    assert_eq!(read, first.bundle());
    let second = snapshot(
        6,
        first.kind(AuthorityKind::X509).to_vec(),
        first.kind(AuthorityKind::Control).to_vec(),
    );
    served.snapshots.send_replace(second.clone());
    let newer = served
        .ask(spiffe_client(&first, id.clone()), "GET /")
        .await
        .unwrap();
    let read = TrustBundle::parse_json(
        &trust_domain(),
        newer.split_once("\r\n\r\n").unwrap().1.as_bytes(),
    )
    .unwrap();
    assert_eq!(read.sequence_number, 6);
    let server = SpiffeId::server(&trust_domain());
    let other = served.ask(spiffe_client(&first, server), "GET /").await;
    assert!(other.is_err(), "a client that expects another ID refuses");
    assert!(served.drain.finish(MINUTE).await);
}

/// Covers FED-28, BD-21.
#[tokio::test]
async fn other_paths_methods_and_an_empty_start_are_answered_as_such() {
    let (x509, first) = one_authority();
    let id = SpiffeId::bundle_endpoint(&trust_domain());
    let identity = Arc::new(RotatingIdentity::new());
    identity.set(&svid(&x509, id.clone())).unwrap();
    let served = Served::start(identity, "/bundle.json", first.clone()).await;
    for (request, status) in [
        ("GET /bundle.json", "200"),
        ("GET /", "404"),
        ("GET //bundle.json", "404"),
        ("GET /x/../bundle.json", "404"),
        ("GET /bundle.json?at=1", "200"),
        ("HEAD /bundle.json", "200"),
        ("POST /bundle.json", "405"),
        ("PUT /bundle.json", "405"),
        ("OPTIONS /bundle.json", "405"),
        ("POST /", "404"),
    ] {
        let answer = served
            .ask(spiffe_client(&first, id.clone()), request)
            .await
            .unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}: {answer}"
        );
    }
    served.snapshots.send_replace(snapshot(0, Vec::new(), Vec::new()));
    let answer = served
        .ask(spiffe_client(&first, id), "GET /bundle.json")
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
}

/// Covers FED-10.
#[tokio::test]
async fn plain_http_gets_no_bundle() {
    let (x509, first) = one_authority();
    let identity = Arc::new(RotatingIdentity::new());
    identity
        .set(&svid(&x509, SpiffeId::bundle_endpoint(&trust_domain())))
        .unwrap();
    let served = Served::start(identity, "/", first).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/"), "an alert at most");
}

/// Writes a certificate for `localhost` and its key; returns the certificate of the CA above.
fn write_web_files(directory: &Path) -> CertificateDer<'static> {
    let (web_ca, _) = one_authority();
    let id = SpiffeId::parse("spiffe://example.org/web").unwrap();
    let svid = svid_with(&web_ca, Purpose::Workload, id, vec!["localhost".to_owned()]);
    let key = STANDARD.encode(svid.key().pkcs8_der());
    let key = format!("-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n");
    let chain = STANDARD.encode(&svid.chain()[0]);
    let chain = format!("-----BEGIN CERTIFICATE-----\n{chain}\n-----END CERTIFICATE-----\n");
    std::fs::write(directory.join("web.pem"), chain).unwrap();
    std::fs::write(directory.join("web_key.pem"), key).unwrap();
    CertificateDer::from(web_ca.certificate().der().to_vec())
}

fn load_web(directory: &Path) -> Result<Arc<WebCertificate>, WebCertificateError> {
    WebCertificate::load(&directory.join("web.pem"), &directory.join("web_key.pem"))
}

/// A client of profile https_web that trusts `root` and speaks one version of TLS.
fn web_client(
    root: &CertificateDer<'static>,
    version: &'static rustls::SupportedProtocolVersion,
) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    ClientConfig::builder_with_provider(provider(Hybrid::default()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Covers FED-09, FED-10, FED-13, FED-14.
#[tokio::test]
async fn the_web_profile_serves_tls_12_and_13_and_follows_renewed_files() {
    let directory = signet_testkit::folder();
    let first = write_web_files(directory.path());
    let web = load_web(directory.path()).unwrap();
    let served = Served::start(web.clone(), "/", one_authority().1).await;
    for version in [&TLS12, &TLS13] {
        let answer = served.ask(web_client(&first, version), "GET /").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let renewed = write_web_files(directory.path());
    web.reload().unwrap();
    assert!(served.ask(web_client(&first, &TLS13), "GET /").await.is_err());
    assert!(served.ask(web_client(&renewed, &TLS13), "GET /").await.is_ok());
    std::fs::write(directory.path().join("web.pem"), "not PEM").unwrap();
    assert!(web.reload().is_err());
    assert!(
        served.ask(web_client(&renewed, &TLS13), "GET /").await.is_ok(),
        "the last good one stays"
    );
}

#[test]
fn unusable_web_files_are_named() {
    let directory = signet_testkit::folder();
    let missing = load_web(directory.path()).unwrap_err();
    assert!(missing.to_string().contains("web.pem"), "{missing}");
    write_web_files(directory.path());
    let other = signet_testkit::folder();
    write_web_files(other.path());
    std::fs::copy(
        other.path().join("web_key.pem"),
        directory.path().join("web_key.pem"),
    )
    .unwrap();
    let mismatch = load_web(directory.path()).unwrap_err();
    assert!(
        matches!(mismatch, WebCertificateError::Mismatch { .. }),
        "{mismatch}"
    );
    std::fs::write(directory.path().join("web_key.pem"), "").unwrap();
    let keyless = load_web(directory.path()).unwrap_err();
    assert!(keyless.to_string().contains("web_key.pem"), "{keyless}");
}
