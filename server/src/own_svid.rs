//! The server's own certificates: `/signet/server` for its gRPC listener, signed by the active control authority, and
//! `/signet/bundle` for the bundle endpoint, signed by the active X.509 authority. They are recorded like any other
//! (INV-4), renewed at half of their life, at once when another authority becomes active, and at once when they are
//! revoked.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::rand::SystemRandom;
use signet_certs::authority::{AuthorityId, AuthorityKind, X509Authority};
use signet_certs::id::{SpiffeId, TrustDomain};
use signet_certs::serial::SerialNumber;
use signet_certs::svid::{SvidError, SvidProfile};
use signet_certs::tls::RotatingIdentity;
use signet_runtime::backoff::Backoff;
use signet_runtime::clock::Clock;
use signet_runtime::drain::Drain;
use signet_runtime::pace;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::authority::AuthorityView;
use crate::issuer::own::{OwnIssueError, issue_own};
use crate::publisher::Firsts;
use crate::store::Store;
use crate::trust::TrustSnapshot;

const RETRIES: Backoff = Backoff::between(Duration::from_secs(1), Duration::from_secs(30));
/// The wall clock may be set; so the task looks at it at least this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// What the keeper is built from.
pub(crate) struct OwnSvidParts {
    /// The trust domain of both identities.
    pub trust_domain: TrustDomain,
    /// How the gRPC listener's certificate is made.
    pub server: SvidProfile,
    /// How the bundle endpoint's certificate is made; `None` where there is no such endpoint.
    pub bundle: Option<SvidProfile>,
    /// The ledger.
    pub store: Arc<dyn Store>,
    /// The authorities, from the manager.
    pub view: watch::Receiver<Arc<AuthorityView>>,
    /// What is published, to see our own revocation.
    pub snapshots: watch::Receiver<Arc<TrustSnapshot>>,
    /// Where it is said whose certificate agents see.
    pub firsts: watch::Sender<Firsts>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Ends the task.
    pub drain: Drain,
}

/// The identities, to be given to listeners. They change by themselves.
#[derive(Clone, Debug)]
pub(crate) struct OwnSvids {
    /// `/signet/server`.
    pub server: Arc<RotatingIdentity>,
    /// `/signet/bundle`, where it was asked for.
    pub bundle: Option<Arc<RotatingIdentity>>,
    /// The end of the first of them that ends; none while one is missing.
    pub valid_until: watch::Receiver<Option<SystemTime>>,
}

