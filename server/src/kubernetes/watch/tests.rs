mod lists;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Deserialize;
use serde_json::json;
use signet_runtime::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::advance;

use super::health::SILENCE_LIMIT;
use super::*;
use crate::kubernetes::testing::{Answer, Script};

#[derive(Deserialize)]
struct Named {
    metadata: NamedMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NamedMeta {
    name: String,
    #[serde(default)]
    value: u32,
    #[serde(default)]
    resource_version: String,
}

impl Object for Named {
    fn version(&self) -> &str {
        &self.metadata.resource_version
    }
}

/// Remembers names; tells the test about every change.
struct Names {
    known: Mutex<BTreeMap<String, u32>>,
    changes: watch::Sender<usize>,
}

impl Names {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            known: Mutex::default(),
            changes: watch::Sender::new(0),
        })
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, u32>)) {
        change(&mut self.known.lock());
        self.changes.send_modify(|count| *count += 1);
    }

    async fn until(&self, expected: &[(&str, u32)]) {
        let is_so = |_: &usize| {
            let known = self.known.lock();
            known
                .iter()
                .map(|(name, value)| (name.as_str(), *value))
                .eq(expected.iter().copied())
        };
        let mut changes = self.changes.subscribe();
        let shown = tokio::time::timeout(Duration::from_secs(3600), changes.wait_for(is_so)).await;
        assert!(shown.is_ok(), "{:?}, and never {expected:?}", self.known.lock());
    }
}

impl Sink for Names {
    type Item = Named;
    type State = BTreeMap<String, u32>;
    const PATH: &'static str = "/api/v1/names";

    fn add(state: &mut Self::State, item: Named) {
        state.insert(item.metadata.name, item.metadata.value);
    }

    fn take(state: &mut Self::State, item: &Named) {
        state.remove(&item.metadata.name);
    }

    async fn replace(&self, state: Self::State) {
        self.change(|known| *known = state);
    }

    fn upsert(&self, item: Named) {
        self.change(|known| Self::add(known, item));
    }

    fn remove(&self, item: &Named) {
        self.change(|known| Self::take(known, item));
    }
}

fn list(version: &str, names: &[(&str, u32)], more: Option<&str>) -> String {
    let items: Vec<_> = names
        .iter()
        .map(|(name, value)| json!({"metadata": {"name": name, "value": value}}))
        .collect();
    json!({"metadata": {"resourceVersion": version, "continue": more}, "items": items}).to_string()
}

fn event(kind: &str, name: &str, value: u32, version: &str) -> String {
    let metadata = json!({"name": name, "value": value, "resourceVersion": version});
    json!({"type": kind, "object": {"metadata": metadata}}).to_string() + "\n"
}

fn bookmark(version: &str) -> String {
    json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}}).to_string() + "\n"
}

fn error(code: u16, reason: &str) -> String {
    json!({"type": "ERROR", "object": {"kind": "Status", "code": code, "reason": reason}}).to_string() + "\n"
}

