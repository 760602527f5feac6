//! The server killed at random moments, again and again. `SIGNET_SEED` draws other moments.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "test code"
)]

use signet_tests::crash::Crash;

async fn lives(count: u32) {
    let seed = std::env::var("SIGNET_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("SIGNET_SEED={seed}");
    let mut crash = Crash::prepare(seed).await.unwrap();
    for life in 0..count {
        let lived = crash.life().await;
        assert!(
            lived.is_ok(),
            "life {life} of SIGNET_SEED={seed}: {:?}",
            lived.err()
        );
    }
    let brought_about = crash.brought_about();
    eprintln!("{count} lives: {brought_about:?}");
    assert!(brought_about.issued > count as usize && brought_about.revoked > 0);
    assert!(brought_about.denied > 0, "no identity was denied");
    assert!(brought_about.signed > 2, "no rotation came to its end");
}

/// Covers INV-2, INV-3, INV-4, INV-15.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "half a minute: `.ci/step crash` runs it"]
async fn thirty_lives_under_load_break_no_promise() {
    lives(30).await;
}

/// Covers INV-2, INV-3, INV-4, INV-15.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a quarter of an hour: cargo test --workspace --test crash -- --ignored --nocapture three_hundred"]
async fn three_hundred_lives_under_load_break_no_promise() {
    lives(300).await;
}
