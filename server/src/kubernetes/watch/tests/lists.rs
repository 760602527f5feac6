//! Complete states: at the beginning of a watch, in pages, and in pages that no longer show one moment.

use super::*;

fn initial_events_end(version: &str) -> String {
    let annotations = json!({"k8s.io/initial-events-end": "true"});
    let metadata = json!({"resourceVersion": version, "creationTimestamp": null, "annotations": annotations});
    let object = json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata});
    json!({"type": "BOOKMARK", "object": object}).to_string() + "\n"
}

/// 410 to a page, as an API server says it that can go on from here with what there is by now.
fn expired(more: Option<&str>) -> Answer {
    let said = "The provided continue parameter is too old to display a consistent list result.";
    let mut status =
        json!({"kind": "Status", "metadata": {}, "reason": "Expired", "message": said, "code": 410});
    if let Some(more) = more {
        status["metadata"]["continue"] = json!(more);
    }
    Answer::Json(410, status.to_string())
}

fn is_initial(line: &str) -> bool {
    line.contains("sendInitialEvents=true")
}

/// Nothing more comes, and the connection stays.
fn and_then_nothing(text: String) -> Answer {
    let (sender, events) = unbounded_channel();
    sender.send(text).unwrap();
    tokio::spawn(async move {
        sender.closed().await;
    });
    Answer::Stream(events)
}

