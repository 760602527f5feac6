use std::{net::SocketAddr, time::Duration};

use signet_certs::{
    authority::AuthorityKind,
    id::SpiffeId,
    verify::{Role, verify_chain},
};
use signet_proto::agent::{HelloRequest, opening::VERSION};
use signet_runtime::{refusals::Refusals, spans::Connection};
use tonic::{Code, body::Body};

use super::{service::shape, *};
use crate::{
    api::allowance::{Caller, Line, STRANGERS_REQUEST},
    audit::{AuditAction, AuditEvent, AuditLog},
    fixtures::{HOUR, Running, deny},
    store::{Attestation, Ledger as _, NewIssuance, suite::fixture::of_agent},
    trust,
};

const fn agent(worth: Worth<'static>) -> CallerKind<'static> {
    CallerKind::Certificate { agent: true, worth }
}

const AGENT: CallerKind<'static> = agent(Worth::All);
const EXPIRED: CallerKind<'static> = agent(Worth::Stream("it has expired"));
const UNKNOWN: CallerKind<'static> = agent(Worth::Stream("no record of it"));
const REVOKED: CallerKind<'static> = agent(Worth::Nothing("it is revoked"));
const SERVER: CallerKind<'static> = CallerKind::Certificate {
    agent: false,
    worth: Worth::All,
};

/// Every RPC that the two protocols define, from their descriptors.
fn defined() -> Vec<String> {
    let set = <prost_types::FileDescriptorSet as prost::Message>::decode(signet_proto::DESCRIPTORS).unwrap();
    let mut paths = Vec::new();
    for file in set
        .file
        .iter()
        .filter(|f| matches!(f.package(), "signet.agent.v1" | "signet.admin.v1"))
    {
        for service in &file.service {
            for method in &service.method {
                paths.push(format!(
                    "/{}.{}/{}",
                    file.package(),
                    service.name(),
                    method.name()
                ));
            }
        }
    }
    paths
}

#[test]
fn the_table_names_every_rpc_once_and_nothing_else() {
    let mut named: Vec<&str> = ACCESS.iter().map(|(path, ..)| *path).collect();
    let mut defined = defined();
    named.sort_unstable();
    defined.sort_unstable();
    assert_eq!(named, defined);
}

const EVERYONE: [CallerKind<'static>; 7] = [
    CallerKind::Anonymous,
    AGENT,
    EXPIRED,
    UNKNOWN,
    REVOKED,
    SERVER,
    CallerKind::AdminSocket,
];

/// A connection after its Hello.
fn opened() -> Opening {
    let opening = Opening::default();
    let hello = HelloRequest {
        version: Some(VERSION),
        ..HelloRequest::default()
    };
    opening.open(&hello).unwrap();
    opening
}

fn allowed(access: Access) -> &'static [CallerKind<'static>] {
    match access {
        Access::Anyone => &[CallerKind::Anonymous, AGENT, EXPIRED, UNKNOWN, REVOKED, SERVER],
        Access::Agent => &[AGENT],
        Access::AgentEvenExpired => &[AGENT, EXPIRED, UNKNOWN],
        Access::AdminSocket => &[CallerKind::AdminSocket],
    }
}

#[test]
fn every_rpc_lets_in_exactly_whom_its_line_says() {
    let opened = opened();
    for (path, access, _) in ACCESS {
        for caller in EVERYONE {
            assert_eq!(
                decide(path, caller, &opened).is_ok(),
                allowed(*access).contains(&caller),
                "{path} for {caller:?}"
            );
        }
    }
}

#[test]
fn before_hello_every_rpc_is_refused_but_hello_itself_and_the_attestation_of_a_node() {
    let unopened = Opening::default();
    let of_agents = ACCESS
        .iter()
        .filter(|(_, access, _)| *access != Access::AdminSocket);
    for (path, access, _) in of_agents {
        let without_hello = path.ends_with("/Hello") || path.ends_with("/AttestNode");
        for caller in EVERYONE {
            let decided = decide(path, caller, &unopened);
            let code = decided.as_ref().map_or_else(Status::code, |()| Code::Ok);
            let expected = match caller {
                CallerKind::AdminSocket => Code::PermissionDenied,
                _ if without_hello && allowed(*access).contains(&caller) => Code::Ok,
                _ => Code::FailedPrecondition,
            };
            assert_eq!(code, expected, "{path} for {caller:?}");
        }
    }
}

