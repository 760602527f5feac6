use std::{
    net::{IpAddr, Ipv4Addr},
    task::{Context, Poll, Waker},
};

use rustls::{AlertDescription, Error};
use rustls_pki_types::ServerName;
use signet_certs::{
    authority::AuthorityKind,
    id::SpiffeId,
    tls::{PeerRule, RotatingIdentity, SpiffeVerifier, client_config, server_config, time_provider},
};
use signet_runtime::refusals::Refused;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    time::sleep,
};
use tokio_rustls::{TlsConnector, client};

use super::{
    connection::{PARTING, Place},
    places::{CONNECTIONS_PER_AGENT, CONNECTIONS_PER_GUEST},
    *,
};
use crate::{
    agents::Agents,
    api::allowance::STRANGERS_PER_SOURCE,
    audit::AuditLog,
    fixtures::{HOUR, Running},
    store::{Denial, DenialTarget, Generation, Revoked},
    trust::keep_control_roots,
};

const ROOMS: Rooms = Rooms {
    handshakes: 64,
    agents: 256,
    guests: 64,
    strangers: 1024,
};

fn agent(n: usize) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org/signet/agent/dev/node-{n}")).unwrap()
}

fn source(n: usize) -> Source {
    IpAddr::from([10, 0, (n / 256) as u8, (n % 256) as u8]).into()
}

#[test]
fn strangers_take_no_agents_place_and_one_address_or_agent_not_everyones() {
    let places = Connections::new(ROOMS);
    let stranger = |n| {
        places
            .take(Claim::Stranger, &Caller::Stranger(source(n)))
            .unwrap()
    };
    let is_lost = |place: &mut Place| match place {
        Place::Stranger(place) => place.poll_lost(&mut Context::from_waker(Waker::noop())) == Poll::Ready(()),
        _ => panic!("a stranger's"),
    };
    // Of one address, those that came last are open, and as many as one may have.
    let mut of_one: Vec<Place> = (0..2 * STRANGERS_PER_SOURCE).map(|_| stranger(0)).collect();
    let lost: Vec<bool> = of_one.iter_mut().map(is_lost).collect();
    let (older, newer) = lost.split_at(STRANGERS_PER_SOURCE);
    assert!(older.iter().all(|lost| *lost) && !newer.iter().any(|lost| *lost));
    let mut open: Vec<Place> = (1..ROOMS.strangers).map(stranger).collect();
    assert_eq!(places.strangers.taken(), ROOMS.strangers);
    assert!(!open.iter_mut().any(is_lost), "they take from whom has more");
    let by = |claim, caller: Caller| places.take(claim, &caller);
    let guests: Vec<Place> = std::iter::from_fn(|| by(Claim::Guest, Caller::Guest(agent(0)))).collect();
    assert_eq!(guests.len(), CONNECTIONS_PER_GUEST);
    let first = Claim::Agent(Generation { epoch: 1, number: 1 });
    let of_one: Vec<Place> = std::iter::from_fn(|| by(first, Caller::Agent(agent(0)))).collect();
    assert_eq!(of_one.len(), CONNECTIONS_PER_AGENT, "guests take none of them");
    assert!(by(first, Caller::Agent(agent(1))).is_some());
}

/// A connection whose client has its own handshake behind it.
struct Connected {
    stream: client::TlsStream<DuplexStream>,
    agents: Arc<Agents>,
    finished: mpsc::Receiver<io::Result<PeerConnection<DuplexStream>>>,
}

