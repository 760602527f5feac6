//! How a source follows an agent through good and bad days.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use signet_certs::svid::X509Svid;
use signet_runtime::clock::FakeClock;
use signet_testkit::{DOMAIN, authority, chain, crl, leaf, now, svid, trust_domain};
use signet_workload::{
    BundleSource, Code, CrlPolicy, EndpointError, GrantedSvid, MessageError, Options, Pick, Role,
    SourceError, SourceState, Unhealthy, VerifyError, X509Source,
};
use tokio::time::timeout;

use common::agent::{FakeAgent, Say, endpoint};
use common::line::Line;
use common::message::{bundle, entry, message};

/// Waits for a state, not for a change: what happened before counts too.
async fn until(source: &X509Source, condition: impl FnMut(&SourceState) -> bool) -> SourceState {
    let mut changes = source.changes();
    let waiting = changes.wait_for(condition);
    timeout(Duration::from_secs(10), waiting)
        .await
        .expect("in time")
        .unwrap()
        .clone()
}

fn shows(state: &SourceState, leaf: &X509Svid) -> bool {
    let context = state.context.as_ref();
    context.is_some_and(|context| {
        context
            .default_svid()
            .is_some_and(|svid| svid.serial() == leaf.serial())
    })
}

fn code(problem: &Option<Arc<SourceError>>) -> Option<Code> {
    match problem.as_deref() {
        Some(SourceError::Stream { code, .. }) => Some(*code),
        _ => None,
    }
}

/// Covers EP-03, EP-29, API-03.
#[tokio::test]
async fn the_first_state_makes_it_ready_and_later_ones_replace_it() {
    let ca = authority(DOMAIN);
    let (first, second) = (svid(&ca, "/me"), svid(&ca, "/me"));
    let agent = FakeAgent::new(Say::Nothing);
    let source = agent.source();
    assert!(source.context().is_none());
    agent.say(Say::State(message(&first, &[&ca], &[])));
    timeout(Duration::from_secs(10), source.ready())
        .await
        .unwrap()
        .unwrap();
    assert!(shows(&source.changes().borrow(), &first));
    agent.say(Say::State(message(&second, &[&ca], &[])));
    until(&source, |state| shows(state, &second)).await;
    assert_eq!(agent.calls(), 1, "one stream carried it all");
}

/// Covers EP-29, EP-17.
#[tokio::test]
async fn codes_that_never_pass_are_final() {
    for last in [Code::InvalidArgument, Code::Unimplemented] {
        let agent = FakeAgent::new(Say::End(last));
        let source = agent.source();
        let error = timeout(Duration::from_secs(10), source.ready())
            .await
            .unwrap()
            .unwrap_err();
        assert!(error.is_final(), "{error}");
        assert_eq!(code(&source.changes().borrow().problem), Some(last));
        assert_eq!(agent.calls(), 1);
    }
}

/// Covers EP-12, EP-13, EP-29.
#[tokio::test]
async fn codes_that_may_pass_are_tried_again() {
    let ca = authority(DOMAIN);
    let me = svid(&ca, "/me");
    for passing in [
        Code::Unavailable,
        Code::PermissionDenied,
        Code::Internal,
        Code::Ok,
    ] {
        let agent = FakeAgent::new(Say::End(passing));
        let source = agent.source();
        until(&source, |state| code(&state.problem) == Some(passing)).await;
        agent.say(Say::State(message(&me, &[&ca], &[])));
        let state = until(&source, |state| shows(state, &me)).await;
        assert!(state.problem.is_none());
        assert!(agent.calls() >= 2);
    }
}

/// Covers EP-29, API-08.
#[tokio::test]
async fn an_absent_socket_is_waited_for_and_a_broken_stream_followed_by_the_next() {
    let ca = authority(DOMAIN);
    let (first, second) = (svid(&ca, "/me"), svid(&ca, "/me"));
    let mut agent = FakeAgent::absent(Say::State(message(&first, &[&ca], &[])));
    let source = agent.source();
    let state = until(&source, |state| state.problem.is_some()).await;
    let problem = state.problem.unwrap();
    assert!(
        matches!(*problem, SourceError::Endpoint(EndpointError::Unreachable { .. })),
        "{problem}"
    );
    assert!(problem.to_string().contains("agent.sock"), "{problem}");
    agent.appear();
    until(&source, |state| shows(state, &first)).await;
    agent.say(Say::End(Code::Unavailable));
    let state = until(&source, |state| state.problem.is_some()).await;
    assert!(shows(&state, &first), "the last good identity stays");
    agent.say(Say::State(message(&second, &[&ca], &[])));
    until(&source, |state| shows(state, &second)).await;
}

