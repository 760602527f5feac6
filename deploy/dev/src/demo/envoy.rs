//! The story with sidecar proxies: the pods' programs know nothing of certificates, two Envoys do.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use signet_runtime::output::Narration;
use signet_server::cli::admin::{AdminClient, CaOrder};
use signet_tests::{
    envoy::{Asks, Envoy, Place, Traffic, Validator, app},
    process::free_port,
    wait::within,
};

use super::{Narrator, PATIENCE, revocation};
use crate::domain::Domain;

/// How long a connection to a proxy may be open: what a revoked peer keeps of it.
const CONNECTION: Duration = Duration::from_secs(3);

/// The pods' proxies; frontend calls backend.
struct Proxies {
    frontend: Envoy,
    backend: Envoy,
    traffic: Traffic,
}

impl Proxies {
    async fn start(domain: &Domain, program: &std::path::Path) -> anyhow::Result<Self> {
        let app = app().await?;
        let (frontend, backend) = (free_port()?, free_port()?);
        let place = |pod: &str, inbound, peer, validator| -> anyhow::Result<Place> {
            Ok(Place {
                folder: domain.folder().join("envoy").join(pod),
                socket: domain.pod_socket("shop", pod),
                inbound,
                outbound: free_port()?,
                app,
                peer,
                validator,
                asks: Asks::Everything,
                connection: CONNECTION,
            })
        };
        let of_backend = place("backend", backend, frontend, Validator::Plain)?;
        let of_frontend = place("frontend", frontend, backend, Validator::Spiffe)?;
        let backend = Envoy::start(program, of_backend).await?;
        let frontend = Envoy::start(program, of_frontend).await?;
        let outbound = format!("http://127.0.0.1:{}/", frontend.place().outbound);
        Ok(Self {
            frontend,
            backend,
            traffic: Traffic::to(&[outbound]),
        })
    }

    /// Waits for so many more answers; none may fail.
    async fn more(&self, count: u64) -> anyhow::Result<()> {
        let goal = self.traffic.seen().answered + count;
        within(PATIENCE, async || {
            (self.traffic.seen().answered >= goal).then_some(())
        })
        .await
        .context("traffic stands still")?;
        let failed = self.traffic.seen().failed;
        ensure!(failed.is_empty(), "requests failed: {failed:?}");
        Ok(())
    }

    /// The certificate that frontend's proxy shows.
    async fn serial(&self) -> anyhow::Result<String> {
        let serials = self.frontend.serials().await?;
        serials
            .into_iter()
            .next()
            .context("frontend's proxy has no certificate")
    }

    async fn another_than(&self, serial: &str) -> anyhow::Result<String> {
        let other = within(PATIENCE, async || {
            self.serial().await.ok().filter(|now| now != serial)
        });
        other.await.context("frontend's proxy has no other certificate")
    }
}

/// Tells it. The program is an Envoy of this version.
pub(super) async fn tell(
    domain: &Domain,
    narrator: &Narrator,
    (program, version): &(PathBuf, String),
) -> anyhow::Result<()> {
    let proxies = Proxies::start(domain, program).await?;
    proxies.more(10).await?;
    narrator.say(&format!(
        "shop/frontend talks to shop/backend through two Envoys {version}, one with each of its validators; the programs know nothing of it"
    ));
    let first = proxies.serial().await?;
    let renewed = proxies.another_than(&first).await?;
    proxies.more(10).await?;
    narrator.say(&format!(
        "frontend's SVID renewed under traffic: serial {first} became {renewed}"
    ));

    let mut admin = AdminClient::connect(&domain.admin_socket()).await?;
    admin
        .order(
            CaOrder::rotation(),
            true,
            Narration::untold(),
            std::future::pending(),
        )
        .await
        .context("ca rotate")?;
    proxies.another_than(&proxies.serial().await?).await?;
    proxies.more(10).await?;
    narrator.say(&format!(
        "the CA rotated under traffic; {} requests so far, none failed",
        proxies.traffic.seen().answered
    ));

    let id = "spiffe://example.org/ns/shop/sa/frontend";
    let revoked = admin.revoke(revocation(id)).await.context("revoke")?;
    ensure!(
        revoked.problem.is_none(),
        "the list was not published: {:?}",
        revoked.problem
    );
    narrator.say(&format!("revoked {id}"));
    let refused = within(PATIENCE, async || {
        proxies.traffic.seen().failed.into_iter().next()
    })
    .await;
    let refused = refused.context("frontend's requests were still answered")?;
    let counted = proxies.backend.fail_verify().await?;
    ensure!(
        counted > 0,
        "backend's Envoy has refused nobody, and yet: {refused}"
    );
    narrator.say("backend's Envoy refuses frontend's connections, new ones at once and the old one when its time was over");
    Ok(())
}
