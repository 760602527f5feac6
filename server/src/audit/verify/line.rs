//! What one line of a file is.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::key::{HEAD, Head};
use super::super::line::hash_of;

/// SHA-256 of a line, without its newline.
pub(super) type Hash = [u8; 32];

/// How a line of a decision begins, and how a head does.
const BEGINNINGS: [&str; 2] = ["{\"server\":\"", "{\"event\":\"head\",\"server\":\""];

/// A line as it is read.
pub(super) enum Line<'l> {
    /// A decision, at its place in the chain.
    Event(Event<'l>),
    /// A statement about the chain.
    Head(Head),
    /// The beginning of either: whoever wrote it ended meanwhile.
    Half,
    /// Anything else.
    Foreign,
}

/// What places a decision in the chain.
pub(super) struct Event<'l> {
    pub server: Cow<'l, str>,
    pub boot: u64,
    pub sequence: u64,
    pub time: Cow<'l, str>,
    /// Hash of the line before.
    pub previous: Hash,
    /// Its own.
    pub hash: Hash,
}

#[derive(Deserialize)]
struct Members<'l> {
    #[serde(borrow)]
    server: Cow<'l, str>,
    boot: u64,
    sequence: u64,
    #[serde(borrow)]
    previous: Cow<'l, str>,
    #[serde(borrow)]
    time: Cow<'l, str>,
}

impl<'l> Line<'l> {
    /// Of its bytes, without the newline.
    pub(super) fn of(bytes: &'l [u8]) -> Self {
        let whole = std::str::from_utf8(bytes).ok().and_then(|text| {
            let event = event(text).map(Line::Event);
            event.or_else(|| head(text).map(Line::Head))
        });
        whole.unwrap_or_else(|| if is_half(bytes) { Line::Half } else { Line::Foreign })
    }
}

fn event(text: &str) -> Option<Event<'_>> {
    let members: Members<'_> = serde_json::from_str(text).ok()?;
    let mut previous = Hash::default();
    hex::decode_to_slice(&*members.previous, &mut previous).ok()?;
    Some(Event {
        server: members.server,
        boot: members.boot,
        sequence: members.sequence,
        time: members.time,
        previous,
        hash: hash_of(text),
    })
}

/// A head is no link of the chain, so nothing in it may be left to the writer's taste.
fn head(text: &str) -> Option<Head> {
    let head: Head = serde_json::from_str(text).ok()?;
    let is_ours = head.event == HEAD && serde_json::to_string(&head).is_ok_and(|canonical| canonical == text);
    is_ours.then_some(head)
}

/// A loss of power may leave zeros where the disk did not get the rest.
fn is_half(bytes: &[u8]) -> bool {
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    let (written, zeros) = bytes.split_at(end);
    let text = match std::str::from_utf8(written) {
        Ok(text) => text,
        // Cut off within a character.
        Err(error) if error.error_len().is_none() => {
            let (whole, _) = written.split_at(error.valid_up_to());
            std::str::from_utf8(whole).unwrap_or_default()
        }
        Err(_) => return false,
    };
    if text.is_empty() {
        return !zeros.is_empty();
    }
    let begins = BEGINNINGS
        .iter()
        .any(|begin| text.starts_with(begin) || begin.starts_with(text));
    begins && serde_json::from_str::<IgnoredAny>(text).is_err_and(|error| error.is_eof())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "{\"server\":\"s\",\"boot\":1,\"sequence\":7,\"previous\":\"0000000000000000000000000000000000000000000000000000000000000000\",\"time\":\"2026-11-27T09:00:00Z\",\"event\":\"allowed\",\"comment\":\"für\"}";

    fn kind(bytes: &[u8]) -> &'static str {
        match Line::of(bytes) {
            Line::Event(_) => "event",
            Line::Head(_) => "head",
            Line::Half => "half",
            Line::Foreign => "foreign",
        }
    }

    #[test]
    fn every_beginning_of_a_line_is_half_of_it() {
        assert_eq!(kind(WHOLE.as_bytes()), "event");
        for length in 1..WHOLE.len() {
            let (half, rest) = WHOLE.as_bytes().split_at(length);
            assert_eq!(kind(half), "half", "{length}");
            let zeroed = [half, &vec![0; rest.len()]].concat();
            assert_eq!(kind(&zeroed), "half", "{length}, and zeros");
        }
        assert_eq!(kind(&[0; 20]), "half");
    }

    #[test]
    fn what_is_neither_line_nor_beginning_is_foreign() {
        let twice = WHOLE.replacen("\"boot\":1", "\"boot\":1,\"boot\":2", 1);
        let no_hash = WHOLE.replacen("\"previous\":\"00", "\"previous\":\"xy", 1);
        for text in ["", " ", "{}", "[", "{\"sever\":\"x", "nonsense", &twice, &no_hash] {
            assert_eq!(kind(text.as_bytes()), "foreign", "{text}");
        }
        assert_eq!(kind(&[0xff, 0xfe]), "foreign");
    }
}
