//! Why there is nothing to serve at the moment.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use signet_certs::dates::{OutsideDates, WhoseClock};

use crate::context::GrantedSvid;

/// See the [module](self).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Nothing {
    /// For the status message of a stream that has waited long enough.
    pub(crate) problem: Cow<'static, str>,
    /// When time alone may mend it.
    pub(crate) again_in: Option<Duration>,
}

impl Nothing {
    /// What time alone does not mend.
    pub(crate) fn because(problem: impl Into<Cow<'static, str>>) -> Self {
        Self {
            problem: problem.into(),
            again_in: None,
        }
    }

    /// None of these is valid at `now`: every one that is complete is too early, which passes, or too late.
    pub(crate) fn none_valid(svids: &[GrantedSvid], now: SystemTime) -> Self {
        let upcoming = svids
            .iter()
            .filter(|svid| now < svid.not_before && svid.not_before < svid.not_after)
            .min_by_key(|svid| svid.not_before);
        let latest = svids.iter().max_by_key(|svid| svid.not_after);
        let Some(svid) = upcoming.or(latest) else {
            return Self::because("there is no certificate");
        };
        let dates = OutsideDates {
            not_before: svid.not_before,
            not_after: svid.not_after,
            now,
            clock: WhoseClock::Here,
        };
        let remedy = match upcoming {
            Some(_) => "check the clocks of node and server",
            None => "it could not be renewed",
        };
        Self {
            problem: format!("the certificate {dates}; {remedy}").into(),
            again_in: upcoming.and_then(|svid| svid.not_before.duration_since(now).ok()),
        }
    }
}

/// Whether an SVID can be shown at `now`. A mandatory field must never be at its default (API-07): clients drop the whole message.
pub(crate) fn is_servable(svid: &GrantedSvid, now: SystemTime) -> bool {
    let complete = !svid.spiffe_id.is_empty() && !svid.chain.is_empty() && !svid.key.bytes().is_empty();
    if !complete {
        tracing::error!(spiffe_id = %svid.spiffe_id, "an SVID without id, chain or key was not served");
    }
    complete && svid.not_before <= now && now < svid.not_after
}
