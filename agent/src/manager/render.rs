//! From the cache's state to what subscribers see. Bundle and CRL bytes are shared by all workloads.

use std::collections::BTreeMap;
use std::sync::Arc;

use signet_certs::serial::SerialNumber;

use crate::cache::{CacheState, Granted};
use crate::context::{GrantedSvid, Lists, WorkloadState, X509Context};
use crate::server_client::trust::TrustState;

/// What was published, compared instead of megabytes of CRLs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Published {
    Pending(Option<String>),
    Ready {
        leaves: Vec<(SerialNumber, String)>,
        trust: u64,
    },
    Refused(String),
}

impl Published {
    /// `trust` numbers the trust states of this process.
    pub(super) fn of(state: &CacheState<'_>, trust: u64) -> Self {
        match state {
            CacheState::Pending { problem } => Self::Pending(problem.clone()),
            CacheState::Ready(leaves) => {
                let leaves = leaves
                    .iter()
                    .map(|granted| (granted.leaf.serial, granted.hint.to_owned()))
                    .collect();
                Self::Ready { leaves, trust }
            }
            CacheState::Refused { message } => Self::Refused(message.clone()),
        }
    }
}

/// What subscribers see. Leaves are rendered together with the trust that verifies them (X5S-14).
pub(super) fn render(state: CacheState<'_>, trust: Option<&Told>) -> WorkloadState {
    match (state, trust) {
        (CacheState::Ready(leaves), Some(told)) => WorkloadState::Ready(Arc::new(context(&leaves, told))),
        // The cache is never ready without trust; say the safe thing if it were.
        (CacheState::Ready(_), None) => WorkloadState::Pending { problem: None },
        (CacheState::Pending { problem }, _) => WorkloadState::Pending { problem },
        (CacheState::Refused { message }, _) => WorkloadState::Refused { message },
    }
}

/// The lists that workloads are told of this trust.
pub(crate) fn lists_of(trust: &TrustState) -> Arc<Lists> {
    let held = trust.x509.iter().filter_map(|held| held.crl.as_ref());
    Lists::known(held.map(|crl| (crl.der().clone(), crl.sha256())))
}

/// What every workload is told.
pub(super) struct Told {
    /// What verifies their leaves.
    pub(super) trust: Arc<TrustState>,
    /// Its lists, in the one place that all messages share.
    pub(super) lists: Arc<Lists>,
}

impl Told {
    /// Of this trust; where workloads see no difference to what was told before, its lists stay.
    pub(super) fn of(trust: Arc<TrustState>, before: Option<&Self>) -> Self {
        let same = before.filter(|before| before.trust.looks_like(&trust));
        let lists = same.map_or_else(|| lists_of(&trust), |same| same.lists.clone());
        Self { trust, lists }
    }
}

fn context(leaves: &[Granted<'_>], told: &Told) -> X509Context {
    let trust = &told.trust;
    X509Context {
        trust_domain: trust.bundle.trust_domain.as_str().to_owned(),
        svids: leaves.iter().map(granted).collect(),
        bundle: trust.bundle_der.clone(),
        crls: told.lists.clone(),
        federated_bundles: BTreeMap::new(),
    }
}

fn granted(granted: &Granted<'_>) -> GrantedSvid {
    GrantedSvid {
        hint: granted.hint.to_owned(),
        ..granted.leaf.svid.clone()
    }
}
