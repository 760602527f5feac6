use std::sync::Arc;

use signet_certs::authority::AuthorityKind;

use super::fixture::{authority, sealed_key};
use crate::store::{Journal, KeyChanges, Store, StoreError};

pub(crate) async fn a_journal_is_written_by_compare_and_swap(store: Arc<dyn Store>) {
    let kind = AuthorityKind::X509;
    assert_eq!(store.load_journal(kind).await.unwrap(), None);
    let save = |revision, body: &str| {
        store.save_journal(
            kind,
            revision,
            body.as_bytes().to_vec(),
            KeyChanges::default(),
            vec![],
        )
    };
    assert_eq!(save(0, "one").await, Ok(1));
    assert_eq!(
        save(0, "lost").await,
        Err(StoreError::Conflict {
            expected: 0,
            stored: 1
        })
    );
    assert_eq!(save(1, "two").await, Ok(2));
    assert_eq!(
        save(1, "lost").await,
        Err(StoreError::Conflict {
            expected: 1,
            stored: 2
        })
    );
    assert_eq!(
        store.load_journal(kind).await.unwrap(),
        Some(Journal {
            revision: 2,
            body: b"two".to_vec()
        })
    );
    assert_eq!(
        store.load_journal(AuthorityKind::Control).await.unwrap(),
        None,
        "each kind has its own"
    );
}

pub(crate) async fn of_two_writers_of_one_revision_one_wins(store: Arc<dyn Store>) {
    for revision in 0..20 {
        let save = |body: u8| {
            let store = store.clone();
            tokio::spawn(async move {
                let keys = KeyChanges {
                    add: vec![sealed_key(body)],
                    remove: vec![],
                };
                store
                    .save_journal(AuthorityKind::Control, revision, vec![body], keys, vec![])
                    .await
            })
        };
        let (one, two) = (save(1), save(2));
        let results = [one.await.unwrap(), two.await.unwrap()];
        assert_eq!(
            results.iter().filter(|result| result.is_ok()).count(),
            1,
            "{results:?}"
        );
        let body = store
            .load_journal(AuthorityKind::Control)
            .await
            .unwrap()
            .unwrap()
            .body;
        assert_eq!(body == [1], results[0].is_ok());
    }
}

pub(crate) async fn keys_come_and_go_with_the_journal(store: Arc<dyn Store>) {
    let kind = AuthorityKind::X509;
    let add = KeyChanges {
        add: vec![sealed_key(1), sealed_key(2)],
        remove: vec![],
    };
    store.save_journal(kind, 0, vec![], add, vec![]).await.unwrap();
    assert_eq!(store.load_keys().await.unwrap(), [sealed_key(1), sealed_key(2)]);
    let lost = KeyChanges {
        add: vec![sealed_key(3)],
        remove: vec![authority(1)],
    };
    store
        .save_journal(kind, 0, vec![], lost, vec![])
        .await
        .unwrap_err();
    assert_eq!(
        store.load_keys().await.unwrap().len(),
        2,
        "a journal that lost changes no key"
    );
    let change = KeyChanges {
        add: vec![sealed_key(3)],
        remove: vec![authority(1)],
    };
    store.save_journal(kind, 1, vec![], change, vec![]).await.unwrap();
    assert_eq!(store.load_keys().await.unwrap(), [sealed_key(2), sealed_key(3)]);
}

/// Covers INV-3, BND-04.
pub(crate) async fn a_bundle_has_one_number_and_numbers_never_go_back(store: Arc<dyn Store>) {
    let first = store.next_sequence([1; 32]).await.unwrap();
    assert_eq!(
        store.next_sequence([1; 32]).await.unwrap(),
        first,
        "the same content is the same bundle"
    );
    let second = store.next_sequence([2; 32]).await.unwrap();
    assert!(second > first);
    assert!(
        store.next_sequence([1; 32]).await.unwrap() > second,
        "old content is a new bundle"
    );
}
