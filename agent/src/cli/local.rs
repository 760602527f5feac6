//! Commands that ask the running agent over its admin socket.

use std::path::Path;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use signet_certs::time::{from_unix_millis, rfc3339};
use signet_proto::local as wire;
use signet_proto::local::local_client::LocalClient;
use signet_runtime::cli::{Answer, Health, NotReady, or_dash, when};
use signet_runtime::error::one_line;
use signet_runtime::table::{Table, age};
use signet_runtime::uds;
use tonic::transport::{Channel, Endpoint};

/// Connecting and answering together.
const LIMIT: Duration = Duration::from_secs(5);

/// Large nodes fit.
const MAX_MESSAGE: usize = 64 << 20;

/// Whether workloads that come now get their identities; with `serving`, only whether the sockets serve.
pub(super) async fn healthcheck(socket: &Path, serving: bool) -> anyhow::Result<Answer> {
    Ok(health(&ask(socket).await?).answer(serving))
}

fn health(status: &wire::StatusResponse) -> Health {
    let not_ready = |one: &wire::NotReady| NotReady {
        reason: one.reason.clone(),
        detail: one.detail.clone(),
        serves: one.serves,
    };
    Health {
        ready: status.ready,
        ready_issue: status.ready_issue,
        not_ready: status.not_ready.iter().map(not_ready).collect(),
    }
}

/// Everything.
pub(super) async fn status(socket: &Path) -> anyhow::Result<Answer> {
    let status = ask(socket).await?;
    Ok(Answer::new(status_json(&status), status_text(&status)))
}

async fn ask(socket: &Path) -> anyhow::Result<wire::StatusResponse> {
    let asked = async {
        let mut client = LocalClient::new(channel(socket)).max_decoding_message_size(MAX_MESSAGE);
        let answer = client.status(wire::StatusRequest {}).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| match std::error::Error::source(&status) {
                Some(cause) => anyhow::anyhow!(
                    "cannot reach the agent ({}): is it running, and may you open its socket? Set --admin-socket or \
                     SIGNET_AGENT_ADMIN_SOCKET",
                    reason(cause)
                ),
                None => anyhow::anyhow!("{}", status.message()),
            })
    };
    let late = |_| anyhow::anyhow!("the agent at {} did not answer in time", socket.display());
    tokio::time::timeout(LIMIT, asked).await.map_err(late)?
}

/// To whom listens at this socket. It connects when it is first used.
pub(super) fn channel(socket: &Path) -> Channel {
    let path = socket.to_owned();
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(move |_| {
        let path = path.clone();
        async move { uds::connect(&path).await.map(TokioIo::new) }
    }))
}

/// What went wrong with a socket: our own words where they are in the chain, for they name the path, else its first cause.
pub(super) fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    loop {
        match (cause.downcast_ref::<uds::UdsError>(), cause.source()) {
            (None, Some(source)) => cause = source,
            _ => return cause.to_string(),
        }
    }
}

fn status_json(status: &wire::StatusResponse) -> Value {
    json!({
        "trust_domain": status.trust_domain,
        "version": status.version,
        "agent_id": status.agent_id,
        "agent_not_after": when(status.agent_expires_unix_ms),
        "ready": status.ready,
        "ready_issue": status.ready_issue,
        "not_ready": health(status).reasons_json(),
        "server_connected": status.server_connected,
        "key_exchange": if status.key_exchange.is_empty() { Value::Null } else { json!(status.key_exchange) },
        "server_problem": status.server_problem,
        "sequence_number": status.sequence_number,
        "not_kept": status.not_kept,
        "volumes_problem": status.volumes_problem,
        "clock_problem": status.clock_problem,
        "distrusted": status.distrusted.iter().map(distrusted_json).collect::<Vec<_>>(),
        "anchors_problem": status.anchors_problem,
        "cluster_unreachable_since": when(status.cluster_unreachable_since_unix_ms),
        "workloads": status.workloads.iter().map(workload_json).collect::<Vec<_>>(),
    })
}

fn distrusted_json(distrusted: &wire::Distrusted) -> Value {
    json!({ "authority_id": distrusted.authority_id, "by": distrusted.by })
}

fn workload_json(workload: &wire::Workload) -> Value {
    let svid = |svid: &wire::Svid| {
        json!({
            "spiffe_id": svid.spiffe_id,
            "serial": svid.serial,
            "not_after": when(svid.not_after_unix_ms),
            "renew_at": when(svid.renew_unix_ms),
        })
    };
    json!({
        "kind": workload.kind,
        "name": workload.name,
        "pod_uid": workload.pod_uid,
        "socket": workload.socket,
        "streams": workload.streams,
        "svids": workload.svids.iter().map(svid).collect::<Vec<_>>(),
        "problem": workload.problem,
    })
}

