//! The agent of a pod's node: whether it is there, what its certificate is worth, and whether it knows the pod. Pure.

use signet_certs::time::rfc3339;
use signet_proto::admin as wire;

use super::{Seen, finding, ok, remark};
use crate::attest::FoundPod;

/// What there is to say of it.
pub(super) fn finding_of(seen: &Seen, found: &FoundPod) -> wire::Finding {
    let node = &found.pod.node_name;
    let fails = |says: String, remedy: String| finding("agent", "fails", says, remedy);
    if node.is_empty() {
        // What to do about that is said of the pod.
        return remark("agent", "the pod is on no node, so no agent serves it");
    }
    let Some((row, status)) = &seen.agent else {
        return fails(
            format!("no agent has attested for the node {node}"),
            format!(
                "see whether one runs there: `kubectl get pods -A -o wide --field-selector spec.nodeName={node}`; its log says why it is not attested"
            ),
        );
    };
    let id = &row.spiffe_id;
    // A denial of it is found with the others.
    if row.generations.issued <= row.generations.revoked_up_to {
        return fails(
            format!("the certificate of the agent of {node} is revoked, and it has no other yet"),
            format!(
                "it attests anew by itself; if it does not, its log says why, and `signet-server denials` whether {id} is denied"
            ),
        );
    }
    if row.expires_at <= seen.now {
        return fails(
            format!(
                "the certificate of the agent of {node} ended {}",
                rfc3339(row.expires_at)
            ),
            "its pod is gone, or cannot reach this server: its log says which".to_owned(),
        );
    }
    let Some(status) = status.as_ref().filter(|status| status.connected) else {
        return fails(
            format!("the agent of {node} is not connected"),
            format!("`signet-agent status` in its pod on {node} says why, and so does its log"),
        );
    };
    if !status.report.pod_uids.contains(&found.pod.pod_uid) {
        return fails(
            format!("the agent of {node} knows no volume of this pod"),
            "give the pod a volume of the CSI driver, as docs/kubernetes.md shows; where it has one, `kubectl describe pod` says why it is not mounted"
                .to_owned(),
        );
    }
    let skew = match status.report.clock_skew_ms {
        small if small.unsigned_abs() < 60_000 => String::new(),
        skew => format!("; its clock is {skew} ms off this server's"),
    };
    ok(
        "agent",
        format!(
            "the agent of {node} is connected, its certificate counts until {}, and it serves a volume of the pod{skew}",
            rfc3339(row.expires_at)
        ),
    )
}
