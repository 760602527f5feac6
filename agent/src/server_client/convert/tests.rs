use prost::Message;
use signet_proto::agent::objection;
use tonic::Status;

use super::*;
use crate::token::PodToken;

#[test]
fn another_major_version_is_refused_with_the_remedy() {
    let response = wire::HelloResponse {
        version: Some(wire::ProtocolVersion { major: 2, minor: 0 }),
        ..wire::HelloResponse::default()
    };
    let error = hello(response).unwrap_err();
    assert!(
        matches!(&error, ServerError::Refused(text) if text.contains("upgrade")),
        "{error:?}"
    );
}

#[test]
fn a_newer_minor_version_and_its_features_are_left_aside() {
    let response = wire::HelloResponse {
        version: Some(wire::ProtocolVersion {
            major: VERSION.major,
            minor: VERSION.minor + 1,
        }),
        features: vec!["of-tomorrow".to_owned(), "unix".to_owned()],
        ..wire::HelloResponse::default()
    };
    let agreed = hello(response).unwrap().agreed;
    assert_eq!(
        (agreed.version(), agreed.names()),
        (VERSION, vec!["unix".to_owned()])
    );
}

#[test]
fn evidence_that_the_server_does_not_know_is_not_sent_and_answered_in_its_place() {
    let agreed = Agreement::with(Some(VERSION), &["unix".to_owned()]).unwrap();
    let item = |uid| IssueItem {
        csr: vec![1],
        spiffe_id: None,
        evidence: match uid {
            None => IssueEvidence::PodToken {
                token: PodToken::new("token", SystemTime::UNIX_EPOCH),
                of_pod: "uid".to_owned(),
            },
            Some(uid) => IssueEvidence::Unix(UnixFacts {
                uid,
                gid: 0,
                path: None,
                sha256: None,
            }),
        },
    };
    let (sent, known) = known_to_server(vec![item(Some(1)), item(None), item(Some(2))], &agreed);
    assert!(
        sent.iter()
            .all(|item| matches!(item.evidence, IssueEvidence::Unix(_)))
    );
    let answer = |uid: &str| IssueOutcome::Unavailable {
        message: uid.to_owned(),
        retry_after: None,
    };
    let answers: Vec<_> = in_order(vec![answer("1"), answer("2")], &known)
        .into_iter()
        .map(|answer| match answer {
            IssueOutcome::Unavailable { message, .. } => message,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!([&*answers[0], &*answers[2]], ["1", "2"]);
    assert!(
        answers[1].contains("does not know this kind of evidence"),
        "{answers:?}"
    );
}

#[test]
fn an_answer_with_too_few_results_is_no_answer() {
    let response = wire::IssueX509SvidsResponse { results: Vec::new() };
    assert!(matches!(
        outcomes(response, 2),
        Err(ServerError::Unavailable { .. })
    ));
}

#[test]
fn an_unknown_outcome_is_temporary() {
    let result = outcome(wire::IssueResult { outcome: None });
    assert!(matches!(result, IssueOutcome::Unavailable { .. }));
}

#[test]
fn a_faulty_id_in_an_answer_is_temporary() {
    let issued = wire::IssuedSvid {
        spiffe_id: "spiffe://A/b".to_owned(),
        ..wire::IssuedSvid::default()
    };
    let result = outcome(wire::IssueResult {
        outcome: Some(wire::issue_result::Outcome::Issued(issued)),
    });
    assert!(matches!(result, IssueOutcome::Unavailable { .. }), "{result:?}");
}

#[test]
fn codes_say_who_must_act() {
    assert!(matches!(
        error(&Status::unauthenticated("x")),
        ServerError::Unauthenticated(_)
    ));
    assert!(matches!(
        error(&Status::permission_denied("x")),
        ServerError::Refused(_)
    ));
    assert!(matches!(
        error(&Status::resource_exhausted("x")),
        ServerError::Unavailable { .. }
    ));
    let mut status = Status::resource_exhausted("x");
    status
        .metadata_mut()
        .insert("retry-after-ms", "1500".parse().unwrap());
    let wanted = ServerError::Unavailable {
        message: "x".to_owned(),
        retry_after: Some(Duration::from_millis(1500)),
    };
    assert_eq!(error(&status), wanted);
}

#[test]
fn all_affected_wins_over_names() {
    let state = wire::TrustState {
        all_affected: true,
        affected_pod_uids: vec!["a".to_owned()],
        ..wire::TrustState::default()
    };
    assert_eq!(trust_update(state).unwrap().affected, Some(Affected::All));
}

/// Bytes that a server of version 1.0 answered an agent of version 1.0.
macro_rules! recorded {
    ($name:literal) => {
        Message::decode(
            include_bytes!(concat!(
                "../../../../tests/fixtures/protocol/minor0/",
                $name,
                ".bin"
            ))
            .as_slice(),
        )
        .unwrap()
    };
}

#[test]
fn the_answers_of_a_server_of_version_1_0_are_understood() {
    let hello = hello(recorded!("hello_response")).unwrap();
    assert_eq!(hello.agreed.version().minor, 0);
    assert_eq!(hello.agreed.names(), ["pod-token", "unix"]);
    assert!(!hello.agreed.has(Feature::HelloFirst));
    assert_eq!(hello.trust_domain, "example.org");

    let attested = attested_node(recorded!("attest_node_response")).unwrap();
    let prefix = "spiffe://example.org/signet/agent/box/";
    assert_eq!(
        attested.spiffe_id.as_str(),
        format!("{prefix}{}", attested.node_uid)
    );
    assert_eq!(attested.node_name, "node-a");
    assert_eq!((attested.chain.len(), attested.control_authorities.len()), (1, 1));

    for (response, expected) in [
        (
            recorded!("issue_pod_response"),
            "spiffe://example.org/ns/shop/sa/front",
        ),
        (
            recorded!("issue_unix_response"),
            "spiffe://example.org/host/uid/0",
        ),
    ] {
        match outcomes(response, 1).unwrap().remove(0) {
            IssueOutcome::Issued(issued) => {
                assert_eq!(issued.spiffe_id.as_str(), expected);
                assert_eq!(issued.chain.len(), 1);
                assert_eq!(issued.identities, [(issued.spiffe_id.clone(), String::new())]);
            }
            other => panic!("{other:?}"),
        }
    }

    let update = trust_update(recorded!("trust_state")).unwrap();
    assert_eq!((update.x509.len(), update.control.len()), (1, 1));
    assert!(update.sequence_number > 0 && update.affected.is_none());
}

#[test]
fn a_certificate_that_the_server_calls_revoked_is_told_apart_by_its_serial() {
    let serial = signet_testkit::serial(1);
    let said = Status::unauthenticated("the agent certificate is refused: it is revoked");
    assert!(
        matches!(error(&said), ServerError::Unauthenticated(_)),
        "a text is no word"
    );
    let said = objection::revoked(said, &serial.to_string());
    let heard = error(&said);
    assert!(
        matches!(&heard, ServerError::Revoked { serial: heard, .. } if *heard == serial),
        "{heard:?}"
    );
}
