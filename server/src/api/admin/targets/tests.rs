use super::*;

fn named(cluster_uid: &str, uid: &str) -> Named {
    Named {
        cluster_uid: cluster_uid.to_owned(),
        uid: uid.to_owned(),
        name: "shop/web".to_owned(),
    }
}

#[test]
fn who_is_there_comes_before_who_was_and_several_clusters_are_refused_with_the_words_that_choose() {
    let found = |there: &[Named], rows: &[Named]| {
        let there = there
            .iter()
            .map(|named| (named.cluster_uid.clone(), named.clone()));
        let mut found = there.collect();
        last_of(&mut found, rows.iter().cloned());
        one_of(found, "shop/web", "pod")
    };
    assert_eq!(found(&[], &[]).unwrap(), None);
    let [now, last, before] = ["now", "last", "before"].map(|uid| named("c", uid));
    let rows = [last.clone(), before];
    assert_eq!(found(std::slice::from_ref(&now), &rows).unwrap(), Some(now));
    assert_eq!(found(&[], &rows).unwrap(), Some(last));
    let clusters = found(&rows[..1], &[named("d", "v")]).unwrap_err();
    for word in ["--cluster", "cluster UID c", "cluster UID d", "UID v"] {
        assert!(clusters.message().contains(word), "{clusters}");
    }
}
