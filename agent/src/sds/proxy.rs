//! What both ways to ask have in common: who asks, for what, and how answers are told apart.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use signet_proto::envoy::config::core::v3::Node;
use tonic::Status;

use super::TYPE_URL;
use super::names::{LONGEST, MOST};
use super::node::Validator;
use crate::streams::status;

/// Longest id of a node that is kept, for the log.
const MAX_ID: usize = 256;

/// What a proxy said of itself when it began; only the first request has to say it.
#[derive(Debug, Default)]
pub(super) struct Proxy {
    known: Option<(Validator, String)>,
    plain: bool,
}

impl Proxy {
    /// Takes the node of a request, if it is the first. `plain` is the validator where the node says nothing.
    pub(super) fn hear(&mut self, node: Option<Node>, plain: bool) {
        self.plain = plain;
        if let (None, Some(node)) = (&self.known, node) {
            // A copy of what is kept: the whole of it may be as long as a request.
            let end = node.id.floor_char_boundary(MAX_ID);
            let id = node.id.get(..end).unwrap_or_default().to_owned();
            self.known = Some((Validator::of(&node, plain), id));
        }
    }

    /// Which validator it has.
    pub(super) fn validator(&self) -> Validator {
        let unknown = || Validator::of(&Node::default(), self.plain);
        self.known
            .as_ref()
            .map_or_else(unknown, |(validator, _)| *validator)
    }

    /// By which id it goes.
    pub(super) fn id(&self) -> &str {
        self.known.as_ref().map_or("", |(_, id)| id)
    }
}

/// The names of a request, sorted and each once.
///
/// # Errors
/// That they are not of secrets, too many, or too long.
pub(super) fn checked_names(type_url: &str, mut names: Vec<String>) -> Result<Vec<String>, Status> {
    if !type_url.is_empty() && type_url != TYPE_URL {
        return Err(Status::invalid_argument(format!(
            "only resources of type {TYPE_URL} are served"
        )));
    }
    if names.len() > MOST {
        return Err(Status::invalid_argument(format!(
            "more than {MOST} names in one stream"
        )));
    }
    if names.iter().any(|name| name.len() > LONGEST) {
        return Err(Status::invalid_argument(format!(
            "a name is longer than {LONGEST} bytes"
        )));
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// The end of a call that asked for what is not this workload's (SDS-08).
pub(super) fn not_granted(name: &str) -> Status {
    status::invalid(&format!(
        "this workload has no secret named `{name}`; it may ask for its SPIFFE IDs, its trust domains, and the names that the agent's \
         configuration has under sds"
    ))
}

/// The nonces of one stream. They begin with what no other stream's do, so that none of an earlier stream is taken for this one's, and are
/// counted for themselves: how many answers others get is nobody's business.
#[derive(Debug)]
pub(super) struct Nonces {
    stream: u64,
    next: u64,
}

impl Nonces {
    pub(super) fn new() -> Self {
        // A hash of nothing with a key that nobody knows, and that none before had: nothing can be told of one from another.
        let stream = RandomState::new().build_hasher().finish();
        Self { stream, next: 1 }
    }

    pub(super) fn next(&mut self) -> String {
        let nonce = format!("{:016x}.{:x}", self.stream, self.next);
        self.next = self.next.wrapping_add(1);
        nonce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So a nonce says nothing of other streams, and is none of theirs.
    #[test]
    fn each_stream_counts_its_answers_for_itself() {
        let (mut one, mut other) = (Nonces::new(), Nonces::new());
        let first = one.next();
        for _ in 0..10 {
            other.next();
        }
        let second = one.next();
        let (stream, _) = first.split_once('.').unwrap();
        assert_eq!(
            [first.clone(), second],
            [format!("{stream}.1"), format!("{stream}.2")]
        );
        assert!(!other.next().starts_with(stream));
    }

    #[test]
    fn of_a_long_node_little_is_kept() {
        let mut proxy = Proxy::default();
        let id = "é".repeat(100_000);
        proxy.hear(
            Some(Node {
                id,
                ..Node::default()
            }),
            false,
        );
        let (_, kept) = proxy.known.unwrap();
        assert!(kept.len() <= MAX_ID && kept.capacity() <= MAX_ID);
    }
}
