//! What there is to say of a pod, step by step, and what to do about it. Pure.

use signet_certs::time::rfc3339;
use signet_proto::admin as wire;

use super::{Seen, agent, finding, ok, remark, rules};
use crate::{
    attest::{Found, FoundPod},
    store::{Denial, LedgerRow},
};

/// In the order in which they matter: the first that fails is why.
pub(super) fn findings(seen: &Seen) -> Vec<wire::Finding> {
    let mut all = vec![cluster(seen)];
    all.extend(pod(seen));
    if let Found::There(found) = &seen.found {
        all.extend(rules::findings(seen));
        all.extend(denials(seen));
        all.push(agent::finding_of(seen, found));
        all.push(budget(seen));
    }
    all.push(signing(seen));
    all.extend(refusals(seen));
    let fails = all.iter().any(|one| one.state == "fails");
    all.push(certificates(seen, fails));
    all
}

/// One line, and whether a certificate is issued when it is asked for.
pub(super) fn verdict(seen: &Seen, findings: &[wire::Finding]) -> (String, bool) {
    let pod = seen.pod();
    let first = |state: &str| findings.iter().find(|finding| finding.state == state);
    if let Some(fails) = first("fails") {
        return (format!("pod {pod} gets nothing: {}", fails.says), false);
    }
    if let Some(unknown) = first("unknown") {
        return (
            format!("whether pod {pod} gets anything is not known: {}", unknown.says),
            false,
        );
    }
    match seen.default_id() {
        Some(id) => (format!("pod {pod} gets {id}"), true),
        None => (format!("pod {pod} gets nothing"), false),
    }
}

fn cluster(seen: &Seen) -> wire::Finding {
    let cluster = &seen.cluster;
    let name = &cluster.name;
    if let Some(since) = cluster.unreachable_since {
        // Whoever holds a certificate was attested before.
        let holds = seen.svids.first().is_some_and(|row| row.not_after > seen.now);
        return finding(
            "cluster",
            if holds { "note" } else { "fails" },
            format!(
                "the API server of {name} cannot be reached since {}: no new pod is attested; those that were may renew",
                rfc3339(since)
            ),
            format!("look at the network between this server and {name}, and at `signet-server status`"),
        );
    }
    if let Some(problem) = &cluster.problem {
        return finding(
            "cluster",
            if cluster.uid.is_none() { "fails" } else { "note" },
            format!("{name}: {problem}"),
            "`signet-server status` shows when it is over",
        );
    }
    if !cluster.synced {
        return finding(
            "cluster",
            "note",
            format!(
                "the watch of {name} is not up to date: pods that it does not show are asked for one by one"
            ),
            "if it stays so, `signet-server status` and the server's log say why",
        );
    }
    ok(
        "cluster",
        format!(
            "the watch of {name} is up to date and shows {} pods",
            cluster.pods
        ),
    )
}

fn pod(seen: &Seen) -> Vec<wire::Finding> {
    let (pod, cluster) = (seen.pod(), &seen.cluster.name);
    let found = match &seen.found {
        Found::There(found) => found,
        Found::Nowhere => {
            return vec![finding(
                "pod",
                "fails",
                format!("there is no pod {pod} in {cluster}"),
                format!(
                    "look for its name: `kubectl get pods -n {}`; of several clusters choose one by --cluster",
                    seen.namespace
                ),
            )];
        }
        Found::Unknown(problem) => {
            return vec![finding(
                "pod",
                "unknown",
                format!("the watch does not show {pod}, and the API server did not say: {problem}"),
                "ask again when `signet-server status` shows the cluster in order",
            )];
        }
    };
    let mut all = vec![life(seen, found)];
    if found.pod.terminating {
        let says = "it is being deleted: it may renew until it is gone";
        all.push(remark("pod", says));
    }
    if found.from_api {
        let says = "the watch does not show it, its API server does: it is new, or the watch lags";
        let remedy = "if it stays so, `signet-server status` says how the watch stands";
        all.push(finding("pod", "note", says, remedy));
    }
    all
}

fn life(seen: &Seen, found: &FoundPod) -> wire::Finding {
    let pod = &found.pod;
    let describe = format!(
        "`kubectl describe pod -n {} {}` says why",
        seen.namespace, seen.name
    );
    if found.is_over {
        let says = format!("it is over: its phase is {}", found.phase);
        return finding("pod", "fails", says, describe);
    }
    if pod.node_name.is_empty() {
        let says = format!("it is on no node yet; its phase is {}", found.phase);
        return finding("pod", "fails", says, describe);
    }
    ok(
        "pod",
        format!(
            "{} on {} as service account {}, UID {}",
            found.phase, pod.node_name, pod.service_account, pod.pod_uid
        ),
    )
}

