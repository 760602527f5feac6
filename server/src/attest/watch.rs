//! List and watch of one kind of object, for ever: list, watch from there, resume after drops, list again after 410.

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use kube::client::Body;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use signet_runtime::backoff::Backoff;
use signet_runtime::pace::random_unit;
use signet_runtime::sync::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::kube_api::{CallError, KubeApi, spoken};

/// A watch that has shown nothing for this long counts as unsynced.
pub(super) const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// How long one watch is asked to last. An API server sends a bookmark about every minute and one 2 s before the end;
/// ending earlier than that minute brings every watch a bookmark within [`SILENCE_LIMIT`].
const WATCH_SECONDS: u64 = 45;
const WATCH_GRACE: Duration = Duration::from_secs(10);
const PAGE: usize = 500;
/// Longest event read; an object of Kubernetes has at most about 1.5 MiB.
const MAX_EVENT_BYTES: usize = 8 * 1024 * 1024;
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
const PAUSES: Backoff = Backoff::between(MIN_BACKOFF, MAX_BACKOFF).jittered(0.2);
/// What stands for itself in a query (RFC 3986 §2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Where objects of one kind end up.
pub(super) trait Sink: Send + Sync + 'static {
    /// The parts of the object that matter.
    type Item: DeserializeOwned + Send + Sync;
    /// Path of the collection over all namespaces.
    const PATH: &'static str;
    /// The complete state, replacing what was known.
    fn replace(&self, items: Vec<Self::Item>) -> impl Future<Output = ()> + Send;
    /// One object was added or changed.
    fn upsert(&self, item: Self::Item) -> impl Future<Output = ()> + Send;
    /// One object is gone.
    fn remove(&self, item: Self::Item) -> impl Future<Output = ()> + Send;
}

/// Whether a watch can be believed, shared with those who ask.
#[derive(Debug)]
pub(super) struct WatchHealth {
    state: Mutex<State>,
    listed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    seen: Option<Instant>,
    current: Option<Instant>,
    problem: Option<String>,
}

impl WatchHealth {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            listed: watch::Sender::new(false),
        }
    }

    /// Complete, and showed a sign of life within [`SILENCE_LIMIT`].
    pub(super) fn is_synced(&self) -> bool {
        self.last_seen().is_some_and(|silence| silence < SILENCE_LIMIT)
    }

    /// Time since the last list, event or bookmark.
    pub(super) fn last_seen(&self) -> Option<Duration> {
        self.lock().seen.map(|at| at.elapsed())
    }

    /// When it had shown all that there was: with a list, or a bookmark.
    pub(super) fn current_at(&self) -> Option<Instant> {
        self.lock().current
    }

    fn last_seen_at(&self) -> Option<Instant> {
        self.lock().seen
    }

    /// What stands in the way now.
    pub(super) fn problem(&self) -> Option<String> {
        self.lock().problem.clone()
    }

    /// Returns once the first list is complete.
    pub(super) async fn first_list(&self) {
        // The sender lives in self, so waiting cannot fail.
        let _ = self.listed.subscribe().wait_for(|listed| *listed).await;
    }

    fn alive(&self, is_current: bool) {
        let mut state = self.lock();
        state.seen = Some(Instant::now());
        if is_current {
            state.current = state.seen;
        }
        state.problem = None;
    }

    fn failed(&self, problem: String) -> bool {
        let mut state = self.lock();
        let is_new = state.problem.is_none();
        state.problem = Some(problem);
        is_new
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Keeps `sink` equal to the cluster for as long as it is polled.
pub(super) async fn follow<S: Sink>(api: Arc<KubeApi>, sink: Arc<S>, health: Arc<WatchHealth>) {
    let (mut position, mut backoff) = (None, PAUSES);
    loop {
        let before = health.last_seen_at();
        let outcome = match position.take() {
            None => list(&api, &*sink, &health).await,
            Some(from) => watch_from(&api, &*sink, &health, from).await,
        };
        let progress = health.last_seen_at() != before;
        if progress {
            backoff.reset();
        }
        let wait = match outcome {
            Ok(next) => {
                position = next;
                // A watch that ends at once and shows nothing must not be begun again and again without pause.
                (!progress).then(|| backoff.next(random_unit()))
            }
            Err(Interrupted { resume, error }) => {
                position = resume;
                if health.failed(error.to_string()) {
                    tracing::warn!(cluster = %api.cluster(), path = S::PATH, %error, "watch interrupted");
                }
                let asked = match error {
                    CallError::Status { retry_after, .. } => retry_after,
                    _ => None,
                };
                Some(backoff.next(random_unit()).max(asked.unwrap_or_default()))
            }
        };
        if let Some(wait) = wait {
            sleep(wait).await;
        }
    }
}

struct Interrupted {
    /// Where to go on; a new list is needed without it.
    resume: Option<String>,
    error: CallError,
}

impl Interrupted {
    /// What cannot be read now would not be readable from there later either.
    fn at(position: String, error: CallError) -> Self {
        let resume = (!matches!(error, CallError::Junk(_))).then_some(position);
        Self { resume, error }
    }
}

#[derive(Deserialize)]
struct List<T> {
    metadata: ListMeta,
    items: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue", default)]
    more: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "type", content = "object", rename_all = "UPPERCASE")]
