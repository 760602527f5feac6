use std::sync::Arc;
use std::time::{Duration, SystemTime};

use signet_certs::id::SpiffeId;

use super::fixture::{DAY, HOUR, at, authority, by_id, by_serial, id, issuance, issue, of_agent, revocation};
use crate::store::{
    AgentRow, Attestation, Generation, Generations, IssueRefusal, KnownTime, NewIssuance, Presented,
    PresentedCertificate, RevokeRequest, Standing, Store,
};

/// Attests the agent of node `n`; returns what it then presents.
async fn attested(store: &Arc<dyn Store>, now: SystemTime) -> PresentedCertificate {
    let item = of_agent("n", now);
    let certificate = PresentedCertificate {
        spiffe_id: item.workload.spiffe_id.clone(),
        authority: item.authority,
        serial: item.serial,
        not_after: item.not_after,
        earliest: now,
    };
    issue(store, item, now).await.unwrap();
    certificate
}

async fn present(store: &Arc<dyn Store>, certificate: &PresentedCertificate, now: SystemTime) -> Presented {
    let certificate = PresentedCertificate {
        earliest: now,
        ..certificate.clone()
    };
    store.present(certificate, now).await.unwrap()
}

async fn standing(store: &Arc<dyn Store>, certificate: &PresentedCertificate, now: SystemTime) -> Standing {
    present(store, certificate, now).await.standing
}

/// What a pod of its node gets by it.
async fn asks(
    store: &Arc<dyn Store>,
    certificate: &PresentedCertificate,
    now: SystemTime,
) -> Result<(), IssueRefusal> {
    let item = NewIssuance {
        caller: Some(certificate.serial),
        ..issuance("/a", "one", now)
    };
    issue(store, item, now).await
}

pub(crate) async fn an_agent_is_remembered_once(store: Arc<dyn Store>) {
    let first = of_agent("a", at(0));
    let (other, again) = (of_agent("b", at(1)), of_agent("a", at(2)));
    for item in [&first, &other, &again] {
        issue(&store, item.clone(), at(2)).await.unwrap();
    }
    let row = |item: &NewIssuance, number| AgentRow {
        spiffe_id: item.workload.spiffe_id.clone(),
        cluster: "c".into(),
        node_name: item.workload.node_name.clone(),
        node_uid: item.workload.node_uid.clone(),
        serial: item.serial,
        authority: authority(1),
        attested_at: item.attestation.as_ref().unwrap().attested_at,
        expires_at: item.not_after,
        pod_uid: item.attestation.as_ref().unwrap().pod_uid.clone(),
        reported: 0,
        generations: Generations {
            issued: Generation { epoch: 1, number },
            ..Generations::default()
        },
    };
    assert_eq!(store.agents().await.unwrap(), [row(&again, 2), row(&other, 1)]);
}

/// Covers INV-12.
pub(crate) async fn the_first_use_of_a_certificate_ends_the_older_ones(store: Arc<dyn Store>) {
    let (old, new) = (attested(&store, at(0)).await, attested(&store, at(1)).await);
    let first = present(&store, &old, at(2)).await;
    assert_eq!((first.standing, first.supersedes), (Standing::Counts, false));
    asks(&store, &old, at(2)).await.unwrap();
    let second = present(&store, &new, at(3)).await;
    assert_eq!((second.standing, second.supersedes), (Standing::Counts, true));
    assert!(second.generation > first.generation);
    assert!(!present(&store, &new, at(3)).await.supersedes, "only once");
    for _ in 0..2 {
        assert_eq!(standing(&store, &old, at(4)).await, Standing::Superseded);
        assert_eq!(
            asks(&store, &old, at(4)).await,
            Err(IssueRefusal::Caller(Standing::Superseded)),
            "a call that was admitted before"
        );
    }
    asks(&store, &new, at(4)).await.unwrap();
    let late = attested(&store, at(5)).await;
    let over = late.not_after + Duration::from_secs(1);
    assert!(!present(&store, &late, over).await.supersedes);
    assert_eq!(
        standing(&store, &new, over).await,
        Standing::Counts,
        "who has expired uses nothing"
    );
}

