//! Certificates by keys that live in a token, of authorities below a root.

use std::sync::atomic::Ordering;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use signet_certs::authority::{AuthorityChain, AuthorityProfile};
use signet_certs::signer::AuthoritySigner;
use signet_testkit::Upstream;

use super::*;
use crate::authority::source::{AuthoritySource, SourceError};
use crate::fixtures::Seams;
use crate::key_manager::token::Token;

struct Root(Upstream);

impl AuthoritySource for Root {
    fn certify<'a>(
        &'a self,
        profile: &'a AuthorityProfile,
        signer: &'a Arc<dyn AuthoritySigner>,
    ) -> BoxFuture<'a, Result<AuthorityChain, SourceError>> {
        async move { Ok(self.0.certify(profile, &signer.spki(), |_| {})?) }.boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn pods_and_agents_get_the_way_to_the_root_and_wait_for_the_token_off_the_threads_that_serve() {
    let token = Token::new();
    let seams = Seams {
        keys: token.clone(),
        source: Arc::new(Root(Upstream::default())),
    };
    let world = World::over(Running::elsewhere(seams).await, Vec::new()).await;
    let view = world.running.manager.current().borrow().clone();
    let own = |kind| {
        let active = view.kind(kind).active().unwrap();
        active.certificate().der().to_vec()
    };
    let workload = issued(world.issue_one(item(csr(), "pod-token")).await);
    assert_eq!(workload.chain[1..], [own(AuthorityKind::X509)]);
    world.attestor.add_node("node-token", node(world.running.now()));
    let agent = world.issuer.issue_to_node(node_request("node-token"), None);
    assert_eq!(agent.await.unwrap().chain[1..], [own(AuthorityKind::Control)]);
    assert_eq!(token.signed_on_the_serving_thread.load(Ordering::SeqCst), 0);
}
