//! The composition root: the only place that knows every part of the agent.

mod addresses;
mod csi;
mod explain;
mod in_memory;
mod metrics;
mod rooms;
mod running;
mod services;
mod shown;
mod trials;
mod wires;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use signet_certs::tls::RotatingIdentity;
use signet_runtime::backoff::Backoff;
use signet_runtime::clock::{Clock, SystemClock};
use signet_runtime::drain::Drain;
use signet_runtime::files::{make_parent, private_dir};
use signet_runtime::http::serve_telemetry;
use signet_runtime::notify::Notify;
use signet_runtime::ready::Readiness;
use signet_runtime::refusals::Refusals;
use signet_runtime::signal::Reread;
use signet_runtime::telemetry::Metrics;
use signet_runtime::uds;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::csi::standing::Standing;
use crate::csi::volumes::Volumes;
use crate::kept::{self, Places};
use crate::manager::{Manager, ManagerParts};
use crate::node::NodeAttestor;
use crate::readiness::{REASONS, STARTING, TRUST_NOT_BELIEVED};
use crate::sds::Sds;
use crate::server_client::anchors::{ControlAnchors, LOOK};
use crate::server_client::dial::{Dialer, Tcp};
use crate::server_client::sync::TrustSync;
use crate::server_client::trust::{TrustFile, TrustState};
use crate::server_client::{GrpcServer, KeyExchanges, ServerApi};
use crate::sockets::{Endpoint, Origin};
use crate::streams::{Following, PATIENCE};
use crate::time::AgentTime;
use crate::unix::UnixAttestor;

pub(crate) use self::addresses::Addresses;
pub use self::in_memory::InMemory;
use self::rooms::{Doors, Rooms};
pub(crate) use self::running::DRAIN_LIMIT;
use self::running::Running;
pub use self::services::Services;
pub(crate) use self::services::services;
pub(crate) use self::trials::trials;
use self::wires::Wires;

/// News for the manager that may wait; more make the trust stream wait.
const NOTICES: usize = 64;
/// Waiting times between attempts of one kind.
const BACKOFF: Backoff = Backoff::between(Duration::from_millis(500), Duration::from_secs(30)).jittered(0.5);

/// An agent with every address taken and nothing started.
pub(crate) struct Agent {
    /// Where it can be reached.
    pub addresses: Addresses,
    config: Config,
    anchors: Arc<ControlAnchors>,
    clock: Arc<AgentTime>,
    way: Arc<dyn Dialer>,
    look: Duration,
    telemetry: TcpListener,
    admin: UnixListener,
    shared: Option<UnixListener>,
    volumes: Option<(Volumes, String)>,
    places: Places,
    rooms: Rooms,
}

/// Takes every address and reads what is needed to start, so that a mistake costs nothing but the message. Must be
/// called inside a tokio runtime.
///
/// # Errors
/// What is in the way, with the configuration key that names it.
pub(crate) async fn build(config: Config) -> anyhow::Result<Agent> {
    let way = Tcp::new(&config.server_address);
    build_with(config, Arc::new(SystemClock), way, LOOK).await
}

