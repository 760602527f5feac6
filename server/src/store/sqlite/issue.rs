//! Recording certificates that are about to be signed.

use std::time::SystemTime;

use rusqlite::{Connection, Statement, params};
use signet_certs::serial::SerialNumber;

use super::agents;
use super::convert::millis;
use super::fingerprint::{Fingerprint, Fingerprints};
use super::live::LiveRow;
use super::state::{NodeToken, NodeTokenUse, State};
use super::writer::{Tx, Writer};
use crate::store::budget::{Bucket, take};
use crate::store::ledger::batch_size;
use crate::store::{
    AgentShare, EvidenceKind, IssueRefusal, NewIssuance, Recorded, Standing, StoreError, Subject,
};

// The primary key is the only constraint that can be broken here: a serial that was drawn twice.
const INSERT: &str = "
    INSERT INTO ledger (serial, epoch, authority, workload, evidence, token_jti, spki_sha256, rule, policy_revision,
                        not_before, not_after, generation, outage)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
    ON CONFLICT DO NOTHING";

/// An item with what can be worked out before the writer has it.
struct Prepared {
    item: NewIssuance,
    fingerprint: Fingerprint,
}

/// Records a batch once it may be, with what can be worked out before.
pub(super) async fn recorded(
    writer: &Writer,
    fingerprints: Fingerprints,
    batch: Vec<NewIssuance>,
    now: SystemTime,
) -> Result<Vec<Result<Recorded, IssueRefusal>>, StoreError> {
    let size = batch_size(&batch)?;
    let is_own = batch.iter().all(|item| item.evidence == EvidenceKind::Own);
    let prepare = |item: NewIssuance| Prepared {
        fingerprint: fingerprints.of(&item.workload),
        item,
    };
    let batch: Vec<Prepared> = batch.into_iter().map(prepare).collect();
    // The batch comes back with the answer, once that is durable: the rows go to whoever signs, and nothing is
    // freed by the only writer.
    let work = move |tx: &mut Tx<'_>| Ok((issue(tx, &batch, now)?, batch));
    // Without the server's own certificates no agent hears what was revoked.
    let (verdicts, batch) = match is_own {
        true => writer.run_protecting(size, work).await?,
        false => writer.run_with_room(size, work).await?,
    };
    let recorded = |(verdict, prepared): (Result<u32, IssueRefusal>, Prepared)| {
        verdict.map(|displaced| Recorded::new(prepared.item, displaced))
    };
    Ok(verdicts.into_iter().zip(batch).map(recorded).collect())
}

/// Judges and records a batch, item by item. Of each that is recorded: how many of its workload are displaced.
fn issue(
    tx: &mut Tx<'_>,
    batch: &[Prepared],
    now: SystemTime,
) -> rusqlite::Result<Vec<Result<u32, IssueRefusal>>> {
    let mut insert = tx.conn.prepare_cached(INSERT)?;
    batch.iter().map(|item| one(tx, &mut insert, item, now)).collect()
}

