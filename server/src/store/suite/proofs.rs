use std::sync::Arc;

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use signet_certs::crl::CrlNumber;

use super::fixture::{at, authority, by_serial, crl, id, issued, revocation};
use crate::audit_event::{AuditAction, AuditEvent};
use crate::store::proofs::LISTS_KNOWN;
use crate::store::{KnownTime, ListProof, Store, StoredCrl};

fn sum(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap()
}

pub(crate) async fn a_list_is_known_by_its_number_for_a_while(store: Arc<dyn Store>) {
    let set = store.revoked(authority(1)).await.unwrap();
    let list = |number: u64| StoredCrl {
        der: Bytes::from(format!("list {number}")),
        ..crl(number, &set, at(number))
    };
    let known = async |number: u64| store.list_digest(authority(1), CrlNumber(number)).await.unwrap();
    for number in [3, 5] {
        store.save_crl(list(number)).await.unwrap();
    }
    assert_eq!(known(3).await, Some(sum(b"list 3")));
    assert_eq!(known(5).await, Some(sum(b"list 5")));
    assert_eq!((known(4).await, known(6).await), (None, None));
    assert_eq!(store.list_digest(authority(2), CrlNumber(5)).await, Ok(None));
    store.save_crl(list(3 + LISTS_KNOWN)).await.unwrap();
    assert_eq!((known(3).await, known(5).await), (None, Some(sum(b"list 5"))));
}

pub(crate) async fn what_has_ended_and_left_the_lists_is_known(store: Arc<dyn Store>) {
    let (one, two) = (
        issued(&store, "/a", "one", at(0)).await,
        issued(&store, "/b", "two", at(1800)).await,
    );
    for serial in [one, two] {
        store
            .revoke(revocation(by_serial(serial), at(1900)))
            .await
            .unwrap();
    }
    let known = async |n| store.let_go(authority(n), vec![one, two]).await.unwrap();
    let set = store.revoked(authority(1)).await.unwrap();
    store.save_crl(crl(1, &set, at(1900))).await.unwrap();
    assert_eq!(known(1).await, [], "both are listed");
    store.housekeeping(KnownTime::settled(at(3601))).await.unwrap();
    store.save_crl(crl(2, &set, at(3601))).await.unwrap();
    assert_eq!(known(1).await, [one]);
    assert_eq!(known(2).await, [], "another authority's");
}

pub(crate) async fn a_proof_is_kept_and_written_once_until_it_is_dropped(store: Arc<dyn Store>) {
    let proof = |number: u64| ListProof {
        authority: authority(1),
        number: CrlNumber(number),
        sha256: sum(&number.to_be_bytes()),
        der: Bytes::from(vec![1; 9]),
        agent: id("/signet/agent/c/n"),
        found_at: at(5),
    };
    let line = || AuditEvent::new(at(5), AuditAction::EventsLost { count: 1 });
    for kept in [proof(7), proof(8), proof(7)] {
        store.keep_proof(kept, line()).await.unwrap();
    }
    let mut kept = store.proofs().await.unwrap();
    kept.sort_by_key(|proof| proof.number);
    assert_eq!(kept, [proof(7), proof(8)]);
    assert_eq!(
        store.lines_after(0, 10).await.unwrap().len(),
        2,
        "one line for each"
    );
    store.drop_proof(authority(2), proof(7).sha256).await.unwrap();
    store.drop_proof(authority(1), proof(7).sha256).await.unwrap();
    assert_eq!(store.proofs().await.unwrap(), [proof(8)]);
}