/// By the certificate of an agent that begins so much later.
async fn connected(running: &Running, later: Duration) -> Connected {
    let now = running.now();
    let view = running.manager.current().borrow().clone();
    let authority = view.kind(AuthorityKind::Control).active().unwrap().x509();
    let identity = |path, at| {
        let identity = Arc::new(RotatingIdentity::new());
        let svid = signet_testkit::leaf(authority, path).at(at).svid();
        identity.set(&svid).unwrap();
        identity
    };
    let control = keep_control_roots(running.publisher.snapshots(), &running.drain);
    let verifier = || SpiffeVerifier::new(control.clone(), PeerRule::Any);
    let (server, strangers) = (identity("/signet/server", now), verifier());
    let tls = move |refused| {
        let verifier = strangers.clone().telling(refused);
        let mut tls = server_config(server.clone(), verifier, false, &[b"h2"])?;
        tls.time_provider = time_provider(move || now);
        Ok(tls)
    };
    let early = identity("/signet/agent/c/n", now + later);
    let mut client = client_config(Some(early), verifier(), &[b"h2"]).unwrap();
    client.time_provider = time_provider(move || now);
    let audit = AuditLog::start(running.store.clone());
    let agents = Arc::new(Agents::new(running.store.clone(), audit.clone()));
    let door = Arc::new(Door {
        tls: Arc::new(tls),
        handshakes: Arc::new(Handshakes::new(ROOMS.handshakes)),
        connections: Connections::new(ROOMS),
        judges: Judges {
            agents: agents.clone(),
            clock: running.trusted.clone(),
            audit,
        },
        refusals: Refusals::new("agents", &Refused::default(), REASONS),
        key_exchanges: KeyExchanges::default(),
    });
    let (near, far) = duplex(64 << 10);
    let (sender, finished) = mpsc::channel(1);
    door.admit(far, SocketAddr::from(([10, 0, 0, 1], 1)), &sender);
    let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
    let connector = TlsConnector::from(Arc::new(client));
    let stream = connector.connect(name, near).await.unwrap();
    Connected {
        stream,
        agents,
        finished,
    }
}

/// A client is judged when it has its own handshake behind it and goes on talking. A close would answer that with a reset, which
/// may overtake the alert: an agent that never hears it goes on presenting what it has.
///
/// Covers INV-16.
#[tokio::test(start_paused = true)]
async fn whose_certificate_is_refused_hears_it_even_while_talking() {
    let running = Running::new().await;
    let mut stream = connected(&running, 2 * HOUR).await.stream;
    // By then the server has judged.
    sleep(Duration::from_millis(1)).await;
    for _ in 0..2 {
        let said = stream.write_all(b"more").await;
        said.expect("a reset would overtake the alert");
    }
    let heard = stream.read(&mut [0]).await.unwrap_err();
    let alert = heard.get_ref().and_then(|error| error.downcast_ref());
    assert_eq!(
        alert,
        Some(&Error::AlertReceived(AlertDescription::CertificateExpired))
    );
    let (mut carrier, _) = stream.into_inner();
    carrier.write_all(b"more").await.unwrap();
    sleep(PARTING).await;
    let said = carrier.write_all(b"more").await;
    said.expect_err("nobody is waited for without end");
}

/// Neither its peer nor a call on it has to do anything for that. Covers INV-12.
#[tokio::test(start_paused = true)]
async fn the_connection_of_an_agent_that_is_denied_ends_within_a_second() {
    let running = Running::new().await;
    let mut connected = connected(&running, Duration::ZERO).await;
    let mut ours = connected.finished.recv().await.unwrap().unwrap();
    let ends = tokio::spawn(async move { ours.read(&mut [0]).await });
    sleep(Duration::from_secs(3600)).await;
    assert!(!ends.is_finished());
    for (denied, cut) in [(id_of_node("m"), false), (id_of_node("n"), true)] {
        connected.agents.after(&Revoked {
            svids: Vec::new(),
            fresh: 0,
            denial: Some(Denial {
                id: "d1-1".to_owned(),
                target: DenialTarget::Prefix(denied),
                author: String::new(),
                comment: String::new(),
                created: running.now(),
                expires: None,
                lifted: None,
            }),
            revision: 1,
        });
        sleep(Duration::from_secs(1)).await;
        assert_eq!(ends.is_finished(), cut);
    }
    assert!(ends.await.unwrap().is_err());
    drop(connected.stream);
}

fn id_of_node(uid: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org/signet/agent/c/{uid}")).unwrap()
}
