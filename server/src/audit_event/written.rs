//! How values stand in audit lines.

use std::fmt::Display;
use std::time::SystemTime;

use serde::Serializer;
use signet_certs::time::rfc3339;

pub(super) fn text<S: Serializer>(value: &impl Display, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(value)
}

pub(super) fn optional_text<S: Serializer>(value: &Option<impl Display>, out: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => out.collect_str(value),
        None => out.serialize_none(),
    }
}

pub(super) fn time<S: Serializer>(value: &SystemTime, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(&rfc3339(*value))
}

pub(super) fn optional_time<S: Serializer>(value: &Option<SystemTime>, out: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => time(value, out),
        None => out.serialize_none(),
    }
}
