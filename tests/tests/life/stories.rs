//! The log of server and agents in one process: whose lines are whose, while much goes on at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use serde_json::Value;
use signet_proto::admin::{RevokeRequest, RotateAuthorityRequest, revoke_request::Target};
use signet_runtime::sync::Mutex;
use signet_runtime::telemetry::{LogFormat, Rarely, dispatch};
use tokio::time::sleep;

use crate::world::{MINUTE, World};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().clone()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Those that say this.
    fn of(&self, message: &str) -> Vec<Value> {
        let mut lines = self.lines();
        lines.retain(|line| line["message"] == message);
        lines
    }
}

/// The span of this name that a line was written in.
fn span<'a>(line: &'a Value, name: &str) -> &'a Value {
    let spans = line["spans"].as_array().into_iter().flatten();
    let mut spans = spans.filter(|span| span["name"] == name);
    spans.next().unwrap_or_else(|| panic!("in no {name}: {line}"))
}

async fn revoke(world: &World, pod: &str) {
    let request = RevokeRequest {
        target: Some(Target::SpiffeId(format!("spiffe://example.org/ns/shop/sa/{pod}"))),
        reason: "keyCompromise".to_owned(),
        force: true,
        ..RevokeRequest::default()
    };
    let mut admin = world.server.as_ref().unwrap().admin.clone();
    admin.revoke(request).await.unwrap();
}

async fn rotate(world: &World, kind: &str) {
    let request = RotateAuthorityRequest {
        kind: kind.to_owned(),
        force: true,
        ..RotateAuthorityRequest::default()
    };
    let mut admin = world.server.as_ref().unwrap().admin.clone();
    let mut steps = admin.rotate_authority(request).await.unwrap().into_inner();
    while steps.message().await.unwrap().is_some() {}
}

#[tokio::test(start_paused = true)]
async fn what_goes_on_at_once_can_be_told_apart() {
    let log = Log::default();
    let to = log.clone();
    let chosen = "signet_server=debug,signet_agent=debug";
    let logging = dispatch(LogFormat::Json, chosen, Rarely::default(), false, move || {
        to.clone()
    });
    // Where there is one dispatcher alone, tracing asks the default one of whichever thread comes by a span first: that of another
    // test has none, and the span would be off for all.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let _here = tracing::dispatcher::set_default(&logging.unwrap());
    let world = World::new().await;
    for node in &world.nodes {
        node.context_within(&node.pods[0], MINUTE).await.unwrap();
    }

    // Both agents' pods lose their identities at once, and ask again; both kinds of authority are rotated meanwhile.
    tokio::join!(
        revoke(&world, "pod-of-node-a"),
        revoke(&world, "pod-of-node-b"),
        rotate(&world, "x509"),
        rotate(&world, "control"),
    );
    while log
        .of("refused")
        .iter()
        .map(|line| line["caller"].to_string())
        .collect::<BTreeSet<_>>()
        .len()
        < 2
    {
        sleep(MINUTE / 10).await;
    }

    agents_lines_name_their_connections(&log);
    let calls = log.of("an admin's call ended");
    let mut told = BTreeMap::<_, BTreeSet<u64>>::new();
    for line in &calls {
        assert_eq!(span(line, "connection")["door"], "admin", "{line}");
        let call = span(line, "call");
        let of_method = told.entry(call["rpc"].as_str().unwrap()).or_default();
        of_method.insert(call["number"].as_u64().unwrap());
    }
    assert_eq!(told["Revoke"].len(), 2, "{calls:#?}");
    assert_eq!(told["RotateAuthority"].len(), 2, "{calls:#?}");
    let mut rotated = BTreeSet::new();
    // The first ones come with the start, before there is a worker.
    let changed = log.of("authorities changed").into_iter();
    for line in changed.filter(|line| line["spans"][0]["task"] == "authorities") {
        rotated.insert(span(&line, "authorities")["kind"].to_string());
    }
    assert_eq!(rotated.len(), 2, "{rotated:?}");
    for line in log.of("CRL signed") {
        assert_eq!(span(&line, "worker")["task"], "publisher", "{line}");
    }
}

/// Whoever is named in a line of the agents' door is who has proved to be at the other end of the line's connection.
fn agents_lines_name_their_connections(log: &Log) {
    let mut connections = BTreeMap::<String, BTreeSet<u64>>::new();
    let served = [("issued", "requester"), ("refused", "caller")];
    for (message, who) in served {
        let lines = log.of(message);
        let from_agents = lines.iter().filter(|line| line["operation"] != "attest");
        for line in from_agents {
            let connection = span(line, "connection");
            assert_eq!(
                (&connection["door"], &connection["agent"]),
                (&"agents".into(), &line[who]),
                "{line}"
            );
            assert_eq!(span(line, "call")["rpc"], "IssueX509Svids", "{line}");
            let number = connection["number"].as_u64().unwrap();
            connections
                .entry(line[who].as_str().unwrap().to_owned())
                .or_default()
                .insert(number);
        }
    }
    let numbers: Vec<u64> = connections.values().flatten().copied().collect();
    let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(connections.len(), 2, "{connections:?}");
    assert_eq!(
        distinct.len(),
        numbers.len(),
        "no connection is of two agents: {connections:?}"
    );
}
