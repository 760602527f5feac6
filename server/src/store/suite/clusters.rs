use std::sync::Arc;

use super::fixture::at;
use crate::store::{ClusterRow, SigningKeySet, Store};

pub(crate) async fn a_cluster_is_kept_as_last_saved(store: Arc<dyn Store>) {
    assert_eq!(store.clusters().await.unwrap(), []);
    let unread = ClusterRow {
        name: "test".to_owned(),
        ..ClusterRow::default()
    };
    let away = ClusterRow {
        name: "prod".to_owned(),
        uid: Some("uid".to_owned()),
        unreachable_since: Some(at(5)),
        signing_keys: Some(SigningKeySet {
            issuer: "https://issuer.example".to_owned(),
            document: b"{}".as_slice().into(),
        }),
    };
    for row in [&unread, &away] {
        store.save_cluster(row.clone()).await.unwrap();
    }
    assert_eq!(store.clusters().await.unwrap(), [away.clone(), unread.clone()]);
    let back = ClusterRow {
        unreachable_since: None,
        ..away
    };
    store.save_cluster(back.clone()).await.unwrap();
    assert_eq!(store.clusters().await.unwrap(), [back, unread]);
}