/// Why one of the server's own certificates could not be made. The one before it stays in use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnSvidError {
    /// No authority of that kind signs yet.
    #[error("no {0} authority is active")]
    NoAuthority(AuthorityKind),
    /// None was issued.
    #[error(transparent)]
    Issue(#[from] OwnIssueError),
    /// TLS would not take it.
    #[error("TLS does not accept the certificate")]
    Tls(#[from] rustls::Error),
}

/// Issues the first certificates and keeps them fresh until the drain starts. Call it once the manager is ready.
///
/// # Errors
/// The first certificates could not be made.
pub(crate) async fn keep_own_svids(parts: OwnSvidParts) -> Result<OwnSvids, OwnSvidError> {
    let drain = parts.drain.clone();
    let server = Own::new(
        AuthorityKind::Control,
        SpiffeId::server(&parts.trust_domain),
        parts.server,
    );
    let bundle = parts.bundle.map(|profile| {
        Own::new(
            AuthorityKind::X509,
            SpiffeId::bundle_endpoint(&parts.trust_domain),
            profile,
        )
    });
    let (ends, valid_until) = watch::channel(None);
    let identities = OwnSvids {
        server: server.identity.clone(),
        bundle: bundle.as_ref().map(|bundle| bundle.identity.clone()),
        valid_until,
    };
    let mut keeper = Keeper {
        owned: std::iter::once(server).chain(bundle).collect(),
        store: parts.store,
        view: parts.view,
        snapshots: parts.snapshots,
        firsts: parts.firsts,
        clock: parts.clock,
        random: SystemRandom::new(),
        ends,
    };
    match keeper.refresh().await {
        // Dates mend themselves once the time is known. Until then no agent can connect, but lists are served, and admins are
        // let in to say what time it is.
        Err(error @ OwnSvidError::Issue(OwnIssueError::Svid(SvidError::AuthorityNotValid(_)))) => {
            tracing::error!(
                error = &error as &dyn Error,
                "no own certificate yet, will try again"
            );
        }
        outcome => outcome?,
    }
    drain
        .clone()
        .spawn_vital("own certificates", async move { keeper.run(drain).await });
    Ok(identities)
}

/// One of the server's identities.
struct Own {
    kind: AuthorityKind,
    spiffe_id: SpiffeId,
    profile: SvidProfile,
    identity: Arc<RotatingIdentity>,
    current: Option<Current>,
}

/// The certificate in use.
struct Current {
    serial: SerialNumber,
    authority: AuthorityId,
    not_before: SystemTime,
    renew_at: SystemTime,
    not_after: SystemTime,
}

impl Own {
    fn new(kind: AuthorityKind, spiffe_id: SpiffeId, profile: SvidProfile) -> Self {
        Self {
            kind,
            spiffe_id,
            profile,
            identity: Arc::new(RotatingIdentity::new()),
            current: None,
        }
    }

    /// What leads to the authority of the certificate in use goes along with it, for agents that know only an earlier one.
    fn send_links(&self, view: &AuthorityView, now: SystemTime) {
        if let Some(current) = &self.current {
            let links = view.kind(self.kind).links_to(current.authority, now);
            self.identity.set_links(&links);
        }
    }

    fn is_due(&self, active: Option<AuthorityId>, snapshot: &TrustSnapshot, now: SystemTime) -> bool {
        let Some(current) = &self.current else { return true };
        let listed = snapshot.get(current.authority);
        // Time has gone back since: nobody who knows it believes the certificate.
        now < current.not_before
            || now >= current.renew_at
            || active.is_some_and(|active| active != current.authority)
            || listed.is_some_and(|published| published.crl.is_revoked(&current.serial))
    }
}

struct Keeper {
    owned: Vec<Own>,
    store: Arc<dyn Store>,
    view: watch::Receiver<Arc<AuthorityView>>,
    snapshots: watch::Receiver<Arc<TrustSnapshot>>,
    firsts: watch::Sender<Firsts>,
    clock: Arc<dyn Clock>,
    random: SystemRandom,
    ends: watch::Sender<Option<SystemTime>>,
}

impl Keeper {
    async fn run(mut self, drain: Drain) {
        let mut retry = RETRIES;
        let mut wake_at = Instant::now();
        loop {
            tokio::select! {
                Ok(()) = self.view.changed() => {}
                Ok(()) = self.snapshots.changed() => {}
                () = sleep_until(wake_at) => {}
                () = drain.signalled() => return,
            }
            let wait = match self.refresh().await {
                Ok(()) => {
                    retry.reset();
                    self.wait()
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn Error,
                        "own certificate not renewed, will try again"
                    );
                    retry.next(0.0)
                }
            };
            wake_at = Instant::now() + wait;
        }
    }

    fn wait(&self) -> Duration {
        let current = self.owned.iter().filter_map(|own| own.current.as_ref());
        let due = current.map(|current| current.renew_at).min();
        pace::slice(self.clock.now(), due, LONGEST_SLEEP)
    }

    /// Renews what is due; tries all, and returns the first failure.
    async fn refresh(&mut self) -> Result<(), OwnSvidError> {
        let view = self.view.borrow_and_update().clone();
        let snapshot = self.snapshots.borrow_and_update().clone();
        let now = self.clock.now();
        let mut outcome = Ok(());
        for own in &mut self.owned {
            let active = view.kind(own.kind).active();
            if !own.is_due(active.map(|active| active.id()), &snapshot, now) {
                continue;
            }
            let issued = match active {
                Some(active) => renew(own, active.x509(), self.store.as_ref(), &self.random, now).await,
                None => Err(OwnSvidError::NoAuthority(own.kind)),
            };
            outcome = outcome.and(issued);
        }
        for own in &self.owned {
            own.send_links(&view, now);
        }
        self.ends.send_replace(self.valid_until());
        self.tell();
        outcome
    }

    fn tell(&self) {
        let mut control = self.owned.iter().filter(|own| own.kind == AuthorityKind::Control);
        let authority = control.find_map(|own| Some(own.current.as_ref()?.authority));
        self.firsts.send_if_modified(|firsts| {
            let changed = firsts.own != authority;
            firsts.own = authority;
            changed
        });
    }

    fn valid_until(&self) -> Option<SystemTime> {
        let ends = self.owned.iter().map(|own| Some(own.current.as_ref()?.not_after));
        ends.collect::<Option<Vec<_>>>()?.into_iter().min()
    }
}

async fn renew(
    own: &mut Own,
    authority: &X509Authority,
    store: &dyn Store,
    random: &SystemRandom,
    now: SystemTime,
) -> Result<(), OwnSvidError> {
    let id = own.spiffe_id.clone();
    let svid = issue_own(id, &own.profile, authority, store, random, now).await?;
    own.identity.set(&svid)?;
    let life = svid.not_after().duration_since(now).unwrap_or_default();
    own.current = Some(Current {
        serial: svid.serial(),
        authority: svid.authority_id(),
        not_before: svid.not_before(),
        renew_at: now + life / 2,
        not_after: svid.not_after(),
    });
    tracing::info!(spiffe_id = %own.spiffe_id, serial = %svid.serial(), "own certificate issued");
    Ok(())
}

#[cfg(test)]
mod tests;
