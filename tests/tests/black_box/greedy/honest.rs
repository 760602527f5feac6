//! An agent that asks for what its pods need.

use signet_tests::{
    agent_client::{ClientCertificate, RawAgent},
    domain::Domain,
};

/// Pods of its node: each may have some dozens of certificates at once.
const PODS: usize = 24;

/// Asks for its pods, one after the other.
pub(super) struct Honest {
    agent: RawAgent,
    certificate: ClientCertificate,
    tokens: Vec<String>,
    asked: usize,
}

impl Honest {
    pub(super) async fn of(domain: &Domain, node: &str) -> Self {
        let pod = |number| domain.shop_pod(&format!("{node}-{number}"), node).unwrap();
        let tokens = (0..PODS).map(pod).collect();
        let (agent, certificate) = domain.raw_agent(node).await.unwrap();
        Self {
            agent,
            certificate,
            tokens,
            asked: 0,
        }
    }

    /// A certificate for the next pod.
    pub(super) async fn issue(&mut self) {
        let token = &self.tokens[self.asked % PODS];
        self.asked += 1;
        self.agent
            .issue_good(token)
            .await
            .expect("an honest agent issues");
    }

    /// Another connection, in place of the one that it has; as often as an agent may connect.
    pub(super) async fn connect_at_times(&mut self) {
        if !self.asked.is_multiple_of(16) {
            return;
        }
        let address = self.agent.address();
        let connecting = RawAgent::connect(address, Some(&self.certificate));
        self.agent = connecting.await.expect("an honest agent connects");
        self.agent.hello().await.expect("an honest agent says hello");
    }
}
