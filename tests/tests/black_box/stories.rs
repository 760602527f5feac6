//! Lines of the log that belong to different stories: what happens on several connections at once can be told apart.

use std::collections::BTreeSet;

use signet_certs::verify::inspect_leaf;
use signet_proto::agent::refusal::Reason;
use signet_tests::{
    agent_client::{RawAgent, new_csr},
    domain::{CLUSTER, Domain},
    wait::eventually,
};
use tokio::join;

use super::support::assert_refused;

/// What stands behind `name=` in a part of a line, without quotes.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let (_, rest) = line
        .split_once(&format!("{name}="))
        .unwrap_or_else(|| panic!("{name}: {line}"));
    let end = rest.find([' ', '}']).unwrap_or(rest.len());
    rest[..end].trim_matches('"')
}

/// The spans of a line that names its connection and its call, and what it says.
fn story(line: &str) -> (&str, &str, &str) {
    let parts = line.split_once(" connection{").and_then(|(_, rest)| {
        let (connection, rest) = rest.split_once("}:call{")?;
        let (call, said) = rest.split_once("}: ")?;
        Some((connection, call, said))
    });
    parts.unwrap_or_else(|| panic!("{line}"))
}

/// Refused evidence of two agents and a stranger, all under way at once.
#[tokio::test]
async fn a_refused_attestation_names_its_connection_and_its_agent() {
    let domain = Domain::start().await.unwrap();
    domain.shop_pod("front", "node-a").unwrap();
    let (mut one, certificate_of_one) = domain.raw_agent("node-a").await.unwrap();
    let (mut other, certificate_of_other) = domain.raw_agent("node-b").await.unwrap();
    let mut stranger = RawAgent::connect(domain.server.agents(), None).await.unwrap();
    stranger.hello().await.unwrap();
    let agents = [&certificate_of_one, &certificate_of_other].map(|certificate| {
        let leaf = inspect_leaf(&certificate.chain[0]).unwrap();
        leaf.spiffe_id.to_string()
    });

    let csr = || new_csr().unwrap();
    // The pod is on the first one's node, and none of this is its token.
    let (first, second, third) = join!(
        one.issue_one(csr(), "not.a.token"),
        other.issue_one(csr(), "not.a.token"),
        stranger.attest(csr(), CLUSTER, "not.a.token"),
    );
    for refused in [first, second] {
        assert_refused("no token", refused.unwrap(), Reason::NotAttested);
    }
    third.unwrap_err();

    let refused = eventually("three lines", async || {
        let said = domain.server.said();
        let lines = said.lines().filter(|line| line.contains("issuer: refused "));
        let lines: Vec<String> = lines.map(ToOwned::to_owned).collect();
        (lines.len() >= 3).then_some(lines)
    });
    let refused = refused.await;
    let mut connections = BTreeSet::new();
    for line in &refused {
        let (connection, call, said) = story(line);
        assert_eq!(field(connection, "door"), "agents", "{line}");
        connections.insert((field(connection, "number"), field(connection, "peer")));
        let proved = connection.contains("agent=").then(|| field(connection, "agent"));
        match field(call, "rpc") {
            "IssueX509Svids" => {
                assert!(agents.iter().any(|agent| proved == Some(agent)), "{line}");
                assert_eq!(proved, Some(field(said, "caller")), "{line}");
            }
            "AttestNode" => assert_eq!(proved, None, "{line}"),
            other => panic!("{other}: {line}"),
        }
    }
    assert_eq!(
        connections.len(),
        3,
        "each is a connection of its own: {refused:#?}"
    );
    let proved: BTreeSet<_> = refused
        .iter()
        .filter(|line| line.contains("agent="))
        .map(|line| field(story(line).0, "agent"))
        .collect();
    assert_eq!(proved.len(), 2, "{refused:#?}");
}