/// Covers EP-11.
#[tokio::test]
async fn a_tcp_endpoint_is_refused_for_good() {
    let source = X509Source::start(Options::new("tcp://127.0.0.1:1".parse().unwrap()));
    let error = timeout(Duration::from_secs(10), source.ready())
        .await
        .unwrap()
        .unwrap_err();
    assert!(error.to_string().contains("only Unix sockets"), "{error}");
}

/// Covers X5S-02, API-07.
#[tokio::test]
async fn an_empty_message_changes_nothing_and_the_stream_goes_on() {
    let ca = authority(DOMAIN);
    let (first, second) = (svid(&ca, "/me"), svid(&ca, "/me"));
    let agent = FakeAgent::new(Say::State(message(&first, &[&ca], &[&crl(&ca, 1, &[])])));
    let source = agent.source();
    until(&source, |state| shows(state, &first)).await;
    agent.say(Say::State(Default::default()));
    let state = until(&source, |state| state.problem.is_some()).await;
    assert!(matches!(
        *state.problem.clone().unwrap(),
        SourceError::Message(MessageError::NoSvids)
    ));
    assert!(shows(&state, &first));
    assert!(source.verify(&chain(&first), Role::Server).is_ok());
    agent.say(Say::State(message(&second, &[&ca], &[])));
    until(&source, |state| shows(state, &second) && state.problem.is_none()).await;
    assert_eq!(agent.calls(), 1);
}

#[tokio::test]
async fn revocations_take_effect_even_with_an_unusable_svid() {
    let ca = authority(DOMAIN);
    let (me, bad) = (svid(&ca, "/me"), svid(&ca, "/bad"));
    let agent = FakeAgent::new(Say::State(message(&me, &[&ca], &[&crl(&ca, 1, &[])])));
    let source = agent.source();
    source.ready().await.unwrap();
    let mut broken = message(&svid(&ca, "/me"), &[&ca], &[&crl(&ca, 2, &[bad.serial()])]);
    broken.svids[0].x509_svid_key = bad.key().pkcs8_der().to_vec().into();
    agent.say(Say::State(broken));
    let state = until(&source, |state| state.problem.is_some()).await;
    assert!(shows(&state, &me));
    let in_force = source.roots().authorities(&trust_domain())[0]
        .crl
        .clone()
        .unwrap();
    assert!(in_force.is_revoked(&bad.serial()));
    assert_eq!(
        state.context.unwrap().roots.authorities(&trust_domain())[0].crl,
        Some(in_force)
    );
}

#[tokio::test]
async fn the_hint_chooses_who_is_presented() {
    let ca = authority(DOMAIN);
    let mut state = message(&svid(&ca, "/me"), &[&ca], &[]);
    let agent = FakeAgent::new(Say::State(state.clone()));
    let source = X509Source::start(Options {
        pick: Pick::Hint("internal".into()),
        ..agent.options()
    });
    let problem = until(&source, |state| state.problem.is_some())
        .await
        .problem
        .unwrap();
    assert!(
        problem
            .to_string()
            .contains("no SVID carries the hint `internal`"),
        "{problem}"
    );
    state.svids.push(entry(&svid(&ca, "/inside"), &bundle(&ca)));
    state.svids[1].hint = "internal".into();
    agent.say(Say::State(state));
    until(&source, |state| state.context.is_some()).await;
}

#[tokio::test]
async fn the_stream_ends_with_the_last_clone() {
    let ca = authority(DOMAIN);
    let agent = FakeAgent::new(Say::State(message(&svid(&ca, "/me"), &[&ca], &[])));
    let source = agent.source();
    source.ready().await.unwrap();
    let mut changes = source.changes();
    let clone = source.clone();
    drop(source);
    assert!(clone.context().is_some());
    drop(clone);
    let ended = async { while changes.changed().await.is_ok() {} };
    timeout(Duration::from_secs(10), ended)
        .await
        .expect("the task has dropped its side");
}

#[tokio::test]
async fn the_program_chooses_who_is_presented() {
    let ca = authority(DOMAIN);
    let mut state = message(&svid(&ca, "/me"), &[&ca], &[]);
    state.svids.push(entry(&svid(&ca, "/inside"), &bundle(&ca)));
    let agent = FakeAgent::new(Say::State(state));
    let pick = |svids: &[GrantedSvid]| {
        let inside = |granted: &GrantedSvid| granted.svid.spiffe_id().path() == "/inside";
        svids.iter().position(inside)
    };
    let source = X509Source::start(Options {
        pick: Pick::By(Arc::new(pick)),
        ..agent.options()
    });
    source.ready().await.unwrap();
    assert_eq!(source.svid().unwrap().spiffe_id().path(), "/inside");
    assert_eq!(source.context().unwrap().svids.len(), 2);
}

