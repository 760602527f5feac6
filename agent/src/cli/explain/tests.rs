//! What is said for each step that can fail, and what to do about it.

use std::fs;
use std::io::{Error, ErrorKind};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::SystemTime;

use signet_certs::time::unix_millis;
use signet_proto::explain as wire;
use signet_testkit::{DOMAIN, HOUR, at, authority, crl, folder, leaf, now, roots, svid};
use signet_workload::{Code, GrantedSvid, MessageError};

use super::agent::Why;
use super::judge::tell;
use super::path::{address, connection, permission, socket};
use super::story::State;
use super::*;

/// Why a check fails, and the remedy.
fn fault<T>(checked: story::Checked<T>) -> (String, String) {
    let Err(story::Fault { says, remedy }) = checked else {
        panic!("nothing fails");
    };
    assert!(!remedy.is_empty(), "{says}");
    (says, remedy)
}

fn assert_fault<T>(checked: story::Checked<T>, says: &str, does: &str) {
    let (found, remedy) = fault(checked);
    assert!(found.contains(says), "{says:?} in {found:?}");
    assert!(remedy.contains(does), "{does:?} in {remedy:?}");
}

#[test]
fn an_address_that_names_no_socket_is_told_with_one_that_does() {
    assert_fault(
        address(None),
        "SPIFFE_ENDPOINT_SOCKET is not set",
        "unix:///spiffe/spiffe.sock",
    );
    assert_fault(address(Some("")), "no socket is named", "--socket");
    assert_fault(address(Some("/run/a.sock")), "it has no scheme", "unix://");
    assert_fault(
        address(Some("unix://run/a.sock")),
        "three slashes",
        "absolute path",
    );
    assert_fault(
        address(Some("tcp://127.0.0.1:1")),
        "over TCP nobody can tell who calls",
        "unix://",
    );
    let (path, _) = address(Some("unix:///run/a.sock")).unwrap();
    assert_eq!(path, Path::new("/run/a.sock"));
}

#[test]
fn what_is_at_the_path_is_told_down_to_the_part_that_is_missing() {
    let folder = folder();
    let root = folder.path();
    let told = |path: &str, says: &str, does: &str| assert_fault(socket(&root.join(path)), says, does);
    told(
        "spiffe/spiffe.sock",
        &format!("{} does not exist", root.join("spiffe").display()),
        "CSI driver",
    );
    fs::create_dir(root.join("spiffe")).unwrap();
    let missing = root.join("spiffe/spiffe.sock");
    told(
        "spiffe/spiffe.sock",
        &format!("{} does not exist", missing.display()),
        "shared_socket.path",
    );
    told("spiffe", "is a folder", "CSI driver");
    fs::write(root.join("file"), "").unwrap();
    told("file", "is no socket", "CSI driver");
    told("file/spiffe.sock", "ot a directory", "CSI driver");
    symlink(root.join("nowhere"), root.join("link")).unwrap();
    told("link", "is a link to what does not exist", "CSI driver");
    let _listens = UnixListener::bind(&missing).unwrap();
    let (_, says) = socket(&missing).unwrap();
    assert!(says.contains("a socket of user"), "{says}");
    told("spiffe", "is a folder", &format!("unix://{}", missing.display()));
}

#[test]
fn who_may_not_open_it_and_who_finds_nobody_is_told_apart() {
    let folder = folder();
    let path = folder.path().join("spiffe.sock");
    let _listens = UnixListener::bind(&path).unwrap();
    let (owner, _) = socket(&path).unwrap();
    let failed = |kind: ErrorKind| Err(Error::from(kind));
    assert_fault(
        permission(&owner, &failed(ErrorKind::PermissionDenied)),
        "may not open it: it is of user",
        "shared_socket.mode",
    );
    assert!(permission(&owner, &failed(ErrorKind::ConnectionRefused)).is_ok());
    assert_fault(
        connection(failed(ErrorKind::ConnectionRefused)),
        "nobody listens",
        "start the agent",
    );
    assert_fault(
        connection(failed(ErrorKind::TimedOut)),
        "takes no connection",
        "log",
    );
}

