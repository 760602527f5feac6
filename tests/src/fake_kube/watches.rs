//! Lists and watches with the API server's rules: versions, pages, bookmarks, 410, connections that end or are cut.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    cluster::Cluster,
    objects::Kind,
    selector::Selector,
    status::{answer, bad_request, gone, invalid_options, list_expired, too_large},
};

type Chunk = Result<Bytes, std::io::Error>;

/// Query parameters of a list or a watch.
pub(crate) type Query = HashMap<String, String>;

/// Answers `GET /api/v1/…/<plural>`: a list, or with `watch` a stream of events.
pub(crate) fn list_or_watch(cluster: &Arc<Cluster>, kind: Kind, namespace: &str, query: &Query) -> Response {
    let wrong = contradictions(query, cluster.config.watch_list);
    if !wrong.is_empty() {
        return invalid_options(&wrong);
    }
    let parameter = |name: &str| query.get(name).map(String::as_str);
    let fields = parameter("fieldSelector");
    let selector = match Selector::parse(namespace, fields, parameter("labelSelector")) {
        Ok(selector) => selector,
        Err(message) => return bad_request(&message),
    };
    let version = match parameter("resourceVersion").unwrap_or_default() {
        "" => 0,
        text => match text.parse() {
            Ok(version) => version,
            Err(_) => return bad_request(&format!("invalid resource version {text:?}")),
        },
    };
    let current = cluster.etcd.lock().version();
    if version > current {
        return too_large(version, current);
    }
    if is_watch(query) {
        stream(cluster, kind, selector, version, query)
    } else {
        list(cluster, kind, &selector, version, query)
    }
}

/// Which parameters do not go together, by the API server's own rules.
fn contradictions(query: &Query, watch_list: bool) -> Vec<(&'static str, String)> {
    let has = |name: &str| query.get(name).is_some_and(|value| !value.is_empty());
    let (initial, matched) = ("sendInitialEvents", "resourceVersionMatch");
    let is_not_older = query.get(matched).is_some_and(|value| value == "NotOlderThan");
    let mut wrong = Vec::new();
    let mut forbid = |when: bool, field: &'static str, what: &str| {
        if when {
            wrong.push((field, what.to_owned()));
        }
    };
    if is_watch(query) {
        let unmatched = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        forbid(has(initial) && !is_not_older, matched, unmatched);
        let ungated = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
        forbid(has(initial) && !watch_list, initial, ungated);
        let alone = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        forbid(has(matched) && !has(initial), matched, alone);
    } else {
        let versionless = "resourceVersionMatch is forbidden unless resourceVersion is provided";
        forbid(has(matched) && !has("resourceVersion"), matched, versionless);
        let going_on = "resourceVersionMatch is forbidden when continue is provided";
        forbid(has(matched) && has("continue"), matched, going_on);
        forbid(has(initial), initial, "sendInitialEvents is forbidden for list");
    }
    wrong
}

/// Whether the query asks for a watch.
pub(crate) fn is_watch(query: &Query) -> bool {
    matches!(query.get("watch").map(String::as_str), Some("1" | "true"))
}

fn list(cluster: &Cluster, kind: Kind, selector: &Selector, version: u64, query: &Query) -> Response {
    let etcd = cluster.etcd.lock();
    let (mut of, mut start) = (None, None);
    if let Some(token) = query.get("continue").filter(|token| !token.is_empty()) {
        if version > 0 {
            return bad_request("specifying resource version is not allowed when using continue");
        }
        let Some(read) = Continue::read(token) else {
            return bad_request("continue key is not valid");
        };
        of = read.version;
        start = Some(read.start);
    }
    let limit = query
        .get("limit")
        .and_then(|limit| limit.parse().ok())
        .filter(|limit| *limit > 0)
        .unwrap_or(usize::MAX);
    let Ok(page) = etcd.page(kind, selector, of, start.clone(), limit) else {
        let start = start.unwrap_or_default();
        let more = Continue { version: None, start };
        return answer(StatusCode::GONE, &list_expired(&more.write()));
    };
    let mut metadata = json!({ "resourceVersion": page.version.to_string() });
    if let Some((start, remaining)) = page.rest {
        let version = Some(page.version);
        metadata["continue"] = json!(Continue { version, start }.write());
        metadata["remainingItemCount"] = json!(remaining);
    }
    let items: Vec<Value> = page
        .items
        .into_iter()
        .map(|mut item| {
            // Items of a list carry no type of their own.
            if let Some(members) = item.as_object_mut() {
                members.remove("kind");
                members.remove("apiVersion");
            }
            item
        })
        .collect();
    let body = json!({
        "kind": format!("{}List", kind.name()), "apiVersion": "v1",
        "metadata": metadata, "items": items,
    });
    answer(StatusCode::OK, &body)
}

/// Where a list goes on.
struct Continue {
    /// None for what there is by now.
    version: Option<u64>,
    /// Namespace and name of the last object before.
    start: (String, String),
}

