//! What the audit log can say, a life makes it say.

use std::fs;

use serde_json::Value;
use signet_certs::time::unix_millis;
use signet_proto::admin::{
    AllowRequest, ConfirmClockRequest, RevokeAuthorityRequest, RevokeRequest, RotateAuthorityRequest,
    StartEmergencyRequest, TaintAuthorityRequest, revoke_request::Target,
};
use signet_runtime::clock::Clock as _;
use signet_server::testing::audit_faults;
use signet_testkit::provoked;

use crate::world::{HOUR, MINUTE, SILENT, World};

/// The whole lines of the log so far.
fn lines(world: &World) -> Vec<Value> {
    let text = fs::read_to_string(world.audit_log()).unwrap();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Time passes until the log has such a line, or the test fails.
async fn until(world: &World, action: &str) {
    for _ in 0..40 {
        if lines(world).iter().any(|line| line["event"] == action) {
            return;
        }
        world.pass(HOUR).await;
    }
    provoked(action, &lines(world));
}

/// A pod is denied and asks in vain, until it is allowed again.
async fn deny_and_allow(world: &World) {
    let mut admin = world.server.as_ref().unwrap().admin.clone();
    let id = format!("spiffe://example.org/ns/shop/sa/{}", world.nodes[0].pods[0].name);
    let request = RevokeRequest {
        target: Some(Target::SpiffeId(id)),
        reason: "keyCompromise".to_owned(),
        ..RevokeRequest::default()
    };
    let revoked = admin.revoke(request).await.unwrap().into_inner();
    until(world, "refused").await;
    let request = AllowRequest {
        denial_id: revoked.denial_id,
    };
    admin.allow(request).await.unwrap();
}

/// Another authority takes over, and the old one ends.
async fn rotate(world: &World) {
    let request = RotateAuthorityRequest {
        kind: "x509".to_owned(),
        force: false,
        ..RotateAuthorityRequest::default()
    };
    let mut admin = world.server.as_ref().unwrap().admin.clone();
    admin.rotate_authority(request).await.unwrap();
    until(world, "authority_expired").await;
}

/// Another authority takes over, and the one before it is taken out of every bundle.
async fn distrust(world: &World) {
    let request = RotateAuthorityRequest {
        kind: "x509".to_owned(),
        force: true,
        ..RotateAuthorityRequest::default()
    };
    let mut admin = world.server.as_ref().unwrap().admin.clone();
    let mut steps = admin.rotate_authority(request).await.unwrap().into_inner();
    let mut authority_id = String::new();
    while let Some(step) = steps.message().await.unwrap() {
        authority_id = step.old_authority_id;
    }
    let taint = TaintAuthorityRequest {
        authority_id: authority_id.clone(),
    };
    admin.taint_authority(taint).await.unwrap();
    let force = true;
    let revoke = RevokeAuthorityRequest { authority_id, force };
    admin.revoke_authority(revoke).await.unwrap();
    let request = StartEmergencyRequest {
        kind: "x509".to_owned(),
        ..StartEmergencyRequest::default()
    };
    admin.start_emergency(request).await.unwrap();
    until(world, "authority_distrusted").await;
}

/// The machine's clock goes wrong alone, then with the API server's; then nobody but an admin knows better.
async fn lose_the_time(world: &mut World) {
    world.set_wall(7200);
    world.pass(3 * MINUTE).await;
    world.set_wall(0);
    world.pass(3 * MINUTE).await;
    world.set_wall(7200);
    world.set_date(7200).await;
    world.pass(3 * MINUTE).await;
    world.set_date(SILENT).await;
    world.set_wall(0);
    world.pass(3 * MINUTE).await;
    let request = ConfirmClockRequest {
        time_unix_ms: unix_millis(world.truth.now()),
        force: true,
    };
    let mut admin = world.server.as_ref().unwrap().admin.clone();
    admin.confirm_clock(request).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_life_provokes_what_the_audit_log_can_say() {
    fastrand::seed(7);
    let mut world = World::new().await;
    world.pass(2 * MINUTE).await;
    deny_and_allow(&world).await;
    rotate(&world).await;
    distrust(&world).await;
    lose_the_time(&mut world).await;
    world.pass(MINUTE).await;
    world.stop_server().await;
    assert_eq!(audit_faults(&[world.audit_log()]), [""; 0]);
    let lines = lines(&world);
    provoked("server_started", &lines);
    provoked("node_attested", &lines);
    provoked("issued", &lines);
    provoked("admin_call", &lines);
    provoked("revoked", &lines);
    provoked("refused", &lines);
    provoked("allowed", &lines);
    provoked("authority_prepared", &lines);
    provoked("authority_activated", &lines);
    provoked("authority_expired", &lines);
    provoked("authority_tainted", &lines);
    provoked("authority_revoked", &lines);
    provoked("authority_distrusted", &lines);
    provoked("clock_jumped", &lines);
    provoked("clock_healed", &lines);
    provoked("clock_adopted", &lines);
    provoked("clock_confirmed", &lines);
    provoked("server_stopped", &lines);
    provoked("head", &lines);
}