#[test]
fn an_unknown_path_is_refused_for_everyone() {
    for caller in EVERYONE {
        for opening in [Opening::default(), opened()] {
            assert_eq!(
                decide("/signet.admin.v1.Admin/Shutdown", caller, &opening)
                    .unwrap_err()
                    .code(),
                Code::Unimplemented
            );
        }
    }
}

/// Bytes that reach the service of a request of this many bytes; none when it is cut off.
async fn accepted(path: &str, bytes: usize) -> Option<usize> {
    use http_body_util::{BodyExt as _, Full};
    let body = Body::new(Full::new(bytes::Bytes::from(vec![0; bytes])));
    let request = http::Request::builder().uri(path).body(body).unwrap();
    let agent = SpiffeId::parse("spiffe://example.org/signet/agent/c/n").unwrap();
    let granted = Allowances::new(Refusals::untold("agents"))
        .grant(Line::new(Caller::Agent(agent)))
        .unwrap();
    let request = granted.request(shape(path), request);
    let body = request.into_body().collect().await.ok()?;
    Some(body.to_bytes().len())
}

#[tokio::test]
async fn strangers_cannot_make_the_server_hold_a_large_request() {
    for path in [
        "/signet.agent.v1.Agent/Hello",
        "/signet.agent.v1.Agent/AttestNode",
    ] {
        assert_eq!(accepted(path, STRANGERS_REQUEST).await, Some(STRANGERS_REQUEST));
        assert_eq!(accepted(path, STRANGERS_REQUEST + 1).await, None);
    }
    let batch = 1 << 20;
    assert_eq!(
        accepted("/signet.agent.v1.Agent/IssueX509Svids", batch).await,
        Some(batch)
    );
}

const ISSUE: &str = "/signet.agent.v1.Agent/IssueX509Svids";
const SYNC: &str = "/signet.agent.v1.Agent/SyncTrust";

/// A server up to its authorities, and the layer in front of its services.
struct Door {
    running: Running,
    layer: AccessLayer,
}

impl Door {
    async fn new() -> Self {
        let running = Running::new().await;
        let audit = AuditLog::start(running.store.clone());
        let control = trust::keep_control_roots(running.publisher.snapshots(), &running.drain);
        let layer = AccessLayer {
            control: Some(control),
            agents: Arc::new(Agents::new(running.store.clone(), audit.clone())),
            clock: running.trusted.clone(),
            audit,
            allowances: Allowances::new(Refusals::untold("agents")),
        };
        Self { running, layer }
    }

    /// An agent's connection by a certificate of its own, which the ledger has or lacks.
    async fn agent(&self, is_recorded: bool, ttl: Duration) -> Peer {
        let view = self.running.manager.current().borrow().clone();
        let authority = view.kind(AuthorityKind::Control).active().unwrap().x509();
        let now = self.running.now();
        let svid = signet_testkit::leaf(authority, "/signet/agent/c/n")
            .at(now)
            .ttl(ttl)
            .svid();
        let roots = self.running.snapshot().control_roots();
        let chain = signet_testkit::chain(&svid);
        let svid = verify_chain(&chain, Role::Client, &roots, now).unwrap();
        if is_recorded {
            let row = NewIssuance {
                serial: svid.serial(),
                authority: svid.authority_id(),
                not_after: svid.not_after(),
                attestation: Some(Attestation {
                    cluster: "c".to_owned(),
                    attested_at: now,
                    pod_uid: String::new(),
                }),
                ..of_agent("n", now)
            };
            let recorded = self.running.store.issue(vec![row], now).await.unwrap();
            recorded.into_iter().for_each(|row| drop(row.unwrap()));
        }
        Peer {
            connection: Connection::new("agents"),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            line: Line::new(Caller::Agent(svid.spiffe_id().clone())),
            svid: Some(Arc::new(svid)),
            opening: opened(),
            key_exchange: None,
        }
    }

