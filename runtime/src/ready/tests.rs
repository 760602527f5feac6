use std::time::Duration;

use super::*;

const STARTING: Reason = reason("starting", Level::Serve);
const AWAY: Reason = reason("server_away", Level::Issue);

const fn reason(name: &'static str, level: Level) -> Reason {
    let meaning = "a test's";
    Reason { name, level, meaning }
}

fn names(readiness: &Readiness, level: Level) -> Vec<String> {
    let standing = readiness.standing(level);
    standing.iter().map(Standing::to_string).collect()
}

#[tokio::test]
async fn ready_when_the_last_condition_has_gone() {
    let readiness = Readiness::new(&[STARTING, AWAY]);
    let (first, second) = (readiness.hold(STARTING), readiness.hold(STARTING));
    let waiter = tokio::spawn({
        let readiness = readiness.clone();
        async move { readiness.ready(Level::Serve).await }
    });
    assert_eq!(names(&readiness, Level::Serve), ["starting", "starting"]);
    first.done();
    assert_eq!(names(&readiness, Level::Serve), ["starting"]);
    assert!(!readiness.is_ready(Level::Serve));
    drop(second);
    waiter.await.unwrap();
    assert!(readiness.is_ready(Level::Issue));
}

#[test]
fn conditions_come_and_go_and_take_away_their_level_and_those_above() {
    let readiness = Readiness::new(&[STARTING, AWAY]);
    let (starting, away) = (readiness.condition(STARTING), readiness.condition(AWAY));
    assert!(readiness.is_ready(Level::Serve) && readiness.is_ready(Level::Issue));
    away.set(Some("refused".to_owned()));
    assert!(readiness.is_ready(Level::Serve) && !readiness.is_ready(Level::Issue));
    away.set(Some("timed out".to_owned()));
    assert_eq!(names(&readiness, Level::Issue), ["server_away: timed out"]);
    away.set(None);
    starting.set(Some(String::new()));
    assert!(!readiness.is_ready(Level::Serve) && !readiness.is_ready(Level::Issue));
}

#[tokio::test(start_paused = true)]
async fn another_reason_is_told_apart_from_another_detail() {
    let readiness = Readiness::new(&[STARTING, AWAY]);
    let (away, again) = (readiness.condition(AWAY), readiness.condition(AWAY));
    away.set(Some("refused".to_owned()));
    let named = readiness.names(Level::Issue);
    assert_eq!(
        (named.as_slice(), readiness.names(Level::Serve)),
        (&["server_away"][..], vec![])
    );
    again.set(Some("timed out".to_owned()));
    away.set(None);
    let moment = Duration::from_secs(1);
    let differs = tokio::time::timeout(moment, readiness.differs(Level::Issue, &named)).await;
    assert!(differs.is_err(), "the same reason stands with another detail");
    again.set(None);
    readiness.differs(Level::Issue, &named).await;
}

#[test]
fn metrics_follow_and_every_reason_has_a_series_from_the_start() {
    let (readiness, metrics) = (Readiness::new(&[STARTING, AWAY]), Metrics::new("signet_test"));
    readiness.register(&metrics);
    let has = |line: &str| {
        let text = metrics.encode();
        assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
    };
    has("signet_test_ready_issue 1");
    has(r#"signet_test_not_ready{reason="server_away"} 0"#);
    let away = readiness.hold(AWAY);
    has("signet_test_ready 1");
    has("signet_test_ready_issue 0");
    has(r#"signet_test_not_ready{reason="server_away"} 1"#);
    away.done();
    has(r#"signet_test_not_ready{reason="server_away"} 0"#);
}
