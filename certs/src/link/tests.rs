use std::sync::OnceLock;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rustls_pki_types::CertificateDer;

use super::*;
use crate::authority::{AuthorityError, X509Authority};
use crate::testing::{DAY, HOUR, authority, authority_between, leaf, now, serial, td};
use crate::verify::{Role, TrustRoots, TrustedAuthority, verify_chain};

const SECOND: Duration = Duration::from_secs(1);

const NOBODY: fn(&AuthorityId) -> bool = |_| false;

/// Authorities of 30 days that followed each other every 25, the first of which began at `from`; with the links between them.
fn rotations(from: SystemTime, count: u32) -> (Vec<X509Authority>, Vec<AuthorityCertificate>) {
    let authorities: Vec<X509Authority> = (0..count)
        .map(|number| {
            let begin = from + 25 * DAY * number;
            authority_between("example.org", begin, begin + 30 * DAY)
        })
        .collect();
    let links = authorities
        .array_windows()
        .map(|[acting, successor]| link(acting, successor, successor.certificate().not_before()))
        .collect();
    (authorities, links)
}

fn link(acting: &X509Authority, successor: &X509Authority, at: SystemTime) -> AuthorityCertificate {
    create_link(acting, successor.certificate(), serial(9), at).unwrap()
}

fn certificates(authorities: &[X509Authority]) -> Vec<AuthorityCertificate> {
    authorities.iter().map(|one| one.certificate().clone()).collect()
}

fn ids(list: &[AuthorityCertificate]) -> Vec<AuthorityId> {
    list.iter().map(AuthorityCertificate::id).collect()
}

fn reached(
    anchors: &[AuthorityCertificate],
    links: &[AuthorityCertificate],
    at: SystemTime,
) -> Vec<AuthorityId> {
    ids(&walk(anchors, links, &td("example.org"), NOBODY, at))
}

#[test]
fn a_link_names_the_successor_and_nothing_more() {
    let (authorities, links) = rotations(now() - 25 * DAY, 2);
    let [old, new] = authorities.as_slice() else {
        panic!()
    };
    let link = &links[0];
    assert_eq!(link.id(), new.certificate().id());
    assert_eq!(link.subject_der(), new.certificate().subject_der());
    assert_eq!(link.key_id(), new.certificate().key_id());
    assert_eq!(link.trust_domain(), new.certificate().trust_domain());
    assert!(link.signs_crls());
    assert_eq!(link.not_before(), new.certificate().not_before());
    assert_eq!(link.not_after(), old.certificate().not_after() + WALK_AFTER_END);
    let parsed = Certificate::parse(link.der()).unwrap();
    let own = Certificate::parse(new.certificate().der()).unwrap();
    let constraints = |certificate: &Certificate<'_>| certificate.basic_constraints.unwrap().value.to_vec();
    assert_eq!(constraints(&parsed), constraints(&own));
    assert!(is_made_by(&parsed, old.certificate()));
    assert!(!is_made_by(&parsed, new.certificate()));
    assert!(!is_made_by(&own, old.certificate()), "self-signed");
}

#[test]
fn authorities_of_two_domains_are_not_linked() {
    let acting = authority("example.org");
    let foreign = authority("other.org");
    assert!(create_link(&acting, foreign.certificate(), serial(1), now()).is_err());
}

/// With the default life, the shortest and the longest that are accepted: whoever holds an authority finds its successor up to 90
/// days after that one's end, and no later.
#[test]
fn an_anchor_is_walked_from_for_90_days_after_its_end_however_long_authorities_live() {
    for life in [60 * SECOND, 30 * DAY, 3660 * DAY] {
        let old = authority_between("example.org", now(), now() + life);
        let prepared = now() + life / 2;
        let new = authority_between("example.org", prepared, prepared + life);
        let links = [link(&old, &new, prepared)];
        let anchors = [old.certificate().clone()];
        let last = old.certificate().not_after() + WALK_AFTER_END;
        assert_eq!(reached(&anchors, &links, prepared).len(), 1);
        assert_eq!(reached(&anchors, &links, last).len(), 1);
        assert_eq!(reached(&anchors, &links, last + SECOND).len(), 0);
    }
}

#[test]
fn what_ended_too_long_ago_links_nobody() {
    let old = authority_between("example.org", now() - 130 * DAY, now() - 100 * DAY);
    let new = authority("example.org");
    let refused = create_link(&old, new.certificate(), serial(1), now());
    assert_eq!(refused, Err(AuthorityError::Validity));
}

#[test]
fn a_link_counts_only_within_its_life_and_domain() {
    let (authorities, links) = rotations(now() - 25 * DAY, 2);
    let anchors = [authorities[0].certificate().clone()];
    let counts = |domain, at| walk(&anchors, &links, &td(domain), NOBODY, at).len();
    assert_eq!(counts("example.org", now()), 1);
    assert_eq!(counts("other.org", now()), 0);
    assert_eq!(counts("example.org", links[0].not_before() - SECOND), 0);
    assert_eq!(counts("example.org", links[0].not_after() + SECOND), 0);
}

