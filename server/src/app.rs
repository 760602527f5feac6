//! The composition root: the only place that knows every part of the server.

mod background;
mod doors;
mod listeners;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use ring::rand::SystemRandom;
use signet_certs::{svid::SvidProfile, tls::SharedRoots};
use signet_runtime::{
    clock::{Clock, SystemClock},
    drain::Drain,
    http::serve_telemetry,
    ready::Readiness,
    signal::shutdown_signal,
    telemetry,
};
use tokio::sync::{mpsc, watch};

pub use self::doors::Addresses;
use self::{
    doors::Doors,
    listeners::{Snapshots, serve_admin, serve_agents, serve_bundle_door, serve_publish},
};
use crate::{
    agents::Agents,
    api::{access::AccessLayer, admin::AdminService, agent::AgentService},
    attest::{Attestor, PodEvent, cluster::KubernetesAttestor},
    audit::{AuditAction, AuditEmitter, AuditEvent, AuditLog, AuditSink},
    authority::{AuthorityManager, AuthorityManagerParts},
    config::Config,
    issuer::{Issuer, IssuerParts},
    key_manager::KeyManager,
    metrics::Metrics,
    own_svid::{OwnSvidParts, OwnSvids, keep_own_svids},
    publisher::{Publisher, PublisherParts, PublisherSettings},
    store::{Store, sqlite::SqliteStore},
    trust,
};

/// Bound of the graceful end; Kubernetes gives 30 s by default.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);
/// How often readers of the bundle should come back, unless configured.
const REFRESH_HINT: Duration = Duration::from_secs(300);
/// Pod events that may wait to be told to agents.
const POD_EVENTS: usize = 1024;
/// Runs the server until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// What kept it from starting.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let signal = shutdown_signal();
    let server = Server::start(config).await?;
    let (reason, outcome) = tokio::select! {
        name = signal => (name.to_string(), Ok(())),
        () = server.drain.signalled() => (
            "a vital task ended".to_owned(),
            Err(anyhow::anyhow!("a task that the server cannot do without has ended: the log says which and why")),
        ),
    };
    server.stop(&reason).await;
    outcome
}

/// A running server.
pub struct Server {
    /// Where it can be reached.
    pub addresses: Addresses,
    audit: AuditLog,
    clock: Arc<dyn Clock>,
    drain: Drain,
    telemetry_drain: Drain,
    readiness: Readiness,
    emitter: AuditEmitter,
}

impl Server {
    /// Opens every door, then the store, then starts the parts.
    ///
    /// # Errors
    /// What was in the way; nothing is left running.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let doors = Doors::open(&config).await?;
        let addresses = doors.addresses()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = open_store(&config)?;
        let keys = Arc::new(KeyManager::open(&config.kek_file, store.as_ref()).await?);
        let audit_key = keys.audit_key(store.as_ref()).await?;
        let sink = config
            .raw
            .audit
            .file
            .clone()
            .map_or(AuditSink::Stdout, AuditSink::File);
        let server_id = store.info().server_id.clone();
        let emitter = AuditEmitter::spawn(store.clone(), server_id, audit_key, sink, clock.clone());
        let audit = AuditLog::start(store.clone());
        let drain = Drain::new();
        let telemetry_drain = Drain::new();
        let base = Base {
            config,
            store,
            audit: audit.clone(),
            clock: clock.clone(),
            drain: drain.clone(),
        };
        let readiness = Readiness::new();
        // Held here, and `/ready` closed before it goes: a start that fails is never taken for ready.
        let starting = readiness.guard("start");
        let started = base.start(doors, keys, &readiness, &telemetry_drain).await;
        if let Err(error) = started {
            drain.finish(DRAIN_LIMIT).await;
            audit.flush().await;
            emitter.finish().await;
            telemetry_drain.start();
            return Err(error);
        }
        starting.done();
        tracing::info!(
            agents = %addresses.agents,
            publish = %addresses.publish,
            telemetry = %addresses.telemetry,
            "the server is up"
        );
        Ok(Self {
            addresses,
            audit,
            clock,
            drain,
            telemetry_drain,
            readiness,
            emitter,
        })
    }

    /// Streams end first, requests under way finish, the audit log is written out.
    pub async fn stop(self, reason: &str) {
        tracing::info!(reason, "stopping");
        let _stopping = self.readiness.guard("stopping");
        let stopped = AuditAction::ServerStopped {
            reason: reason.to_owned(),
        };
        self.audit.record(AuditEvent::new(self.clock.now(), stopped));
        if !self.drain.finish(DRAIN_LIMIT).await {
            tracing::warn!("some requests did not end in time");
        }
        self.telemetry_drain.finish(Duration::from_secs(1)).await;
        self.audit.flush().await;
        self.emitter.finish().await;
        tracing::info!("stopped");
    }
}