fn one(
    tx: &mut Tx<'_>,
    insert: &mut Statement<'_>,
    Prepared { item, fingerprint }: &Prepared,
    now: SystemTime,
) -> rusqlite::Result<Result<u32, IssueRefusal>> {
    let judged = judge(tx, item, fingerprint).and_then(|()| count(tx.state, item, fingerprint, now));
    let displaced = match judged {
        Ok(displaced) => displaced,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let authority = tx.state.authorities.intern(tx.conn, item.authority)?;
    let rule = tx.state.rule(tx.conn, &item.rule)?;
    let generation = item.attestation.as_ref().map(|_| {
        tx.state
            .known_agents
            .next(&item.workload.spiffe_id, tx.state.epoch)
    });
    let epoch = tx.state.epoch.cast_signed();
    let State { workloads, live, .. } = &mut *tx.state;
    let workload = match workloads.known(fingerprint) {
        Some(known) => known,
        None => workloads.create(tx.conn, *fingerprint, &item.workload, live)?,
    };
    // Before the insert: should the serial be taken, a new workload goes again with its only use.
    workloads.count_row(workload.row);
    let not_after = millis(item.not_after);
    let inserted = insert.execute(params![
        item.serial.as_bytes(),
        epoch,
        authority,
        workload.row,
        item.evidence as i64,
        item.token_jti,
        item.spki_sha256.as_slice(),
        rule,
        item.policy_revision.cast_signed(),
        millis(item.not_before),
        not_after,
        generation.map(|generation| generation.number.cast_signed()),
        item.outage.then_some(1),
    ])?;
    if inserted == 0 {
        workloads.release(tx.conn, workload.row, live)?;
        return Ok(Err(IssueRefusal::SerialTaken));
    }
    live.add(
        workload.slot,
        LiveRow {
            serial: item.serial,
            authority,
            not_after,
        },
    );
    if let (Some(attestation), Some(generation)) = (&item.attestation, generation) {
        agents::attested(tx, item, attestation, authority, generation)?;
    }
    if let Some(token) = node_token(item) {
        let usage = NodeTokenUse {
            spki_sha256: item.spki_sha256,
            not_after,
        };
        tx.state.node_tokens.entry(token).or_insert(usage);
    }
    tx.audit.issued(millis(now), item.serial);
    Ok(Ok(displaced))
}

/// Takes the mark of an outage off these rows.
pub(super) fn reviewed(conn: &Connection, serials: &[SerialNumber]) -> rusqlite::Result<()> {
    let mut update = conn.prepare_cached("UPDATE ledger SET outage = 0 WHERE serial = ?1 AND outage = 1")?;
    for serial in serials {
        update.execute([serial.as_bytes()])?;
    }
    Ok(())
}

/// The agent that asks: it may have been admitted before somebody revoked it.
fn judge_caller(tx: &Tx<'_>, item: &NewIssuance) -> Result<(), IssueRefusal> {
    let Some(serial) = &item.caller else {
        return Ok(());
    };
    let known = &tx.state.known_agents;
    let Some(agent) = known.owner(serial) else {
        return Err(IssueRefusal::Caller(Standing::Unknown));
    };
    let denial = tx.state.denial_of_agent(agent, item.earliest);
    let denial = denial.map(|denial| denial.id.as_str());
    match known.standing(agent, serial, denial) {
        (Standing::Counts, _) => Ok(()),
        (lost, _) => Err(IssueRefusal::Caller(lost)),
    }
}

/// Denial first: a denied target learns nothing of its budget.
fn judge(tx: &Tx<'_>, item: &NewIssuance, fingerprint: &Fingerprint) -> Result<(), IssueRefusal> {
    judge_caller(tx, item)?;
    if let Some(denial) = tx.state.denials.of(&Subject::from(&item.workload), item.earliest) {
        return Err(IssueRefusal::Denied {
            denial_id: denial.id.clone(),
        });
    }
    if tx.state.compromised.contains(&item.spki_sha256) {
        return Err(IssueRefusal::CompromisedKey);
    }
    let of_pod = !item.workload.pod_uid.is_empty();
    if item.outage && of_pod && tx.state.workloads.known(fingerprint).is_none() {
        return Err(IssueRefusal::NewInOutage);
    }
    if let Some(token) = node_token(item)
        && let Some(first) = tx.state.node_tokens.get(&token)
        && first.spki_sha256 != item.spki_sha256
    {
        return Err(IssueRefusal::TokenReused);
    }
    Ok(())
}

/// The token that must be used with one key only.
fn node_token(item: &NewIssuance) -> Option<NodeToken> {
    let jti = item.token_jti.clone()?;
    (item.evidence == EvidenceKind::NodeToken).then(|| NodeToken {
        cluster_uid: item.workload.cluster_uid.clone(),
        jti,
    })
}

/// Takes the item out of its budgets: the last thing to refuse it.
fn count(
    state: &mut State,
    item: &NewIssuance,
    fingerprint: &Fingerprint,
    now: SystemTime,
) -> Result<u32, IssueRefusal> {
    let Some(budget) = &item.budget else {
        return Ok(0);
    };
    let slot = state.workloads.slot(fingerprint, &item.workload, &state.live);
    let used = slot.map(|slot| state.live.used(slot, millis(now)));
    let (live, mut bucket) = used.unwrap_or_else(|| (0, Bucket::default()));
    let agent_id = item.workload.agent_id.as_str();
    let known = state.agent_budgets.get(agent_id).copied();
    let mut agent = known.unwrap_or_default();
    let displaced = take(budget, live, &mut bucket, &mut agent, now);
    if let Some(slot) = slot {
        state.live.set_bucket(slot, bucket);
    }
    if budget.share != AgentShare::Itself {
        match state.agent_budgets.get_mut(agent_id) {
            Some(left) => *left = agent,
            None => drop(state.agent_budgets.insert(agent_id.to_owned(), agent)),
        }
    }
    Ok(displaced?)
}