/// Nothing leads to, over, or from an authority that is refused.
#[test]
fn nothing_leads_over_a_refused_authority() {
    let (authorities, links) = rotations(now() - 75 * DAY, 4);
    let anchors = [authorities[0].certificate().clone()];
    for (position, one) in authorities.iter().enumerate() {
        let refused = |id: &AuthorityId| *id == one.certificate().id();
        let found = walk(&anchors, &links, &td("example.org"), refused, now());
        assert_eq!(found.len(), position.saturating_sub(1));
    }
}

/// A stranger's key under the right name, an authority for workloads, and a link whose bytes were changed lead nowhere.
#[test]
fn a_forged_link_leads_nowhere() {
    let (authorities, links) = rotations(now() - 25 * DAY, 2);
    let (thief, _) = rotations(now() - 25 * DAY, 2);
    let anchors = certificates(&authorities[..1]);
    let workloads = authority("example.org");
    for signer in [&thief[0], &workloads] {
        let forged = link(signer, &thief[1], now() - HOUR);
        assert_eq!(reached(&anchors, &[forged], now()), []);
    }
    for position in 0..links[0].der().len() {
        let mut bytes = links[0].der().to_vec();
        bytes[position] ^= 1;
        if let Ok(changed) = AuthorityCertificate::from_der(&bytes) {
            assert_eq!(reached(&anchors, &[changed], now()), [], "byte {position}");
        }
    }
}

/// Rotations that lead in a circle, and an authority that certifies itself.
#[test]
fn loops_end() {
    let (authorities, mut links) = rotations(now() - 60 * DAY, 3);
    let [first, second, third] = certificates(&authorities).try_into().unwrap();
    let back = link(&authorities[2], &authorities[0], now() - HOUR);
    links.extend([back, third.clone()]);
    let anchors = [second.clone()];
    assert_eq!(
        reached(&anchors, &links, now() - 2 * HOUR),
        [third.id()],
        "before the way back"
    );
    assert_eq!(
        reached(&anchors, &links, now()),
        [third.id(), first.id(), second.id()]
    );
}

/// Whoever builds paths gets nothing out of a link: only a reader that walks does.
#[test]
fn a_link_is_no_intermediate() {
    let (authorities, links) = rotations(now() - 10 * DAY, 2);
    let at = links[0].not_before() + HOUR;
    let svid = leaf(&authorities[1], "/signet/server").at(at).svid();
    let chain = [svid.chain()[0].clone(), links[0].der().to_vec()].map(CertificateDer::from);
    let trusted = |certificate: &AuthorityCertificate| TrustedAuthority {
        certificate: certificate.clone(),
        crl: None,
    };
    let roots = |anchor: &AuthorityCertificate| {
        let policy = crate::verify::CrlPolicy::Tolerate;
        TrustRoots::new(vec![(td("example.org"), vec![trusted(anchor)])]).with_crl_policy(policy)
    };
    let judged = |anchor| verify_chain(&chain, Role::Server, &roots(anchor), at);
    assert!(judged(authorities[0].certificate()).is_err());
    assert!(judged(&links[0]).is_ok(), "as an anchor it is its authority");
}

/// Seven authorities that followed each other, made once.
fn seven() -> &'static (Vec<AuthorityCertificate>, Vec<AuthorityCertificate>) {
    static SEVEN: OnceLock<(Vec<AuthorityCertificate>, Vec<AuthorityCertificate>)> = OnceLock::new();
    SEVEN.get_or_init(|| {
        let (authorities, links) = rotations(now(), 7);
        (certificates(&authorities), links)
    })
}

fn seeded() -> ProptestConfig {
    ProptestConfig {
        cases: 300,
        rng_seed: RngSeed::Fixed(8),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(seeded())]

    /// Whatever links come in whatever order at whatever time: a walk arrives where an unbroken run of them leads that are valid,
    /// among the first five, and nowhere else.
    #[test]
    fn a_walk_arrives_where_the_first_five_links_lead(
        anchor in 0_usize..7,
        order in Just((0_usize..6).collect::<Vec<_>>()).prop_shuffle(),
        given in 0_usize..7,
        days in 0_u32..250,
    ) {
        let (authorities, links) = seven();
        let at = now() + DAY * days;
        let sent = &order[..given.min(order.len())];
        let looked_at = &sent[..sent.len().min(MAX_LINKS)];
        let valid = |number: &usize| looked_at.contains(number) && links[*number].is_valid_at(at);
        let starts = at <= authorities[anchor].not_after() + WALK_AFTER_END;
        let run = (anchor..6).take_while(valid).filter(|_| starts);
        let expected: Vec<AuthorityId> = run.map(|number| authorities[number + 1].id()).collect();
        let sent: Vec<AuthorityCertificate> = sent.iter().map(|number| links[*number].clone()).collect();
        prop_assert_eq!(reached(&authorities[anchor..=anchor], &sent, at), expected);
    }
}