enum Event<T> {
    Added(T),
    Modified(T),
    Deleted(T),
    Bookmark(Versioned),
    Error(WatchStatus),
}

#[derive(Deserialize)]
struct Versioned {
    metadata: Version,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    resource_version: String,
}

#[derive(Deserialize)]
struct WatchStatus {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

type Next = Result<Option<String>, Interrupted>;

async fn list<S: Sink>(api: &KubeApi, sink: &S, health: &WatchHealth) -> Next {
    let mut items = Vec::new();
    let mut more = String::new();
    loop {
        let page: List<S::Item> = api
            .list(&format!("{}?limit={PAGE}{more}", S::PATH))
            .await
            .map_err(|error| Interrupted { resume: None, error })?;
        items.extend(page.items);
        match page.metadata.more.filter(|token| !token.is_empty()) {
            Some(token) => more = format!("&continue={}", utf8_percent_encode(&token, ENCODED)),
            None => {
                sink.replace(items).await;
                health.alive(true);
                health.listed.send_replace(true);
                return Ok(Some(page.metadata.resource_version));
            }
        }
    }
}

async fn watch_from<S: Sink>(api: &KubeApi, sink: &S, health: &WatchHealth, from: String) -> Next {
    let path = format!(
        "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}",
        S::PATH,
        utf8_percent_encode(&from, ENCODED)
    );
    let deadline = Instant::now() + Duration::from_secs(WATCH_SECONDS) + WATCH_GRACE;
    let mut body = match api.open(&path).await {
        Ok(body) => body,
        Err(CallError::Status { code: 410, .. }) => return Ok(None),
        Err(error) => return Err(Interrupted::at(from, error)),
    };
    let mut position = from;
    let mut lines = Lines::default();
    loop {
        let line = match lines.next(&mut body, deadline).await {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(Some(position)),
            Err(error) => return Err(Interrupted::at(position, error)),
        };
        match read_event::<S::Item>(&line) {
            Ok(Step::Apply(event, version)) => {
                let is_bookmark = matches!(event, Event::Bookmark(_));
                apply(sink, event).await;
                position = version;
                health.alive(is_bookmark);
            }
            Ok(Step::Expired) => return Ok(None),
            Err(error) => return Err(Interrupted::at(position, error)),
        }
    }
}

enum Step<T> {
    Apply(Event<T>, String),
    Expired,
}

fn read_event<T: DeserializeOwned>(line: &[u8]) -> Result<Step<T>, CallError> {
    let unreadable =
        |error: serde_json::Error| CallError::Junk(format!("{:?} error in a watch event", error.classify()));
    let event: Event<T> = serde_json::from_slice(line).map_err(unreadable)?;
    let version = match &event {
        Event::Error(status) if status.code == 410 || status.reason == "Expired" => return Ok(Step::Expired),
        Event::Error(status) => {
            return Err(CallError::Status {
                code: status.code,
                message: spoken(&status.message),
                retry_after: None,
            });
        }
        Event::Bookmark(bookmark) => bookmark.metadata.resource_version.clone(),
        // The item keeps no resource version of its own: read it from the same line.
        Event::Added(_) | Event::Modified(_) | Event::Deleted(_) => {
            serde_json::from_slice::<VersionedEvent>(line)
                .map_err(unreadable)?
                .object
                .metadata
                .resource_version
        }
    };
    Ok(Step::Apply(event, version))
}

#[derive(Deserialize)]
struct VersionedEvent {
    object: Versioned,
}

async fn apply<S: Sink>(sink: &S, event: Event<S::Item>) {
    match event {
        Event::Added(item) | Event::Modified(item) => sink.upsert(item).await,
        Event::Deleted(item) => sink.remove(item).await,
        Event::Bookmark(_) | Event::Error(_) => {}
    }
}

/// Cuts a body into lines, one event each.
#[derive(Default)]
struct Lines {
    buffer: BytesMut,
    /// Bytes at the start of the buffer known to hold no end of line.
    searched: usize,
}

impl Lines {
    /// The next line without its end; none after the last. Half a line at the end of the stream is dropped: the
    /// position before it is where the next watch begins.
    async fn next(&mut self, body: &mut Body, deadline: Instant) -> Result<Option<Bytes>, CallError> {
        loop {
            if let Some(end) = self.buffer[self.searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let line = self.buffer.split_to(self.searched + end).freeze();
                self.buffer.advance(1);
                self.searched = 0;
                if line.is_empty() {
                    continue;
                }
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.searched > MAX_EVENT_BYTES {
                return Err(CallError::Junk(format!(
                    "a watch event of more than {MAX_EVENT_BYTES} bytes"
                )));
            }
            match timeout_at(deadline, body.frame()).await {
                Err(_) => return Err(CallError::Timeout),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(CallError::Transport(error.to_string())),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}
