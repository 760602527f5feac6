use std::{net::IpAddr, sync::Arc};

use super::*;
use crate::api::listener::UNPROVEN;

fn attests() -> Arc<Attests> {
    Arc::new(Attests::new(Refusals::untold("agents")))
}

/// A new connection of a stranger.
fn source(n: usize) -> Line {
    let [_, _, a, b] = u32::try_from(n).unwrap().to_be_bytes();
    Line::new(Caller::Stranger(IpAddr::from([10, 0, a, b]).into()))
}

fn agent(n: usize) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org/signet/agent/dev/node-{n}")).unwrap()
}

/// So many calls one after the other; how many are admitted.
async fn admitted(attests: &Attests, line: &Line, calls: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..calls {
        admitted += usize::from(attests.admit(line, b"").await.is_ok());
    }
    admitted
}

/// One address asks without end; the nodes behind another start at once.
#[tokio::test(start_paused = true)]
async fn a_source_has_its_rate_and_a_rack_behind_one_address_comes_through() {
    let (attests, begun) = (attests(), Instant::now());
    let mut verified = 0;
    while begun.elapsed() < Duration::from_secs(10) {
        verified += admitted(&attests, &source(1), 20).await;
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    assert!((3900..4200).contains(&verified), "{verified} in ten seconds");
    let asked = Instant::now();
    assert_eq!(admitted(&attests, &source(2), 500).await, 500);
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
}

/// All other connections of a source ask without end, for the dearest there is; an agent without a certificate is behind the
/// same address, and new connections push the oldest out all the time.
#[tokio::test(start_paused = true)]
async fn whoever_shares_an_address_with_a_flood_has_his_turn_before_he_is_pushed_out() {
    let (attests, large) = (attests(), Arc::new(large()));
    admitted(&attests, &source(1), 1000).await;
    for _ in 1..STRANGERS_PER_SOURCE {
        let (attests, large, line) = (attests.clone(), large.clone(), source(1));
        tokio::spawn(async move {
            loop {
                if attests.admit(&line, &large).await.is_err() {
                    sleep(Duration::from_millis(1)).await;
                }
            }
        });
    }
    let pushed_out = f64::from(u32::try_from(STRANGERS_PER_SOURCE).unwrap()) / UNPROVEN.per_second;
    for _ in 0..10 {
        sleep(Duration::from_secs(1)).await;
        let asked = Instant::now();
        attests.admit(&source(1), b"").await.unwrap();
        let waited = asked.elapsed().as_secs_f64();
        assert!(waited < pushed_out - 0.5, "{waited} of {pushed_out}");
    }
}

#[tokio::test(start_paused = true)]
async fn on_one_connection_one_waits_at_a_time() {
    let (attests, line) = (attests(), source(1));
    admitted(&attests, &source(1), 1000).await;
    let (first, second) = tokio::join!(attests.admit(&line, b""), attests.admit(&line, b""));
    first.unwrap();
    assert_eq!(second.unwrap_err().code(), tonic::Code::ResourceExhausted);
    attests.admit(&line, b"").await.unwrap();
}

/// Its certificate may be in anybody's hands.
#[tokio::test(start_paused = true)]
async fn a_guest_takes_nothing_of_the_agent_that_it_claims_to_be() {
    let attests = attests();
    let [guest, agent] = [Caller::Guest(agent(1)), Caller::Agent(agent(1))].map(Line::new);
    assert_eq!(admitted(&attests, &guest, 1000).await, 32);
    assert_eq!(admitted(&attests, &agent, 1).await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_agent_pays_for_itself_and_neither_its_address_nor_another() {
    let attests = attests();
    let agent = |n| Line::new(Caller::Agent(agent(n)));
    assert_eq!(admitted(&attests, &agent(1), 1000).await, 32);
    assert_eq!(admitted(&attests, &agent(2), 1).await, 1);
    let refused = attests.admit(&agent(1), b"").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(refused.metadata().get("retry-after-ms").is_some());
}

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let length = match content.len() {
        0..128 => vec![length[1]],
        128..256 => vec![0x81, length[1]],
        _ => vec![0x82, length[0], length[1]],
    };
    [&[tag][..], &length, &content].concat()
}

/// In the form of a CSR over RSA of 4096 bits.
fn large() -> Vec<u8> {
    let algorithm = |last| {
        let oid = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, last];
        der(0x30, &[&oid, &[5, 0]])
    };
    let modulus = der(2, &[&[0], &[0xff; 512]]);
    let key = der(0x30, &[&modulus, &[2, 3, 1, 0, 1]]);
    let spki = der(0x30, &[&algorithm(1), &der(3, &[&[0], &key])]);
    let info = der(0x30, &[&[2, 1, 0], &der(0x30, &[]), &spki, &[0xa0, 0]]);
    der(0x30, &[&info, &algorithm(11), &der(3, &[&[0], &[1; 512]])])
}

#[tokio::test(start_paused = true)]
async fn one_over_a_large_key_is_paid_for_twice() {
    let (attests, large) = (attests(), large());
    assert_eq!(verification_work(&large), 2);
    let agent = Line::new(Caller::Agent(agent(1)));
    let mut admitted = 0;
    while attests.admit(&agent, &large).await.is_ok() {
        admitted += 1;
    }
    assert_eq!(admitted, 16);
}

/// Two hundred sources with all that each may have at once, and one more that asks once.
#[tokio::test(start_paused = true)]
async fn all_strangers_together_have_a_rate_and_nobody_waits_behind_anothers_flood() {
    let (attests, begun) = (attests(), Instant::now());
    let mut floods = tokio::task::JoinSet::new();
    for flooding in 0..200 {
        for _ in 0..100 {
            let attests = attests.clone();
            floods.spawn(async move { attests.admit(&source(flooding), b"").await.is_ok() });
        }
    }
    // Until all of them wait: a few dozen go on for each time that this one yields.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    let asked = Instant::now();
    attests.admit(&source(1000), b"").await.unwrap();
    assert!(
        asked.elapsed() < Duration::from_millis(500),
        "{:?}",
        asked.elapsed()
    );
    let mut admitted = 1.0;
    while let Some(one) = floods.join_next().await {
        admitted += f64::from(u8::from(one.unwrap()));
    }
    let rate = (admitted - ALL_STRANGERS.burst) / begun.elapsed().as_secs_f64();
    assert!(
        admitted > 19_000.0 && rate <= 1001.0,
        "{admitted}, {rate} each second"
    );
    assert!(attests.strangers.is_empty(), "nobody waits");
}
