//! What the store in memory keeps, and the small changes to it: journals, keys, lists, audit lines.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::SystemTime;

use ring::digest::{SHA256, digest};
use signet_certs::authority::{AuthorityId, AuthorityKind};
use signet_certs::crl::{CrlNumber, RevocationReason};
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;

use crate::audit_event::{AuditAction, AuditCursor, AuditEvent, StoredLine};
use crate::store::budget::{AgentBudget, Bucket};
use crate::store::issued_line::{IssuedLine, IssuedTo};
use crate::store::proofs::LISTS_KNOWN;
use crate::store::room::Class;
use crate::store::{
    AgentRow, ClusterRow, Denial, Generation, Journal, KeyChanges, ListProof, NewIssuance, SealedKey,
    StoreError, StoreInfo, StoredCrl,
};

/// Everything a [`MemoryStore`](super::MemoryStore) holds.
#[derive(Default)]
pub(crate) struct Kept {
    /// The authorities' histories.
    pub journals: BTreeMap<AuthorityKind, Journal>,
    /// Sealed keys.
    pub keys: BTreeMap<AuthorityId, SealedKey>,
    /// Every list that was saved, oldest first.
    pub crls: BTreeMap<AuthorityId, Vec<StoredCrl>>,
    /// Lists that its authorities have signed and that it lacks.
    pub proofs: Vec<ListProof>,
    /// Clusters, by name.
    pub clusters: BTreeMap<String, ClusterRow>,
    /// Node agents.
    pub agents: BTreeMap<SpiffeId, AgentRow>,
    /// Certificates of agents that are in the ledger.
    pub(super) certificates: HashMap<SerialNumber, (SpiffeId, Generation)>,
    /// The ledger, in the order of issuing.
    pub(super) rows: Vec<NewIssuance>,
    /// Serials of certificates that rest on an outage and were not reviewed.
    pub(super) unreviewed: BTreeSet<SerialNumber>,
    /// Serials in the ledger.
    pub(super) serials: BTreeSet<SerialNumber>,
    /// When the last certificate of an authority ends; it stays when the row is pruned.
    pub(super) latest: BTreeMap<AuthorityId, SystemTime>,
    /// Node tokens, the key each was used with first, and the end of that certificate.
    pub(super) node_tokens: HashMap<(String, String), ([u8; 32], SystemTime)>,
    /// What each workload may still displace, by identity and owner.
    pub(super) buckets: HashMap<(SpiffeId, String), Bucket>,
    /// What each agent has left.
    pub(super) agent_budgets: HashMap<String, AgentBudget>,
    /// Authorities that this store has heard of.
    pub(super) authorities: BTreeSet<AuthorityId>,
    pub(super) revocations: BTreeMap<(AuthorityId, SerialNumber), Revocation>,
    /// SHA-256 of the public keys that no certificate may carry.
    pub(super) compromised: BTreeSet<[u8; 32]>,
    /// The rules that were accepted last.
    pub(super) accepted_rules: Option<String>,
    /// The rules that admins have set.
    pub(super) admin_rules: Option<String>,
    /// Number of the last revocation.
    pub(super) revision: u64,
    /// Denials with their numbers.
    pub(super) denials: BTreeMap<i64, Denial>,
    /// Digest and number of the newest bundle.
    sequence: Option<([u8; 32], u64)>,
    pub(super) lines: VecDeque<Line>,
    /// How many lines there ever were.
    last_line: u64,
    /// Lines that may wait.
    pub(super) most_lines: Option<u64>,
    /// Lines left out since that was told.
    untold: u64,
    /// The same since the store was opened.
    pub(super) left_out: u64,
    /// How far emission has come.
    pub(super) cursor: AuditCursor,
    /// The newest signed head.
    pub(super) head: Option<String>,
    /// The latest confirmed time.
    pub(super) mark: Option<SystemTime>,
    /// The latest settled time.
    pub(super) settled: Option<SystemTime>,
    /// Whether the delay after a jump of the clock is running.
    pub(super) jumped: bool,
}

/// An entry of a list.
pub(super) struct Revocation {
    pub(super) revoked_at: SystemTime,
    pub(super) reason: RevocationReason,
    /// Since when it is not to be believed.
    pub(super) invalid_since: Option<SystemTime>,
    /// The end of the certificate; `None` while the authority signs lists.
    pub(super) not_after: Option<SystemTime>,
    pub(super) revision: u64,
    /// By which class it enters the lists.
    pub(super) class: Class,
    /// Lists name it from its revision on.
    pub(super) entered: bool,
    /// It was on a list made after the certificate's end and need not be on another.
    pub(super) listed: bool,
}

/// A stored line of the audit log.
pub(super) struct Line {
    sequence: u64,
    pub(super) written_at: SystemTime,
    entry: Entry,
}

enum Entry {
    Event(AuditEvent),
    Issued { at: SystemTime, row: Box<NewIssuance> },
}

impl Kept {
    pub(super) fn save_journal(
        &mut self,
        kind: AuthorityKind,
        expected: u64,
        body: Vec<u8>,
        keys: KeyChanges,
        audit: Vec<AuditEvent>,
    ) -> Result<u64, StoreError> {
        let stored = self.journals.get(&kind).map_or(0, |journal| journal.revision);
        if stored != expected {
            return Err(StoreError::Conflict { expected, stored });
        }
        let revision = stored + 1;
        self.journals.insert(kind, Journal { revision, body });
        for key in keys.add {
            self.authorities.insert(key.authority_id);
            self.keys.insert(key.authority_id, key);
        }
        for id in keys.remove {
            self.keys.remove(&id);
        }
        self.audit(audit);
        Ok(revision)
    }