pub(crate) async fn a_clock_that_goes_back_makes_no_certificate_older(store: Arc<dyn Store>) {
    let ahead = attested(&store, at(200)).await;
    present(&store, &ahead, at(200)).await;
    let later = attested(&store, at(100)).await;
    assert!(later.serial < ahead.serial);
    assert_eq!(standing(&store, &later, at(100)).await, Standing::Counts);
    asks(&store, &later, at(100)).await.unwrap();
    assert_eq!(standing(&store, &ahead, at(100)).await, Standing::Superseded);
}

/// Covers INV-11, INV-12.
pub(crate) async fn an_agent_that_is_revoked_or_denied_gets_nothing_by_what_it_has(store: Arc<dyn Store>) {
    let (one, two) = (attested(&store, at(0)).await, attested(&store, at(1)).await);
    store
        .revoke(revocation(by_serial(one.serial), at(2)))
        .await
        .unwrap();
    assert_eq!(standing(&store, &one, at(2)).await, Standing::Revoked);
    assert_eq!(
        asks(&store, &one, at(2)).await,
        Err(IssueRefusal::Caller(Standing::Revoked))
    );
    asks(&store, &two, at(2)).await.expect("a newer one counts");
    let kept = RevokeRequest {
        keep_issuing: true,
        ..revocation(by_id(two.spiffe_id.path()), at(3))
    };
    store.revoke(kept).await.unwrap();
    assert_eq!(
        asks(&store, &two, at(3)).await,
        Err(IssueRefusal::Caller(Standing::Revoked))
    );
    let three = attested(&store, at(4)).await;
    asks(&store, &three, at(4)).await.unwrap();
    let denied = store
        .revoke(revocation(by_id(three.spiffe_id.path()), at(5)))
        .await
        .unwrap();
    let denial = denied.denial.unwrap().id;
    assert_eq!(
        standing(&store, &three, at(5)).await,
        Standing::Denied(denial.clone())
    );
    assert_eq!(
        asks(&store, &three, at(5)).await,
        Err(IssueRefusal::Caller(Standing::Denied(denial.clone())))
    );
    assert!(matches!(
        issue(&store, of_agent("n", at(6)), at(6)).await,
        Err(IssueRefusal::Denied { .. })
    ));
    store.allow(&denial, "bob", at(7)).await.unwrap();
    assert_eq!(
        standing(&store, &three, at(7)).await,
        Standing::Revoked,
        "a denial that is lifted revives nothing"
    );
    let four = attested(&store, at(8)).await;
    asks(&store, &four, at(8)).await.unwrap();
}

/// Covers INV-12: what a list need not name any more is refused all the same.
pub(crate) async fn expiry_gives_no_revoked_agent_anything_back(store: Arc<dyn Store>) {
    let one = attested(&store, at(0)).await;
    store
        .revoke(revocation(by_serial(one.serial), at(1)))
        .await
        .unwrap();
    for days in [0, 1, 3, 7] {
        let now = at(0) + 5 * HOUR + days * DAY;
        store.housekeeping(KnownTime::settled(now)).await.unwrap();
        assert_eq!(
            standing(&store, &one, now).await,
            Standing::Revoked,
            "{days} days"
        );
    }
}

