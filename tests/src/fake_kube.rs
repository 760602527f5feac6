//! A Kubernetes API server that exists only as far as Signet looks at one, and fails on demand.
//!
//! It signs service-account tokens with a key of its own, answers TokenReview with the status codes and texts recorded
//! from a real 1.36.2 (`testkit/fixtures/kube`), and has the real rules of lists and watches: one growing resource
//! version, pages of one moment, watches that begin with all objects, bookmarks, 410 both ways, ends and cuts. Objects are created through the Rust handle or, from another
//! process, through the control paths below; the Kubernetes paths themselves are read-only but for TokenReview and
//! TokenRequest.
//!
//! # Control paths
//! JSON in, JSON out; a mistake is answered with 400 and a `Status` that says what was wrong. They are served beside the
//! API ([`FakeKube::url`]) and on a port of their own ([`FakeKube::control_url`]), which stays open while the API's is
//! refused.
//!
//! | request | body or query | answer |
//! |---|---|---|
//! | `GET /fake/state` | | versions, `calls` by endpoint, `faults` in force, URLs |
//! | `POST /fake/nodes/{name}` | | `{"uid"}` |
//! | `POST`, `DELETE /fake/serviceaccounts/{namespace}/{name}` | | `{"uid"}`, `{}` |
//! | `POST /fake/pods` | [`PodSpec`] in camelCase: `namespace`, `name`, `serviceAccount`, `node`, `labels`, `phase`, `podIps` | `{"uid"}` |
//! | `DELETE /fake/pods/{namespace}/{name}` | `?graceMs=`: terminating first | `{}` |
//! | `POST /fake/pods/{namespace}/{name}/phase/{phase}` | | `{}` |
//! | `POST /fake/tokens` | `namespace`, `pod` or `serviceAccount`, `audience`, `ttlSeconds` (3600) | `{"token"}` |
//! | `POST /fake/faults` | [`FaultRule`] in camelCase, as `{"endpoint":"token-reviews","fault":{"kind":"slow","delayMs":500},"times":3}` | `{}` |
//! | `DELETE /fake/faults` | | `{}` |
//! | `POST /fake/connections/refuse`, `…/accept` | | `{}` |
//! | `POST /fake/watches/end`, `…/cut` | | `{}` |
//! | `POST /fake/history/compact` | | `{}` |
//! | `POST /fake/lists/expire` | | `{}` |
//! | `POST /fake/reviews/expire` | | `{}` |

mod api;
mod cluster;
mod control;
mod etcd;
mod faults;
mod keys;
mod listener;
mod objects;
mod review;
mod reviewed;
mod selector;
mod status;
mod tokens;
mod watches;
mod world;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, Result};
use axum::Router;
use serde_json::{Value, json};
use signet_runtime::clock::{Clock, SystemClock};

use cluster::Cluster;
use listener::Listener;

pub use faults::{Endpoint, Fault, FaultRule};
pub use keys::rsa_key_by_openssl;
pub use objects::PodSpec;

/// How the fake behaves. The defaults are those of a real cluster, only livelier bookmarks.
#[derive(Clone, Debug)]
pub struct FakeKubeConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the control paths are served besides; port 0 takes a free one.
    pub control_listen: SocketAddr,
    /// `iss` of tokens, which is also the API server's own audience.
    pub issuer: String,
    /// UID of the kube-system namespace, by which clusters are told apart.
    pub cluster_uid: String,
    /// How often a watch that asked for bookmarks gets one.
    pub bookmark_interval: Duration,
    /// How long a good answer about a token is remembered: so long a deleted pod's token is still accepted.
    pub review_cache: Duration,
    /// How many changes are remembered for watches that start in the past.
    pub watch_history: usize,
    /// Whether watches may begin with all objects (`sendInitialEvents`), as they may by default from 1.34 on.
    pub watch_list: bool,
    /// Whether a request without credentials gets 401. Wrong credentials always do.
    pub require_credentials: bool,
    /// An RSA key in DER to sign tokens with RS256, as most clusters do; a fresh P-256 key (ES256) without it.
    pub rsa_key: Option<Vec<u8>>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
}

impl Default for FakeKubeConfig {
    fn default() -> Self {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            listen: any_port,
            control_listen: any_port,
            issuer: "https://kubernetes.default.svc".to_owned(),
            cluster_uid: "0f6cbe58-9d2c-4b0c-8a51-7d53a5b0c1a9".to_owned(),
            bookmark_interval: Duration::from_secs(1),
            review_cache: Duration::from_secs(10),
            watch_history: 1000,
            watch_list: true,
            require_credentials: false,
            rsa_key: None,
            clock: Arc::new(SystemClock),
        }
    }
}

/// The running fake. Clones are the same one; it ends with the last of them.
#[derive(Clone)]
pub struct FakeKube {
    cluster: Arc<Cluster>,
    doors: Arc<Doors>,
}

/// Set once the routers, which hold a handle themselves, are bound.
#[derive(Default)]
pub(crate) struct Doors {
    api: OnceLock<Arc<Listener>>,
    control: OnceLock<Arc<Listener>>,
}

