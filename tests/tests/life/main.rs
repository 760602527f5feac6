//! The life of a trust domain: days of wrong clocks, restarts, rotations, revocations and outages in a moment of paused time.
//!
//! Server and agents are the real ones, joined by TLS over streams in memory; clocks, cluster and kubelet are the test's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "test code"
)]

mod api;
mod audited;
mod node;
mod orders;
mod reader;
mod secrets;
mod stories;
mod walk;
mod world;

use self::walk::walk;
use self::world::{MINUTE, World};

/// Covers INV-12.
#[tokio::test(start_paused = true)]
async fn a_pod_of_each_node_gets_its_identity_in_memory() {
    let world = World::new().await;
    for node in &world.nodes {
        let context = node.context_within(&node.pods[0], MINUTE).await.unwrap();
        let expected = format!("spiffe://example.org/ns/shop/sa/pod-of-{}", node.name);
        assert_eq!(context.svids[0].spiffe_id, expected);
    }
}

fn seed() -> Option<u64> {
    std::env::var("SIGNET_SEED").ok()?.parse().ok()
}

/// Covers INV-2, INV-3, INV-4, INV-8, INV-9, INV-10, INV-11, INV-12, INV-13, INV-14, INV-15, INV-16. `SIGNET_SEED` walks another way.
#[tokio::test(start_paused = true)]
async fn fifty_steps_of_a_bad_life_break_nothing() {
    // What a step sets off is over within two minutes; what takes hours is the long form's.
    walk(seed().unwrap_or(7), 50, 240).await;
}

/// Covers INV-2, INV-3, INV-4, INV-8, INV-9, INV-10, INV-11, INV-12, INV-13, INV-14, INV-15, INV-16.
#[tokio::test(start_paused = true)]
#[ignore = "minutes: cargo test --workspace --test life -- --ignored --nocapture"]
async fn a_thousand_steps_of_bad_lives_break_nothing() {
    let first = seed().unwrap_or(0);
    for seed in first..first + 20 {
        walk(seed, 50, 600).await;
    }
}
