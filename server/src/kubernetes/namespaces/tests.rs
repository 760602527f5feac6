use std::time::Duration;

use serde_json::{Value, json};
use signet_runtime::sync::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::kubernetes::testing::{Answer, Script};

fn namespace(name: &str, team: &str, version: u32) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": version.to_string(), "labels": {"team": team}}})
}

fn list(items: &[Value]) -> String {
    json!({"metadata": {"resourceVersion": "10"}, "items": items}).to_string()
}

fn event(kind: &str, object: &Value) -> String {
    json!({"type": kind, "object": object}).to_string() + "\n"
}

type Told = Arc<Mutex<Vec<Vec<String>>>>;

struct Running {
    script: Script,
    watch: Arc<NamespaceWatch>,
    wanted: watch::Sender<bool>,
    told: Told,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    fn start(wanted: bool, answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let script = Script::new(move |line| {
            if line.contains("sendInitialEvents") {
                Answer::Json(422, "{}".to_owned())
            } else {
                answer(line)
            }
        });
        let (told, wanted) = (Told::default(), watch::Sender::new(wanted));
        let teller = Arc::clone(&told);
        let tell: TellNamespaces = Box::new(move |names| teller.lock().push(names.iter().cloned().collect()));
        let watch = Arc::new(NamespaceWatch::new(tell, wanted.subscribe(), script.api.clock()));
        let (followed, api) = (Arc::clone(&watch), Arc::clone(&script.api));
        Self {
            script,
            watch,
            wanted,
            told,
            task: tokio::spawn(async move { followed.run(api).await }),
        }
    }

    fn team(&self, name: &str) -> Option<String> {
        self.watch.labels(name)?.get("team").cloned()
    }

    async fn until(&self, name: &str, team: Option<&str>) {
        for _ in 0..1000 {
            if self.team(name).as_deref() == team {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("{name} is {:?}", self.team(name));
    }

    fn received(&self) -> Vec<Vec<String>> {
        std::mem::take(&mut *self.told.lock())
    }
}

#[tokio::test(start_paused = true)]
async fn labels_are_those_of_now_and_who_is_told_hears_of_those_that_changed_alone() {
    let (sender, receiver) = mpsc::unbounded_channel();
    let receiver = Mutex::new(Some(receiver));
    let running = Running::start(true, move |line| {
        if !line.contains("watch=true") {
            return Answer::ok(list(&[namespace("shop", "a", 5), namespace("till", "a", 6)]));
        }
        receiver.lock().take().map_or(Answer::Silence, Answer::Stream)
    });
    running.until("shop", Some("a")).await;
    assert!(running.watch.holds());
    assert_eq!(running.team("bank"), None);
    // The same again, one more, other labels, and one that goes.
    let events = [
        event("MODIFIED", &namespace("shop", "a", 11)),
        event("ADDED", &namespace("bank", "b", 12)),
        event("MODIFIED", &namespace("shop", "b", 13)),
        event("DELETED", &namespace("till", "a", 14)),
    ];
    sender.send(events.concat()).unwrap();
    running.until("till", None).await;
    assert_eq!(running.team("shop").as_deref(), Some("b"));
    assert_eq!(running.team("bank").as_deref(), Some("b"));
    assert_eq!(running.received(), [vec!["shop".to_owned()]]);
}

/// What changed while the watch was down comes with the next list.
#[tokio::test(start_paused = true)]
async fn labels_that_changed_between_two_lists_are_told() {
    let lists = Mutex::new(vec![
        list(&[namespace("shop", "b", 15), namespace("new", "a", 16)]),
        list(&[namespace("shop", "a", 5), namespace("till", "a", 6)]),
    ]);
    let running = Running::start(true, move |line| {
        let mut lists = lists.lock();
        match (line.contains("watch=true"), lists.len()) {
            (true, 1) => Answer::Json(410, "{}".to_owned()),
            (true, _) => Answer::Silence,
            (false, _) => lists.pop().map_or(Answer::Silence, Answer::ok),
        }
    });
    running.until("shop", Some("b")).await;
    assert_eq!(running.received(), [vec!["shop".to_owned()]]);
    assert_eq!(running.team("till"), None);
}

/// A permission that no rule needs is not used, and what was shown once is not kept without a watch.
#[tokio::test(start_paused = true)]
async fn namespaces_are_followed_only_while_somebody_asks_for_their_labels() {
    let running = Running::start(false, |line| {
        if line.contains("watch=true") {
            return Answer::Silence;
        }
        Answer::ok(list(&[namespace("shop", "a", 5)]))
    });
    sleep(Duration::from_secs(3600)).await;
    assert!(running.script.asked("namespaces").is_empty());
    running.wanted.send_replace(true);
    running.until("shop", Some("a")).await;
    running.wanted.send_replace(false);
    running.until("shop", None).await;
    let asked = running.script.asked("namespaces").len();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(running.script.asked("namespaces").len(), asked);
    assert!(!running.watch.holds());
    running.wanted.send_replace(true);
    running.until("shop", Some("a")).await;
}

#[tokio::test(start_paused = true)]
async fn a_permission_that_is_missing_is_said_where_somebody_asks_and_used_once_it_is_given() {
    let allowed = Arc::new(Mutex::new(false));
    let is_allowed = Arc::clone(&allowed);
    let running = Running::start(true, move |line| {
        if !*is_allowed.lock() {
            let said = json!({"kind": "Status", "message": "namespaces is forbidden"});
            return Answer::Json(403, said.to_string());
        }
        if line.contains("watch=true") {
            return Answer::Silence;
        }
        Answer::ok(list(&[namespace("shop", "a", 5)]))
    });
    sleep(Duration::from_secs(5)).await;
    let problem = running.watch.problem().unwrap();
    assert!(
        problem.contains("namespaces is forbidden") && problem.contains("get, list and watch"),
        "{problem}"
    );
    assert!(!running.watch.holds());
    *allowed.lock() = true;
    running.until("shop", Some("a")).await;
    assert_eq!(running.watch.problem(), None);
    // It is nobody's problem where nobody asks.
    *allowed.lock() = false;
    sleep(Duration::from_secs(120)).await;
    assert!(running.watch.problem().is_some());
    running.wanted.send_replace(false);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(running.watch.problem(), None);
}

/// Somebody was judged by labels that were read, and by the time the watch shows any they are others.
#[tokio::test(start_paused = true)]
async fn labels_that_were_read_count_until_the_watch_shows_some() {
    let of = |team: &str| Arc::new(BTreeMap::from([("team".to_owned(), team.to_owned())]));
    let running = Running::start(false, |_| {
        Answer::Json(
            200,
            list(&[
                namespace("same", "a", 1),
                namespace("other", "a", 2),
                namespace("torn", "a", 3),
            ]),
        )
    });
    running.watch.was_read("same", &of("a"));
    running.watch.was_read("other", &of("b"));
    for team in ["a", "b", "a"] {
        running.watch.was_read("torn", &of(team));
    }
    running.watch.was_read("gone", &of("a"));
    running.wanted.send_replace(true);
    running.until("torn", Some("a")).await;
    assert_eq!(running.received(), [["other", "torn"]]);
    assert_eq!(
        running.watch.namespaces.read.read().len(),
        0,
        "nothing is kept of them"
    );
    // An answer that crossed with the watch is held against what that shows.
    running.watch.was_read("same", &of("a"));
    running.watch.was_read("same", &of("b"));
    assert_eq!(running.received(), [["same"]]);
    assert_eq!(running.watch.namespaces.read.read().len(), 0);
}
