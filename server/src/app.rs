//! The composition root: the only place that knows every part of the server.

mod background;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use ring::rand::SystemRandom;
use signet_certs::{
    id::SpiffeId,
    svid::SvidProfile,
    tls::{PeerRule, SharedRoots, SpiffeVerifier, server_config},
};
use signet_proto::{admin::admin_server::AdminServer, agent::agent_server::AgentServer};
use signet_runtime::{
    clock::{Clock, SystemClock},
    drain::Drain,
    http::{Limits, serve_telemetry},
    ready::Readiness,
    signal::shutdown_signal,
    telemetry, uds,
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};

use crate::{
    agents::Agents,
    api::{access::AccessLayer, admin::AdminService, agent::AgentService, listener},
    attest::{Attestor, cluster::KubernetesAttestor},
    audit::{AuditAction, AuditEmitter, AuditEvent, AuditSink},
    authority::{AuthorityManager, AuthorityManagerParts},
    config::Config,
    issuer::{Issuer, IssuerParts},
    key_manager::KeyManager,
    metrics::Metrics,
    own_svid::{OwnSvidParts, OwnSvids, keep_own_svids},
    publish_http::serve_signed_objects,
    publish_https::{WebCertificate, bundle_tls, serve_bundle},
    publisher::{Publisher, PublisherParts, PublisherSettings},
    store::{Store, sqlite::SqliteStore},
    trust,
};

/// Bound of the graceful end; Kubernetes gives 30 s by default.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);
/// How often readers of the bundle should come back, unless configured.
const REFRESH_HINT: Duration = Duration::from_secs(300);
/// Connections of the two HTTP doors.
const HTTP_LIMITS: Limits = Limits {
    connections: 1024,
    header_timeout: Duration::from_secs(10),
    connection_lifetime: Duration::from_secs(60),
};
/// Pod events that may wait to be told to agents.
const POD_EVENTS: usize = 1024;
/// Streams one agent may have open on a connection.
const STREAMS_PER_CONNECTION: u32 = 256;
/// 256 CSRs and tokens at their usual size are well below.
const MAX_MESSAGE: usize = 8 << 20;

/// Every address, taken before anything is started, so that a port in use costs nothing but the message.
struct Doors {
    agents: TcpListener,
    admin: UnixListener,
    publish: TcpListener,
    bundle: Option<TcpListener>,
    telemetry: TcpListener,
}

/// Where the server can be reached.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// gRPC for agents.
    pub agents: SocketAddr,
    /// CRLs over HTTP.
    pub publish: SocketAddr,
    /// The bundle over HTTPS.
    pub bundle: Option<SocketAddr>,
    /// Health and metrics.
    pub telemetry: SocketAddr,
}

/// Runs the server until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// What kept it from starting.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let signal = shutdown_signal();
    let server = Server::start(config).await?;
    let name = signal.await;
    server.stop(&name.to_string()).await;
    Ok(())
}

/// A running server.
pub struct Server {
    /// Where it can be reached.
    pub addresses: Addresses,
    store: Arc<SqliteStore>,
    clock: Arc<dyn Clock>,
    drain: Drain,
    telemetry_drain: Drain,
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
        let drain = Drain::new();
        let telemetry_drain = Drain::new();
        let base = Base {
            config,
            store: store.clone(),
            clock: clock.clone(),
            drain: drain.clone(),
        };
        let started = base.start(doors, keys, &telemetry_drain).await;
        if let Err(error) = started {
            drain.finish(DRAIN_LIMIT).await;
            emitter.finish().await;
            return Err(error);
        }
        tracing::info!(
            agents = %addresses.agents,
            publish = %addresses.publish,
            telemetry = %addresses.telemetry,
            "the server is up"
        );
        Ok(Self {
            addresses,
            store,
            clock,
            drain,
            telemetry_drain,
            emitter,
        })
    }

    /// Streams end first, requests under way finish, the audit log is written out.
    pub async fn stop(self, reason: &str) {
        tracing::info!(reason, "stopping");
        let stopped = AuditAction::ServerStopped {
            reason: reason.to_owned(),
        };
        self.store.audit(AuditEvent::new(self.clock.now(), stopped));
        if !self.drain.finish(DRAIN_LIMIT).await {
            tracing::warn!("some requests did not end in time");
        }
        self.telemetry_drain.finish(Duration::from_secs(1)).await;
        self.emitter.finish().await;
        tracing::info!("stopped");
    }
}

fn open_store(config: &Config) -> anyhow::Result<Arc<SqliteStore>> {
    Ok(Arc::new(SqliteStore::open(
        &config.raw.data_dir,
        &config.trust_domain,
    )?))
}

