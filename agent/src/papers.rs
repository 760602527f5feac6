//! Files of identities as people find them: what is in them, and what is wrong with it. Pure but for reading: the time is an argument.

mod read;
mod trouble;
mod verdict;

use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::{Value, json};
use signet_certs::authority::AuthorityCertificate;
use signet_certs::crl::CrlInfo;
use signet_certs::time::rfc3339;
use signet_certs::verify::LeafInfo;
use signet_runtime::table::{Table, age};

pub(crate) use self::read::read;
pub(crate) use self::trouble::troubles;
pub(crate) use self::verdict::{Asked, verify};

/// One object, and where it was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub file: PathBuf,
    pub paper: Paper,
}

/// What it is.
#[derive(Clone, Debug)]
pub(crate) enum Paper {
    /// The certificate of a workload.
    Svid(LeafInfo, Vec<u8>),
    Authority(AuthorityCertificate),
    Crl(CrlInfo, Vec<u8>),
    /// A private key, by the SHA-256 of its public half, which is all that is kept of it; and whether everybody may read its file.
    Key {
        spki_sha256: [u8; 32],
        is_open: bool,
    },
    /// Something else, or something broken: why.
    Unusable {
        label: String,
        why: String,
    },
}

impl Paper {
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Svid(..) => "svid",
            Self::Authority(_) => "authority",
            Self::Crl(..) => "crl",
            Self::Key { .. } => "key",
            Self::Unusable { .. } => "unusable",
        }
    }

    /// First and last moment.
    fn dates(&self) -> Option<(SystemTime, Option<SystemTime>)> {
        match self {
            Self::Svid(leaf, _) => Some((leaf.not_before, Some(leaf.not_after))),
            Self::Authority(authority) => Some((authority.not_before(), Some(authority.not_after()))),
            Self::Crl(crl, _) => Some((crl.this_update, crl.next_update)),
            Self::Key { .. } | Self::Unusable { .. } => None,
        }
    }

    /// What it is about, by whom, and what tells it from others of its kind.
    fn facts(&self) -> [String; 3] {
        let dash = || "-".to_owned();
        match self {
            Self::Svid(leaf, _) => [
                leaf.spiffe_id.to_string(),
                leaf.authority_id.to_string(),
                format!("serial {}", leaf.serial),
            ],
            Self::Authority(authority) => [
                authority
                    .trust_domain()
                    .map_or_else(|| authority.subject(), ToString::to_string),
                authority.id().to_string(),
                format!("serial {}", authority.serial()),
            ],
            Self::Crl(crl, _) => {
                let number = crl
                    .number
                    .map_or_else(|| "no number".to_owned(), |number| format!("number {number}"));
                let by = crl.authority_id.map_or_else(dash, |id| id.to_string());
                [format!("{} revoked", crl.entries), by, number]
            }
            Self::Key { .. } => [dash(), dash(), dash()],
            Self::Unusable { label, .. } => [label.clone(), dash(), dash()],
        }
    }
}

/// For programs.
pub(crate) fn to_json(found: &[Found], troubles: &[String]) -> Value {
    let one = |found: &Found| {
        let [about, authority, which] = found.paper.facts();
        let (begins, ends) = found.paper.dates().unzip();
        json!({
            "file": found.file.display().to_string(),
            "kind": found.paper.kind(),
            "about": about,
            "authority": authority,
            "which": which,
            "begins": begins.map(rfc3339),
            "ends": ends.flatten().map(rfc3339),
        })
    };
    json!({ "found": found.iter().map(one).collect::<Vec<_>>(), "troubles": troubles })
}

/// For people.
pub(crate) fn to_text(found: &[Found], troubles: &[String], now: SystemTime) -> String {
    let mut table = Table::new(&["FILE", "KIND", "ABOUT", "AUTHORITY", "WHICH", "BEGAN", "ENDS"]);
    for Found { file, paper } in found {
        let [about, authority, which] = paper.facts();
        let moment = |at: Option<SystemTime>| at.map_or_else(|| "-".to_owned(), |at| age(now, at));
        let (begins, ends) = paper.dates().unzip();
        let file = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
        table.row([
            file.as_ref(),
            paper.kind(),
            &about,
            &authority,
            &which,
            &moment(begins),
            &moment(ends.flatten()),
        ]);
    }
    let mut text = table.render();
    text.push('\n');
    for trouble in troubles {
        text.push_str(&format!("{trouble}\n"));
    }
    if troubles.is_empty() {
        text.push_str("nothing is wrong with them\n");
    }
    text
}

#[cfg(test)]
mod tests;
