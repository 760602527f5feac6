//! Whoever asks for certificates of workloads need not be an agent; and one is asked for its certificate to the end.

use futures_util::future::{BoxFuture, FutureExt as _, ready};
use signet_certs::jws::JwsError;

use super::*;
use crate::attest::{AttestError, Attestor, RefusedReason};
use crate::issuer::requester::{Proven, Requester};
use crate::store::AgentShare;

/// A pod that calls from an address of its own and proves itself; nobody brings it, and it has no certificate yet.
struct PodItself {
    address: &'static str,
    token: &'static str,
}

impl Requester for PodItself {
    fn name(&self) -> &str {
        self.address
    }

    fn certificate(&self) -> Option<SerialNumber> {
        None
    }

    fn agent(&self) -> Option<&SpiffeId> {
        None
    }

    fn prove<'a>(
        &'a self,
        _attestor: &'a dyn Attestor,
        evidence: &'a Evidence,
    ) -> BoxFuture<'a, Result<Proven, AttestError>> {
        let proven = match evidence {
            Evidence::PodToken { token, .. } if **token == self.token => {
                Ok(Proven::Pod(Box::new(pod("node-of-nobody"))))
            }
            _ => Err(RefusedReason::Token(JwsError::BadSignature).into()),
        };
        ready(proven).boxed()
    }

    fn share(&self, _attestor: &dyn Attestor, _proven: &Proven, _identities: u32) -> AgentShare {
        AgentShare::Itself
    }
}

const POD: PodItself = PodItself {
    address: "192.0.2.7",
    token: "its-own",
};

async fn ask(world: &World, item: IssueItem) -> Outcome {
    let answered = world.issuer.issue(&POD, vec![item]).await;
    answered.unwrap().outcomes.pop().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_requester_that_is_no_agent_is_issued_to_and_its_row_names_none() {
    let world = World::new().await;
    let before = world.running.store.issued().len();
    let leaf = inspect_leaf(&issued(ask(&world, item(csr(), "its-own")).await).chain[0]).unwrap();
    let row = &world.running.store.issued()[before];
    assert_eq!(leaf.serial, row.serial);
    assert_eq!(row.workload.agent_id, "");
    assert_eq!(row.caller, None);
    assert_eq!(row.workload.pod_uid, "pod-uid");
    assert_eq!(row.workload.node_name, "node-of-nobody");
    // What it proves nothing by is refused under its own name, whoever else could prove it.
    let (reason, _) = refused(ask(&world, item(csr(), "pod-token")).await);
    assert_eq!(reason, RefusalReason::NotAttested);
    world.audit.flush().await;
    let callers = world.running.store.audit_events();
    let refused = callers.iter().find_map(|event| match event.action() {
        AuditAction::Refused { caller, .. } => Some(caller.clone()),
        _ => None,
    });
    assert_eq!(refused.as_deref(), Some("192.0.2.7"));
}

/// Covers INV-11.
#[tokio::test(start_paused = true)]
async fn a_requester_that_is_no_agent_is_held_to_denials_and_to_its_workloads_budget() {
    let world = World::new().await;
    let mut got = 0;
    let spent = loop {
        match ask(&world, item(csr(), "its-own")).await {
            Ok(_) => got += 1,
            Err(NotIssued::Refused(refusal)) => break refusal,
            Err(other) => panic!("{other:?}"),
        }
        assert!(got < 1000, "it goes on for ever");
    };
    assert_eq!(spent.reason, RefusalReason::Budget);
    assert_eq!(got, 8 + 64);
    world.running.pass(spent.retry_after.unwrap()).await;
    world.deny().await;
    let (reason, _) = refused(ask(&world, item(csr(), "its-own")).await);
    assert_eq!(reason, RefusalReason::Denied);
}

/// Agents and others are told apart by name: what one asks for in vain takes nothing of another's.
#[tokio::test(start_paused = true)]
async fn what_a_requester_that_is_no_agent_asks_for_in_vain_is_its_own_to_pay() {
    let world = World::new().await;
    let batch = || (0..256).map(|_| item(csr(), "made-up")).collect();
    let mut refused_items = 0;
    let wait = loop {
        match world.issuer.issue(&POD, batch()).await {
            Ok(answered) => refused_items += answered.outcomes.len(),
            Err(CallRefused::Fruitless(wait)) => break wait,
            Err(other) => panic!("{other:?}"),
        }
        assert!(refused_items < 10_000, "it goes on for ever");
    };
    assert_eq!(refused_items, 1024);
    issued(world.issue_one(item(csr(), "pod-token")).await);
    world.running.pass(wait).await;
    issued(ask(&world, item(csr(), "its-own")).await);
}

/// A revoked agent gets nothing, although its call was let in before; and where a newer certificate of it is used meanwhile, it
/// has to ask by that.
///
/// Covers INV-12.
#[tokio::test(start_paused = true)]
async fn a_call_that_was_let_in_gets_nothing_by_a_certificate_that_counts_no_more() {
    let world = World::new().await;
    let ask = async || {
        let (agent, items) = (agent("node-a"), vec![item(csr(), "pod-token")]);
        world
            .issuer
            .issue(&CallingAgent::new(agent, world.serial()), items)
            .await
    };
    assert!(ask().await.unwrap().outcomes[0].is_ok());
    let before = world.running.store.issued().len();
    world.attestor.add_node("node-token", node(world.running.now()));
    let newer = world.issuer.issue_to_node(node_request("node-token"), None).await;
    let newer = inspect_leaf(&newer.unwrap().chain[0]).unwrap();
    let certificate = PresentedCertificate {
        spiffe_id: newer.spiffe_id.clone(),
        authority: newer.authority_id,
        serial: newer.serial,
        not_after: newer.not_after,
        earliest: world.running.now(),
    };
    let (store, now) = (&world.running.store, world.running.now());
    store.present(certificate, now).await.unwrap();
    let superseded = ask().await.unwrap_err();
    assert!(
        matches!(superseded, CallRefused::Certificate(Standing::Superseded)),
        "{superseded:?}"
    );
    deny(store.as_ref(), &newer.spiffe_id, now).await;
    let denied = ask().await.unwrap_err();
    assert!(
        matches!(denied, CallRefused::Certificate(Standing::Denied(_))),
        "{denied:?}"
    );
    assert_eq!(
        store.issued().len(),
        before + 1,
        "no row but the newer certificate's"
    );
    assert_eq!(world.audited_refusals().await.len(), 2);
}