fn status_text(status: &wire::StatusResponse) -> String {
    let now = from_unix_millis(status.now_unix_ms);
    let mut facts = Table::new(&[
        "TRUST DOMAIN",
        "READY",
        "SERVER",
        "KEY EXCHANGE",
        "BUNDLE",
        "AGENT",
        "EXPIRES",
    ]);
    let ready = match (status.ready, status.ready_issue) {
        (true, true) => "yes",
        (true, false) => "serves only",
        (false, _) => "no",
    };
    facts.row([
        status.trust_domain.as_str(),
        ready,
        if status.server_connected {
            "connected"
        } else {
            "away"
        },
        or_dash(&status.key_exchange),
        &status.sequence_number.to_string(),
        or_dash(&status.agent_id),
        &expiry(now, status.agent_expires_unix_ms),
    ]);
    let mut text = facts.render();
    for line in health(status).lines() {
        text.push_str(&format!("not ready: {line}\n"));
    }
    for (about, problem) in [
        ("server", &status.server_problem),
        ("keys", &status.not_kept),
        ("volumes", &status.volumes_problem),
        ("clock", &status.clock_problem),
        ("anchors file", &status.anchors_problem),
        ("cluster", &outage(status)),
    ] {
        if !problem.is_empty() {
            // Cleaned like a cell: it holds what others wrote.
            text.push_str(&format!("{about}: {}\n", one_line(problem)));
        }
    }
    for one in &status.distrusted {
        let by = one.by.replace('_', " ");
        let line = format!("authority {}, by the word of the {by}", one.authority_id);
        text.push_str(&format!("distrusted: {}\n", one_line(&line)));
    }
    text.push('\n');
    text.push_str(&workloads_text(status, now));
    text
}

fn outage(status: &wire::StatusResponse) -> String {
    match status.cluster_unreachable_since_unix_ms {
        0 => String::new(),
        since => format!(
            "the server cannot reach its API server since {}",
            rfc3339(from_unix_millis(since))
        ),
    }
}

fn workloads_text(status: &wire::StatusResponse, now: SystemTime) -> String {
    if status.workloads.is_empty() {
        return "no workloads\n".to_owned();
    }
    let mut table = Table::new(&[
        "WORKLOAD",
        "STREAMS",
        "SPIFFE ID",
        "SERIAL",
        "EXPIRES",
        "RENEWS",
        "PROBLEM",
    ]);
    for workload in &status.workloads {
        let (streams, problem) = (workload.streams.to_string(), or_dash(&workload.problem));
        if workload.svids.is_empty() {
            table.row([workload.name.as_str(), &streams, "-", "-", "-", "-", problem]);
        }
        for svid in &workload.svids {
            let (expires, renews) = (
                expiry(now, svid.not_after_unix_ms),
                expiry(now, svid.renew_unix_ms),
            );
            table.row([
                &workload.name,
                &streams,
                &svid.spiffe_id,
                &svid.serial,
                &expires,
                &renews,
                problem,
            ]);
        }
    }
    table.render()
}

fn expiry(now: SystemTime, ms: i64) -> String {
    if ms == 0 {
        "-".to_owned()
    } else {
        age(now, from_unix_millis(ms))
    }
}

#[cfg(test)]
mod tests {
    use signet_testkit::golden;

    use super::*;

    fn sample() -> wire::StatusResponse {
        let svid = wire::Svid {
            spiffe_id: "spiffe://example.org/ns/shop/sa/front".to_owned(),
            serial: "01ab".to_owned(),
            not_after_unix_ms: 3_600_000,
            renew_unix_ms: 1_800_000,
        };
        wire::StatusResponse {
            trust_domain: "example.org".to_owned(),
            ready: true,
            now_unix_ms: 0,
            workloads: vec![
                wire::Workload {
                    name: "shop/front-0".to_owned(),
                    svids: vec![svid],
                    ..wire::Workload::default()
                },
                wire::Workload {
                    name: "uid:1000".to_owned(),
                    problem: "no rule\u{1b}[31m matches".to_owned(),
                    ..wire::Workload::default()
                },
            ],
            ..wire::StatusResponse::default()
        }
    }

    #[test]
    fn people_see_every_workload_with_its_problem() {
        let text = status_text(&sample());
        assert!(text.contains("spiffe://example.org/ns/shop/sa/front"), "{text}");
        assert!(
            text.contains("no rule?[31m matches"),
            "what others wrote does not move the cursor: {text}"
        );
    }

    /// agent/tests/golden.
    #[test]
    fn the_status_is_as_people_have_read_it() {
        golden(env!("CARGO_MANIFEST_DIR"), "status", &status_text(&sample()));
        let ill = wire::StatusResponse {
            ready_issue: false,
            not_ready: vec![wire::NotReady {
                reason: "server_away".to_owned(),
                detail: "connection refused".to_owned(),
                serves: true,
            }],
            server_problem: "connection refused".to_owned(),
            volumes_problem: "no room for a volume".to_owned(),
            clock_problem: "this machine is 2 h ahead".to_owned(),
            cluster_unreachable_since_unix_ms: 60_000,
            anchors_problem: "anchors.pem: no such file".to_owned(),
            distrusted: vec![wire::Distrusted {
                authority_id: "01ab".to_owned(),
                by: "anchors_file".to_owned(),
            }],
            workloads: Vec::new(),
            ..sample()
        };
        golden(env!("CARGO_MANIFEST_DIR"), "status_ill", &status_text(&ill));
    }

    #[test]
    fn programs_get_one_object_with_dates() {
        let value = status_json(&sample());
        assert_eq!(
            value["workloads"][0]["svids"][0]["renew_at"],
            "1970-01-01T00:30:00Z"
        );
        assert_eq!(value["agent_not_after"], Value::Null);
    }
}
