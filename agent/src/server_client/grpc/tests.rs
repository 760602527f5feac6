//! The client over real TLS on loopback, against a server that speaks the protocol.

mod distrust;
mod links;
mod time;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::CertificateDer;
use signet_certs::authority::{AuthorityCertificate, AuthorityId, X509Authority};
use signet_certs::csr::create_csr;
use signet_certs::id::SpiffeId;
use signet_certs::signer::LeafKey;
use signet_certs::tls::{PeerRule, SharedRoots, SpiffeVerifier, server_config, time_provider};
use signet_certs::verify::CrlPolicy;
use signet_proto::agent as wire;
use signet_proto::agent::agent_server::{Agent, AgentServer};
use signet_proto::agent::opening;
use signet_runtime::clock::FakeClock;
use signet_testkit::{DOMAIN, at, authority, control_authority, id, leaf, roots, serial, svid, trust_domain};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};
use zeroize::Zeroizing;

use super::super::dial::Tcp;
use super::*;
use crate::cache::UnixFacts;
use crate::server_client::{IssueEvidence, RefusalReason};

mod reports;
mod wires;

use self::reports::nothing;
use self::wires::Wires;

/// What the service saw.
#[derive(Default)]
struct Seen {
    calls: AtomicUsize,
    /// The connections over which something was said, oldest first.
    conversations: Mutex<Vec<Conversation>>,
    reports: Mutex<Vec<wire::TrustReport>>,
}

/// What was said over one connection.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Conversation {
    connection: usize,
    /// The client's SPIFFE ID, empty without a certificate.
    caller: String,
    calls: Vec<&'static str>,
}

#[derive(Clone)]
struct Service {
    seen: Arc<Seen>,
    hello: wire::HelloResponse,
    /// Answers anonymous attestations only.
    refuse_identified: bool,
    control: X509Authority,
    node: SpiffeId,
}

/// Who is at the other end of which connection.
#[derive(Clone, Default)]
struct Caller(usize, String);

struct Stream(usize, tokio_rustls::server::TlsStream<TcpStream>);

impl Connected for Stream {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        let peer = signet_certs::tls::peer_svid(self.1.get_ref().1);
        Caller(
            self.0,
            peer.map(|peer| peer.spiffe_id().as_str().to_owned())
                .unwrap_or_default(),
        )
    }
}

impl Service {
    fn saw<T>(&self, request: &Request<T>, call: &'static str) -> String {
        let Caller(connection, caller) = request.extensions().get::<Caller>().cloned().unwrap_or_default();
        self.seen.calls.fetch_add(1, Ordering::SeqCst);
        let mut conversations = self.seen.conversations.lock();
        let known = conversations
            .iter_mut()
            .find(|conversation| conversation.connection == connection);
        match known {
            Some(conversation) => conversation.calls.push(call),
            None => conversations.push(Conversation {
                connection,
                caller: caller.clone(),
                calls: vec![call],
            }),
        }
        caller
    }
}

#[tonic::async_trait]
impl Agent for Service {
    async fn hello(
        &self,
        request: Request<wire::HelloRequest>,
    ) -> Result<Response<wire::HelloResponse>, Status> {
        self.saw(&request, "Hello");
        Ok(Response::new(self.hello.clone()))
    }

