//! What several themes need.

use serde_json::Value;
use signet_proto::agent::{IssuedSvid, Refusal, issue_result::Outcome, refusal::Reason};
use signet_tests::domain::Domain;

/// The refusal in an outcome.
pub(crate) fn refusal(what: &str, outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refusal(refusal) => refusal,
        other => panic!("{what}: expected a refusal, not {other:?}"),
    }
}

/// The certificate in an outcome.
pub(crate) fn issued(what: &str, outcome: Outcome) -> IssuedSvid {
    match outcome {
        Outcome::Issued(issued) => issued,
        other => panic!("{what}: expected a certificate, not {other:?}"),
    }
}

/// Checks that it was refused for this reason, and that the refusal says more than that.
pub(crate) fn assert_refused(what: &str, outcome: Outcome, reason: Reason) -> String {
    let refusal = refusal(what, outcome);
    assert_eq!(refusal.reason(), reason, "{what}: {}", refusal.message);
    assert!(
        refusal.message.len() > 10,
        "{what}: says too little: {:?}",
        refusal.message
    );
    refusal.message
}

/// Certificates of workloads in the ledger: those of agents and of the server itself do not count.
pub(crate) async fn workload_svids(domain: &Domain) -> Vec<Value> {
    let list = domain.server.admin(&["svid", "list"]).await.unwrap();
    let all = list["svids"].as_array().expect("a list of svids").clone();
    let own = |svid: &Value| {
        svid["spiffe_id"]
            .as_str()
            .is_some_and(|id| id.contains("/signet/"))
    };
    all.into_iter().filter(|svid| !own(svid)).collect()
}

/// The lines of the audit log that contain all of these texts.
pub(crate) fn audit_lines(domain: &Domain, texts: &[&str]) -> Vec<Value> {
    let lines = domain.server.audit().unwrap();
    let fits = |line: &Value| {
        let line = line.to_string();
        texts.iter().all(|text| line.contains(text))
    };
    lines.into_iter().filter(fits).collect()
}