impl Doors {
    async fn open(config: &Config) -> anyhow::Result<Self> {
        let listen = &config.raw.listen;
        Ok(Self {
            agents: bind("listen.agents", listen.agents).await?,
            admin: uds::bind(&listen.admin_socket, 0o660, None, None).context("listen.admin_socket")?,
            publish: bind("listen.publish", listen.publish).await?,
            bundle: match listen.bundle {
                Some(address) => Some(bind("listen.bundle", address).await?),
                None => None,
            },
            telemetry: bind("listen.telemetry", listen.telemetry).await?,
        })
    }

    fn addresses(&self) -> anyhow::Result<Addresses> {
        Ok(Addresses {
            agents: self.agents.local_addr()?,
            publish: self.publish.local_addr()?,
            bundle: self.bundle.as_ref().map(TcpListener::local_addr).transpose()?,
            telemetry: self.telemetry.local_addr()?,
        })
    }
}

async fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("{key}: cannot listen on {address}; choose another address or stop what holds it")
    })
}

/// What every part is built on.
struct Base {
    config: Config,
    store: Arc<SqliteStore>,
    clock: Arc<dyn Clock>,
    drain: Drain,
}

impl Base {
    async fn start(self, doors: Doors, keys: Arc<KeyManager>, telemetry_drain: &Drain) -> anyhow::Result<()> {
        let Base {
            config,
            store,
            clock,
            drain,
        } = self;
        let dyn_store: Arc<dyn Store> = store.clone();
        let readiness = Readiness::new();
        let started_guard = readiness.guard("start");
        let registry = telemetry::Metrics::new("signet_server");
        let metrics = Metrics::register(&registry);
        tokio::spawn(serve_telemetry(
            doors.telemetry,
            readiness.clone(),
            registry,
            telemetry_drain.clone(),
        ));

        let refresh_hint = config
            .raw
            .publish
            .refresh_hint
            .map_or(REFRESH_HINT, |hint| hint.get());
        let (snapshot_sender, snapshots) = trust::channel(config.trust_domain.clone(), refresh_hint);
        let agents = Arc::new(Agents::default());
        let authorities = AuthorityManager::start(AuthorityManagerParts {
            trust_domain: config.trust_domain.clone(),
            x509: config.lives.x509,
            control: config.lives.control,
            store: dyn_store.clone(),
            keys,
            clock: clock.clone(),
            snapshots: snapshots.clone(),
            reports: agents.spread(),
            drain: drain.clone(),
        })
        .await?;
        let publisher = Publisher::start(PublisherParts {
            settings: PublisherSettings {
                trust_domain: config.trust_domain.clone(),
                refresh_hint,
                clock_skew: config.raw.svid.clock_skew.get(),
                crl_max_bytes: config.raw.crl.max_bytes,
            },
            store: dyn_store.clone(),
            view: authorities.current(),
            snapshots: snapshot_sender,
            clock: clock.clone(),
            drain: drain.clone(),
        })
        .await?;
        anyhow::ensure!(
            authorities.ready().await && publisher.ready().await,
            "the authorities did not start"
        );
        trust::keep_anchors(config.control_anchors_file.clone(), snapshots.clone(), &drain)
            .await
            .context("trust.control_anchors_file")?;
        let control = trust::keep_control_roots(snapshots.clone(), &drain);

        let svid_profile = |ttl, crl_base_url| SvidProfile {
            ttl,
            clock_skew: config.raw.svid.clock_skew.get(),
            crl_base_url,
        };
        let crl_url = config.raw.publish.url.clone();
        let workload_profile = svid_profile(config.raw.svid.ttl.get(), crl_url.clone());
        let control_profile = svid_profile(config.raw.authority.control_svid_ttl.get(), crl_url);
        let own = keep_own_svids(OwnSvidParts {
            trust_domain: config.trust_domain.clone(),
            server: control_profile.clone(),
            bundle: (doors.bundle.is_some() && config.raw.publish.bundle_certificate_file.is_none())
                .then(|| workload_profile.clone()),
            store: dyn_store.clone(),
            view: authorities.current(),
            snapshots: snapshots.clone(),
            clock: clock.clone(),
            drain: drain.clone(),
        })
        .await?;

        let (event_sender, pod_events) = mpsc::channel(POD_EVENTS);
        let attestor: Arc<dyn Attestor> = Arc::new(
            KubernetesAttestor::start(
                &config.raw.attestation,
                &config.trust_domain,
                config.raw.svid.clock_skew.get(),
                clock.clone(),
                &drain,
                event_sender,
            )
            .await?,
        );
        let rules = Arc::new(config.rules);
        let (clock_trusted, clock_is_trusted) = watch::channel(true);
        let issuer = Arc::new(Issuer::new(IssuerParts {
            trust_domain: config.trust_domain.clone(),
            store: dyn_store.clone(),
            attestor: attestor.clone(),
            rules: rules.clone(),
            authorities: authorities.current(),
            clock: clock.clone(),
            rng: SystemRandom::new(),
            profile: workload_profile,
            control_profile,
            max_live: config.raw.svid.max_live,
            agents: agents.clone(),
            clock_trusted: clock_is_trusted,
            metrics: metrics.clone(),
        }));

        serve_publish(doors.publish, snapshots.clone(), &drain);
        if let Some(listener) = doors.bundle {
            serve_bundle_door(listener, &config.raw.publish, &own, snapshots.clone(), &drain)?;
        }
        let agent_service = AgentService {
            trust_domain: config.trust_domain.clone(),
            issuer,
            agents: agents.clone(),
            trust: snapshots.clone(),
            control: control.clone(),
            store: dyn_store.clone(),
            policy_revision: rules.revision(),
            clock: clock.clone(),
            drain: drain.clone(),
        };
        let access = AccessLayer {
            control: Some(control.clone()),
            agents: agents.clone(),
            clock: clock.clone(),
        };
        serve_agents(
            doors.agents,
            agent_service,
            access,
            &own,
            control,
            &config.trust_domain.id(),
            &drain,
        )?;
        let admin_service = AdminService {
            trust_domain: config.trust_domain.clone(),
            store: dyn_store.clone(),
            authorities,
            publisher,
            trust: snapshots.clone(),
            agents: agents.clone(),
            attestor,
            readiness: readiness.clone(),
            metrics: metrics.clone(),
            policy_revision: rules.revision(),
            clock: clock.clone(),
            started: clock.now(),
        };
        let admin_access = AccessLayer {
            control: None,
            agents: agents.clone(),
            clock: clock.clone(),
        };
        serve_admin(doors.admin, admin_service, admin_access, &drain);
        background::start(background::Parts {
            store: dyn_store,
            agents,
            metrics,
            snapshots,
            clock_trusted,
            pod_events,
            clock: clock.clone(),
            drain,
        });
        store.audit(AuditEvent::new(
            clock.now(),
            AuditAction::ServerStarted {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                trust_domain: config.trust_domain.to_string(),
                epoch: store.info().epoch,
            },
        ));
        started_guard.done();
        Ok(())
    }
}