/// On a machine with this clock, and this way to the server; the anchors file is looked at every `look`.
async fn build_with(
    config: Config,
    machine: Arc<dyn Clock>,
    way: Arc<dyn Dialer>,
    look: Duration,
) -> anyhow::Result<Agent> {
    let rooms = Rooms::of_process(Doors {
        volumes: config.csi.is_some(),
        shared: config.shared_socket.is_some(),
    })?;
    let clock = AgentTime::new(machine);
    private_dir(&config.data_dir).context("data_dir")?;
    let anchors = ControlAnchors::load(
        &config.trust_domain,
        &config.anchors_file,
        &config.data_dir,
        clock.now(),
    )
    .context("trust.anchors_file")?;
    let listen = config.telemetry;
    let telemetry = TcpListener::bind(listen).await.with_context(|| {
        format!(
            "telemetry.listen: cannot listen on {listen}; choose an address that is this machine's and free"
        )
    })?;
    make_parent(&config.admin_socket).context("admin_socket")?;
    let admin = uds::bind(&config.admin_socket, 0o600, None, None).context("admin_socket")?;
    let shared = config
        .shared_socket
        .as_ref()
        .map(|shared| -> anyhow::Result<UnixListener> {
            make_parent(&shared.path)?;
            Ok(uds::bind(&shared.path, shared.mode, None, None)?)
        });
    let shared = shared.transpose().context("shared_socket")?;
    let volumes = config.csi.as_ref().map(|csi| csi::volumes(csi, config.keeping));
    let volumes = volumes.transpose()?;
    let volumes_dir = config.csi.as_ref().map(|csi| csi.volumes_dir.as_path());
    // A version that kept the agent's key among what is public left it here.
    kept::remove(&config.data_dir.join("node.key"));
    let places = Places::open(config.keeping, &config.state_dir, volumes_dir);
    Ok(Agent {
        addresses: Addresses {
            telemetry: telemetry.local_addr().context("telemetry.listen")?,
            admin_socket: config.admin_socket.clone(),
            shared_socket: config.shared_socket.as_ref().map(|shared| shared.path.clone()),
        },
        volumes,
        places,
        anchors,
        clock,
        way,
        look,
        telemetry,
        admin,
        shared,
        config,
        rooms,
    })
}

impl Agent {
    /// Serves until `drain` is started, then ends in order within [`DRAIN_LIMIT`]: streams with Unavailable, then the rest.
    /// Anchors and token are read again when `reread` says so; `notify` is told from when the sockets are open.
    ///
    /// # Errors
    /// What kept a part from starting.
    pub(crate) async fn run(self, drain: Drain, reread: Reread, notify: Notify) -> anyhow::Result<()> {
        let running = self.start(&drain, reread)?;
        signet_runtime::spans::spawn(notify.follow(running.readiness.clone()));
        running.until_the_end(drain).await
    }

    /// Starts every part.
    fn start(mut self, drain: &Drain, reread: Reread) -> anyhow::Result<Running> {
        let wires = Wires::new(self.clock.now());
        // What was believed is served until the server says more.
        wires.trust.send_replace(self.believed().map(Arc::new));
        let metrics = Metrics::new("signet_agent");
        let readiness = Readiness::new(REASONS);
        readiness.register(&metrics);
        let starting = readiness.hold(STARTING);
        let api = self.server(&wires);
        let unix = self.shared.is_some().then(|| UnixAttestor::new(&metrics));
        let manager = self.start_control(&wires, api, &readiness, drain, &reread, unix);
        let anchors = self.anchors.clone();
        drain.spawn_vital(
            "anchors",
            anchors.watch(self.look, self.clock.clone(), reread, drain.clone()),
        );
        self.observe(&wires, &metrics, &readiness, drain);
        let endpoint = self.endpoint(&wires, &manager, &metrics, drain)?;
        let (volumes, ground) = self.volumes.take().unzip();
        let standing = Standing::new(ground.unwrap_or_default(), &metrics);
        let admin = self.admin(&wires, &readiness, &manager, &standing);
        drain.spawn_vital("admin socket", admin.serve(self.admin, drain.clone()));
        drain.spawn_vital(
            "telemetry",
            serve_telemetry(
                self.telemetry,
                readiness.clone(),
                metrics,
                self.rooms.telemetry,
                Refusals::untold("telemetry"),
                drain.clone(),
            ),
        );
        let shared = self.shared.map(|socket| endpoint.serve(socket, Origin::Shared));
        let driver = self.config.csi.zip(volumes).map(|(config, volumes)| {
            let place = csi::Place {
                node: self.config.node_name,
                volumes,
                max_volumes: self.rooms.volumes,
                standing,
            };
            csi::start(config, place, &endpoint, manager.clone(), drain).context("csi")
        });
        let driver = driver.transpose()?;
        manager.volumes_named();
        starting.done();
        self.addresses.say(&self.config.trust_domain);
        Ok(Running {
            endpoint,
            readiness,
            manager,
            driver,
            shared,
        })
    }

