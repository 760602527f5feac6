//! The composition root: the only place that knows every part of the server.

mod background;
mod deciders;
mod doors;
mod ending;
mod in_memory;
mod listeners;
mod reviews;
mod rooms;
mod rules;
#[cfg(test)]
mod tests;
mod trials;
mod trust;

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use signet_certs::tls;
use signet_runtime::{
    clock::{Clock, SystemClock},
    drain::Drain,
    http::{self, serve_telemetry},
    notify::Notify,
    signal::Reread,
    spans, telemetry,
};
use tokio::net::TcpListener;
use tracing::Instrument as _;

pub use self::in_memory::{Dial, InMemory, KeptInMemory};
use self::{
    deciders::Deciders,
    doors::{Doors, Entrances, Network},
    ending::Ending,
    listeners::{serve_admin, serve_agents, serve_bundle_door, serve_publish},
    rooms::Rooms,
    trust::Trust,
};
pub(crate) use self::{doors::Addresses, ending::DRAIN_LIMIT, listeners::limits, trials::trials};
use crate::{
    audit::{
        AuditAction, AuditBacklog, AuditEmitter, AuditEvent, AuditKey, AuditLog, AuditPublicKey, AuditTail,
        EmitterParts, LineSink,
    },
    authority::LifePolicy,
    clock::{Past, REMOVAL_DELAY, TrustedClock},
    config::Config,
    key_manager::SealedKeys,
    live_rules::Source,
    metrics::Metrics,
    own_svid::OwnSvids,
    put_back::PutBack,
    readiness::{self, STARTING},
    store::{Store, sqlite::SqliteStore},
};

/// A server with every address taken, its store and keys open, and nothing started.
pub(crate) struct Server<E: Entrances = Network> {
    /// Where it can be reached.
    pub addresses: Addresses,
    config: Config,
    /// Where rules come from while it runs.
    rules: Source,
    doors: Doors<E>,
    /// The machine's.
    clock: Arc<dyn Clock>,
    store: Arc<dyn Store>,
    keys: Arc<SealedKeys>,
    audit_key: AuditKey,
    audit_sink: Box<dyn LineSink>,
}

/// With the configuration that was read from `path`, from which rules are read on. Opens every door and the audit log, then the store and the keys, so that a mistake costs nothing but the message. Must be called inside a
/// tokio runtime.
///
/// # Errors
/// What is in the way, with the configuration key or the file that names it.
pub(crate) async fn build(config: Config, path: &Path) -> anyhow::Result<Server> {
    // Before any client of an API server is made: those name no provider.
    tls::install(config.hybrid.with_anybody()).context("tls.hybrid")?;
    let rules = rules::source(path, &config);
    let doors = Doors::open(&config.listen, config.attestation.clusters.len()).await?;
    let open = |config: &Config| -> anyhow::Result<Arc<dyn Store>> {
        Ok(Arc::new(SqliteStore::open(
            &config.data_dir,
            &config.trust_domain,
        )?))
    };
    Server::over(config, rules, doors, Arc::new(SystemClock), open).await
}

/// What every part is built on.
struct Base {
    config: Config,
    rules: Source,
    reread: Reread,
    store: Arc<dyn Store>,
    audit: AuditLog,
    audit_key: AuditPublicKey,
    audit_tail: AuditTail,
    backlog: AuditBacklog,
    clock: Arc<TrustedClock>,
    drain: Drain,
}

impl<E: Entrances> Server<E> {
    /// Behind open doors: the audit log first, then the store, then the keys.
    async fn over(
        config: Config,
        rules: Source,
        doors: Doors<E>,
        clock: Arc<dyn Clock>,
        open_store: impl FnOnce(&Config) -> anyhow::Result<Arc<dyn Store>>,
    ) -> anyhow::Result<Self> {
        let audit_sink = config.audit.open()?;
        let addresses = doors.addresses()?;
        let store = open_store(&config)?;
        let keys = Arc::new(SealedKeys::open(&config.kek_file, store.as_ref()).await?);
        let audit_key = keys.audit_key(store.as_ref()).await?;
        Ok(Self {
            addresses,
            config,
            rules,
            doors,
            clock,
            store,
            keys,
            audit_key,
            audit_sink,
        })
    }

    /// What is known of time before the first look at a clock.
    fn past(&self) -> Past {
        let lives = self.config.lives.values().map(LifePolicy::authority_ttl);
        let shortest = lives.min().unwrap_or_default();
        Past {
            mark: self.store.info().mark,
            jumped: self.store.info().jumped,
            second_clock: !self.config.attestation.clusters.is_empty(),
            removal_delay: REMOVAL_DELAY.min(shortest / 4),
        }
    }

