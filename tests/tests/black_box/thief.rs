//! What somebody has of a part that he stole, and what ends it: each test is a line of docs/threat-model.md.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    rand::SystemRandom,
};
use rusqlite::{Connection, OpenFlags};
use rustls::{ServerConfig, crypto::ring as provider};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use signet_certs::{
    authority::{AuthorityCertificate, X509Authority},
    bundle::parse_pem_certificates,
    signer::{LeafKey, LocalSigner},
    svid::X509Svid,
};
use signet_proto::agent::refusal::Reason;
use signet_runtime::clock::{Clock as _, SystemClock};
use signet_tests::{
    agent_client::{ClientCertificate, RawAgent, new_csr, pod_item},
    domain::{Agent, Domain, Plan, TRUST_DOMAIN},
    wait::eventually,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_rustls::TlsAcceptor;
use tonic::Code;

use super::support::{assert_refused, id_of, identity_of, pod_with_volume};

/// Nobody's, and as an agent's is.
const AGENT: &str = "/signet/agent/box/0d7c5a3e-9b7d-4682-8a11-000000000001";

/// The authority with its key: from a copy of the server's data and the key that opens it.
fn authority_stolen_from(domain: &Domain, certificate: AuthorityCertificate, kind: &str) -> X509Authority {
    let copy = signet_testkit::folder();
    for file in ["signet.db", "signet.db-wal"] {
        let _ = fs::copy(domain.server.data_dir().join(file), copy.path().join(file));
    }
    let database =
        Connection::open_with_flags(copy.path().join("signet.db"), OpenFlags::SQLITE_OPEN_READ_WRITE);
    let id = certificate.id();
    let (epoch, nonce, mut sealed): (i64, [u8; 12], Vec<u8>) = database
        .unwrap()
        .query_row(
            "SELECT epoch, nonce, ciphertext FROM sealed_key WHERE purpose = ?1 AND lower(hex(authority_id)) = ?2",
            (kind, id.to_string()),
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    let kek = fs::read(domain.server.folder().join("kek")).unwrap();
    let kek = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &kek).unwrap());
    let about = format!("signet sealed key v1\n{TRUST_DOMAIN}\n{kind}\n{id}\n{epoch}\n");
    let nonce = Nonce::assume_unique_for_key(nonce);
    let key = kek.open_in_place(nonce, Aad::from(about), &mut sealed).unwrap();
    let signer = LocalSigner::from_pkcs8(key, SystemRandom::new()).unwrap();
    X509Authority::new(certificate, Arc::new(signer)).unwrap()
}

/// The newest of the control authorities that agents are told.
fn control_authority_of(domain: &Domain) -> AuthorityCertificate {
    let anchors = fs::read_to_string(domain.server.anchors()).unwrap();
    let newest = parse_pem_certificates(&anchors).unwrap().pop().unwrap();
    AuthorityCertificate::from_der(&newest).unwrap()
}

fn forged(authority: &X509Authority, id: &str) -> X509Svid {
    signet_testkit::leaf(authority, id).at(SystemClock.now()).svid()
}

fn as_client(svid: &X509Svid) -> ClientCertificate {
    let key = LeafKey::from_pkcs8(svid.key().pkcs8_der().to_vec().into(), &SystemRandom::new());
    ClientCertificate {
        chain: svid.chain().to_vec(),
        key: key.unwrap(),
    }
}

/// Somebody who says that he is the server, and whether whoever calls him believes it: an agent ends its half of the handshake once it
/// has judged the other.
struct FalseServer {
    address: SocketAddr,
    believed: mpsc::UnboundedReceiver<bool>,
}

impl FalseServer {
    async fn with(key_of: &X509Authority) -> Self {
        let svid = forged(key_of, "/signet/server");
        let chain = svid
            .chain()
            .iter()
            .map(|der| CertificateDer::from(der.clone()))
            .collect();
        let key = PrivatePkcs8KeyDer::from(svid.key().pkcs8_der().to_vec());
        let config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth();
        let mut config = config.with_single_cert(chain, PrivateKeyDer::Pkcs8(key)).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, believed) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = tell.send(acceptor.accept(stream).await.is_ok());
            }
        });
        Self { address, believed }
    }

    /// Whether an agent that knows these anchors, and that calls him for the first time, takes him for the server.
    async fn is_believed_by(&mut self, domain: &Domain, node: &str, anchors: &Path) -> bool {
        let mut agent: Agent = domain.prepare_agent(node).unwrap();
        let changes = [
            ("/server/address".to_owned(), self.address.to_string().into()),
            ("/trust/anchors_file".to_owned(), anchors.to_str().unwrap().into()),
        ];
        agent.change(&changes).unwrap();
        agent.spawn().unwrap();
        let believed = self.believed.recv().await.unwrap();
        agent.kill().await;
        while self.believed.try_recv().is_ok() {}
        believed
    }
}

