//! A walk through bad and good moments, drawn from a seed.

use std::collections::BTreeSet;
use std::time::Duration;

use signet_certs::verify::{LeafInfo, inspect_leaf};
use signet_proto::admin::{
    AllowRequest, ListAgentsRequest, ListDenialsRequest, ListSvidsRequest, RevokeRequest,
    RotateAuthorityRequest, ShowCrlsRequest, revoke_request::Target,
};
use signet_runtime::clock::Clock as _;
use signet_server::testing::audit_faults;
use signet_tests::workload::split_der;
use tokio::time::{Instant, sleep, timeout};

use crate::orders::order;
use crate::reader::{Reader, SERVED_WITHIN, ask, holdings};
use crate::secrets;
use crate::world::{HOUR, MINUTE, SILENT, World};

const DAY: i64 = 24 * 3600;
const WRONG: [i64; 8] = [-DAY, -3600, -301, 60, 299, 7200, 8 * DAY, 400 * DAY];
/// How soon a revocation is on a served list.
const LISTED_WITHIN: Duration = Duration::from_secs(1);

/// How soon an order is taken or refused.
pub(crate) const ANSWERED_WITHIN: Duration = LISTED_WITHIN;

/// `longest` is a bound, in seconds, of the time between two steps.
pub(crate) async fn walk(seed: u64, steps: usize, longest: u64) {
    eprintln!("SIGNET_SEED={seed}");
    // The jitter of all waits.
    fastrand::seed(seed);
    let mut draw = fastrand::Rng::with_seed(seed);
    let mut world = World::new().await;
    let mut reader = Reader::default();
    world.pass(2 * MINUTE).await;
    reader.check(&mut world).await;
    for number in 0..steps {
        let taken = step(&mut world, &mut reader, &mut draw).await;
        let time = Duration::from_secs(draw.u64(1..longest));
        eprintln!("seed {seed} step {number}: {taken}, then {time:?}");
        world.pass(time).await;
        reader.check(&mut world).await;
    }
    world.stop_server().await;
    assert_eq!(audit_faults(&[world.audit_log()]), [""; 0]);
    let said = std::fs::read_to_string(world.audit_log()).unwrap();
    assert_eq!(secrets::found_in(&said, &reader.keys), None, "INV-13");
}

/// One step, as drawn; what it was.
async fn step(world: &mut World, reader: &mut Reader, draw: &mut fastrand::Rng) -> String {
    let wrong = WRONG[draw.usize(..WRONG.len())];
    let at = draw.usize(..world.nodes.len());
    match draw.u32(..44) {
        0 => world.set_wall(wrong),
        1 => world.set_date(if draw.bool() { SILENT } else { wrong }).await,
        2 => {
            world.set_wall(wrong);
            world.set_date(wrong).await;
        }
        3 => staircase(world, draw).await,
        4 => world.let_elapsed_stand(!world.elapsed_stands),
        5 => every_clock(world, wrong).await,
        6 | 7 => {
            world.restart_server().await;
            return "the server is restarted".to_owned();
        }
        8 => return rotate(world, "x509", draw).await,
        9 => return rotate(world, "control", draw).await,
        10..=12 => return revoke_a_pod(world, reader, draw).await,
        13 => return deny_a_pod(world, reader, at).await,
        14 | 15 => return allow_all(world, reader).await,
        16 => return revoke_an_agent(world, reader, at).await,
        17 => return deny_an_agent(world, reader, at).await,
        18 | 19 => return restart_an_agent(world, at).await,
        20 => return come_or_go(world, at).await,
        21 => {
            let away = !world.api.is_away();
            world.set_away(away).await;
            return format!("the API server is away: {away}");
        }
        22 => world.nodes[at].set_wall(wrong),
        23 | 24 => return be_without_a_server(world, reader, draw).await,
        25 => {
            let cut = !world.nodes[at].is_cut();
            world.nodes[at].set_cut(cut);
            return format!("the line of a node is cut: {cut}");
        }
        26 => {
            let stands = !world.nodes[at].elapsed_stands;
            world.nodes[at].let_elapsed_stand(stands);
            return format!("elapsed time of a node stands: {stands}");
        }
        27..=32 => return order(world, draw).await,
        // Nobody lies for longer than some minutes, and mostly nobody does.
        _ => {
            right(world).await;
            if draw.u8(..8) == 0 {
                world.pass(2 * HOUR).await;
            }
            return "all is right".to_owned();
        }
    }
    let (wall, date, stands) = (world.wall, world.date, world.elapsed_stands);
    format!("wall {wall}, Date {date}, elapsed stands: {stands}")
}