fn open_store(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    Ok(Arc::new(SqliteStore::open(
        &config.raw.data_dir,
        &config.trust_domain,
    )?))
}

/// What every part is built on.
struct Base {
    config: Config,
    store: Arc<dyn Store>,
    audit: AuditLog,
    clock: Arc<dyn Clock>,
    drain: Drain,
}

/// The authorities and what is published of them.
struct Trust {
    agents: Arc<Agents>,
    authorities: AuthorityManager,
    publisher: Publisher,
    snapshots: Snapshots,
    control: Arc<SharedRoots>,
}

/// Who decides about identities.
struct Deciders {
    attestor: Arc<dyn Attestor>,
    pod_events: mpsc::Receiver<PodEvent>,
    issuer: Arc<Issuer>,
    clock_trusted: watch::Sender<bool>,
    policy_revision: u64,
}

impl Base {
    async fn start(
        self,
        doors: Doors,
        keys: Arc<KeyManager>,
        readiness: &Readiness,
        telemetry_drain: &Drain,
    ) -> anyhow::Result<()> {
        let registry = telemetry::Metrics::new("signet_server");
        let metrics = Metrics::register(&registry);
        let telemetry = serve_telemetry(
            doors.telemetry,
            readiness.clone(),
            registry,
            telemetry_drain.clone(),
        );
        tokio::spawn(telemetry);

        let trust = self.start_trust(keys).await?;
        let own = self.start_own(&trust, doors.bundle.is_some()).await?;
        let deciders = self.start_deciders(&trust, &metrics).await?;

        serve_publish(doors.publish, trust.snapshots.clone(), &self.drain);
        if let Some(listener) = doors.bundle {
            serve_bundle_door(
                listener,
                &self.config.raw.publish,
                &own,
                trust.snapshots.clone(),
                &self.drain,
            )?;
        }
        let access = self.access(&trust, Some(trust.control.clone()));
        let agent_service = self.agent_service(&trust, &deciders);
        let trust_domain = self.config.trust_domain.id();
        serve_agents(
            doors.agents,
            agent_service,
            access,
            &own,
            trust.control.clone(),
            &trust_domain,
            &self.drain,
        )?;
        let admin_service = self.admin_service(&trust, &deciders, readiness, &metrics);
        serve_admin(doors.admin, admin_service, self.access(&trust, None), &self.drain);
        background::start(background::Parts {
            store: self.store.clone(),
            audit: self.audit.clone(),
            agents: trust.agents,
            metrics,
            snapshots: trust.snapshots,
            clock_trusted: deciders.clock_trusted,
            pod_events: deciders.pod_events,
            clock: self.clock.clone(),
            drain: self.drain.clone(),
        });
        self.audit.record(AuditEvent::new(
            self.clock.now(),
            AuditAction::ServerStarted {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                trust_domain: self.config.trust_domain.to_string(),
                epoch: self.store.info().epoch,
            },
        ));
        Ok(())
    }

    /// Authorities with their keys, their CRLs, and what agents and our own verifiers are told of them.
    async fn start_trust(&self, keys: Arc<KeyManager>) -> anyhow::Result<Trust> {
        let trust_domain = &self.config.trust_domain;
        let raw = &self.config.raw;
        let refresh_hint = raw.publish.refresh_hint.map_or(REFRESH_HINT, |hint| hint.get());
        let (snapshot_sender, snapshots) = trust::channel(trust_domain.clone(), refresh_hint);
        let agents = Arc::new(Agents::default());
        let authorities = AuthorityManager::start(AuthorityManagerParts {
            trust_domain: trust_domain.clone(),
            x509: self.config.lives.x509,
            control: self.config.lives.control,
            store: self.store.clone(),
            keys,
            clock: self.clock.clone(),
            snapshots: snapshots.clone(),
            reports: agents.spread(),
            drain: self.drain.clone(),
        })
        .await?;
        let publisher = Publisher::start(PublisherParts {
            settings: PublisherSettings {
                trust_domain: trust_domain.clone(),
                refresh_hint,
                clock_skew: raw.svid.clock_skew.get(),
                crl_max_bytes: raw.crl.max_bytes,
            },
            store: self.store.clone(),
            view: authorities.current(),
            snapshots: snapshot_sender,
            clock: self.clock.clone(),
            drain: self.drain.clone(),
        })
        .await?;
        anyhow::ensure!(
            publisher.ready().await && authorities.ready().await,
            "the authorities did not start"
        );
        trust::keep_anchors(
            self.config.control_anchors_file.clone(),
            snapshots.clone(),
            &self.drain,
        )
        .await
        .context("trust.control_anchors_file")?;
        let control = trust::keep_control_roots(snapshots.clone(), &self.drain);
        Ok(Trust {
            agents,
            authorities,
            publisher,
            snapshots,
            control,
        })
    }

