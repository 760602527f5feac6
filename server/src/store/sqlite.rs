//! The embedded store: SQLite in WAL mode, every commit synced to the disk, one writer thread with group commit.
//!
//! Only one process may have it open; a lock file sees to that.

mod agents;
mod audit_rows;
mod clusters;
mod compromised;
mod convert;
mod entering;
mod files;
mod fingerprint;
#[cfg(test)]
mod gate;
mod identity;
mod issue;
mod journal;
mod judged;
mod known_agents;
mod lines;
mod live;
mod look;
mod proofs;
mod prune;
mod read;
mod reserve;
mod revoke;
mod rules;
mod schema;
mod state;
#[cfg(test)]
mod tests;
mod workloads;
mod writer;

pub(crate) use self::rules::admin_rules_in;

use std::path::Path;
use std::time::SystemTime;

use rusqlite::Connection;
use signet_certs::authority::{AuthorityId, AuthorityKind};
use signet_certs::id::{SpiffeId, TrustDomain};
use signet_certs::serial::SerialNumber;
use tokio::sync::watch;

use self::convert::millis;
use self::files::{StoreFiles, because_of_the_disk};
use self::fingerprint::Fingerprints;
use self::identity::{fill, identify};
use self::read::Reader;
use self::reserve::Reserve;
use self::schema::MigrateError;
use self::state::State;
use self::writer::Writer;
use super::{
    Admitted, AgentRow, AttestedAgents, AuditOutbox, AuthorityUse, Housekeeping, IssueRefusal, Journal,
    Journals, KeyChanges, KnownTime, Ledger, LedgerRow, ListRoom, Lists, LiveAgent, NewIssuance, OpenError,
    PodTokenUse, Presented, PresentedCertificate, Recorded, RevokedSet, SealedKey, Store, StoreError,
    StoreFuture, StoreInfo, StoredCrl, SvidFilter, SvidPage,
};
use crate::audit_event::{AuditCursor, AuditEvent, StoredLine};

/// The [`Store`] of a single server. Its methods need a tokio runtime around them.
pub(crate) struct SqliteStore {
    info: StoreInfo,
    writer: Writer,
    fingerprints: Fingerprints,
    /// For short reads that somebody waits for.
    reader: Reader,
    /// For lists and the audit log, which may take long.
    scanner: Reader,
    stored_lines: watch::Receiver<u64>,
    /// Held as long as the store is open; after the writer, so that it is let go last.
    _files: StoreFiles,
}

impl SqliteStore {
    /// Opens the store in `dir`, or makes one. Blocks; call it before serving.
    ///
    /// Makes `dir` (mode 0700) and the database in it (0600) where they are missing.
    pub(crate) fn open(dir: &Path, trust_domain: &TrustDomain) -> Result<Self, OpenError> {
        Self::open_on_disk(dir, trust_domain).map_err(|error| because_of_the_disk(dir, error))
    }

    fn open_on_disk(dir: &Path, trust_domain: &TrustDomain) -> Result<Self, OpenError> {
        let files = StoreFiles::prepare(dir)?;
        let path = files.database().to_owned();
        let reserve = Reserve::of(dir);
        let database = |error: rusqlite::Error| OpenError::Database {
            path: path.clone(),
            message: error.to_string(),
        };
        let mut conn = Connection::open(&path).map_err(database)?;
        schema::configure(&conn).map_err(database)?;
        schema::migrate(&mut conn).map_err(|error| match error {
            MigrateError::Newer { found } => OpenError::NewerSchema {
                path: path.clone(),
                found,
                known: schema::VERSION,
            },
            MigrateError::Sql(error) => database(error),
        })?;
        let info = identify(&mut conn, trust_domain).map_err(database)?;
        if info.trust_domain != *trust_domain {
            return Err(OpenError::WrongTrustDomain {
                path,
                stored: info.trust_domain.to_string(),
                configured: trust_domain.to_string(),
            });
        }
        let mut salt = [0; 16];
        fill(&mut salt).map_err(database)?;
        let fingerprints = Fingerprints::new(salt);
        let state = State::load(&conn, fingerprints).map_err(database)?;
        let reader = Reader::open(&path).map_err(database)?;
        let scanner = Reader::open(&path).map_err(database)?;
        let (sender, stored_lines) = watch::channel(state.next_line - 1);
        let writer =
            Writer::start(conn, state, fingerprints, reserve, sender).map_err(|source| OpenError::Io {
                action: "start the writer thread of",
                path,
                source,
            })?;
        Ok(Self {
            info,
            writer,
            fingerprints,
            reader,
            scanner,
            stored_lines,
            _files: files,
        })
    }

