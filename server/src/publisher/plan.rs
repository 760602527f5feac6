//! When a list has to be signed, and for how long: pure.

use std::time::{Duration, SystemTime};

use signet_certs::crl::{Crl, RevokedEntry};

use crate::clock::TOLERANCE;

/// No list lives shorter than this, however short the leaves are.
pub(super) const MIN_CRL_LIFE: Duration = Duration::from_secs(600);
/// Upper bounds, in bytes: an entry with a serial of 20 octets, its date and its reason; all around the entries of a list, and
/// around both in a message; an authority's certificate.
const ENTRY_BYTES: usize = 56;
const FRAME_BYTES: usize = 1024;
const CERTIFICATE_BYTES: usize = 1024;
/// So many further authorities find room for their certificate and an empty list, however full the others are: a rotation, and
/// another one before the first is through.
const SPARE_AUTHORITIES: usize = 2;
/// Dates in a list are whole seconds; so much may be lost in comparing.
const ROUNDING: Duration = Duration::from_secs(2);

/// How long a list lives: one and a half of the longest leaf it covers, so that none ends before those leaves. This is
/// the outage budget of everyone who fails closed.
pub(super) fn crl_life(longest_leaf_ttl: Duration) -> Duration {
    (longest_leaf_ttl + longest_leaf_ttl / 2).max(MIN_CRL_LIFE)
}

/// Whether a list was dated by a clock that was ahead by more than clocks may differ: it has to be signed anew, for nobody who
/// knows the time believes it.
pub(super) fn is_of_the_future(crl: &Crl, now: SystemTime) -> bool {
    crl.this_update() > now + TOLERANCE
}

/// Most entries that the lists of so many authorities may have together, if these and the certificates, which take
/// `bundle_bytes`, are to stay within `bytes`.
pub(super) fn capacity(authorities: usize, bundle_bytes: usize, bytes: usize) -> usize {
    let frames = (authorities + SPARE_AUTHORITIES) * FRAME_BYTES + SPARE_AUTHORITIES * CERTIFICATE_BYTES;
    bytes.saturating_sub(bundle_bytes.saturating_add(frames)) / ENTRY_BYTES
}

/// Whether one more authority leaves certificates and lists within `bytes`, which take `taken` now.
pub(super) const fn takes_authority(taken: usize, bytes: usize) -> bool {
    taken.saturating_add(FRAME_BYTES + CERTIFICATE_BYTES) <= bytes
}

/// What one list has to live up to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    pub(super) longest_leaf_ttl: Duration,
    pub(super) clock_skew: Duration,
    /// See [`ViewedAuthority::last_crl_from`](crate::authority::ViewedAuthority::last_crl_from).
    pub(super) last_crl_from: Option<SystemTime>,
}

impl Demand {
    /// When `crl` is to be replaced for its age, if no revocation comes first.
    pub(super) fn due(&self, crl: &Crl) -> SystemTime {
        let signed_at = crl.this_update() + self.clock_skew;
        let life = crl_life(self.longest_leaf_ttl);
        let given = crl.next_update().duration_since(signed_at).unwrap_or_default();
        if given + ROUNDING < life {
            // The longest TTL has grown: this list ends before leaves that it covers.
            return signed_at;
        }
        let renewal = signed_at + life.min(given) / 3;
        match self.last_crl_from {
            Some(from) if crl.this_update() < from => renewal.min(from + self.clock_skew),
            _ => renewal,
        }
    }
}

/// Whether `crl` fails to name something it should. What it names beyond `entries` may go with the next renewal.
pub(super) fn lacks(crl: &Crl, entries: &[RevokedEntry]) -> bool {
    entries.iter().any(|entry| !crl.is_revoked(&entry.serial))
}