async fn in_emergency_for(grace: &str) -> Domain {
    let plan = Plan::default().server("/authority/emergency_grace", json!(grace));
    plan.start().await.unwrap()
}

/// The key and the chain of a workload, wherever they are used.
#[tokio::test]
async fn a_workloads_key_is_that_workload_until_its_serial_is_revoked() {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    let stolen = front.identity().await.svid;
    let peer = agent.workload(&pod_with_volume(&domain, &agent, "back").await);
    peer.identity().await.judge(&stolen).unwrap();
    // No door of the server opens to it.
    assert!(shut_out(&domain, &stolen).await);

    let args = [
        "revoke",
        "--serial",
        &stolen.serial().to_string(),
        "--reason",
        "keyCompromise",
    ];
    domain.server.admin(&args).await.unwrap();
    eventually("the peer to refuse it", async || {
        peer.identity().await.judge(&stolen).is_err().then_some(())
    })
    .await;
    // The workload itself goes on with another key.
    let next = eventually("another key", async || {
        let now = front.fetch().await.ok()?.svid;
        (now.serial() != stolen.serial()).then_some(now)
    })
    .await;
    assert_ne!(next.key().public_key_spki(), stolen.key().public_key_spki());
    peer.identity().await.judge(&next).unwrap();
}

/// Whether the server answers nothing to whoever shows this certificate as an agent's.
async fn shut_out(domain: &Domain, shown: &X509Svid) -> bool {
    is_shut_out(domain, &as_client(shown)).await
}

async fn is_shut_out(domain: &Domain, shown: &ClientCertificate) -> bool {
    let Ok(mut line) = RawAgent::connect(domain.server.agents(), Some(shown)).await else {
        return true;
    };
    line.hello().await.is_err() || line.shut_out().await.is_some()
}

/// A token that was read in a pod, or on its way.
#[tokio::test]
async fn a_pods_token_is_nothing_without_the_agent_of_its_node() {
    let domain = Domain::start().await.unwrap();
    let stolen = domain.shop_pod("front", "node-a").unwrap();
    let (mut elsewhere, _) = domain.raw_agent("node-b").await.unwrap();
    let outcome = elsewhere.issue_one(new_csr().unwrap(), &stolen).await.unwrap();
    assert_refused("of another node", outcome, Reason::NotAttested);
    let mut stranger = RawAgent::connect(domain.server.agents(), None).await.unwrap();
    stranger.hello().await.unwrap();
    let status = stranger
        .issue(vec![pod_item(new_csr().unwrap(), &stolen)])
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");

    // The pod's own node is the thief's: then the pod itself is denied, and its token ends with it.
    let (mut own, _) = domain.raw_agent("node-a").await.unwrap();
    own.issue_good(&stolen).await.unwrap();
    domain
        .server
        .admin(&["revoke", "--pod", "shop/front"])
        .await
        .unwrap();
    let outcome = own.issue_one(new_csr().unwrap(), &stolen).await.unwrap();
    assert_refused("denied", outcome, Reason::Denied);
    domain.kube.delete_pod("shop", "front").unwrap();
    eventually("the token to end with its pod", async || {
        let outcome = own.issue_one(new_csr().unwrap(), &stolen).await.ok()?;
        format!("{outcome:?}").contains("NotAttested").then_some(())
    })
    .await;
}

/// All that an agent has: its certificate with the key, and the token of its node.
#[tokio::test]
async fn an_agents_key_and_token_are_its_node_until_the_agent_is_banned() {
    let domain = Domain::start().await.unwrap();
    let token = domain.shop_pod("front", "node-a").unwrap();
    let far = domain.shop_pod("far", "node-b").unwrap();
    let (_, stolen) = domain.raw_agent("node-a").await.unwrap();
    let mut thief = RawAgent::connect(domain.server.agents(), Some(&stolen))
        .await
        .unwrap();
    thief.hello().await.unwrap();
    let yielded = thief.issue_good(&token).await.unwrap();
    let outcome = thief.issue_one(new_csr().unwrap(), &far).await.unwrap();
    assert_refused("a pod of another node", outcome, Reason::NotAttested);

    assert!(!is_shut_out(&domain, &stolen).await);
    domain.server.admin(&["agent", "ban", "node-a"]).await.unwrap();
    let status = eventually("the thief to be shut out", async || thief.shut_out().await).await;
    assert!(format!("{status:?}").contains("is revoked"), "{status:?}");
    assert!(is_shut_out(&domain, &stolen).await);
    let attested = domain.raw_agent("node-a").await.map(drop).unwrap_err();
    assert!(
        format!("{attested:#}").contains("denied"),
        "the node's token attests nobody any more: {attested:#}"
    );
    // What he got meanwhile is revoked with all that runs on the node.
    domain
        .server
        .admin(&["revoke", "--node", "node-a"])
        .await
        .unwrap();
    let serial = signet_certs::verify::inspect_leaf(&yielded.certificate_chain[0])
        .unwrap()
        .serial;
    let listed = domain.server.admin(&["crl", "show"]).await.unwrap().to_string();
    assert!(listed.contains(&serial.to_string()), "{listed}");
}

