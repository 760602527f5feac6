//! How long authorities live and when one hands over to the next: the settings, checked once.

use std::time::{Duration, SystemTime};

use signet_certs::signer::SignatureAlgorithm;

/// The shortest authority life that is accepted. Below it the thirds and sixths of a life leave no room for spreading.
pub(crate) const MIN_AUTHORITY_TTL: Duration = Duration::from_secs(60);
/// The longest authority life that is accepted.
pub(crate) const MAX_AUTHORITY_TTL: Duration = Duration::from_secs(3660 * 24 * 3600);
/// A leaf lives at most this fraction (one n-th) of its authority's life, so that an authority which hands over at
/// five sixths can still give every leaf its full time.
const LEAF_SHARE: u32 = 6;

/// What an operator may set about the life of one kind of authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LifeSettings {
    /// Life of an authority's certificate.
    pub authority_ttl: Duration,
    /// The longest life of any leaf this kind signs.
    pub leaf_ttl: Duration,
    /// How far `notBefore` and `thisUpdate` are set back for peers whose clocks are slow.
    pub clock_skew: Duration,
    /// The least time a new authority stays in the bundle before it signs leaves: for readers that never report.
    pub spread: Duration,
    /// The time after which a new authority may sign although some agent has not reported it.
    pub spread_max: Duration,
    /// What the keys of new authorities sign with; nothing: as the one before, and P-256 at first.
    pub algorithm: Option<SignatureAlgorithm>,
    /// What happens when a key is stolen.
    pub emergency: EmergencySettings,
}

/// How authorities are replaced whose keys are stolen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EmergencySettings {
    /// How long those before stay in the bundle after another one signs, for whoever has yet to replace what they signed.
    pub grace: Duration,
    /// Whether the bundle with the new one goes out before it signs. Where a thief could send one too, what is more than a bundle comes first.
    pub bundle_first: bool,
}

/// How long those that are connected are waited for in an emergency.
pub(crate) const EMERGENCY_SPREAD: Duration = Duration::from_secs(5);

/// Why the settings are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LifePolicyError {
    /// Leaves would outlive what an authority can promise when it hands over.
    #[error(
        "SVID TTL {leaf_ttl:?} is more than a sixth of the authority TTL {authority_ttl:?}: \
         lower the SVID TTL or raise the authority TTL to at least {least:?}"
    )]
    LeafTooLong {
        /// The refused leaf TTL.
        leaf_ttl: Duration,
        /// The authority TTL it was held against.
        authority_ttl: Duration,
        /// The smallest authority TTL that would do.
        least: Duration,
    },
    /// The authority's life is outside of [`MIN_AUTHORITY_TTL`] and [`MAX_AUTHORITY_TTL`].
    #[error("authority TTL {0:?} is out of range: choose between 1 minute and 10 years")]
    AuthorityTtl(Duration),
    /// A TTL of zero.
    #[error("the SVID TTL is zero: set one, for instance 1h")]
    NoLeafTtl,
    /// The two spread times contradict each other.
    #[error(
        "spread {spread:?} is longer than spread_max {spread_max:?}: spread_max is the upper bound of both"
    )]
    SpreadOrder {
        /// Least time in the bundle.
        spread: Duration,
        /// Longest time to wait for reports.
        spread_max: Duration,
    },
    /// A successor prepared at half of the life would not be ready at five sixths.
    #[error(
        "spread_max {spread_max:?} is more than a third of the authority TTL {authority_ttl:?}: lower it"
    )]
    SpreadTooLong {
        /// Longest time to wait for reports.
        spread_max: Duration,
        /// The authority TTL it was held against.
        authority_ttl: Duration,
    },
}

/// Refuses a leaf TTL above one sixth of the authority's life (design: INV-10 must never bite in normal running).
pub(crate) fn check_leaf_ttl(leaf_ttl: Duration, authority_ttl: Duration) -> Result<(), LifePolicyError> {
    if leaf_ttl.is_zero() {
        return Err(LifePolicyError::NoLeafTtl);
    }
    let least = leaf_ttl.saturating_mul(LEAF_SHARE);
    if least > authority_ttl {
        return Err(LifePolicyError::LeafTooLong {
            leaf_ttl,
            authority_ttl,
            least,
        });
    }
    Ok(())
}

/// Checked [`LifeSettings`] and the moments that follow from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LifePolicy(LifeSettings);