/// The entries as a list shows them. A revocation date may not be later than `thisUpdate` (CRL-10), which is set back
/// for slow clocks; so the dates are set back by as much. That way an entry looks the same in every later list.
pub(super) fn dated(
    entries: Vec<RevokedEntry>,
    clock_skew: Duration,
    this_update: SystemTime,
) -> Vec<RevokedEntry> {
    let shift = |at: SystemTime| {
        at.checked_sub(clock_skew)
            .unwrap_or(SystemTime::UNIX_EPOCH)
            .min(this_update)
    };
    entries
        .into_iter()
        .map(|entry| RevokedEntry {
            revoked_at: shift(entry.revoked_at),
            ..entry
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use signet_certs::crl::{CrlNumber, RevocationReason, sign_crl};

    use super::*;
    use crate::fixtures::{HOUR, MINUTE, SKEW, authority, serial};

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + crate::fixtures::START
    }

    fn entries(count: u8) -> Vec<RevokedEntry> {
        let entry = |number| RevokedEntry {
            serial: serial(number),
            revoked_at: now(),
            reason: RevocationReason::KeyCompromise,
            invalid_since: None,
        };
        (0..count).map(entry).collect()
    }

    fn signed(entries: &[RevokedEntry], life: Duration) -> Crl {
        let authority = authority(signet_certs::authority::AuthorityKind::X509, now());
        sign_crl(&authority, entries, CrlNumber(1), now() - SKEW, now() + life).unwrap()
    }

    fn demand(longest_leaf_ttl: Duration) -> Demand {
        Demand {
            longest_leaf_ttl,
            clock_skew: SKEW,
            last_crl_from: None,
        }
    }

    #[test]
    fn a_list_outlives_every_leaf_and_ten_minutes() {
        assert_eq!(crl_life(HOUR), HOUR + HOUR / 2);
        assert_eq!(crl_life(MINUTE), 10 * MINUTE);
    }

    #[test]
    fn a_list_is_due_at_a_third_of_its_life_or_when_leaves_grow_longer() {
        let crl = signed(&[], 90 * MINUTE);
        assert_eq!(demand(HOUR).due(&crl), now() + 30 * MINUTE);
        assert_eq!(
            demand(2 * HOUR).due(&crl),
            now(),
            "it ends before leaves it covers"
        );
        assert_eq!(demand(MINUTE).due(&crl), now() + 200 * Duration::from_secs(1));
    }

    #[test]
    fn the_last_list_is_due_when_it_can_show_the_expiry() {
        let crl = signed(&[], 90 * MINUTE);
        let drained = Demand {
            last_crl_from: Some(now() + MINUTE),
            ..demand(HOUR)
        };
        assert_eq!(drained.due(&crl), now() + MINUTE + SKEW);
        let shown = Demand {
            last_crl_from: Some(now() - SKEW),
            ..demand(HOUR)
        };
        assert_eq!(shown.due(&crl), now() + 30 * MINUTE);
    }

    #[test]
    fn only_what_is_missing_asks_for_a_new_list() {
        let crl = signed(&dated(entries(3), SKEW, now() - SKEW), HOUR);
        assert!(!lacks(&crl, &entries(2)));
        assert!(lacks(&crl, &entries(4)));
    }

    /// Certificates, lists and what the message puts around them, with two authorities more than there were.
    #[test]
    fn a_full_room_stays_within_its_bytes_two_rotations_later() {
        let authority = authority(signet_certs::authority::AuthorityKind::X509, now());
        let certificate = authority.certificate().der().len();
        assert!(certificate <= CERTIFICATE_BYTES, "{certificate} bytes");
        let (bytes, authorities) = (20_000, 3);
        let most = capacity(authorities, authorities * certificate, bytes);
        let full = signed(
            &dated(entries(u8::try_from(most).unwrap()), SKEW, now() - SKEW),
            HOUR,
        );
        let empty = signed(&[], HOUR).der().len();
        let lists = full.der().len() + (authorities + SPARE_AUTHORITIES - 1) * empty;
        let bundle = (authorities + SPARE_AUTHORITIES) * certificate;
        assert!(lists + bundle <= bytes, "{lists} + {bundle}");
        assert_eq!(capacity(3, 900, 0), 0);
    }

    #[test]
    fn an_authority_is_taken_while_its_certificate_and_an_empty_list_fit() {
        let needs = FRAME_BYTES + CERTIFICATE_BYTES;
        let empty = signed(&[], HOUR).der().len();
        assert!(empty <= FRAME_BYTES, "{empty} bytes");
        assert!(takes_authority(0, needs) && takes_authority(7, needs + 7));
        assert!(!takes_authority(8, needs + 7) && !takes_authority(usize::MAX, usize::MAX - 1));
    }

    #[test]
    fn the_estimate_bounds_what_is_signed() {
        let crl = signed(&dated(entries(200), SKEW, now() - SKEW), HOUR);
        let most = FRAME_BYTES + 200 * ENTRY_BYTES;
        assert!(crl.der().len() <= most, "{} bytes", crl.der().len());
        let since = |entry| RevokedEntry {
            invalid_since: Some(now()),
            ..entry
        };
        let dated: Vec<_> = entries(200).into_iter().map(since).collect();
        let crl = signed(&dated, HOUR);
        let most = FRAME_BYTES + 200 * 2 * ENTRY_BYTES;
        assert!(crl.der().len() <= most, "{} bytes", crl.der().len());
    }
}
