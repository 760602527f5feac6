//! When somebody looks whether an identity was renewed. Pure: the time is an argument.

use std::time::{Duration, SystemTime};

use signet_certs::svid::X509Svid;

/// Shortest time between two looks.
const SHORTEST: Duration = Duration::from_secs(15);

/// From here on the renewal is late: agents renew at about half of an SVID's life, a quarter is left for them to try again.
fn due(svid: &X509Svid) -> SystemTime {
    let life = svid
        .not_after()
        .duration_since(svid.not_before())
        .unwrap_or_default();
    svid.not_before()
        .checked_add(life - life / 4)
        .unwrap_or_else(|| svid.not_after())
}

/// Whether the renewal is late.
pub(super) fn is_late(svid: &X509Svid, now: SystemTime) -> bool {
    now > due(svid)
}

/// When to look next: once the renewal is late, then each time half of what is left has passed.
pub(super) fn next_look(svid: &X509Svid, now: SystemTime) -> SystemTime {
    let due = due(svid);
    if now < due {
        return due;
    }
    let left = svid.not_after().duration_since(now).unwrap_or_default();
    now.checked_add((left / 2).max(SHORTEST)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use signet_testkit::{DOMAIN, authority, leaf, now};

    use super::*;

    #[test]
    fn looks_begin_when_a_quarter_is_left_and_draw_closer() {
        let svid = leaf(&authority(DOMAIN), "/me")
            .ttl(Duration::from_secs(3600))
            .svid();
        let life = svid.not_after().duration_since(svid.not_before()).unwrap();
        let due = svid.not_after() - life / 4;
        assert_eq!(next_look(&svid, now()), due);
        assert!(!is_late(&svid, due) && is_late(&svid, due + Duration::from_secs(1)));
        let mut looks = vec![due];
        while let Some(last) = looks.last().filter(|last| **last <= svid.not_after()) {
            looks.push(next_look(&svid, *last));
        }
        assert!((4..12).contains(&looks.len()), "{looks:?}");
        let later = svid.not_after() + life;
        assert_eq!(next_look(&svid, later), later + SHORTEST);
    }
}
