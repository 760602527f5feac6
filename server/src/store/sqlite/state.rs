//! What the writer keeps in memory. All of it but the buckets of budgets follows from the tables: after a transaction that
//! failed, it is loaded again, and the buckets are full.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use rusqlite::Connection;
use signet_certs::authority::AuthorityId;
use signet_certs::id::SpiffeId;
use signet_certs::time::from_unix_millis;

use super::compromised;
use super::convert::{authority_at, millis, number_at, serial_at, span_ms, unreadable};
use super::fingerprint::Fingerprints;
use super::judged::Judged;
use super::known_agents::KnownAgents;
use super::live::{Live, LiveRow};
use super::read::denial_from;
use super::schema::{AUDIT_LEFT_OUT, MARK, REVISION, meta_number};
use super::workloads::Workloads;
use crate::store::budget::AgentBudget;
use crate::store::denials::Denials;
use crate::store::{AuthorityUse, CLOCK_TOLERANCE, Denial, EvidenceKind};

/// [`CLOCK_TOLERANCE`] in milliseconds.
pub(super) fn tolerance_ms() -> i64 {
    span_ms(CLOCK_TOLERANCE)
}

/// The writer's memory.
pub(super) struct State {
    pub(super) epoch: u64,
    pub(super) boot: u64,
    pub(super) authorities: Authorities,
    pub(super) workloads: Workloads,
    pub(super) rules: HashMap<String, i64>,
    pub(super) live: Live,
    /// What each agent has left, by its SPIFFE ID; who is not here has everything.
    pub(super) agent_budgets: HashMap<String, AgentBudget>,
    /// Node agents.
    pub(super) known_agents: KnownAgents,
    /// Denials that nobody has lifted, some of which may have ended.
    pub(super) denials: Denials,
    /// SHA-256 of the public keys that no certificate may carry.
    pub(super) compromised: HashSet<[u8; 32]>,
    /// Node tokens and the key each was used with.
    pub(super) node_tokens: HashMap<NodeToken, NodeTokenUse>,
    /// Number of the last revocation.
    pub(super) revision: u64,
    /// How the lists stood when all that waits for them was judged; nothing once they may have shrunk.
    pub(super) judged: Option<Judged>,
    /// Sequence of the next audit line.
    pub(super) next_line: u64,
    /// Sequence of the last audit line that was emitted.
    pub(super) emitted: u64,
    /// Audit lines left out since that was told.
    pub(super) left_out: u64,
    /// Latest confirmed time, in milliseconds: what had ended by then may be gone from memory.
    pub(super) mark: i64,
    /// Latest settled time, in milliseconds, that this process was told: what had ended by then may leave its list.
    pub(super) settled: i64,
}

/// A node token: its id is unique in its cluster, and another cluster may well issue the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct NodeToken {
    pub(super) cluster_uid: String,
    pub(super) jti: String,
}

/// First use of a node token.
pub(super) struct NodeTokenUse {
    pub(super) spki_sha256: [u8; 32],
    pub(super) not_after: i64,
}

impl State {
    /// Reads everything back. One scan of the ledger.
    pub(super) fn load(conn: &Connection, fingerprints: Fingerprints) -> rusqlite::Result<Self> {
        let mut live = Live::default();
        let mut state = Self {
            epoch: meta_number(conn, "epoch")?,
            boot: meta_number(conn, "boot")?,
            authorities: Authorities::load(conn)?,
            workloads: Workloads::load(conn, fingerprints, &mut live)?,
            rules: load_rules(conn)?,
            live,
            agent_budgets: HashMap::new(),
            known_agents: KnownAgents::load(conn)?,
            denials: load_denials(conn)?,
            compromised: compromised::load(conn)?,
            node_tokens: HashMap::new(),
            revision: meta_number(conn, REVISION)?,
            judged: None,
            next_line: next_line(conn)?,
            emitted: super::audit_rows::read_cursor(conn)?.sequence,
            left_out: meta_number(conn, AUDIT_LEFT_OUT)?,
            mark: meta_number(conn, MARK)?.cast_signed(),
            settled: i64::MIN,
        };
        state.load_ledger(conn)?;
        Ok(state)
    }

