//! Between columns and types. A column that does not read is damage, never a default.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use rusqlite::types::Type;
use rusqlite::{ErrorCode, Row};
use signet_certs::authority::AuthorityId;
use signet_certs::crl::CrlNumber;
use signet_certs::serial::SerialNumber;
use signet_certs::time::{from_unix_millis, unix_millis};

use crate::store::StoreError;

/// A stored value that is not what the schema promises.
#[derive(Debug, thiserror::Error)]
#[error("{0} does not read")]
pub(super) struct Unreadable(pub(super) &'static str);

/// The error for column `index`.
pub(super) fn unreadable(index: usize, what: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, Type::Null, Box::new(Unreadable(what)))
}

pub(super) fn millis(time: SystemTime) -> i64 {
    unix_millis(time)
}

/// A span of time in milliseconds.
pub(super) fn span_ms(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn time_at(row: &Row<'_>, index: usize) -> rusqlite::Result<SystemTime> {
    Ok(from_unix_millis(row.get(index)?))
}

pub(super) fn optional_time_at(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<SystemTime>> {
    Ok(row.get::<_, Option<i64>>(index)?.map(from_unix_millis))
}

pub(super) fn number_at(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(index)?.cast_unsigned())
}

pub(super) fn serial_at(row: &Row<'_>, index: usize) -> rusqlite::Result<SerialNumber> {
    let bytes = row.get_ref(index)?.as_blob()?;
    SerialNumber::from_unsigned(bytes).map_err(|_| unreadable(index, "serial"))
}

pub(super) fn authority_at(row: &Row<'_>, index: usize) -> rusqlite::Result<AuthorityId> {
    row.get(index).map(AuthorityId::from_bytes)
}

pub(super) fn crl_number_at(row: &Row<'_>, index: usize) -> rusqlite::Result<CrlNumber> {
    number_at(row, index).map(CrlNumber)
}

pub(super) fn text_at<'r>(row: &'r Row<'_>, index: usize) -> rusqlite::Result<&'r str> {
    Ok(row.get_ref(index)?.as_str()?)
}

/// A column whose type reads itself from text.
pub(super) fn parsed_at<T: FromStr>(row: &Row<'_>, index: usize, what: &'static str) -> rusqlite::Result<T> {
    text_at(row, index)?.parse().map_err(|_| unreadable(index, what))
}

/// What a database error means to a caller.
pub(super) fn store_error(error: &rusqlite::Error) -> StoreError {
    let message = error.to_string();
    match error {
        rusqlite::Error::SqliteFailure(failure, _)
            if matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) =>
        {
            StoreError::Corrupt { message }
        }
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::IntegralValueOutOfRange(..) => StoreError::Corrupt { message },
        _ => StoreError::Unavailable { message },
    }
}