impl Continue {
    fn write(&self) -> String {
        let version = self.version.and_then(|version| i64::try_from(version).ok());
        let (namespace, name) = &self.start;
        let key = format!("{namespace}/{name}\0");
        let token = json!({ "v": "meta.k8s.io/v1", "rv": version.unwrap_or(-1), "start": key });
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn read(token: &str) -> Option<Self> {
        let token: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let (namespace, name) = token["start"].as_str()?.strip_suffix('\0')?.split_once('/')?;
        Some(Self {
            version: u64::try_from(token["rv"].as_i64()?).ok(),
            start: (namespace.to_owned(), name.to_owned()),
        })
    }
}

fn stream(cluster: &Arc<Cluster>, kind: Kind, selector: Selector, version: u64, query: &Query) -> Response {
    let flag = |name: &str| query.get(name).is_some_and(|value| value == "true");
    let initial = query.get("sendInitialEvents").map(|value| value == "true");
    let seconds = query
        .get("timeoutSeconds")
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(1800);
    let (events, body) = mpsc::channel(64);
    let watcher = Watcher {
        cluster: Arc::clone(cluster),
        kind,
        selector,
        version,
        bookmarks: flag("allowWatchBookmarks"),
        initial,
        deadline: Instant::now() + Duration::from_secs(seconds),
        events,
        ends: cluster.watch_ends.subscribe(),
    };
    tokio::spawn(watcher.run());
    let mut response = Response::new(Body::from_stream(ReceiverStream::new(body)));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// One open watch.
struct Watcher {
    cluster: Arc<Cluster>,
    kind: Kind,
    selector: Selector,
    /// Everything up to here was sent.
    version: u64,
    bookmarks: bool,
    /// Whether it shall begin with all there is, and end that with a bookmark; as the version says without it.
    initial: Option<bool>,
    deadline: Instant,
    events: mpsc::Sender<Chunk>,
    /// Subscribed before the answer begins, so that no end comes too early to be seen.
    ends: watch::Receiver<(u64, bool)>,
}

/// The watch is over: its reader is gone, or it was told a last word.
struct Over;

impl Watcher {
    async fn run(mut self) {
        let _ = self.serve().await;
    }

    async fn serve(&mut self) -> Result<(), Over> {
        let mut newest = self.cluster.newest.subscribe();
        let every = self.cluster.config.bookmark_interval;
        let mut bookmark = tokio::time::interval_at(Instant::now() + every, every);
        match (self.initial, self.version) {
            (Some(true), _) | (None, 0) => self.send_all().await?,
            (Some(false), 0) => self.version = self.cluster.etcd.lock().version(),
            _ => {}
        }
        loop {
            newest.mark_unchanged();
            self.send_new().await?;
            tokio::select! {
                _ = newest.changed() => {}
                _ = bookmark.tick(), if self.bookmarks => {
                    // Versions of other kinds count as well: that is what bookmarks are for.
                    self.send_new().await?;
                    self.send_bookmark(false).await?;
                }
                _ = self.ends.changed() => {
                    return if self.ends.borrow().1 { self.cut().await } else { Err(Over) };
                }
                () = tokio::time::sleep_until(self.deadline) => return Err(Over),
                () = self.events.closed() => return Err(Over),
            }
        }
    }

    /// A watch from no version in particular begins with everything there is.
    async fn send_all(&mut self) -> Result<(), Over> {
        let (items, version) = {
            let etcd = self.cluster.etcd.lock();
            (etcd.list(self.kind, &self.selector), etcd.version())
        };
        let breaks_off = match (self.initial, self.kind) {
            (Some(true), Kind::Pod) => self.cluster.initial_events_break_off.lock().take(),
            _ => None,
        };
        for (number, item) in items.into_iter().enumerate() {
            if breaks_off == Some(number) {
                return self.cut().await;
            }
            self.send("ADDED", item).await?;
        }
        self.version = version;
        if self.initial == Some(true) && self.bookmarks {
            self.send_bookmark(true).await?;
        }
        Ok(())
    }

    async fn cut(&self) -> Result<(), Over> {
        let cut = std::io::Error::other("the connection was cut on demand");
        let _ = self.events.send(Err(cut)).await;
        Err(Over)
    }

    async fn send_new(&mut self) -> Result<(), Over> {
        let (seen, current) = {
            let etcd = self.cluster.etcd.lock();
            let seen = etcd.since(self.kind, &self.selector, self.version);
            (seen, etcd.version())
        };
        match seen {
            Ok(seen) => {
                for change in seen {
                    self.send(change.event, change.object).await?;
                }
                self.version = current;
                Ok(())
            }
            Err(too_old) => {
                let status = gone(self.version, too_old.oldest);
                self.send("ERROR", status).await?;
                Err(Over)
            }
        }
    }

    async fn send_bookmark(&self, initial: bool) -> Result<(), Over> {
        let version = self.version.to_string();
        let mut object = json!({
            "kind": self.kind.name(), "apiVersion": "v1",
            "metadata": { "resourceVersion": version, "creationTimestamp": null },
        });
        if initial {
            object["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        self.send("BOOKMARK", object).await
    }

    async fn send(&self, event: &str, object: Value) -> Result<(), Over> {
        let mut line = json!({ "type": event, "object": object }).to_string();
        line.push('\n');
        let sent = self.events.send(Ok(Bytes::from(line))).await;
        sent.map_err(|_| Over)
    }
}
