//! Mutual TLS between two workloads while their world changes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use signet_certs::authority::X509Authority;
use signet_certs::crl::Crl;
use signet_certs::svid::X509Svid;
use signet_runtime::clock::FakeClock;
use signet_testkit::{DOMAIN, authority, chain, crl, crl_at, id, leaf, now, svid};
use signet_workload::{
    BundleSource, Options, Peer, PeerRule, Role, TlsError, Unhealthy, VerifyError, X509Source,
    any_server_name,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use common::agent::{FakeAgent, Say};
use common::message::message;

struct Workload {
    agent: FakeAgent,
    source: X509Source,
}

impl Workload {
    async fn new(first: Say) -> Self {
        let agent = FakeAgent::new(first);
        let source = agent.source();
        timeout(Duration::from_secs(10), source.ready())
            .await
            .unwrap()
            .unwrap();
        Self { agent, source }
    }

    /// Says something new and waits until the source has `leaf` and trusts `authorities` authorities.
    async fn learns(&self, leaf: &X509Svid, authorities: &[&X509Authority], crls: &[&Crl]) {
        self.agent.say(Say::State(message(leaf, authorities, crls)));
        let newest: Vec<_> = crls.iter().map(|crl| crl.sha256()).collect();
        let mut changes = self.source.changes();
        let taken = changes.wait_for(|state| {
            let Some(context) = &state.context else {
                return false;
            };
            let known = context.roots.authorities(&leaf.spiffe_id().trust_domain());
            let in_force: Vec<_> = known
                .iter()
                .filter_map(|known| known.crl.as_ref())
                .map(|crl| crl.sha256())
                .collect();
            context.svids[0].svid.serial() == leaf.serial()
                && known.len() == authorities.len()
                && newest.iter().all(|crl| in_force.contains(crl))
        });
        timeout(Duration::from_secs(10), taken)
            .await
            .expect("in time")
            .unwrap();
    }
}

type Client = (client::TlsStream<DuplexStream>, Peer);
type Server = (server::TlsStream<DuplexStream>, Peer);

async fn handshake(
    client: &Workload,
    servers: PeerRule,
    server: &Workload,
    clients: PeerRule,
) -> (Result<Client, TlsError>, Result<Server, TlsError>) {
    let (near, far) = duplex(64 * 1024);
    let connector = client.source.connector(servers).unwrap();
    let acceptor = server.source.acceptor(clients).unwrap();
    tokio::join!(connector.connect(near), acceptor.accept(far))
}

async fn connected(client: &Workload, server: &Workload) -> (Client, Server) {
    let (near, far) = handshake(client, PeerRule::Any, server, PeerRule::Any).await;
    (near.unwrap(), far.unwrap())
}

async fn say_and_hear(near: &mut Client, far: &mut Server) {
    near.0.write_all(b"ping").await.unwrap();
    near.0.flush().await.unwrap();
    let mut heard = [0; 4];
    far.0.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"ping");
}

/// What refused the handshake, in rustls' words.
fn reason(outcome: Result<Server, TlsError>) -> String {
    match outcome {
        Err(error @ TlsError::Handshake(_)) => error.to_string(),
        Err(error) => panic!("refused after the handshake: {error}"),
        Ok(_) => panic!("accepted"),
    }
}

#[tokio::test]
async fn a_live_connection_survives_rotation_and_new_ones_see_the_new_certificate() {
    let (old, new) = (authority(DOMAIN), authority(DOMAIN));
    let (caller, callee) = (svid(&old, "/web"), svid(&old, "/api"));
    let old_crl = crl(&old, 1, &[]);
    let web = Workload::new(Say::State(message(&caller, &[&old], &[&old_crl]))).await;
    let api = Workload::new(Say::State(message(&callee, &[&old], &[&old_crl]))).await;
    let (mut near, mut far) = connected(&web, &api).await;
    assert_eq!(
        (near.1.id(), far.1.id()),
        (callee.spiffe_id(), caller.spiffe_id())
    );
    assert_eq!(near.1.svid().serial(), callee.serial());
    say_and_hear(&mut near, &mut far).await;

    // The server's certificate comes from the next authority; both trust both.
    let (next, next_crl) = (svid(&new, "/api"), crl(&new, 1, &[]));
    web.learns(&caller, &[&old, &new], &[&old_crl, &next_crl]).await;
    api.learns(&next, &[&old, &new], &[&old_crl, &next_crl]).await;
    say_and_hear(&mut near, &mut far).await;
    assert_eq!((near.1.recheck(), far.1.recheck()), (Ok(()), Ok(())));
    let ((_, seen), _) = connected(&web, &api).await;
    assert_eq!(seen.svid().serial(), next.serial());
    assert_eq!(seen.svid().authority_id(), new.certificate().id());
}