/// It is the program's own code, and runs in the task that follows the agent.
#[tokio::test]
async fn a_source_whose_task_has_ended_says_so() {
    let ca = authority(DOMAIN);
    let me = svid(&ca, "/me");
    let agent = FakeAgent::new(Say::State(message(&me, &[&ca], &[&crl(&ca, 1, &[])])));
    let calls = AtomicUsize::new(0);
    let pick = move |_: &[GrantedSvid]| {
        assert_eq!(calls.fetch_add(1, Ordering::Relaxed), 0, "the picker panics");
        Some(0)
    };
    let source = X509Source::start(Options {
        pick: Pick::By(Arc::new(pick)),
        ..agent.options()
    });
    source.ready().await.unwrap();
    source.is_healthy().unwrap();
    agent.say(Say::State(message(
        &svid(&ca, "/me"),
        &[&ca],
        &[&crl(&ca, 1, &[])],
    )));
    until(&source, |state| state.problem.is_some()).await;
    let reason = source.is_healthy().unwrap_err();
    let ended = matches!(&reason, Unhealthy::Agent(problem) if matches!(**problem, SourceError::Ended));
    assert!(ended && !reason.still_serves(), "{reason}");
}

#[tokio::test]
async fn an_agent_that_hangs_is_noticed_and_called_again() {
    let ca = authority(DOMAIN);
    let (first, second) = (svid(&ca, "/me"), svid(&ca, "/me"));
    let crl = crl(&ca, 1, &[]);
    let agent = FakeAgent::new(Say::State(message(&first, &[&ca], &[&crl])));
    let line = Line::to(&agent.path());
    let source = X509Source::start(Options {
        endpoint: endpoint(&line.path()),
        keep_alive: Duration::from_millis(100),
        ..agent.options()
    });
    source.ready().await.unwrap();
    source.is_healthy().unwrap();

    line.freeze(true);
    let state = until(&source, |state| state.problem.is_some()).await;
    assert!(
        matches!(state.problem.as_deref(), Some(SourceError::Hung(_))),
        "{:?}",
        state.problem
    );
    let reason = source.is_healthy().unwrap_err();
    assert!(
        matches!(reason, Unhealthy::Agent(_)) && reason.still_serves(),
        "{reason}"
    );
    assert!(shows(&state, &first), "the last good identity stays");

    agent.say(Say::State(message(&second, &[&ca], &[&crl])));
    line.freeze(false);
    until(&source, |state| shows(state, &second) && state.problem.is_none()).await;
    source.is_healthy().unwrap();
    assert!(agent.calls() >= 2);
}

/// The agent answers pings, and nothing else.
#[tokio::test]
async fn an_identity_that_is_not_renewed_is_asked_for_again() {
    let ca = authority(DOMAIN);
    let first = svid(&ca, "/me");
    let crl = crl(&ca, 1, &[]);
    let agent = FakeAgent::new(Say::State(message(&first, &[&ca], &[&crl])));
    let life = first.not_after().duration_since(first.not_before()).unwrap();
    let late = first.not_after() - life / 4;
    let source = X509Source::start(Options {
        clock: Arc::new(FakeClock::new(late - Duration::from_millis(500))),
        ..agent.options()
    });
    source.ready().await.unwrap();
    source.is_healthy().unwrap();
    until(&source, |state| {
        matches!(state.problem.as_deref(), Some(SourceError::NotRenewed(_)))
    })
    .await;
    until(&source, |state| state.problem.is_none()).await;
    assert_eq!(agent.calls(), 2, "called again at once");
    let reason = source.is_healthy().unwrap_err();
    assert!(
        matches!(reason, Unhealthy::NotRenewed { .. }) && reason.still_serves(),
        "{reason}"
    );
    let renewed = leaf(&ca, "/me").ttl(life * 2).svid();
    agent.say(Say::State(message(&renewed, &[&ca], &[&crl])));
    until(&source, |state| shows(state, &renewed)).await;
    source.is_healthy().unwrap();
}

#[tokio::test]
async fn an_identity_that_has_ended_is_none() {
    let ca = authority(DOMAIN);
    let me = svid(&ca, "/me");
    let agent = FakeAgent::new(Say::State(message(&me, &[&ca], &[&crl(&ca, 1, &[])])));
    let clock = FakeClock::new(now());
    let source = X509Source::start(Options {
        clock: Arc::new(clock.clone()),
        ..agent.options()
    });
    source.ready().await.unwrap();
    assert!(source.svid().is_some() && source.context().is_some());
    clock.set_offset(2 * 3600);
    assert!(source.svid().is_none() && source.context().is_none());
    let reason = source.is_healthy().unwrap_err();
    assert!(
        matches!(reason, Unhealthy::Expired { .. }) && !reason.still_serves(),
        "{reason}"
    );
    assert!(
        source.bundle(&trust_domain()).is_some(),
        "whom to trust is another matter"
    );
}