    fn load_ledger(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let mut statement = conn.prepare(
            "SELECT l.serial, l.authority, l.workload, l.not_after, l.evidence, l.token_jti, l.spki_sha256,
                    EXISTS (SELECT 1 FROM revocation r WHERE r.authority = l.authority AND r.serial = l.serial),
                    CASE l.evidence WHEN ?1 THEN (SELECT w.cluster_uid FROM workload w WHERE w.id = l.workload) END
             FROM ledger l",
        )?;
        let mut rows = statement.query([EvidenceKind::NodeToken as i64])?;
        while let Some(row) = rows.next()? {
            let (authority, workload, not_after) = (row.get(1)?, row.get(2)?, row.get(3)?);
            self.live.saw(authority, not_after);
            let slot = self
                .workloads
                .count_row(workload)
                .ok_or_else(|| unreadable(2, "workload of a row"))?;
            let revoked: bool = row.get(7)?;
            if not_after > self.mark - tolerance_ms() && !revoked {
                self.live.add(
                    slot,
                    LiveRow {
                        serial: serial_at(row, 0)?,
                        authority,
                        not_after,
                    },
                );
            }
            if let (Some(cluster_uid), Some(jti)) = (row.get(8)?, row.get(5)?) {
                self.node_tokens.insert(
                    NodeToken { cluster_uid, jti },
                    NodeTokenUse {
                        spki_sha256: row.get(6)?,
                        not_after,
                    },
                );
            }
        }
        Ok(())
    }

    /// The denial in force against an agent, by its name or its node.
    pub(super) fn denial_of_agent(&self, agent: &SpiffeId, earliest: SystemTime) -> Option<&Denial> {
        self.denials.of(&self.known_agents.subject(agent), earliest)
    }

    /// How much of what each authority signed is in use, by authority.
    pub(super) fn authority_uses(&self, now: i64) -> rusqlite::Result<Vec<AuthorityUse>> {
        let counts = self.live.counts(now).into_iter();
        let uses = counts.map(|(row, live, latest)| {
            Ok(AuthorityUse {
                authority: self.authorities.id(row)?,
                live,
                latest_not_after: from_unix_millis(latest),
            })
        });
        let mut uses = uses.collect::<rusqlite::Result<Vec<_>>>()?;
        uses.sort_by_key(|usage| usage.authority);
        Ok(uses)
    }

    /// The row of a rule's name.
    pub(super) fn rule(&mut self, conn: &Connection, name: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.rules.get(name) {
            return Ok(*id);
        }
        conn.prepare_cached("INSERT INTO rule (name) VALUES (?1)")?
            .execute([name])?;
        let id = conn.last_insert_rowid();
        self.rules.insert(name.to_owned(), id);
        Ok(id)
    }

    /// Whether this is earlier than the confirmed time, by more than clocks may differ.
    pub(super) fn is_behind(&self, now: SystemTime) -> bool {
        self.mark - millis(now) > tolerance_ms()
    }
}

/// Authorities and the small numbers that stand for them in other tables.
#[derive(Default)]
pub(super) struct Authorities {
    rows: HashMap<AuthorityId, i64>,
    ids: HashMap<i64, AuthorityId>,
}

impl Authorities {
    pub(super) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let mut authorities = Self::default();
        let mut statement = conn.prepare("SELECT id, authority_id FROM authority")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            authorities.insert(row.get(0)?, authority_at(row, 1)?);
        }
        Ok(authorities)
    }

    fn insert(&mut self, row: i64, id: AuthorityId) {
        self.rows.insert(id, row);
        self.ids.insert(row, id);
    }

    /// The row of an authority that the store has heard of.
    pub(super) fn known(&self, id: &AuthorityId) -> Option<i64> {
        self.rows.get(id).copied()
    }

    /// The authority of a row.
    pub(super) fn id(&self, row: i64) -> rusqlite::Result<AuthorityId> {
        self.ids
            .get(&row)
            .copied()
            .ok_or_else(|| unreadable(0, "authority of a row"))
    }

    /// The row of an authority, made when it is new.
    pub(super) fn intern(&mut self, conn: &Connection, id: AuthorityId) -> rusqlite::Result<i64> {
        if let Some(row) = self.known(&id) {
            return Ok(row);
        }
        conn.prepare_cached("INSERT INTO authority (authority_id) VALUES (?1)")?
            .execute([id.as_bytes()])?;
        let row = conn.last_insert_rowid();
        self.insert(row, id);
        Ok(row)
    }
}

fn load_rules(conn: &Connection) -> rusqlite::Result<HashMap<String, i64>> {
    let mut statement = conn.prepare("SELECT name, id FROM rule")?;
    statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

fn load_denials(conn: &Connection) -> rusqlite::Result<Denials> {
    let mut denials = Denials::default();
    let mut statement = conn.prepare(&format!("{} WHERE lifted_at IS NULL", super::read::DENIALS))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        denials.insert(row.get(9)?, denial_from(row)?);
    }
    Ok(denials)
}

fn next_line(conn: &Connection) -> rusqlite::Result<u64> {
    let after_rows: u64 = conn.query_row(
        "SELECT coalesce((SELECT first + count FROM audit ORDER BY first DESC LIMIT 1), 1)",
        [],
        |row| number_at(row, 0),
    )?;
    let cursor = super::audit_rows::read_cursor(conn)?;
    Ok(after_rows.max(cursor.sequence + 1))
}
