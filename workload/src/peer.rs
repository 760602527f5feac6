//! Who is at the other end of a connection, and whether that is still good.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rustls::CommonState;
use rustls::pki_types::CertificateDer;
use signet_certs::id::SpiffeId;
use signet_certs::tls::TrustSource;
use signet_certs::verify::{Role, VerifiedSvid, VerifyError, verify_chain};

use crate::source::{BundleSource, Core, X509Source};

/// Longest time between two looks at a peer when nothing is heard of: bounds how late an expired CRL, or a wall clock
/// that was set, is noticed. News of the agent are acted on at once.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The verified peer of a live connection.
#[derive(Clone, Debug)]
pub struct Peer {
    svid: VerifiedSvid,
    source: Arc<Core>,
}

impl Peer {
    /// Its SPIFFE ID.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        self.svid.spiffe_id()
    }

    /// What was verified: ID, serial, authority, end of life.
    #[must_use]
    pub fn svid(&self) -> &VerifiedSvid {
        &self.svid
    }

    /// Whether it would still be accepted; see [`X509Source::recheck`].
    ///
    /// # Errors
    /// The reason why not.
    pub fn recheck(&self) -> Result<(), VerifyError> {
        self.source.recheck(&self.svid)
    }

    /// Resolves once the peer is no longer to be trusted, with the reason: its certificate was revoked or has expired,
    /// its authority left the bundle, or that authority's CRL ran out. Drop the connection then.
    pub async fn revoked(&self) -> VerifyError {
        let mut news = self.source.changes();
        loop {
            news.mark_unchanged();
            if let Err(reason) = self.recheck() {
                return reason;
            }
            // Certificates hold through the whole last second.
            let left = self
                .svid
                .not_after()
                .duration_since(self.source.now())
                .unwrap_or_default();
            let wait = (left + Duration::from_millis(1)).min(LOOK_AGAIN);
            // The sender lives as long as our source, so `changed` cannot fail.
            let _ = tokio::time::timeout(wait, news.changed()).await;
        }
    }

    /// Runs `work` for as long as the peer is trusted; drops it, and with it the connection it owns, when that ends.
    ///
    /// # Errors
    /// The reason why the peer is no longer trusted.
    pub async fn while_trusted<F: Future>(&self, work: F) -> Result<F::Output, VerifyError> {
        tokio::select! {
            biased;
            reason = self.revoked() => {
                tracing::warn!(peer = %self.svid.spiffe_id(), serial = %self.svid.serial(), %reason, "a connection is cut");
                Err(reason)
            }
            output = work => Ok(output),
        }
    }
}

impl X509Source {
    /// The peer of a finished handshake, verified again at this moment: the CRL may have changed since. Give
    /// [`Role::Client`] for one who connected to us. For connections made with the configurations of this source, whose
    /// [`PeerRule`](crate::PeerRule) the handshake has applied.
    ///
    /// # Errors
    /// When it showed no certificate or is not to be trusted.
    pub fn peer(&self, connection: &CommonState, role: Role) -> Result<Peer, VerifyError> {
        Peer::of(&self.0, connection, role)
    }

    /// Verifies a chain, leaf first.
    ///
    /// # Errors
    /// When it is not to be trusted.
    pub fn verify(&self, chain: &[CertificateDer<'_>], role: Role) -> Result<Peer, VerifyError> {
        Peer::verified(&self.0, chain, role)
    }
}

impl BundleSource {
    /// The server of a finished handshake; see [`X509Source::peer`].
    ///
    /// # Errors
    /// When it is not to be trusted.
    pub fn peer(&self, connection: &CommonState) -> Result<Peer, VerifyError> {
        Peer::of(&self.0, connection, Role::Server)
    }

    /// Verifies a chain, leaf first.
    ///
    /// # Errors
    /// When it is not to be trusted.
    pub fn verify(&self, chain: &[CertificateDer<'_>], role: Role) -> Result<Peer, VerifyError> {
        Peer::verified(&self.0, chain, role)
    }
}

impl Peer {
    pub(crate) fn of(source: &Arc<Core>, connection: &CommonState, role: Role) -> Result<Self, VerifyError> {
        Self::verified(source, connection.peer_certificates().unwrap_or_default(), role)
    }

    fn verified(source: &Arc<Core>, chain: &[CertificateDer<'_>], role: Role) -> Result<Self, VerifyError> {
        Ok(Self {
            svid: verify_chain(chain, role, &source.roots(), source.now())?,
            source: source.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use signet_runtime::clock::{Clock, FakeClock};
    use signet_testkit::{DAY, DOMAIN, authority, chain, crl, leaf, now, roots, svid};

    use super::*;

    fn clock() -> Arc<FakeClock> {
        Arc::new(FakeClock::new(now()))
    }

    fn elapsed(clock: &FakeClock, start: SystemTime) -> Duration {
        clock.now().duration_since(start).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_good_through_its_last_second_and_no_longer() {
        let (ca, clock) = (authority(DOMAIN), clock());
        let crl = crl(&ca, 1, &[]);
        let source = X509Source::unfed(clock.clone(), roots(&[(&ca, Some(&crl))]));
        let leaf = leaf(&ca, "/web").ttl(Duration::from_secs(100)).svid();
        let peer = source.verify(&chain(&leaf), Role::Client).unwrap();
        let started = clock.now();
        let end = now() + Duration::from_secs(100);
        let ended = peer.revoked().await;
        assert!(
            matches!(ended, VerifyError::Expired(dates) if dates.not_after == end),
            "{ended}"
        );
        let lasted = elapsed(&clock, started);
        assert!(
            lasted > Duration::from_secs(100) && lasted < Duration::from_secs(101),
            "{lasted:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_crl_that_runs_out_is_noticed_in_bounded_time() {
        let (ca, clock) = (authority(DOMAIN), clock());
        let crl = crl(&ca, 1, &[]);
        let source = X509Source::unfed(clock.clone(), roots(&[(&ca, Some(&crl))]));
        let leaf = leaf(&ca, "/web").ttl(DAY).svid();
        let peer = source.verify(&chain(&leaf), Role::Client).unwrap();
        assert!(matches!(peer.revoked().await, VerifyError::CrlStale(_)));
        assert!(clock.now() <= crl.next_update() + LOOK_AGAIN + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn news_are_acted_on_at_once_and_work_is_dropped() {
        let (ca, clock) = (authority(DOMAIN), clock());
        let leaf = svid(&ca, "/web");
        let (first, second) = (crl(&ca, 1, &[]), crl(&ca, 2, &[leaf.serial()]));
        let source = X509Source::unfed(clock.clone(), roots(&[(&ca, Some(&first))]));
        let peer = source.verify(&chain(&leaf), Role::Client).unwrap();
        assert_eq!(peer.while_trusted(async { 7 }).await, Ok(7));
        let started = clock.now();
        let revoke = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            source.put_in_force(roots(&[(&ca, Some(&second))]));
        };
        let (outcome, ()) = tokio::join!(peer.while_trusted(std::future::pending::<()>()), revoke);
        assert!(matches!(outcome, Err(VerifyError::Revoked { .. })));
        assert_eq!(elapsed(&clock, started), Duration::from_secs(10));
        // Nothing runs for one who is refused already.
        assert!(peer.while_trusted(async { 7 }).await.is_err());
    }
}
