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

mod error;
mod files;
mod following;
mod keeping;
mod server;
mod state;
mod watching;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use bytes::Bytes;
use signet_certs::authority::{AuthorityCertificate, AuthorityId};
use signet_certs::id::TrustDomain;
use signet_certs::time::rfc3339;
use signet_certs::tls::SharedRoots;
use signet_certs::verify::{CrlPolicy, TrustRoots, TrustedAuthority};
use signet_runtime::sync::Mutex;
use tokio::sync::watch;

use self::error::MAX_ANCHORS;
pub(crate) use self::error::{AnchorsError, NamedError};
use self::files::{read_configured, read_kept};
pub(crate) use self::following::Following;
use self::keeping::ToKeep;
pub(crate) use self::server::{Objection, VerifiedServer};
use self::state::{Broken, Configured, State, same};
pub(crate) use self::watching::LOOK;
use super::trust::{Departed, FileWord, HeldAuthority, Said, TrustError, usable};

/// The anchors in force. Shared by the connector, the node attestor and the trust stream.
#[derive(Debug)]
pub(crate) struct ControlAnchors {
    trust_domain: TrustDomain,
    configured: PathBuf,
    kept: PathBuf,
    roots: Arc<SharedRoots>,
    state: Mutex<State>,
    /// States that were to be kept; counted under the lock of the state.
    versions: AtomicU64,
    /// The newest of them on disk.
    written: Mutex<u64>,
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
        let before = read_kept(&kept, trust_domain);
        let is_kept = before.is_some();
        let state = match before {
            Some(state) => state,
            None => {
                let state = State::configured(
                    read_configured(configured, trust_domain).map_err(|broken| broken.error)?,
                );
                if state.anchors.is_empty() {
                    let problem = "it distrusts, and names no control authority beside";
                    return Err(AnchorsError::unusable(configured, problem.to_owned()));
                }
                state
            }
        };
        let roots = Arc::new(SharedRoots::new(control_roots(trust_domain, &state.anchors)));
        let anchors = Self {
            trust_domain: trust_domain.clone(),
            configured: configured.to_owned(),
            kept,
            roots,
            state: Mutex::new(state),
            versions: AtomicU64::new(0),
            written: Mutex::new(0),
            changes: watch::Sender::default(),
        };
        if is_kept {
            anchors.heard_at_start(read, now)?;
        }
        Ok(Arc::new(anchors))
    }

    /// What the configured file says now holds from now on, and after the next start too, also where it is gone by then.
    fn heard_at_start(&self, read: Result<Configured, Broken>, now: SystemTime) -> Result<(), AnchorsError> {
        let heard = self.hear(&mut self.state.lock(), &read);
        heard.into_iter().for_each(|kept| self.write(kept));
        let mut state = self.state.lock();
        if !state.one_lives(now) {
            *state = state.joined(read.map_err(|broken| broken.error)?, now);
            self.changed(&state);
        }
        Ok(())
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
        let kept = self.taken_over(control, said);
        kept.into_iter().for_each(|kept| self.write(kept));
    }

    /// Takes over newer lists of anchors that there are, from a server whose bundle is not believed: it makes nobody an anchor, and nobody
    /// none.
    pub(crate) fn update_lists(&self, control: &[HeldAuthority]) {
        let mut state = self.state.lock();
        let newer = |known: &TrustedAuthority| {
            let mut held = control
                .iter()
                .filter(|held| held.certificate == known.certificate);
            TrustedAuthority {
                certificate: known.certificate.clone(),
                crl: held
                    .find_map(|held| held.crl.clone())
                    .or_else(|| known.crl.clone()),
            }
        };
        let anchors: Vec<_> = state.anchors.iter().map(newer).collect();
        if same(&state.anchors, &anchors) {
            return;
        }
        state.anchors = anchors;
        self.changed(&state);
        let kept = self.to_keep(&state);
        drop(state);
        kept.into_iter().for_each(|kept| self.write(kept));
    }

    fn taken_over(&self, control: &[HeldAuthority], said: &Said) -> Option<ToKeep> {
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
            return None;
        }
        state.replace(anchors, said);
        self.changed(&state);
        self.to_keep(&state)
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
        let heard = self.hear(&mut self.state.lock(), &read);
        heard.into_iter().for_each(|kept| self.write(kept));
        let fresh = read.map_err(|broken| broken.error)?;
        let mut state = self.state.lock();
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

    /// Takes the word of the configured file, and drops at once what it distrusts. What cannot be read takes nothing back. Returns what is
    /// to be written once the state is let go.
    fn hear(&self, state: &mut State, read: &Result<Configured, Broken>) -> Option<ToKeep> {
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
        if state.file == before {
            return None;
        }
        self.changed(state);
        self.to_keep(state)
    }

    /// The state is another one: whoever verifies by it has to know, and connections are looked at again.
    fn changed(&self, state: &State) {
        self.roots
            .store(control_roots(&self.trust_domain, &state.anchors));
        self.changes.send_replace(());
    }
}

/// CRLs come over the connection that these roots verify; see [`CrlPolicy::Tolerate`].
fn control_roots(trust_domain: &TrustDomain, anchors: &[TrustedAuthority]) -> TrustRoots {
    TrustRoots::new(vec![(trust_domain.clone(), anchors.to_vec())]).with_crl_policy(CrlPolicy::Tolerate)
}

#[cfg(test)]
mod tests;