async fn right(world: &mut World) {
    world.let_elapsed_stand(false);
    world.set_wall(0);
    world.set_date(0).await;
    world.set_away(false).await;
    for node in &mut world.nodes {
        node.let_elapsed_stand(false);
        node.set_wall(0);
        node.set_cut(false);
    }
}

async fn every_clock(world: &mut World, wrong: i64) {
    world.set_wall(wrong);
    world.set_date(wrong).await;
    for node in &mut world.nodes {
        node.set_wall(wrong);
    }
}

/// The clock leaves by steps that are each within what clocks may differ by: few large ones, or many small.
async fn staircase(world: &mut World, draw: &mut fastrand::Rng) {
    let (stair, stairs) = if draw.bool() {
        (200, draw.u8(2..6))
    } else {
        (2, 60)
    };
    let direction = if draw.bool() { stair } else { -stair };
    for _ in 0..stairs {
        world.set_wall(world.wall + direction);
        sleep(Duration::from_secs(30)).await;
    }
}

async fn rotate(world: &World, kind: &str, draw: &mut fastrand::Rng) -> String {
    let algorithm = draw.choice(["", "p256", "p384"]).unwrap_or_default();
    if let Some(server) = &world.server {
        let request = RotateAuthorityRequest {
            kind: kind.to_owned(),
            force: false,
            algorithm: algorithm.to_owned(),
            retire: false,
        };
        // Refused while another rotation runs, and not answered while the server starts.
        drop(timeout(LISTED_WITHIN, server.admin.clone().rotate_authority(request)).await);
    }
    format!("{kind} is rotated to {algorithm:?}")
}

/// Revokes a target; once the server answers at all, what is revoked is on a served list within a second. What an admin
/// cannot revoke at this moment is refused at once.
async fn revoke(world: &World, target: Target, keep_issuing: bool) -> bool {
    let Some(server) = &world.server else {
        return false;
    };
    if ask(server).await.is_none() {
        return false;
    }
    let mut admin = server.admin.clone();
    let request = RevokeRequest {
        target: Some(target),
        reason: "keyCompromise".to_owned(),
        keep_issuing,
        force: true,
        ..RevokeRequest::default()
    };
    let begun = Instant::now();
    let Ok(answer) = admin.revoke(request).await else {
        return false;
    };
    assert!(
        begun.elapsed() <= LISTED_WITHIN,
        "a revocation took {:?}",
        begun.elapsed()
    );
    let answer = answer.into_inner();
    assert_eq!(answer.not_published, "");
    let crls = admin
        .show_crls(ShowCrlsRequest {})
        .await
        .unwrap()
        .into_inner()
        .crls;
    for revoked in answer.revoked.iter().filter(|revoked| !revoked.waits) {
        let list = crls.iter().find(|crl| crl.authority_id == revoked.authority_id);
        let on_list = list.is_none_or(|crl| crl.entries.iter().any(|entry| entry.serial == revoked.serial));
        assert!(on_list, "{revoked:?} is on no list");
    }
    true
}

fn leaf_of(context: &signet_agent::testing::X509Context) -> LeafInfo {
    inspect_leaf(&split_der(&context.svids[0].chain).unwrap()[0]).unwrap()
}

async fn revoke_a_pod(world: &World, reader: &mut Reader, draw: &mut fastrand::Rng) -> String {
    let held = holdings(world).await;
    if held.is_empty() {
        return "nothing to revoke".to_owned();
    }
    let leaf = leaf_of(&held[draw.usize(..held.len())].2);
    let target = Target::Serial(leaf.serial.to_string());
    if leaf.not_after > world.truth.now() && revoke(world, target, true).await {
        reader.listed.insert(leaf.serial, leaf);
    }
    "a pod's certificate is revoked".to_owned()
}

async fn deny_a_pod(world: &World, reader: &mut Reader, at: usize) -> String {
    let id = format!("spiffe://example.org/ns/shop/sa/{}", world.nodes[at].pods[0].name);
    if revoke(world, Target::SpiffeId(id.clone()), false).await {
        reader.denied.insert(id, BTreeSet::new());
    }
    "a pod is denied".to_owned()
}