struct Running {
    script: Script,
    names: Arc<Names>,
    health: Arc<WatchHealth>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What an API server answers that has no watches that begin with all objects, as 1.33 without its feature gate.
fn without_initial_events() -> Answer {
    let said = "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for \
        watch unless the WatchList feature gate is enabled";
    let status = json!({"kind": "Status", "reason": "Invalid", "message": said, "code": 422});
    Answer::Json(422, status.to_string())
}

/// Follows an API server that has lists in pages alone.
fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Running {
    begin(move |line| {
        if line.contains("sendInitialEvents") {
            without_initial_events()
        } else {
            answer(line)
        }
    })
}

fn begin(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Running {
    let script = Script::new(answer);
    let (names, health) = (
        Names::new(),
        Arc::new(WatchHealth::new(Arc::clone(script.api.clock()))),
    );
    let task = tokio::spawn(follow(
        Arc::clone(&script.api),
        Arc::clone(&names),
        Arc::clone(&health),
    ));
    Running {
        script,
        names,
        health,
        task,
    }
}

/// One list, then watches fed by the senders in order, then silence.
fn listed_then(
    first: String,
    count: usize,
) -> (
    Vec<UnboundedSender<String>>,
    impl Fn(&str) -> Answer + Send + Sync + 'static,
) {
    let (senders, mut receivers): (Vec<_>, Vec<UnboundedReceiver<String>>) =
        (0..count).map(|_| unbounded_channel()).unzip();
    receivers.reverse();
    let receivers = Mutex::new(receivers);
    let answer = move |line: &str| {
        if !line.contains("watch=true") {
            return Answer::ok(first.clone());
        }
        receivers.lock().pop().map_or(Answer::Silence, Answer::Stream)
    };
    (senders, answer)
}

#[tokio::test(start_paused = true)]
async fn it_lists_once_and_follows_from_there() {
    let (senders, answer) = listed_then(list("10", &[("a", 1), ("b", 1)], None), 1);
    let running = start(answer);
    running.names.until(&[("a", 1), ("b", 1)]).await;
    senders[0].send(event("ADDED", "c", 1, "11")).unwrap();
    senders[0]
        .send(event("MODIFIED", "a", 2, "12") + &event("DELETED", "b", 1, "13"))
        .unwrap();
    running.names.until(&[("a", 2), ("c", 1)]).await;
    assert!(running.health.is_synced());
    assert_eq!(running.script.asked("limit=500").len(), 1);
    let watch = running.script.asked("&resourceVersion=");
    assert_eq!(watch.len(), 1);
    assert!(watch[0].contains("allowWatchBookmarks=true") && watch[0].contains("resourceVersion=10"));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_watch_goes_on_from_the_last_event() {
    let (mut senders, answer) = listed_then(list("10", &[], None), 3);
    let running = start(answer);
    running.health.first_list().await;
    senders[0]
        .send(event("ADDED", "a", 1, "11") + &bookmark("20"))
        .unwrap();
    // Cut in the middle of an event: the half is not applied.
    let half = event("ADDED", "b", 1, "21");
    senders[0].send(half[..half.len() / 2].to_owned()).unwrap();
    running.names.until(&[("a", 1)]).await;
    drop(senders.remove(0));
    senders[0].send(half).unwrap();
    running.names.until(&[("a", 1), ("b", 1)]).await;
    let watches = running.script.asked("&resourceVersion=");
    assert!(watches[1].contains("resourceVersion=20"), "{watches:?}");
    assert_eq!(running.script.asked("limit=500").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn gone_in_the_stream_or_as_an_answer_means_a_new_list() {
    for in_stream in [true, false] {
        let lists = AtomicUsize::new(0);
        let watches = AtomicUsize::new(0);
        let running = start(move |line| {
            if !line.contains("watch=true") {
                let known: &[(&str, u32)] = if lists.fetch_add(1, Ordering::SeqCst) == 0 {
                    &[("old", 1)]
                } else {
                    &[("new", 1)]
                };
                return Answer::ok(list("10", known, None));
            }
            match (watches.fetch_add(1, Ordering::SeqCst), in_stream) {
                (0, true) => Answer::ok(error(410, "Expired")),
                (0, false) => Answer::Json(410, "{}".into()),
                _ => Answer::Silence,
            }
        });
        running.names.until(&[("new", 1)]).await;
        assert_eq!(running.script.asked("limit=500").len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_of_several_pages_is_taken_as_a_whole() {
    let running = start(|line| {
        if line.contains("watch=true") {
            Answer::Silence
        } else if line.contains("continue=next%2Fpage%3D") {
            Answer::ok(list("12", &[("b", 1)], Some("")))
        } else {
            Answer::ok(list("12", &[("a", 1)], Some("next/page=")))
        }
    });
    running.names.until(&[("a", 1), ("b", 1)]).await;
    assert_eq!(*running.names.changes.borrow(), 1);
}

#[tokio::test(start_paused = true)]
async fn silence_makes_it_unsynced_and_a_bookmark_synced_again() {
    let (senders, answer) = listed_then(list("10", &[], None), 1);
    let running = start(answer);
    running.health.first_list().await;
    advance(Duration::from_secs(40)).await;
    assert!(running.health.is_synced());
    senders[0].send(bookmark("11")).unwrap();
    tokio::task::yield_now().await;
    advance(Duration::from_secs(14)).await;
    assert!(running.health.is_synced());
    // The watch is over its time without an end: given up, and nothing answers any more.
    advance(Duration::from_secs(60)).await;
    assert!(!running.health.is_synced());
    assert!(running.health.last_seen().unwrap() >= SILENCE_LIMIT);
}

#[tokio::test(start_paused = true)]
async fn a_failing_api_server_is_asked_with_pauses_and_recovers() {
    let failing = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&failing);
    let running = start(move |line| {
        if line.contains("watch=true") {
            return Answer::Silence;
        }
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::Json(500, "{}".into()),
            1 => Answer::Broken,
            2 => Answer::ok("<html>"),
            3 => Answer::Json(403, "{}".into()),
            _ => Answer::ok(list("10", &[("a", 1)], None)),
        }
    });
    let began = Instant::now();
    running.names.until(&[("a", 1)]).await;
    let waited = began.elapsed();
    // 100 + 200 + 400 + 800 ms, each up to a fifth shorter.
    assert!(
        waited >= Duration::from_millis(1200) && waited <= Duration::from_millis(1600),
        "{waited:?}"
    );
    assert_eq!(running.health.problem(), None);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_at_once_is_not_asked_for_without_pause() {
    let running = start(|line| {
        if line.contains("watch=true") {
            Answer::ok("")
        } else {
            Answer::ok(list("10", &[], None))
        }
    });
    running.health.first_list().await;
    sleep(Duration::from_secs(10)).await;
    let asked = running.script.asked("&resourceVersion=").len();
    assert!(asked < 12, "{asked}");
}

/// Covers BT-11.
#[tokio::test(start_paused = true)]
async fn junk_in_the_stream_leads_to_a_new_list() {
    for junk in [
        "<html>\n".to_owned(),
        "{\"type\":\"ADDED\",\"object\":{}}\n".to_owned(),
        "x".repeat(9 << 20),
    ] {
        let (watches, lists) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let running = start(move |line| {
            if !line.contains("watch=true") {
                let value = u32::from(lists.fetch_add(1, Ordering::SeqCst) > 0);
                return Answer::ok(list("10", &[("a", value)], None));
            }
            let first = watches.fetch_add(1, Ordering::SeqCst) == 0;
            if first {
                Answer::ok(junk.clone())
            } else {
                Answer::Silence
            }
        });
        running.names.until(&[("a", 1)]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_an_api_server_asks_for_is_kept() {
    let lists = AtomicUsize::new(0);
    let running = start(move |line| {
        if line.contains("watch=true") {
            return Answer::Silence;
        }
        match lists.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::Busy(7),
            _ => Answer::ok(list("10", &[("a", 1)], None)),
        }
    });
    let began = Instant::now();
    running.names.until(&[("a", 1)]).await;
    assert!(began.elapsed() >= Duration::from_secs(7));
}
