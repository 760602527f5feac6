//! Clients of the workload socket that do not behave: an error on their call, and nobody else notices.

use std::{path::Path, time::Duration};

use signet_proto::workload::{JwtsvidRequest, X509svidRequest};
use signet_tests::{
    domain::{Agent, Domain},
    kubelet::Volume,
    wait::eventually,
    workload::{WorkloadClient, with_header},
};
use tonic::{Code, Request, metadata::MetadataValue};

use self::raw::{Answered, RawHttp2};
use super::support::pod_with_volume;

mod raw;

struct Setup {
    _domain: Domain,
    agent: Agent,
    volume: Volume,
    workload: WorkloadClient,
}

async fn setup() -> Setup {
    let domain = Domain::start().await.unwrap();
    let agent = domain.agent("node-a").await.unwrap();
    let volume = pod_with_volume(&domain, &agent, "front").await;
    let workload = agent.workload(&volume);
    workload.identity().await;
    Setup {
        _domain: domain,
        agent,
        volume,
        workload,
    }
}

impl Setup {
    fn socket(&self) -> std::path::PathBuf {
        self.agent.socket(&self.volume)
    }
}

/// Covers BG-01, BG-02.
#[tokio::test]
async fn calls_without_the_header_are_invalid() {
    let setup = setup().await;
    let mut stub = setup.workload.stub();
    let status = stub.fetch_x509svid(X509svidRequest {}).await.err().unwrap();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let status = stub.fetch_jwtsvid(JwtsvidRequest::default()).await.err().unwrap();
    assert_eq!(
        status.code(),
        Code::InvalidArgument,
        "the header comes before all else: {status:?}"
    );
    let status = stub
        .fetch_jwtsvid(with_header(JwtsvidRequest::default()))
        .await
        .err()
        .unwrap();
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    for value in ["True", "TRUE", "1", "", "true,true", "false"] {
        let mut request = Request::new(X509svidRequest {});
        request
            .metadata_mut()
            .insert("workload.spiffe.io", MetadataValue::try_from(value).unwrap());
        let status = stub.fetch_x509svid(request).await.err().unwrap();
        assert_eq!(status.code(), Code::InvalidArgument, "{value:?}: {status:?}");
    }
    let mut twice = with_header(X509svidRequest {});
    twice
        .metadata_mut()
        .append("workload.spiffe.io", MetadataValue::from_static("true"));
    assert_eq!(
        stub.fetch_x509svid(twice).await.err().unwrap().code(),
        Code::InvalidArgument
    );
    setup.workload.fetch().await.unwrap();
}

