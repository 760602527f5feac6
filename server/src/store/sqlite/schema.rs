//! Tables, as numbered migrations that only go forward.
//!
//! No index holds all rows of the ledger: with one, issuing falls to a twentieth. What is looked up by SPIFFE ID, pod or
//! node goes through the interned workloads and through memory. Its key is the serial, which begins with the time, so
//! rows are added at the right edge and pruned at the left one. Times are milliseconds since 1970.

use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior, params};

/// Migration `n` brings version `n` to `n + 1`. Never change one that was released: add another.
const MIGRATIONS: &[&str] = &[V1, V2, V3, V4, V5, V6, V7, V8, V9, V10];

/// The version this release writes.
pub(super) const VERSION: i64 = 10;

const V1: &str = "
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE authority (
    id           INTEGER PRIMARY KEY,
    authority_id BLOB NOT NULL UNIQUE
);

CREATE TABLE rule (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL
);

CREATE TABLE workload (
    id            INTEGER PRIMARY KEY,
    cluster_uid   TEXT NOT NULL,
    spiffe_id     TEXT NOT NULL,
    pod_namespace TEXT NOT NULL,
    pod_name      TEXT NOT NULL,
    pod_uid       TEXT NOT NULL,
    node_name     TEXT NOT NULL,
    node_uid      TEXT NOT NULL,
    agent_id      TEXT NOT NULL
);

CREATE TABLE ledger (
    serial          BLOB PRIMARY KEY,
    epoch           INTEGER NOT NULL,
    authority       INTEGER NOT NULL,
    workload        INTEGER NOT NULL,
    evidence        INTEGER NOT NULL,
    token_jti       TEXT,
    spki_sha256     BLOB NOT NULL,
    rule            INTEGER NOT NULL,
    policy_revision INTEGER NOT NULL,
    not_before      INTEGER NOT NULL,
    not_after       INTEGER NOT NULL
) WITHOUT ROWID;

-- listed: the entry was on a CRL issued after the certificate's expiry and need not be on another.
CREATE TABLE revocation (
    authority  INTEGER NOT NULL,
    serial     BLOB NOT NULL,
    revoked_at INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    not_after  INTEGER NOT NULL,
    revision   INTEGER NOT NULL,
    listed     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (authority, serial)
) WITHOUT ROWID;

CREATE TABLE denial (
    number     INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    kind       TEXT NOT NULL,
    target     TEXT NOT NULL,
    author     TEXT NOT NULL,
    comment    TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    lifted_at  INTEGER,
    lifted_by  TEXT
);

CREATE TABLE crl (
    authority   INTEGER PRIMARY KEY,
    number      INTEGER NOT NULL,
    der         BLOB NOT NULL,
    this_update INTEGER NOT NULL,
    next_update INTEGER NOT NULL,
    revision    INTEGER NOT NULL
);

