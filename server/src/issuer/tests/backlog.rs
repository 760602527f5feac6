//! Nothing is issued that could not be audited, and nobody is told that something is.

use signet_runtime::ready::{Level, Readiness};
use tokio::sync::watch;

use super::*;
use crate::{
    audit::{AuditBound, AuditProgress, WhenFull},
    readiness::{self, REASONS, Watched},
};

impl World {
    /// What says at this moment that a server with these lines does not issue.
    fn in_the_way(&self, backlog: &AuditBacklog) -> Vec<&'static str> {
        let (running, readiness) = (&self.running, Readiness::new(REASONS));
        let watched = Watched {
            clock: running.trusted.clone(),
            store: running.store.clone(),
            view: running.manager.current(),
            snapshots: running.publisher.snapshots(),
            publishing: running.publisher.trouble(),
            put_back: watch::Sender::new(None).subscribe(),
            own_valid_until: watch::Sender::new(Some(running.now() + HOUR)).subscribe(),
            attestor: self.attestor.clone(),
            audit: backlog.clone(),
        };
        readiness::start(watched, &readiness, &running.drain);
        let standing = readiness.standing(Level::Issue);
        standing.iter().map(|one| one.reason.name).collect()
    }
}

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
    let backlog = AuditBacklog::new(stored.subscribe(), progress.subscribe(), bound);
    world.issuer.parts.backlog = backlog.clone();
    let waiting = world.issue_one(item(csr(), "pod-token")).await;
    assert!(is_unavailable(&waiting), "{waiting:?}");
    let node = world.issuer.issue_to_node(node_request("first"), None).await;
    assert!(is_unavailable(&node));
    assert_eq!(world.in_the_way(&backlog), ["audit_stuck"]);
    assert_eq!(world.audited_refusals().await, [""; 0], "it is no verdict");
    progress.send_modify(|progress| progress.emitted = 1);
    issued(world.issue_one(item(csr(), "pod-token")).await);
    assert_eq!(world.in_the_way(&backlog), [""; 0]);
    progress.send_modify(|progress| progress.emitted = 0);
    world.deny().await;
}
