//! The authorities, what is published of them, and the server's own certificates.

use std::sync::Arc;

use anyhow::Context;
use signet_certs::tls::SharedRoots;
use tokio::sync::watch;

use super::Base;
use crate::{
    agents::Agents,
    anchors,
    authority::{AuthorityManager, AuthorityManagerParts, SelfSigned},
    key_manager::KeyManager,
    metrics::Metrics,
    own_svid::{OwnSvidParts, OwnSvids, keep_own_svids},
    publisher::{Firsts, Publisher, PublisherParts, PublisherSettings},
    put_back::{Floors, PutBack, PutBackParts},
    trust::{self, TrustSnapshot},
};

/// What is published, as it changes.
pub(super) type Snapshots = watch::Receiver<Arc<TrustSnapshot>>;

/// The authorities and what is published of them.
pub(super) struct Trust {
    pub(super) agents: Arc<Agents>,
    pub(super) authorities: AuthorityManager,
    pub(super) publisher: Publisher,
    pub(super) snapshots: Snapshots,
    /// Numbers that the next lists have to pass.
    pub(super) floors: watch::Sender<Floors>,
    /// What comes first in an emergency, as far as it is done.
    pub(super) firsts: watch::Sender<Firsts>,
    pub(super) control: Arc<SharedRoots>,
}

impl Base {
    /// Authorities with their keys, their CRLs, and what agents and our own verifiers are told of them.
    pub(super) async fn start_trust(&self, keys: Arc<dyn KeyManager>) -> anyhow::Result<Trust> {
        let trust_domain = &self.config.trust_domain;
        let refresh_hint = self.config.refresh_hint;
        let (snapshot_sender, snapshots) = trust::channel(trust_domain.clone(), refresh_hint);
        let agents = Arc::new(Agents::new(self.store.clone(), self.audit.clone()));
        agents.refresh_spread(self.clock.time().earliest).await?;
        let authorities = AuthorityManager::start(AuthorityManagerParts {
            trust_domain: trust_domain.clone(),
            kinds: self.config.lives.clone(),
            store: self.store.clone(),
            keys,
            source: Arc::new(SelfSigned),
            clock: self.clock.clone(),
            snapshots: snapshots.clone(),
            reports: agents.spread(),
            drain: self.drain.clone(),
        })
        .await?;
        let firsts = watch::Sender::new(Firsts::default());
        // What they must not believe agents learn before anything else.
        anchors::keep(
            self.config.control_anchors_file.clone(),
            authorities.current(),
            firsts.clone(),
            &self.drain,
        )
        .await
        .context("trust.control_anchors_file")?;
        let floors = watch::Sender::new(Floors::new());
        let publisher = Publisher::start(PublisherParts {
            settings: PublisherSettings {
                trust_domain: trust_domain.clone(),
                refresh_hint,
                clock_skew: self.config.clock_skew,
                crl_max_bytes: self.config.crl_max_bytes,
            },
            store: self.store.clone(),
            view: authorities.current(),
            floors: floors.subscribe(),
            firsts: firsts.subscribe(),
            snapshots: snapshot_sender,
            clock: self.clock.clone(),
            drain: self.drain.clone(),
        })
        .await?;
        anyhow::ensure!(
            publisher.ready().await && authorities.ready().await,
            "the authorities did not start"
        );
        let control = trust::keep_control_roots(snapshots.clone(), &self.drain);
        Ok(Trust {
            agents,
            authorities,
            publisher,
            snapshots,
            floors,
            firsts,
            control,
        })
    }

    /// Who finds out that an older store was put in place of the present one.
    pub(super) async fn start_put_back(
        &self,
        trust: &Trust,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Arc<PutBack>> {
        let parts = PutBackParts {
            store: self.store.clone(),
            audit: self.audit.clone(),
            metrics: metrics.clone(),
            clock: self.clock.clone(),
            snapshots: trust.snapshots.clone(),
            floors: trust.floors.clone(),
            drain: self.drain.clone(),
        };
        Ok(PutBack::start(parts).await?)
    }

    /// The server's own certificates.
    pub(super) async fn start_own(&self, trust: &Trust, bundle_door: bool) -> anyhow::Result<OwnSvids> {
        let web_certificate = self.config.bundle.certificate.is_some();
        let parts = OwnSvidParts {
            trust_domain: self.config.trust_domain.clone(),
            server: self.config.control_profile.clone(),
            bundle: (bundle_door && !web_certificate).then(|| self.config.workload_profile.clone()),
            store: self.store.clone(),
            view: trust.authorities.current(),
            snapshots: trust.snapshots.clone(),
            firsts: trust.firsts.clone(),
            clock: self.clock.clone(),
            drain: self.drain.clone(),
        };
        Ok(keep_own_svids(parts).await?)
    }
}
