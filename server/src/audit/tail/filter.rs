//! Which lines an admin wants to see.

use serde_json::Value;
use signet_certs::serial::SerialNumber;

/// All that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// A SPIFFE ID: who got it, who asked, or what was named.
    pub spiffe_id: Option<String>,
    /// A pod, `namespace/name` or its UID.
    pub pod: Option<String>,
    /// A serial as lines have it.
    pub serial: Option<String>,
    /// Who ordered it.
    pub author: Option<String>,
}

impl Filter {
    /// Whether it wants a line.
    pub(crate) fn wants(&self, line: &str) -> bool {
        if *self == Self::default() {
            return true;
        }
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            return false;
        };
        let holds = |wanted: &Option<String>, is_it: fn(&Value, &str) -> bool| {
            wanted.as_ref().is_none_or(|wanted| is_it(&line, wanted))
        };
        holds(&self.spiffe_id, is_of_id)
            && holds(&self.pod, is_of_pod)
            && holds(&self.serial, is_of_serial)
            && holds(&self.author, |line, author| has(line, "author", author))
    }
}

fn has(line: &Value, member: &str, wanted: &str) -> bool {
    line[member] == wanted
}

/// What an admin named: the text behind one of these words.
fn target_of<'l>(line: &'l Value, words: &[&str]) -> Option<&'l str> {
    let target = line["target"].as_str()?;
    words.iter().find_map(|word| target.strip_prefix(word))
}

fn is_of_id(line: &Value, id: &str) -> bool {
    let members = ["spiffe_id", "agent_id", "caller"];
    let target = line["target"].as_str().unwrap_or_default();
    let prefix = target.strip_prefix("prefix ");
    members.iter().any(|member| has(line, member, id))
        || (!target.is_empty() && [id, path(id)].contains(&target))
        || prefix.is_some_and(|prefix| is_within(id, prefix) || is_within(path(id), prefix))
}

/// Who orders something may say the path of an ID alone.
fn path(id: &str) -> &str {
    let behind = id.strip_prefix("spiffe://").unwrap_or_default();
    behind
        .find('/')
        .and_then(|at| behind.get(at..))
        .unwrap_or_default()
}

/// By whole segments.
fn is_within(id: &str, prefix: &str) -> bool {
    let rest = id.strip_prefix(prefix.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_of_pod(line: &Value, pod: &str) -> bool {
    let named = pod.split_once('/').is_some_and(|(namespace, name)| {
        has(line, "pod_namespace", namespace) && has(line, "pod_name", name)
    });
    // `namespace/name, UID …, cluster UID …`, each where it is known.
    let target = target_of(line, &["pod ", "a rule and pod "]).unwrap_or_default();
    let mut parts = target.split(", ");
    let is_target = parts.any(|part| part.strip_prefix("UID ").unwrap_or(part) == pod);
    named || is_target || has(line, "pod", pod) || has(line, "pod_uid", pod)
}

fn is_of_serial(line: &Value, serial: &str) -> bool {
    let is_it = |said: &str| {
        said.parse::<SerialNumber>()
            .is_ok_and(|said| said.to_string() == serial)
    };
    let revoked = line["serials"].as_array();
    target_of(line, &["serial "]).is_some_and(is_it)
        || has(line, "serial", serial)
        || revoked.is_some_and(|revoked| revoked.iter().any(|one| has(one, "serial", serial)))
}

#[cfg(test)]
mod tests;
