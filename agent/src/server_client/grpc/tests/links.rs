//! A server whose authority the agent has not heard of, and the links that it sends.

use signet_certs::authority::{AuthorityKind, AuthorityProfile};
use signet_certs::link::create_link;
use signet_certs::time::rfc3339;
use signet_testkit::{DAY, HOUR, authority_profile, new_authority, serial};

use super::*;

/// Control authorities of 30 days, of which each was prepared when the one before was half over, the last two weeks before the tests
/// begin; and the links between them, as they were made.
fn rotated(count: u32) -> (Vec<X509Authority>, Vec<AuthorityCertificate>) {
    let begin = |number: u32| at(0) - 14 * DAY - 15 * DAY * (count - 1 - number);
    let made = |number| {
        new_authority(AuthorityProfile {
            kind: AuthorityKind::Control,
            not_before: begin(number),
            not_after: begin(number) + 30 * DAY,
            ..authority_profile(DOMAIN)
        })
    };
    let all: Vec<_> = (0..count).map(made).collect();
    let link = |[acting, next]: &[X509Authority; 2]| {
        let next = next.certificate();
        create_link(acting, next, serial(1), next.not_before()).unwrap()
    };
    let links = all.array_windows().map(link).collect();
    (all, links)
}

/// The agent holds an authority that was replaced twice and has ended.
#[tokio::test]
async fn a_server_whose_authority_was_rotated_twice_is_found_over_its_links() {
    let (authorities, links) = rotated(3);
    assert!(!authorities[0].certificate().is_valid_at(at(0)));
    let bench = Bench::new(Odd {
        impostor: Some(authorities[2].clone()),
        anchor: Some(authorities[0].clone()),
        links,
        ..Odd::default()
    })
    .await;
    bench.attest().await.unwrap();
    assert_eq!(
        bench.conversations(),
        [(String::new(), vec!["Hello", "AttestNode"])]
    );
}

/// Also by an authority that lives, and that the server has left: whoever joins between the two.
#[tokio::test]
async fn an_anchor_that_lives_and_signs_no_more_leads_to_the_next() {
    let (authorities, links) = rotated(2);
    assert!(authorities[0].certificate().is_valid_at(at(0)));
    let bench = Bench::new(Odd {
        impostor: Some(authorities[1].clone()),
        anchor: Some(authorities[0].clone()),
        links,
        ..Odd::default()
    })
    .await;
    bench.attest().await.unwrap();
}

/// Links that are not there, that a stranger made, of authorities for workloads, or from one that ended more than 90
/// days ago: nothing is said to such a server, and the message tells a person what to do.
#[tokio::test]
async fn where_no_link_leads_nothing_is_sent_and_the_message_says_what_to_do() {
    let (authorities, links) = rotated(3);
    let (strangers, forged) = rotated(3);
    let (long_ago, old_links) = rotated(9);
    let workloads = authority(DOMAIN);
    let by_workloads = create_link(&workloads, authorities[2].certificate(), serial(1), at(0) - HOUR);
    let cases = [
        (&authorities[0], &authorities[2], Vec::new()),
        (&authorities[0], &authorities[2], links[1..].to_vec()),
        (&authorities[0], &strangers[2], forged),
        (&authorities[0], &authorities[2], vec![by_workloads.unwrap()]),
        (&long_ago[0], &long_ago[8], old_links[..5].to_vec()),
    ];
    for (anchor, signer, links) in cases {
        let bench = Bench::new(Odd {
            impostor: Some(signer.clone()),
            anchor: Some(anchor.clone()),
            links,
            ..Odd::default()
        })
        .await;
        let error = bench.attest().await.unwrap_err().to_string();
        assert_eq!(bench.calls(), 0, "no request may reach it");
        let ended = rfc3339(anchor.certificate().not_after());
        let told = [
            bench.anchors_file.display().to_string(),
            anchor.certificate().id().to_string(),
            ended,
            signer.certificate().id().to_string(),
            "control-anchors.pem".to_owned(),
            "signet-server ca show".to_owned(),
        ];
        for word in told {
            assert!(error.contains(&word), "{word:?} is missing: {error}");
        }
    }
}