CREATE TABLE journal (
    kind     TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,
    body     BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE sealed_key (
    authority_id BLOB PRIMARY KEY,
    purpose      TEXT NOT NULL,
    kek_id       TEXT NOT NULL,
    epoch        INTEGER NOT NULL,
    nonce        BLOB NOT NULL,
    ciphertext   BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE agent (
    spiffe_id   TEXT PRIMARY KEY,
    cluster     TEXT NOT NULL,
    node_name   TEXT NOT NULL,
    node_uid    TEXT NOT NULL,
    serial      BLOB NOT NULL,
    authority   INTEGER NOT NULL,
    attested_at INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) WITHOUT ROWID;

-- One row per transaction that had something to say; lines first … first + count - 1.
CREATE TABLE audit (
    first      INTEGER PRIMARY KEY,
    count      INTEGER NOT NULL,
    boot       INTEGER NOT NULL,
    written_at INTEGER NOT NULL,
    body       BLOB NOT NULL
);
";

const V2: &str = "ALTER TABLE workload ADD COLUMN process TEXT NOT NULL DEFAULT '';";

/// What was revoked before is on its list. The index holds what waits: mostly nothing.
const V3: &str = "
-- class: why it was revoked, as far as the order of entering the lists goes.
ALTER TABLE revocation ADD COLUMN class TEXT NOT NULL DEFAULT 'identity';
-- entered: lists name it from its revision on; 0 waits for room.
ALTER TABLE revocation ADD COLUMN entered INTEGER NOT NULL DEFAULT 1;
UPDATE revocation SET class = 'by-hand' WHERE reason = 'keyCompromise';
CREATE INDEX revocation_waiting ON revocation (authority) WHERE entered = 0;
";

/// Keys that were revoked as compromised; they outlive their certificates.
const V4: &str = "
CREATE TABLE compromised_key (
    spki_sha256 BLOB PRIMARY KEY
) WITHOUT ROWID;

INSERT OR IGNORE INTO compromised_key
    SELECT l.spki_sha256 FROM ledger l
    JOIN revocation r ON r.authority = l.authority AND r.serial = l.serial
    WHERE r.reason = 'keyCompromise';
";

/// Which certificates of an agent count. What was issued before is of the first generation where it is the newest, and
/// otherwise of none.
const V5: &str = "
ALTER TABLE ledger ADD COLUMN generation INTEGER;
ALTER TABLE agent ADD COLUMN epoch INTEGER NOT NULL DEFAULT 1;
ALTER TABLE agent ADD COLUMN generation INTEGER NOT NULL DEFAULT 1;
ALTER TABLE agent ADD COLUMN used_epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agent ADD COLUMN used_generation INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agent ADD COLUMN revoked_epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agent ADD COLUMN revoked_generation INTEGER NOT NULL DEFAULT 0;

UPDATE ledger SET generation = 1 WHERE serial IN (SELECT serial FROM agent);
UPDATE agent SET revoked_epoch = 1, revoked_generation = 1
    WHERE EXISTS (SELECT 1 FROM revocation r WHERE r.authority = agent.authority AND r.serial = agent.serial);
";

/// What agents hold, and by which pods they attested.
const V6: &str = "
ALTER TABLE agent ADD COLUMN pod_uid TEXT NOT NULL DEFAULT '';
ALTER TABLE agent ADD COLUMN reported INTEGER NOT NULL DEFAULT 0;
";

/// What a restart must not forget of clusters.
const V7: &str = "
-- unreachable_since: NULL while the API server can be reached.
CREATE TABLE cluster (
    name              TEXT PRIMARY KEY,
    uid               TEXT,
    unreachable_since INTEGER,
    issuer            TEXT,
    signing_keys      BLOB
) WITHOUT ROWID;
";

/// Lists as evidence about the store itself.
const V8: &str = "
-- The last lists of each authority that were kept.
CREATE TABLE crl_digest (
    authority INTEGER NOT NULL,
    number    INTEGER NOT NULL,
    sha256    BLOB NOT NULL,
    PRIMARY KEY (authority, number)
) WITHOUT ROWID;

-- Lists that authorities of this store have signed and that were never kept in it.
CREATE TABLE list_proof (
    authority INTEGER NOT NULL,
    sha256    BLOB NOT NULL,
    number    INTEGER NOT NULL,
    der       BLOB NOT NULL,
    agent     TEXT NOT NULL,
    found_at  INTEGER NOT NULL,
    PRIMARY KEY (authority, sha256)
);
";

/// What rests on an outage. The index holds what waits for its review: mostly nothing.
const V9: &str = "
-- outage: 1 waits for its late review, 0 was reviewed, NULL needs none.
ALTER TABLE ledger ADD COLUMN outage INTEGER;
CREATE INDEX ledger_unreviewed ON ledger (serial) WHERE outage = 1;
";

/// Since when a certificate is not to be believed, where an admin has said it.
const V10: &str = "ALTER TABLE revocation ADD COLUMN invalid_since INTEGER;";

/// Why the schema could not be brought up to date.
pub(super) enum MigrateError {
    Newer { found: i64 },
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for MigrateError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// Applies what is missing, each migration in a transaction of its own.
pub(super) fn migrate(conn: &mut Connection) -> Result<(), MigrateError> {
    loop {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if found > VERSION {
            return Err(MigrateError::Newer { found });
        }
        let Some(sql) = usize::try_from(found)
            .ok()
            .and_then(|index| MIGRATIONS.get(index))
        else {
            return Ok(());
        };
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "user_version", found + 1)?;
        tx.commit()?;
    }
}

/// How long a connection waits for another one's lock.
pub(super) const BUSY: std::time::Duration = std::time::Duration::from_secs(5);

/// Settings of every connection.
pub(super) fn configure(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY)?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    // 32 MiB of pages; a checkpoint every 16 MiB of log, because it stalls the commit that triggers it.
    conn.pragma_update(None, "cache_size", -32_768)?;
    conn.pragma_update(None, "wal_autocheckpoint", 4_096)?;
    // Plans that bound values could change are thrown away at each binding: a tenth of the time that a certificate takes.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Key in `meta` of the latest confirmed time.
pub(super) const MARK: &str = "high_water_ms";
/// Key in `meta`: 1 while the delay after a jump of the clock is running.
pub(super) const JUMPED: &str = "clock_jumped";
/// Key in `meta` of the number of the last revocation.
pub(super) const REVISION: &str = "revocation_revision";
/// Key in `meta` of the last audit line emitted.
pub(super) const AUDIT_CURSOR: &str = "audit_cursor";
/// The newest signed head of the audit log.
pub(super) const AUDIT_HEAD: &str = "audit_head";

/// Key in `meta` of the rules that were accepted last.
pub(super) const ACCEPTED_RULES: &str = "accepted_rules";

/// Key in `meta` of the rules that admins have set.
pub(super) const ADMIN_RULES: &str = "admin_rules";

/// In `meta`: how many audit lines were left out since that was told.
pub(super) const AUDIT_LEFT_OUT: &str = "audit_left_out";

/// A number kept in `meta`; 0 when it was never set.
pub(super) fn meta_number(conn: &Connection, key: &str) -> rusqlite::Result<u64> {
    Ok(meta_text(conn, key)?
        .and_then(|text| text.parse().ok())
        .unwrap_or(0))
}

/// A text kept in `meta`.
pub(super) fn meta_text(conn: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    use rusqlite::OptionalExtension as _;
    conn.prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()
}

/// Writes a page of nothing, another one each time: SQLite writes no page whose content stays.
pub(super) fn write_a_page(conn: &Connection) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO meta VALUES ('probe', hex(randomblob(2048))) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )?
    .execute([])?;
    Ok(())
}

/// Sets a value in `meta`.
pub(super) fn set_meta(conn: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )?
    .execute(params![key, value])?;
    Ok(())
}

#[cfg(test)]
mod tests;
