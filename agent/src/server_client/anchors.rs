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
//! What the configured file distrusts is no anchor, whoever names it, and what was said over connections to its servers counts for
//! nothing, the anchors included that they named ([`State::refuses`]). The file is looked at for as long as the agent runs.
//!
//! What neither has heard of is found over links that the server shows ([`Following`]): they come last, and add as well.

mod files;
mod following;
mod server;
mod state;
mod watching;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use signet_certs::authority::{AuthorityCertificate, AuthorityId};
use signet_certs::id::TrustDomain;
use signet_certs::time::rfc3339;
use signet_certs::tls::SharedRoots;
use signet_certs::verify::{CrlPolicy, TrustRoots, TrustedAuthority};
use signet_runtime::sync::Mutex;
use thiserror::Error;
use tokio::sync::watch;

use self::files::{read_configured, read_kept, write_kept};
pub(crate) use self::following::Following;
pub(crate) use self::server::{Objection, VerifiedServer};
use self::state::{Broken, Configured, MAX_ANCHORS, State, same};
pub(crate) use self::watching::LOOK;
use super::trust::{Departed, FileWord, HeldAuthority, Said, TrustError, usable};

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

impl AnchorsError {
    fn unusable(path: &Path, problem: String) -> Self {
        Self::Unusable {
            path: path.to_owned(),
            problem,
        }
    }
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
    /// Told of each change of the state.
    changes: watch::Sender<()>,
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
        let read = read_configured(configured, trust_domain);
        let state = match read_kept(&kept, trust_domain) {
            Some(mut state) => {
                state.hear(&read);
                match state.one_lives(now) {
                    true => state,
                    false => state.joined(read.map_err(|broken| broken.error)?, now),
                }
            }
            None => {
                let state = State::configured(read.map_err(|broken| broken.error)?);
                if state.anchors.is_empty() {
                    let problem = "it distrusts, and names no control authority beside";
                    return Err(AnchorsError::unusable(configured, problem.to_owned()));
                }
                state
            }
        };
        let roots = Arc::new(SharedRoots::new(control_roots(trust_domain, &state.anchors)));
        Ok(Arc::new(Self {
            trust_domain: trust_domain.clone(),
            configured: configured.to_owned(),
            kept,
            roots,
            state: Mutex::new(state),
            changes: watch::Sender::default(),
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
    pub(crate) fn update(&self, control: &[HeldAuthority], said: &Said) {
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
        // The file may have been read since it was believed.
        if same(&state.anchors, &anchors) || state.file.voids(said) {
            return;
        }
        state.replace(anchors, said);
        self.changed(&state);
        self.keep(&state);
    }

    /// From now on these are no anchors, whoever names them: the server when a node attests, the configured file, or a link.
    pub(crate) fn refuse(&self, departed: Departed) {
        let mut state = self.state.lock();
        if state.departed == departed {
            return;
        }
        state.departed = departed;
        state.drop_refused();
        self.changed(&state);
    }

    /// What the configured file says, as it was last read.
    pub(crate) fn word(&self) -> FileWord {
        self.state.lock().file.clone()
    }

    /// Resolves once `authority` may be no anchor any more, whoever names it.
    pub(crate) async fn refused(&self, authority: &AuthorityId) {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if self.state.lock().refuses(authority) {
                return;
            }
            // The sender is in here.
            let _ = changes.changed().await;
        }
    }

    /// For those who show what it says.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Adds authorities, DER, that the verified server named when this node attested, before the first push.
    ///
    /// # Errors
    /// [`NamedError`]; then none is added.
    pub(crate) fn add(&self, named: &[Bytes], said: &Said) -> Result<(), NamedError> {
        if named.len() > MAX_ANCHORS {
            return Err(NamedError::Many(named.len()));
        }
        let read = named
            .iter()
            .map(|der| Ok((usable(der, &self.trust_domain)?, said.clone())));
        self.grow(read.collect::<Result<_, TrustError>>()?);
        Ok(())
    }

    fn grow(&self, certificates: Vec<(AuthorityCertificate, Said)>) {
        let mut state = self.state.lock();
        state.add(certificates);
        self.changed(&state);
    }

    /// The anchors with what links lead to, as roots for a verifier.
    fn roots_with(&self, links: &[AuthorityCertificate], now: SystemTime) -> TrustRoots {
        let state = self.state.lock();
        let linked = state.linked(links, &self.trust_domain, now).into_iter();
        let linked = linked.map(|(certificate, _)| TrustedAuthority {
            certificate,
            crl: None,
        });
        let all: Vec<_> = state.anchors.iter().cloned().chain(linked).collect();
        control_roots(&self.trust_domain, &all)
    }

    /// Takes over what the links of a server lead to that was verified by it.
    fn follow(&self, links: &[AuthorityCertificate], now: SystemTime) {
        let linked = self.state.lock().linked(links, &self.trust_domain, now);
        for (authority, _) in &linked {
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

    /// The server could not be verified. Reads the configured file again; `true` when it gave other anchors, so that
    /// another attempt makes sense.
    ///
    /// # Errors
    /// [`AnchorsError`] when the file cannot be used.
    pub(crate) fn server_not_verified(&self, now: SystemTime) -> Result<bool, AnchorsError> {
        let read = read_configured(&self.configured, &self.trust_domain);
        let mut state = self.state.lock();
        self.hear(&mut state, &read);
        let fresh = read.map_err(|broken| broken.error)?;
        if state.one_lives(now) && fresh.source == state.source {
            return Ok(false);
        }
        let joined = state.joined(fresh, now);
        if same(&state.anchors, &joined.anchors) {
            return Ok(false);
        }
        tracing::warn!(path = %self.configured.display(), "control anchors are read from the configured file again");
        *state = joined;
        self.changed(&state);
        Ok(true)
    }

    /// Takes the word of the configured file, and drops at once what it distrusts. What cannot be read takes nothing back.
    fn hear(&self, state: &mut State, read: &Result<Configured, Broken>) {
        let (before, problem) = (state.file.clone(), state.problem.clone());
        state.hear(read);
        if state.problem != problem && !state.problem.is_empty() {
            tracing::error!(
                problem = state.problem,
                "the anchors file cannot be used: what it distrusted stays distrusted"
            );
        }
        if state.problem != problem {
            self.changes.send_replace(());
        }
        for id in state.file.distrusted.difference(&before.distrusted) {
            tracing::warn!(authority = %id, path = %self.configured.display(),
                "the anchors file distrusts an authority: it is no control anchor, and what its servers said counts for nothing");
        }
        for id in before.distrusted.difference(&state.file.distrusted) {
            tracing::warn!(authority = %id, path = %self.configured.display(), "the anchors file distrusts an authority no longer");
        }
        if state.file != before {
            self.changed(state);
            self.keep(state);
        }
    }

    /// The state is another one: whoever verifies by it has to know, and connections are looked at again.
    fn changed(&self, state: &State) {
        self.roots
            .store(control_roots(&self.trust_domain, &state.anchors));
        self.changes.send_replace(());
    }

    fn keep(&self, state: &State) {
        if let Err(error) = write_kept(&self.kept, &self.trust_domain, state) {
            // Served all the same; a restart then begins with older anchors.
            tracing::warn!(path = %self.kept.display(), %error, "cannot keep the control anchors");
        }
    }
}

/// CRLs come over the connection that these roots verify; see [`CrlPolicy::Tolerate`].
fn control_roots(trust_domain: &TrustDomain, anchors: &[TrustedAuthority]) -> TrustRoots {
    TrustRoots::new(vec![(trust_domain.clone(), anchors.to_vec())]).with_crl_policy(CrlPolicy::Tolerate)
}

#[cfg(test)]
mod tests;
