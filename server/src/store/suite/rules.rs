use std::{sync::Arc, time::SystemTime};

use super::fixture::{HOUR, at, authority, id, issuance, issue, of_agent, revocation};
use crate::audit_event::{AuditAction, AuditEvent};
use crate::store::{EvidenceKind, NewIssuance, RevokeTarget, RulesToKeep, Store, WorkloadRef};

pub(crate) async fn rules_are_kept_as_last_accepted_with_their_line(store: Arc<dyn Store>) {
    assert_eq!(store.accepted_rules().await.unwrap(), None);
    let long = "x".repeat(1 << 20);
    for body in ["first", "", long.as_str()] {
        let line = AuditEvent::new(at(1), AuditAction::ClockHealed {});
        store.keep_rules(accepted(body), vec![line]).await.unwrap();
        assert_eq!(store.accepted_rules().await.unwrap().as_deref(), Some(body));
    }
    assert_eq!(store.lines_after(0, 10).await.unwrap().len(), 3);
}

fn accepted(body: &str) -> RulesToKeep {
    RulesToKeep {
        accepted: Some(body.to_owned()),
        of_admins: None,
    }
}

pub(crate) async fn rules_of_admins_are_kept_apart_and_with_what_is_accepted(store: Arc<dyn Store>) {
    assert_eq!(store.admin_rules().await.unwrap(), None);
    let of_admins = |body: &str| RulesToKeep {
        accepted: None,
        of_admins: Some(body.to_owned()),
    };
    store.keep_rules(of_admins("waits"), vec![]).await.unwrap();
    assert_eq!(store.accepted_rules().await.unwrap(), None);
    store.keep_rules(accepted("first"), vec![]).await.unwrap();
    assert_eq!(store.admin_rules().await.unwrap().as_deref(), Some("waits"));
    let both = RulesToKeep {
        of_admins: Some("set".to_owned()),
        ..accepted("both")
    };
    store.keep_rules(both, vec![]).await.unwrap();
    assert_eq!(store.admin_rules().await.unwrap().as_deref(), Some("set"));
    assert_eq!(store.accepted_rules().await.unwrap().as_deref(), Some("both"));
}

/// Path, pod and rule of each.
async fn live_at(store: &Arc<dyn Store>, earliest: SystemTime) -> Vec<(String, String, String)> {
    let live = store.live_identities(earliest).await.unwrap();
    let mut live: Vec<_> = live
        .into_iter()
        .map(|live| {
            let path = live.workload.spiffe_id.path().to_owned();
            (path, live.workload.pod_uid, live.rule)
        })
        .collect();
    live.sort();
    live
}

pub(crate) async fn who_lives_by_rules_is_told_once_with_the_newest_rule(store: Arc<dyn Store>) {
    let by = |rule: &str, item: NewIssuance| NewIssuance {
        rule: rule.to_owned(),
        ..item
    };
    let process = NewIssuance {
        evidence: EvidenceKind::Unix,
        token_jti: None,
        workload: WorkloadRef {
            process: "uid=7 gid=7".into(),
            ..WorkloadRef::of(id("/vm"))
        },
        ..issuance("/vm", "", at(0))
    };
    let own = NewIssuance {
        evidence: EvidenceKind::Own,
        ..issuance("/signet/server", "", at(0))
    };
    let revoked = issuance("/ns/shop/sa/old", "pod-3", at(0));
    let revoked_serial = revoked.serial;
    for item in [
        by("first", issuance("/ns/shop/sa/web", "pod-1", at(0))),
        by("second", issuance("/ns/shop/sa/web", "pod-1", at(60))),
        by("second", issuance("/ns/shop/sa/web", "pod-2", at(60))),
        by("more", issuance("/more", "pod-1", at(0))),
        by("vm", process),
        own,
        of_agent("n", at(0)),
        revoked,
    ] {
        issue(&store, item, at(60)).await.unwrap();
    }
    let target = RevokeTarget::Serial {
        serial: revoked_serial,
        authority: Some(authority(1)),
        expires_by: None,
    };
    store.revoke(revocation(target, at(60))).await.unwrap();
    let live = async |earliest| live_at(&store, earliest).await;
    let entry = |path: &str, pod: &str, rule: &str| (path.to_owned(), pod.to_owned(), rule.to_owned());
    let web = [
        entry("/ns/shop/sa/web", "pod-1", "second"),
        entry("/ns/shop/sa/web", "pod-2", "second"),
    ];
    let [first, second] = web.clone();
    let all = [
        entry("/more", "pod-1", "more"),
        first,
        second,
        entry("/vm", "", "vm"),
    ];
    assert_eq!(live(at(60)).await, all);
    assert_eq!(live(at(30) + HOUR).await, web, "the others have ended");
    assert_eq!(live(at(60) + HOUR).await, []);
}
