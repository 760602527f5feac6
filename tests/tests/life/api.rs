//! The cluster's API server, called without a network: its clock, its `Date` and its being there are the test's.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Request, Response, header};
use httpdate::fmt_http_date;
use kube::client::Body;
use signet_runtime::clock::{Clock as _, FakeClock};
use signet_tests::fake_kube::{FakeKube, FakeKubeConfig};
use tower::ServiceExt as _;

pub(crate) struct Api {
    pub(crate) kube: FakeKube,
    pub(crate) clock: FakeClock,
    /// Its answers have no `Date`.
    silent: Arc<AtomicBool>,
    away: Arc<AtomicBool>,
}

impl Api {
    pub(crate) async fn start(base: SystemTime) -> Self {
        let clock = FakeClock::new(base);
        let config = FakeKubeConfig {
            bookmark_interval: Duration::from_secs(20),
            clock: Arc::new(clock.clone()),
            ..FakeKubeConfig::default()
        };
        Self {
            kube: FakeKube::start(config).await.unwrap(),
            clock,
            silent: Arc::default(),
            away: Arc::default(),
        }
    }

    pub(crate) fn is_away(&self) -> bool {
        self.away.load(Ordering::SeqCst)
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
        if away {
            self.kube.cut_watches();
        }
    }

    pub(crate) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }

    pub(crate) fn client(&self) -> kube::Client {
        let (routes, clock) = (self.kube.routes(), self.clock.clone());
        let (silent, away) = (self.silent.clone(), self.away.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (routes, clock) = (routes.clone(), clock.clone());
            let (silent, away) = (silent.clone(), away.clone());
            async move {
                if away.load(Ordering::SeqCst) {
                    return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
                }
                let mut response: Response<axum::body::Body> = routes.oneshot(request).await.unwrap();
                if !silent.load(Ordering::SeqCst) {
                    let date = HeaderValue::from_str(&fmt_http_date(clock.now())).unwrap();
                    response.headers_mut().insert(header::DATE, date);
                }
                Ok(response)
            }
        });
        kube::Client::new(service, "default")
    }
}
