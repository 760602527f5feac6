//! Writes that concern authorities, their keys, lists and sequence numbers.

use rusqlite::{Connection, OptionalExtension as _, params};
use signet_certs::authority::AuthorityKind;

use super::convert::{crl_number_at, millis, number_at};
use super::proofs;
use super::read;
use super::schema::{meta_number, meta_text, set_meta};
use super::writer::Tx;
use crate::audit_event::AuditEvent;
use crate::store::{KeyChanges, SealedKey, StoreError, StoredCrl};

/// Compare-and-swap of a journal, with its keys and audit lines.
pub(super) fn save(
    tx: &mut Tx<'_>,
    kind: AuthorityKind,
    expected: u64,
    body: &[u8],
    keys: &KeyChanges,
    audit: &[AuditEvent],
) -> rusqlite::Result<Result<u64, StoreError>> {
    let stored = read::journal(tx.conn, kind)?.map_or(0, |journal| journal.revision);
    if stored != expected {
        return Ok(Err(StoreError::Conflict { expected, stored }));
    }
    let revision = stored + 1;
    tx.conn
        .prepare_cached(
            "INSERT INTO journal (kind, revision, body) VALUES (?1, ?2, ?3)
             ON CONFLICT (kind) DO UPDATE SET revision = excluded.revision, body = excluded.body",
        )?
        .execute(params![kind.to_string(), revision.cast_signed(), body])?;
    for key in &keys.add {
        tx.state.authorities.intern(tx.conn, key.authority_id)?;
        save_key(tx.conn, key)?;
    }
    for id in &keys.remove {
        tx.conn
            .prepare_cached("DELETE FROM sealed_key WHERE authority_id = ?1")?
            .execute([id.as_bytes()])?;
    }
    tx.audit.events(audit);
    Ok(Ok(revision))
}

pub(super) fn save_key(conn: &Connection, key: &SealedKey) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT OR REPLACE INTO sealed_key (authority_id, purpose, kek_id, epoch, nonce, ciphertext)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        key.authority_id.as_bytes(),
        key.purpose.to_string(),
        key.kek_id,
        key.epoch.cast_signed(),
        key.nonce,
        key.ciphertext,
    ])?;
    Ok(())
}

/// Keeps a CRL, if it is newer in number and content.
pub(super) fn save_crl(tx: &mut Tx<'_>, crl: &StoredCrl) -> rusqlite::Result<Result<(), StoreError>> {
    let known = tx.state.authorities.known(&crl.authority);
    let stored = match known {
        Some(row) => tx
            .conn
            .prepare_cached("SELECT number, revision FROM crl WHERE authority = ?1")?
            .query_row([row], |row| Ok((crl_number_at(row, 0)?, number_at(row, 1)?)))
            .optional()?,
        None => None,
    };
    if let Some((number, revision)) = stored
        && let Err(not_newer) = crl.check_follows(number, revision)
    {
        return Ok(Err(not_newer));
    }
    write_crl(tx, crl)?;
    Ok(Ok(()))
}

fn write_crl(tx: &mut Tx<'_>, crl: &StoredCrl) -> rusqlite::Result<()> {
    let authority = tx.state.authorities.intern(tx.conn, crl.authority)?;
    tx.conn
        .prepare_cached(
            "INSERT OR REPLACE INTO crl (authority, number, der, this_update, next_update, revision)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            authority,
            crl.number.0.cast_signed(),
            crl.der.as_ref(),
            millis(crl.this_update),
            millis(crl.next_update),
            crl.revision.cast_signed(),
        ])?;
    proofs::remember(tx.conn, authority, crl)?;
    // These were on the list just stored, and it was made after they expired (RFC 5280 §3.3): they need no other. The list's
    // date alone does not show that, nor does a time that is not settled.
    let leave = tx
        .conn
        .prepare_cached(
            "UPDATE revocation SET listed = 1
             WHERE authority = ?1 AND entered = 1 AND listed = 0 AND revision <= ?2 AND not_after < ?3",
        )?
        .execute(params![
            authority,
            crl.revision.cast_signed(),
            millis(crl.this_update).min(tx.state.settled)
        ])?;
    if leave > 0 {
        tx.state.judged = None;
    }
    Ok(())
}

/// The sequence number of a bundle with this content.
pub(super) fn next_sequence(conn: &Connection, digest: &str) -> rusqlite::Result<u64> {
    let current = meta_number(conn, "bundle_sequence")?;
    if current > 0 && meta_text(conn, "bundle_digest")?.as_deref() == Some(digest) {
        return Ok(current);
    }
    set_meta(conn, "bundle_sequence", &(current + 1).to_string())?;
    set_meta(conn, "bundle_digest", digest)?;
    Ok(current + 1)
}
