//! Connections to a server that is not to be spoken with any more.

use std::time::Duration;

use signet_runtime::drain::Drain;
use signet_runtime::signal::Reread;
use tokio::time::timeout;

use super::*;
use crate::server_client::anchors::LOOK;
use crate::server_client::fake::offered;
use crate::server_client::trust::{FileWord, Said, accept};

const SECOND: Duration = Duration::from_secs(1);

impl Bench {
    /// A trust stream that has carried something.
    async fn stream(&self) -> BoxStream<'static, Result<TrustUpdate, ServerError>> {
        let reports = watch::Sender::new(TrustReport::default());
        let (_, answers) = mpsc::channel(1);
        let mut updates = self
            .client
            .sync_trust(reports.subscribe(), answers)
            .await
            .unwrap();
        let update = updates.next().await.unwrap().unwrap();
        assert_eq!(update.said, Said::by(self.control.certificate().id(), None));
        // Kept open: without a reporter the stream would end by itself.
        let open = stream::unfold((updates, reports), |(mut updates, reports)| async {
            Some((updates.next().await?, (updates, reports)))
        });
        open.boxed()
    }

    /// The server again, with a certificate of another authority, at the same address.
    async fn serves_by(&self, other: &X509Authority) {
        let service = Service {
            seen: self.seen.clone(),
            hello: hello_of("example.org"),
            refuse_identified: false,
            control: other.clone(),
            node: id("/signet/agent/kind/node-1"),
        };
        let (address, _) = serve(service, other, &Odd::default(), other).await;
        self.wires.lead_to(address);
    }
}

/// While a stream is open and idle, and by a thief who would never end it.
#[tokio::test]
async fn a_connection_to_a_distrusted_server_is_cut_within_a_second_and_another_made_by_what_remains() {
    let bench = Bench::new(Odd::default()).await;
    bench.identify("/signet/agent/kind/node-1");
    let mut updates = bench.stream().await;
    let drain = Drain::new();
    let clock: Arc<dyn signet_runtime::clock::Clock> = bench.time.clone();
    tokio::spawn(
        bench
            .anchors
            .clone()
            .watch(LOOK, clock, Reread::never(), drain.clone()),
    );
    let next = control_authority(DOMAIN);
    bench.serves_by(&next).await;
    let distrusted = bench.control.certificate().id();
    let text = format!("distrusted: {distrusted}\n{}", next.certificate().pem());
    std::fs::write(&bench.anchors_file, text).unwrap();
    let ended = timeout(SECOND, updates.next()).await.unwrap();
    assert!(matches!(ended, Some(Err(_)) | None), "{ended:?}");
    let attested = bench.attest().await.unwrap();
    assert_eq!(
        attested.said.iter().collect::<Vec<_>>(),
        [&next.certificate().id()]
    );
    drain.start();
}

/// Nothing is said over a connection whose server's certificate a list names by now, not even a call that comes at once.
#[tokio::test]
async fn a_connection_to_a_server_whose_certificate_is_revoked_is_cut() {
    let bench = Bench::new(Odd::default()).await;
    bench.identify("/signet/agent/kind/node-1");
    let mut updates = bench.stream().await;
    let before = bench.calls();
    let listed = offered(&bench.control, &[serial(OF_THE_SERVER)], at(0));
    let update = TrustUpdate {
        sequence_number: 1,
        x509: vec![offered(&authority(DOMAIN), &[], at(0))],
        control: vec![listed],
        ..updates_of_nothing()
    };
    let accepted = accept(None, &update, &trust_domain(), &FileWord::default(), at(0)).unwrap();
    bench.anchors.update(&accepted.state.control, &Said::default());
    let refused = bench.client.issue(Vec::new()).await.unwrap_err();
    assert!(refused.to_string().contains("revoked"), "{refused}");
    assert_eq!(bench.calls(), before);
    let ended = timeout(SECOND, updates.next()).await.unwrap();
    assert!(matches!(ended, Some(Err(_)) | None), "{ended:?}");
}

fn updates_of_nothing() -> TrustUpdate {
    convert::trust_update(wire::TrustState::default()).unwrap()
}
