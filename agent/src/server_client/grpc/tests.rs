//! The client over real TLS on loopback, against a server that speaks the protocol.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::CertificateDer;
use signet_certs::authority::X509Authority;
use signet_certs::csr::create_csr;
use signet_certs::id::SpiffeId;
use signet_certs::signer::LeafKey;
use signet_certs::tls::{PeerRule, SharedRoots, SpiffeVerifier, server_config, time_provider};
use signet_certs::verify::CrlPolicy;
use signet_proto::agent as wire;
use signet_proto::agent::agent_server::{Agent, AgentServer};
use signet_runtime::clock::FakeClock;
use signet_testkit::{DOMAIN, at, authority, control_authority, id, leaf, roots, svid, trust_domain};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::server::Connected;
use tonic::{Request, Streaming};
use zeroize::Zeroizing;

use super::*;
use crate::cache::UnixFacts;
use crate::server_client::{IssueEvidence, RefusalReason};

/// What the service saw.
#[derive(Default)]
struct Seen {
    calls: AtomicUsize,
    /// The client's SPIFFE ID at each call, empty without a certificate.
    callers: Mutex<Vec<String>>,
    reports: Mutex<Vec<wire::TrustReport>>,
}

#[derive(Clone)]
struct Service {
    seen: Arc<Seen>,
    trust_domain: String,
    /// Answers anonymous attestations only.
    refuse_identified: bool,
    control: X509Authority,
    node: SpiffeId,
}

/// Who is at the other end.
#[derive(Clone, Default)]
struct Caller(String);

struct Stream(tokio_rustls::server::TlsStream<TcpStream>);

impl Connected for Stream {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        let chain = self.0.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = signet_certs::tls::peer_svid(chain);
        Caller(
            peer.map(|peer| peer.spiffe_id.as_str().to_owned())
                .unwrap_or_default(),
        )
    }
}

impl Service {
    fn saw<T>(&self, request: &Request<T>) -> String {
        let caller = request
            .extensions()
            .get::<Caller>()
            .cloned()
            .unwrap_or_default()
            .0;
        self.seen.calls.fetch_add(1, Ordering::SeqCst);
        self.seen.callers.lock().push(caller.clone());
        caller
    }
}

#[tonic::async_trait]
impl Agent for Service {
    async fn hello(
        &self,
        request: Request<wire::HelloRequest>,
    ) -> Result<Response<wire::HelloResponse>, Status> {
        self.saw(&request);
        Ok(Response::new(wire::HelloResponse {
            version: Some(convert::VERSION),
            trust_domain: self.trust_domain.clone(),
            ..wire::HelloResponse::default()
        }))
    }

    async fn attest_node(
        &self,
        request: Request<wire::AttestNodeRequest>,
    ) -> Result<Response<wire::AttestNodeResponse>, Status> {
        let caller = self.saw(&request);
        if !caller.is_empty() && self.refuse_identified {
            return Err(Status::unauthenticated("that certificate does not count"));
        }
        let key = signet_certs::csr::verify_csr(&request.into_inner().csr).unwrap();
        let leaf = leaf(&self.control, self.node.as_str()).signed(&key);
        Ok(Response::new(wire::AttestNodeResponse {
            certificate_chain: vec![leaf.into()],
            spiffe_id: self.node.as_str().to_owned(),
            node_name: "node-a".to_owned(),
            node_uid: "node-1".to_owned(),
            control_authorities: Vec::new(),
        }))
    }

    async fn issue_x509_svids(
        &self,
        request: Request<wire::IssueX509SvidsRequest>,
    ) -> Result<Response<wire::IssueX509SvidsResponse>, Status> {
        self.saw(&request);
        let refusal = |item: wire::IssueItem| wire::IssueResult {
            outcome: Some(wire::issue_result::Outcome::Refusal(wire::Refusal {
                reason: wire::refusal::Reason::NoMatch.into(),
                message: format!("{:?}", item.evidence),
                policy_revision: 4,
                retry_after_ms: 0,
            })),
        };
        let results = request.into_inner().items.into_iter().map(refusal).collect();
        Ok(Response::new(wire::IssueX509SvidsResponse { results }))
    }

    type SyncTrustStream = UnboundedReceiverStream<Result<wire::TrustState, Status>>;

