//! The plain HTTP door: signed objects only, for anyone. CRLs and authority certificates prove themselves; bundles do
//! not and are never served here.
//!
//! | path | what | type |
//! |---|---|---|
//! | `/crl/<authority-id>.crl` | its CRL, DER | `application/pkix-crl` |
//! | `/crl/<authority-id>.pem` | its CRL, PEM | `application/x-pem-file` |
//! | `/crl.pem` | all CRLs, PEM | `application/x-pem-file` |
//! | `/ca/<authority-id>.cer` | its certificate, DER | `application/pkix-cert` |

pub(crate) mod document;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use bytes::Bytes;
use signet_runtime::drain::Drain;
use signet_runtime::http::{Limits, serve};
use signet_runtime::refusals::Refusals;
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::document::{Document, plain};
use crate::trust::TrustSnapshot;

const CRL_TYPE: &str = "application/pkix-crl";
const CERTIFICATE_TYPE: &str = "application/pkix-cert";
const PEM_TYPE: &str = "application/x-pem-file";

/// Serves the signed objects on `listener` until the drain starts.
pub(crate) async fn serve_signed_objects(
    listener: TcpListener,
    snapshots: watch::Receiver<Arc<TrustSnapshot>>,
    limits: Limits,
    refusals: Refusals,
    drain: Drain,
) {
    serve(listener, router(snapshots), limits, refusals, drain).await;
}

/// The routes. A path that is not there gives 404, whatever the method; another method than GET and HEAD gives 405.
pub(crate) fn router(snapshots: watch::Receiver<Arc<TrustSnapshot>>) -> Router {
    let objects = Objects::new(snapshots.borrow().clone());
    let door = Arc::new(Door {
        snapshots,
        objects: ArcSwap::from_pointee(objects),
    });
    Router::new().fallback(answer).with_state(door)
}

async fn answer(
    State(door): State<Arc<Door>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let objects = door.current();
    match objects.documents.get(uri.path()) {
        Some(document) => document.respond(&method, &headers),
        None => plain(
            StatusCode::NOT_FOUND,
            "no such object: see /crl.pem for all lists\n",
        ),
    }
}

struct Door {
    snapshots: watch::Receiver<Arc<TrustSnapshot>>,
    objects: ArcSwap<Objects>,
}

impl Door {
    /// The documents of the newest snapshot. Whoever was told that a snapshot is out finds it here: there is no task in
    /// between that could lag.
    fn current(&self) -> Arc<Objects> {
        let snapshot = self.snapshots.borrow().clone();
        let known = self.objects.load_full();
        if Arc::ptr_eq(&known.snapshot, &snapshot) {
            return known;
        }
        let fresh = Arc::new(Objects::new(snapshot));
        self.objects.store(fresh.clone());
        fresh
    }
}

/// All documents of one snapshot, by path.
struct Objects {
    snapshot: Arc<TrustSnapshot>,
    documents: HashMap<String, Document>,
}

impl Objects {
    fn new(snapshot: Arc<TrustSnapshot>) -> Self {
        let mut documents = HashMap::new();
        let mut all = String::new();
        for published in snapshot.all() {
            let (id, crl, certificate) = (published.certificate.id(), &published.crl, &published.certificate);
            let pem = crl.pem();
            all.push_str(&pem);
            let certificate = Bytes::copy_from_slice(certificate.der());
            documents.extend([
                (
                    format!("/crl/{id}.crl"),
                    Document::new(CRL_TYPE, crl.der().clone()),
                ),
                (format!("/crl/{id}.pem"), Document::new(PEM_TYPE, pem.into())),
                (
                    format!("/ca/{id}.cer"),
                    Document::new(CERTIFICATE_TYPE, certificate),
                ),
            ]);
        }
        if !snapshot.is_empty() {
            documents.insert("/crl.pem".to_owned(), Document::new(PEM_TYPE, all.into()));
        }
        Self { snapshot, documents }
    }
}

#[cfg(test)]
mod tests;