impl FakeKube {
    /// Starts with a kube-system namespace and nothing else.
    ///
    /// # Errors
    /// When a port cannot be bound or no key can be made.
    pub async fn start(config: FakeKubeConfig) -> Result<Self> {
        let (listen, control_listen) = (config.listen, config.control_listen);
        let cluster = Cluster::new(config)?;
        let doors = Arc::new(Doors::default());
        let remote = control::Remote {
            cluster: Arc::clone(&cluster),
            doors: Arc::downgrade(&doors),
        };
        let steering: Router = control::router(remote);
        let routes = api::router(&cluster).merge(steering.clone());
        let api = Listener::start(listen, routes)
            .await
            .with_context(|| format!("listen on {listen}"))?;
        let control = Listener::start(control_listen, steering)
            .await
            .with_context(|| format!("listen on {control_listen}"))?;
        // Both cells are empty: nobody else has seen them yet.
        let _ = doors.api.set(api);
        let _ = doors.control.set(control);
        Ok(Self { cluster, doors })
    }

    /// Base URL of the API, without a slash at the end.
    pub fn url(&self) -> String {
        base_url(&self.doors.api)
    }

    /// Base URL of the control paths' own port.
    pub fn control_url(&self) -> String {
        base_url(&self.doors.control)
    }

    /// `iss` of the tokens.
    pub fn issuer(&self) -> &str {
        &self.cluster.config.issuer
    }

    /// UID of the kube-system namespace.
    pub fn cluster_uid(&self) -> &str {
        &self.cluster.config.cluster_uid
    }

    /// The API's routes, to be called without a network. Neither answers nor refusals have a `Date`, which a server of HTTP adds.
    pub fn routes(&self) -> Router {
        api::router(&self.cluster)
    }

    /// Writes a kubeconfig for a user who may do everything.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn kubeconfig(&self, path: &Path) -> Result<()> {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{ "name": "fake", "cluster": { "server": self.url() } }],
            "users": [{ "name": "admin", "user": { "token": self.cluster.admin_token } }],
            "contexts": [{ "name": "fake", "context": { "cluster": "fake", "user": "admin" } }],
        });
        // JSON is YAML.
        let text = serde_json::to_string_pretty(&config)?;
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Puts a fault in force; the newest one that matches a request wins.
    pub fn fault(&self, rule: FaultRule) {
        self.cluster.faults.add(rule);
        self.wake_hanging();
    }

    /// Puts `fault` in force at `endpoint` until faults are cleared.
    pub fn fault_at(&self, endpoint: Endpoint, fault: Fault) {
        self.fault(FaultRule {
            endpoint: Some(endpoint),
            fault,
            times: None,
        });
    }

    /// Ends all faults; requests that hang are answered with 504.
    pub fn clear_faults(&self) {
        self.cluster.faults.clear();
        self.wake_hanging();
    }

    fn wake_hanging(&self) {
        self.cluster.fault_changes.send_modify(|changes| *changes += 1);
    }

    /// Requests so far at this endpoint, failed ones included.
    pub fn calls(&self, endpoint: Endpoint) -> u64 {
        let calls = self.cluster.faults.calls();
        calls.get(&endpoint).copied().unwrap_or_default()
    }

    /// Closes the API's port and all its connections: connects are refused. The control port stays open.
    pub async fn refuse_connections(&self) {
        if let Some(api) = self.doors.api.get() {
            api.refuse().await;
        }
    }

    /// Opens the API's port again.
    ///
    /// # Errors
    /// When another program has taken the port meanwhile.
    pub async fn accept_connections(&self) -> Result<()> {
        let api = self.doors.api.get().context("the fake has no listener")?;
        api.accept().await.context("open the API's port again")
    }

    /// Ends every open watch cleanly, as the API server does after its time limit.
    pub fn end_watches(&self) {
        let ends = &self.cluster.watch_ends;
        ends.send_modify(|(times, cut)| (*times, *cut) = (*times + 1, false));
    }

    /// Cuts every open watch in the middle of its stream.
    pub fn cut_watches(&self) {
        let ends = &self.cluster.watch_ends;
        ends.send_modify(|(times, cut)| (*times, *cut) = (*times + 1, true));
    }

    /// Forgets all changes so far: whoever watches from an older version, open watches included, gets 410 in the stream
    /// and must list again.
    pub fn compact_history(&self) {
        self.cluster.compact();
    }

    /// Lists under way cannot go on as they are: 410, with a token for what there is by now. Watches go on.
    pub fn expire_lists(&self) {
        self.cluster.expire_lists();
    }

    /// Cuts the next watch that begins with all pods after so many of them.
    pub fn cut_initial_events_after(&self, pods: usize) {
        *self.cluster.initial_events_break_off.lock() = Some(pods);
    }

    /// Forgets remembered reviews, as if [`FakeKubeConfig::review_cache`] were over.
    pub fn expire_reviews(&self) {
        self.cluster.reviewed.clear();
    }

    fn state(&self) -> Value {
        json!({
            "url": self.url(), "controlUrl": self.control_url(),
            "issuer": self.issuer(), "clusterUid": self.cluster_uid(),
            "resourceVersion": self.cluster.etcd.lock().version().to_string(),
            "calls": self.cluster.faults.calls(),
            "faults": self.cluster.faults.rules(),
        })
    }
}

fn base_url(door: &OnceLock<Arc<Listener>>) -> String {
    let address = door.get().map(|listener| listener.address());
    address.map_or_else(String::new, |address| format!("http://{address}"))
}
