//! Authorities and their rotation to `signet.admin.v1`.

use bytes::Bytes;
use signet_certs::{
    authority::{AuthorityId, AuthorityKind},
    signer::SignatureAlgorithm,
    time::{rfc3339, unix_millis},
};
use signet_proto::admin as wire;
use tonic::Status;

use super::millis;
use crate::{
    authority::{
        Activation, AuthorityState, AuthorityView, DepartedAuthority, OperationReport, Stage, Turn, Verb,
        ViewedAuthority, activate_at, prepare_at,
    },
    store::AuthorityUse,
    trust::TrustSnapshot,
};

pub(in crate::api::admin) fn authority(
    kind: AuthorityKind,
    viewed: &ViewedAuthority,
    view: &AuthorityView,
    counts: &[AuthorityUse],
    trust: &TrustSnapshot,
) -> wire::Authority {
    let id = viewed.id();
    let certificate = viewed.certificate();
    let used = counts.iter().find(|used| used.authority == id);
    let (next, at) = match &viewed.state {
        AuthorityState::Prepared {
            activation: Activation::OnSchedule,
        } => {
            let active = view.kind(kind).active();
            (
                "activate",
                active.map(|a| activate_at(a.certificate().not_before(), a.certificate().not_after())),
            )
        }
        AuthorityState::Prepared { .. } => ("activate once it has spread", None),
        AuthorityState::Tainted {
            out_at: Some(out_at), ..
        } => ("leave every bundle, whoever has reported", Some(*out_at)),
        AuthorityState::Active => {
            let prepared = view
                .kind(kind)
                .authorities
                .iter()
                .any(|other| matches!(other.state, AuthorityState::Prepared { .. }));
            let at = if prepared { activate_at } else { prepare_at };
            let next = if prepared {
                "hand over"
            } else {
                "prepare successor"
            };
            (next, Some(at(certificate.not_before(), certificate.not_after())))
        }
        AuthorityState::Old { leaves_until, .. } | AuthorityState::Tainted { leaves_until, .. } => {
            ("leave the bundle", Some(*leaves_until))
        }
    };
    wire::Authority {
        authority_id: id.to_string(),
        kind: kind.to_string(),
        state: viewed.state.name().to_owned(),
        subject: certificate.subject(),
        not_before_unix_ms: unix_millis(certificate.not_before()),
        not_after_unix_ms: unix_millis(certificate.not_after()),
        live_svids: used.map_or(0, |used| used.live),
        crl_number: trust.get(id).map_or(0, |published| published.crl.number().0),
        next: next.to_owned(),
        next_unix_ms: millis(at),
        certificate: Bytes::copy_from_slice(certificate.der()),
        algorithm: viewed.x509().signer().algorithm().to_string(),
        tainted: matches!(viewed.state, AuthorityState::Tainted { .. }),
        state_since_unix_ms: millis(viewed.history.last().map(|turn| turn.at)),
        operation_id: String::new(),
        history: viewed.history.iter().map(turn).collect(),
        author: viewed.author.to_string(),
    }
}

fn turn(turn: &Turn) -> wire::AuthorityTurn {
    wire::AuthorityTurn {
        state: turn.state.to_owned(),
        at_unix_ms: unix_millis(turn.at),
    }
}

/// Nothing where it is left out.
pub(in crate::api::admin) fn algorithm(text: &str) -> Result<Option<SignatureAlgorithm>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let algorithm = text.parse();
    algorithm
        .map(Some)
        .map_err(|_| Status::invalid_argument("algorithm must be p256 or p384, or be left out"))
}

/// As one that has left.
pub(in crate::api::admin) fn departed(
    kind: AuthorityKind,
    departed: &DepartedAuthority,
) -> wire::DepartedAuthority {
    wire::DepartedAuthority {
        authority_id: departed.id.to_string(),
        kind: kind.to_string(),
        left_unix_ms: unix_millis(departed.at),
        how: departed.left.name().to_owned(),
        author: departed.author.to_string(),
        forced: departed.forced,
        has_key: departed.has_key,
    }
}

