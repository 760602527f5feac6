use std::time::SystemTime;

use http_body_util::BodyExt;
use signet_certs::{
    authority::AuthorityKind,
    crl::{RevocationReason, RevokedEntry},
};
use tonic::Code;
use tonic::body::Body;

use super::*;
use crate::fixtures::{START, authority, published, serial, snapshot};

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + START
}

/// A snapshot with a long list of a workload authority, and two short ones.
fn with_a_long_list() -> Arc<TrustSnapshot> {
    let entry = |number: u8| RevokedEntry {
        serial: serial(number),
        revoked_at: now(),
        reason: RevocationReason::Unspecified,
        invalid_since: None,
    };
    let long: Vec<_> = (0..200).map(entry).collect();
    let of = |kind, entries: &[RevokedEntry]| published(&authority(kind, now()), entries, 7, now());
    snapshot(
        9,
        vec![of(AuthorityKind::X509, &long), of(AuthorityKind::X509, &[])],
        vec![of(AuthorityKind::Control, &[])],
    )
}

fn own() -> wire::TrustState {
    wire::TrustState {
        affected_pod_uids: vec!["pod".to_owned()],
        policy_revision: 5,
        epoch: 3,
        not_issuing: vec!["disk".to_owned()],
        ..wire::TrustState::default()
    }
}

fn expected(snapshot: &TrustSnapshot, named: &[AuthorityId]) -> wire::TrustState {
    let authority = |one: &PublishedAuthority| {
        let is_named = named.contains(&one.certificate.id());
        let sha256 = Bytes::copy_from_slice(&one.crl.sha256());
        wire::Authority {
            certificate: Bytes::copy_from_slice(one.certificate.der()),
            crl: if is_named {
                Bytes::new()
            } else {
                one.crl.der().clone()
            },
            tainted: one.tainted,
            crl_sha256: if is_named { sha256 } else { Bytes::new() },
        }
    };
    wire::TrustState {
        sequence_number: 9,
        refresh_hint_seconds: 300,
        x509_authorities: snapshot.kind(AuthorityKind::X509).iter().map(authority).collect(),
        control_authorities: snapshot
            .kind(AuthorityKind::Control)
            .iter()
            .map(authority)
            .collect(),
        departed_authorities: snapshot
            .departed
            .iter()
            .map(|id| Bytes::copy_from_slice(id.as_bytes()))
            .collect(),
        ..own()
    }
}

fn bytes(frames: &Frames) -> Vec<u8> {
    frames.0.iter().flat_map(|piece| piece.to_vec()).collect()
}

fn decoded(frames: &Frames) -> wire::TrustState {
    let bytes = bytes(frames);
    let (header, message) = bytes.split_at(5);
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    assert_eq!(header, [&[0][..], &length].concat());
    wire::TrustState::decode(message).unwrap()
}

#[test]
fn a_message_in_pieces_says_what_the_generated_code_would() {
    let mut snapshot = (*with_a_long_list()).clone();
    let x509 = snapshot.kinds.get_mut(&AuthorityKind::X509).unwrap();
    x509.iter_mut().for_each(|one| one.tainted = true);
    snapshot.departed = Arc::from([AuthorityId::from_bytes([5; 20]), AuthorityId::from_bytes([6; 20])]);
    let snapshot = Arc::new(snapshot);
    let rendered = Renderings::default().of(&snapshot);
    let ids: Vec<_> = snapshot.all().map(|one| one.certificate.id()).collect();
    for named in [&[][..], &ids[..1], &ids[1..], &ids] {
        let message = rendered.message(&own(), |id, digest| {
            let published = snapshot.get(*id).unwrap();
            assert_eq!(*digest, published.crl.sha256());
            named.contains(id)
        });
        let expected = expected(&snapshot, named);
        assert_eq!(decoded(&message), expected);
        assert_eq!(bytes(&message)[5..], expected.encode_to_vec(), "byte for byte");
    }
}

/// A hundred streams: one rendering, and of the list no copy.
#[test]
fn a_snapshot_is_encoded_once_and_its_lists_are_shared() {
    let (renderings, snapshot) = (Renderings::default(), with_a_long_list());
    let first = renderings.of(&snapshot);
    let list = snapshot.kind(AuthorityKind::X509)[0].crl.der();
    for _ in 0..100 {
        let rendered = renderings.of(&snapshot);
        assert!(Arc::ptr_eq(&rendered, &first));
        let message = rendered.message(&own(), |_, _| false);
        let shared = message.0.iter().filter(|piece| piece.as_ptr() == list.as_ptr());
        assert_eq!(shared.count(), 1);
        assert_eq!(
            message.0.len(),
            3,
            "what precedes the list, the list, what follows"
        );
    }
    let next = snapshot_after(&snapshot);
    assert!(!Arc::ptr_eq(&renderings.of(&next), &first));
}

fn snapshot_after(snapshot: &TrustSnapshot) -> Arc<TrustSnapshot> {
    Arc::new(TrustSnapshot {
        sequence: snapshot.sequence + 1,
        ..snapshot.clone()
    })
}

/// The second push of the same lists to an agent that holds them.
#[test]
fn a_list_that_is_held_costs_its_digest() {
    let snapshot = with_a_long_list();
    let rendered = Renderings::default().of(&snapshot);
    let length = |frames: &Frames| frames.0.iter().map(Bytes::len).sum::<usize>();
    let first = length(&rendered.message(&own(), |_, _| false));
    let held: Vec<_> = rendered.lists().collect();
    let second = rendered.message(&own(), |id, digest| held.contains(&(*id, *digest)));
    let lists: usize = snapshot.all().map(|one| one.crl.der().len()).sum();
    assert!(
        length(&second) < first - lists + 3 * 40,
        "{} of {first} bytes, of which {lists} are lists",
        length(&second)
    );
}

#[tokio::test]
async fn a_body_ends_with_the_status_that_was_sent_last_or_the_one_it_was_made_with() {
    let rendered = Renderings::default().of(&with_a_long_list());
    for last in [None, Some(Status::unauthenticated("revoked"))] {
        let (sender, receiver) = mpsc::channel(2);
        let message = rendered.message(&own(), |_, _| false);
        let bytes: usize = message.0.iter().map(Bytes::len).sum();
        sender.send(Ok(message)).await.unwrap();
        let code = last.as_ref().map_or(Code::Unavailable, Status::code);
        if let Some(status) = last {
            sender.send(Err(status)).await.unwrap();
        }
        drop(sender);
        let body = States::new(receiver, Status::unavailable("ended"));
        let collected = Body::new(body).collect().await.unwrap();
        let trailers = collected.trailers().cloned().unwrap();
        assert_eq!(Status::from_header_map(&trailers).unwrap().code(), code);
        assert_eq!(collected.to_bytes().len(), bytes);
    }
}

#[tokio::test]
async fn one_message_ends_well() {
    let rendered = Renderings::default().of(&with_a_long_list());
    let mut body = Body::new(States::once(rendered.message(&own(), |_, _| false)));
    let mut pieces = 0;
    while let Some(frame) = body.frame().await {
        if let Ok(trailers) = frame.unwrap().into_trailers() {
            assert_eq!(Status::from_header_map(&trailers).unwrap().code(), Code::Ok);
            break;
        }
        pieces += 1;
    }
    assert!(pieces > 1);
    assert!(body.frame().await.is_none());
}
