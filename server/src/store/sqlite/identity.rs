//! Who a store belongs to.

use std::time::SystemTime;

use ring::rand::{SecureRandom as _, SystemRandom};
use rusqlite::Connection;
use signet_certs::id::TrustDomain;
use signet_certs::time::from_unix_millis;

use super::convert::unreadable;
use super::read;
use super::schema::{JUMPED, MARK, meta_number, meta_text, set_meta};
use crate::store::StoreInfo;

/// Fills with randomness.
pub(super) fn fill(bytes: &mut [u8]) -> rusqlite::Result<()> {
    SystemRandom::new()
        .fill(bytes)
        .map_err(|_| unreadable(0, "random source"))
}

/// Reads who the store belongs to and counts the boot; a new store gets its name here. Changes nothing in a store of
/// another trust domain.
pub(super) fn identify(conn: &mut Connection, trust_domain: &TrustDomain) -> rusqlite::Result<StoreInfo> {
    let tx = conn.transaction()?;
    if meta_text(&tx, "trust_domain")?.is_none() {
        let mut name = [0; 8];
        fill(&mut name)?;
        set_meta(&tx, "trust_domain", trust_domain.as_str())?;
        set_meta(&tx, "server_id", &hex::encode(name))?;
        set_meta(&tx, "epoch", "1")?;
    }
    let stored = meta_text(&tx, "trust_domain")?.unwrap_or_default();
    let info = StoreInfo {
        trust_domain: TrustDomain::parse(&stored).map_err(|_| unreadable(0, "trust domain"))?,
        epoch: meta_number(&tx, "epoch")?,
        server_id: meta_text(&tx, "server_id")?.unwrap_or_default(),
        boot: meta_number(&tx, "boot")? + 1,
        was_empty: read::keys(&tx)?.is_empty(),
        mark: mark(&tx)?,
        jumped: meta_number(&tx, JUMPED)? == 1,
    };
    if info.trust_domain == *trust_domain {
        set_meta(&tx, "boot", &info.boot.to_string())?;
        tx.commit()?;
    }
    Ok(info)
}

/// The mark of time; zero stands for none.
fn mark(conn: &Connection) -> rusqlite::Result<Option<SystemTime>> {
    let millis = meta_number(conn, MARK)?.cast_signed();
    Ok((millis > 0).then(|| from_unix_millis(millis)))
}