#[tokio::test(start_paused = true)]
async fn a_watch_begins_with_all_objects_and_says_when_that_is_all() {
    let (sender, events) = unbounded_channel();
    let events = Mutex::new(Some(events));
    let running = begin(move |line| {
        if !is_initial(line) {
            return Answer::Silence;
        }
        Answer::Stream(events.lock().take().unwrap())
    });
    sender
        .send(event("ADDED", "a", 1, "3") + &event("ADDED", "b", 1, "7"))
        .unwrap();
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(*running.names.changes.borrow(), 0, "half of it is in force");
    assert!(!running.health.is_synced());
    sender.send(initial_events_end("12")).unwrap();
    running.names.until(&[("a", 1), ("b", 1)]).await;
    assert_eq!(*running.names.changes.borrow(), 1);
    running.health.first_list().await;
    advance(Duration::from_millis(1)).await;
    let all = running.script.asked("watch=true");
    for part in [
        "sendInitialEvents=true",
        "resourceVersionMatch=NotOlderThan",
        "allowWatchBookmarks=true",
    ] {
        assert!(all[0].contains(part), "{all:?}");
    }
    // Without a version: as of now, never of an API server that lags behind what was shown before.
    assert!(!all[0].contains("resourceVersion="), "{all:?}");
    assert!(all[1].contains("resourceVersion=12"), "{all:?}");
    assert_eq!(running.script.asked("limit=").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn where_a_watch_cannot_begin_with_all_objects_pages_are_read_at_once() {
    let too_old: [fn() -> Answer; 3] = [
        without_initial_events,
        || Answer::Json(400, "{}".into()),
        // It does not know the parameter, and begins as a watch of no version in particular does.
        || and_then_nothing(event("ADDED", "b", 1, "3") + &bookmark("7")),
    ];
    for answer in too_old {
        let running = begin(move |line| match line {
            _ if is_initial(line) => answer(),
            _ if line.contains("watch=true") => Answer::Silence,
            _ => Answer::ok(list("10", &[("a", 1)], None)),
        });
        let began = Instant::now();
        running.names.until(&[("a", 1)]).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        running.health.first_list().await;
        assert_eq!(running.health.problem(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_off_before_the_end_changes_nothing_and_begins_again() {
    let streams = AtomicUsize::new(0);
    let running = begin(move |line| {
        if !is_initial(line) {
            return Answer::Silence;
        }
        match streams.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::ok(event("ADDED", "half", 1, "3")),
            _ => and_then_nothing(event("ADDED", "a", 1, "3") + &initial_events_end("12")),
        }
    });
    running.names.until(&[("a", 1)]).await;
    assert_eq!(*running.names.changes.borrow(), 1);
    assert_eq!(running.script.asked("limit=").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn where_such_watches_always_break_off_pages_are_read() {
    let running = begin(|line| match line {
        _ if is_initial(line) => Answer::ok(event("ADDED", "half", 1, "3")),
        _ if line.contains("watch=true") => Answer::Silence,
        _ => Answer::ok(list("10", &[("a", 1)], None)),
    });
    running.names.until(&[("a", 1)]).await;
    assert_eq!(running.script.asked("sendInitialEvents").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_that_falls_silent_is_given_up() {
    let streams = AtomicUsize::new(0);
    let running = begin(move |line| {
        if !is_initial(line) {
            return Answer::Silence;
        }
        match streams.fetch_add(1, Ordering::SeqCst) {
            0 => and_then_nothing(event("ADDED", "half", 1, "3")),
            _ => and_then_nothing(event("ADDED", "a", 1, "3") + &initial_events_end("12")),
        }
    });
    running.names.until(&[("a", 1)]).await;
}

/// Three pages, the second of which has expired when it is asked for: `a` is of version 10, the others of version 20.
fn expiring(catch_up: impl Fn() -> Answer + Send + Sync + 'static) -> Running {
    let lists = AtomicUsize::new(0);
    start(move |line| match line {
        _ if line.contains("timeoutSeconds=5&") => {
            assert!(line.contains("&resourceVersion=10"), "{line}");
            catch_up()
        }
        _ if line.contains("watch=true") => Answer::Silence,
        _ if line.contains("continue=old") => expired(Some("new")),
        _ if line.contains("continue=new") => Answer::ok(list("20", &[("b", 2)], Some("last"))),
        _ if line.contains("continue=last") => Answer::ok(list("20", &[("c", 2)], None)),
        _ => match lists.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::ok(list("10", &[("a", 1), ("gone", 1)], Some("old"))),
            _ => Answer::ok(list("30", &[("whole", 3)], None)),
        },
    })
}

/// What went from a page that had been read is in none of the later pages, and in no watch from their version either.
#[tokio::test(start_paused = true)]
async fn pages_of_two_moments_count_once_a_watch_has_told_what_lies_between() {
    let running = expiring(|| {
        and_then_nothing(
            event("DELETED", "gone", 1, "15") + &event("MODIFIED", "a", 2, "17") + &bookmark("20"),
        )
    });
    running.names.until(&[("a", 2), ("b", 2), ("c", 2)]).await;
    assert_eq!(*running.names.changes.borrow(), 1, "nothing else was ever shown");
    running.health.first_list().await;
    advance(Duration::from_millis(1)).await;
    let watches = running.script.asked("&resourceVersion=");
    assert!(
        watches[1].contains("timeoutSeconds=45") && watches[1].contains("resourceVersion=20"),
        "{watches:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn where_nobody_knows_what_lies_between_everything_is_read_again() {
    let gone: [fn() -> Answer; 2] = [|| Answer::ok(error(410, "Expired")), || expired(None)];
    for answer in gone {
        let running = expiring(answer);
        running.names.until(&[("whole", 3)]).await;
        assert_eq!(*running.names.changes.borrow(), 1, "nothing else was ever shown");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_cannot_go_on_begins_again() {
    let lists = AtomicUsize::new(0);
    let running = start(move |line| match line {
        _ if line.contains("watch=true") => Answer::Silence,
        _ if line.contains("continue=") => expired(None),
        _ => match lists.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::ok(list("10", &[("a", 1)], Some("old"))),
            _ => Answer::ok(list("20", &[("b", 1)], None)),
        },
    });
    running.names.until(&[("b", 1)]).await;
}

#[tokio::test(start_paused = true)]
async fn one_page_that_fails_does_not_cost_those_before_it() {
    let tries = AtomicUsize::new(0);
    let running = start(move |line| match line {
        _ if line.contains("watch=true") => Answer::Silence,
        _ if line.contains("continue=") => match tries.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::Json(500, "{}".into()),
            1 => Answer::Broken,
            _ => Answer::ok(list("10", &[("b", 1)], None)),
        },
        _ => Answer::ok(list("10", &[("a", 1)], Some("more"))),
    });
    running.names.until(&[("a", 1), ("b", 1)]).await;
    assert_eq!(running.script.asked("limit=500").len(), 4);
}

/// A new list of a large cluster takes longer than a watch may be silent.
#[tokio::test(start_paused = true)]
async fn what_was_known_holds_while_the_list_that_replaces_it_comes_in_and_not_for_ever() {
    let (sender, events) = unbounded_channel();
    let events = Mutex::new(vec![
        Answer::Stream(events),
        and_then_nothing(event("ADDED", "a", 1, "3") + &initial_events_end("12")),
    ]);
    let running = begin(move |line| {
        if is_initial(line) {
            events.lock().pop().unwrap_or(Answer::Silence)
        } else {
            Answer::Json(410, "{}".into())
        }
    });
    running.health.first_list().await;
    let began = Instant::now();
    for second in (0..400).step_by(20) {
        sender.send(event("ADDED", "b", second, "13")).unwrap();
        tokio::task::yield_now().await;
        advance(Duration::from_secs(20)).await;
        tokio::task::yield_now().await;
        let silence = began.elapsed();
        assert_eq!(running.health.is_synced(), silence < SILENCE_LIMIT, "{silence:?}");
        assert_eq!(
            running.health.holds(),
            silence < Duration::from_secs(300),
            "{silence:?}"
        );
    }
    assert_eq!(
        *running.names.changes.borrow(),
        1,
        "the old state is what is shown"
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_that_comes_in_no_longer_lets_nothing_hold() {
    let streams = AtomicUsize::new(0);
    let running = begin(
        move |line| match (is_initial(line), streams.fetch_add(1, Ordering::SeqCst)) {
            (true, 0) => and_then_nothing(initial_events_end("12")),
            (true, _) => Answer::Silence,
            (false, _) => Answer::Json(410, "{}".into()),
        },
    );
    running.health.first_list().await;
    advance(Duration::from_secs(59)).await;
    assert!(running.health.holds());
    advance(Duration::from_secs(2)).await;
    assert!(!running.health.holds());
}

/// What keeps the old state in force is the list that comes in, and no longer than something of it does.
#[tokio::test(start_paused = true)]
async fn pages_that_come_in_no_longer_let_nothing_hold() {
    let streams = AtomicUsize::new(0);
    let running = begin(move |line| match line {
        _ if is_initial(line) => match streams.fetch_add(1, Ordering::SeqCst) {
            0 => and_then_nothing(initial_events_end("12")),
            _ => without_initial_events(),
        },
        _ if line.contains("watch=true") => Answer::Json(410, "{}".into()),
        _ if line.contains("continue=") => Answer::Silence,
        _ => Answer::ok(list("10", &[("a", 1)], Some("more"))),
    });
    running.health.first_list().await;
    sleep(Duration::from_secs(59)).await;
    assert!(running.health.holds());
    assert!(!running.script.asked("continue=").is_empty());
    sleep(Duration::from_secs(2)).await;
    assert!(!running.health.holds());
}

/// A list that breaks off is begun again after a pause, in which nothing is asked anew of every token.
#[tokio::test(start_paused = true)]
async fn what_was_known_holds_between_a_list_that_breaks_off_and_the_next() {
    let (sender, events) = unbounded_channel();
    let events = Mutex::new(Some(Answer::Stream(events)));
    let streams = AtomicUsize::new(0);
    let running = begin(
        move |line| match (is_initial(line), streams.fetch_add(1, Ordering::SeqCst)) {
            (true, 0) => and_then_nothing(event("ADDED", "a", 1, "3") + &initial_events_end("12")),
            (true, _) => events.lock().take().unwrap_or(Answer::Busy(20)),
            (false, _) => Answer::Json(410, "{}".into()),
        },
    );
    running.health.first_list().await;
    for _ in 0..4 {
        sleep(Duration::from_secs(20)).await;
        sender.send(event("ADDED", "b", 1, "13")).unwrap();
    }
    sleep(Duration::from_millis(1)).await;
    drop(sender);
    sleep(Duration::from_secs(15)).await;
    assert!(!running.health.is_synced());
    assert!(
        running.script.asked("sendInitialEvents").len() > 2,
        "it broke off"
    );
    assert!(running.health.holds(), "the next one waits for its turn");
    sleep(Duration::from_secs(15)).await;
    assert!(!running.health.holds(), "which brings nothing");
}

/// What an API server, or somebody between, goes on to send is no reason to wait for ever.
#[tokio::test(start_paused = true)]
async fn a_watch_that_never_ends_is_ended() {
    let endless = || {
        let (sender, events) = unbounded_channel();
        tokio::spawn(async move {
            while sender.send(event("ADDED", "a", 1, "3")).is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        });
        Answer::Stream(events)
    };
    let began = Instant::now();
    let running = begin(move |line| match line {
        _ if is_initial(line) => endless(),
        _ if line.contains("watch=true") => Answer::Silence,
        _ => Answer::ok(list("10", &[("whole", 1)], None)),
    });
    running.names.until(&[("whole", 1)]).await;
    assert_eq!(running.script.asked("sendInitialEvents").len(), 2);
    assert!(
        began.elapsed() >= Duration::from_secs(2 * 610),
        "each had its time"
    );
    // The same where a list catches up with itself.
    let running = expiring(endless);
    let began = Instant::now();
    running.names.until(&[("whole", 3)]).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