    async fn sync_trust(
        &self,
        request: Request<Streaming<wire::TrustReport>>,
    ) -> Result<Response<Self::SyncTrustStream>, Status> {
        self.saw(&request);
        let (sender, receiver) = mpsc::unbounded_channel();
        let seen = self.seen.clone();
        let mut reports = request.into_inner();
        tokio::spawn(async move {
            // Each report is answered by a state with its number, so that tests see them pass.
            while let Ok(Some(report)) = reports.message().await {
                let state = wire::TrustState {
                    sequence_number: report.sequence_number,
                    ..wire::TrustState::default()
                };
                seen.reports.lock().push(report);
                let _ = sender.send(Ok(state));
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(receiver)))
    }
}

struct Bench {
    client: GrpcServer,
    identity: Arc<RotatingIdentity>,
    control: X509Authority,
    seen: Arc<Seen>,
    anchors_file: std::path::PathBuf,
    server: AbortHandle,
    _directory: tempfile::TempDir,
}

/// How the server differs from the one that the agent expects.
struct Odd {
    spiffe_id: SpiffeId,
    /// Signs the server's certificate instead of the control authority that the agent trusts.
    impostor: Option<X509Authority>,
    trust_domain: &'static str,
    refuse_identified: bool,
}

impl Default for Odd {
    fn default() -> Self {
        Self {
            spiffe_id: id("/signet/server"),
            impostor: None,
            trust_domain: "example.org",
            refuse_identified: false,
        }
    }
}

impl Bench {
    async fn new(odd: Odd) -> Self {
        let control = control_authority(DOMAIN);
        let signer = odd.impostor.clone().unwrap_or_else(|| control.clone());
        let clock: Arc<dyn Clock> = Arc::new(FakeClock::new(at(0)));
        let seen = Arc::new(Seen::default());
        let service = Service {
            seen: seen.clone(),
            trust_domain: odd.trust_domain.to_owned(),
            refuse_identified: odd.refuse_identified,
            control: control.clone(),
            node: id("/signet/agent/kind/node-1"),
        };
        let (address, server) = serve(service, &signer, &odd.spiffe_id, &control).await;
        let directory = tempfile::tempdir().unwrap();
        let anchors_file = directory.path().join("anchors.pem");
        std::fs::write(&anchors_file, control.certificate.pem()).unwrap();
        let anchors = ControlAnchors::load(&trust_domain(), &anchors_file, directory.path(), at(0)).unwrap();
        let identity = Arc::new(RotatingIdentity::new());
        let client = GrpcServer::new(
            &address.to_string(),
            &trust_domain(),
            anchors,
            identity.clone(),
            clock,
        )
        .unwrap();
        Self {
            client,
            identity,
            control,
            seen,
            anchors_file,
            server,
            _directory: directory,
        }
    }

    fn identify(&self, path: &str) {
        let svid = svid(&self.control, path);
        self.identity.set(&svid).unwrap();
        self.client.identity_changed();
    }

    async fn attest(&self) -> Result<AttestedNode, ServerError> {
        let key = LeafKey::generate(&ring::rand::SystemRandom::new()).unwrap();
        let request = NodeAttestation {
            csr: create_csr(&key).unwrap(),
            cluster: "kind".to_owned(),
            token: Zeroizing::new("secret".to_owned()),
        };
        self.client.attest_node(request).await
    }

    fn calls(&self) -> usize {
        self.seen.calls.load(Ordering::SeqCst)
    }

    fn callers(&self) -> Vec<String> {
        self.seen.callers.lock().clone()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A TLS listener as the server has it: client certificates are asked for, not demanded.
async fn serve(
    service: Service,
    signer: &X509Authority,
    spiffe_id: &SpiffeId,
    control: &X509Authority,
) -> (SocketAddr, AbortHandle) {
    let identity = Arc::new(RotatingIdentity::new());
    identity.set(&svid(signer, spiffe_id.as_str())).unwrap();
    let roots = roots(&[(control, None)]).with_crl_policy(CrlPolicy::Tolerate);
    let verifier = SpiffeVerifier::new(
        Arc::new(SharedRoots::new(roots)),
        PeerRule::TrustDomain(trust_domain()),
    );
    let mut config = server_config(identity, verifier, false, &[b"h2"]).unwrap();
    config.time_provider = time_provider(|| at(0));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = stream::unfold((listener, acceptor), |(listener, acceptor)| async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            if let Ok(tls) = acceptor.accept(tcp).await {
                return Some((Ok::<_, std::io::Error>(Stream(tls)), (listener, acceptor)));
            }
        }
    });
    let serving = tonic::transport::Server::builder()
        .add_service(AgentServer::new(service))
        .serve_with_incoming(incoming);
    (address, tokio::spawn(serving).abort_handle())
}

mod io {
    //! The TLS stream as tonic wants it.
    use std::io::Result;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::Stream;

    impl AsyncRead for Stream {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Stream {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, buf)
        }
        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }
}

