//! How a source follows an agent through good and bad days.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use signet_certs::svid::X509Svid;
use signet_certs::tls::TrustSource;
use signet_testkit::{DOMAIN, authority, chain, crl, svid, trust_domain};
use signet_workload::message::MessageError;
use signet_workload::{EndpointError, Options, SourceError, SourceState, X509Source};
use tokio::time::timeout;
use tonic::Code;

use common::agent::{FakeAgent, Say};
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
        matches!(*problem, SourceError::Endpoint(EndpointError::Unreachable(_))),
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
    assert!(
        source
            .verify(&chain(&first), signet_certs::verify::Role::Server)
            .is_ok()
    );
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
        hint: Some("internal".into()),
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
