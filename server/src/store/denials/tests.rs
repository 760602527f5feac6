use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::store::Named;

fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap()
}

fn denial(target: DenialTarget) -> Denial {
    Denial {
        id: format!("d-{target}"),
        target,
        author: String::new(),
        comment: String::new(),
        created: UNIX_EPOCH,
        expires: None,
        lifted: None,
    }
}

/// Paths that have much in common: `a`, `a-b`, `ab` at each of up to four places.
fn path() -> impl Strategy<Value = SpiffeId> {
    let segment = prop::sample::select(vec!["a", "a-b", "ab", "b"]);
    prop::collection::vec(segment, 1..4).prop_map(|segments| id(&format!("/{}", segments.join("/"))))
}

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "one", "two"]).prop_map(str::to_owned)
}

fn named() -> impl Strategy<Value = Named> {
    (word(), word(), word()).prop_map(|(cluster_uid, uid, name)| Named {
        cluster_uid,
        uid,
        name,
    })
}

fn target() -> impl Strategy<Value = DenialTarget> {
    prop_oneof![
        path().prop_map(DenialTarget::Id),
        path().prop_map(DenialTarget::Prefix),
        named().prop_map(DenialTarget::Pod),
        named().prop_map(DenialTarget::Node),
    ]
}

proptest! {
    /// The index says what the definition says, whichever denials have been lifted or have ended.
    #[test]
    fn the_index_finds_the_oldest_that_hits(
        all in prop::collection::vec((target(), any::<bool>(), 0..3u64), 0..12),
        who in (path(), word(), word(), word(), word()),
    ) {
        let now = UNIX_EPOCH + Duration::from_secs(1);
        let mut index = Denials::default();
        let mut kept = Vec::new();
        for (number, (target, lifted, ends)) in (1..).zip(all) {
            let expires = (ends > 0).then(|| UNIX_EPOCH + Duration::from_secs(ends));
            let denial = Denial { id: number.to_string(), expires, ..denial(target) };
            index.insert(number, denial.clone());
            if lifted {
                index.retain(|other| other.id != denial.id);
            } else {
                kept.push(denial);
            }
        }
        let subject = Subject {
            spiffe_id: &who.0, cluster_uid: &who.1, pod_uid: &who.2, node_uid: &who.3, node_name: &who.4,
        };
        let naive = kept.iter().find(|denial| denial.is_active(now) && denial.target.hits(&subject));
        prop_assert_eq!(index.of(&subject, now), naive);
        index.retain(|_| false);
        prop_assert!(index.of(&subject, now).is_none());
    }

    #[test]
    fn what_is_stored_is_read_back(target in target()) {
        prop_assert_eq!(DenialTarget::parse(target.kind(), &target.stored()), Some(target));
    }
}