    /// Runs work that protects and can also refuse.
    async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&mut writer::Tx<'_>) -> rusqlite::Result<Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.writer.run_protecting(1, work).await.map_err(E::from)?
    }
}

impl Store for SqliteStore {
    fn info(&self) -> &StoreInfo {
        &self.info
    }

    fn housekeeping(&self, time: KnownTime) -> StoreFuture<'_, Housekeeping> {
        Box::pin(prune::round(&self.writer, time))
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.writer.run_with_room(1, |tx| schema::write_a_page(tx.conn)))
    }

    fn failed_writes(&self) -> watch::Receiver<u64> {
        self.writer.failed()
    }
}

impl Ledger for SqliteStore {
    fn issue(
        &self,
        batch: Vec<NewIssuance>,
        now: SystemTime,
    ) -> StoreFuture<'_, Vec<Result<Recorded, IssueRefusal>>> {
        Box::pin(issue::recorded(&self.writer, self.fingerprints, batch, now))
    }

    fn list(&self, filter: SvidFilter) -> StoreFuture<'_, SvidPage> {
        Box::pin(self.scanner.run(move |tx| read::list(tx, &filter)))
    }

    fn unreviewed(&self, after: Option<SerialNumber>, limit: usize) -> StoreFuture<'_, Vec<LedgerRow>> {
        Box::pin(self.scanner.run(move |tx| read::unreviewed(tx, after, limit)))
    }

    fn reviewed(&self, serials: Vec<SerialNumber>) -> StoreFuture<'_, ()> {
        let work = move |tx: &mut writer::Tx<'_>| issue::reviewed(tx.conn, &serials);
        Box::pin(self.writer.run(1, work))
    }

    fn pod_tokens(&self, now: SystemTime) -> StoreFuture<'_, Vec<PodTokenUse>> {
        Box::pin(self.scanner.run(move |tx| read::pod_tokens(tx, now)))
    }

    fn live_counts(&self, now: SystemTime) -> StoreFuture<'_, Vec<AuthorityUse>> {
        let uses = move |tx: &mut writer::Tx<'_>| tx.state.authority_uses(millis(now));
        Box::pin(self.writer.run(0, uses))
    }
}

impl Lists for SqliteStore {
    fn admit(&self, rooms: Vec<ListRoom>, earliest: SystemTime) -> StoreFuture<'_, Admitted> {
        Box::pin(entering::admit_waiting(
            &self.reader,
            &self.writer,
            rooms,
            earliest,
        ))
    }

    fn revoked(&self, authority: AuthorityId) -> StoreFuture<'_, RevokedSet> {
        Box::pin(self.reader.run(move |tx| read::revoked(tx, authority)))
    }

    fn save_crl(&self, crl: StoredCrl) -> StoreFuture<'_, ()> {
        Box::pin(self.write(move |tx| journal::save_crl(tx, &crl)))
    }

    fn load_crls(&self) -> StoreFuture<'_, Vec<StoredCrl>> {
        Box::pin(self.reader.run(|tx| read::crls(tx)))
    }

    fn next_sequence(&self, content_digest: [u8; 32]) -> StoreFuture<'_, u64> {
        let digest = hex::encode(content_digest);
        Box::pin(
            self.writer
                .run_protecting(1, move |tx| journal::next_sequence(tx.conn, &digest)),
        )
    }
}