#[tokio::test]
async fn who_listens_and_speaks_no_grpc_is_told_so() {
    let folder = folder();
    let path = folder.path().join("other.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let other = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ =
                tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let agent = Agent::at(&path);
    assert_fault(
        agent.speaks().await,
        "speaks no gRPC",
        "another program listens here",
    );
    other.abort();
}

/// An agent to which all is well, and that has told so.
fn said() -> wire::WhyResponse {
    wire::WhyResponse {
        agent_version: "1.2.3".to_owned(),
        trust_domain: DOMAIN.to_owned(),
        now_unix_ms: unix_millis(now()),
        caller: Some(wire::Caller {
            kind: "pod".to_owned(),
            pod: "shop/front-0".to_owned(),
            pod_uid: "11".to_owned(),
            token_expires_unix_ms: unix_millis(at(3600)),
            ..wire::Caller::default()
        }),
        server: Some(wire::Server {
            connected: true,
            since_unix_ms: unix_millis(at(0)),
            agent_expires_unix_ms: unix_millis(at(7200)),
            ..wire::Server::default()
        }),
        answer: Some(wire::Answer {
            state: "pending".to_owned(),
            message: "the server answers soon".to_owned(),
            streams: 1,
        }),
        ..wire::WhyResponse::default()
    }
}

fn context_at(at: SystemTime, revoked: bool) -> X509Context {
    let authority = authority(DOMAIN);
    let svid = leaf(&authority, "/ns/shop/sa/front").at(at).ttl(HOUR).svid();
    let serials = [svid.serial()];
    let listed = crl(&authority, 7, if revoked { &serials } else { &[] });
    X509Context {
        svids: vec![GrantedSvid {
            svid: svid.into(),
            hint: String::new(),
        }]
        .into(),
        roots: roots(&[(&authority, Some(&listed))]).into(),
    }
}

fn context() -> X509Context {
    context_at(now(), false)
}

fn seen(fetched: Fetched, said: wire::WhyResponse) -> Seen {
    Seen {
        fetched,
        why: Why::Said {
            answer: Box::new(said),
            at: now(),
            took: Duration::ZERO,
        },
        now: now(),
    }
}

fn told(seen: &Seen) -> Story {
    let mut story = Story::default();
    tell(&mut story, seen);
    for step in &story.steps {
        assert!(step.state != State::Fails || !step.remedy.is_empty(), "{step:?}");
        assert!(
            !step.says.contains('\n') && !step.remedy.contains('\n'),
            "{step:?}"
        );
    }
    story
}

/// The first step that fails is this one, with these words and this remedy.
fn assert_fails(seen: &Seen, name: &str, says: &str, does: &str) {
    let story = told(seen);
    let step = story
        .fails()
        .unwrap_or_else(|| panic!("nothing fails: {:?}", story.steps));
    assert_eq!(step.name, name, "{:?}", story.steps);
    assert!(step.says.contains(says), "{says:?} in {:?}", step.says);
    assert!(step.remedy.contains(does), "{does:?} in {:?}", step.remedy);
}

fn late() -> Fetched {
    Fetched::Late(Duration::from_secs(5))
}

fn denied() -> Fetched {
    Fetched::Ended(
        Code::PermissionDenied,
        "no identity issued: no rule gives this workload an identity".to_owned(),
    )
}

fn caller(change: fn(&mut wire::Caller)) -> wire::WhyResponse {
    let mut said = said();
    change(said.caller.as_mut().unwrap());
    said
}

fn server(change: fn(&mut wire::Server)) -> wire::WhyResponse {
    let mut said = said();
    change(said.server.as_mut().unwrap());
    said
}

#[test]
#[expect(clippy::too_many_lines, reason = "one list of cases")]
fn each_step_behind_the_socket_that_fails_has_its_words_and_its_remedy() {
    let cases = [
        (
            seen(denied(), said()),
            "answer",
            "no rule gives this workload an identity",
            "signet-server explain --pod shop/front-0",
        ),
        (
            seen(
                denied(),
                caller(|caller| {
                    caller.kind = "unix".to_owned();
                    caller.pod.clear();
                    caller.process = Some(wire::Process {
                        uid: 7,
                        ..wire::Process::default()
                    });
                }),
            ),
            "answer",
            "no rule",
            "signet-server rule list",
        ),
        (
            seen(late(), said()),
            "answer",
            "nothing within 5 s: the server answers soon",
            "wait a moment",
        ),
        (
            seen(Fetched::Ended(Code::Unavailable, "later".to_owned()), said()),
            "answer",
            "nothing yet: later",
            "wait a moment",
        ),
        (
            seen(late(), caller(|caller| caller.token_expires_unix_ms = 0)),
            "evidence",
            "holds no token of this pod",
            "requiresRepublish",
        ),
        (
            seen(
                late(),
                caller(|caller| caller.token_expires_unix_ms = unix_millis(at(0))),
            ),
            "evidence",
            "the pod's token ended 2027-01-15T08:00:00Z",
            "requiresRepublish",
        ),
        (
            seen(
                late(),
                caller(|caller| caller.problem = "the volume is not known".to_owned()),
            ),
            "caller",
            "the volume is not known",
            "make the pod anew",
        ),
        (
            seen(
                late(),
                caller(|caller| {
                    caller.kind = "unix".to_owned();
                    caller.problem = "it belongs to a pod".to_owned();
                }),
            ),
            "caller",
            "it belongs to a pod",
            "use the socket of the pod's own volume",
        ),
        (
            seen(
                late(),
                server(|server| {
                    server.connected = false;
                    server.problem = "connection refused".to_owned();
                }),
            ),
            "server",
            "not connected to its server since 2027-01-15T08:00:00Z: connection refused",
            "signet-server status",
        ),
        (
            seen(
                late(),
                server(|server| {
                    server.connected = false;
                    server.agent_expires_unix_ms = unix_millis(at(0));
                }),
            ),
            "server",
            "its own certificate ended 2027-01-15T08:00:00Z",
            "signet-agent status",
        ),
        (
            seen(
                late(),
                server(|server| server.not_issuing = vec!["no_authority".to_owned()]),
            ),
            "server",
            "the server cannot issue: no_authority",
            "docs/operating.md",
        ),
        (
            seen(
                late(),
                server(|server| server.cluster_unreachable_since_unix_ms = unix_millis(at(0))),
            ),
            "server",
            "cannot reach the API server of this node's cluster since",
            "network",
        ),
        (
            seen(Fetched::Unusable(MessageError::NoSvids), said()),
            "verification",
            "does not verify here",
            "of another make",
        ),
        (
            seen(Fetched::Context(Box::new(context_at(now(), true))), said()),
            "verification",
            "revoked",
            "another one within seconds",
        ),
    ];
    for (seen, name, says, does) in &cases {
        assert_fails(seen, name, says, does);
    }
}

#[test]
fn what_has_ended_by_this_machines_clock_is_told_with_the_time_that_it_says() {
    let mut seen = seen(Fetched::Context(Box::new(context())), said());
    seen.now = at(2 * 3600);
    if let Why::Said { at: when, .. } = &mut seen.why {
        *when = at(2 * 3600);
    }
    assert_fails(
        &seen,
        "clock",
        "7200 s ahead of the time that the agent goes by, by which the identity is good",
        "synchronise",
    );
    let story = told(&seen);
    let verification = story.steps.iter().find(|step| step.name == "verification");
    assert!(
        verification.unwrap().says.contains("2027-01-15T10:00:00Z"),
        "{:?}",
        story.steps
    );
    // The agent goes by the same time: it could not renew.
    if let Why::Said { answer, .. } = &mut seen.why {
        answer.now_unix_ms = unix_millis(at(2 * 3600));
    }
    assert_fails(
        &seen,
        "verification",
        "2027-01-15T10:00:00Z",
        "set its clock if that is wrong",
    );
    seen.now = at(400 * 24 * 3600);
    assert_fails(&seen, "list", "ended", "signet-server crl show");
}

#[test]
fn a_clock_that_is_off_and_in_nobodys_way_is_a_note() {
    let off = Duration::from_secs(120);
    for here in [now() - off, now() + off] {
        let mut seen = seen(Fetched::Context(Box::new(context())), said());
        seen.now = here;
        if let Why::Said { at: when, .. } = &mut seen.why {
            *when = here;
        }
        let story = told(&seen);
        let clock = story.steps.iter().find(|step| step.name == "clock").unwrap();
        assert_eq!(clock.state, State::Note, "{:?}", story.steps);
        assert!(story.fails().is_none(), "{:?}", story.steps);
    }
}

#[test]
fn whoever_has_an_identity_is_told_of_troubles_that_do_not_stand_in_its_way() {
    let troubled = [
        server(|server| server.connected = false),
        server(|server| server.not_issuing = vec!["no_authority".to_owned()]),
        server(|server| server.cluster_unreachable_since_unix_ms = unix_millis(at(0))),
        caller(|caller| caller.token_expires_unix_ms = 0),
    ];
    for said in troubled {
        let story = told(&seen(Fetched::Context(Box::new(context())), said));
        assert!(story.fails().is_none(), "{:?}", story.steps);
        assert!(
            story.steps.iter().any(|step| step.state == State::Note),
            "{:?}",
            story.steps
        );
    }
    let story = told(&seen(Fetched::Context(Box::new(context())), said()));
    assert!(
        story.steps.iter().all(|step| step.state == State::Fine),
        "{:?}",
        story.steps
    );
}

#[test]
fn an_agent_that_cannot_be_asked_is_no_reason_to_say_nothing() {
    for why in [Why::TooOld, Why::Not("too many calls".to_owned())] {
        let mut seen = seen(denied(), said());
        seen.why = why;
        assert_fails(&seen, "answer", "no rule", "signet-server rule list");
        assert_eq!(told(&seen).steps[0].state, State::Note);
        seen.fetched = Fetched::Context(Box::new(context()));
        assert!(told(&seen).fails().is_none());
    }
}

/// Covers INV-13.
#[test]
fn what_is_shown_holds_no_key_and_moves_no_cursor() {
    let authority = authority(DOMAIN);
    let svid = svid(&authority, "/ns/a/sa/b");
    let key = hex::encode(svid.key().pkcs8_der());
    let listed = crl(&authority, 1, &[]);
    let context = X509Context {
        svids: vec![GrantedSvid {
            svid: svid.into(),
            hint: String::new(),
        }]
        .into(),
        roots: roots(&[(&authority, Some(&listed))]).into(),
    };
    let seen = seen(
        Fetched::Context(Box::new(context)),
        server(|server| {
            server.connected = false;
            server.problem = "odd\u{1b}[31m".to_owned();
        }),
    );
    let answer = render::answer(Some("unix:///a"), &told(&seen), Some(&seen));
    let shown = format!("{}{}", answer.text, answer.json);
    assert!(shown.contains("spiffe://example.org/ns/a/sa/b") && !shown.contains(&key[20..60]));
    assert!(!answer.text.contains('\u{1b}'), "{}", answer.text);
    assert_eq!(answer.json["usable"], true);
}