    /// What a call gets: all, the trust stream as a guest, or nothing and why.
    async fn lets_in(&self, path: &str, peer: &Peer) -> Result<bool, String> {
        let guest = self.layer.check(path, Some(peer.clone())).await;
        guest
            .map(|guest| guest.is_some())
            .map_err(|status| status.message().to_owned())
    }
}

/// What has expired, or is in no ledger, hears what is public and asks for nothing; and expiry gives an agent that is denied
/// nothing back.
///
/// Covers INV-12.
#[tokio::test(start_paused = true)]
async fn expiry_leaves_an_agent_its_trust_stream_and_one_that_is_denied_nothing() {
    let door = Door::new().await;
    let agent = door.agent(true, HOUR / 2).await;
    assert_eq!(door.lets_in(ISSUE, &agent).await, Ok(false));
    assert_eq!(door.lets_in(SYNC, &agent).await, Ok(false));
    let unknown = door.agent(false, HOUR / 2).await;
    assert!(
        door.lets_in(ISSUE, &unknown)
            .await
            .unwrap_err()
            .contains("no record")
    );
    assert_eq!(door.lets_in(SYNC, &unknown).await, Ok(true));
    door.running.pass(HOUR / 2 + Duration::from_secs(1)).await;
    assert!(door.lets_in(ISSUE, &agent).await.unwrap_err().contains("expired"));
    assert_eq!(door.lets_in(SYNC, &agent).await, Ok(true));
    let id = agent.svid.as_ref().unwrap().spiffe_id().clone();
    deny(door.running.store.as_ref(), &id, door.running.now()).await;
    for peer in [&agent, &unknown] {
        let why = door.lets_in(SYNC, peer).await.unwrap_err();
        assert!(why.contains("denied"), "{why}");
    }
}

/// A stolen certificate shows by being used: each use that is refused is told, with who, what, why and the serial.
#[tokio::test(start_paused = true)]
async fn every_refused_use_of_an_agents_certificate_is_a_line() {
    let door = Door::new().await;
    let (old, new) = (door.agent(true, HOUR).await, door.agent(true, HOUR).await);
    door.lets_in(ISSUE, &old).await.unwrap();
    door.lets_in(ISSUE, &new).await.unwrap();
    let unknown = door.agent(false, HOUR).await;
    door.lets_in(SYNC, &old).await.unwrap_err();
    door.lets_in(ISSUE, &unknown).await.unwrap_err();
    door.lets_in("/signet.admin.v1.Admin/Revoke", &new)
        .await
        .unwrap_err();
    let id = new.svid.as_ref().unwrap().spiffe_id().clone();
    deny(door.running.store.as_ref(), &id, door.running.now()).await;
    door.lets_in(SYNC, &new).await.unwrap_err();
    door.layer.audit.flush().await;
    let told = |event: &AuditEvent| match event.action() {
        AuditAction::Refused {
            caller,
            operation,
            kind,
            reason,
            ..
        } => {
            assert_eq!(caller, id.as_str());
            assert!(reason.contains(", serial "), "{reason}");
            Some((operation.clone(), *kind))
        }
        _ => None,
    };
    let events = door.running.store.audit_events();
    let lines: Vec<_> = events.iter().filter_map(told).collect();
    let expected = [
        ("SyncTrust", "superseded"),
        ("IssueX509Svids", "unknown"),
        ("Revoke", "not_allowed"),
        ("SyncTrust", "denied"),
    ];
    assert_eq!(
        lines,
        expected.map(|(operation, kind)| (operation.to_owned(), kind))
    );
}

/// Covers INV-12.
#[tokio::test(start_paused = true)]
async fn the_first_call_by_a_newer_certificate_ends_the_older_one() {
    let door = Door::new().await;
    let (old, new) = (door.agent(true, HOUR).await, door.agent(true, HOUR).await);
    assert_eq!(door.lets_in(ISSUE, &old).await, Ok(false));
    assert_eq!(door.lets_in(ISSUE, &new).await, Ok(false));
    for path in [ISSUE, SYNC] {
        let why = door.lets_in(path, &old).await.unwrap_err();
        assert!(why.contains("newer"), "{why}");
    }
    assert_eq!(door.lets_in(SYNC, &new).await, Ok(false));
}
