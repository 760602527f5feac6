//! What goes out over the trust stream.

use bytes::Bytes;

use super::*;

/// Nothing is ever handed over.
pub(super) fn nothing() -> mpsc::Receiver<Answer> {
    mpsc::channel(1).1
}

#[tokio::test]
async fn what_is_handed_over_goes_out_once_beside_the_newest_report() {
    let bench = Bench::new(Odd::default()).await;
    bench.identify("/signet/agent/kind/node-1");
    let reports = watch::Sender::new(TrustReport::default());
    let (say, answers) = mpsc::channel(1);
    let mut updates = bench
        .client
        .sync_trust(reports.subscribe(), answers)
        .await
        .unwrap();
    updates.next().await.unwrap().unwrap();
    let lists = vec![Bytes::from_static(b"list")];
    let lacking = vec![AuthorityId::from_bytes([7; 20])];
    say.send(Answer { lists, lacking }).await.unwrap();
    updates.next().await.unwrap().unwrap();
    reports.send_replace(TrustReport {
        sequence_number: 4,
        ..TrustReport::default()
    });
    updates.next().await.unwrap().unwrap();
    let seen = bench.seen.reports.lock();
    let held: Vec<usize> = seen.iter().map(|report| report.held_crls.len()).collect();
    assert_eq!(held, [0, 1, 0]);
    let lacking: Vec<usize> = seen.iter().map(|report| report.lacking_crls.len()).collect();
    assert_eq!(lacking, [0, 1, 0]);
}

#[tokio::test]
async fn reports_go_out_at_once_and_with_each_change() {
    let bench = Bench::new(Odd::default()).await;
    bench.identify("/signet/agent/kind/node-1");
    let reports = watch::Sender::new(TrustReport {
        sequence_number: 3,
        ..TrustReport::default()
    });
    let mut updates = bench
        .client
        .sync_trust(reports.subscribe(), nothing())
        .await
        .unwrap();
    assert_eq!(updates.next().await.unwrap().unwrap().sequence_number, 3);
    reports.send_replace(TrustReport {
        sequence_number: 4,
        ..TrustReport::default()
    });
    assert_eq!(updates.next().await.unwrap().unwrap().sequence_number, 4);
    let told = bench.seen.reports.lock()[0].clock_unix_ms;
    assert!(
        told >= signet_certs::time::unix_millis(at(0)),
        "the agent's clock goes along"
    );
}
