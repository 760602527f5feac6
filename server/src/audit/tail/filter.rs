//! Which lines an admin wants to see.

use serde_json::Value;

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

fn is_of_id(line: &Value, id: &str) -> bool {
    let members = ["spiffe_id", "agent_id", "caller", "target"];
    members.iter().any(|member| has(line, member, id))
}

fn is_of_pod(line: &Value, pod: &str) -> bool {
    let named = pod.split_once('/').is_some_and(|(namespace, name)| {
        has(line, "pod_namespace", namespace) && has(line, "pod_name", name)
    });
    let is_target = line["target"]
        .as_str()
        .and_then(|target| target.strip_prefix("pod "))
        == Some(pod);
    named || is_target || has(line, "pod", pod) || has(line, "pod_uid", pod)
}

fn is_of_serial(line: &Value, serial: &str) -> bool {
    let is_target = line["target"]
        .as_str()
        .and_then(|target| target.strip_prefix("serial "))
        == Some(serial);
    let revoked = line["serials"].as_array();
    is_target
        || has(line, "serial", serial)
        || revoked.is_some_and(|revoked| revoked.iter().any(|one| has(one, "serial", serial)))
}
