//! The StatefulSet.

use std::fs;

use signet_testkit::authority;
use signet_tests::process::binary;

use crate::root::{Container, Fault, Files};
use crate::running::Running;

mod needs_root {
    use super::*;

    /// As a user that is not root, with an API server that does not answer.
    #[tokio::test]
    #[ignore = "needs root, `ip`, `curl` and `nsenter`: `.ci/step machine` runs it"]
    async fn the_server_starts_as_the_manifest_says_and_prints_its_anchors() {
        let account = Files::from(
            [
                ("token", "not.a.token".to_owned()),
                ("ca.crt", authority("example.org").certificate().pem()),
                ("namespace", "signet-system".to_owned()),
            ]
            .map(|(name, text)| (name.to_owned(), text)),
        );
        let given = [("account", account)];
        let server = Container::new("server.yaml", &binary("signet-server"), &given, &Fault::default());
        let server = Running::of(server).await;
        assert!(server.lives(), "{}", server.log());
        let anchors = server.exec(&["signet-server", "ca", "anchors"]);
        let kept = fs::read(server.inside("/var/lib/signet-server/control-anchors.pem")).unwrap();
        assert_eq!(anchors.stdout, kept, "{anchors:?}");
        assert!(kept.starts_with(b"-----BEGIN CERTIFICATE-----"));
    }
}