    /// What every workload socket offers.
    fn endpoint(
        &self,
        wires: &Wires,
        manager: &Manager,
        metrics: &Metrics,
        drain: &Drain,
    ) -> anyhow::Result<Endpoint> {
        let following = Following::new(Arc::new(manager.clone()), self.clock.clone(), PATIENCE);
        let sds = Sds {
            observed: metrics::keep_proxies(metrics, wires, self.clock.clone(), drain),
            ..self.config.sds.clone()
        };
        let Services { routes, calls } =
            services(following, sds).context("the descriptors built into this binary cannot be read")?;
        let routes = self.explaining(routes, wires, manager);
        let calls = calls.into_iter().chain(crate::explain::CALLS);
        Ok(Endpoint::measured(routes, calls, self.rooms.settings(), metrics))
    }

    /// What an earlier run believed. What had to leave is refused before anything dials: the anchors file may hold it.
    fn believed(&self) -> Option<TrustState> {
        let believed = TrustFile::new(&self.config.data_dir).read(&self.config.trust_domain)?;
        self.anchors.refuse(believed.departed.clone());
        Some(believed)
    }

    fn server(&self, wires: &Wires) -> (Arc<dyn ServerApi>, Arc<RotatingIdentity>) {
        let identity = Arc::new(RotatingIdentity::new());
        let server = GrpcServer::new(
            self.way.clone(),
            &self.config.trust_domain,
            self.anchors.clone(),
            identity.clone(),
            self.clock.clone(),
            KeyExchanges::new(self.config.hybrid, wires.key_exchange.clone()),
        );
        (Arc::new(server), identity)
    }

    /// Node attestation, trust stream, manager.
    fn start_control(
        &self,
        wires: &Wires,
        (api, identity): (Arc<dyn ServerApi>, Arc<RotatingIdentity>),
        readiness: &Readiness,
        drain: &Drain,
        reread: &Reread,
        unix: Option<UnixAttestor>,
    ) -> Manager {
        let (notices, heard) = mpsc::channel(NOTICES);
        let node = NodeAttestor {
            api: api.clone(),
            anchors: self.anchors.clone(),
            identity,
            token_file: self.config.node_token_file.clone(),
            state_dir: self.places.state_dir.clone(),
            cluster: self.config.cluster.clone(),
            trust_domain: self.config.trust_domain.clone(),
            clock: self.clock.clone(),
            trust: wires.trust.subscribe(),
            objections: wires.objections.clone(),
            state: wires.node.clone(),
            certificate: wires.certificate.clone(),
            reread: reread.clone(),
            backoff: BACKOFF,
        };
        let sync = TrustSync {
            api: api.clone(),
            anchors: self.anchors.clone(),
            trust_domain: self.config.trust_domain.clone(),
            time: self.clock.clone(),
            certificate: wires.certificate.subscribe(),
            objections: wires.objections.clone(),
            reports: wires.reports.subscribe(),
            state: wires.trust.clone(),
            file: TrustFile::new(&self.config.data_dir),
            notices,
            connection: wires.connection.clone(),
            outage: wires.outage.clone(),
            backoff: BACKOFF,
            not_believed: readiness.condition(TRUST_NOT_BELIEVED),
            kept_out: None,
        };
        let parts = ManagerParts {
            api,
            clock: self.clock.clone(),
            trust: wires.trust.subscribe(),
            outage: wires.outage.subscribe(),
            notices: heard,
            reports: wires.reports.clone(),
            objections: wires.objections.clone(),
            unix,
            backoff: BACKOFF,
            places: self.places.clone(),
        };
        drain.spawn_vital("node attestation", node.run(drain.clone()));
        drain.spawn_vital("trust stream", sync.run(drain.clone()));
        Manager::spawn(parts, drain)
    }
}
