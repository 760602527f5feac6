//! The bundle endpoint: the SPIFFE bundle document over HTTPS, for other trust domains and anyone else who polls. A
//! bundle is not signed, so it never leaves over plain HTTP. Two profiles (SPIFFE Federation §5.2): `https_spiffe` with
//! the server's own X509-SVID, `https_web` with a certificate from a file. No client certificate is asked for.

mod web;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::version::{TLS12, TLS13};
use signet_certs::authority::AuthorityKind;
use signet_certs::tls::{Hybrid, KeyExchange, provider};
use signet_runtime::drain::Drain;
use signet_runtime::http::{Limits, Seat, each, serve_connection};
use signet_runtime::refusals::Refusals;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

pub(crate) use self::web::WebCertificate;
use crate::metrics::KeyExchanges;
use crate::publish_http::document::{Document, method_not_allowed, plain};
use crate::trust::TrustSnapshot;

const JSON_TYPE: &str = "application/json";

/// TLS of the endpoint: 1.2 with ECDHE and an AEAD, and 1.3 (FED-10), without client certificates (FED-16). `identity`
/// is the own SVID of [`own_svid`](crate::own_svid) or a [`WebCertificate`].
///
/// # Errors
/// None that a correct build can meet: the provider lacks one of the two protocol versions.
pub(crate) fn bundle_tls(
    identity: Arc<dyn ResolvesServerCert>,
    hybrid: Hybrid,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider(hybrid))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would not show the reader a certificate that was replaced since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// TLS of the endpoint, and what is counted of it.
#[derive(Clone)]
pub(crate) struct BundleTls {
    acceptor: TlsAcceptor,
    key_exchanges: KeyExchanges,
}

impl BundleTls {
    /// As [`bundle_tls`] makes it.
    pub(crate) fn new(config: ServerConfig, key_exchanges: KeyExchanges) -> Self {
        Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            key_exchanges,
        }
    }
}

/// Serves the bundle of the newest snapshot at `path` until the drain starts. `path` begins with a slash.
pub(crate) async fn serve_bundle(
    listener: TcpListener,
    tls: BundleTls,
    path: &str,
    snapshots: watch::Receiver<Arc<TrustSnapshot>>,
    limits: Limits,
    refusals: Refusals,
    drain: Drain,
) {
    let router = router(path, snapshots);
    each(listener, limits, refusals, &drain, |stream, peer| {
        let (tls, router, drain) = (tls.clone(), router.clone(), drain.clone());
        move |seat| connection(tls, stream, peer, router, limits, seat, drain)
    })
    .await;
}

async fn connection(
    tls: BundleTls,
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    seat: Seat,
    drain: Drain,
) {
    // A stranger who never finishes a handshake holds its place no longer than one who never finishes a header.
    let handshake = tokio::time::timeout(limits.header_timeout, tls.acceptor.accept(stream));
    let accepted = tokio::select! {
        accepted = handshake => accepted,
        () = drain.signalled() => return,
    };
    match accepted {
        Ok(Ok(stream)) => {
            tls.key_exchanges.count(KeyExchange::of(stream.get_ref().1));
            serve_connection(stream, peer, router, limits, seat, drain).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, %peer, "TLS handshake of the bundle endpoint failed"),
        Err(_) => tracing::debug!(%peer, "TLS handshake of the bundle endpoint took too long"),
    }
}

/// The route: 404 for any other path, 405 for any other method (FED-28).
fn router(path: &str, snapshots: watch::Receiver<Arc<TrustSnapshot>>) -> Router {
    let door = Door {
        path: path.to_owned(),
        snapshots,
        rendered: ArcSwapOption::empty(),
    };
    Router::new().fallback(answer).with_state(Arc::new(door))
}

async fn answer(
    State(door): State<Arc<Door>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    if uri.path() != door.path {
        return plain(StatusCode::NOT_FOUND, "the bundle is at another path\n");
    }
    if method != Method::GET && method != Method::HEAD {
        return method_not_allowed();
    }
    door.answer(&method, &headers)
}

struct Door {
    path: String,
    snapshots: watch::Receiver<Arc<TrustSnapshot>>,
    rendered: ArcSwapOption<Rendered>,
}

/// The document of one snapshot.
struct Rendered {
    snapshot: Arc<TrustSnapshot>,
    document: Document,
}

impl Door {
    fn answer(&self, method: &Method, headers: &HeaderMap) -> Response<Body> {
        let snapshot = self.snapshots.borrow().clone();
        if snapshot.kind(AuthorityKind::X509).is_empty() {
            return plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "nothing is published yet, try again\n",
            );
        }
        if let Some(rendered) = &*self.rendered.load()
            && Arc::ptr_eq(&rendered.snapshot, &snapshot)
        {
            return rendered.document.respond(method, headers);
        }
        match snapshot.bundle().to_json() {
            Ok(body) => {
                let document = Document::new(JSON_TYPE, body);
                let response = document.respond(method, headers);
                self.rendered
                    .store(Some(Arc::new(Rendered { snapshot, document })));
                response
            }
            Err(error) => {
                tracing::error!(%error, "the bundle document cannot be written");
                plain(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the bundle cannot be written\n",
                )
            }
        }
    }
}

#[cfg(test)]
mod tests;