/// A denial of the identity that the pod gets first, or of its agent, stops it; another one takes an identity of several.
fn denials(seen: &Seen) -> Vec<wire::Finding> {
    let agent = seen.agent.as_ref().map(|(row, _)| &row.spiffe_id);
    let deciding = [agent, seen.default_id()].into_iter().flatten();
    let deciding: Vec<_> = deciding.map(|id| seen.subject(id)).collect();
    let of = |denial: &Denial| {
        let by = format!("{} is {}", denial.target, denied_by(denial));
        let remedy = format!("if it may have it again: `signet-server allow {}`", denial.id);
        let state = if deciding.iter().any(|subject| denial.target.hits(subject)) {
            "fails"
        } else {
            "note"
        };
        finding("denials", state, by, remedy)
    };
    if seen.denials.is_empty() {
        return vec![ok("denials", "nothing that it would get is denied")];
    }
    seen.denials.iter().map(of).collect()
}

/// Who denies, since when, and until when.
pub(super) fn denied_by(denial: &Denial) -> String {
    let ends = denial.expires.map_or_else(
        || "does not end by itself".to_owned(),
        |end| format!("ends {}", rfc3339(end)),
    );
    let comment = match denial.comment.as_str() {
        "" => String::new(),
        comment => format!(": {comment:?}"),
    };
    format!(
        "denied by {} of {} since {}, which {ends}{comment}",
        denial.id,
        denial.author,
        rfc3339(denial.created)
    )
}

fn signing(seen: &Seen) -> wire::Finding {
    let Some(first) = seen.not_ready.first() else {
        return ok("signing", "the server can sign");
    };
    let remedy = format!(
        "the table of reasons in docs/operating.md says what {} means and what to do",
        first.reason.name
    );
    finding(
        "signing",
        "fails",
        format!("the server cannot issue: {first}"),
        remedy,
    )
}

fn budget(seen: &Seen) -> wire::Finding {
    if let Some(spent) = &seen.spent {
        return finding(
            "budget",
            "fails",
            spent.to_string(),
            "wait; if it goes on, look for a restart loop of the pod or of the agent of its node",
        );
    }
    let (live, free) = seen.live;
    let beyond = if live >= free as usize {
        "; each further one takes the place of the oldest, and only so many a minute are given"
    } else {
        ""
    };
    ok(
        "budget",
        format!("{live} of {free} certificates are in use{beyond}"),
    )
}

/// A refusal after the last certificate is why, where nothing else is: what a token says is seen only when it comes.
fn refusals(seen: &Seen) -> Option<wire::Finding> {
    let last = seen.refusals.first()?;
    // A certificate counts from before it was made, by what clocks may be off.
    let newest = seen.svids.first();
    let newest = newest.map(|row| row.serial.made_at().unwrap_or(row.not_before));
    let since = newest.is_none_or(|made| made < last.at);
    let says = format!("refused {}: {}: {}", rfc3339(last.at), last.kind, last.message);
    if !since {
        // It was given one since.
        return Some(remark("refusals", says));
    }
    // Where rules or denials still stand in the way, what to do is said of them.
    let stands = seen.default_id().is_none() || !seen.denials.is_empty();
    let remedy = match last.kind {
        "no_match" | "denied" if stands => return Some(remark("refusals", says)),
        "not_attested" => {
            "this says what is wrong with the pod's token: its audience is `attestation.pod_audience`, which the CSIDriver object names; a pod that runs since before that was right has to be made anew"
        }
        "no_match" | "denied" => {
            "the rules or denials have changed since: the agent asks again by itself within seconds"
        }
        "budget" => "the agent asks again when there is one more",
        _ => "look at the agent's log for this pod",
    };
    // What rules and denials say now is found above.
    let state = if last.kind == "not_attested" {
        "fails"
    } else {
        "note"
    };
    Some(finding("refusals", state, says, remedy))
}

/// Where something else fails, what to do is said of that.
fn certificates(seen: &Seen, fails: bool) -> wire::Finding {
    let Some(last) = seen.svids.first() else {
        let says =
            "the ledger has none of this pod: none was issued, or the last one ended more than a day ago";
        if fails {
            return remark("certificates", says);
        }
        let remedy =
            "the agent has not asked for it yet: `signet-agent explain` in the pod shows what it waits for";
        return finding("certificates", "note", says, remedy);
    };
    certificate(seen, last)
}

fn certificate(seen: &Seen, last: &LedgerRow) -> wire::Finding {
    let (serial, id) = (last.serial, &last.workload.spiffe_id);
    let given = format!(
        "the last is {serial} of {id}, by rule {:?}, since {}",
        last.rule,
        rfc3339(last.not_before)
    );
    if let Some((at, reason)) = last.revoked {
        let says = format!("{given}; revoked {}: {reason}", rfc3339(at));
        return finding(
            "certificates",
            "note",
            says,
            "its holder asks for another one by itself",
        );
    }
    let end = rfc3339(last.not_after);
    if last.not_after <= seen.now {
        let says = format!("{given}; it ended {end} and was not renewed");
        return finding(
            "certificates",
            "note",
            says,
            "the first that fails above says why, or the agent's log",
        );
    }
    ok("certificates", format!("{given}, until {end}"))
}
