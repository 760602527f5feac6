//! Edits that come faster than they are judged.

use super::*;

/// Whoever asks meanwhile is told that what he sees may be out of date.
#[tokio::test(start_paused = true)]
async fn what_comes_faster_than_it_is_judged_is_said_to_be_put_off() {
    let bench = Bench::new(&and_builtin(vec![])).await;
    for round in 0..3 {
        bench.write(&and_builtin(vec![rule("front", &format!("r{round}"))]));
        bench.told.send_replace(());
        sleep(LOOK / 10).await;
        assert!(!bench.live().standing().is_put_off);
    }
    let last = and_builtin(vec![]);
    bench.write(&last);
    bench.told.send_replace(());
    sleep(LOOK / 10).await;
    assert!(bench.live().standing().is_put_off);
    assert_ne!(bench.in_force(), revision(&last));
    sleep(SOON).await;
    assert!(!bench.live().standing().is_put_off);
    assert_eq!(bench.in_force(), revision(&last));
}

#[tokio::test(start_paused = true)]
async fn what_was_put_off_and_is_taken_back_is_put_off_no_more() {
    let first = and_builtin(vec![]);
    let bench = Bench::new(&first).await;
    for round in 0..3 {
        bench.write(&and_builtin(vec![rule("front", &format!("r{round}"))]));
        bench.told.send_replace(());
        sleep(LOOK / 10).await;
    }
    let judged = and_builtin(vec![rule("front", "r2")]);
    bench.write(&first);
    sleep(LOOK + LOOK + LOOK / 2).await;
    bench.write(&judged);
    sleep(SOON).await;
    assert!(!bench.live().standing().is_put_off);
    assert_eq!(bench.in_force(), revision(&judged));
}

/// However often somebody edits and hangs up: agents are moved, and the log is written, at most six times a minute.
#[tokio::test(start_paused = true)]
async fn a_thousand_edits_a_minute_are_taken_together() {
    let bench = Bench::new(&and_builtin(vec![])).await;
    sleep(SOON).await;
    let before = bench.audited().len();
    for round in 0..1000 {
        bench.write(&and_builtin(vec![rule("front", &format!("r{round}"))]));
        bench.told.send_replace(());
        sleep(Duration::from_millis(60)).await;
    }
    let changes = bench.audited().len() - before;
    assert!((2..=9).contains(&changes), "{changes}");
    sleep(SOON).await;
    assert_eq!(
        bench.in_force(),
        revision(&and_builtin(vec![rule("front", "r999")]))
    );
}

/// Each edit may move every agent, whoever orders it.
#[tokio::test(start_paused = true)]
async fn an_admin_may_not_edit_as_fast_as_he_can_type() {
    let bench = Bench::new(&and_builtin(vec![])).await;
    let edit = async |round: usize| {
        let set = Edit::Set {
            rule: Box::new(rule("front", &format!("r{round}"))),
            before: None,
        };
        bench.live().edit(set, "uid:7".to_owned()).await
    };
    let most = EDITS.burst as usize;
    for round in 0..most {
        edit(round).await.unwrap();
    }
    let refused = edit(most).await.unwrap_err();
    assert!(matches!(refused, NotEdited::TooOften { .. }), "{refused}");
    // What changes nothing moves nobody.
    edit(0).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    edit(most).await.unwrap();
}
