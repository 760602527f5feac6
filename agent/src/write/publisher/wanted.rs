//! What is to be written, of what the source has.

use std::sync::Arc;

use signet_workload::{SourceState, TrustedAuthority, X509Svid};

use crate::write::Plan;

pub(super) struct Wanted {
    pub svid: Arc<X509Svid>,
    pub bundle: Vec<TrustedAuthority>,
}

/// The newest of both halves: whom to trust may be newer than who we are. A state that knows nothing of our own trust domain changes no
/// file.
pub(super) fn wanted(state: &SourceState, plan: &Plan) -> Option<Wanted> {
    let svids = &state.context.as_ref()?.svids;
    let svid = plan.which.choose(svids)?.clone();
    let roots = state.roots.as_ref()?;
    let bundle = roots.authorities(&svid.spiffe_id().trust_domain()).to_vec();
    (!bundle.is_empty()).then_some(Wanted { svid, bundle })
}