#[tokio::test]
async fn waiting_at_the_start_has_an_end() {
    let agent = FakeAgent::new(Say::Nothing);
    let short = |agent: &FakeAgent| Options {
        wait: Some(Duration::from_millis(200)),
        ..agent.options()
    };
    let ready = async |source: &X509Source| {
        let answer = timeout(Duration::from_secs(10), source.ready()).await;
        answer.expect("in time").unwrap_err()
    };
    let error = ready(&X509Source::start(short(&agent))).await;
    assert!(
        matches!(*error, SourceError::NotInTime { last: None, .. }),
        "{error}"
    );
    let absent = FakeAgent::absent(Say::Nothing);
    let error = ready(&X509Source::start(short(&absent))).await;
    assert!(
        error.to_string().contains("agent.sock"),
        "the reason is told: {error}"
    );
    assert!(matches!(
        X509Source::start(short(&absent)).is_healthy(),
        Err(Unhealthy::Nothing(_))
    ));
}

/// Covers EP-12.
#[tokio::test]
async fn a_program_that_is_denied_hears_of_it_and_is_served_once_it_is_granted() {
    let ca = authority(DOMAIN);
    let me = svid(&ca, "/me");
    let agent = FakeAgent::new(Say::End(Code::PermissionDenied));
    let source = agent.source();
    let error = timeout(Duration::from_secs(10), source.ready())
        .await
        .expect("not after a minute")
        .unwrap_err();
    assert!(!error.is_final(), "{error}");
    assert_eq!(code(&Some(error)), Some(Code::PermissionDenied));
    agent.say(Say::State(message(&me, &[&ca], &[])));
    until(&source, |state| shows(state, &me)).await;
    source.ready().await.unwrap();
}

#[tokio::test]
async fn lists_stay_required_across_connections_and_their_lack_is_said() {
    let (ca, next) = (authority(DOMAIN), authority(DOMAIN));
    let (me, renewed) = (svid(&ca, "/me"), svid(&next, "/me"));
    let agent = FakeAgent::new(Say::State(message(&me, &[&ca], &[])));
    let strict = agent.source();
    let source = X509Source::start(Options {
        crls: CrlPolicy::Prefer,
        ..agent.options()
    });
    let lacking = |source: &X509Source| match source.is_healthy() {
        Err(Unhealthy::NoLists { domains, refused }) => (domains, refused),
        other => panic!("{other:?}"),
    };
    for source in [&strict, &source] {
        source.ready().await.unwrap();
    }
    assert!(strict.verify(&chain(&me), Role::Client).is_err());
    assert_eq!(lacking(&strict), (vec![trust_domain()], true));
    source.verify(&chain(&me), Role::Client).unwrap();
    assert_eq!(lacking(&source), (vec![trust_domain()], false));

    agent.say(Say::State(message(&me, &[&ca], &[&crl(&ca, 1, &[])])));
    let listed = |state: &SourceState| {
        let roots = state.roots.as_ref().unwrap();
        roots.authorities(&trust_domain())[0].crl.is_some()
    };
    until(&source, listed).await;
    source.is_healthy().unwrap();

    agent.say(Say::End(Code::Unavailable));
    until(&source, |state| state.problem.is_some()).await;
    agent.say(Say::State(message(&renewed, &[&next], &[])));
    until(&source, |state| shows(state, &renewed)).await;
    let missing = VerifyError::CrlMissing(next.certificate().id());
    assert_eq!(
        source.verify(&chain(&renewed), Role::Client).unwrap_err(),
        missing
    );
    assert_eq!(lacking(&source), (vec![trust_domain()], true));
}

#[tokio::test]
async fn bundles_are_followed_by_who_has_no_identity() {
    let (ca, stranger) = (authority(DOMAIN), authority("example.com"));
    let server = svid(&ca, "/server");
    let agent = FakeAgent::new(Say::Nothing);
    let source = BundleSource::start(agent.options());
    assert!(matches!(source.is_healthy(), Err(Unhealthy::Nothing(None))));
    agent.say(Say::State(message(&server, &[&ca], &[&crl(&ca, 1, &[])])));
    timeout(Duration::from_secs(10), source.ready())
        .await
        .unwrap()
        .unwrap();
    source.is_healthy().unwrap();
    assert_eq!(source.bundle(&trust_domain()).unwrap().len(), 1);
    assert!(
        source
            .bundle(&stranger.certificate().trust_domain().unwrap().clone())
            .is_none()
    );
    let peer = source.verify(&chain(&server), Role::Server).unwrap();
    agent.say(Say::State(message(
        &server,
        &[&ca],
        &[&crl(&ca, 2, &[server.serial()])],
    )));
    let reason = timeout(Duration::from_secs(10), peer.revoked()).await.unwrap();
    assert!(matches!(reason, VerifyError::Revoked { .. }));
}