/// The agent's ID and the serial of its newest certificate.
async fn agent_of(world: &World, at: usize) -> Option<(String, String)> {
    let mut admin = world.server.as_ref()?.admin.clone();
    let agents = timeout(LISTED_WITHIN, admin.list_agents(ListAgentsRequest {}))
        .await
        .ok()?;
    let agents = agents.ok()?.into_inner().agents;
    let agent = agents
        .into_iter()
        .find(|agent| agent.node_name == world.nodes[at].name)?;
    Some((agent.spiffe_id, agent.serial))
}

async fn revoke_an_agent(world: &mut World, reader: &Reader, at: usize) -> String {
    if let Some((id, serial)) = agent_of(world, at).await
        && !reader.denied.contains_key(&id)
    {
        revoke(world, Target::Serial(serial), true).await;
        world.nodes[at].has_changed();
    }
    "an agent's certificate is revoked".to_owned()
}

async fn deny_an_agent(world: &mut World, reader: &mut Reader, at: usize) -> String {
    if let Some((id, _)) = agent_of(world, at).await
        && revoke(world, Target::SpiffeId(id.clone()), false).await
    {
        let mut admin = world.server.as_ref().unwrap().admin.clone();
        let wanted = ListSvidsRequest {
            limit: 10_000,
            ..ListSvidsRequest::default()
        };
        let rows = admin.list_svids(wanted).await.unwrap().into_inner().svids;
        let of_agent = rows.into_iter().filter(|row| row.agent_id == id);
        let brought = of_agent.map(|row| row.serial).collect();
        reader.denied.insert(id, brought);
        world.nodes[at].is_allowed = false;
    }
    "an agent is denied".to_owned()
}

async fn allow_all(world: &mut World, reader: &mut Reader) -> String {
    let Some(server) = &world.server else {
        return "nobody to ask".to_owned();
    };
    let mut admin = server.admin.clone();
    let asked = ListDenialsRequest {
        include_lifted: false,
    };
    let Ok(Ok(denials)) = timeout(LISTED_WITHIN, admin.list_denials(asked)).await else {
        return "nobody answers".to_owned();
    };
    for denial in denials.into_inner().denials {
        let target = denial.target.clone();
        let request = AllowRequest { denial_id: denial.id };
        admin.allow(request).await.unwrap();
        reader.denied.remove(&target);
    }
    if reader.denied.is_empty() {
        for node in world.nodes.iter_mut().filter(|node| !node.is_allowed) {
            node.is_allowed = true;
            node.has_changed();
        }
    }
    "all are allowed".to_owned()
}

async fn restart_an_agent(world: &mut World, at: usize) -> String {
    let anchors = world.anchors();
    let node = &mut world.nodes[at];
    if node.agent.is_some() {
        node.stop().await;
        node.start(&anchors).await;
    }
    "an agent is restarted".to_owned()
}

async fn come_or_go(world: &mut World, at: usize) -> String {
    let anchors = world.anchors();
    let (node, api) = (&mut world.nodes[at], &world.api);
    if node.is_member {
        node.stop().await;
        node.leave(api);
        return "an agent goes".to_owned();
    }
    node.join(api);
    node.start(&anchors).await;
    "an agent comes".to_owned()
}

/// INV-9: what pods have stays theirs while the server is away, also through a restart of their agent.
async fn be_without_a_server(world: &mut World, reader: &Reader, draw: &mut fastrand::Rng) -> String {
    let was_right = world.is_right_for(SERVED_WITHIN);
    let held = holdings(world).await;
    let said = match &world.server {
        Some(server) => ask(server).await,
        None => None,
    };
    world.stop_server().await;
    if draw.bool() {
        let at = draw.usize(..world.nodes.len());
        restart_an_agent(world, at).await;
    }
    world.pass(Duration::from_secs(draw.u64(10..900))).await;
    let now = world.truth.now();
    for (at, pod, before) in held {
        let (node, leaf) = (&world.nodes[at], leaf_of(&before));
        // What an authority has signed that is not the one that signs may have been replaced just before.
        let signs = said.as_ref().is_some_and(|said| said.signs(&leaf.authority_id));
        let counts = signs && leaf.not_after > now + MINUTE && !reader.listed.contains_key(&leaf.serial);
        if was_right && counts && node.is_right_for(Duration::from_secs(5)) {
            let context = node
                .context(&node.pods[pod])
                .await
                .expect("a pod has lost its certificate");
            assert_eq!(leaf_of(&context).serial, leaf.serial);
            assert_eq!(context.crls.ders().len(), before.crls.ders().len());
        }
    }
    world.start_server().await;
    "the server was away".to_owned()
}
