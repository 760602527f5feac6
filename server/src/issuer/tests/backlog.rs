//! Nothing is issued that could not be audited.

use tokio::sync::watch;

use super::*;
use crate::audit::{AuditBound, AuditProgress, WhenFull};

#[tokio::test]
async fn while_too_many_audit_lines_wait_nothing_is_issued_and_revoking_goes_on() {
    let mut world = World::new().await;
    let (stored, progress) = (
        watch::Sender::new(1_000),
        watch::Sender::<AuditProgress>::default(),
    );
    let bound = AuditBound {
        most: 1_000,
        when_full: WhenFull::StopIssuing,
    };
    world.issuer.parts.backlog = AuditBacklog::new(stored.subscribe(), progress.subscribe(), bound);
    let waiting = world.issue_one(item(csr(), "pod-token")).await;
    assert!(is_unavailable(&waiting), "{waiting:?}");
    let node = world.issuer.issue_to_node(node_request("first"), None).await;
    assert!(is_unavailable(&node));
    assert_eq!(world.audited_refusals().await, [""; 0], "it is no verdict");
    progress.send_modify(|progress| progress.emitted = 1);
    issued(world.issue_one(item(csr(), "pod-token")).await);
    progress.send_modify(|progress| progress.emitted = 0);
    world.deny().await;
}