    /// Serves until `stop` is started, then ends in order within [`DRAIN_LIMIT`]. What is kept open of files is opened
    /// again when `reread` says so, and the rules are read again. `notify` is told from when the doors are open.
    ///
    /// # Errors
    /// What kept it from starting, or that a part ended without which it is of no use.
    pub(crate) async fn run(self, stop: Drain, reread: Reread, notify: Notify) -> anyhow::Result<()> {
        let drain = Drain::new();
        let clock = Arc::new(TrustedClock::new(self.clock.clone(), self.past()));
        let server_id = self.store.info().server_id.clone();
        let audit_key = self.audit_key.public();
        let audit_tail = AuditTail::new(&server_id, self.config.audit.file());
        audit_tail.end_with(&drain);
        let emitter = AuditEmitter::spawn(
            EmitterParts {
                outbox: self.store.clone(),
                server_id,
                key: self.audit_key,
                sink: self.audit_sink,
                clock: clock.clone(),
                reread: reread.clone(),
                tail: audit_tail.clone(),
            },
            drain.vital("audit log"),
        );
        let bound = self.config.audit_bound;
        self.store.bound(bound.left_out_beyond());
        let base = Base {
            backlog: AuditBacklog::new(self.store.stored(), emitter.progress(), bound),
            config: self.config,
            rules: self.rules,
            reread,
            audit: AuditLog::start(self.store.clone()),
            audit_key,
            audit_tail,
            store: self.store,
            clock,
            drain,
        };
        let ending = Ending::of(&base, emitter);
        // Held here, and `/ready` closed before it goes: a start that fails is never taken for ready.
        let starting = ending.readiness.hold(STARTING);
        let started = tokio::select! {
            started = base.start(self.doors, self.keys, &ending) => started.map(Some),
            () = stop.signalled() => Ok(None),
        };
        let Ok(Some(())) = started else {
            ending.abandon().await;
            return started.map(|_| ());
        };
        starting.done();
        spans::spawn(notify.follow(ending.readiness.clone()));
        is_up(&self.addresses);
        tokio::select! {
            () = stop.signalled() => {
                ending.end(stop.signal().unwrap_or("asked to")).await;
                Ok(())
            }
            () = ending.drain.signalled() => {
                ending.end("a vital task ended").await;
                anyhow::bail!("a task that the server cannot do without has ended: the log says which and why")
            }
        }
    }
}

impl Base {
    /// Starts the parts, each when those it stands on have come up; the doors open last.
    async fn start<E: Entrances>(
        self,
        doors: Doors<E>,
        keys: Arc<SealedKeys>,
        ending: &Ending,
    ) -> anyhow::Result<()> {
        let readiness = &ending.readiness;
        let registry = telemetry::Metrics::new("signet_server");
        let metrics = Metrics::register(&registry);
        readiness.register(&registry);
        let rooms = doors.rooms;
        let refusals = metrics.refusals("telemetry", http::REASONS);
        let (ready, ended) = (readiness.clone(), ending.telemetry_drain.clone());
        let telemetry = serve_telemetry(doors.telemetry, ready, registry, rooms.telemetry, refusals, ended);
        tokio::spawn(telemetry.instrument(spans::worker("telemetry")));

        let trust = self.start_trust(keys).await?;
        let own = self.start_own(&trust, doors.bundle.is_some()).await?;
        let mut deciders = self.start_deciders(&trust, &metrics, rooms.calls).await?;
        let put_back = self.start_put_back(&trust, &metrics).await?;
        self.watch_readiness(&trust, &own, &deciders, &put_back, ending);

        self.serve_http(doors.publish, doors.bundle, rooms, &trust, &own, &metrics)?;
        let access = self.access(&trust, Some(trust.control.clone()), &metrics);
        let agent_service = self.agent_service(
            &trust,
            &deciders,
            &put_back,
            readiness,
            access.allowances.refusals(),
        );
        let tls = self.agents_tls(&trust, &own);
        serve_agents::<E>(
            doors.agents,
            tls,
            agent_service,
            access,
            rooms.agents,
            &metrics,
            &self.drain,
        );
        let admin_service = self.admin_service(&trust, &deciders, &put_back, readiness, &metrics);
        let admins = self.access(&trust, None, &metrics);
        serve_admin::<E>(doors.admin, admin_service, admins, rooms.admin, &self.drain);
        self.start_reviews(&trust, &mut deciders, &metrics);
        background::start(background::Parts {
            store: self.store.clone(),
            audit: self.audit.clone(),
            backlog: self.backlog.clone(),
            agents: trust.agents,
            metrics,
            snapshots: trust.snapshots,
            rooms: trust.publisher.room_use(),
            attestor: deciders.attestor,
            clock: self.clock.clone(),
            drain: self.drain.clone(),
        });
        self.started();
        Ok(())
    }

    /// The doors for anyone who reads.
    fn serve_http(
        &self,
        publish: TcpListener,
        bundle: Option<TcpListener>,
        rooms: Rooms,
        trust: &Trust,
        own: &OwnSvids,
        metrics: &Metrics,
    ) -> anyhow::Result<()> {
        let snapshots = || trust.snapshots.clone();
        serve_publish(publish, snapshots(), rooms.publish, metrics, &self.drain);
        let Some(listener) = bundle else {
            return Ok(());
        };
        serve_bundle_door(
            listener,
            &self.config,
            own,
            snapshots(),
            rooms.bundle,
            metrics,
            &self.drain,
        )
    }

    fn started(&self) {
        self.audit.record(AuditEvent::new(
            self.clock.now(),
            AuditAction::ServerStarted {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                trust_domain: self.config.trust_domain.to_string(),
                epoch: self.store.info().epoch,
            },
        ));
    }

    fn watch_readiness(
        &self,
        trust: &Trust,
        own: &OwnSvids,
        deciders: &Deciders,
        put_back: &PutBack,
        ending: &Ending,
    ) {
        let watched = readiness::Watched {
            clock: self.clock.clone(),
            store: self.store.clone(),
            view: trust.authorities.current(),
            snapshots: trust.snapshots.clone(),
            publishing: trust.publisher.trouble(),
            put_back: put_back.trouble(),
            own_valid_until: own.valid_until.clone(),
            attestor: deciders.attestor.clone(),
            audit: self.backlog.clone(),
        };
        readiness::start(watched, &ending.readiness, &self.drain);
    }
}

fn is_up(addresses: &Addresses) {
    tracing::info!(
        agents = %addresses.agents,
        publish = %addresses.publish,
        bundle = addresses.bundle.map(tracing::field::display),
        telemetry = %addresses.telemetry,
        "the server is up"
    );
}
