//! What the worker says to others, and what becomes of workloads when somebody sets the machine's clock.

use std::time::Duration;

use signet_runtime::clock::FakeClock;
use signet_testkit::{DAY, HOUR, at};
use tokio::time::timeout;

use super::*;
use crate::context::{Caller, WorkloadSource};
use crate::kept::Places;
use crate::manager::tests::{Bench, pending, ready, renewed};
use crate::server_client::fake::{FakeServer, Mode};
use crate::time::AgentTime;

/// Covers INV-9.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_for_a_while_repeats_no_question_and_drops_nothing() {
    let (machine, of_server) = (FakeClock::new(at(0)), FakeClock::new(at(0)));
    let server = FakeServer::new(Arc::new(of_server.clone()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let time = AgentTime::new(Arc::new(machine.clone()));
    time.tell(of_server.now());
    let places = Places::default();
    let bench = Bench::timed(server, machine.clone(), time, "/run/x".into(), places);
    bench.push(1, &[]);
    let mut pod = bench.pod().await;
    let caller = Caller::Peer(crate::unix::tests::own_peer());
    let mut program = bench.manager.attach(&caller).await.unwrap();
    let (of_pod, of_program) = (ready(&mut pod).await, ready(&mut program).await);
    let (day, hour) = (DAY.as_secs().cast_signed(), HOUR.as_secs().cast_signed());
    for offset in [hour * 3 / 2, -2 * hour, 400 * day] {
        machine.set_offset(offset);
        tokio::time::sleep(Duration::from_secs(75)).await;
        machine.set_offset(0);
        tokio::time::sleep(Duration::from_secs(75)).await;
        assert!(
            !pod.has_changed().unwrap() && !program.has_changed().unwrap(),
            "{offset}"
        );
        assert_eq!(bench.server.asked().len(), 2, "{offset}");
    }
    // For good: renewals come in their time.
    machine.set_offset(400 * day);
    renewed(&mut pod, &of_pod).await;
    renewed(&mut program, &of_program).await;
    let passed = of_server.now().duration_since(at(0)).unwrap().as_secs();
    assert!((1600..2000).contains(&passed), "{passed} s of 3600");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_not_accepted_wakes_the_node_attestor() {
    let bench = Bench::new();
    bench.server.set(Mode::Unauthenticated);
    let mut states = bench.pod().await;
    pending(&mut states).await;
    timeout(Duration::from_secs(1), bench.objections.heard())
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_report_says_what_was_published() {
    let mut bench = Bench::new();
    let mut states = bench.pod().await;
    ready(&mut states).await;
    let signer = bench.server.state().signer.certificate().id();
    let report = bench
        .reports
        .wait_for(|report| !report.authorities_in_use.is_empty())
        .await
        .unwrap()
        .clone();
    assert_eq!(report.sequence_number, 1);
    assert_eq!(report.authorities_in_use, [(signer, 1)]);
    assert!(report.knows_in_use);
    assert_eq!(report.pod_uids, ["pod-0"]);
    assert_eq!(report.crls.len(), 2);
}

/// Covers INV-8.
#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_left_and_nobody_has_counted_is_not_nothing() {
    let mut bench = Bench::new();
    let known = |wanted| move |report: &TrustReport| report.knows_in_use == wanted;
    bench.reports.wait_for(known(true)).await.unwrap();
    bench.server.set(Mode::Unauthenticated);
    bench.manager.volume_missed("vol-0");
    bench.reports.wait_for(known(false)).await.unwrap();
    // Its socket opens, and what its pod holds is still not known.
    let mut states = bench.pod().await;
    pending(&mut states).await;
    assert!(!bench.reports.borrow().knows_in_use);
    bench
        .server
        .set(Mode::Issue(vec![signet_testkit::id("/ns/demo/sa/app")]));
    ready(&mut states).await;
    let report = bench.reports.wait_for(known(true)).await.unwrap();
    assert_eq!(report.authorities_in_use.len(), 1);
}
