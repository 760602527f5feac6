//! The control authorities by which the agent recognises its server, and where they are kept.
//!
//! They begin with the configured file. The server pushes newer ones over the verified channel; these are kept in
//! `data_dir/anchors.json`, so that a restart survives a rotation that the configured file has not heard of. When the
//! kept ones are dead (all expired, or the server cannot be verified by any) the configured file is read again: that is
//! how a lost control authority is recovered from. A configured file that has not changed since the kept ones were
//! derived from it adds nothing while one of them lives.
//!
//! Anybody on the network path can make a handshake fail and so cause that reading. It therefore only adds: no living
//! anchor and no CRL is lost by it, and an authority that the server has removed does not come back by a configured file
//! that lags behind. The next push of the server, once it is verified, says what really counts.
//!
//! What neither has heard of is found over links that the server shows ([`Following`]): they come last, and add as well.

mod files;
mod following;
mod state;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use signet_certs::authority::{AuthorityCertificate, AuthorityId};
use signet_certs::id::TrustDomain;
use signet_certs::time::rfc3339;
use signet_certs::tls::SharedRoots;
use signet_certs::verify::{CrlPolicy, TrustRoots, TrustedAuthority};
use signet_runtime::clock::Clock;
use signet_runtime::drain::Drain;
use signet_runtime::signal::Reread;
use signet_runtime::sync::Mutex;
use thiserror::Error;

use self::files::{read_configured, read_kept, write_kept};
pub(crate) use self::following::Following;
use self::state::{MAX_ANCHORS, State, same};
use super::trust::{Departed, HeldAuthority, TrustError, usable};

/// Why there are no anchors.
#[derive(Debug, Error)]
pub(crate) enum AnchorsError {
    /// The configured file cannot be read.
    #[error("{}: {problem}; it must hold the control authorities that the server writes", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: std::io::Error,
    },
    /// The configured file holds something else.
    #[error("{}: {problem}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// Why authorities that the server named are not taken over.
#[derive(Debug, Error)]
pub(crate) enum NamedError {
    /// More than any trust domain has.
    #[error("the server names {0} control authorities, of at most {MAX_ANCHORS}")]
    Many(usize),
    /// Not an authority, or one of another trust domain.
    #[error(transparent)]
    Authority(#[from] TrustError),
}

/// The anchors in force. Shared by the connector, the node attestor and the trust stream.
#[derive(Debug)]
pub(crate) struct ControlAnchors {
    trust_domain: TrustDomain,
    configured: PathBuf,
    kept: PathBuf,
    roots: Arc<SharedRoots>,
    state: Mutex<State>,
}

impl ControlAnchors {
    /// Reads the kept anchors if one of them lives, else the configured ones.
    ///
    /// # Errors
    /// [`AnchorsError`] when neither can be used.
    pub(crate) fn load(
        trust_domain: &TrustDomain,
        configured: &Path,
        data_dir: &Path,
        now: SystemTime,
    ) -> Result<Arc<Self>, AnchorsError> {
        let kept = data_dir.join("anchors.json");
        let state = match read_kept(&kept, trust_domain) {
            Some(state) if state.one_lives(now) => state,
            Some(dead) => dead.joined(read_configured(configured, trust_domain)?, now),
            None => read_configured(configured, trust_domain)?,
        };
        let roots = Arc::new(SharedRoots::new(control_roots(trust_domain, &state.anchors)));
        Ok(Arc::new(Self {
            trust_domain: trust_domain.clone(),
            configured: configured.to_owned(),
            kept,
            roots,
            state: Mutex::new(state),
        }))
    }

    /// The anchors as roots for a verifier; replaced in place.
    pub(crate) fn roots(&self) -> Arc<SharedRoots> {
        self.roots.clone()
    }

    /// Whether the server can be verified without links.
    pub(crate) fn one_lives(&self, now: SystemTime) -> bool {
        self.state.lock().one_lives(now)
    }

    /// Takes over what the server pushed, and keeps it on disk.
    pub(crate) fn update(&self, control: &[HeldAuthority]) {
        let mut state = self.state.lock();
        let trusted = |held: &HeldAuthority| {
            // A list that is known stays where the newer one is not believed.
            let mut known = state
                .anchors
                .iter()
                .filter(|known| known.certificate == held.certificate);
            TrustedAuthority {
                certificate: held.certificate.clone(),
                crl: held.crl.clone().or_else(|| known.next()?.crl.clone()),
            }
        };
        let anchors: Vec<_> = control.iter().map(trusted).collect();
        if same(&state.anchors, &anchors) {
            return;
        }
        state.replace(anchors);
        state.drop_departed();
        self.roots
            .store(control_roots(&self.trust_domain, &state.anchors));
        if let Err(error) = write_kept(&self.kept, &self.trust_domain, &state) {
            // Served all the same; a restart then begins with older anchors.
            tracing::warn!(path = %self.kept.display(), %error, "cannot keep the control anchors");
        }
    }