pub(crate) async fn what_the_ledger_lacks_is_unknown(store: Arc<dyn Store>) {
    let known = attested(&store, at(0)).await;
    let foreign = of_agent("n", at(1));
    let lost = PresentedCertificate {
        serial: foreign.serial,
        ..known.clone()
    };
    assert_eq!(standing(&store, &lost, at(2)).await, Standing::Unknown);
    assert_eq!(
        asks(&store, &lost, at(2)).await,
        Err(IssueRefusal::Caller(Standing::Unknown))
    );
    let stolen_name = PresentedCertificate {
        spiffe_id: id("/signet/agent/c/other"),
        ..known.clone()
    };
    assert_eq!(standing(&store, &stolen_name, at(2)).await, Standing::Unknown);
    let pod = issuance("/a", "one", at(0));
    issue(&store, pod.clone(), at(0)).await.unwrap();
    let no_agent = PresentedCertificate {
        serial: pod.serial,
        ..known.clone()
    };
    assert_eq!(standing(&store, &no_agent, at(2)).await, Standing::Unknown);
    assert_eq!(standing(&store, &known, at(2)).await, Standing::Counts);
}

/// Who is live, and what each has reported.
async fn live(store: &Arc<dyn Store>, now: SystemTime) -> Vec<(SpiffeId, u64)> {
    let live = store.live_agents(now).await.unwrap();
    live.into_iter()
        .map(|agent| (agent.spiffe_id, agent.reported))
        .collect()
}

/// Covers INV-8.
pub(crate) async fn who_is_waited_for_holds_a_certificate_that_counts(store: Arc<dyn Store>) {
    let [a, b, c] = ["a", "b", "c"].map(|node| of_agent(node, at(0)));
    for item in [&a, &b, &c] {
        issue(&store, item.clone(), at(0)).await.unwrap();
    }
    let [id_a, id_b, id_c] = [&a, &b, &c].map(|item| (item.workload.spiffe_id.clone(), 0));
    let silent = [id_a.clone(), id_b.clone(), id_c.clone()];
    assert_eq!(live(&store, at(1)).await, silent, "who never spoke too");
    store
        .revoke(revocation(by_serial(b.serial), at(2)))
        .await
        .unwrap();
    assert_eq!(live(&store, at(2)).await, [id_a.clone(), id_c.clone()]);
    let denied = store
        .revoke(revocation(by_id(c.workload.spiffe_id.path()), at(3)))
        .await
        .unwrap();
    assert_eq!(live(&store, at(3)).await, std::slice::from_ref(&id_a));
    store
        .allow(&denied.denial.unwrap().id, "bob", at(4))
        .await
        .unwrap();
    assert_eq!(
        live(&store, at(4)).await,
        std::slice::from_ref(&id_a),
        "its certificate stays revoked"
    );
    issue(&store, of_agent("b", at(5)), at(5)).await.unwrap();
    assert_eq!(live(&store, at(5)).await, [id_a, id_b.clone()]);
    let over = at(1) + 4 * HOUR;
    assert_eq!(
        live(&store, over).await,
        [id_b],
        "who has expired is not waited for"
    );
}

/// Covers INV-8.
pub(crate) async fn what_an_agent_reported_is_kept_until_it_reports_something_else(store: Arc<dyn Store>) {
    let [a, b] = ["a", "b"].map(|node| of_agent(node, at(0)));
    for item in [&a, &b] {
        issue(&store, item.clone(), at(0)).await.unwrap();
    }
    let [a, b] = [a, b].map(|item| item.workload.spiffe_id);
    let stranger = (id("/signet/agent/c/stranger"), 9);
    let said = vec![(a.clone(), 7), (b.clone(), 5), stranger];
    store.record_reports(said).await.unwrap();
    let by_certificate = NewIssuance {
        attestation: Some(Attestation {
            cluster: "c".into(),
            attested_at: at(6),
            pod_uid: String::new(),
        }),
        ..of_agent("a", at(6))
    };
    issue(&store, by_certificate, at(6)).await.unwrap();
    let kept = [(a.clone(), 7), (b.clone(), 5)];
    assert_eq!(live(&store, at(6)).await, kept, "a renewal leaves what was said");
    assert_eq!(store.live_agents(at(6)).await.unwrap()[0].pod_uid, "a-agent-pod");
    store.record_reports(vec![(a.clone(), 0)]).await.unwrap();
    assert_eq!(
        live(&store, at(7)).await,
        [(a, 0), (b, 5)],
        "it has lost what it held"
    );
}