#[tokio::test]
async fn the_node_attests_without_a_certificate_and_then_uses_its_own() {
    let bench = Bench::new(Odd::default()).await;
    bench.client.hello().await.unwrap();
    let attested = bench.attest().await.unwrap();
    assert_eq!(attested.spiffe_id, id("/signet/agent/kind/node-1"));
    assert!(signet_certs::verify::inspect_leaf(&CertificateDer::from(attested.chain[0].to_vec())).is_ok());
    bench.identify("/signet/agent/kind/node-1");
    let facts = UnixFacts {
        uid: 7,
        gid: 8,
        path: Some("/bin/x".to_owned()),
        sha256: None,
    };
    let item = |evidence| IssueItem {
        csr: vec![1],
        spiffe_id: None,
        evidence,
    };
    let token = crate::token::PodToken::new("pod token", at(3600));
    let outcomes = bench
        .client
        .issue(vec![
            item(IssueEvidence::PodToken(token)),
            item(IssueEvidence::Unix(facts)),
        ])
        .await
        .unwrap();
    let messages: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            IssueOutcome::Refused {
                reason: RefusalReason::NoMatch,
                message,
                policy_revision: 4,
                ..
            } => message,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(
        messages[0].contains("pod token") && messages[1].contains("/bin/x"),
        "{messages:?}"
    );
    assert_eq!(
        bench.callers(),
        ["", "", "spiffe://example.org/signet/agent/kind/node-1"]
    );
}

/// Covers INV-13.
#[tokio::test]
async fn nothing_is_sent_to_a_server_that_does_not_prove_its_identity() {
    let others = [
        Odd {
            spiffe_id: id("/signet/agent/kind/node-9"),
            ..Odd::default()
        },
        Odd {
            spiffe_id: id("/ns/a/sa/b"),
            ..Odd::default()
        },
        Odd {
            impostor: Some(control_authority(DOMAIN)),
            ..Odd::default()
        },
        Odd {
            impostor: Some(authority(DOMAIN)),
            ..Odd::default()
        },
    ];
    for odd in others {
        let bench = Bench::new(odd).await;
        let error = bench.attest().await.unwrap_err();
        assert!(matches!(&error, ServerError::Unavailable { .. }), "{error:?}");
        assert_eq!(bench.calls(), 0, "no request may reach it");
    }
}

#[tokio::test]
async fn changed_anchors_are_found_when_the_known_ones_do_not_verify_the_server() {
    let recovered = control_authority(DOMAIN);
    let bench = Bench::new(Odd {
        impostor: Some(recovered.clone()),
        ..Odd::default()
    })
    .await;
    assert!(bench.client.hello().await.is_err());
    std::fs::write(&bench.anchors_file, recovered.certificate.pem()).unwrap();
    assert!(
        bench.client.hello().await.is_err(),
        "this attempt finds the new file"
    );
    bench.client.hello().await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_does_not_count_does_not_keep_the_node_from_attesting() {
    let bench = Bench::new(Odd {
        refuse_identified: true,
        ..Odd::default()
    })
    .await;
    bench.identify("/signet/agent/kind/node-1");
    bench.attest().await.unwrap();
    assert_eq!(
        bench.callers(),
        ["spiffe://example.org/signet/agent/kind/node-1", ""]
    );
}

#[tokio::test]
async fn a_newer_certificate_is_used_from_the_next_call_on() {
    let bench = Bench::new(Odd::default()).await;
    bench.identify("/signet/agent/kind/node-1");
    bench.client.issue(Vec::new()).await.unwrap();
    bench.identify("/signet/agent/kind/node-2");
    bench.client.issue(Vec::new()).await.unwrap();
    let callers = bench.callers();
    assert!(
        callers[0].ends_with("node-1") && callers[1].ends_with("node-2"),
        "{callers:?}"
    );
}

#[tokio::test]
async fn before_attestation_there_is_nothing_to_ask_with() {
    let bench = Bench::new(Odd::default()).await;
    assert!(matches!(
        bench.client.issue(Vec::new()).await,
        Err(ServerError::Unavailable { .. })
    ));
    assert_eq!(bench.calls(), 0);
}

#[tokio::test]
async fn a_server_of_another_trust_domain_is_refused() {
    let bench = Bench::new(Odd {
        trust_domain: "elsewhere.test",
        ..Odd::default()
    })
    .await;
    let error = bench.client.hello().await.unwrap_err();
    assert!(
        matches!(&error, ServerError::Refused(text) if text.contains("elsewhere.test")),
        "{error:?}"
    );
}

#[tokio::test]
async fn reports_go_out_at_once_and_with_each_change() {
    let bench = Bench::new(Odd::default()).await;
    bench.identify("/signet/agent/kind/node-1");
    let reports = watch::Sender::new(TrustReport {
        sequence_number: 3,
        ..TrustReport::default()
    });
    let mut updates = bench.client.sync_trust(reports.subscribe()).await.unwrap();
    assert_eq!(updates.next().await.unwrap().unwrap().sequence_number, 3);
    reports.send_replace(TrustReport {
        sequence_number: 4,
        ..TrustReport::default()
    });
    assert_eq!(updates.next().await.unwrap().unwrap().sequence_number, 4);
    let told = bench.seen.reports.lock()[0].clock_unix_ms;
    assert!(
        told >= signet_certs::time::unix_millis(at(0)),
        "the agent's clock goes along"
    );
}