    async fn attest_node(
        &self,
        request: Request<wire::AttestNodeRequest>,
    ) -> Result<Response<wire::AttestNodeResponse>, Status> {
        let caller = self.saw(&request, "AttestNode");
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
        self.saw(&request, "IssueX509Svids");
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
        self.saw(&request, "SyncTrust");
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

    type GetTrustStream = Self::SyncTrustStream;

    async fn get_trust(
        &self,
        request: Request<wire::GetTrustRequest>,
    ) -> Result<Response<Self::GetTrustStream>, Status> {
        self.saw(&request, "GetTrust");
        Err(Status::unavailable("nothing is read here"))
    }
}

struct Bench {
    time: Arc<AgentTime>,
    client: GrpcServer,
    identity: Arc<RotatingIdentity>,
    control: X509Authority,
    seen: Arc<Seen>,
    /// Connections of the client.
    wires: Wires,
    anchors_file: std::path::PathBuf,
    anchors: Arc<ControlAnchors>,
    server: AbortHandle,
    _directory: tempfile::TempDir,
}

/// Serial of the server's certificate.
const OF_THE_SERVER: u8 = 200;

/// How the server differs from the one that the agent expects.
struct Odd {
    spiffe_id: SpiffeId,
    /// Signs the server's certificate instead of the control authority that the agent trusts.
    impostor: Option<X509Authority>,
    /// What the server sends after its leaf to those who ask.
    links: Vec<AuthorityCertificate>,
    /// What the agent's file holds instead of the control authority.
    anchor: Option<X509Authority>,
    hello: wire::HelloResponse,
    refuse_identified: bool,
}

/// The introduction of a server of this build.
fn hello_of(trust_domain: &str) -> wire::HelloResponse {
    wire::HelloResponse {
        version: Some(opening::VERSION),
        features: opening::names(),
        trust_domain: trust_domain.to_owned(),
        clock_unix_ms: signet_certs::time::unix_millis(at(0)),
        ..wire::HelloResponse::default()
    }
}

impl Default for Odd {
    fn default() -> Self {
        Self {
            spiffe_id: id("/signet/server"),
            impostor: None,
            links: Vec::new(),
            anchor: None,
            hello: hello_of("example.org"),
            refuse_identified: false,
        }
    }
}

impl Bench {
    async fn new(odd: Odd) -> Self {
        let control = control_authority(DOMAIN);
        let signer = odd.impostor.clone().unwrap_or_else(|| control.clone());
        let clock = AgentTime::new(Arc::new(FakeClock::new(at(0))));
        let seen = Arc::new(Seen::default());
        let service = Service {
            seen: seen.clone(),
            hello: odd.hello.clone(),
            refuse_identified: odd.refuse_identified,
            control: control.clone(),
            node: id("/signet/agent/kind/node-1"),
        };
        let (address, server) = serve(service, &signer, &odd, &control).await;
        let wires = Wires::default();
        let address = wires.lay(address).await;
        let directory = signet_testkit::folder();
        let anchors_file = directory.path().join("anchors.pem");
        let anchor = odd.anchor.as_ref().unwrap_or(&control);
        std::fs::write(&anchors_file, anchor.certificate().pem()).unwrap();
        let anchors = ControlAnchors::load(&trust_domain(), &anchors_file, directory.path(), at(0)).unwrap();
        let identity = Arc::new(RotatingIdentity::new());
        let client = GrpcServer::new(
            Tcp::new(&address.to_string()),
            &trust_domain(),
            anchors.clone(),
            identity.clone(),
            clock.clone(),
            KeyExchanges::default(),
        );
        Self {
            client,
            time: clock,
            identity,
            control,
            seen,
            wires,
            anchors_file,
            anchors,
            server,
            _directory: directory,
        }
    }