    pub(super) fn save_crl(&mut self, crl: StoredCrl) -> Result<(), StoreError> {
        let lists = self.crls.entry(crl.authority).or_default();
        if let Some(newest) = lists.last() {
            crl.check_follows(newest.number, newest.revision)?;
        }
        self.authorities.insert(crl.authority);
        for ((authority, _), entry) in &mut self.revocations {
            // It was on this list, and the list was made after it ended (RFC 5280 §3.3), by settled time.
            let is_on_it = *authority == crl.authority && entry.entered && entry.revision <= crl.revision;
            let made = self.settled.map(|settled| settled.min(crl.this_update));
            entry.listed |= is_on_it && entry.not_after.is_some_and(|end| Some(end) < made);
        }
        lists.push(crl);
        Ok(())
    }

    pub(super) fn list_digest(&self, authority: AuthorityId, number: CrlNumber) -> Option<[u8; 32]> {
        let lists = self.crls.get(&authority)?;
        let forgotten = lists.last()?.number.0.saturating_sub(LISTS_KNOWN);
        let list = lists.iter().find(|list| list.number == number)?;
        let mut sum = [0; 32];
        sum.copy_from_slice(digest(&SHA256, &list.der).as_ref());
        (number.0 > forgotten).then_some(sum)
    }

    pub(super) fn next_sequence(&mut self, digest: [u8; 32]) -> u64 {
        let next = match self.sequence {
            Some((current, sequence)) if current == digest => sequence,
            other => other.map_or(1, |(_, sequence)| sequence + 1),
        };
        self.sequence = Some((digest, next));
        next
    }

    pub(super) fn audit(&mut self, events: Vec<AuditEvent>) {
        for event in events {
            let at = event.time();
            self.add_line(at, Entry::Event(event));
        }
    }

    pub(super) fn audit_issued(&mut self, at: SystemTime, row: &NewIssuance) {
        let row = Box::new(row.clone());
        self.add_line(at, Entry::Issued { at, row });
    }

    fn add_line(&mut self, at: SystemTime, entry: Entry) {
        let waiting = self.last_line.saturating_sub(self.cursor.sequence);
        if self.most_lines.is_some_and(|most| waiting >= most) {
            self.untold += 1;
            self.left_out += 1;
            return;
        }
        let lines = std::mem::take(&mut self.untold);
        if lines > 0 {
            let dropped = AuditEvent::new(at, AuditAction::AuditLinesDropped { lines });
            self.push_line(at, Entry::Event(dropped));
        }
        self.push_line(at, entry);
    }

    fn push_line(&mut self, at: SystemTime, entry: Entry) {
        self.last_line += 1;
        self.lines.push_back(Line {
            sequence: self.last_line,
            written_at: self.mark.unwrap_or(at),
            entry,
        });
    }

    /// The sequence of the newest line.
    pub(super) fn newest_line(&self) -> u64 {
        self.last_line
    }

    #[cfg(test)]
    pub(super) fn audit_events(&self) -> impl Iterator<Item = &AuditEvent> {
        self.lines.iter().filter_map(|line| match &line.entry {
            Entry::Event(event) => Some(event),
            Entry::Issued { .. } => None,
        })
    }

    pub(super) fn lines_after(&self, sequence: u64, limit: usize, info: &StoreInfo) -> Vec<StoredLine> {
        let waiting = self.lines.iter().filter(|line| line.sequence > sequence);
        let stored = |line: &Line| StoredLine {
            sequence: line.sequence,
            boot: info.boot,
            body: line.body(info.epoch),
        };
        waiting.take(limit).map(stored).collect()
    }

    pub(super) fn advance(&mut self, cursor: AuditCursor, head: Option<String>) {
        if cursor.sequence >= self.cursor.sequence {
            self.cursor = cursor;
            self.head = head.or_else(|| self.head.take());
            self.lines.retain(|line| line.sequence > cursor.sequence);
        }
    }
}

impl Line {
    fn body(&self, epoch: u64) -> String {
        match &self.entry {
            Entry::Event(event) => event.to_json(),
            Entry::Issued { at, row } => issued_line(row, *at, epoch)
                .to_json()
                .unwrap_or_else(|error| format!("{{\"error\":{:?}}}", error.to_string())),
        }
    }
}

fn issued_line(row: &NewIssuance, at: SystemTime, epoch: u64) -> IssuedLine<'_> {
    let workload = &row.workload;
    IssuedLine {
        at,
        serial: row.serial,
        authority: row.authority,
        workload: IssuedTo {
            spiffe_id: workload.spiffe_id.as_str(),
            cluster_uid: &workload.cluster_uid,
            pod_namespace: &workload.pod_namespace,
            pod_name: &workload.pod_name,
            pod_uid: &workload.pod_uid,
            node_name: &workload.node_name,
            node_uid: &workload.node_uid,
            agent_id: &workload.agent_id,
            process: &workload.process,
        },
        evidence: row.evidence,
        token_jti: row.token_jti.as_deref(),
        spki_sha256: &row.spki_sha256,
        rule: &row.rule,
        policy_revision: row.policy_revision,
        not_before: row.not_before,
        not_after: row.not_after,
        epoch,
        outage: row.outage,
    }
}