/// The key that signs what workloads show each other.
#[tokio::test]
async fn a_workload_authoritys_key_is_every_workload_until_an_emergency_is_over() {
    let domain = in_emergency_for("12s").await;
    let agent = domain.agent("node-a").await.unwrap();
    let front = agent.workload(&pod_with_volume(&domain, &agent, "front").await);
    let before = front.identity().await;
    let stolen = authority_stolen_from(&domain, before.authorities[0].certificate.clone(), "x509");
    let thief = forged(&stolen, &id_of("nobody"));
    before.judge(&thief).unwrap();
    // Of what is said between server and agents it is worth nothing.
    assert!(shut_out(&domain, &thief).await);
    assert!(shut_out(&domain, &forged(&stolen, AGENT)).await);
    let mut server = FalseServer::with(&stolen).await;
    assert!(
        !server
            .is_believed_by(&domain, "node-b", &domain.server.anchors())
            .await
    );

    domain.server.admin(&["ca", "emergency"]).await.unwrap();
    let thief = forged(&stolen, &id_of("nobody"));
    let after = eventually("a bundle without it", async || {
        let now = front.fetch().await.ok()?;
        now.judge(&thief).is_err().then_some(now)
    })
    .await;
    after
        .judge(&identity_of(&domain, &agent, "back").await.svid)
        .unwrap();
}

/// The key that server and agents believe each other by, while it signs.
#[tokio::test]
async fn an_active_control_key_is_a_server_until_the_file_names_it() {
    let domain = in_emergency_for("5s").await;
    let agent = domain.agent("node-a").await.unwrap();
    identity_of(&domain, &agent, "front").await;
    let stolen = authority_stolen_from(&domain, control_authority_of(&domain), "control");
    let mut thief = FalseServer::with(&stolen).await;
    let anchors = domain.server.anchors();
    assert!(thief.is_believed_by(&domain, "node-b", &anchors).await);
    // It makes no agent: the ledger lacks what he signs.
    assert!(shut_out(&domain, &forged(&stolen, AGENT)).await);

    let emergency = ["ca", "emergency", "--kind", "control"];
    domain.server.admin(&emergency).await.unwrap();
    assert!(!thief.is_believed_by(&domain, "node-c", &anchors).await);
    identity_of(&domain, &agent, "back").await;
}

/// The key of one that was replaced: an anchor of earlier days still leads to whatever it signs.
#[tokio::test]
async fn a_retired_control_key_is_a_server_to_nodes_with_anchors_of_its_days() {
    let domain = Domain::start().await.unwrap();
    let first = domain.path().join("anchors-of-the-first-day.pem");
    fs::copy(domain.server.anchors(), &first).unwrap();
    let stolen = authority_stolen_from(&domain, control_authority_of(&domain), "control");
    let retire = ["ca", "rotate", "--retire", "--kind", "control"];
    domain.server.admin(&retire).await.unwrap();
    let mut thief = FalseServer::with(&stolen).await;
    assert!(thief.is_believed_by(&domain, "node-b", &first).await);
    // The file of today ends it.
    assert!(
        !thief
            .is_believed_by(&domain, "node-b", &domain.server.anchors())
            .await
    );
}

/// Memory and all, run again somewhere else: nobody attests it there, and the key that it holds is as good as it was.
#[tokio::test]
async fn a_checkpointed_pod_is_its_identity_until_its_serials_are_revoked() {
    let domain = Domain::start().await.unwrap();
    let (here, there) = (
        domain.agent("node-a").await.unwrap(),
        domain.agent("node-b").await.unwrap(),
    );
    let front = here.workload(&pod_with_volume(&domain, &here, "front").await);
    let restored = front.identity().await.svid;
    let peer = here.workload(&pod_with_volume(&domain, &here, "back").await);
    // Its token, which it holds too, is worth nothing to the agent that it is with now.
    let (mut agent_there, _) = domain.raw_agent("node-c").await.unwrap();
    let token = domain.pod_token("shop", "front").unwrap();
    let outcome = agent_there.issue_one(new_csr().unwrap(), &token).await.unwrap();
    assert_refused("restored on another node", outcome, Reason::NotAttested);
    domain.kube.delete_pod("shop", "front").unwrap();
    peer.identity().await.judge(&restored).unwrap();
    drop(there);

    let revoked = domain
        .server
        .admin(&["revoke", "--serial", &restored.serial().to_string()])
        .await
        .unwrap();
    assert_eq!(revoked["revoked_total"], 1, "{revoked}");
    eventually("peers to refuse it", async || {
        peer.identity().await.judge(&restored).is_err().then_some(())
    })
    .await;
}