type Snapshots = watch::Receiver<Arc<trust::TrustSnapshot>>;

fn serve_publish(listener: TcpListener, snapshots: Snapshots, drain: &Drain) {
    let ended = drain.clone();
    drain.spawn(serve_signed_objects(listener, snapshots, HTTP_LIMITS, ended));
}

fn serve_bundle_door(
    listener: TcpListener,
    publish: &crate::config::Publish,
    own: &OwnSvids,
    snapshots: Snapshots,
    drain: &Drain,
) -> anyhow::Result<()> {
    let tls = match (
        &publish.bundle_certificate_file,
        &publish.bundle_key_file,
        &own.bundle,
    ) {
        (Some(certificate), Some(key), _) => {
            let certificate = WebCertificate::load(certificate, key)?;
            certificate.keep(drain);
            bundle_tls(certificate)?
        }
        (_, _, Some(identity)) => bundle_tls(identity.clone())?,
        _ => anyhow::bail!("publish: the bundle endpoint has no certificate"),
    };
    let path = publish.bundle_path.clone().unwrap_or_else(|| "/".to_owned());
    let ended = drain.clone();
    drain.spawn(async move { serve_bundle(listener, tls, &path, snapshots, HTTP_LIMITS, ended).await });
    Ok(())
}

fn serve_agents(
    listener: TcpListener,
    service: AgentService,
    access: AccessLayer,
    own: &OwnSvids,
    control: Arc<SharedRoots>,
    trust_domain: &SpiffeId,
    drain: &Drain,
) -> anyhow::Result<()> {
    let agents_of = trust_domain.trust_domain();
    let rule = PeerRule::Predicate(Arc::new(move |id: &SpiffeId| {
        id.is_agent() && id.trust_domain() == agents_of
    }));
    let verifier = SpiffeVerifier::new(control, rule).allow_expired_client(true);
    let tls = server_config(own.server.clone(), verifier, false, &[b"h2"])?;
    let incoming = ReceiverStream::new(listener::accept(listener, Arc::new(tls), drain));
    let ended = drain.clone();
    let server = tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .layer(access)
        .add_service(
            AgentServer::new(service)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(64 << 20),
        );
    drain.spawn(async move {
        if let Err(error) = server
            .serve_with_incoming_shutdown(incoming, async move { ended.signalled().await })
            .await
        {
            tracing::error!(%error, "the agents' listener failed");
        }
    });
    Ok(())
}

fn serve_admin(listener: UnixListener, service: AdminService, access: AccessLayer, drain: &Drain) {
    let ended = drain.clone();
    let server = tonic::transport::Server::builder()
        .layer(access)
        .add_service(AdminServer::new(service).max_encoding_message_size(64 << 20));
    drain.spawn(async move {
        let incoming = UnixListenerStream::new(listener);
        if let Err(error) = server
            .serve_with_incoming_shutdown(incoming, async move { ended.signalled().await })
            .await
        {
            tracing::error!(%error, "the admin socket failed");
        }
    });
}