    /// From now on these are no anchors, whoever names them: the server when a node attests, the configured file, or a link.
    pub(crate) fn refuse(&self, departed: Departed) {
        let mut state = self.state.lock();
        if state.departed == departed {
            return;
        }
        state.departed = departed;
        state.drop_departed();
        self.roots
            .store(control_roots(&self.trust_domain, &state.anchors));
    }

    /// Adds authorities, DER, that the verified server named when this node attested, before the first push.
    ///
    /// # Errors
    /// [`NamedError`]; then none is added.
    pub(crate) fn add(&self, named: &[Bytes]) -> Result<(), NamedError> {
        if named.len() > MAX_ANCHORS {
            return Err(NamedError::Many(named.len()));
        }
        let read = named.iter().map(|der| usable(der, &self.trust_domain));
        self.grow(read.collect::<Result<_, _>>()?);
        Ok(())
    }

    fn grow(&self, certificates: Vec<AuthorityCertificate>) {
        let mut state = self.state.lock();
        state.add(certificates);
        self.roots
            .store(control_roots(&self.trust_domain, &state.anchors));
    }

    /// The anchors with what links lead to, as roots for a verifier.
    fn roots_with(&self, links: &[AuthorityCertificate], now: SystemTime) -> TrustRoots {
        let state = self.state.lock();
        let linked = state.linked(links, &self.trust_domain, now).into_iter();
        let linked = linked.map(|certificate| TrustedAuthority {
            certificate,
            crl: None,
        });
        let all: Vec<_> = state.anchors.iter().cloned().chain(linked).collect();
        control_roots(&self.trust_domain, &all)
    }

    /// Takes over what the links of a server lead to that was verified by it.
    fn follow(&self, links: &[AuthorityCertificate], now: SystemTime) {
        let linked = self.state.lock().linked(links, &self.trust_domain, now);
        for authority in &linked {
            tracing::info!(authority = %authority.id(), anchors_file = %self.configured.display(),
                "a control authority that the anchors file lacks was found over links");
        }
        self.grow(linked);
    }

    /// For people: the server showed a certificate of `shown`, and nothing at hand vouches for that.
    pub(crate) fn cannot_recognise(&self, shown: Option<AuthorityId>, now: SystemTime) -> String {
        let shown = shown.map_or_else(
            || "an unknown authority".to_owned(),
            |id| format!("authority {id}"),
        );
        format!(
            "it shows a certificate of {shown}, to which nothing leads from the control authorities at hand: {}; by this \
             clock it is {}. If it is the right server, replace {} by the file that the server keeps at \
             trust.control_anchors_file: `cat /var/lib/signet-server/control-anchors.pem` there, whose authorities \
             `signet-server ca show` names; on Kubernetes it is the ConfigMap that `kubectl create configmap` made of it",
            self.state.lock().told(),
            rfc3339(now),
            self.configured.display(),
        )
    }

    /// Reads the configured file each time that the process is told to, until draining starts. Nothing is lost by it, as
    /// [`server_not_verified`](Self::server_not_verified) has it.
    pub(crate) async fn reread_when_told(
        self: Arc<Self>,
        clock: Arc<dyn Clock>,
        mut reread: Reread,
        drain: Drain,
    ) {
        loop {
            tokio::select! {
                () = drain.signalled() => return,
                () = reread.told() => {}
            }
            if let Err(error) = self.server_not_verified(clock.now()) {
                tracing::error!(%error, "the control anchors stay as they are");
            }
        }
    }

    /// The server could not be verified. Reads the configured file again; `true` when it gave other anchors, so that
    /// another attempt makes sense.
    ///
    /// # Errors
    /// [`AnchorsError`] when the file cannot be used.
    pub(crate) fn server_not_verified(&self, now: SystemTime) -> Result<bool, AnchorsError> {
        let fresh = read_configured(&self.configured, &self.trust_domain)?;
        let mut state = self.state.lock();
        if state.one_lives(now) && fresh.source == state.source {
            return Ok(false);
        }
        let joined = state.joined(fresh, now);
        if same(&state.anchors, &joined.anchors) {
            return Ok(false);
        }
        tracing::warn!(path = %self.configured.display(), "control anchors are read from the configured file again");
        self.roots
            .store(control_roots(&self.trust_domain, &joined.anchors));
        *state = joined;
        Ok(true)
    }
}

/// CRLs come over the connection that these roots verify; see [`CrlPolicy::Tolerate`].
fn control_roots(trust_domain: &TrustDomain, anchors: &[TrustedAuthority]) -> TrustRoots {
    TrustRoots::new(vec![(trust_domain.clone(), anchors.to_vec())]).with_crl_policy(CrlPolicy::Tolerate)
}

#[cfg(test)]
mod tests;
