//! List and watch of one kind of object, for ever: list, watch from there, resume after drops, list again after 410.

mod health;
mod list;
#[cfg(test)]
mod tests;
mod wire;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use signet_runtime::backoff::Backoff;
use signet_runtime::pace::random_unit;
use tokio::time::{Instant, sleep};

pub(super) use self::health::WatchHealth;
use self::list::{Streams, list};
use self::wire::{Event, Lines, read_event};
use super::api::{CALL_TIMEOUT, CallError, KubeApi};

/// How long one watch is asked to last. An API server sends a bookmark about every minute and one 2 s before the end;
/// ending earlier than that minute brings every watch a bookmark within [`health::SILENCE_LIMIT`].
const WATCH_SECONDS: u64 = 45;
const WATCH_GRACE: Duration = Duration::from_secs(10);
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
const PAUSES: Backoff = Backoff::between(MIN_BACKOFF, MAX_BACKOFF).jittered(0.2);
/// What stands for itself in a query (RFC 3986 §2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// The parts of an object that matter.
pub(super) trait Object: DeserializeOwned + Send {
    /// The version of the cluster that it was read at or changed with.
    fn version(&self) -> &str;
}

/// Where objects of one kind end up.
pub(super) trait Sink: Send + Sync + 'static {
    /// The parts of the object that matter.
    type Item: Object;
    /// All of them at one moment, as a list builds it up.
    type State: Default + Send;
    /// Path of the collection over all namespaces.
    const PATH: &'static str;
    /// Adds an object to a state that is built up, or shows it there as it is by now.
    fn add(state: &mut Self::State, item: Self::Item);
    /// Takes an object away from a state that is built up.
    fn take(state: &mut Self::State, item: &Self::Item);
    /// The complete state, replacing what was known.
    fn replace(&self, state: Self::State) -> impl Future<Output = ()> + Send;
    /// One object was added or changed.
    fn upsert(&self, item: Self::Item);
    /// One object is gone.
    fn remove(&self, item: &Self::Item);
}

/// Path and query of a watch that lasts so long.
fn watch_path<S: Sink>(seconds: u64) -> String {
    format!(
        "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}",
        S::PATH
    )
}

/// Keeps `sink` equal to the cluster for as long as it is polled.
pub(super) async fn follow<S: Sink>(api: Arc<KubeApi>, sink: Arc<S>, health: Arc<WatchHealth>) {
    let (mut position, mut backoff, mut streams) = (None, PAUSES, Streams::default());
    loop {
        let (before, lists) = (health.last_seen_at(), position.is_none());
        let outcome = match position.take() {
            None => list_all(&api, &*sink, &health, &mut streams).await,
            Some(from) => watch_from(&api, &*sink, &health, from).await,
        };
        // A list is none: where each is followed by an end of the watch, lists would be asked for without pause.
        let progress = !lists && health.last_seen_at() != before;
        if progress {
            backoff.reset();
        }
        let wait = match outcome {
            Ok(next) => {
                position = next;
                let ended = "the API server does not keep what a watch goes on from";
                if position.is_none() && !progress && health.failed(ended.to_owned()) {
                    tracing::warn!(cluster = %api.cluster(), path = S::PATH, "a list was of no use for a watch");
                }
                // A watch that ends at once and shows nothing must not be begun again and again without pause.
                (!progress && !lists).then(|| backoff.next(random_unit()))
            }
            Err(Interrupted { resume, error }) => {
                position = resume;
                if health.failed(error.to_string()) {
                    tracing::warn!(cluster = %api.cluster(), path = S::PATH, %error, "watch interrupted");
                }
                let asked = error.retry_after().unwrap_or_default();
                Some(backoff.next(random_unit()).max(asked))
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

type Next = Result<Option<String>, Interrupted>;

async fn list_all<S: Sink>(api: &KubeApi, sink: &S, health: &WatchHealth, streams: &mut Streams) -> Next {
    let began = health.now();
    let listed = list::<S>(api, health, streams)
        .await
        .map_err(|error| Interrupted { resume: None, error })?;
    sink.replace(listed.state).await;
    health.listed(began);
    Ok(Some(listed.version))
}

async fn watch_from<S: Sink>(api: &KubeApi, sink: &S, health: &WatchHealth, from: String) -> Next {
    let path = format!(
        "{}&resourceVersion={}",
        watch_path::<S>(WATCH_SECONDS),
        utf8_percent_encode(&from, ENCODED)
    );
    let deadline = Instant::now() + Duration::from_secs(WATCH_SECONDS) + WATCH_GRACE;
    let mut body = match api.open(&path, CALL_TIMEOUT).await {
        Ok(body) => body,
        Err(CallError::Expired { .. }) => return Ok(None),
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
            Ok(event) => {
                let is_bookmark = matches!(event, Event::Bookmark(_));
                event.version().clone_into(&mut position);
                apply(sink, event);
                health.alive(is_bookmark);
            }
            Err(CallError::Expired { .. }) => return Ok(None),
            Err(error) => return Err(Interrupted::at(position, error)),
        }
    }
}

fn apply<S: Sink>(sink: &S, event: Event<S::Item>) {
    match event {
        Event::Added(item) | Event::Modified(item) => sink.upsert(item),
        Event::Deleted(item) => sink.remove(&item),
        Event::Bookmark(_) | Event::Error(_) => {}
    }
}