/// Covers BG-03, BG-05, BG-08, BG-09, BG-10.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one list of cases")]
async fn odd_requests_are_served_or_refused_on_their_own() {
    let setup = setup().await;
    let socket = setup.socket();
    let mut watching = setup.workload.watch().await.unwrap();
    watching.next().await.unwrap();
    let junk = "%".repeat(8 << 10);
    let message = |body: &[u8]| [&[0, 0, 0, 0, u8::try_from(body.len()).unwrap()], body].concat();
    let empty = message(&[]);
    let localhost = Some("localhost");
    type Case<'a> = (&'a str, Option<&'a str>, &'a str, Vec<u8>, bool);
    let cases: [Case<'_>; 14] = [
        (
            "an honest call",
            localhost,
            "workload.spiffe.io",
            empty.clone(),
            true,
        ),
        (
            "empty authority",
            Some(""),
            "workload.spiffe.io",
            empty.clone(),
            true,
        ),
        ("no authority", None, "workload.spiffe.io", empty.clone(), true),
        (
            "the socket's path",
            Some("/run/a.sock"),
            "workload.spiffe.io",
            empty.clone(),
            true,
        ),
        (
            "the path encoded",
            Some("%2Frun%2Fa.sock"),
            "workload.spiffe.io",
            empty.clone(),
            true,
        ),
        (
            "8 KiB of junk",
            Some(&junk),
            "workload.spiffe.io",
            empty.clone(),
            false,
        ),
        (
            "a header in upper case",
            localhost,
            "Workload.Spiffe.Io",
            empty.clone(),
            false,
        ),
        (
            "unknown fields",
            localhost,
            "workload.spiffe.io",
            message(&[0x7a, 2, 1, 2]),
            true,
        ),
        (
            "a truncated message",
            localhost,
            "workload.spiffe.io",
            message(&[0x7a, 9, 1]),
            false,
        ),
        (
            "field number 0",
            localhost,
            "workload.spiffe.io",
            message(&[0x02, 0]),
            false,
        ),
        (
            "an announced gigabyte",
            localhost,
            "workload.spiffe.io",
            vec![0, 0x40, 0, 0, 0],
            false,
        ),
        (
            "compressed, unannounced",
            localhost,
            "workload.spiffe.io",
            vec![1, 0, 0, 0, 1, 0],
            false,
        ),
        (
            "two messages",
            localhost,
            "workload.spiffe.io",
            [empty.clone(), empty.clone()].concat(),
            true,
        ),
        (
            "no message at all",
            localhost,
            "workload.spiffe.io",
            Vec::new(),
            false,
        ),
    ];
    for (what, authority, header, body, served) in cases {
        let mut raw = RawHttp2::connect(&socket).await;
        let answered = raw.call(authority, header, &body).await;
        if what == "two messages" {
            // An error, or the first one used; either is an answer.
            assert_ne!(answered, Answered::Nothing, "{what}");
            continue;
        }
        let expected = if served {
            answered == Answered::Message
        } else {
            answered == Answered::Refused
        };
        assert!(expected, "{what}: {answered:?}");
    }
    let quiet = tokio::time::timeout(Duration::from_millis(20), watching.next()).await;
    assert!(
        !matches!(quiet, Ok(Err(_))),
        "another client's stream was disturbed"
    );
    setup.workload.fetch().await.unwrap();
}

/// Covers BG-06.
#[tokio::test]
async fn what_is_no_http2_is_closed_and_disturbs_nobody() {
    let setup = setup().await;
    let socket = setup.socket();
    let tls_hello = [&[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3][..], &[7; 189]].concat();
    let random: Vec<u8> = (0..512_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8)
        .collect();
    for (what, bytes) in [
        ("HTTP/1.1", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        ("TLS", tls_hello),
        ("random bytes", random),
    ] {
        let closed = raw::send_and_wait_for_close(&socket, &bytes);
        let closed = tokio::time::timeout(Duration::from_secs(20), closed).await;
        assert!(closed.is_ok(), "{what}: the connection stays open");
        setup.workload.fetch().await.unwrap();
    }
}

/// Covers BG-18.
#[tokio::test]
async fn clients_that_vanish_leave_nothing_behind() {
    let setup = setup().await;
    let descriptors = |path: &Path| std::fs::read_dir(path).unwrap().count();
    let mut setup = setup;
    let pid = setup.agent.process().unwrap().pid().unwrap();
    let folder = Path::new("/proc").join(pid.to_string()).join("fd");
    let before = descriptors(&folder);
    for step in 0..40 {
        match step % 4 {
            // Connects and leaves.
            0 => drop(RawHttp2::connect(&setup.socket()).await),
            // Asks and leaves without reading.
            1 => {
                let mut raw = RawHttp2::connect(&setup.socket()).await;
                raw.ask(Some("localhost"), "workload.spiffe.io", &[0, 0, 0, 0, 0])
                    .await;
            }
            // Reads one answer and resets.
            2 => drop(WorkloadClient::new(&setup.socket()).fetch().await.unwrap()),
            // Gives up before the answer.
            _ => {
                let client = WorkloadClient::new(&setup.socket());
                let _ = tokio::time::timeout(Duration::from_micros(300), client.fetch()).await;
            }
        }
    }
    eventually("the agent to close what its clients left", async || {
        (descriptors(&folder) <= before + 2).then_some(())
    })
    .await;
    let status = setup
        .agent
        .command(&["status", "--output", "json"])
        .await
        .unwrap();
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    let streams = status["workloads"][0]["streams"].as_u64();
    assert_eq!(streams, Some(0), "{status}");
}