impl LifePolicy {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`LifePolicyError`] names the setting, its value and the remedy.
    pub(crate) fn new(settings: LifeSettings) -> Result<Self, LifePolicyError> {
        let LifeSettings {
            authority_ttl,
            leaf_ttl,
            spread,
            spread_max,
            ..
        } = settings;
        if !(MIN_AUTHORITY_TTL..=MAX_AUTHORITY_TTL).contains(&authority_ttl) {
            return Err(LifePolicyError::AuthorityTtl(authority_ttl));
        }
        check_leaf_ttl(leaf_ttl, authority_ttl)?;
        if spread > spread_max {
            return Err(LifePolicyError::SpreadOrder { spread, spread_max });
        }
        if spread_max > authority_ttl / 3 {
            return Err(LifePolicyError::SpreadTooLong {
                spread_max,
                authority_ttl,
            });
        }
        Ok(Self(settings))
    }

    /// Life of a new authority's certificate.
    pub(crate) fn authority_ttl(&self) -> Duration {
        self.0.authority_ttl
    }

    /// The longest life of a leaf.
    pub(crate) fn leaf_ttl(&self) -> Duration {
        self.0.leaf_ttl
    }

    /// How far dates are set back.
    pub(crate) fn clock_skew(&self) -> Duration {
        self.0.clock_skew
    }

    /// Least time in the bundle before signing.
    pub(crate) fn spread(&self) -> Duration {
        self.0.spread
    }

    /// Longest time to wait for agents' reports.
    pub(crate) fn spread_max(&self) -> Duration {
        self.0.spread_max
    }

    /// What happens when a key is stolen.
    pub(crate) const fn emergency(&self) -> EmergencySettings {
        self.0.emergency
    }

    /// What keys of new authorities sign with, where that is set.
    pub(crate) fn algorithm(&self) -> Option<SignatureAlgorithm> {
        self.0.algorithm
    }
}

/// When the successor is made: at half of the life.
pub(crate) fn prepare_at(not_before: SystemTime, not_after: SystemTime) -> SystemTime {
    not_before + life(not_before, not_after) / 2
}

/// When the successor takes over: at five sixths of the life.
pub(crate) fn activate_at(not_before: SystemTime, not_after: SystemTime) -> SystemTime {
    not_before + life(not_before, not_after) / 6 * 5
}

fn life(not_before: SystemTime, not_after: SystemTime) -> Duration {
    not_after.duration_since(not_before).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn settings() -> LifeSettings {
        LifeSettings {
            authority_ttl: 168 * HOUR,
            leaf_ttl: HOUR,
            clock_skew: Duration::from_secs(120),
            spread: Duration::from_secs(60),
            spread_max: HOUR,
            algorithm: None,
            emergency: EmergencySettings {
                grace: Duration::from_secs(120),
                bundle_first: true,
            },
        }
    }

    #[test]
    fn a_leaf_may_live_a_sixth_of_its_authority_and_no_longer() {
        assert_eq!(check_leaf_ttl(HOUR, 6 * HOUR), Ok(()));
        let refused = check_leaf_ttl(HOUR, 6 * HOUR - Duration::from_secs(1)).unwrap_err();
        assert!(refused.to_string().contains("at least 21600s"), "{refused}");
        assert_eq!(
            check_leaf_ttl(Duration::ZERO, HOUR),
            Err(LifePolicyError::NoLeafTtl)
        );
    }

    #[test]
    fn contradicting_spread_times_are_refused() {
        let order = LifeSettings {
            spread: 2 * HOUR,
            ..settings()
        };
        assert!(matches!(
            LifePolicy::new(order),
            Err(LifePolicyError::SpreadOrder { .. })
        ));
        let long = LifeSettings {
            spread_max: 57 * HOUR,
            ..settings()
        };
        assert!(matches!(
            LifePolicy::new(long),
            Err(LifePolicyError::SpreadTooLong { .. })
        ));
        let short = LifeSettings {
            authority_ttl: Duration::from_secs(59),
            ..settings()
        };
        assert!(matches!(
            LifePolicy::new(short),
            Err(LifePolicyError::AuthorityTtl(_))
        ));
        assert!(LifePolicy::new(settings()).is_ok());
    }

    #[test]
    fn thresholds_are_half_and_five_sixths() {
        let start = SystemTime::UNIX_EPOCH + 1000 * HOUR;
        assert_eq!(prepare_at(start, start + 6 * HOUR), start + 3 * HOUR);
        assert_eq!(activate_at(start, start + 6 * HOUR), start + 5 * HOUR);
        assert_eq!(prepare_at(start, start - HOUR), start);
    }
}