#[tokio::test]
async fn a_revoked_peer_is_refused_and_its_live_connection_cut() {
    let ca = authority(DOMAIN);
    let (caller, callee) = (svid(&ca, "/web"), svid(&ca, "/api"));
    let empty = crl(&ca, 1, &[]);
    let web = Workload::new(Say::State(message(&caller, &[&ca], &[&empty]))).await;
    let api = Workload::new(Say::State(message(&callee, &[&ca], &[&empty]))).await;
    let (mut near, far) = connected(&web, &api).await;
    let (stream, peer) = far;
    let serving = tokio::spawn(async move {
        let held = async move {
            let _held = stream;
            pending::<()>().await;
        };
        peer.while_trusted(held).await
    });

    let revoking = crl(&ca, 2, &[caller.serial()]);
    api.learns(&callee, &[&ca], &[&revoking]).await;
    let reason_to_cut = timeout(Duration::from_secs(10), serving)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(
        reason_to_cut,
        VerifyError::Revoked {
            id: caller.spiffe_id().clone(),
            serial: caller.serial()
        }
    );
    let mut rest = Vec::new();
    let cut = timeout(Duration::from_secs(10), near.0.read_to_end(&mut rest))
        .await
        .unwrap();
    assert!(cut.is_err() && rest.is_empty(), "cut without a goodbye");

    let (near, far) = handshake(&web, PeerRule::Any, &api, PeerRule::Any).await;
    assert!(reason(far).contains("Revoked"));
    // In TLS 1.3 the client learns of it at its first read.
    let mut stream = near.unwrap().0;
    assert!(stream.read_u8().await.is_err());

    // Re-keyed, it is welcome again.
    let again = svid(&ca, "/web");
    web.learns(&again, &[&ca], &[&revoking]).await;
    let (_, (_, peer)) = connected(&web, &api).await;
    assert_eq!(peer.svid().serial(), again.serial());
}

#[tokio::test]
async fn a_revoked_server_is_refused_by_its_clients() {
    let ca = authority(DOMAIN);
    let (caller, callee) = (svid(&ca, "/web"), svid(&ca, "/api"));
    let web = Workload::new(Say::State(message(
        &caller,
        &[&ca],
        &[&crl(&ca, 2, &[callee.serial()])],
    )))
    .await;
    let api = Workload::new(Say::State(message(&callee, &[&ca], &[&crl(&ca, 1, &[])]))).await;
    let (near, _) = handshake(&web, PeerRule::Any, &api, PeerRule::Any).await;
    assert!(near.expect_err("refused").to_string().contains("Revoked"));
}

#[tokio::test]
async fn a_connection_is_cut_when_its_authority_leaves_the_bundle() {
    let (old, new) = (authority(DOMAIN), authority(DOMAIN));
    let (crl, next_crl) = (crl(&old, 1, &[]), crl(&new, 1, &[]));
    let web = Workload::new(Say::State(message(&svid(&old, "/web"), &[&old], &[&crl]))).await;
    let api = Workload::new(Say::State(message(&svid(&old, "/api"), &[&old], &[&crl]))).await;
    let (_near, (_stream, peer)) = connected(&web, &api).await;
    api.learns(&svid(&new, "/api"), &[&new], &[&next_crl]).await;
    let why = timeout(Duration::from_secs(10), peer.revoked()).await.unwrap();
    assert_eq!(why, VerifyError::AuthorityGone(old.certificate().id()));
}

#[tokio::test]
async fn without_a_crl_nobody_is_accepted() {
    let ca = authority(DOMAIN);
    let with = Workload::new(Say::State(message(
        &svid(&ca, "/web"),
        &[&ca],
        &[&crl(&ca, 1, &[])],
    )))
    .await;
    let without = Workload::new(Say::State(message(&svid(&ca, "/api"), &[&ca], &[]))).await;
    let (_, far) = handshake(&with, PeerRule::Any, &without, PeerRule::Any).await;
    assert!(reason(far).contains("UnknownRevocationStatus"));
}

