//! Pages and events of the Kubernetes API, from bytes to objects.

use std::collections::HashMap;

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::Object;
use crate::kubernetes::api::{CallError, spoken};

/// Longest event read; an object of Kubernetes has at most about 1.5 MiB.
const MAX_EVENT_BYTES: usize = 8 * 1024 * 1024;
/// The annotation of the bookmark after which a watch that began with all objects has shown all of them.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// One page of a list.
#[derive(Deserialize)]
pub(super) struct Page<T> {
    pub(super) metadata: PageMeta,
    pub(super) items: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageMeta {
    pub(super) resource_version: String,
    /// Where the next page begins; none and empty after the last.
    #[serde(rename = "continue", default)]
    pub(super) more: Option<String>,
}

/// One event of a watch.
#[derive(Deserialize)]
#[serde(tag = "type", content = "object", rename_all = "UPPERCASE")]
pub(super) enum Event<T> {
    Added(T),
    Modified(T),
    Deleted(T),
    Bookmark(Bookmark),
    Error(WatchStatus),
}

impl<T: Object> Event<T> {
    /// The version of the cluster that it belongs to.
    pub(super) fn version(&self) -> &str {
        match self {
            Self::Added(item) | Self::Modified(item) | Self::Deleted(item) => item.version(),
            Self::Bookmark(bookmark) => &bookmark.metadata.resource_version,
            Self::Error(_) => "",
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Bookmark {
    metadata: BookmarkMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookmarkMeta {
    resource_version: String,
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
}

impl Bookmark {
    /// Whether all objects that there were have been shown now.
    pub(super) fn ends_initial_events(&self) -> bool {
        let annotations = self.metadata.annotations.as_ref();
        annotations
            .and_then(|all| all.get(INITIAL_EVENTS_END))
            .map(String::as_str)
            == Some("true")
    }
}

#[derive(Deserialize)]
pub(super) struct WatchStatus {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

/// Reads one line of a watch. An event that tells of an error is one: [`CallError::Expired`] where the version that the watch
/// began from is too old.
pub(super) fn read_event<T: Object>(line: &[u8]) -> Result<Event<T>, CallError> {
    let event: Event<T> = serde_json::from_slice(line)
        .map_err(|error| CallError::Junk(format!("{:?} error in a watch event", error.classify())))?;
    match event {
        Event::Error(status) if status.code == 410 || status.reason == "Expired" => {
            Err(CallError::Expired { more: None })
        }
        Event::Error(status) => Err(CallError::Status {
            code: status.code,
            message: spoken(&status.message),
            retry_after: None,
        }),
        event if event.version().is_empty() => Err(CallError::Junk("a watch event of no version".into())),
        event => Ok(event),
    }
}

/// Cuts a body into lines, one event each.
#[derive(Default)]
pub(super) struct Lines {
    buffer: BytesMut,
    /// Bytes at the start of the buffer known to hold no end of line.
    searched: usize,
}

impl Lines {
    /// The next line without its end; none after the last. Half a line at the end of the stream is dropped: the
    /// position before it is where the next watch begins. Past the deadline nothing counts, not even what has come already: one that is
    /// sent lines without end would never end.
    pub(super) async fn next(
        &mut self,
        body: &mut Body,
        deadline: Instant,
    ) -> Result<Option<Bytes>, CallError> {
        if Instant::now() >= deadline {
            return Err(CallError::Timeout);
        }
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