    /// The server's own certificates.
    async fn start_own(&self, trust: &Trust, bundle_door: bool) -> anyhow::Result<OwnSvids> {
        let web_certificate = self.config.raw.publish.bundle_certificate_file.is_some();
        let parts = OwnSvidParts {
            trust_domain: self.config.trust_domain.clone(),
            server: self.control_profile(),
            bundle: (bundle_door && !web_certificate).then(|| self.workload_profile()),
            store: self.store.clone(),
            view: trust.authorities.current(),
            snapshots: trust.snapshots.clone(),
            clock: self.clock.clone(),
            drain: self.drain.clone(),
        };
        Ok(keep_own_svids(parts).await?)
    }

    async fn start_deciders(&self, trust: &Trust, metrics: &Arc<Metrics>) -> anyhow::Result<Deciders> {
        let (event_sender, pod_events) = mpsc::channel(POD_EVENTS);
        let raw = &self.config.raw;
        let attestor = KubernetesAttestor::start(
            &raw.attestation,
            &self.config.trust_domain,
            raw.svid.clock_skew.get(),
            self.clock.clone(),
            &self.drain,
            event_sender,
        )
        .await?;
        let attestor: Arc<dyn Attestor> = Arc::new(attestor);
        let (clock_trusted, clock_is_trusted) = watch::channel(true);
        let issuer = Issuer::new(IssuerParts {
            trust_domain: self.config.trust_domain.clone(),
            store: self.store.clone(),
            audit: self.audit.clone(),
            attestor: attestor.clone(),
            rules: self.config.rules.clone(),
            authorities: trust.authorities.current(),
            clock: self.clock.clone(),
            rng: SystemRandom::new(),
            profile: self.workload_profile(),
            control_profile: self.control_profile(),
            max_live: raw.svid.max_live,
            agents: trust.agents.clone(),
            clock_trusted: clock_is_trusted,
            metrics: metrics.clone(),
        });
        let policy_revision = self.config.rules.revision();
        Ok(Deciders {
            attestor,
            pod_events,
            issuer: Arc::new(issuer),
            clock_trusted,
            policy_revision,
        })
    }

    fn agent_service(&self, trust: &Trust, deciders: &Deciders) -> AgentService {
        AgentService {
            trust_domain: self.config.trust_domain.clone(),
            issuer: deciders.issuer.clone(),
            agents: trust.agents.clone(),
            trust: trust.snapshots.clone(),
            control: trust.control.clone(),
            store: self.store.clone(),
            policy_revision: deciders.policy_revision,
            clock: self.clock.clone(),
            drain: self.drain.clone(),
        }
    }

    fn admin_service(
        &self,
        trust: &Trust,
        deciders: &Deciders,
        readiness: &Readiness,
        metrics: &Arc<Metrics>,
    ) -> AdminService {
        AdminService {
            trust_domain: self.config.trust_domain.clone(),
            store: self.store.clone(),
            authorities: trust.authorities.clone(),
            publisher: trust.publisher.clone(),
            trust: trust.snapshots.clone(),
            agents: trust.agents.clone(),
            attestor: deciders.attestor.clone(),
            readiness: readiness.clone(),
            metrics: metrics.clone(),
            policy_revision: deciders.policy_revision,
            clock: self.clock.clone(),
            started: self.clock.now(),
        }
    }

    /// `control` is the trust that callers' certificates are judged by; none on the admin socket.
    fn access(&self, trust: &Trust, control: Option<Arc<SharedRoots>>) -> AccessLayer {
        AccessLayer {
            control,
            agents: trust.agents.clone(),
            clock: self.clock.clone(),
        }
    }

    fn workload_profile(&self) -> SvidProfile {
        self.profile(self.config.raw.svid.ttl.get())
    }

    fn control_profile(&self) -> SvidProfile {
        self.profile(self.config.raw.authority.control_svid_ttl.get())
    }

    fn profile(&self, ttl: Duration) -> SvidProfile {
        SvidProfile {
            ttl,
            clock_skew: self.config.raw.svid.clock_skew.get(),
            crl_base_url: self.config.raw.publish.url.clone(),
        }
    }
}
