//! The complete state of one kind of object: as the beginning of a watch where the API server has that, else in pages.

use std::time::Duration;

use percent_encoding::utf8_percent_encode;
use signet_runtime::pace::random_unit;
use tokio::time::{Instant, sleep};

use super::health::WatchHealth;
use super::wire::{Event, Lines, Page, read_event};
use super::{ENCODED, PAUSES, Sink, WATCH_GRACE, watch_path};
use crate::kubernetes::api::{CallError, KubeApi};

const PAGE: usize = 500;
/// How long a watch that begins with something may take to begin: the API server first makes sure that it is up to date.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Bound of a watch that begins with all objects; a very large cluster takes a minute.
const STREAM_SECONDS: u64 = 600;
/// How long such a watch may be silent before it has shown all.
const STREAM_SILENCE: Duration = Duration::from_secs(30);
/// After so many of them that broke off, one list comes in pages: what lies between may end long answers.
const STREAMS: u32 = 2;
/// How often one page is asked for again before the list is given up.
const PAGE_TRIES: u32 = 4;
/// A watch that is to catch up is asked to last so long: shortly before its end it brings a bookmark.
const CATCH_UP_SECONDS: u64 = 5;
const CATCH_UP_TRIES: u32 = 6;

/// A complete state, and the version that a watch goes on from.
pub(super) struct Listed<T> {
    pub(super) state: T,
    pub(super) version: String,
}

/// The watches in a row that broke off before they had shown all.
#[derive(Default)]
pub(super) struct Streams {
    broken: u32,
}

impl Streams {
    fn may_try(&mut self) -> bool {
        if self.broken < STREAMS {
            return true;
        }
        self.broken = 0;
        false
    }
}

/// Reads all there is. What was known before stays in force meanwhile.
pub(super) async fn list<S: Sink>(
    api: &KubeApi,
    health: &WatchHealth,
    streams: &mut Streams,
) -> Result<Listed<S::State>, CallError> {
    if streams.may_try() {
        match stream::<S>(api, health).await {
            Ok(Some(listed)) => {
                streams.broken = 0;
                return Ok(listed);
            }
            Ok(None) => {}
            Err(error) => {
                streams.broken += 1;
                return Err(error);
            }
        }
    }
    pages::<S>(api, health).await
}

/// A watch that begins with everything there is at the moment of the request, and says when that was all. None where the API
/// server has no such thing: it refuses the parameter, or does not know it and sends bookmarks of another kind.
async fn stream<S: Sink>(api: &KubeApi, health: &WatchHealth) -> Result<Option<Listed<S::State>>, CallError> {
    let path = format!(
        "{}&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
        watch_path::<S>(STREAM_SECONDS)
    );
    let mut body = match api.open(&path, BEGIN_TIMEOUT).await {
        Err(CallError::Status { code: 400 | 422, .. }) => return Ok(None),
        opened => opened?,
    };
    let (mut state, mut lines) = (S::State::default(), Lines::default());
    let end = end_of(STREAM_SECONDS);
    while let Some(line) = lines.next(&mut body, silent_or(end)).await? {
        health.list_goes_on();
        match read_event::<S::Item>(&line)? {
            Event::Bookmark(bookmark) if !bookmark.ends_initial_events() => return Ok(None),
            bookmark @ Event::Bookmark(_) => {
                let version = bookmark.version().to_owned();
                return Ok(Some(Listed { state, version }));
            }
            event => change::<S>(&mut state, event),
        }
    }
    Err(CallError::Transport(
        "the watch ended before it had shown all objects".into(),
    ))
}

/// When a watch has to be over that begins now and was asked to last so long, whatever the API server makes of that.
fn end_of(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds) + WATCH_GRACE
}

/// By when the next line has to come.
fn silent_or(end: Instant) -> Instant {
    end.min(Instant::now() + STREAM_SILENCE)
}

fn change<S: Sink>(state: &mut S::State, event: Event<S::Item>) {
    match event {
        Event::Added(item) | Event::Modified(item) => S::add(state, item),
        Event::Deleted(item) => S::take(state, &item),
        Event::Bookmark(_) | Event::Error(_) => {}
    }
}

/// All pages of one list. They show one moment, unless their number took longer than the API server keeps a moment: it then
/// offers to go on with a newer one, and what changed in between comes from a watch, before any of it counts.
async fn pages<S: Sink>(api: &KubeApi, health: &WatchHealth) -> Result<Listed<S::State>, CallError> {
    let mut state = S::State::default();
    let (mut token, mut first): (Option<String>, Option<String>) = (None, None);
    loop {
        let (page, went_on) = page::<S>(api, token.as_deref()).await?;
        health.list_goes_on();
        if went_on {
            tracing::info!(cluster = %api.cluster(), path = S::PATH, "a list took too long to show one moment");
        }
        for item in page.items {
            S::add(&mut state, item);
        }
        let version = page.metadata.resource_version;
        let first = first.get_or_insert_with(|| version.clone());
        token = page.metadata.more.filter(|token| !token.is_empty());
        if token.is_none() {
            if *first == version {
                return Ok(Listed { state, version });
            }
            return catch_up::<S>(api, health, state, first, &version).await;
        }
    }
}

/// One page; true with it if it is of a newer moment than the token was.
async fn page<S: Sink>(api: &KubeApi, token: Option<&str>) -> Result<(Page<S::Item>, bool), CallError> {
    let (mut token, mut went_on) = (token.map(str::to_owned), false);
    let (mut tries, mut pauses) = (1, PAUSES);
    loop {
        let more = token.as_deref().map_or_else(String::new, |token| {
            format!("&continue={}", utf8_percent_encode(token, ENCODED))
        });
        match api.list(&format!("{}?limit={PAGE}{more}", S::PATH)).await {
            Ok(page) => return Ok((page, went_on)),
            Err(CallError::Expired { more: Some(newer) }) if token.is_some() && !went_on => {
                (token, went_on) = (Some(newer), true);
            }
            Err(error) if token.is_some() && error.is_passing() && tries < PAGE_TRIES => {
                tries += 1;
                let asked = error.retry_after().unwrap_or_default();
                sleep(pauses.next(random_unit()).max(asked)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Brings a state whose pages are of moments between two versions to the newer one: only a watch from the older version on
/// tells what went from a page that had been read. Without that the state would show, for good, what is gone.
async fn catch_up<S: Sink>(
    api: &KubeApi,
    health: &WatchHealth,
    mut state: S::State,
    from: &str,
    until: &str,
) -> Result<Listed<S::State>, CallError> {
    let unreadable = || CallError::Junk("a resource version that is no number".into());
    let until: u64 = until.parse().map_err(|_| unreadable())?;
    let mut version = from.to_owned();
    for _ in 0..CATCH_UP_TRIES {
        let path = format!(
            "{}&resourceVersion={}",
            watch_path::<S>(CATCH_UP_SECONDS),
            utf8_percent_encode(&version, ENCODED)
        );
        let (mut body, mut lines) = (api.open(&path, BEGIN_TIMEOUT).await?, Lines::default());
        let end = end_of(CATCH_UP_SECONDS);
        while let Some(line) = lines.next(&mut body, silent_or(end)).await? {
            health.list_goes_on();
            let event = read_event::<S::Item>(&line)?;
            event.version().clone_into(&mut version);
            change::<S>(&mut state, event);
            if version.parse::<u64>().map_err(|_| unreadable())? >= until {
                return Ok(Listed { state, version });
            }
        }
    }
    Err(CallError::Timeout)
}
