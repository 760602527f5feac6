//! What is served behind each door.

use std::{sync::Arc, time::Duration};

use signet_certs::{
    id::SpiffeId,
    tls::{PeerRule, SharedRoots, SpiffeVerifier, server_config, time_provider},
};
use signet_runtime::{
    drain::Drain,
    http::{self, Limits},
    limits::Limit,
    ready::Readiness,
    refusals::Refusals,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tracing::Span;

use super::{
    Base,
    deciders::Deciders,
    doors::Entrances,
    rooms,
    trials::advice,
    trust::{Snapshots, Trust},
};
use crate::{
    api::{
        access::AccessLayer,
        admin::AdminService,
        admin_calls::AdminCallLayer,
        admin_listener::{self, AdminPeer},
        agent::{self, AgentService, Attests},
        allowance::{self, Allowances},
        listener::{self, Judges, Peer},
    },
    config::Config,
    metrics::Metrics,
    own_svid::OwnSvids,
    publish_http::serve_signed_objects,
    publish_https::{BundleTls, WebCertificate, bundle_tls, serve_bundle},
    put_back::PutBack,
};

/// What one connection of an HTTP door may take its time for.
const HTTP_LIMITS: Limits = Limits {
    connections: 1024,
    per_source: 256,
    header_timeout: Duration::from_secs(10),
    stall: Duration::from_secs(20),
    connection_lifetime: Duration::from_secs(60),
};
/// Calls that one connection of an admin may have under way.
const ADMINS_CALLS: usize = 8;
/// Streams one agent may have open on a connection.
const STREAMS_PER_CONNECTION: u32 = 32;
/// How often a silent peer is asked whether it is there, and how long it has for an answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest a call may take until its answer begins, the arrival of the request included; trust streams go on after.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// Rows of the table of limits.
pub(crate) fn limits() -> [Limit; 4] {
    let row = |who, what, share: &str, cap: String, counted| Limit {
        who,
        what,
        share: share.to_owned(),
        cap,
        counted,
        metric: "signet_server_refused_total",
    };
    [
        row(
            "whoever connects from one source",
            "open connections at the door of signed objects, and at that of the bundle",
            "an equal part",
            format!("{} of {}", HTTP_LIMITS.per_source, HTTP_LIMITS.connections),
            "server::app::listeners",
        ),
        row(
            "all admins",
            "open connections",
            "whoever comes last is let in",
            rooms::ADMIN.most.to_string(),
            "server::api::admin_listener",
        ),
        row(
            "an admin",
            "calls under way on one connection; what is beyond waits",
            &ADMINS_CALLS.to_string(),
            ADMINS_CALLS.to_string(),
            "server::app::listeners",
        ),
        row(
            "all nodes of a cluster",
            "calls to its API server under way",
            "an equal part of what the limit of open files leaves for such calls",
            format!(
                "{} to {} for all clusters, and one for each at least",
                rooms::CALLS.least,
                rooms::CALLS.most
            ),
            "server::kubernetes::budget",
        ),
    ]
}

/// Within the limits of HTTP doors, for so many connections.
fn http_limits(connections: usize) -> Limits {
    Limits {
        connections,
        per_source: HTTP_LIMITS.per_source.min(connections.div_ceil(2)),
        ..HTTP_LIMITS
    }
}

pub(super) fn serve_publish(
    listener: TcpListener,
    snapshots: Snapshots,
    room: usize,
    metrics: &Metrics,
    drain: &Drain,
) {
    let refusals = metrics.refusals("publish", http::REASONS);
    let serving = serve_signed_objects(listener, snapshots, http_limits(room), refusals, drain.clone());
    drain.spawn_vital("signed objects", serving);
}

pub(super) fn serve_bundle_door(
    listener: TcpListener,
    config: &Config,
    own: &OwnSvids,
    snapshots: Snapshots,
    room: usize,
    metrics: &Metrics,
    drain: &Drain,
) -> anyhow::Result<()> {
    let (page, hybrid) = (&config.bundle, config.hybrid.with_anybody());
    let tls = match (&page.certificate, &own.bundle) {
        (Some(files), _) => {
            let certificate = WebCertificate::load(&files.certificate, &files.key)?;
            certificate.keep(drain);
            bundle_tls(certificate, hybrid)?
        }
        (None, Some(identity)) => bundle_tls(identity.clone(), hybrid)?,
        (None, None) => anyhow::bail!("publish: the bundle endpoint has no certificate"),
    };
    let path = page.path.clone();
    let (ended, limits) = (drain.clone(), http_limits(room));
    let refusals = metrics.refusals("bundle", http::REASONS);
    let tls = BundleTls::new(tls, metrics.key_exchanges("bundle"));
    drain.spawn_vital("bundle endpoint", async move {
        serve_bundle(listener, tls, &path, snapshots, limits, refusals, ended).await;
    });
    Ok(())
}

/// The span of a call, in that of its connection.
fn call_span(request: &::http::Request<()>) -> Span {
    let extensions = request.extensions();
    let agents = extensions.get::<Peer>().map(|peer| &peer.connection);
    let connection = agents.or_else(|| extensions.get::<AdminPeer>().map(|peer| &peer.connection));
    connection.map_or_else(Span::none, |connection| connection.call(request.uri().path()))
}

pub(super) fn serve_agents<E: Entrances>(
    listener: E::Agents,
    tls: Arc<listener::Tls>,
    service: AgentService,
    access: AccessLayer,
    rooms: listener::Rooms,
    metrics: &Metrics,
    drain: &Drain,
) {
    let judges = Judges {
        agents: access.agents.clone(),
        clock: access.clock.clone(),
        audit: access.audit.clone(),
    };
    let counts = listener::Counts {
        refusals: access.allowances.refusals().clone(),
        key_exchanges: metrics.key_exchanges("agents"),
    };
    let incoming = ReceiverStream::new(listener::accept(listener, tls, judges, rooms, counts, drain));
    let ended = drain.clone();
    let server = tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .timeout(CALL_LIMIT)
        .trace_fn(call_span)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(access)
        .add_service(service.into_grpc());
    drain.spawn_vital("agents' listener", async move {
        if let Err(error) = server
            .serve_with_incoming_shutdown(incoming, async move { ended.signalled().await })
            .await
        {
            tracing::error!(%error, "the agents' listener failed");
        }
    });
}

pub(super) fn serve_admin<E: Entrances>(
    listener: E::Admins,
    service: AdminService,
    access: AccessLayer,
    room: usize,
    drain: &Drain,
) {
    let refusals = access.allowances.refusals().clone();
    let incoming = ReceiverStream::new(admin_listener::accept(listener, room, refusals, drain));
    let ended = drain.clone();
    // Outermost: what the table refuses is a line as well.
    let calls = AdminCallLayer {
        audit: access.audit.clone(),
        clock: access.clock.clone(),
    };
    let server = tonic::transport::Server::builder()
        .concurrency_limit_per_connection(ADMINS_CALLS)
        .trace_fn(call_span)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(calls)
        .layer(access)
        .add_service(service.into_grpc());
    drain.spawn_vital("admin service", async move {
        if let Err(error) = server
            .serve_with_incoming_shutdown(incoming, async move { ended.signalled().await })
            .await
        {
            tracing::error!(%error, "the admin socket failed");
        }
    });
}

impl Base {
    /// TLS of the agents' door, judged by the server's time.
    pub(super) fn agents_tls(&self, trust: &Trust, own: &OwnSvids) -> Arc<listener::Tls> {
        let agents_of = self.config.trust_domain.clone();
        let rule = PeerRule::Predicate(Arc::new(move |id: &SpiffeId| {
            id.is_agent() && id.trust_domain() == agents_of
        }));
        let verifier = SpiffeVerifier::new(trust.control.clone(), rule)
            .allow_expired_client(true)
            .with_key_exchange(self.config.hybrid);
        let clock = self.clock.clone();
        let (identity, time) = (own.server.clone(), time_provider(move || clock.now()));
        Arc::new(move |refused| {
            let verifier = verifier.clone().telling(refused);
            let mut tls = server_config(identity.clone(), verifier, false, &[b"h2"])?;
            tls.time_provider = time.clone();
            Ok(tls)
        })
    }

    pub(super) fn agent_service(
        &self,
        trust: &Trust,
        deciders: &Deciders,
        put_back: &Arc<PutBack>,
        readiness: &Readiness,
        refusals: &Refusals,
    ) -> AgentService {
        AgentService {
            trust_domain: self.config.trust_domain.clone(),
            issuer: deciders.issuer.clone(),
            attests: Attests::new(refusals.clone()),
            refusals: refusals.clone(),
            agents: trust.agents.clone(),
            put_back: put_back.clone(),
            trust: trust.snapshots.clone(),
            control: trust.control.clone(),
            rules: deciders.rules.current(),
            renderings: Arc::default(),
            pace: agent::pace(),
            epoch: self.store.info().epoch,
            clock: self.clock.clone(),
            outages: deciders.attestor.outages(),
            readiness: readiness.clone(),
            drain: self.drain.clone(),
        }
    }

    pub(super) fn admin_service(
        &self,
        trust: &Trust,
        deciders: &Deciders,
        put_back: &Arc<PutBack>,
        readiness: &Readiness,
        metrics: &Arc<Metrics>,
    ) -> AdminService {
        AdminService {
            trust_domain: self.config.trust_domain.clone(),
            store: self.store.clone(),
            authorities: trust.authorities.clone(),
            firsts: trust.firsts.subscribe(),
            publisher: trust.publisher.clone(),
            trust: trust.snapshots.clone(),
            agents: trust.agents.clone(),
            put_back: put_back.clone(),
            attestor: deciders.attestor.clone(),
            issuer: deciders.issuer.clone(),
            readiness: readiness.clone(),
            metrics: metrics.clone(),
            rules: deciders.rules.clone(),
            clock: self.clock.clone(),
            audit: self.audit.clone(),
            audit_key: self.audit_key.clone(),
            audit_tail: self.audit_tail.clone(),
            advice: advice(&self.config),
            started: self.clock.now(),
        }
    }

    /// `control` is the trust that callers' certificates are judged by; none on the admin socket.
    pub(super) fn access(
        &self,
        trust: &Trust,
        control: Option<Arc<SharedRoots>>,
        metrics: &Metrics,
    ) -> AccessLayer {
        let (door, reasons) = match control {
            Some(_) => ("agents", [listener::REASONS, agent::REASONS].concat()),
            None => ("admin", admin_listener::REASONS.to_vec()),
        };
        let reasons = [reasons.as_slice(), allowance::REASONS].concat();
        AccessLayer {
            allowances: Allowances::new(metrics.refusals(door, &reasons)),
            control,
            agents: trust.agents.clone(),
            clock: self.clock.clone(),
            audit: self.audit.clone(),
        }
    }
}