    fn identify(&self, path: &str) {
        let svid = svid(&self.control, path);
        self.identity.set(&svid).unwrap();
        self.client.identity_changed(svid.serial());
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

    /// Who said what over each connection, oldest first.
    fn conversations(&self) -> Vec<(String, Vec<&'static str>)> {
        let conversations = self.seen.conversations.lock();
        conversations
            .iter()
            .map(|one| (one.caller.clone(), one.calls.clone()))
            .collect()
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
    odd: &Odd,
    control: &X509Authority,
) -> (SocketAddr, AbortHandle) {
    let identity = Arc::new(RotatingIdentity::new());
    let own = leaf(signer, odd.spiffe_id.as_str()).serial(serial(OF_THE_SERVER));
    identity.set(&own.svid()).unwrap();
    identity.set_links(&odd.links);
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
    let incoming = stream::unfold((listener, 1), move |(listener, number)| {
        let acceptor = acceptor.clone();
        async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                if let Ok(tls) = acceptor.accept(tcp).await {
                    let stream = Stream(number, tls);
                    return Some((Ok::<_, std::io::Error>(stream), (listener, number + 1)));
                }
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
            Pin::new(&mut self.1).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Stream {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
            Pin::new(&mut self.1).poll_write(cx, buf)
        }
        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
            Pin::new(&mut self.1).poll_flush(cx)
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
            Pin::new(&mut self.1).poll_shutdown(cx)
        }
    }
}

const NODE_1: &str = "spiffe://example.org/signet/agent/kind/node-1";
const NODE_2: &str = "spiffe://example.org/signet/agent/kind/node-2";

#[tokio::test]
async fn the_node_attests_without_a_certificate_and_then_uses_its_own() {
    let bench = Bench::new(Odd::default()).await;
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
    let evidence = IssueEvidence::PodToken {
        token: crate::token::PodToken::new("pod token", at(3600)),
        of_pod: "uid".to_owned(),
    };
    let outcomes = bench
        .client
        .issue(vec![item(evidence), item(IssueEvidence::Unix(facts))])
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
        bench.conversations(),
        [
            (String::new(), vec!["Hello", "AttestNode"]),
            (NODE_1.to_owned(), vec!["Hello", "IssueX509Svids"]),
        ]
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
    assert!(bench.attest().await.is_err());
    std::fs::write(&bench.anchors_file, recovered.certificate().pem()).unwrap();
    // The attempt that finds the new file goes by it.
    bench.attest().await.unwrap();
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
        bench.conversations(),
        [
            (NODE_1.to_owned(), vec!["Hello", "AttestNode"]),
            (String::new(), vec!["Hello", "AttestNode"]),
        ]
    );
}

#[tokio::test]
async fn a_newer_certificate_is_used_from_the_next_call_on() {
    let bench = Bench::new(Odd::default()).await;
    bench.identify("/signet/agent/kind/node-1");
    bench.client.issue(Vec::new()).await.unwrap();
    bench.identify("/signet/agent/kind/node-2");
    bench.client.issue(Vec::new()).await.unwrap();
    let opened = vec!["Hello", "IssueX509Svids"];
    assert_eq!(
        bench.conversations(),
        [(NODE_1.to_owned(), opened.clone()), (NODE_2.to_owned(), opened)]
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
        hello: hello_of("elsewhere.test"),
        ..Odd::default()
    })
    .await;
    let error = bench.attest().await.unwrap_err();
    assert!(
        matches!(&error, ServerError::Refused(text) if text.contains("elsewhere.test")),
        "{error:?}"
    );
}

#[tokio::test]
async fn nothing_follows_the_hello_of_a_server_of_another_major_version() {
    let bench = Bench::new(Odd {
        hello: wire::HelloResponse {
            version: Some(wire::ProtocolVersion { major: 2, minor: 0 }),
            ..hello_of("example.org")
        },
        ..Odd::default()
    })
    .await;
    let error = bench.attest().await.unwrap_err();
    assert!(
        matches!(&error, ServerError::Refused(text) if text.contains("upgrade")),
        "{error:?}"
    );
    assert_eq!(bench.conversations(), [(String::new(), vec!["Hello"])]);
}

#[tokio::test]
async fn calls_that_come_together_share_one_connection_and_its_one_hello() {
    let bench = Bench::new(Odd::default()).await;
    bench.identify("/signet/agent/kind/node-1");
    let calls = (0..16).map(|_| bench.client.issue(Vec::new()));
    for outcome in futures_util::future::join_all(calls).await {
        outcome.unwrap();
    }
    let mut said = vec!["Hello"];
    said.extend(["IssueX509Svids"; 16]);
    assert_eq!(bench.conversations(), [(NODE_1.to_owned(), said)]);
}

#[tokio::test]
async fn a_connection_that_was_lost_is_replaced_by_one_that_begins_with_hello() {
    let bench = Bench::new(Odd::default()).await;
    bench.identify("/signet/agent/kind/node-1");
    let reports = watch::Sender::new(TrustReport::default());
    let mut updates = bench
        .client
        .sync_trust(reports.subscribe(), nothing())
        .await
        .unwrap();
    updates.next().await.unwrap().unwrap();
    bench.wires.cut();
    assert!(updates.next().await.unwrap().is_err(), "the stream was cut");
    bench.client.issue(Vec::new()).await.unwrap();
    let _updates = bench
        .client
        .sync_trust(reports.subscribe(), nothing())
        .await
        .unwrap();
    assert_eq!(
        bench.conversations(),
        [
            (NODE_1.to_owned(), vec!["Hello", "SyncTrust"]),
            (NODE_1.to_owned(), vec!["Hello", "IssueX509Svids", "SyncTrust"]),
        ]
    );
}

#[tokio::test]
async fn with_a_server_of_version_1_0_there_are_the_features_of_1_0() {
    let recorded = include_bytes!("../../../../tests/fixtures/protocol/minor0/hello_response.bin");
    let hello: wire::HelloResponse = prost::Message::decode(recorded.as_slice()).unwrap();
    let bench = Bench::new(Odd {
        // Its time, too, is the agent's, and the certificates here are of another.
        hello: wire::HelloResponse {
            clock_unix_ms: hello_of("example.org").clock_unix_ms,
            ..hello
        },
        ..Odd::default()
    })
    .await;
    bench.attest().await.unwrap();
    bench.identify("/signet/agent/kind/node-1");
    bench.client.issue(Vec::new()).await.unwrap();
    let agreed = bench.client.identified().await.unwrap().agreed;
    assert_eq!(
        (agreed.version().minor, agreed.names()),
        (0, vec!["pod-token".to_owned(), "unix".to_owned()])
    );
}