/// What is under way with an authority says when it is over with it.
pub(in crate::api::admin) fn under_way(
    shown: &mut wire::Authority,
    id: AuthorityId,
    operations: &[OperationReport],
) {
    let mut running = operations.iter().filter(|one| {
        let operation = &one.operation;
        !operation.stage.is_end() && (operation.target == id || operation.taken_away() == Some(id))
    });
    let Some(report) = running.next_back() else {
        return;
    };
    shown.operation_id = operation_id(report);
    let leaves_unused = report.operation.verb == Verb::Retire && report.operation.stage == Stage::Draining;
    if leaves_unused && report.operation.taken_away() == Some(id) {
        "be revoked once unused".clone_into(&mut shown.next);
        shown.next_unix_ms = 0;
    }
    if report.operation.target == id && report.at_latest.is_some() && report.operation.verb != Verb::Prepare {
        shown.next_unix_ms = millis(report.at_latest);
    }
}

fn operation_id(report: &OperationReport) -> String {
    format!("{}-{}", report.kind, report.operation.number)
}

fn count(agents: usize) -> u32 {
    u32::try_from(agents).unwrap_or(u32::MAX)
}

/// What is told first of an operation about a successor: that there is one.
pub(in crate::api::admin) fn begun(report: &OperationReport) -> Option<wire::AuthorityProgress> {
    report
        .operation
        .verb
        .has_successor()
        .then(|| wire::AuthorityProgress {
            step: "prepared".to_owned(),
            done: false,
            message: String::new(),
            ..progress(report, Vec::new())
        })
}

/// How an operation stands.
pub(in crate::api::admin) fn progress(
    report: &OperationReport,
    awaited: Vec<wire::Straggler>,
) -> wire::AuthorityProgress {
    let operation = &report.operation;
    let previous = operation.previous.map(|id| id.to_string());
    wire::AuthorityProgress {
        step: step(operation.verb, operation.stage).to_owned(),
        authority_id: operation.target.to_string(),
        old_authority_id: previous.unwrap_or_default(),
        agents: count(report.agents),
        agents_reported: count(report.reported),
        done: operation.stage.is_end(),
        message: said(report),
        operation_id: operation_id(report),
        recorded: true,
        awaited_total: count(report.awaited_total()),
        awaited,
        not_before_unix_ms: millis(report.not_before),
        at_latest_unix_ms: millis(report.at_latest),
        verb: operation.verb.name().to_owned(),
        kind: report.kind.to_string(),
        author: operation.author.to_string(),
        begun_unix_ms: unix_millis(operation.begun),
        ended_unix_ms: millis(operation.ended),
    }
}

const fn step(verb: Verb, stage: Stage) -> &'static str {
    match (stage, verb) {
        (Stage::Spreading, _) => "spreading",
        (Stage::Draining, Verb::Emergency) => "replacing",
        (Stage::Draining, _) => "draining",
        (Stage::Telling, Verb::Taint) => "tainting",
        (Stage::Telling, Verb::Revoke) => "revoking",
        (Stage::Telling, Verb::Emergency) => "attesting",
        (Stage::Telling, _) => "leaving",
        (Stage::Done, Verb::Prepare) => "spread",
        (Stage::Done, Verb::Activate | Verb::Rotate) => "activated",
        (Stage::Done, Verb::Retire) => "retired",
        (Stage::Done, Verb::Emergency) => "replaced",
        (Stage::Done, Verb::Taint) => "tainted",
        (Stage::Done, Verb::Revoke) => "revoked",
        (Stage::Superseded, _) => "superseded",
    }
}

fn said(report: &OperationReport) -> String {
    match (report.operation.stage, report.not_before, report.at_latest) {
        (Stage::Spreading, Some(not_before), Some(at_latest)) => {
            let what = if report.operation.verb == Verb::Prepare {
                "may sign"
            } else {
                "signs"
            };
            format!(
                "{what} from {} at the earliest, {} at the latest",
                rfc3339(not_before),
                rfc3339(at_latest)
            )
        }
        (Stage::Telling, ..) if report.operation.verb == Verb::Emergency && report.awaited_total() > 0 => {
            "an agent that stays away needs the anchors file of today (docs/operating.md, \"A stolen key\"); `agent ban NODE` for a node that is no more".to_owned()
        }
        (Stage::Spreading, None, Some(at_latest)) => format!("signs by {}", rfc3339(at_latest)),
        (Stage::Superseded, ..) => {
            "the authority does not take over: another one does, or it is tainted".to_owned()
        }
        _ => String::new(),
    }
}