impl Journals for SqliteStore {
    fn load_journal(&self, kind: AuthorityKind) -> StoreFuture<'_, Option<Journal>> {
        Box::pin(self.reader.run(move |tx| read::journal(tx, kind)))
    }

    fn save_journal(
        &self,
        kind: AuthorityKind,
        expected_revision: u64,
        body: Vec<u8>,
        keys: KeyChanges,
        audit: Vec<AuditEvent>,
    ) -> StoreFuture<'_, u64> {
        Box::pin(self.write(move |tx| journal::save(tx, kind, expected_revision, &body, &keys, &audit)))
    }

    fn load_keys(&self) -> StoreFuture<'_, Vec<SealedKey>> {
        Box::pin(self.reader.run(|tx| read::keys(tx)))
    }

    fn save_key(&self, key: SealedKey) -> StoreFuture<'_, ()> {
        Box::pin(
            self.writer
                .run_protecting(1, move |tx| journal::save_key(tx.conn, &key)),
        )
    }
}

impl AttestedAgents for SqliteStore {
    fn present(&self, certificate: PresentedCertificate, now: SystemTime) -> StoreFuture<'_, Presented> {
        let present = move |tx: &mut writer::Tx<'_>| agents::present(tx, &certificate, now);
        Box::pin(self.writer.run_protecting(1, present))
    }

    fn live_agents(&self, now: SystemTime) -> StoreFuture<'_, Vec<LiveAgent>> {
        Box::pin(self.reader.run(move |tx| agents::live(tx, now)))
    }

    fn record_reports(&self, reports: Vec<(SpiffeId, u64)>) -> StoreFuture<'_, ()> {
        let work = move |tx: &mut writer::Tx<'_>| agents::reported(tx.conn, &reports);
        Box::pin(self.writer.run(1, work))
    }

    fn agent(&self, agent: &SpiffeId) -> StoreFuture<'_, Option<AgentRow>> {
        let agent = agent.clone();
        Box::pin(self.reader.run(move |tx| known_agents::one(tx, &agent)))
    }

    fn agents(&self) -> StoreFuture<'_, Vec<AgentRow>> {
        Box::pin(self.reader.run(|tx| known_agents::all(tx)))
    }
}

impl AuditOutbox for SqliteStore {
    fn append(&self, events: Vec<AuditEvent>) -> StoreFuture<'_, ()> {
        Box::pin(self.writer.run(events.len(), move |tx| {
            tx.audit.events(&events);
            Ok(())
        }))
    }

    fn stored(&self) -> watch::Receiver<u64> {
        self.stored_lines.clone()
    }

    fn bound(&self, most: Option<u64>) {
        self.writer.bound_lines(most);
    }

    fn left_out(&self) -> u64 {
        self.writer.lines_left_out()
    }

    fn cursor(&self) -> StoreFuture<'_, AuditCursor> {
        Box::pin(self.reader.run(|tx| audit_rows::read_cursor(tx)))
    }

    fn head(&self) -> StoreFuture<'_, Option<String>> {
        Box::pin(self.reader.run(|tx| audit_rows::read_head(tx)))
    }

    fn lines_after(&self, sequence: u64, limit: usize) -> StoreFuture<'_, Vec<StoredLine>> {
        Box::pin(
            self.scanner
                .run(move |tx| lines::lines_after(tx, sequence, limit)),
        )
    }

    fn advance(&self, cursor: AuditCursor, head: Option<String>) -> StoreFuture<'_, ()> {
        Box::pin(self.writer.run(1, move |tx| {
            audit_rows::advance(tx.conn, &cursor, head.as_deref())?;
            tx.state.emitted = tx.state.emitted.max(cursor.sequence);
            Ok(())
        }))
    }
}