#[tokio::test]
async fn rules_choose_among_valid_peers() {
    let ca = authority(DOMAIN);
    let (caller, callee) = (svid(&ca, "/web"), svid(&ca, "/api"));
    let crl = crl(&ca, 1, &[]);
    let web = Workload::new(Say::State(message(&caller, &[&ca], &[&crl]))).await;
    let api = Workload::new(Say::State(message(&callee, &[&ca], &[&crl]))).await;
    let api_only = PeerRule::Exactly(callee.spiffe_id().clone());
    let (near, far) = handshake(
        &web,
        api_only.clone(),
        &api,
        PeerRule::Exactly(caller.spiffe_id().clone()),
    )
    .await;
    assert!(near.is_ok() && far.is_ok());
    let (_, far) = handshake(&web, api_only, &api, PeerRule::Exactly(id("/admin"))).await;
    let why = far.expect_err("refused").to_string();
    assert_eq!(
        why,
        "the peer is refused: spiffe://example.org/web is not accepted as a peer here"
    );
    let (near, _) = handshake(&web, PeerRule::OneOf(vec![]), &api, PeerRule::Any).await;
    assert!(near.is_err());
}

#[tokio::test]
async fn sessions_are_not_resumed_and_no_tickets_are_sent() {
    let ca = authority(DOMAIN);
    let web = Workload::new(Say::State(message(
        &svid(&ca, "/web"),
        &[&ca],
        &[&crl(&ca, 1, &[])],
    )))
    .await;
    let api = Workload::new(Say::State(message(
        &svid(&ca, "/api"),
        &[&ca],
        &[&crl(&ca, 1, &[])],
    )))
    .await;
    let connector = web.source.connector(PeerRule::Any).unwrap();
    let acceptor = api.source.acceptor(PeerRule::Any).unwrap();
    for _ in 0..2 {
        let (near, far) = duplex(64 * 1024);
        let (near, far) = tokio::join!(connector.connect(near), acceptor.accept(far));
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        say_and_hear(&mut near, &mut far).await;
        assert_eq!(
            near.0.get_ref().1.handshake_kind(),
            Some(rustls::HandshakeKind::Full)
        );
        assert_eq!(near.0.get_ref().1.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn the_verifier_of_a_source_serves_other_stacks_too() {
    let ca = authority(DOMAIN);
    let api = svid(&ca, "/api");
    let web = Workload::new(Say::State(message(
        &svid(&ca, "/web"),
        &[&ca],
        &[&crl(&ca, 1, &[])],
    )))
    .await;
    assert_eq!(
        web.source.verify(&chain(&api), Role::Server).unwrap().id(),
        api.spiffe_id()
    );
    assert_eq!(
        web.source.verify(&[], Role::Server).unwrap_err(),
        VerifyError::EmptyChain
    );
    let config = web.source.server_config(PeerRule::Any, &[b"h2"]).unwrap();
    assert_eq!(
        (config.alpn_protocols, config.send_tls13_tickets),
        (vec![b"h2".to_vec()], 0)
    );
}

/// Neither side shows a certificate that has ended, whoever makes the handshake.
#[tokio::test]
async fn nothing_is_presented_after_its_end() {
    let ca = authority(DOMAIN);
    let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
    let crl = crl_at(&ca, 1, &[], now(), now() + day);
    let agent = FakeAgent::new(Say::State(message(
        &leaf(&ca, "/old").ttl(hour).svid(),
        &[&ca],
        &[&crl],
    )));
    let clock = FakeClock::new(now());
    let old = X509Source::start(Options {
        clock: Arc::new(clock.clone()),
        ..agent.options()
    });
    old.ready().await.unwrap();
    let api = Workload::new(Say::State(message(
        &leaf(&ca, "/api").ttl(day).svid(),
        &[&ca],
        &[&crl],
    )))
    .await;
    let as_client = TlsConnector::from(Arc::new(old.client_config(PeerRule::Any, &[]).unwrap()));
    let as_server = TlsAcceptor::from(Arc::new(old.server_config(PeerRule::Any, &[]).unwrap()));
    let connector = old.connector(PeerRule::Any).unwrap();
    let acceptor = old.acceptor(PeerRule::Any).unwrap();
    clock.set_offset(3601);

    let (near, far) = duplex(64 * 1024);
    let accepting = api.source.acceptor(PeerRule::Any).unwrap();
    let (_, far) = tokio::join!(as_client.connect(any_server_name(), near), accepting.accept(far));
    let reason = reason(far);
    assert!(reason.contains("peer sent no certificates"), "{reason}");

    let (near, far) = duplex(64 * 1024);
    let connecting = api.source.connector(PeerRule::Any).unwrap();
    let (near, far) = tokio::join!(connecting.connect(near), as_server.accept(far));
    assert!(near.is_err(), "no certificate came");
    assert!(
        far.unwrap_err()
            .to_string()
            .contains("no server certificate chain resolved")
    );

    let one_way = TlsAcceptor::from(Arc::new(old.one_way_server_config(&[]).unwrap()));
    let (near, far) = duplex(64 * 1024);
    let connecting = api.source.connector(PeerRule::Any).unwrap();
    let (near, far) = tokio::join!(connecting.connect(near), one_way.accept(far));
    assert!(near.is_err() && far.is_err(), "no certificate came");

    // Where the handshake is ours we say so instead.
    let (near, far) = duplex(64 * 1024);
    for error in [
        connector.connect(near).await.map(drop).unwrap_err(),
        acceptor.accept(far).await.map(drop).unwrap_err(),
    ] {
        assert!(
            matches!(error, TlsError::NoIdentity(Unhealthy::Expired { .. })),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_client_without_an_identity_verifies_servers_as_others_do() {
    let ca = authority(DOMAIN);
    let callee = svid(&ca, "/api");
    let api = Workload::new(Say::State(message(&callee, &[&ca], &[&crl(&ca, 1, &[])]))).await;
    let bundles = BundleSource::start(api.agent.options());
    bundles.ready().await.unwrap();
    let one_way = TlsAcceptor::from(Arc::new(api.source.one_way_server_config(&[]).unwrap()));
    let connect = async |allow: PeerRule| {
        let connector = bundles.connector(allow).unwrap();
        let (near, far) = duplex(64 * 1024);
        tokio::join!(connector.connect(near), one_way.accept(far))
    };
    let (near, far) = connect(PeerRule::Exactly(callee.spiffe_id().clone())).await;
    let (_stream, server) = near.unwrap();
    assert_eq!(server.id(), callee.spiffe_id());
    let far = far.unwrap();
    assert!(
        far.get_ref().1.peer_certificates().is_none(),
        "nobody in particular"
    );
    let (near, _) = connect(PeerRule::Exactly(id("/other"))).await;
    assert!(matches!(near, Err(TlsError::Peer(VerifyError::NotAllowed(_)))));

    // Revoked, it is cut and refused.
    let revoking = crl(&ca, 2, &[callee.serial()]);
    api.learns(&callee, &[&ca], &[&revoking]).await;
    let why = timeout(Duration::from_secs(10), server.revoked()).await.unwrap();
    assert!(matches!(why, VerifyError::Revoked { .. }), "{why}");
    let (near, _) = connect(PeerRule::Any).await;
    assert!(near.is_err());
    // Where servers ask for a certificate, such a client has none to give.
    let mutual = api.source.acceptor(PeerRule::Any).unwrap();
    let connector = bundles.connector(PeerRule::Any).unwrap();
    let (near, far) = duplex(64 * 1024);
    let (_, far) = tokio::join!(connector.connect(near), mutual.accept(far));
    assert!(far.is_err());
}

#[tokio::test]
async fn a_client_that_says_nothing_holds_up_nobody() {
    let ca = authority(DOMAIN);
    let crl = crl(&ca, 1, &[]);
    let web = Workload::new(Say::State(message(&svid(&ca, "/web"), &[&ca], &[&crl]))).await;
    let api = Workload::new(Say::State(message(&svid(&ca, "/api"), &[&ca], &[&crl]))).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = api.source.acceptor_for(PeerRule::Any, &[b"h2"]).unwrap();
    let mut incoming = acceptor.incoming(listener);
    let connector = web.source.connector(PeerRule::Any).unwrap();
    let calling = async {
        // As many as may have a handshake under way.
        let mut silent = Vec::new();
        for _ in 0..256 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let stream = TcpStream::connect(address).await.unwrap();
        connector.connect(stream).await.unwrap()
    };
    let both = async { tokio::join!(incoming.next(), calling) };
    let ((_stream, caller), _) = timeout(Duration::from_secs(5), both).await.expect("at once");
    assert_eq!(caller.id(), &id("/web"));
}
