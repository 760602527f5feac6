//! What admins order of authorities in the middle of it all. Orders are given and left alone: they go on by themselves, or wait for ever
//! for a node that is away.

use signet_certs::verify::inspect_leaf;
use signet_proto::admin::{
    ActivateAuthorityRequest, Authority, PrepareAuthorityRequest, RevokeAuthorityRequest,
    RotateAuthorityRequest, ShowAuthoritiesRequest, StartEmergencyRequest, TaintAuthorityRequest,
};
use signet_tests::workload::split_der;
use tokio::time::timeout;

use crate::reader::{ask, holdings};
use crate::walk::ANSWERED_WITHIN;
use crate::world::World;

/// One order, as drawn; what it was, and whether it was taken.
pub(crate) async fn order(world: &mut World, draw: &mut fastrand::Rng) -> String {
    let kind = draw
        .choice(["x509", "x509", "control"])
        .unwrap_or_default()
        .to_owned();
    let force = draw.u8(..4) == 0;
    let verb = draw.u8(..7);
    let place = draw.usize(..);
    let Some(server) = &world.server else {
        return "nobody to order".to_owned();
    };
    let mut admin = server.admin.clone();
    let said = format!("{kind}: order {verb}, force: {force}");
    let taken = async {
        match verb {
            0 => {
                let algorithm = String::new();
                let request = PrepareAuthorityRequest { kind, algorithm };
                admin.prepare_authority(request).await.is_ok()
            }
            1 => {
                let request = ActivateAuthorityRequest { kind, force: false };
                admin.activate_authority(request).await.is_ok()
            }
            2 | 3 => {
                let retire = true;
                let request = RotateAuthorityRequest {
                    kind,
                    retire,
                    ..RotateAuthorityRequest::default()
                };
                admin.rotate_authority(request).await.is_ok()
            }
            6 => {
                let algorithm = String::new();
                let request = StartEmergencyRequest { kind, algorithm };
                admin.start_emergency(request).await.is_ok()
            }
            _ => away_with_one(world, &kind, (verb == 4, place, force)).await,
        }
    };
    let taken = timeout(ANSWERED_WITHIN, taken).await.unwrap_or(false);
    if taken {
        // Whoever holds something of what is taken away has to have another.
        world.nodes.iter_mut().for_each(|node| node.has_changed());
    }
    format!("{said}, taken: {taken}")
}

/// Taints or revokes one that does not sign; whether that was taken.
async fn away_with_one(world: &World, kind: &str, (taints, place, force): (bool, usize, bool)) -> bool {
    let Some(server) = &world.server else { return false };
    let mut admin = server.admin.clone();
    let Ok(shown) = admin.show_authorities(ShowAuthoritiesRequest {}).await else {
        return false;
    };
    let all = shown.into_inner().authorities;
    let goes = |one: &Authority| one.kind == kind && one.state != "active";
    let all: Vec<_> = all.into_iter().filter(goes).collect();
    let Some(authority) = all.get(place % all.len().max(1)) else {
        return false;
    };
    let authority_id = authority.authority_id.clone();
    if taints {
        let request = TaintAuthorityRequest { authority_id };
        return admin.taint_authority(request).await.is_ok();
    }
    let request = RevokeAuthorityRequest {
        authority_id: authority_id.clone(),
        force,
    };
    let taken = admin.revoke_authority(request).await.is_ok();
    if taken && !force {
        is_unused(world, &authority_id).await;
    }
    taken
}

/// What was revoked without force is what nobody uses of whom the server can know.
async fn is_unused(world: &World, authority: &str) {
    let Some(server) = &world.server else { return };
    let Some(said) = ask(server).await else { return };
    for (at, _, context) in holdings(world).await {
        let leaf = inspect_leaf(&split_der(&context.svids[0].chain).unwrap()[0]).unwrap();
        let node = world.nodes[at].name;
        assert!(
            !said.is_connected(node) || leaf.authority_id.to_string() != authority,
            "a pod of {node} uses {authority}, which was revoked: {leaf:?}"
        );
    }
}
