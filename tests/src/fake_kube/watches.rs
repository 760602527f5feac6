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
    status::{answer, bad_request, gone, too_large},
};

type Chunk = Result<Bytes, std::io::Error>;

/// Query parameters of a list or a watch.
pub(crate) type Query = HashMap<String, String>;

/// Answers `GET /api/v1/…/<plural>`: a list, or with `watch` a stream of events.
pub(crate) fn list_or_watch(cluster: &Arc<Cluster>, kind: Kind, namespace: &str, query: &Query) -> Response {
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
        list(cluster, kind, &selector, query)
    }
}

/// Whether the query asks for a watch.
pub(crate) fn is_watch(query: &Query) -> bool {
    matches!(query.get("watch").map(String::as_str), Some("1" | "true"))
}

fn list(cluster: &Cluster, kind: Kind, selector: &Selector, query: &Query) -> Response {
    let etcd = cluster.etcd.lock();
    let mut items = etcd.list(kind, selector);
    let mut version = etcd.version();
    let mut start = 0;
    if let Some(token) = query.get("continue").filter(|token| !token.is_empty()) {
        let Some((of, at)) = read_continue(token) else {
            return bad_request("continue key is not valid");
        };
        // Changes since the first page are for the watch that follows, from the first page's version.
        if etcd.since(kind, selector, of).is_err() {
            return answer(StatusCode::GONE, &gone(of, version));
        }
        (version, start) = (of, at);
    }
    let limit = query
        .get("limit")
        .and_then(|limit| limit.parse().ok())
        .filter(|limit| *limit > 0)
        .unwrap_or(usize::MAX);
    let rest = items.len().saturating_sub(start);
    let mut metadata = json!({ "resourceVersion": version.to_string() });
    if rest > limit {
        metadata["continue"] = json!(write_continue(version, start + limit));
        metadata["remainingItemCount"] = json!(rest - limit);
    }
    let page: Vec<Value> = items
        .drain(start.min(items.len())..)
        .take(limit)
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
        "metadata": metadata, "items": page,
    });
    answer(StatusCode::OK, &body)
}

fn write_continue(version: u64, at: usize) -> String {
    URL_SAFE_NO_PAD.encode(format!("{version}:{at}"))
}

fn read_continue(token: &str) -> Option<(u64, usize)> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let (version, at) = text.split_once(':')?;
    Some((version.parse().ok()?, at.parse().ok()?))
}

fn stream(cluster: &Arc<Cluster>, kind: Kind, selector: Selector, version: u64, query: &Query) -> Response {
    let flag = |name: &str| query.get(name).is_some_and(|value| value == "true");
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
        initial_events: flag("sendInitialEvents"),
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
    initial_events: bool,
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
        if self.version == 0 {
            self.send_all().await?;
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
                    if self.ends.borrow().1 {
                        let cut = std::io::Error::other("the connection was cut on demand");
                        let _ = self.events.send(Err(cut)).await;
                    }
                    return Err(Over);
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
        for item in items {
            self.send("ADDED", item).await?;
        }
        self.version = version;
        if self.initial_events && self.bookmarks {
            self.send_bookmark(true).await?;
        }
        Ok(())
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
